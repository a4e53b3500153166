//! Compares the strict reader with hyper on requests composed of HTTP fragments. The fuzz target of the same
//! name finds its own fragments.

use proptest::prelude::*;

use super::Framing;
use super::by_hyper::{Seen, by_hyper};

/// Methods, targets, headers, ends and bodies, valid and invalid.
const WORDS: &[&str] = &[
    "GET ",
    "POST ",
    "HEAD ",
    "DELETE ",
    "/info",
    "/_ping",
    "/v1.41",
    "/networks/",
    "/networks/a%20b",
    "/images/a%2Fb/json",
    "/exec/a/start",
    "/containers/a/attach",
    "/%2e",
    "%",
    "%2f",
    "%2F",
    "%00",
    "%25",
    "//",
    "?",
    "&",
    ";",
    "#",
    "=",
    "+",
    "a=1",
    "filters={\"a\":[\"b\"]}",
    "t=a&t=b",
    " ",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "\r\n",
    "\n",
    "\r",
    "Host: x\r\n",
    "Connection: close\r\n",
    "Connection: Upgrade\r\nUpgrade: tcp\r\n",
    "Connection: TE\r\n",
    "TE: trailers\r\n",
    "Content-Length: 2\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "Content-Type: application/x-www-form-urlencoded\r\n",
    "A: b\r\n",
    " c: d\r\n",
    "{}",
    "2\r\n{}\r\n",
    "0\r\n\r\n",
    "x",
    "GET /info HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /a?b=%41+c HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /exec/a/start HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    "GET /_ping HTTP/1.0\r\n\r\n",
    "POST /build HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
];

/// The output for these bytes, the requests seen, and whether all bytes were accepted.
fn read(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<Option<Seen>>, bool) {
    let (mut framing, mut written) = (Framing::default(), Vec::new());
    let whole = bytes.chunks(piece).try_for_each(|piece| framing.feed(piece, &mut written)).is_ok();
    let seen = std::iter::from_fn(|| framing.take_seen()).map(|seen| seen.ok().map(|head| (head.method, head.target)));
    (written, seen.collect(), whole)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_written_reads_as_itself_and_as_hyper_reads_it(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..24),
        piece in 1_usize..40,
    ) {
        let bytes = words.concat().into_bytes();
        let (written, seen, whole) = read(&bytes, piece);
        let (at_once, _, whole_at_once) = read(&bytes, bytes.len().max(1));
        prop_assert_eq!(whole, whole_at_once);
        if whole {
            prop_assert_eq!(&written, &at_once);
        }
        if whole && seen.iter().all(Option::is_some) {
            let (again, seen_again, _) = read(&written, piece);
            prop_assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&again));
            prop_assert_eq!(&seen, &seen_again);
        }
        let expected: Vec<Seen> = seen.into_iter().map(|seen| seen.unwrap_or(("GET".into(), "/".into()))).collect();
        let by_hyper = by_hyper(&written);
        prop_assert!(by_hyper.len() <= expected.len(), "hyper saw more: {:?}, expected {:?}", by_hyper, expected);
        prop_assert_eq!(&by_hyper, &expected[..by_hyper.len()]);
        if let Some((method, target)) = expected.first() {
            let line = format!("{method} {target} HTTP/1.");
            prop_assert!(written.starts_with(line.as_bytes()), "{}", String::from_utf8_lossy(&written));
        }
    }
}
