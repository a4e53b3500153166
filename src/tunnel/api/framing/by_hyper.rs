//! How hyper reads requests: beside the strict reading in a property test, and in `fuzz/fuzz_targets/guard.rs`, which
//! includes this file.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, server};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A request's method and target.
pub(super) type Seen = (String, String);

/// The requests that hyper sees, all of whose bodies are read.
pub(super) fn by_hyper(bytes: &[u8]) -> Vec<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    runtime.block_on(async move {
        let (theirs, mut ours) = tokio::io::duplex(64 << 10);
        let service = service_fn(move |request: Request<Incoming>| {
            noted.lock().expect("unlocked").push((request.method().to_string(), request.uri().to_string()));
            async move {
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let serving = server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
        let feeding = async {
            let _ = ours.write_all(bytes).await;
            let _ = ours.shutdown().await;
            let _ = ours.read_to_end(&mut Vec::new()).await;
        };
        let _ = tokio::join!(serving, feeding);
    });
    let seen = seen.lock().expect("unlocked");
    seen.clone()
}
