//! Private endpoints on this machine: named pipes that only this user may open, connecting to one within bounds, and who is
//! at the other end.
//!
//! A blocking stream has a small runtime of its own, since a pipe's handle has no time limits and serves one direction at a
//! time.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::windows::io::OwnedHandle;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;

use super::pipe::{self, Pipe, both};
use super::{system, user};

/// The receiving half of a [`Stream`].
pub type ReadHalf = tokio::io::ReadHalf<Stream>;
/// The sending half of a [`Stream`].
pub type WriteHalf = tokio::io::WriteHalf<Stream>;

/// The words before a path in a configuration, and in `DOCKER_HOST`.
pub const SCHEME: &str = "npipe";

/// What to say of an endpoint that is none.
pub const NEITHER: &str = "it is neither npipe:////./pipe/NAME, a pipe's path nor tcp:ADDRESS:PORT";

/// An example of an endpoint's path.
pub const EXAMPLE: &str = "npipe:////./pipe/docker-prod";

/// The end of the name of a file in the runtime directory that a tunnel has: its lock.
pub const MARK: &str = ".lock";

/// Where pipes are. Their names are the machine's: not in a directory, and the same for all users.
const PIPES: &str = r"\\.\pipe\";
/// Time limit of connecting where the caller has none: an instance is free again within milliseconds.
const CONNECTING: Duration = Duration::from_secs(10);

/// Where a tunnel's endpoint for docker is.
pub fn endpoint_of(_: &Path, name: &str) -> PathBuf {
    format!("{PIPES}dtunnel-{name}").into()
}

/// Where a tunnel's control endpoint is. The user is part of its name: no other one's tunnel is in its way.
pub fn control_of(_: &Path, name: &str) -> PathBuf {
    format!("{PIPES}dtunnel.control-{}-{name}", user::id()).into()
}

/// A path as `DOCKER_HOST` wants it: `npipe:////./pipe/NAME`.
pub fn docker_host(path: &Path) -> String {
    format!("npipe://{}", path.display().to_string().replace('\\', "/"))
}

/// The path in `text`, which followed the scheme `npipe:`: `////./pipe/NAME`, or with the system's own slashes.
///
/// # Errors
/// What is wrong with it.
pub fn path_in(text: &str) -> Result<PathBuf, &'static str> {
    let path = text.replace('/', r"\");
    // In the form of an URL two more slashes stand before it.
    let path = path.strip_prefix(r"\\").filter(|path| path.starts_with(r"\\")).unwrap_or(&path);
    let name = path.strip_prefix(PIPES).ok_or(r"the path does not begin with \\.\pipe\")?;
    if name.chars().any(char::is_control) {
        return Err("the path holds control characters");
    }
    if name.contains(['%', '?', '#']) {
        return Err("Docker's clients could not find it: %, ? and # have a meaning in npipe:// addresses");
    }
    if name.is_empty() || name.contains('\\') {
        return Err("a pipe has one name, without slashes");
    }
    Ok(path.into())
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: user::Id,
    /// The process, where the system tells it.
    pub pid: Option<u32>,
}

impl Peer {
    /// Whether that is the user of this process.
    pub fn is_this_user(&self) -> bool {
        !self.uid.0.is_empty() && self.uid == user::id()
    }
}

/// A connection of which [`peer`] tells the other end.
pub trait Connection {
    /// See [`peer`].
    ///
    /// # Errors
    /// What the system says.
    fn peer(&self) -> io::Result<Peer>;
}

/// Who made the connection, or the pipe. A pipe of ours lets in nobody else: so its clients are this user's. Of another pipe
/// it is the owner, whom only that user, or an administrator, can make it.
///
/// # Errors
/// What the system says.
pub fn peer(stream: &impl Connection) -> io::Result<Peer> {
    stream.peer()
}

impl Connection for Pipe {
    fn peer(&self) -> io::Result<Peer> {
        let uid = match self {
            Self::Server(_) => user::id(),
            Self::Client(end) => user::Id(system::owner_of(end)?),
        };
        Ok(Peer { uid, pid: self.process() })
    }
}

// ---- asynchronous

/// A connection.
#[derive(Debug)]
pub struct Stream {
    pipe: Pipe,
    read_ended: bool,
    write_ended: bool,
}

impl Stream {
    fn new(pipe: Pipe) -> Self {
        Self { pipe, read_ended: false, write_ended: false }
    }

    pub(super) fn into_pipe(self) -> Pipe {
        self.pipe
    }

    /// Two ends of a new connection, in this order: one that may be cut, and one that sees it.
    ///
    /// # Errors
    /// From the system.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (server, client) = pair()?;
        Ok((Self::new(Pipe::Client(system::client(client)?)), Self::new(Pipe::Server(system::server(server)?))))
    }

    /// Registers a blocking stream that was not used yet with the current runtime.
    ///
    /// # Errors
    /// From the system; it was used.
    pub fn from_std(stream: BlockingStream) -> io::Result<Self> {
        let handle = lock(&stream.unused).take().ok_or(io::ErrorKind::InvalidInput)?;
        register(handle, stream.is_server).map(Self::new)
    }

    /// The two directions.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        tokio::io::split(self)
    }
}

