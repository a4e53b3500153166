//! Whose a client on the loopback is. A TCP connection does not tell, but Linux knows the owner of every socket
//! (sock_diag(7), and /proc/net/tcp in proc(5)).

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;

use tokio::net::TcpStream;

use super::sock_diag;
use crate::os::proc_net;
use crate::os::whose::Whose;

/// This user's process with the TCP socket `client`, connected to `server`. Blocks: it searches all processes.
pub fn process_of(client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let inode = entry(client, server).ok()??.inode;
    if inode == 0 {
        return None;
    }
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

/// Whether this user's TCP clients can be told from others': not in a user namespace that shows this user with the uid
/// that it also shows for all users whom it does not have (user_namespaces(7)).
///
/// # Errors
/// What to say where they cannot.
pub fn are_told_apart() -> io::Result<()> {
    static ARE: OnceLock<bool> = OnceLock::new();
    let are = *ARE.get_or_init(|| {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        is_distinct(rustix::process::getuid().as_raw(), &map)
    });
    are.then_some(()).ok_or_else(|| {
        io::Error::other(
            "in this user namespace (user_namespaces(7)) other users' TCP connections look like this user's; use a Unix \
             socket",
        )
    })
}

/// Whether no other user is shown with this uid, in a namespace with this /proc/PID/uid_map.
fn is_distinct(uid: u32, map: &str) -> bool {
    const EVERYBODY: [&str; 3] = ["0", "0", "4294967295"];
    uid != overflow_uid() || map.split_ascii_whitespace().eq(EVERYBODY)
}

/// Whose the client is.
///
/// # Errors
/// If the system's tables cannot be read, or don't tell users apart.
pub fn whose(stream: &TcpStream) -> io::Result<Whose> {
    are_told_apart()?;
    // Without an address it was reset before it was accepted.
    let (Ok(client), Ok(server)) = (stream.peer_addr(), stream.local_addr()) else { return Ok(Whose::Unknown) };
    let owner = entry(client, server)?.and_then(|entry| entry.owner());
    // After a reset, another user's socket could take over the client's port and would be found instead. While this end
    // is connected (no ENOTCONN from getpeername(2)), the port was not free.
    let connected = stream.peer_addr().is_ok_and(|now| now == client);
    Ok(match owner.filter(|_| connected) {
        Some(owner) if owner == rustix::process::getuid().as_raw() => Whose::ThisUsers,
        Some(_) => Whose::AnotherUsers,
        None => Whose::Unknown,
    })
}

/// A socket in the system's tables.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// As in `tcp_states.h`.
    state: u8,
    uid: u32,
    /// 0 if no process has the socket open any more.
    inode: u64,
}

/// As in `tcp_states.h`. A client in FIN_WAIT1 or FIN_WAIT2 has closed its sending direction, or both.
const ESTABLISHED: u8 = 1;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;

impl Entry {
    /// The user who opened the socket, where that is certain.
    ///
    /// Linux 6.17 and later remember the user of a closed socket until its end is acknowledged, some 40 ms later at an
    /// end that reads nothing. What is left then (FIN_WAIT2, TIME_WAIT) has uid 0. Earlier versions show every closed
    /// socket with the uid of the system's root: 0, or the overflow uid where a user namespace does not have it.
    fn owner(&self) -> Option<u32> {
        match (self.state, self.inode, self.uid) {
            (ESTABLISHED | FIN_WAIT1 | FIN_WAIT2, 1.., uid) => Some(uid),
            (FIN_WAIT1, 0, 0) => outlives_its_process().then_some(0),
            (FIN_WAIT1 | FIN_WAIT2, 0, 1..) if self.uid != overflow_uid() => Some(self.uid),
            _ => None,
        }
    }
}

/// The uid that stands for those that a user namespace does not have (proc_sys_kernel(5)).
fn overflow_uid() -> u32 {
    const DEFAULT: u32 = 65_534;
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT)
}

/// Whether the system remembers the user of a closed socket. Only root needs to know, and can find out: a closed socket
/// that was given to another user still has that uid, or has 0.
fn outlives_its_process() -> bool {
    /// One says nothing where the machine is too busy to look before the close is acknowledged.
    const TRIES: usize = 5;
    static REMEMBERS: OnceLock<bool> = OnceLock::new();
    if let Some(found) = REMEMBERS.get() {
        return *found;
    }
    // Without an answer it is asked again for the next client.
    let answer = (0..TRIES).find_map(|_| remembers_given_away().ok().flatten());
    answer.is_some_and(|answer| *REMEMBERS.get_or_init(|| answer))
}

/// None if the close was acknowledged before it could be looked at.
fn remembers_given_away() -> io::Result<Option<bool>> {
    const OTHER: u32 = 1;
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let server = listener.local_addr()?;
    let client = std::net::TcpStream::connect(server)?;
    std::os::unix::fs::fchown(&client, Some(OTHER), None)?;
    let address = client.local_addr()?;
    drop(client);
    let entry = entry(address, server)?.filter(|entry| entry.state == FIN_WAIT1);
    Ok(entry.map(|entry| entry.uid == OTHER))
}

