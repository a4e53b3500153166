//! Micro-benchmarks of the relay and the pool: the real binary and a real sshd, on loopback, but
//! neither docker nor the peers (`scripts/bench` has those). Run by `cargo bench`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![allow(unreachable_pub, reason = "one crate: nothing is reachable from outside")]

#[allow(dead_code, reason = "the tests' lab, of which a part is used here")]
#[path = "../tests/lab/mod.rs"]
mod lab;

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use lab::{Lab, remote};

/// What is moved in one turn of the bulk rows, in bytes.
const BULK: usize = 32 << 20;
const CHUNK: usize = 64 << 10;

/// The server at the far end: `E` echoes, `D` sends [`BULK`] bytes on each further byte, `U` takes
/// [`BULK`] bytes and answers with one.
fn behaviour(mut stream: UnixStream) {
    let (mut byte, mut chunk) = ([0], vec![0; CHUNK]);
    if stream.read_exact(&mut byte).is_err() {
        return;
    }
    match &byte {
        b"D" => {
            while stream.read_exact(&mut byte).is_ok() {
                for _ in 0..BULK / CHUNK {
                    if stream.write_all(&chunk).is_err() {
                        return;
                    }
                }
            }
        }
        b"U" => loop {
            for _ in 0..BULK / CHUNK {
                if stream.read_exact(&mut chunk).is_err() {
                    return;
                }
            }
            stream.write_all(b"u").unwrap();
        },
        _ => remote::echo(stream),
    }
}

/// A flow that the far server has been told what to do with. Its first byte chooses between a ping's
/// answer and [`behaviour`] (lab/remote.rs).
fn flow(socket: &Path, what: u8) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(&[b'x', what]).unwrap();
    stream
}

fn echo(stream: &mut UnixStream) {
    let mut answer = [0];
    stream.write_all(b"e").unwrap();
    stream.read_exact(&mut answer).unwrap();
    black_box(answer);
}

fn relay(c: &mut Criterion) {
    let lab = Lab::new("");
    let path = lab.path("remote/x.sock");
    remote::serve(&path, behaviour);
    lab.ok(&["up", "lab", "--remote", path.to_str().unwrap()]);
    let socket = lab.socket("lab");

    let mut group = c.benchmark_group("relay");
    let mut stream = flow(&socket, b'E');
    group.bench_function("echo of a byte", |b| b.iter(|| echo(&mut stream)));
    drop(stream);
    group.throughput(Throughput::Bytes(BULK as u64)).sample_size(20);
    let mut stream = flow(&socket, b'D');
    let mut all = vec![0; BULK];
    group.bench_function("32 MiB down", |b| {
        b.iter(|| {
            stream.write_all(b"d").unwrap();
            stream.read_exact(&mut all).unwrap();
        });
    });
    drop(stream);
    let mut stream = flow(&socket, b'U');
    group.bench_function("32 MiB up", |b| {
        b.iter(|| {
            stream.write_all(&all).unwrap();
            stream.read_exact(&mut [0]).unwrap();
        });
    });
    drop(stream);
    group.finish();

    let mut group = c.benchmark_group("pool");
    group.bench_function("a flow: opened, an echo, closed", |b| b.iter(|| echo(&mut flow(&socket, b'E'))));
    group.sample_size(20).bench_function("32 flows at once", |b| {
        b.iter(|| {
            let mut flows: Vec<_> = (0..32).map(|_| flow(&socket, b'E')).collect();
            flows.iter_mut().for_each(echo);
        });
    });
    let mut stalled = flow(&socket, b'D');
    stalled.write_all(&[b'd'; 4]).unwrap();
    group.bench_function("a flow beside one that nobody reads", |b| b.iter(|| echo(&mut flow(&socket, b'E'))));
    group.finish();
}

criterion_group!(benches, relay);
criterion_main!(benches);
