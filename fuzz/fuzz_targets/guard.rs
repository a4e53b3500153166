//! Looks for a request that the guard's strict reading and hyper judge differently.
//!
//! What the strict reading writes is given to hyper. hyper may refuse more, but whatever it sees must be
//! what was seen before it: the same requests, in the same order, with the same targets; a reader that only
//! looks for empty lines and lengths must see the same beginnings; and what is written reads as itself, so that
//! there is nothing left in it to be decoded.

#![no_main]

#[path = "../../src/tunnel/api/framing/by_hyper.rs"]
mod by_hyper;

use by_hyper::{Seen, by_hyper};
use dtunnel::tunnel::Framing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], u8)| {
    let (bytes, piece) = (input.0, usize::from(input.1).max(1));
    let (mut framing, mut passed) = (Framing::default(), Vec::new());
    let whole = bytes.chunks(piece).try_for_each(|piece| framing.feed(piece, &mut passed)).is_ok();
    let heads: Vec<_> = std::iter::from_fn(|| framing.take_seen()).collect();
    let expected: Vec<Seen> = heads
        .iter()
        .map(|seen| match seen {
            Ok(head) => (head.method.clone(), head.target.clone()),
            Err(_) => ("GET".into(), "/".into()),
        })
        .collect();
    // However the bytes come in pieces, they are read alike. (A body that is wrong is refused before its head is sent, or cut
    // behind it.)
    let (mut again, mut at_once) = (Framing::default(), Vec::new());
    let is_read = whole && heads.iter().all(Result::is_ok);
    let is_read_at_once = again.feed(bytes, &mut at_once).is_ok();
    assert_eq!(is_read_at_once && std::iter::from_fn(|| again.take_seen()).all(|head| head.is_ok()), is_read);
    if whole && is_read_at_once {
        assert_eq!(passed, at_once);
    }
    if is_read {
        let (mut once_more, mut same) = (Framing::default(), Vec::new());
        assert_eq!(once_more.feed(&passed, &mut same), Ok(()));
        assert_eq!(passed, same, "what is written reads otherwise");
        let heads = std::iter::from_fn(|| once_more.take_seen());
        let again: Vec<Seen> = heads.flatten().map(|head| (head.method, head.target)).collect();
        assert_eq!(again, expected);
    }
    let seen = by_hyper(&passed);
    assert!(seen.len() <= expected.len(), "hyper saw more: {seen:?}, expected {expected:?}");
    assert_eq!(seen, expected[..seen.len()], "hyper saw other requests");
    for (at, (method, target)) in expected.iter().enumerate().take(1) {
        let line = format!("{method} {target} HTTP/1.");
        assert!(passed.starts_with(line.as_bytes()), "request {at} does not begin as a naive reader sees it");
    }
});
