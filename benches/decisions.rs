//! What dtunnel decides for each flow and request, without I/O: where it goes, where it ends, and whether it may pass.
//! The requests are those of Docker's CLI (28.2), caught on a socket.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![allow(unreachable_pub, reason = "one crate: nothing is reachable from outside")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tokio::runtime::Builder;

use dtunnel::config::{Access, ConfigFile, Overrides, Policy, Target, resolve};
use dtunnel::ssh::Prompter;
use dtunnel::tunnel::Tunnel;
use dtunnel::tunnel::measured::{Client, OpenPorts, Places, Question};

const SOCKET: &str = "/run/user/1000/dtunnel/lab.sock";

/// The headers of every request.
const HOST: &str = "Host: api.moby.localhost\r\nUser-Agent: Docker-Client/28.2.2 (linux)\r\n";
/// The headers of every answer.
const SERVER: &str = "Api-Version: 1.41\r\nContent-Type: application/json\r\nDocker-Experimental: false\r\n\
    Ostype: linux\r\nServer: Docker/20.10.24 (linux)\r\nDate: Sat, 28 Nov 2026 12:00:00 GMT\r\n";
const ID: &str = "8f9f1d42a1f1f9b6b9a2f1f8ac2f5a4f4f1bb5e0b6f0a7c4f0e6f3a5f9f1d42a";

/// The body of `docker run -d -p 8080:80 -v /srv/x:/x --restart always nginx`.
const CREATE: &str = include_str!("create.json");

fn bytes(text: String) -> Bytes {
    text.into()
}

/// `docker ps`.
fn list() -> Bytes {
    bytes(format!("GET /v1.41/containers/json HTTP/1.1\r\n{HOST}\r\n"))
}

fn create() -> Bytes {
    let length = CREATE.len();
    let json = format!("Content-Length: {length}\r\nContent-Type: application/json\r\n");
    bytes(format!("POST /v1.41/containers/create HTTP/1.1\r\n{HOST}{json}\r\n{CREATE}"))
}

/// The start of `docker exec`.
fn exec_start() -> Bytes {
    let body = r#"{"Detach":false,"Tty":false}"#;
    let length = body.len();
    let json = "Connection: Upgrade\r\nContent-Type: application/json\r\nUpgrade: tcp\r\n";
    bytes(format!("POST /v1.41/exec/{ID}/start HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n{json}\r\n{body}"))
}

/// An answer with a list of this many bytes.
fn with_length(length: usize) -> Bytes {
    let body = format!("[{}]", " ".repeat(length - 2));
    bytes(format!("HTTP/1.1 200 OK\r\n{SERVER}Content-Length: {length}\r\n\r\n{body}"))
}

/// The same in chunks, as the Engine writes whatever is larger than its buffer.
fn chunked(length: usize) -> Bytes {
    let body = format!("[{}]", " ".repeat(length - 2)).into_bytes();
    let chunks = body.chunks(2048).map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)));
    let chunks: String = chunks.collect();
    bytes(format!("HTTP/1.1 200 OK\r\n{SERVER}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"))
}

fn created() -> Bytes {
    let body = format!("{{\"Id\":\"{ID}\",\"Warnings\":[]}}\n");
    let length = body.len();
    bytes(format!("HTTP/1.1 201 Created\r\n{SERVER}Content-Length: {length}\r\n\r\n{body}"))
}

fn upgraded() -> Bytes {
    let stream = "Content-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n";
    bytes(format!("HTTP/1.1 101 UPGRADED\r\n{stream}\r\n"))
}

fn target() -> Target {
    let config = ConfigFile::parse("", Path::new("config.toml")).unwrap();
    let overrides = Overrides { ssh_config: Some("none".into()), ..Overrides::default() };
    resolve("lab", &config, &overrides, Path::new(SOCKET)).unwrap()
}

