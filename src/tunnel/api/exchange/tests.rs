//! Conversations, in pieces of all sizes.

use proptest::prelude::*;

use super::*;
use crate::tunnel::api::request::{MAX_BODY, MAX_HEAD};

const PING: &[u8] = b"HEAD /_ping HTTP/1.1\r\nHost: x\r\n\r\n";
const PONG: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nApi-Version: 1.41\r\n\r\n";

fn take(exchange: &Exchange, data: &[u8]) -> FromClient {
    exchange.client_sent(Bytes::copy_from_slice(data))
}

fn hear(exchange: &Exchange, data: &[u8]) {
    exchange.host_sent(data);
}

/// Sends a request with a complete head; returns its kind.
fn ask(exchange: &Exchange, data: &[u8]) -> Kind {
    assert_eq!(take(exchange, data), FromClient::Ready);
    let kind = exchange.ready().expect("ready");
    assert_eq!(&exchange.begin()[..], data);
    kind
}

fn is_free(exchange: &Exchange) -> bool {
    matches!(lock(&exchange.state).phase, Phase::Between | Phase::Ready)
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_waited_for_a_moment_and_passes_then_as_it_is() {
    let exchange = Exchange::default();
    let idle = tokio::time::timeout(Duration::from_secs(3600), exchange.overdue()).await;
    assert!(idle.is_err(), "nothing has come");
    assert_eq!(take(&exchange, b"POST"), FromClient::Wait);
    exchange.overdue().await;
    assert_eq!(exchange.ready(), Some(Kind::Unknown));
    assert_eq!(&exchange.begin()[..], b"POST");
    assert!(!exchange.survives());
}

#[test]
fn request_and_answer_follow_one_another_and_leave_nothing_behind() {
    let exchange = Exchange::default();
    for (request, kind, answer) in [
        (PING, Kind::Short, PONG),
        (
            b"GET /v1.41/containers/json HTTP/1.1\r\nHost: x\r\n\r\n",
            Kind::Short,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        ),
        (
            b"GET /v1.41/containers/a/logs?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n",
            Kind::Streaming,
            b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n{}",
        ),
        (b"POST /v1.41/containers/a/wait HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", Kind::Short, PONG),
        (b"GET /nothing/known HTTP/1.1\r\nHost: x\r\n\r\n", Kind::Unknown, b"HTTP/1.1 204 No Content\r\n\r\n"),
    ] {
        assert!(exchange.is_between());
        assert_eq!(ask(&exchange, request), kind);
        assert!(!is_free(&exchange));
        hear(&exchange, &answer[..10]);
        assert!(!is_free(&exchange));
        hear(&exchange, &answer[10..]);
    }
    assert!(exchange.is_between());
}

#[test]
fn a_body_passes_behind_its_head_and_its_end_is_known() {
    for (head, body) in
        [("Content-Length: 7\r\n", "abcdefg"), ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n")]
    {
        let exchange = Exchange::default();
        let head = format!("POST /images/load HTTP/1.1\r\nHost: x\r\n{head}\r\n{}", &body[..2]);
        assert_eq!(ask(&exchange, head.as_bytes()), Kind::Streaming);
        let rest = Bytes::copy_from_slice(&body.as_bytes()[2..]);
        assert_eq!(exchange.client_sent(rest.clone()), FromClient::Pass(rest));
        hear(&exchange, PONG);
        assert!(exchange.is_between(), "{head}");
    }
}

#[test]
fn what_is_not_understood_stays_on_its_channel() {
    let request: &[&[u8]] = &[
        b"SSH-2.0-x\r\n",
        b"get / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"\x16\x03\x01",
        b"\r\n",
        b"ABCDEFGHIJKLMNOPQRST",
        b"GET //x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /info HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        // A second request after the first one.
        b"GET /info HTTP/1.1\r\nHost: x\r\n\r\nGET /info HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    for data in request {
        let exchange = Exchange::default();
        assert_eq!(ask(&exchange, data), Kind::Unknown, "{data:?}");
        assert!(!is_free(&exchange) && !exchange.survives());
        assert_eq!(take(&exchange, b"x"), FromClient::Pass(Bytes::from_static(b"x")));
    }
    let mut long = b"GET /info HTTP/1.1\r\n".to_vec();
    long.resize(MAX_HEAD + 1, b'a');
    assert_eq!(ask(&Exchange::default(), &long), Kind::Unknown);
}

#[test]
fn what_has_no_certain_end_stays_on_its_channel() {
    let second: &[u8] = b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n";
    let blind = |what: &str, steps: &dyn Fn(&Exchange)| {
        let exchange = Exchange::default();
        ask(&exchange, PING);
        steps(&exchange);
        assert!(!is_free(&exchange), "{what}");
        assert_eq!(take(&exchange, second), FromClient::Pass(Bytes::copy_from_slice(second)), "{what}");
    };
    blind("101", &|exchange| hear(exchange, b"HTTP/1.1 101 UPGRADED\r\n\r\n"));
    blind("a raw stream", &|exchange| hear(exchange, b"HTTP/1.1 200 OK\r\n\r\nraw"));
    blind("an answer too much", &|exchange| (hear(exchange, PONG), hear(exchange, PONG)).0);
    blind("a second request before the answer", &|exchange| {
        assert_eq!(take(exchange, PING), FromClient::Pass(Bytes::from_static(PING)));
        hear(exchange, PONG);
    });
    blind("the client ends", &|exchange| {
        exchange.client_ended();
        hear(exchange, PONG);
    });
    let last = Exchange::default();
    ask(&last, b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    hear(&last, PONG);
    assert!(!is_free(&last));
    let early = Exchange::default();
    ask(&early, b"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na");
    hear(&early, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    assert!(!is_free(&early), "an answer before the end of its request");
}

/// The Engine's end may arrive with the channel's confirmation, before the request has been sent.
#[test]
fn a_request_that_was_not_sent_goes_on_another_channel_whatever_it_is() {
    let exchange = Exchange::default();
    assert!(!exchange.moves_unsent(), "nothing is to be sent");
    take(&exchange, b"POST /containers/a/start HTTP/1.1\r\nHost: x\r\n\r\n");
    for _ in 0..MOST_REPEATS {
        assert!(exchange.moves_unsent());
        assert!(exchange.ready().is_some());
    }
    assert!(!exchange.moves_unsent(), "it is not tried for ever");
    let asked = Exchange::default();
    ask(&asked, PING);
    assert!(!asked.moves_unsent());
}

#[test]
fn a_repeated_question_is_read_as_the_first_one_was() {
    let exchange = Exchange::default();
    let ping = b"HEAD /_ping HTTP/1.1\r\nHost: x\r\nUser-Agent: Docker-Client/20.10 (linux)\r\n\r\n";
    let other = b"GET /containers/json HTTP/1.1\r\nHost: x\r\n\r\n";
    for (request, path, is_ping) in [
        (&ping[..], "/_ping", true),
        (ping, "/_ping", true),
        (other, "/containers/json", false),
        (other, "/containers/json", false),
        (ping, "/_ping", true),
        (b"GET /containers/json HTTP/1.1\r\nHost: y\r\n\r\n", "/containers/json", false),
    ] {
        assert_eq!(take(&exchange, request), FromClient::Ready);
        assert_eq!(exchange.ready(), Some(Kind::Short));
        assert_eq!(lock(&exchange.state).request.is_ping, is_ping);
        assert_eq!(&exchange.begin()[..], request);
        assert_eq!(exchange.in_progress().map(|line| (line.path().to_owned(), line.received)), Some((path.into(), 0)));
        hear(
            &exchange,
            if is_ping { b"HTTP/1.1 200 OK\r\n\r\n" } else { b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" },
        );
        assert!(is_free(&exchange) && exchange.in_progress().is_none());
    }
    // Behind it comes more than was asked before, or less.
    assert_eq!(take(&exchange, &other[..9]), FromClient::Wait);
    assert_eq!(take(&exchange, &other[9..]), FromClient::Ready);
    assert_eq!(&exchange.begin()[..], other);
}

#[test]
fn a_question_without_an_answer_is_sent_again_and_nothing_else() {
    let exchange = Exchange::default();
    assert!(exchange.survives(), "nothing has been asked");
    ask(&exchange, PING);
    for _ in 0..MOST_REPEATS {
        assert!(exchange.survives());
        assert_eq!(exchange.ready(), Some(Kind::Short));
        assert_eq!(&exchange.begin()[..], PING);
    }
    assert!(!exchange.survives(), "it is not sent for ever");
    for request in [
        &b"POST /containers/a/start HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"DELETE /containers/a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /info HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
        b"GET /containers/a/attach/ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let exchange = Exchange::default();
        ask(&exchange, request);
        assert!(!exchange.survives(), "{}", String::from_utf8_lossy(request));
    }
    let answered = Exchange::default();
    ask(&answered, PING);
    hear(&answered, b"H");
    assert!(!answered.survives());
    // An incomplete head is kept for the next channel.
    let half = Exchange::default();
    assert_eq!(take(&half, &PING[..9]), FromClient::Wait);
    assert!(half.survives() && is_free(&half));
    assert_eq!(take(&half, &PING[9..]), FromClient::Ready);
    assert_eq!(&half.begin()[..], PING);
}

#[test]
fn what_changes_ports_is_told_once_it_has_been_carried_out() {
    const DONE: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
    for (request, answer, told) in [
        ("POST /v1.41/containers/a/start", DONE, Some(true)),
        ("POST /containers/a/restart?t=1", DONE, Some(true)),
        ("DELETE /containers/a?force=1", DONE, Some(false)),
        ("POST /containers/a/start", b"HTTP/1.1 304 Not Modified\r\n\r\n", Some(false)),
        ("POST /containers/a/start", b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", None),
        // Whole URIs.
        ("POST http://x/v1.41/containers/a/start", DONE, Some(true)),
        ("POST Unix+http://%2Fx:1/containers/a/restart?t=1", DONE, Some(true)),
        ("DELETE http:///containers/a", DONE, Some(false)),
        ("POST /containers/a/pause", DONE, None),
        ("POST http://x/containers/a/pause", DONE, None),
        ("DELETE /volumes/a", DONE, None),
    ] {
        let exchange = Exchange::default();
        ask(&exchange, format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(exchange.host_sent(b"HTTP/1.1 100 Continue\r\n\r\n").changed, None);
        assert_eq!(exchange.host_sent(&answer[..answer.len() - 1]).changed, None, "{request}");
        let told = told.map(|starts| Changed {
            effect: Effect::Ports,
            container: Some("a".into()),
            starts,
            is_answered: true,
        });
        assert_eq!(exchange.host_sent(&answer[answer.len() - 1..]).changed, told, "{request}");
        assert!(exchange.is_between());
    }
}

#[test]
fn the_end_of_a_command_in_a_container_is_told_with_its_answer() {
    let told = |exchange: &Exchange, data: &str| {
        let changed = exchange.host_sent(data.as_bytes()).changed?;
        assert!(!changed.starts);
        Some((changed.effect, changed.container))
    };
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (body, end) = ("15\r\n{\"StatusCode\":0}\r\n...\r\n", "0\r\n\r\n");
    let waited = Some((Effect::Waited, Some("a".to_owned())));
    let wait = Exchange::default();
    ask(&wait, b"POST /containers/a/wait?condition=removed HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(told(&wait, head), None, "it still runs");
    assert_eq!(told(&wait, body), waited);
    assert_eq!(told(&wait, end), None);
    let at_once = Exchange::default();
    ask(&at_once, b"POST /containers/a/wait HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(told(&at_once, &[head, body].concat()), waited);
    // Asked twice with the same bytes on one connection.
    let inspect = Exchange::default();
    for _ in 0..3 {
        ask(&inspect, b"GET /exec/e/json HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(told(&inspect, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Some((Effect::Written, None)));
    }
}

#[test]
fn a_last_request_is_answered_too_but_not_one_whose_bytes_are_not_over() {
    let is_answered = |head: &str, answer: &[u8]| {
        let exchange = Exchange::default();
        ask(&exchange, format!("POST /containers/a/start HTTP/1.1\r\nHost: x\r\n{head}\r\n").as_bytes());
        exchange.host_sent(answer).changed.map(|changed| changed.is_answered)
    };
    let done = b"HTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(is_answered("Connection: close\r\n", done), Some(true));
    assert_eq!(is_answered("", b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), Some(true));
    assert_eq!(is_answered("", b"HTTP/1.1 204 No Content\r\n\r\nmore"), Some(false));
    assert_eq!(is_answered("Content-Length: 4\r\n", done), Some(false));
}

#[test]
fn a_target_that_is_no_path_is_not_understood() {
    for target in ["http://x", "http://x?/a", "://x/a", "http:/x/a", "*", "x/a", "x:80"] {
        let exchange = Exchange::default();
        let request = format!("POST {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(ask(&exchange, request.as_bytes()), Kind::Unknown, "{target}");
        assert_eq!(exchange.host_sent(b"HTTP/1.1 204 No Content\r\n\r\n").changed, None);
        assert!(!exchange.is_between(), "{target}");
    }
}

#[test]
fn half_a_head_and_an_end_pass_as_they_are() {
    let exchange = Exchange::default();
    assert!(exchange.is_over(), "nothing was asked");
    assert_eq!(take(&exchange, b"POST"), FromClient::Wait);
    assert!(!exchange.is_over());
    assert_eq!(exchange.ready(), Some(Kind::Unknown));
    assert_eq!(&exchange.begin()[..], b"POST");
    assert!(!exchange.is_over() && !exchange.survives());
}

#[derive(Debug, Clone)]
enum Turn {
    Request(Vec<u8>),
    Answer(Vec<u8>),
}

fn any_turn() -> impl Strategy<Value = Turn> {
    let body = proptest::collection::vec(any::<u8>(), 0..200);
    let request = (0_usize..6, body.clone()).prop_map(|(kind, body)| {
        let chunked = |body: &[u8]| [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
        let head = |text: &str| text.as_bytes().to_vec();
        Turn::Request(match kind {
            0 => PING.to_vec(),
            1 => head("GET /v1.41/containers/json HTTP/1.1\r\nHost: x\r\n\r\n"),
            2 => [
                head(&format!("POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len())),
                body,
            ]
            .concat(),
            3 if !body.is_empty() => {
                [head("POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"), chunked(&body)]
                    .concat()
            }
            4 => body,
            _ => head("GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        })
    });
    let answer = (0_usize..6, body).prop_map(|(kind, body)| {
        let head = |text: &str| text.as_bytes().to_vec();
        Turn::Answer(match kind {
            0 => PONG.to_vec(),
            1 => [head(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())), body].concat(),
            2 => head("HTTP/1.1 101 UPGRADED\r\n\r\n"),
            3 => [head("HTTP/1.1 200 OK\r\n\r\n"), body].concat(),
            4 => body,
            _ => head("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n"),
        })
    });
    prop_oneof![request, answer]
}

proptest! {
    /// Whatever either side sends, in pieces of any size: every byte from the client is sent once and in order.
    #[test]
    fn every_byte_of_the_clients_is_sent_once_and_in_order(
        turns in proptest::collection::vec(any_turn(), 0..12),
        piece in 1_usize..80,
    ) {
        let exchange = Exchange::default();
        let (mut sent, mut came) = (Vec::new(), Vec::new());
        for turn in turns {
            match turn {
                Turn::Answer(data) => data.chunks(piece).for_each(|data| hear(&exchange, data)),
                Turn::Request(data) => for data in data.chunks(piece) {
                    came.extend_from_slice(data);
                    match take(&exchange, data) {
                        FromClient::Pass(data) => sent.extend_from_slice(&data),
                        FromClient::Wait => prop_assert!(exchange.ready().is_none() && is_free(&exchange)),
                        FromClient::Ready => {
                            prop_assert!(exchange.ready().is_some());
                            sent.extend_from_slice(&exchange.begin());
                        }
                    }
                },
            }
        }
        prop_assert!(came.starts_with(&sent));
        // Only an incomplete head may be missing.
        prop_assert!(came.len() == sent.len() || exchange.is_between());
    }
}

/// The states after these turns, with all data in pieces of this size.
fn standing(turns: &[Turn], piece: usize) -> Vec<&'static str> {
    let exchange = Exchange::default();
    let after = turns.iter().map(|turn| {
        match turn {
            Turn::Answer(data) => data.chunks(piece).for_each(|data| hear(&exchange, data)),
            Turn::Request(data) => data.chunks(piece).for_each(|data| {
                if take(&exchange, data) == FromClient::Ready {
                    exchange.begin();
                }
            }),
        }
        match lock(&exchange.state).phase {
            Phase::Between | Phase::Holding => "between",
            Phase::Ready | Phase::Asked => "asked",
            _ => "blind",
        }
    });
    after.collect()
}

proptest! {
    /// The end of a request or answer does not depend on the sizes of the pieces.
    #[test]
    fn pieces_make_no_difference(turns in proptest::collection::vec(any_turn(), 0..12), piece in 1_usize..80) {
        prop_assert_eq!(standing(&turns, piece), standing(&turns, usize::MAX));
    }
}

#[test]
fn who_was_told_otherwise_and_has_had_nothing_else_is_cut() {
    let head = |more: &str| {
        format!("HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nSwarm: inactive\r\nContent-Length: 0\r\n{more}\r\n")
    };
    let different: [Option<Vec<u8>>; 4] = [
        None,
        Some(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec()),
        Some(head("Builder-Version: 2\r\n").into_bytes()),
        Some(b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nswarm: active/worker\r\n\r\n".to_vec()),
    ];
    let newer = b"HTTP/1.1 200 OK\r\nApi-Version: 1.43\r\nSwarm: inactive\r\nContent-Length: 0\r\n\r\n".to_vec();
    for (answer, cuts) in different.into_iter().map(|answer| (answer, true)).chain([
        (Some(head("").into_bytes()), false),
        (Some(head("X-Other: 1\r\n").into_bytes()), false),
        (Some(newer), false),
    ]) {
        let pings = Arc::<Pings>::default();
        pings.heard(0, Some(head("").as_bytes()));
        let clients = [(); 3].map(|()| Arc::new(Exchange::new(pings.clone(), Wanted::default(), None)));
        let early = pings.answer(std::time::SystemTime::now()).expect("known");
        clients[..2].iter().for_each(|client| drop(client.answer_early(&early)));
        // The first one has asked on, and has an answer.
        clients[0].client_sent("GET /info HTTP/1.1\r\nHost: x\r\n\r\n".into());
        clients[0].begin();
        clients[0].host_sent(b"HTTP/1.1 200 OK\r\n");
        pings.heard(0, answer.as_deref());
        // The last one was just being told.
        clients[2].answer_early(&early);
        assert_eq!(clients.map(|client| client.is_cut()), [false, cuts, cuts], "{answer:?}");
    }
}

#[test]
fn a_body_that_may_name_our_socket_is_looked_at_whole_and_only_then() {
    let ours = Wanted { sockets: [String::from("/run/lab.sock")].into(), all: false };
    let create = |bind: &str| {
        let body = format!("{{\"HostConfig\":{{\"Binds\":[\"{bind}:/var/run/docker.sock\"]}}}}");
        let head = "POST /v1.41/containers/create?name=a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    for piece in [1, 7, 100_000] {
        for (bind, is_ours) in [("/run/lab.sock", true), ("/run/other.sock", false)] {
            let exchange = Exchange::new(Arc::default(), ours.clone(), None);
            let request = create(bind);
            let mut pieces = request.as_bytes().chunks(piece).peekable();
            while let Some(data) = pieces.next() {
                let expected = if pieces.peek().is_none() { FromClient::Ready } else { FromClient::Wait };
                assert_eq!(take(&exchange, data), expected);
                assert_eq!(exchange.ready().is_some(), expected == FromClient::Ready);
            }
            assert_eq!(exchange.is_to_be_prepared(), is_ours);
            if is_ours {
                let (binds, starts) = exchange.to_be_prepared();
                assert_eq!(starts, None);
                let others: Vec<_> = binds.into_iter().map(|bind| (bind, "/run/docker.sock".into())).collect();
                exchange.prepared(&others);
                assert!(!exchange.is_to_be_prepared());
            }
            let expected = if is_ours { create("/run/docker.sock") } else { request };
            assert_eq!(String::from_utf8_lossy(&exchange.begin()), expected);
            hear(&exchange, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
            assert!(exchange.is_between());
        }
    }
}

#[test]
fn a_container_that_may_have_mounts_is_prepared_for_before_it_is_started() {
    for all in [false, true] {
        let exchange = Exchange::new(Arc::default(), Wanted { all, ..Wanted::default() }, None);
        for _ in 0..2 {
            take(&exchange, b"POST /v1.41/containers/web/start HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(exchange.is_to_be_prepared(), all);
            if all {
                assert_eq!(exchange.to_be_prepared(), (vec![], Some("web".into())));
                exchange.prepared(&[]);
                assert!(!exchange.is_to_be_prepared());
            }
            assert!(exchange.begin().starts_with(b"POST /v1.41/containers/web/start "));
            hear(&exchange, b"HTTP/1.1 204 No Content\r\n\r\n");
        }
    }
}

/// However it does not come, what there is of it passes as it is.
#[tokio::test(start_paused = true)]
async fn a_body_that_stays_away_passes_as_far_as_it_came() {
    let begun = |length: u64, more: &str| {
        let exchange = Exchange::new(Arc::default(), Wanted::default(), None);
        let text = format!("POST /containers/create HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {length}\r\n\r\n{{");
        (take(&exchange, text.as_bytes()), exchange, text)
    };
    let (waits, exchange, text) = begun(100, "");
    assert_eq!(waits, FromClient::Wait);
    exchange.overdue().await;
    assert_eq!((exchange.ready(), exchange.begin()), (Some(Kind::Unknown), Bytes::from(text)));
    let (_, exchange, text) = begun(100, "");
    assert!(!exchange.is_over(), "half a body is no end");
    assert_eq!((exchange.ready(), exchange.begin()), (Some(Kind::Unknown), Bytes::from(text)));
    // An Engine that answers before it was asked.
    let (_, exchange, text) = begun(100, "");
    hear(&exchange, b"HTTP/1.1 400 Bad Request\r\n");
    assert_eq!((exchange.ready(), exchange.begin()), (Some(Kind::Unknown), Bytes::from(text)));
    // Not one that is too large, nor one whose client waits for a word of the Engine's.
    for (length, more) in [(MAX_BODY + 1, ""), (100, "Expect: 100-continue\r\n")] {
        assert_eq!(begun(length, more).0, FromClient::Ready);
    }
}
