//! What clears up behind testcontainers (Ryuk), by its protocol: clients name labels, line by line, and once none is
//! connected any more, all containers with these labels are removed through the Engine's socket. Its image comes from a
//! registry, which a test does not have. Compiled by the test, statically.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

/// The body of an answer of the Engine's.
fn ask(method: &str, path: &str) -> String {
    let mut engine = UnixStream::connect("/var/run/docker.sock").expect("the Engine's socket");
    write!(engine, "{method} {path} HTTP/1.0\r\nHost: docker\r\n\r\n").expect("sent");
    let mut answer = String::new();
    engine.read_to_string(&mut answer).expect("an answer");
    answer
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Takes labels until the client goes.
fn serve(client: &TcpStream, labels: &mpsc::Sender<String>) {
    for line in BufReader::new(client).lines().map_while(Result::ok) {
        for filter in line.trim().split('&').filter(|filter| !filter.is_empty()) {
            let _ = labels.send(filter.trim_start_matches("label=").to_owned());
        }
        let mut writer = client;
        let _ = writer.write_all(b"ACK\n");
    }
}

fn main() {
    let listener = TcpListener::bind("0.0.0.0:8080").expect("port 8080");
    // It is of no use without the Engine, and says so at once.
    assert!(ask("GET", "/_ping").contains("OK"));
    println!("testcontainers/ryuk: Started!");
    let (sender, labels) = mpsc::channel();
    // The port may be looked at before it is used: clients that name nothing do not count.
    let mut all = BTreeSet::new();
    while all.is_empty() {
        let (client, _) = listener.accept().expect("a client");
        serve(&client, &sender);
        all.extend(labels.try_iter());
    }
    for label in all {
        let filters = encoded(&format!("{{\"label\":[\"{label}\"]}}"));
        let list = ask("GET", &format!("/containers/json?all=1&filters={filters}"));
        for found in list.split("\"Id\":\"").skip(1) {
            ask("DELETE", &format!("/containers/{}?force=1&v=1", &found[..64]));
        }
    }
}