impl Connection for Stream {
    fn peer(&self) -> io::Result<Peer> {
        self.pipe.peer()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read_ended || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(both!(&mut self.pipe, end => Pin::new(end).poll_read(cx, buf)))?;
        self.read_ended = buf.filled().len() == before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            // It would end the direction.
            return Poll::Ready(Ok(0));
        }
        both!(&mut self.pipe, end => Pin::new(end).poll_write(cx, data))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.write_ended {
            ready!(both!(&mut self.pipe, end => Pin::new(end).poll_write(cx, &[])))?;
            self.write_ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// Accepts connections.
#[derive(Debug)]
pub struct Listener {
    name: PathBuf,
    /// The instance that the next client gets.
    next: tokio::sync::Mutex<Option<tokio::net::windows::named_pipe::NamedPipeServer>>,
}

impl Listener {
    /// Registers a listener with the current runtime.
    ///
    /// # Errors
    /// From the system.
    pub fn from_std(listener: BlockingListener) -> io::Result<Self> {
        let first = system::server(listener.first)?;
        Ok(Self { name: listener.name, next: tokio::sync::Mutex::new(Some(first)) })
    }

    /// The next client, and nothing beside it: pipes have no address of the client's. Cancel safe.
    ///
    /// # Errors
    /// From the system.
    pub async fn accept(&self) -> io::Result<(Stream, ())> {
        let mut next = self.next.lock().await;
        if next.is_none() {
            *next = Some(system::server(make(self.name.as_os_str(), false)?)?);
        }
        let connected = match next.as_ref() {
            Some(server) => server.connect().await,
            None => return Err(io::ErrorKind::NotConnected.into()),
        };
        let server = next.take();
        // Made before the client is served: there is always one to find, if a busy one.
        *next = make(self.name.as_os_str(), false).and_then(system::server).ok();
        connected?;
        let server = server.ok_or(io::ErrorKind::NotConnected)?;
        Ok((Stream::new(Pipe::Server(server)), ()))
    }
}

// ---- blocking

/// A pipe that was made, before clients are accepted.
#[derive(Debug)]
pub struct BlockingListener {
    name: PathBuf,
    first: OwnedHandle,
}

/// Nothing: a pipe has no file to remove.
#[derive(Debug)]
pub struct SocketFile;

impl Drop for SocketFile {
    fn drop(&mut self) {}
}

/// Makes the pipe at `path`, which from its creation only this user may open, and no other machine.
///
/// # Errors
/// AddrInUse if a program has a pipe of this name.
pub fn bind_private(path: &Path) -> io::Result<(BlockingListener, SocketFile)> {
    /// ERROR_ACCESS_DENIED and ERROR_PIPE_BUSY (winerror.h): there is one (FILE_FLAG_FIRST_PIPE_INSTANCE in CreateNamedPipeW).
    const TAKEN: [Option<i32>; 2] = [Some(5), Some(231)];
    // FILE_FLAG_FIRST_PIPE_INSTANCE refuses it, too, where that is kept: Wine 8 does not.
    match pipe::open(path, Duration::ZERO) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        _ => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
    }
    let first = make(path.as_os_str(), true).map_err(|e| match e.raw_os_error() {
        error if TAKEN.contains(&error) => io::Error::new(io::ErrorKind::AddrInUse, "another program listens there"),
        _ => e,
    })?;
    Ok((BlockingListener { name: path.into(), first }, SocketFile))
}

fn make(name: &OsStr, is_first: bool) -> io::Result<OwnedHandle> {
    let user = user::id();
    if user.0.is_empty() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the system does not tell this process's user"));
    }
    system::make_pipe(name, &user.0, is_first)
}

