//! The mirror by SFTP alone, for logins that may run no commands.
//!
//! The layout on the host is the same. What commands do at once takes several requests here, so some promises have a
//! window, each between a check and the request after it (one round trip at most):
//!
//! - Before a name in a directory is touched, the server is asked where the directory really is (REALPATH). Who writes in a
//!   container could replace it by a link in the window: then a file of the mirror's lands in, or is removed or read from,
//!   a directory outside that the login may write to.
//! - Size and time (in seconds, which is all that the protocol has) are looked at before a file is replaced or removed. A
//!   new name is taken only if it is free, without a window (RENAME does not replace).
//! - A file that is written in place is written over, not under another name first: a cut leaves half of it.
//!
//! SFTP does not tell inodes. So the tree has a mark of its own, `.dtunnel-tmp-mark`, beside the one of the mirror: a tree
//! that the Engine has made anew has none. Names that are not UTF-8 are not carried: the library has none.

mod change;
mod look;
mod take;

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use russh_sftp::client::error::Error;
use russh_sftp::client::{Config, RawSftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use crate::tunnel::mounts::tree::{MAX_LENGTH, Node, RelPath, Touched};

pub(super) use change::send;
pub(super) use look::scan;
pub(super) use take::fetch;

/// A request without an answer for so long ends the session, in seconds.
const PATIENCE: u64 = 60;
/// Files and directories that are open at once. OpenSSH's handles are numbers, as bytes; the library takes them for text,
/// which they are below 128.
const OPEN: usize = 96;
/// Bytes of a read or write, which every server takes.
const CHUNK: usize = 32 * 1024;
/// Reads or writes of one file that are under way.
const WINDOW: usize = 16;
/// Longest mark, in bytes.
const MARK: usize = 64;
/// The tree's own mark: a name that is not carried.
const INNER_MARK: &str = ".dtunnel-tmp-mark";
const POSIX_RENAME: &str = "posix-rename@openssh.com";
/// S_IFMT of inode(7), which has these values on all systems.
const KIND: u32 = 0o170_000;

/// A byte stream to the host's `sftp` subsystem.
pub(in crate::tunnel::mounts) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A session.
pub(super) struct Session {
    raw: RawSftpSession,
    /// A rename may replace what has the name.
    has_posix_rename: bool,
    /// What a cut left is removed once.
    is_swept: AtomicBool,
    /// The mirror's directory, as the server calls it, once it was found.
    root: OnceLock<String>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Whether the session cannot be used after the error.
pub(super) fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::ConnectionAborted)
}

fn failed(error: Error) -> io::Error {
    let kind = match &error {
        Error::Status(status) => match status.status_code {
            StatusCode::NoSuchFile => io::ErrorKind::NotFound,
            StatusCode::PermissionDenied => io::ErrorKind::PermissionDenied,
            StatusCode::Eof => io::ErrorKind::UnexpectedEof,
            StatusCode::OpUnsupported => io::ErrorKind::Unsupported,
            StatusCode::NoConnection | StatusCode::ConnectionLost => io::ErrorKind::ConnectionAborted,
            _ => io::ErrorKind::Other,
        },
        Error::Timeout => return io::Error::new(io::ErrorKind::TimedOut, "the SFTP server does not answer"),
        Error::Limited(_) => io::ErrorKind::Other,
        _ => return io::Error::new(io::ErrorKind::ConnectionAborted, "the SFTP session has ended"),
    };
    let text = crate::text::shown(&error.to_string());
    io::Error::new(kind, text)
}

/// None for what is not there.
fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

fn with_mode(mode: u16) -> FileAttributes {
    FileAttributes { permissions: Some(mode.into()), ..FileAttributes::default() }
}

/// The node, but for a link's target.
fn node_of(attrs: &FileAttributes) -> Option<Node> {
    let permissions = attrs.permissions?;
    let mode = u16::try_from(permissions & 0o777).ok()?;
    Some(match permissions & KIND {
        0o100_000 => {
            let mtime = i64::from(attrs.mtime?).saturating_mul(1_000_000_000);
            Node::File { size: attrs.size?, mtime, mode, touched: Touched::default() }
        }
        0o040_000 => Node::Dir { mode },
        0o120_000 => Node::Link { target: Box::default() },
        _ => Node::Other,
    })
}

