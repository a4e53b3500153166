//! Who is at the other end of a local connection: only this user may be.
//!
//! A Unix socket tells by itself (SO_PEERCRED in unix(7), getpeereid(3)). A loopback TCP
//! connection does not, but Linux lists the owner of every socket in /proc/net/tcp (proc(5)).

use std::fmt::Write;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpStream, UnixStream};

use super::local::LocalStream;

/// Who is at the other end.
#[derive(Debug, Clone, Default)]
pub(super) struct Who {
    /// Its process, where the system tells.
    pub(super) pid: Option<u32>,
    /// The name of its program; never its arguments, which may hold what is secret.
    pub(super) command: Option<String>,
}

impl Who {
    pub(super) async fn of(local: &LocalStream) -> Self {
        let pid = match local {
            LocalStream::Unix { stream, .. } => {
                stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok())
            }
            LocalStream::Tcp(stream) => match (stream.peer_addr(), stream.local_addr()) {
                // Looking through every process is no work for the thread that serves everybody.
                (Ok(client), Ok(server)) => {
                    tokio::task::spawn_blocking(move || holder_of(client, server)).await.ok().flatten()
                }
                _ => None,
            },
        };
        let command = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        Self { pid, command: command.map(|name| name.trim_end().escape_debug().to_string()) }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pid = self.pid.map_or_else(|| "?".into(), |pid| pid.to_string());
        // Others were turned away before.
        let uid = rustix::process::getuid().as_raw();
        write!(f, "{} (pid {pid}, uid {uid})", self.command.as_deref().unwrap_or("?"))
    }
}

/// The process of ours that has the TCP socket `client`, connected to `server`.
fn holder_of(client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let inode = BufReader::new(std::fs::File::open(table_of(client)).ok()?);
    let inode = entry_of(client, server, inode).ok()??.1;
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

fn table_of(address: SocketAddr) -> &'static str {
    if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" }
}

/// Is the client this very user?
pub(super) fn is_this_user_unix(stream: &UnixStream) -> io::Result<bool> {
    Ok(stream.peer_cred()?.uid() == rustix::process::getuid().as_raw())
}

/// Is the client this very user? Where the system does not tell (anywhere but on Linux), it is
/// taken to be; docs/security.md says so.
pub(super) fn is_this_user_tcp(stream: &TcpStream) -> io::Result<bool> {
    if !cfg!(target_os = "linux") {
        return Ok(true);
    }
    let (client, server) = (stream.peer_addr()?, stream.local_addr()?);
    let table = BufReader::new(std::fs::File::open(table_of(client))?);
    let owner = entry_of(client, server, table)?.map(|(uid, _)| uid);
    Ok(owner == Some(rustix::process::getuid().as_raw()))
}

/// The uid and the inode of the socket `local` that is connected to `remote`, in a table such as
/// /proc/net/tcp.
fn entry_of(local: SocketAddr, remote: SocketAddr, table: impl BufRead) -> io::Result<Option<(u32, u64)>> {
    let (local, remote) = (hex(local), hex(remote));
    for line in table.lines() {
        let line = line?;
        // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …
        let mut fields = line.split_ascii_whitespace().skip(1);
        if fields.next() == Some(&local) && fields.next() == Some(&remote) {
            let (uid, inode) = (fields.nth(4).and_then(|uid| uid.parse().ok()), fields.nth(1));
            return Ok(uid.zip(inode.and_then(|inode| inode.parse().ok())));
        }
    }
    Ok(None)
}

/// An address as the kernel prints it: 32-bit words in host byte order, the port in hexadecimal.
fn hex(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut out = String::with_capacity(40);
    for word in octets.chunks_exact(4) {
        let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        let _ = write!(out, "{word:08X}");
    }
    let _ = write!(out, ":{:04X}", address.port());
    out
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

    #[test]
    fn another_user_and_a_socket_that_is_not_listed_are_not_this_user() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             1: 0100007F:9C40 0100007F:0947 01 00000000:00000000 00:00000000 00000000  1001        0 1 1 0 20 4 30 10 -1\n";
        let (client, server) = ("127.0.0.1:40000".parse().expect("a"), "127.0.0.1:2375".parse().expect("b"));
        assert_eq!(entry_of(client, server, table.as_bytes()).expect("read"), Some((1001, 1)));
        assert_eq!(entry_of(server, client, table.as_bytes()).expect("read"), None);
    }
}