/// A new pipe's ends: the server's, and the client's.
fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    let name = pair_name()?;
    let server = make(name.as_ref(), true)?;
    let client = pipe::open(name.as_ref(), CONNECTING)?;
    Ok((server, client))
}

/// A name that nobody can guess.
fn pair_name() -> io::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)?;
    Ok(format!("{PIPES}dtunnel.pair-{:032x}", u128::from_ne_bytes(random)))
}

/// A pipe with a name that nobody can guess, and that name: for another process of this user to open.
pub(super) fn nameless() -> io::Result<(BlockingStream, String)> {
    let name = pair_name()?;
    Ok((BlockingStream::new(make(name.as_ref(), true)?, true), name))
}

fn register(handle: OwnedHandle, is_server: bool) -> io::Result<Pipe> {
    Ok(if is_server { Pipe::Server(system::server(handle)?) } else { Pipe::Client(system::client(handle)?) })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that blocks.
#[derive(Debug)]
pub struct BlockingStream {
    is_server: bool,
    /// Until its first use.
    unused: Mutex<Option<OwnedHandle>>,
    used: Mutex<Option<Used>>,
    read_limit: Mutex<Option<Duration>>,
    write_limit: Mutex<Option<Duration>>,
}

#[derive(Debug)]
struct Used {
    // Dropped before its runtime.
    pipe: Pipe,
    runtime: Runtime,
    is_connected: bool,
    /// Bytes that were read and not taken.
    ahead: Vec<u8>,
    has_ended: bool,
}

impl Used {
    /// Waits for the client of a pipe of ours, once.
    fn connected(&mut self, limit: Option<Duration>) -> io::Result<()> {
        if let Pipe::Server(server) = &self.pipe
            && !self.is_connected
        {
            within(&self.runtime, limit, server.connect())?;
        }
        self.is_connected = true;
        Ok(())
    }
}

/// As sockets do it: what takes longer than its limit "would block".
fn within<T>(runtime: &Runtime, limit: Option<Duration>, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    runtime.block_on(async {
        match limit {
            None => work.await,
            Some(limit) => {
                tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into()))
            }
        }
    })
}

impl BlockingStream {
    pub(super) fn new(handle: OwnedHandle, is_server: bool) -> Self {
        let none = || Mutex::new(None);
        Self {
            is_server,
            unused: Mutex::new(Some(handle)),
            used: Mutex::new(None),
            read_limit: none(),
            write_limit: none(),
        }
    }

