//! Messages of a routing socket of macOS (route(4), net/route.h): which of them tell of another network.

/// Message types: a route, or an address of this machine's, was added, removed or changed.
const ADD: u8 = 0x1;
const DELETE: u8 = 0x2;
const CHANGE: u8 = 0x3;
const NEW_ADDRESS: u8 = 0xc;
const DELETED_ADDRESS: u8 = 0xd;
const VERSION: u8 = 5;
/// Flags of routes that come and go with each neighbour and each peer: RTF_LLINFO, RTF_WASCLONED, RTF_BROADCAST,
/// RTF_MULTICAST.
const PASSING: u32 = 0x400 | 0x2_0000 | 0x40_0000 | 0x80_0000;

/// Whether an address, or a route that is not a single neighbour's, has changed. Answers to other programs' questions
/// (RTM_GET) are sent to every socket, and are none.
pub(super) fn is_another_network(message: &[u8]) -> bool {
    // u16 length, u8 version, u8 type; in a route's (rt_msghdr) then u16 interface, two bytes of padding, i32 flags.
    let [_, _, VERSION, kind, rest @ ..] = message else { return false };
    match *kind {
        NEW_ADDRESS | DELETED_ADDRESS => true,
        ADD | DELETE | CHANGE => {
            let flags = rest.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
            flags.is_some_and(|flags| flags & PASSING == 0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UP, GATEWAY, STATIC: a default route.
    const DEFAULT_ROUTE: u32 = 0x1 | 0x2 | 0x800;
    /// UP, HOST and those of an entry for a neighbour.
    const NEIGHBOUR: u32 = 0x1 | 0x4 | 0x400 | 0x2_0000;

    fn message(version: u8, kind: u8, flags: u32) -> Vec<u8> {
        let head = [92_u16.to_ne_bytes().as_slice(), &[version, kind], &[4, 0, 0, 0], &flags.to_ne_bytes()].concat();
        [head, vec![0; 80]].concat()
    }

    #[test]
    fn routes_and_addresses_count_and_neighbours_and_answers_do_not() {
        for kind in [ADD, DELETE, CHANGE] {
            assert!(is_another_network(&message(VERSION, kind, DEFAULT_ROUTE)), "{kind}");
            assert!(!is_another_network(&message(VERSION, kind, NEIGHBOUR)), "{kind}");
        }
        for kind in [NEW_ADDRESS, DELETED_ADDRESS] {
            assert!(is_another_network(&message(VERSION, kind, 0)), "{kind}");
        }
        // RTM_GET, RTM_MISS, RTM_IFINFO, RTM_NEWMADDR.
        for kind in [4, 7, 0xe, 0xf] {
            assert!(!is_another_network(&message(VERSION, kind, DEFAULT_ROUTE)), "{kind}");
        }
        assert!(!is_another_network(&message(VERSION + 1, ADD, DEFAULT_ROUTE)));
        let whole = message(VERSION, ADD, DEFAULT_ROUTE);
        assert!((0..12).all(|length| !is_another_network(&whole[..length])));
    }
}
