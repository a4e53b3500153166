//! Identifies the program at the other end of a local connection: only this user's are allowed.
//!
//! A Unix socket gives its peer's user (SO_PEERCRED in unix(7), getpeereid(3)). A loopback TCP connection does not, but
//! Linux gives the owner of every socket (sock_diag(7), and /proc/net/tcp in proc(5)).

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;

use tokio::net::{TcpStream, UnixStream};

use super::stream::LocalStream;
use crate::proc_net;

/// The client process.
#[derive(Debug, Clone, Default)]
pub(in crate::tunnel) struct Who {
    /// Its process id, if the system tells.
    pub(in crate::tunnel) pid: Option<u32>,
    /// The name of its program, without arguments, which may hold secrets.
    pub(in crate::tunnel) command: Option<String>,
}

impl Who {
    /// The process id of a Unix socket's client.
    pub(in crate::tunnel) fn pid_of(local: &LocalStream) -> Option<u32> {
        let LocalStream::Unix { stream, .. } = local else { return None };
        stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok())
    }

    pub(in crate::tunnel) async fn of(local: &LocalStream) -> Self {
        let pid = match local {
            LocalStream::Unix { .. } => Self::pid_of(local),
            LocalStream::Tcp(stream) => match (stream.peer_addr(), stream.local_addr()) {
                // A search through all processes would delay the thread that serves all clients.
                (Ok(client), Ok(server)) => {
                    tokio::task::spawn_blocking(move || holder_of(client, server)).await.ok().flatten()
                }
                _ => None,
            },
        };
        Self::of_pid(pid)
    }

    pub(in crate::tunnel) fn of_pid(pid: Option<u32>) -> Self {
        let command = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        Self { pid, command: command.map(|name| name.trim_end().escape_debug().to_string()) }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pid = self.pid.map_or_else(|| "?".into(), |pid| pid.to_string());
        // Clients of other users were rejected before.
        let uid = rustix::process::getuid().as_raw();
        write!(f, "{} (pid {pid}, uid {uid})", self.command.as_deref().unwrap_or("?"))
    }
}

/// This user's process with the TCP socket `client`, connected to `server`.
fn holder_of(client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let inode = owner_of(client, server).ok()??.inode;
    let socket = format!("socket:[{inode}]");
    let has = |pid: u32| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .into_iter()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()))
    };
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).find(|pid| has(*pid))
}

/// Whether the client belongs to this user.
pub(in crate::tunnel) fn is_this_user_unix(stream: &UnixStream) -> io::Result<bool> {
    Ok(stream.peer_cred()?.uid() == rustix::process::getuid().as_raw())
}

/// Whether the client belongs to this user. Systems other than Linux don't tell, and every client counts as this user's
/// (docs/security.md). On Linux a client without a known owner, such as a closed one, does not.
pub(in crate::tunnel) fn is_this_user_tcp(stream: &TcpStream) -> io::Result<bool> {
    if !cfg!(target_os = "linux") {
        return Ok(true);
    }
    let (client, server) = (stream.peer_addr()?, stream.local_addr()?);
    let owner = owner_of(client, server)?;
    // After a reset, another user's socket could take over the client's port and would be found instead. While this end
    // is connected (no ENOTCONN from getpeername(2)), the port was not free.
    let connected = stream.peer_addr().is_ok_and(|now| now == client);
    Ok(connected && owner.is_some_and(|owner| owner.uid == rustix::process::getuid().as_raw()))
}

/// The owner of a socket.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    uid: u32,
    /// The socket's inode, never 0: closed sockets have 0.
    inode: u64,
}

impl Owner {
    /// None for a closed socket (inode 0) and for states other than [`STATES_OF_CLIENTS`].
    fn of_client(state: u8, uid: u32, inode: u64) -> Option<Self> {
        (STATES_OF_CLIENTS.contains(&state) && inode != 0).then_some(Self { uid, inode })
    }
}

/// The owner of the socket `client` that is connected to `server`.
fn owner_of(client: SocketAddr, server: SocketAddr) -> io::Result<Option<Owner>> {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (client, server) = (canonical(client), canonical(server));
    #[cfg(target_os = "linux")]
    {
        // Fallback without sock_diag (a container's filter, no tcp_diag): the same tables in /proc.
        if let Ok(found) = crate::sock_diag::find(client, server) {
            return Ok(found.and_then(|found| Owner::of_client(found.state, found.uid, found.inode)));
        }
    }
    // An IPv6 socket can speak IPv4, as Java's do.
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = match std::fs::File::open(table) {
            Ok(table) => BufReader::new(table),
            // A kernel without IPv6.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        if let Some(owner) = entry_of(client, server, table)? {
            return Ok(Some(owner));
        }
    }
    Ok(None)
}

