//! Files that may hold commands, and so are used only if no other user could have written them: the rule of
//! `read_config_file_depth` in OpenSSH's readconf.c. Only the file is checked, not the directories above it: in a
//! directory that others may write they can replace the file by their own, which is then refused because of its owner.

use std::fs::File;
use std::path::Path;

use super::Error;
use crate::os::private::{self, NotTrusted};

/// Is this open file ours or root's, and may nobody else write it?
///
/// # Errors
/// [`Error::NotTrusted`], [`Error::File`].
pub(super) fn check(file: &File, path: &Path) -> Result<(), Error> {
    let checked = private::check_file(file, path);
    let checked = checked.map_err(|source| Error::File { action: "read", path: path.into(), source })?;
    checked.map_err(|NotTrusted { reason, remedy }| Error::NotTrusted { path: path.into(), reason, remedy })
}
