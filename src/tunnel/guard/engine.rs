//! The Engine's side of a guarded connection.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, SERVER};
use hyper::{Request, Response, client};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Target;
use crate::sync::lock;
use crate::tunnel::client::peer::Who;
use crate::tunnel::dial::{Dial, Purpose};

pub(super) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// The Engine, as used by one client's connection: one request after another.
pub(super) struct EngineSide {
    tunnel: Arc<dyn Dial>,
    /// The tunnel's target when the client connected.
    target: Arc<Target>,
    /// The client.
    who: Who,
    /// The connection, opened by the first request.
    upstream: Mutex<Option<Upstream>>,
    /// The vendor of the Engine; None until it has answered over this connection.
    make: std::sync::Mutex<Option<Make>>,
}

/// The vendor of the Engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Make {
    /// Docker's, or an unknown one.
    Docker,
    /// Podman, by this name. It builds command lines from bodies (cmd/podman/common/create_opts.go).
    Podman(String),
}

impl Make {
    fn of(headers: &HeaderMap) -> Self {
        let server = headers.get(SERVER).map(|server| String::from_utf8_lossy(server.as_bytes()).into_owned());
        let server = server.unwrap_or_default();
        match headers.contains_key("libpod-api-version") || server.starts_with("Libpod/") {
            true => Self::Podman(server),
            false => Self::Docker,
        }
    }
}

struct Upstream {
    sender: client::conn::http1::SendRequest<Body>,
    _connection: AbortOnDropHandle<()>,
}

impl EngineSide {
    pub(super) fn new(tunnel: Arc<dyn Dial>, who: Who) -> Self {
        Self { target: tunnel.target(), tunnel, who, upstream: Mutex::new(None), make: std::sync::Mutex::default() }
    }

    /// The vendor of the Engine; None until it has answered.
    pub(super) fn make(&self) -> Option<Make> {
        lock(&self.make).clone()
    }

    /// Sends a request and returns the answer.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn ask(&self, request: Request<Body>) -> Result<Response<Incoming>, String> {
        let answer = self.send(request).await?;
        *lock(&self.make) = Some(Make::of(answer.headers()));
        Ok(answer)
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, String> {
        let unreachable = |e: &dyn std::fmt::Display| {
            self.tunnel.last_error().unwrap_or_else(|| format!("the Engine did not answer: {e}"))
        };
        let mut upstream = self.upstream.lock().await;
        let usable = match upstream.as_mut() {
            Some(upstream) => upstream.sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            *upstream = Some(self.connect().await.map_err(|e| unreachable(&e))?);
        }
        let Some(current) = upstream.as_mut() else { return Err(unreachable(&"it is gone")) };
        match current.sender.try_send_request(request).await {
            Ok(answer) => Ok(answer),
            Err(mut failed) => match failed.take_message() {
                // The Engine closed the connection in the meantime: no part of the request was sent.
                Some(request) => {
                    let current = upstream.insert(self.connect().await.map_err(|e| unreachable(&e))?);
                    current.sender.send_request(request).await.map_err(|e| unreachable(&e))
                }
                None => Err(unreachable(failed.error())),
            },
        }
    }

    async fn connect(&self) -> Result<Upstream, String> {
        if !self.tunnel.target().ends_as(&self.target) {
            return Err("the tunnel has another target now: connect again".into());
        }
        let stream = self.tunnel.clone().dial(Purpose::guarded(self.who.clone())).map_err(|e| e.to_string())?;
        let stream = TokioIo::new(EngineStream { inner: stream, deaf: false });
        // The new connection may reach another Engine.
        *lock(&self.make) = None;
        let (sender, connection) = client::conn::http1::handshake(stream).await.map_err(|e| e.to_string())?;
        let connection = tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Ok(Upstream { sender, _connection: AbortOnDropHandle::new(connection) })
    }
}

/// A connection to the Engine. If the Engine stops reading a request, it may have answered already and closed the
/// connection. That answer is read before the connection counts as broken, so writing never fails for this reason.
pub(super) struct EngineStream {
    inner: UnixStream,
    /// Whether written data is discarded.
    deaf: bool,
}

impl EngineStream {
    /// The connection itself, after hyper has finished with it.
    pub(super) fn into_inner(self) -> UnixStream {
        self.inner
    }

    fn unless_closed<T>(&mut self, done: Poll<io::Result<T>>, instead: T) -> Poll<io::Result<T>> {
        match done {
            Poll::Ready(Err(e)) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.deaf = true;
                Poll::Ready(Ok(instead))
            }
            other => other,
        }
    }
}

impl AsyncRead for EngineStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for EngineStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(data.len()));
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, data);
        self.unless_closed(written, data.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.unless_closed(done, ())
    }
}