/// A path below `dir` on the host.
fn below(dir: &str, path: &RelPath) -> io::Result<String> {
    let path = std::str::from_utf8(path.as_bytes());
    Ok(format!("{dir}/{}", path.map_err(|_| io::Error::other("a name that is not UTF-8 cannot be carried by SFTP"))?))
}

/// The directory on the host that `path` is in.
fn parent(dir: &str, path: &RelPath) -> io::Result<String> {
    path.parent().map_or_else(|| Ok(dir.into()), |parent| below(dir, &parent))
}

impl Session {
    /// Begins a session.
    ///
    /// # Errors
    /// The server's.
    pub(super) async fn open(stream: Box<dyn Stream>) -> io::Result<Self> {
        let config = Config { request_timeout_secs: PATIENCE, ..Config::default() };
        let raw = RawSftpSession::new_with_config(stream, config);
        let version = raw.init().await.map_err(failed)?;
        let has_posix_rename = version.extensions.contains_key(POSIX_RENAME);
        Ok(Self { raw, has_posix_rename, is_swept: AtomicBool::new(false), root: OnceLock::new() })
    }

    /// Whether there is something at the path.
    pub(super) async fn is_there(&self, path: &str) -> io::Result<bool> {
        Ok(optional(self.raw.lstat(path).await.map_err(failed))?.is_some())
    }

    /// Where the path really is.
    pub(super) async fn real(&self, path: &str) -> io::Result<String> {
        let names = self.raw.realpath(path).await.map_err(failed)?.files;
        names.into_iter().next().map(|file| file.filename).ok_or_else(|| io::Error::other("no path"))
    }

    /// Fails if a link leads to the directory, or to one above it below the tree.
    async fn check_dir(&self, path: &str) -> io::Result<()> {
        match self.real(path).await? == path {
            true => Ok(()),
            false => Err(io::Error::other("a link of the host's is in its way")),
        }
    }

    async fn attrs(&self, path: &str) -> io::Result<Option<FileAttributes>> {
        optional(self.raw.lstat(path).await.map(|found| found.attrs).map_err(failed))
    }

    async fn link_target(&self, path: &str) -> io::Result<Vec<u8>> {
        let names = self.raw.readlink(path).await.map_err(failed)?.files;
        let target = names.into_iter().next().map(|file| file.filename).unwrap_or_default();
        match target.contains('\u{fffd}') || target.len() > MAX_LENGTH {
            true => Err(io::Error::other("a link whose target cannot be carried by SFTP")),
            false => Ok(target.into_bytes()),
        }
    }

    async fn close(&self, handle: String) {
        let _ = self.raw.close(handle).await;
    }

    /// A short file's content.
    async fn read_short(&self, path: &str) -> io::Result<Option<String>> {
        let opened = self.raw.open(path, OpenFlags::READ, FileAttributes::empty()).await.map_err(failed);
        let Some(handle) = optional(opened)?.map(|opened| opened.handle) else { return Ok(None) };
        let length = u32::try_from(MARK).map_err(io::Error::other)?;
        let (read, ()) = tokio::join!(self.raw.read(handle.as_str(), 0, length), self.close(handle.clone()));
        let bytes = match read.map_err(failed) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Vec::new(),
            read => read?.data,
        };
        Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    async fn write_short(&self, path: &str, text: &str) -> io::Result<()> {
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let handle = self.raw.open(path, flags, with_mode(0o600)).await.map_err(failed)?.handle;
        let written = self.raw.write(handle.as_str(), 0, format!("{text}\n").into_bytes()).await.map_err(failed);
        self.close(handle).await;
        written.map(|_| ())
    }

