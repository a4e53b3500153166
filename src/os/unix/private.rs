//! Files and directories that are this user's alone.
//!
//! Whoever creates the runtime directory can put a fake control socket there and receive passphrases. In `/tmp` that could be
//! any user who knows our uid and is first.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

pub use crate::os::trust::{NotTrusted, Unsafe};

/// Creates a directory that only this user may enter (mode 0700).
///
/// # Errors
/// From the system.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(dir)
}

/// Creates a directory, and those above that are missing, as [`create_dir`] does. No error if it is there.
///
/// # Errors
/// From the system.
pub fn create_dirs(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Has a new file be readable for this user only (mode 0600).
pub fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

/// Has a new file have the mode of the one at `path`, or be [`private`] where there is none.
pub fn as_is<'a>(options: &'a mut OpenOptions, path: &Path) -> &'a mut OpenOptions {
    options.mode(fs::metadata(path).map_or(0o600, |meta| meta.mode() & 0o777))
}

/// A file in `dir` that has no name (O_TMPFILE, or unlinked at once), so that nothing remains however the process ends. Only
/// this user can read it.
///
/// # Errors
/// From the system.
pub fn temporary_file(dir: &Path) -> io::Result<File> {
    let file = tempfile::tempfile_in(dir)?;
    // O_TMPFILE applies the umask.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Whether the file is this user's.
pub fn is_mine(meta: &Metadata) -> bool {
    meta.uid() == me()
}

/// The mode of a file of this user's that others may read, in words.
pub fn readable_by_others(meta: &Metadata) -> Option<String> {
    (is_mine(meta) && meta.mode() & 0o077 != 0).then(|| format!("mode {:04o}", meta.mode() & 0o7777))
}

/// Is this open file ours or root's, and may nobody else write it?
///
/// # Errors
/// The system's; the inner one tells why it is not to be trusted.
pub fn check_file(file: &File, path: &Path) -> io::Result<Result<(), NotTrusted>> {
    let meta = file.metadata()?;
    let kind = meta.file_type();
    // A device such as /dev/null has no content of other users.
    if kind.is_char_device() || kind.is_block_device() {
        return Ok(Ok(()));
    }
    let me = me();
    // Where users are mapped (user_namespaces(7)) root is whoever owns `/`.
    let root = fs::metadata("/").map_or(0, |meta| meta.uid());
    let shown = path.display();
    if ![me, 0, root].contains(&meta.uid()) {
        let reason = format!("it belongs to uid {}, neither to you (uid {me}) nor to root", meta.uid());
        return Ok(Err(NotTrusted { reason, remedy: format!("if what is in it is yours: chown {me} '{shown}'") }));
    }
    if meta.mode() & 0o022 != 0 {
        let reason = format!("others may write it (mode {:04o})", meta.mode() & 0o7777);
        return Ok(Err(NotTrusted { reason, remedy: format!("if what is in it is yours: chmod go-w '{shown}'") }));
    }
    Ok(Ok(()))
}

/// Where the runtime directory is: in `$XDG_RUNTIME_DIR` if that is a directory of ours (not so after `sudo -E`), else in
/// `/run/user/UID` if that is, else `dtunnel-UID` in `temporary`, the directory for temporary files.
pub fn runtime_dir(temporary: PathBuf) -> PathBuf {
    place(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from), Path::new("/run/user"), temporary)
}

fn place(named: Option<PathBuf>, of_users: &Path, temporary: PathBuf) -> PathBuf {
    let me = me();
    let of_user = of_users.join(me.to_string());
    let is_ours =
        |dir: &PathBuf| dir.is_absolute() && fs::metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == me);
    match named.into_iter().chain([of_user]).find(is_ours) {
        Some(dir) => dir.join("dtunnel"),
        None => temporary.join(format!("dtunnel-{me}")),
    }
}

fn me() -> u32 {
    rustix::process::getuid().as_raw()
}

/// Is the directory, if it is there, a real one and ours alone, and can nobody else put another in its place?
///
/// # Errors
/// Why it is not safe.
pub fn check_dir(dir: &Path) -> Result<(), Unsafe> {
    let failed = |action, source| Unsafe::File { action, path: dir.into(), source };
    check_way(dir.parent().unwrap_or(Path::new("/")))?;
    let no_follow = (rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW).bits();
    let opened = OpenOptions::new().read(true).custom_flags(no_follow.cast_signed()).open(dir);
    let meta = match opened.and_then(|handle| handle.metadata()) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A symbolic link is ENOTDIR on Linux and ELOOP elsewhere (open(2), O_NOFOLLOW).
        Err(e)
            if e.kind() == io::ErrorKind::NotADirectory
                || e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) =>
        {
            return Err(Unsafe::Because("it is not a directory, or a symbolic link".into()));
        }
        // One that we may not even open: whose is it?
        Err(e) => match fs::symlink_metadata(dir) {
            Ok(meta) if meta.uid() != me() => meta,
            _ => return Err(failed("open", e)),
        },
    };
    if meta.uid() != me() {
        return Err(Unsafe::Because(format!("it belongs to uid {}, not to you (uid {})", meta.uid(), me())));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(Unsafe::Because(format!("others may enter it (mode {:04o})", meta.mode() & 0o7777)));
    }
    Ok(())
}