/// ESTABLISHED, FIN_WAIT1 and FIN_WAIT2. The latter two are clients that have closed their sending direction
/// and still read (`tcp_states.h`).
const STATES_OF_CLIENTS: [u8; 3] = [1, 4, 5];

/// The owner of the socket `local`, connected to `remote`, in a table such as /proc/net/tcp. A closed socket stays
/// listed for a while with inode 0 and uid 0, whoever owned it: it has no owner.
fn entry_of(local: SocketAddr, remote: SocketAddr, table: impl BufRead) -> io::Result<Option<Owner>> {
    let is = |text: &str, address| proc_net::socket_address(text, cfg!(target_endian = "little")) == Some(address);
    for line in table.lines() {
        let line = line?;
        // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [_, from, to, state, _, _, _, uid, _, inode, ..] = fields[..]
            && is(from, local)
            && is(to, remote)
        {
            let (state, uid, inode) = (u8::from_str_radix(state, 16), uid.parse(), inode.parse());
            let (Ok(state), Ok(uid), Ok(inode)) = (state, uid, inode) else { return Ok(None) };
            return Ok(Owner::of_client(state, uid, inode));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tcp_client_of_this_user_is_recognised() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = tokio::net::TcpListener::bind(address).await.expect("a listener");
            let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
            let (accepted, _) = listener.accept().await.expect("accepted");
            assert!(is_this_user_tcp(&accepted).expect("a verdict"), "{address}");
            drop(client);
        }
    }

    /// Java's sockets are such.
    #[tokio::test]
    async fn a_client_that_speaks_ipv4_with_an_ipv6_socket_is_recognised() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("bound").port();
        let socket = tokio::net::TcpSocket::new_v6().expect("a socket");
        let client = socket.connect(format!("[::ffff:127.0.0.1]:{port}").parse().expect("an address")).await;
        let client = client.expect("connected");
        let (accepted, _) = listener.accept().await.expect("accepted");
        assert!(is_this_user_tcp(&accepted).expect("a verdict"));
        drop(client);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_client_that_only_stopped_sending_is_recognised_and_one_that_has_closed_is_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("bound");
        for (reset, closed) in [(false, false), (false, true), (true, true)] {
            let client = std::net::TcpStream::connect(address).expect("connected");
            let (accepted, _) = listener.accept().await.expect("accepted");
            std::io::Write::write_all(&mut &client, b"POST").expect("sent");
            client.shutdown(std::net::Shutdown::Write).expect("ended");
            let linger = reset.then_some(std::time::Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(&client, linger).expect("set");
            let client = (!closed).then_some(client);
            let verdict = is_this_user_tcp(&accepted);
            assert_eq!(verdict.is_ok_and(|is_us| is_us), !closed, "reset {reset}, closed {closed}");
            drop(client);
        }
    }

    #[test]
    fn only_a_socket_that_a_process_has_open_is_somebodys() {
        let table = |state: &str, uid: u32, inode: u64| {
            format!(
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                 1: 0100007F:9C40 0100007F:0947 {state} 00000000:00000000 00:00000000 00000000  {uid}        0 {inode} 1 \
                 0 20 4 30 10 -1\n"
            )
        };
        let (client, server) = ("127.0.0.1:40000".parse().expect("a"), "127.0.0.1:2375".parse().expect("b"));
        let owner = |table: String| entry_of(client, server, table.as_bytes()).expect("read");
        assert_eq!(owner(table("01", 1001, 7)), Some(Owner { uid: 1001, inode: 7 }));
        assert_eq!(owner(table("05", 1001, 7)), Some(Owner { uid: 1001, inode: 7 }));
        // Closed sockets in FIN_WAIT2 and TIME_WAIT belong to nobody.
        for state in ["01", "04", "05", "06"] {
            assert_eq!(owner(table(state, 0, 0)), None, "{state}");
        }
        assert_eq!(owner(table("06", 0, 7)), None);
        assert_eq!(entry_of(server, client, table("01", 0, 7).as_bytes()).expect("read"), None);
    }
}
