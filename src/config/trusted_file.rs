//! Files that may hold commands, and so are used only if no other user could have written them: the rule of
//! `read_config_file_depth` in OpenSSH's readconf.c. Only the file is checked, not the directories above it: in a
//! directory that others may write they can replace the file by their own, which is then refused because of its owner.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::Error;

/// Is this open file ours or root's, and may nobody else write it?
///
/// # Errors
/// [`Error::NotTrusted`], [`Error::File`].
pub(super) fn check(file: &File, path: &Path) -> Result<(), Error> {
    let meta = file.metadata().map_err(|source| Error::File { action: "read", path: path.into(), source })?;
    let kind = meta.file_type();
    // A device such as /dev/null has no content of other users.
    if kind.is_char_device() || kind.is_block_device() {
        return Ok(());
    }
    let me = rustix::process::getuid().as_raw();
    // Where users are mapped (user_namespaces(7)) root is whoever owns `/`.
    let root = std::fs::metadata("/").map_or(0, |meta| meta.uid());
    let refused = |reason: String, remedy: String| Error::NotTrusted { path: path.into(), reason, remedy };
    let shown = path.display();
    if ![me, 0, root].contains(&meta.uid()) {
        let reason = format!("it belongs to uid {}, neither to you (uid {me}) nor to root", meta.uid());
        return Err(refused(reason, format!("if what is in it is yours: chown {me} '{shown}'")));
    }
    if meta.mode() & 0o022 != 0 {
        let reason = format!("others may write it (mode {:04o})", meta.mode() & 0o7777);
        return Err(refused(reason, format!("if what is in it is yours: chmod go-w '{shown}'")));
    }
    Ok(())
}