    /// Two ends of a new connection.
    ///
    /// # Errors
    /// From the system.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (server, client) = pair()?;
        Ok((Self::new(client, false), Self::new(server, true)))
    }

    /// Limits how long a read may take. None: any time.
    ///
    /// # Errors
    /// None.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        *lock(&self.read_limit) = limit;
        Ok(())
    }

    /// Limits how long a write may take. None: any time.
    ///
    /// # Errors
    /// None.
    pub fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        *lock(&self.write_limit) = limit;
        Ok(())
    }

    /// Nothing: whether it blocks is decided by [`Stream::from_std`].
    ///
    /// # Errors
    /// None.
    pub fn set_nonblocking(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn using<T>(&self, limit: Option<Duration>, work: impl FnOnce(&mut Used) -> io::Result<T>) -> io::Result<T> {
        let mut used = lock(&self.used);
        if used.is_none() {
            let handle = lock(&self.unused).take().ok_or(io::ErrorKind::NotConnected)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let entered = runtime.enter();
            let pipe = register(handle, self.is_server)?;
            drop(entered);
            *used = Some(Used { pipe, runtime, is_connected: false, ahead: Vec::new(), has_ended: false });
        }
        let used = used.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        used.connected(limit)?;
        work(used)
    }

    /// Whether there is something to read, or the end, within `limit`. What is there is kept for the next read.
    pub(super) fn has_news(&self, limit: Duration) -> bool {
        let waited = self.using(Some(limit), |used| {
            if used.ahead.is_empty() && !used.has_ended {
                used.ahead.reserve(4096);
                let read = within(&used.runtime, Some(limit), used.pipe.read_buf(&mut used.ahead))?;
                used.has_ended = read == 0;
            }
            Ok(())
        });
        !matches!(waited, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Connection for BlockingStream {
    fn peer(&self) -> io::Result<Peer> {
        let unused = lock(&self.unused);
        match (&*unused, self.is_server) {
            (Some(_), true) => Ok(Peer { uid: user::id(), pid: None }),
            (Some(handle), false) => {
                let pid = system::server_process(handle).ok().filter(|pid| *pid > 0);
                Ok(Peer { uid: user::Id(system::owner_of(handle)?), pid })
            }
            (None, _) => {
                drop(unused);
                self.using(None, |used| used.pipe.peer())
            }
        }
    }
}

impl Read for BlockingStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = *lock(&self.read_limit);
        self.using(limit, |used| {
            if used.ahead.is_empty() && !used.has_ended {
                used.ahead.reserve(buffer.len());
                let read = within(&used.runtime, limit, used.pipe.read_buf(&mut used.ahead))?;
                used.has_ended = read == 0;
            }
            let taken = buffer.len().min(used.ahead.len());
            buffer[..taken].copy_from_slice(&used.ahead[..taken]);
            zeroize::Zeroize::zeroize(&mut used.ahead[..taken]);
            used.ahead.drain(..taken);
            Ok(taken)
        })
    }
}

impl Write for &BlockingStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let limit = *lock(&self.write_limit);
        if data.is_empty() {
            return Ok(0);
        }
        self.using(limit, |used| within(&used.runtime, limit, used.pipe.write(data)))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for BlockingStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Connects to the pipe at `path`.
///
/// # Errors
/// What the system says: NotFound where nobody listens, TimedOut after `limit`.
pub fn connect_within(path: &Path, limit: Duration) -> io::Result<BlockingStream> {
    pipe::open(path, limit).map(|handle| BlockingStream::new(handle, false))
}

/// What is at the place of an endpoint.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "as on other systems; there is one at a time")]
pub enum Place {
    /// Nothing.
    Free,
    /// Something else, that is not to be replaced.
    Foreign,
    /// The pipe of this other user.
    OfUser(user::Id),
    /// One at which a program listens: its name and process id are found by the connection.
    Listens(BlockingStream),
    /// One at which a program listens that accepts no connections.
    Busy,
    /// One that a program has left behind. Pipes go with their program.
    LeftOver,
}

/// Looks at the place of an endpoint; a program that listens there has `limit` to accept a connection.
pub fn look(path: &Path, limit: Duration) -> Place {
    match connect_within(path, limit) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Place::Free,
        Err(e) if e.kind() == io::ErrorKind::TimedOut => Place::Busy,
        Err(_) => Place::Foreign,
        Ok(stream) => match peer(&stream) {
            Ok(peer) if !peer.is_this_user() => Place::OfUser(peer.uid),
            _ => Place::Listens(stream),
        },
    }
}

/// None: a pipe's access is fixed when it is made.
pub fn open_to_others(_: &Path) -> Option<u32> {
    None
}