/// Can nobody but us and root put another socket in the place of the one at `path`, while a tunnel is up or before? Its
/// directory is ours or root's and nobody else may write in it, with or without the sticky bit: whoever comes first in
/// `/tmp` is who clients talk to. What is above is held to the rules of the runtime directory.
///
/// # Errors
/// Why they can.
pub fn check_place(path: &Path) -> Result<(), Unsafe> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let failed = |source| Unsafe::File { action: "open", path: parent.into(), source };
    match fs::metadata(parent) {
        // Where there is no directory, nothing can be opened there.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(failed)?,
    };
    // The path is checked first: then others cannot change what is found at its end.
    check_way(parent)?;
    let meta = fs::metadata(parent).map_err(failed)?;
    if meta.mode() & 0o022 != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(Unsafe::Because(format!("{} may be written by others (mode {mode:04o})", parent.display())));
    }
    Ok(())
}

/// Most symbolic links that are followed, as in the kernel (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// May nobody but us and root change what `parent` leads to? Every directory and link that the kernel goes through is
/// looked at, those on the way of another link included: whoever owns one of them can turn the way elsewhere.
fn check_way(parent: &Path) -> Result<(), Unsafe> {
    let failed = |path: &Path, source| Unsafe::File { action: "open", path: path.into(), source };
    let whole = std::path::absolute(parent).map_err(|source| failed(parent, source))?;
    let root = fs::metadata("/").map_or(0, |meta| meta.uid());
    // What is left of the way, its next part last.
    let mut ahead: Vec<PathBuf> = Vec::new();
    let push = |ahead: &mut Vec<PathBuf>, way: &Path| {
        ahead.extend(way.components().rev().map(|part| PathBuf::from(part.as_os_str())));
    };
    push(&mut ahead, &whole);
    // The directory reached so far, without links in its path.
    let mut here = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        match part.components().next() {
            Some(Component::ParentDir) => {
                here.pop();
                continue;
            }
            Some(Component::CurDir) | None => continue,
            // An absolute path begins again at the top: `join` sees to it.
            Some(Component::RootDir | Component::Normal(_) | Component::Prefix(_)) => {}
        }
        let entry = here.join(part);
        let meta = fs::symlink_metadata(&entry).map_err(|source| failed(&entry, source))?;
        if let Some(reason) = objection(&meta, me(), root) {
            return Err(Unsafe::Because(format!("{} {reason}", entry.display())));
        }
        if !meta.is_symlink() {
            here = entry;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(failed(parent, rustix::io::Errno::LOOP.into()));
        }
        let target = fs::read_link(&entry).map_err(|source| failed(&entry, source))?;
        push(&mut ahead, &target);
    }
    Ok(())
}

