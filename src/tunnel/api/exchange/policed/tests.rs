//! Conversations under a guard that sends what it is told to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::config::{Access, Policy};
use crate::tunnel::binds::Wanted;
use crate::tunnel::guard::pass_for_tests;

const CREATED: &[u8] = b"HTTP/1.1 201 Created\r\nServer: x\r\nContent-Length: 10\r\n\r\n{\"Id\":\"a\"}";
const DONE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";

/// Refuses what deletes, judges creates with 16 bytes of body, and starts without; all else passes.
#[derive(Debug, Default)]
struct Constable {
    heads: Mutex<Vec<Vec<u8>>>,
    made: Mutex<Vec<Vec<u8>>>,
}

impl Police for Constable {
    fn decide(&self, head: &Head) -> Result<ByHead, Refused> {
        let access = Access { policies: vec![Policy::NoPrivileged], ..Access::default() };
        match head.target.split('?').next() {
            _ if head.method == "DELETE" => Err((StatusCode::FORBIDDEN, "no".into())),
            Some("/containers/create") => Ok(ByHead::Judge(pass_for_tests(&access, head), Some(16))),
            Some("/containers/a/start") => Ok(ByHead::Judge(pass_for_tests(&access, head), None)),
            _ => Ok(ByHead::Send(head.target.clone())),
        }
    }

    fn answered(&self, head: &[u8]) {
        lock(&self.heads).push(head.to_vec());
    }

    fn made(&self, _: Makes, answer: &[u8]) {
        lock(&self.made).push(answer.to_vec());
    }
}

fn exchange() -> (Exchange, Arc<Constable>) {
    let constable = Arc::<Constable>::default();
    (Exchange::new(Arc::default(), Wanted::default(), Some(constable.clone())), constable)
}

fn take(exchange: &Exchange, data: &[u8]) -> FromClient {
    exchange.client_sent(Bytes::copy_from_slice(data))
}

/// What is sent of this.
fn sent(exchange: &Exchange, data: &[u8]) -> String {
    let mut sent = match take(exchange, data) {
        FromClient::Pass(data) => data.to_vec(),
        _ => Vec::new(),
    };
    if exchange.ready().is_some() {
        sent.extend_from_slice(&exchange.begin());
    }
    String::from_utf8(sent).expect("UTF-8")
}

fn passes(exchange: &Exchange, asked: Asked, body: Option<&str>) {
    let target = asked.pass.target.clone();
    let body = body.map(|body| Bytes::copy_from_slice(body.as_bytes()));
    exchange.judged(asked, Ok(Passed { target, body, makes: Some(Makes::Container) }));
}

