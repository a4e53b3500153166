//! Addresses in the tables of sockets that Linux shows as text: /proc/net/tcp and tcp6 (proc(5)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address of such a table, such as `0100007F:0947`: 32-bit words in the host's byte order, then the port, in
/// hexadecimal. An IPv4-mapped IPv6 address is returned as IPv4.
pub fn socket_address(text: &str, is_little_endian: bool) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        Some(if is_little_endian { word.to_le_bytes() } else { word.to_be_bytes() })
    };
    let ip = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = std::array::from_fn(|i| words[i / 4][i % 4]);
            IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_either_byte_order() {
        let read = |text, little| socket_address(text, little).map(|address| address.to_string());
        assert_eq!(read("0100007F:0947", true).as_deref(), Some("127.0.0.1:2375"));
        assert_eq!(read("7F000001:0947", false).as_deref(), Some("127.0.0.1:2375"));
        assert_eq!(read("00000000000000000000000001000000:0016", true).as_deref(), Some("[::1]:22"));
        assert_eq!(read("0000000000000000FFFF00000100007F:0016", true).as_deref(), Some("127.0.0.1:22"));
        for odd in ["", "0100007F", "0100007F:x", "0100007:0947", "zz00007F:0947", "0100007é:0947"] {
            assert_eq!(read(odd, true), None, "{odd}");
        }
    }
}
