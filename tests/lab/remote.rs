//! A server on a Unix socket "on the host" that does what no Engine can be told to do: send bytes
//! without end, end one direction only, or never read. It answers pings, so that `up` is content.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Serves each connection with `behaviour`, in a thread, for as long as the process lives.
pub fn serve(path: &Path, behaviour: impl Fn(UnixStream) + Send + Sync + Clone + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let behaviour = behaviour.clone();
            std::thread::spawn(move || answer_ping_or(stream.unwrap(), behaviour));
        }
    });
}

/// The same, but `behaviour` sees each connection from its first moment on. Only the first of all
/// is answered as `up`'s ping.
pub fn serve_all(path: &Path, behaviour: impl Fn(UnixStream) + Send + Sync + Clone + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        answer_ping_or(listener.accept().unwrap().0, |_| {});
        for stream in listener.incoming() {
            let behaviour = behaviour.clone();
            std::thread::spawn(move || behaviour(stream.unwrap()));
        }
    });
}

/// Sends back what comes, until it ends.
pub fn echo(mut stream: UnixStream) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
}

/// `behaviour` sees what is behind the first byte, which tells: pings are HTTP, and begin with `G`.
pub fn answer_ping_or(mut stream: UnixStream, behaviour: impl Fn(UnixStream)) {
    let mut first = [0];
    if stream.read_exact(&mut first).is_err() {
        return;
    }
    if first != *b"G" {
        return behaviour(stream);
    }
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    lines.map_while(Result::ok).find(String::is_empty);
    let answer = "HTTP/1.1 200 OK\r\nServer: Docker/0.0.0 (lab)\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK";
    stream.write_all(answer.as_bytes()).unwrap();
}