#[test]
fn a_request_behind_another_waits_for_its_answer() {
    let (exchange, _) = exchange();
    let (first, second) = ("GET /info HTTP/1.1\r\nHost: x\r\n\r\n", "GET /version HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(sent(&exchange, format!("{first}{second}").as_bytes()), first);
    assert_eq!(sent(&exchange, first.as_bytes()), "");
    exchange.host_sent(&DONE[..DONE.len() - 1]);
    assert!(exchange.ready().is_none());
    exchange.host_sent(&DONE[DONE.len() - 1..]);
    assert_eq!(&exchange.begin()[..], second.as_bytes());
    exchange.host_sent(DONE);
    assert_eq!(&exchange.begin()[..], first.as_bytes());
    // No more than this is kept of those who do not wait.
    take(&exchange, &vec![b'x'; MAX_BEHIND - 1]);
    assert!(!exchange.is_full());
    take(&exchange, b"x");
    assert!(exchange.is_full());
}

#[test]
fn nothing_passes_blindly_but_behind_an_upgrade_that_was_granted_and_confirmed() {
    let attach = "POST /containers/b/attach?stream=1 HTTP/1.1\r\nHost: x\r\n";
    let upgrade = format!("{attach}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
    let switched = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nraw";
    let (exchange, _) = self::exchange();
    assert!(sent(&exchange, format!("{upgrade}early").as_bytes()).ends_with("upgrade: tcp\r\n\r\n"));
    assert_eq!((take(&exchange, b"more"), exchange.take_held()), (FromClient::Ready, None));
    exchange.host_sent(switched);
    assert_eq!(exchange.take_held(), Some(Bytes::from_static(b"earlymore")));
    assert_eq!(take(&exchange, b"raw"), FromClient::Pass(Bytes::from_static(b"raw")));
    // One that was not asked for.
    let (exchange, _) = self::exchange();
    sent(&exchange, format!("{attach}\r\n").as_bytes());
    exchange.host_sent(switched);
    assert!(
        exchange.must_leave().is_some()
            && exchange
                .broken()
                .is_some_and(|(status, _, is_answered)| status == StatusCode::BAD_GATEWAY && !is_answered)
    );
    assert_eq!(sent(&exchange, b"raw"), "");
    // One that was not granted.
    let (exchange, _) = self::exchange();
    sent(&exchange, format!("{upgrade}early").as_bytes());
    exchange.host_sent(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    assert!(exchange.has_finished() && exchange.must_leave() == Some(false));
    // What has no end, or more than an end.
    for answer in
        [&b"HTTP/1.1 200 OK\r\n\r\nraw"[..], b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy", b"SSH-2.0\r\n\r\n"]
    {
        let (exchange, _) = self::exchange();
        sent(&exchange, b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n");
        exchange.host_sent(answer);
        exchange.host_sent(b"more");
        assert_eq!(sent(&exchange, b"DELETE /containers/a HTTP/1.1\r\nHost: x\r\n\r\n"), "");
    }
}

#[test]
fn a_body_passes_as_it_comes_to_its_end_and_not_beyond() {
    let (exchange, _) = exchange();
    let head = "POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(sent(&exchange, format!("{head}3\r\nab").as_bytes()), format!("{head}3\r\nab"));
    // An answer before the end of its request.
    exchange.host_sent(DONE);
    assert!(exchange.ready().is_none() && !exchange.is_between());
    let next = "GET /info HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(sent(&exchange, format!("c\r\n0\r\n\r\n{next}").as_bytes()), format!("c\r\n0\r\n\r\n{next}"));
    // Chunks that are none, before and after some of it was sent.
    let (before, _) = self::exchange();
    assert_eq!(sent(&before, format!("{head}zz").as_bytes()), "");
    assert_eq!(before.rejected().map(|rejected| rejected.refused.0), Some(StatusCode::BAD_REQUEST));
    let (after, _) = self::exchange();
    sent(&after, head.as_bytes());
    assert_eq!(sent(&after, b"zz"), "");
    assert!(
        after.must_leave() == Some(false)
            && after.broken().is_some_and(|(status, _, answered)| status == StatusCode::BAD_REQUEST && !answered)
    );
}

#[test]
fn a_judged_body_is_read_without_its_framing_and_sent_with_another() {
    let (exchange, constable) = exchange();
    let head =
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(sent(&exchange, head.as_bytes()), "");
    assert!(exchange.must_leave() == Some(true) && exchange.awaits_body() && !exchange.awaits_body());
    assert!(exchange.to_be_judged().is_none());
    take(&exchange, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET /in");
    let asked = exchange.to_be_judged().expect("its body is here");
    assert_eq!(asked.body.as_deref(), Some(&b"abcde"[..]));
    passes(&exchange, asked, Some("{}"));
    let expected = "POST /containers/create HTTP/1.1\r\nHost: x\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(&exchange.begin()[..], expected.as_bytes());
    exchange.host_sent(CREATED);
    assert_eq!(*lock(&constable.made), [b"{\"Id\":\"a\"}"]);
    assert!(lock(&constable.heads)[0].starts_with(b"HTTP/1.1 201 "));
    assert_eq!(sent(&exchange, b"fo HTTP/1.1\r\nHost: x\r\n\r\n"), "GET /info HTTP/1.1\r\nHost: x\r\n\r\n");
}

#[test]
fn a_body_that_is_not_looked_at_follows_its_judged_head() {
    let (exchange, _) = exchange();
    let head = "POST /containers/a/start HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n";
    assert_eq!(sent(&exchange, format!("{head}ab").as_bytes()), "");
    let asked = exchange.to_be_judged().expect("to be judged");
    passes(&exchange, asked, None);
    assert_eq!(&exchange.begin()[..], format!("{head}ab").as_bytes());
    assert_eq!(sent(&exchange, b"cd"), "cd");
    let changed = exchange.host_sent(DONE).changed.expect("told");
    assert_eq!((changed.container.as_deref(), changed.starts, changed.is_answered), (Some("a"), true, true));
}

#[test]
fn what_does_not_pass_is_read_to_its_end_and_the_next_one_goes_on() {
    let (exchange, _) = exchange();
    let refused = "DELETE /containers/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(sent(&exchange, format!("{refused}a").as_bytes()), "");
    let rejected = exchange.rejected().expect("refused");
    assert_eq!(
        (rejected.refused.0, rejected.head.map(|head| head.method)),
        (StatusCode::FORBIDDEN, Some("DELETE".into()))
    );
    assert!(!exchange.body_has_ended());
    take(&exchange, b"bcGET /info HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(exchange.body_has_ended());
    exchange.goes_on();
    assert_eq!(&exchange.begin()[..], b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n");
    // Without any answer it is said so; with half of one it is not.
    assert!(exchange.tells_unanswered() && exchange.must_leave().is_some());
    assert_eq!(exchange.rejected().map(|rejected| rejected.refused.0), Some(StatusCode::BAD_GATEWAY));
    let (unsent, _) = self::exchange();
    take(&unsent, b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(unsent.ready().is_some() && unsent.tells_unanswered() && unsent.ready().is_none());
    let (half, _) = self::exchange();
    sent(&half, b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n");
    half.host_sent(b"HTTP");
    assert!(!half.tells_unanswered());
}

#[test]
fn nothing_comes_behind_an_answer_that_ends_before_its_request() {
    let (exchange, _) = exchange();
    sent(&exchange, b"PUT /containers/a/archive?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab");
    assert_eq!(exchange.host_sent(DONE).passes, DONE.len());
    assert_eq!(exchange.must_leave(), None, "the rest of the request may still come");
    for stray in [DONE, b"x"] {
        assert!(!exchange.passes_at_once(stray));
        assert_eq!(exchange.host_sent(stray).passes, 0);
    }
    assert_eq!(sent(&exchange, b"cd"), "cd");
    assert_eq!(exchange.must_leave(), Some(false), "its channel is used no more");
}

#[test]
fn what_is_too_large_or_never_ends_is_refused_before_it_is_here() {
    let code = |exchange: &Exchange| exchange.rejected().map(|rejected| rejected.refused.0);
    for (body, expected) in [
        ("Content-Length: 16\r\n\r\n", None),
        ("Content-Length: 17\r\n\r\n", Some(StatusCode::BAD_REQUEST)),
        ("Transfer-Encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n", None),
        ("Transfer-Encoding: chunked\r\n\r\n11\r\n0123456789abcdef0", Some(StatusCode::BAD_REQUEST)),
    ] {
        let (exchange, _) = exchange();
        take(&exchange, format!("POST /containers/create HTTP/1.1\r\nHost: x\r\n{body}").as_bytes());
        assert_eq!(code(&exchange), expected, "{body}");
    }
    let (bare, _) = exchange();
    "GET /info HTTP/1.1\r\nHost: x\n".bytes().for_each(|byte| drop(take(&bare, &[byte])));
    assert_eq!(code(&bare), Some(StatusCode::BAD_REQUEST), "its end would be waited for in vain");
    let line = "GET /_ping HTTP/1.1\r\nHost: x\r\n";
    for (size, is_refused) in [(MAX_HEAD, false), (MAX_HEAD + 1, true), (MAX_HEAD * 2, true)] {
        for piece in [999, 1 << 20] {
            let (exchange, _) = exchange();
            let head = format!("{line}A: {}\r\n\r\n", "x".repeat(size - line.len() - 7));
            head.as_bytes().chunks(piece).for_each(|piece| drop(take(&exchange, piece)));
            assert_eq!(code(&exchange).is_some(), is_refused, "{size}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_begun_is_waited_for_a_minute_from_its_beginning_on() {
    for begun in ["G", "\r\n", "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"] {
        let (exchange, _) = exchange();
        let idle = tokio::time::timeout(Duration::from_secs(86_400), exchange.overdue()).await;
        assert!(idle.is_err(), "nothing has come");
        let since = Instant::now();
        take(&exchange, begun.as_bytes());
        // More of it does not make it last longer.
        while tokio::time::timeout(Duration::from_secs(25), exchange.overdue()).await.is_err() {
            take(&exchange, b"a");
        }
        assert_eq!(since.elapsed(), POLICED_TIME, "{begun:?}");
        assert_eq!(exchange.rejected().map(|rejected| rejected.refused.0), Some(StatusCode::REQUEST_TIMEOUT));
    }
}

#[test]
fn the_end_of_a_client_is_its_end_between_requests_only() {
    let (exchange, _) = exchange();
    assert!(exchange.is_over());
    let (exchange, _) = self::exchange();
    take(&exchange, b"GET /in");
    assert!(exchange.is_over(), "half a head asks nothing");
    // What waits behind a request is answered, too.
    let (exchange, _) = self::exchange();
    let next = "GET /version HTTP/1.1\r\nHost: x\r\n\r\n";
    sent(&exchange, format!("GET /info HTTP/1.1\r\nHost: x\r\n\r\n{next}{next}GET").as_bytes());
    assert!(!exchange.is_over() && exchange.keeps_end(), "its answer is to come");
    exchange.client_ended();
    for _ in 0..2 {
        exchange.host_sent(DONE);
        assert!(!exchange.has_finished());
        assert_eq!(&exchange.begin()[..], next.as_bytes());
    }
    exchange.host_sent(DONE);
    assert!(exchange.has_finished());
    let (half, _) = self::exchange();
    take(&half, b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na");
    assert!(!half.is_over());
    assert_eq!(half.rejected().map(|rejected| rejected.refused.0), Some(StatusCode::BAD_REQUEST));
}

/// Lets a request pass so many times.
#[derive(Debug)]
struct Counting(Mutex<u32>);

impl Police for Counting {
    fn decide(&self, head: &Head) -> Result<ByHead, Refused> {
        let mut left = lock(&self.0);
        *left = left.checked_sub(1).ok_or((StatusCode::FORBIDDEN, "no more".into()))?;
        Ok(ByHead::Send(head.target.clone()))
    }

    fn answered(&self, _: &[u8]) {}

    fn made(&self, _: Makes, _: &[u8]) {}
}

#[test]
fn a_repeated_request_is_the_same_and_is_decided_on_each_time() {
    let exchange = Exchange::new(Arc::default(), Wanted::default(), Some(Arc::new(Counting(Mutex::new(4)))));
    let (one, other) = ("GET /info HTTP/1.1\r\nHost: x\r\n\r\n", "GET /info?a=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    for request in [one, one, other, one] {
        assert_eq!(sent(&exchange, request.as_bytes()), request);
        exchange.host_sent(DONE);
    }
    for request in [one, one, other] {
        assert_eq!(sent(&exchange, request.as_bytes()), "");
        let rejected = exchange.rejected().expect("refused");
        assert_eq!(rejected.head.map(|head| head.target), request.split(' ').nth(1).map(str::to_owned));
        exchange.goes_on();
    }
}