/// The socket `client` that is connected to `server`.
fn entry(client: SocketAddr, server: SocketAddr) -> io::Result<Option<Entry>> {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (client, server) = (canonical(client), canonical(server));
    // Fallback without sock_diag (a container's filter, no tcp_diag): the same tables in /proc.
    if let Ok(found) = sock_diag::find(client, server) {
        return Ok(found.map(|found| Entry { state: found.state, uid: found.uid, inode: found.inode }));
    }
    // An IPv6 socket can speak IPv4, as Java's do.
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = match std::fs::File::open(table) {
            Ok(table) => BufReader::new(table),
            // A kernel without IPv6.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        if let Some(entry) = entry_of(client, server, table)? {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// The socket `local`, connected to `remote`, in a table such as /proc/net/tcp.
fn entry_of(local: SocketAddr, remote: SocketAddr, table: impl BufRead) -> io::Result<Option<Entry>> {
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
            return Ok(Some(Entry { state, uid, inode }));
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
            assert_eq!(whose(&accepted).expect("a verdict"), Whose::ThisUsers, "{address}");
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
        assert_eq!(whose(&accepted).expect("a verdict"), Whose::ThisUsers);
        drop(client);
    }

    /// Does this kernel remember the users of closed sockets? (6.17 and later.)
    fn remembers() -> bool {
        let system = rustix::system::uname();
        let mut numbers = system.release().to_str().expect("ASCII").split(['.', '-']).map(str::parse::<u32>);
        let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
        (next(), next()) >= (6, 17)
    }

    /// How a client leaves.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Leaves {
        Not,
        OnlyStopsSending,
        Closes,
        StopsSendingAndCloses,
        Resets,
    }

    #[tokio::test]
    async fn a_client_that_has_closed_is_recognised_while_the_system_remembers_it_and_is_never_anothers() {
        use Leaves::*;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("bound");
        for (leaves, data) in [
            (Not, &b"POST"[..]),
            (OnlyStopsSending, b"POST"),
            (Closes, b""),
            (Closes, b"POST"),
            (StopsSendingAndCloses, b"POST"),
            (Resets, b"POST"),
        ] {
            // On a machine that is too busy the kernel forgets some of them first.
            let mut verdicts = Vec::new();
            while verdicts.len() < 100 && verdicts.last() != Some(&Whose::ThisUsers) {
                let client = std::net::TcpStream::connect(address).expect("connected");
                std::io::Write::write_all(&mut &client, data).expect("sent");
                if matches!(leaves, OnlyStopsSending | StopsSendingAndCloses) {
                    client.shutdown(std::net::Shutdown::Write).expect("ended");
                }
                let linger = (leaves == Resets).then_some(std::time::Duration::ZERO);
                rustix::net::sockopt::set_socket_linger(&client, linger).expect("set");
                let client = Some(client).filter(|_| matches!(leaves, Not | OnlyStopsSending));
                let (accepted, _) = listener.accept().await.expect("accepted");
                verdicts.push(whose(&accepted).expect("a verdict"));
                drop(client);
            }
            match leaves {
                Not | OnlyStopsSending => assert_eq!(verdicts, [Whose::ThisUsers], "{leaves:?}"),
                // With a reset both ends are over, if not at once.
                Resets => assert!(!verdicts.contains(&Whose::AnotherUsers), "{verdicts:?}"),
                _ => {
                    assert!(!verdicts.contains(&Whose::AnotherUsers), "{leaves:?}: {verdicts:?}");
                    assert!(!remembers() || verdicts.contains(&Whose::ThisUsers), "{leaves:?}");
                }
            }
        }
    }

    #[test]
    fn root_finds_out_whether_closed_sockets_keep_their_users() {
        if rustix::process::getuid().is_root() {
            // Not told on a machine that is too busy, and then asked again.
            assert!((0..100).any(|_| outlives_its_process() == remembers()));
        }
    }

    #[test]
    fn a_closed_socket_has_an_owner_only_where_no_other_one_is_possible() {
        let owner = |state, inode, uid| Entry { state, uid, inode }.owner();
        for state in [ESTABLISHED, FIN_WAIT1, FIN_WAIT2] {
            assert_eq!((owner(state, 7, 1001), owner(state, 7, 0)), (Some(1001), Some(0)));
        }
        assert_eq!((owner(FIN_WAIT1, 0, 1001), owner(FIN_WAIT2, 0, 1001)), (Some(1001), Some(1001)));
        // As everybody's in FIN_WAIT2, and in TIME_WAIT, which is never a client's.
        assert_eq!((owner(FIN_WAIT2, 0, 0), owner(6, 0, 0), owner(6, 7, 1001)), (None, None, None));
        // As everybody's in a user namespace without root, before 6.17.
        assert_eq!((owner(FIN_WAIT1, 0, overflow_uid()), owner(FIN_WAIT2, 0, overflow_uid())), (None, None));
        assert_eq!((owner(ESTABLISHED, 0, 1001), owner(2, 7, 1001)), (None, None));
    }

    /// Real maps: the machine's, a rootless container's, and of `unshare -U`.
    #[test]
    fn the_uid_of_everybody_else_is_nobodys_own_except_on_the_machine_itself() {
        let (machine, container) = ("         0          0 4294967295\n", "  0 1000 1\n  1 100000 65536\n");
        assert!(is_distinct(overflow_uid(), machine) && is_distinct(1000, container) && is_distinct(0, container));
        assert!(!is_distinct(overflow_uid(), container) && !is_distinct(overflow_uid(), ""));
    }

    #[test]
    fn a_socket_is_found_in_a_table_by_its_ends() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             1: 0100007F:9C40 0100007F:0947 05 00000000:00000000 00:00000000 00000000  1001        0 7 1 0 20 4 30 10 \
             -1\n";
        let (client, server) = ("127.0.0.1:40000".parse().expect("a"), "127.0.0.1:2375".parse().expect("b"));
        let found = entry_of(client, server, table.as_bytes()).expect("read");
        assert_eq!(found, Some(Entry { state: FIN_WAIT2, uid: 1001, inode: 7 }));
        assert_eq!(entry_of(server, client, table.as_bytes()).expect("read"), None);
    }
}