    /// What identifies the mirror in the directory `root`: its mark, the tree's owner, and whether the tree has its own mark.
    /// None if there is none.
    async fn identity(&self, root: &str) -> io::Result<Option<String>> {
        let (mark, inner) = (format!("{root}/mark"), format!("{root}/tree/{INNER_MARK}"));
        let tree = format!("{root}/tree");
        let (mark, tree, inner) = tokio::join!(self.read_short(&mark), self.attrs(&tree), self.read_short(&inner));
        let (Some(mark), Some(tree)) = (mark?, tree?) else { return Ok(None) };
        let is_mark = !mark.is_empty() && mark.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_mark || !matches!(node_of(&tree), Some(Node::Dir { .. })) {
            return Ok(None);
        }
        let is_whole = inner.ok().flatten().as_deref() == Some(mark.as_str());
        let own = if is_whole { "own" } else { "strange" };
        let owner = tree.uid.zip(tree.gid).map_or_else(String::new, |(uid, gid)| format!("{uid}:{gid}"));
        Ok(Some(format!("{mark} {owner} {own}")))
    }

    /// Names and attributes in a directory, as far as there are not more than `most`.
    async fn names(&self, path: &str, most: usize) -> io::Result<Vec<(String, FileAttributes)>> {
        let handle = self.raw.opendir(path).await.map_err(failed)?.handle;
        let mut names = Vec::new();
        let read = async {
            loop {
                let one = || self.raw.readdir(handle.as_str());
                let some = tokio::join!(one(), one(), one(), one());
                for answer in [some.0, some.1, some.2, some.3] {
                    match answer.map_err(failed) {
                        Ok(name) => names.extend(name.files.into_iter().map(|file| (file.filename, file.attrs))),
                        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                        Err(e) => return Err(e),
                    }
                }
                if names.len() > most {
                    return Err(io::Error::other("the mirror on the host has more than may be mounted"));
                }
            }
        };
        let read: io::Result<()> = read.await;
        self.close(handle).await;
        read?;
        names.retain(|(name, _)| name != "." && name != "..");
        Ok(names)
    }

    /// Gives `from` the name `to`, over what has it.
    async fn rename_over(&self, from: &str, to: &str) -> io::Result<()> {
        if !self.has_posix_rename {
            // A moment without the file is all that such a server offers.
            optional(self.raw.remove(to).await.map_err(failed))?;
            return self.rename(from, to).await;
        }
        let mut data = Vec::new();
        for path in [from, to] {
            data.extend(u32::try_from(path.len()).map_err(io::Error::other)?.to_be_bytes());
            data.extend(path.bytes());
        }
        match self.raw.extended(POSIX_RENAME, data).await.map_err(failed)? {
            Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
            Packet::Status(status) => Err(failed(Error::Status(status))),
            _ => Err(io::Error::other("a strange answer")),
        }
    }

    /// Gives `from` the free name `to`.
    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.raw.rename(from, to).await.map(|_| ()).map_err(failed)
    }
}

/// Removes a file, or a directory with all that is in it, and follows no link.
async fn remove_all(session: Arc<Session>, path: String) -> io::Result<()> {
    match session.attrs(&path).await?.as_ref().and_then(node_of) {
        None => return Ok(()),
        Some(Node::Dir { .. }) => {}
        Some(_) => return optional(session.raw.remove(&path).await.map_err(failed)).map(|_| ()),
    }
    session.check_dir(&path).await?;
    let _ = session.raw.setstat(&path, with_mode(0o700)).await;
    let names = session.names(&path, usize::MAX).await?;
    let mut files = JoinSet::new();
    for (name, attrs) in names {
        let inner = format!("{path}/{name}");
        if matches!(node_of(&attrs), Some(Node::Dir { .. }) | None) {
            Box::pin(remove_all(session.clone(), inner)).await?;
            continue;
        }
        if files.len() >= OPEN {
            files.join_next().await.transpose()?.transpose()?;
        }
        let session = session.clone();
        files.spawn(async move { optional(session.raw.remove(inner).await.map_err(failed)) });
    }
    while let Some(removed) = files.join_next().await {
        removed??;
    }
    session.raw.rmdir(&path).await.map(|_| ()).map_err(failed)
}

/// Removes the mirror.
///
/// # Errors
/// The server's; something remains.
pub(super) async fn remove(session: Arc<Session>, root: &str) -> io::Result<()> {
    let root = session.real(root).await?;
    remove_all(session, root).await
}

#[cfg(test)]
mod tests;