/// What is wrong with a directory or link on the way. `root` is the owner of `/`: where users are mapped
/// (user_namespaces(7)) that is not uid 0.
fn objection(meta: &Metadata, me: u32, root: u32) -> Option<String> {
    if ![0, me, root].contains(&meta.uid()) {
        return Some(format!("belongs to uid {}, neither to you (uid {me}) nor to root", meta.uid()));
    }
    // In a directory with the sticky bit only owners can rename and remove (unlink(2)).
    let open_to_others = meta.is_dir() && meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0;
    open_to_others.then(|| format!("may be changed by others (mode {:04o})", meta.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod");
    }

    fn reason(result: Result<(), Unsafe>) -> String {
        match result {
            Err(Unsafe::Because(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_fresh_runtime_directory_is_private() {
        let tmp = tempfile::tempdir().expect("a directory");
        let dir = tmp.path().join("run");
        check_dir(&dir).expect("it may be missing");
        create_dir(&dir).expect("created");
        assert_eq!(fs::metadata(&dir).expect("meta").mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_symbolic_link_an_open_directory_and_a_file_are_refused() {
        let tmp = tempfile::tempdir().expect("a directory");
        let real = tmp.path().join("real");
        create_dir(&real).expect("created");
        let link = tmp.path().join("link");
        symlink(&real, &link).expect("a link");
        assert!(reason(check_dir(&link)).contains("symbolic link"));
        set_mode(&real, 0o755);
        assert!(reason(check_dir(&real)).contains("others may enter it (mode 0755)"));
        let file = tmp.path().join("file");
        fs::write(&file, "").expect("a file");
        assert!(reason(check_dir(&file)).contains("not a directory"));
    }

    #[test]
    fn a_way_that_others_may_change_is_refused() {
        let tmp = tempfile::tempdir().expect("a directory");
        let open = tmp.path().join("open");
        fs::create_dir_all(open.join("inner")).expect("made");
        create_dir(&open.join("inner/run")).expect("created");
        for (mode, safe) in [(0o777, false), (0o770, false), (0o1777, true), (0o755, true)] {
            set_mode(&open, mode);
            let checked = check_dir(&open.join("inner/run"));
            assert_eq!(checked.is_ok(), safe, "{mode:o}: {checked:?}");
        }
        // A link is followed to where it leads.
        set_mode(&open, 0o777);
        let link = tmp.path().join("link");
        symlink(open.join("inner"), &link).expect("a link");
        assert!(reason(check_dir(&link.join("run"))).contains("may be changed by others (mode 0777)"));
    }

    #[test]
    fn a_socket_has_its_place_where_nobody_else_may_write() {
        let tmp = tempfile::tempdir().expect("a directory");
        let dir = tmp.path().join("dir");
        fs::create_dir_all(dir.join("inner")).expect("made");
        // Of its own directory, and of one above.
        for (mode, own, above) in
            [(0o700, true, true), (0o755, true, true), (0o775, false, false), (0o1777, false, true)]
        {
            set_mode(&dir, mode);
            assert_eq!(check_place(&dir.join("x.sock")).is_ok(), own, "{mode:o}");
            assert_eq!(check_place(&dir.join("inner/x.sock")).is_ok(), above, "{mode:o}");
        }
        // As written, and where links lead.
        let link = tmp.path().join("link");
        symlink(&dir, &link).expect("a link");
        assert!(check_place(&link.join("x.sock")).is_err());
        assert!(check_place(Path::new("/tmp/x.sock")).is_err(), "whoever comes first");
        assert!(check_place(&tmp.path().join("missing/x.sock")).is_ok());
    }

    #[test]
    fn every_link_on_the_way_is_walked() {
        let tmp = tempfile::tempdir().expect("a directory");
        let (open, real) = (tmp.path().join("open"), tmp.path().join("real"));
        fs::create_dir_all(open.join("in")).expect("made");
        create_dir(&real).expect("created");
        set_mode(&open, 0o777);
        // From a safe directory to a safe one, and between them through one that others may change.
        symlink(&real, open.join("second")).expect("a link");
        symlink(open.join("second"), tmp.path().join("first")).expect("a link");
        symlink("open/in/../../real", tmp.path().join("back")).expect("a link");
        for link in ["first", "back"] {
            let way = tmp.path().join(link);
            assert!(
                reason(check_dir(&way.join("run"))).contains("open may be changed by others (mode 0777)"),
                "{link}"
            );
            assert!(check_place(&way.join("x.sock")).is_err(), "{link}");
        }
        set_mode(&open, 0o755);
        for link in ["first", "back"] {
            check_dir(&tmp.path().join(link).join("run")).expect(link);
            check_place(&tmp.path().join(link).join("x.sock")).expect(link);
        }
        let ring = tmp.path().join("ring");
        symlink(&ring, &ring).expect("a link");
        assert!(matches!(check_dir(&ring.join("run")), Err(Unsafe::File { .. })), "it leads nowhere");
    }

    #[test]
    fn another_users_directory_is_passed_over() {
        let tmp = tempfile::tempdir().expect("a directory");
        let own = tmp.path().join(me().to_string());
        let place = |named: Option<&Path>| place(named.map(Into::into), tmp.path(), "/tmp".into());
        assert!(place(None).ends_with(format!("dtunnel-{}", me())));
        assert!(place(Some(Path::new("relative"))).ends_with(format!("dtunnel-{}", me())));
        fs::create_dir(&own).expect("made");
        assert_eq!(place(None), own.join("dtunnel"));
        assert_eq!(place(Some(&tmp.path().join("missing"))), own.join("dtunnel"));
        let named = tmp.path().join("named");
        fs::create_dir(&named).expect("made");
        assert_eq!(place(Some(&named)), named.join("dtunnel"));
        let others = Path::new(if me() == 0 { "/var/mail" } else { "/" });
        if fs::metadata(others).is_ok_and(|meta| meta.uid() != me()) {
            assert_eq!(place(Some(others)), own.join("dtunnel"));
        }
    }
}
