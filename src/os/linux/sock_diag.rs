//! Asks the kernel for one TCP socket by its two ends (sock_diag(7)): in constant time, while /proc/net/tcp is read
//! line by line, and a client that reconnects all the time leaves tens of thousands of lines (TIME_WAIT).

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

/// `SOCK_DIAG_BY_FAMILY`, `NLM_F_REQUEST`, `NLMSG_ERROR` and `IPPROTO_TCP`, by linux/sock_diag.h and linux/netlink.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;
const ERROR: u16 = 2;
const TCP: u8 = 6;
const ANY_INTERFACE: u32 = 0;
/// `LOOPBACK_IFINDEX` in the kernel.
const LOOPBACK_INTERFACE: u32 = 1;
const REQUEST_SIZE: usize = 72;
/// An `inet_diag_msg` behind its header.
const ANSWER_SIZE: usize = 88;

/// The kernel's answer about a socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) uid: u32,
    /// The inode; 0 if no process has the socket open any more.
    pub(super) inode: u64,
    /// As in `tcp_states.h`.
    pub(super) state: u8,
    /// Bytes written that the peer's system has not acknowledged.
    pub(super) unacknowledged: u32,
}

/// The socket whose own end is `local`; None where there is none. An IPv6 socket that speaks
/// IPv4 is found by its IPv4 ends.
///
/// # Errors
/// If the kernel does not support the request.
pub(super) fn find(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Found>> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    // One that is bound to an interface (SO_BINDTODEVICE in socket(7)) is found only by that one.
    for interface in [ANY_INTERFACE, LOOPBACK_INTERFACE] {
        sendto(&socket, &request(local, remote, interface), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0; 1024];
        // The kernel answers before send returns.
        let (size, _) = recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
        if let Some(found) = read(&answer[..size])? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn request(local: SocketAddr, remote: SocketAddr, interface: u32) -> [u8; REQUEST_SIZE] {
    let address = |ip: IpAddr| {
        let mut octets = [0; 16];
        match ip {
            IpAddr::V4(ip) => octets[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => octets.copy_from_slice(&ip.octets()),
        }
        octets
    };
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut request = Vec::with_capacity(REQUEST_SIZE);
    // nlmsghdr
    request.extend(u32::try_from(REQUEST_SIZE).unwrap_or_default().to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    // inet_diag_req_v2, of any state
    request.extend([u8::try_from(family.as_raw()).unwrap_or_default(), TCP, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(local.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    request.extend(address(local.ip()));
    request.extend(address(remote.ip()));
    request.extend(interface.to_ne_bytes());
    // No cookie (INET_DIAG_NOCOOKIE).
    request.extend([0xff; 8]);
    request.try_into().unwrap_or([0; REQUEST_SIZE])
}

fn read(answer: &[u8]) -> io::Result<Option<Found>> {
    let number = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    match (kind, number(16)) {
        (Some(ERROR), Some(error)) => {
            // Negative in the answer (netlink(7)).
            let errno = error.cast_signed().checked_neg().unwrap_or_default();
            if errno == Errno::NOENT.raw_os_error() { Ok(None) } else { Err(io::Error::from_raw_os_error(errno)) }
        }
        (Some(SOCK_DIAG_BY_FAMILY), Some(_)) if answer.len() >= ANSWER_SIZE => Ok(Some(Found {
            state: answer[17],
            unacknowledged: number(76).unwrap_or(u32::MAX),
            uid: number(80).unwrap_or(u32::MAX),
            inode: number(84).unwrap_or_default().into(),
        })),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    #[test]
    fn a_client_is_found_by_its_ends_and_only_while_it_is_there() {
        let me = rustix::process::getuid().as_raw();
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let listener = TcpListener::bind((ip, 0)).expect("bound");
            let server = listener.local_addr().expect("an address");
            let client = TcpStream::connect(server).expect("connected");
            let here = client.local_addr().expect("an address");
            let found = find(here, server).expect("asked").expect("found");
            assert_eq!((found.uid, found.state), (me, 1));
            assert!(found.inode > 0);
            let other = SocketAddr::new(ip, if here.port() == 1 { 2 } else { 1 });
            assert_eq!(find(other, server).expect("asked"), None);
        }
    }

    #[test]
    fn odd_answers_are_errors() {
        for answer in [&[][..], &[0; 16], &[0; 88], &[0xff; 88]] {
            assert!(read(answer).is_err());
        }
    }
}
