//! Questions to the Engine about what is there, before a request may pass.

use std::future::Future;

use hyper::StatusCode;
use hyper::body::Bytes;

use super::refusal::Refused;

/// How the Engine is asked.
pub(super) trait Ask: Sync {
    /// The answer to a GET.
    fn get(&self, path: &str) -> impl Future<Output = Result<(StatusCode, Bytes), Refused>> + Send;
}

/// Asks for what must be there.
pub(super) async fn ask(engine: &impl Ask, path: &str, what: &str) -> Result<Bytes, Refused> {
    match engine.get(path).await? {
        (StatusCode::OK, answer) => Ok(answer),
        (StatusCode::NOT_FOUND, _) => Err((StatusCode::NOT_FOUND, format!("No such {what}"))),
        (status, _) => Err((StatusCode::BAD_GATEWAY, format!("the Engine answered {status} about {what}"))),
    }
}
