//! Requests to the Engine about existing objects, made before a client's request may pass.

use std::future::Future;

use hyper::StatusCode;
use hyper::body::Bytes;

use super::refusal::Refused;

/// Sends requests to the Engine.
pub(super) trait Ask: Sync {
    /// The status and body of the answer to a GET.
    fn get(&self, path: &str) -> impl Future<Output = Result<(StatusCode, Bytes), Refused>> + Send;
}

/// Requests an object that must exist.
pub(super) async fn ask(engine: &impl Ask, path: &str, what: &str) -> Result<Bytes, Refused> {
    match engine.get(path).await? {
        (StatusCode::OK, answer) => Ok(answer),
        (StatusCode::NOT_FOUND, _) => Err((StatusCode::NOT_FOUND, format!("No such {what}"))),
        (status, _) => Err((StatusCode::BAD_GATEWAY, format!("the Engine answered {status} about {what}"))),
    }
}
