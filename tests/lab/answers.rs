//! An Engine that says what a test wants: for answers that no real Engine can be made to give.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Answers `GET` of each path with what `answer` has for it, 404 where it has nothing. Pings are answered
/// as Docker does. Serves for as long as the process lives.
pub fn serve(path: &Path, answer: impl Fn(&str) -> Option<String> + Send + Sync + Clone + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            std::thread::spawn(move || converse(stream.unwrap(), answer));
        }
    });
}

fn converse(mut stream: UnixStream, answer: impl Fn(&str) -> Option<String>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        lines.by_ref().find(String::is_empty);
        let path = request.split(' ').nth(1).unwrap_or_default();
        let head = "Server: Docker/20.10.0 (linux)\r\nApi-Version: 1.41\r\n";
        let (status, body) = match (path, answer(path)) {
            ("/_ping", _) => ("200 OK", "OK".into()),
            (_, Some(body)) => ("200 OK", body),
            (_, None) => ("404 Not Found", r#"{"message":"no such thing"}"#.into()),
        };
        let text = format!("HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}