/// A tunnel with these policies, which does not run.
fn tunnel(policies: &[Policy]) -> Arc<Tunnel> {
    let mut target = target();
    target.access = Access { policies: policies.to_vec(), allowed_binds: vec!["/srv/x".into()], ..Access::default() };
    Tunnel::new(target, Prompter::for_nobody(), None, None).unwrap()
}

/// A client of a tunnel with these policies.
fn client(policies: &[Policy]) -> Client {
    Client::new(&tunnel(policies), SOCKET)
}

/// A request and its answer, behind which the next one can follow.
fn turn(client: &Client, request: &Bytes, answer: &Bytes) {
    assert!(black_box(client.sends(black_box(request))).is_some());
    assert_eq!(client.hears(black_box(answer)), answer.len());
    assert!(client.is_between());
}

fn placement(c: &mut Criterion) {
    let mut group = c.benchmark_group("placement");
    for (connections, flows) in [(1, 0), (4, 0), (4, 1000)] {
        let places = Places::new(connections, flows);
        let what = format!("{connections} connections, {flows} flows");
        group.bench_function(format!("decision: {what}"), |b| b.iter(|| assert!(places.decides().is_some())));
        group.bench_function(format!("a flow, placed and ended: {what}"), |b| b.iter(|| assert!(places.places())));
        group.bench_function(format!("a client's next request: {what}"), |b| b.iter(|| assert!(places.stays())));
    }
    group.finish();
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    let both = [&[][..], &[Policy::ReadOnly]];
    for (policies, guard) in both.iter().zip(["no guard", "read-only"]) {
        let (client, request) = (client(policies), list());
        for (answer, what) in [(with_length(3), "3 bytes"), (chunked(64 << 10), "64 KiB in chunks")] {
            let id = format!("GET containers/json, {what}: {guard}");
            group.bench_function(id, |b| b.iter(|| turn(&client, &request, &answer)));
        }
    }
    for (policies, guard) in [(&[][..], "no guard"), (&[Policy::NoPrivileged], "no-privileged")] {
        let client = client(policies);
        let (request, answer) = (create(), created());
        turn_of_the_list(&client);
        group.bench_function(format!("POST containers/create: {guard}"), |b| {
            b.iter(|| turn(&client, &request, &answer));
        });
    }
    // A connection that is upgraded carries no other request: a client for each.
    let (tunnel, request, answer) = (tunnel(&[]), exec_start(), upgraded());
    group.bench_function("POST exec/ID/start, upgraded: no guard", |b| {
        b.iter_batched_ref(
            || Client::new(&tunnel, SOCKET),
            |client| {
                assert!(client.sends(black_box(&request)).is_some());
                assert_eq!(client.hears(black_box(&answer)), answer.len());
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// From its answer the guard knows whose Engine it is, as from any other.
fn turn_of_the_list(client: &Client) {
    turn(client, &list(), &with_length(3));
}

fn verdicts(c: &mut Criterion) {
    let mut group = c.benchmark_group("verdict");
    for (what, policy, request) in [
        ("GET containers/json: read-only", Policy::ReadOnly, list()),
        ("POST containers/create: no-privileged", Policy::NoPrivileged, create()),
    ] {
        let client = client(&[policy]);
        turn_of_the_list(&client);
        let question = Question::read(&request).unwrap();
        group.bench_function(what, |b| b.iter(|| client.verdict(black_box(&question)).unwrap()));
    }
    group.finish();
}

/// A container with ten ports starts or ends beside others, whose ports are open.
fn published(c: &mut Criterion) {
    let mut group = c.benchmark_group("published ports");
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    for count in [20, 200, 1990] {
        let mut ports = OpenPorts::new(target(), count);
        assert!(ports.changes() > count - 10, "{count}");
        group.bench_function(format!("a container comes or goes beside {count}"), |b| b.iter(|| ports.changes()));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    // Some nanoseconds to microseconds each.
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = placement, requests, verdicts, published
}
criterion_main!(benches);
