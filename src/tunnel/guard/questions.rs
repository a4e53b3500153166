//! Our own questions to the Engine about a client's request, over a flow of their own.

use std::sync::Arc;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::ask::Ask;
use super::make::Make;
use super::reach;
use super::refusal::Refused;
use crate::tunnel::client::peer::Who;
use crate::tunnel::dial::{Dial, Purpose};

/// The questions about one request.
pub(super) struct Questions<'a> {
    who: &'a Who,
    tunnel: &'a Arc<dyn Dial>,
    /// Hears with each answer whose Engine it is.
    heard: &'a (dyn Fn(Make) + Sync),
    /// Opened by the first question.
    connection: Mutex<Option<Connection>>,
}

struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    _driven: AbortOnDropHandle<()>,
}

impl<'a> Questions<'a> {
    /// Questions on behalf of this client. `heard` hears with each answer whose Engine it is.
    pub(super) fn new(who: &'a Who, tunnel: &'a Arc<dyn Dial>, heard: &'a (dyn Fn(Make) + Sync)) -> Self {
        Self { who, tunnel, heard, connection: Mutex::new(None) }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let stream = self.tunnel.clone().dial(Purpose::guarded(self.who.clone()));
        let stream = TokioIo::new(stream.map_err(|e| e.to_string())?);
        let (sender, connection) = http1::handshake(stream).await.map_err(|e| e.to_string())?;
        let driven = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, _driven: AbortOnDropHandle::new(driven) })
    }
}

impl Ask for Questions<'_> {
    async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), Refused> {
        let unreachable = |e: String| {
            let why = self.tunnel.last_error().unwrap_or_else(|| format!("the Engine did not answer: {e}"));
            (StatusCode::BAD_GATEWAY, why)
        };
        let request = Request::get(path).header(HOST, "docker").body(Empty::new());
        let request = request.map_err(|e| (StatusCode::BAD_REQUEST, format!("{path} cannot be asked for: {e}")))?;
        let mut connection = self.connection.lock().await;
        if connection.as_ref().is_none_or(|connection| connection.sender.is_closed()) {
            *connection = Some(self.connect().await.map_err(unreachable)?);
        }
        let Some(current) = connection.as_mut() else { return Err(unreachable("it is gone".into())) };
        current.sender.ready().await.map_err(|e| unreachable(e.to_string()))?;
        let answer = current.sender.send_request(request).await.map_err(|e| unreachable(e.to_string()))?;
        let (parts, body) = answer.into_parts();
        let headers = parts.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        (self.heard)(Make::of(headers));
        let body = Limited::new(body, reach::MAX_ANSWER).collect().await;
        let unreadable = |e| (StatusCode::BAD_GATEWAY, format!("the Engine's answer cannot be read: {e}"));
        Ok((parts.status, body.map_err(unreadable)?.to_bytes()))
    }
}
