//! One client's connection under a guard, and the Engine's connection behind it.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version, client, server, upgrade};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::framing::Head;
use super::operations::Operation;
use super::policy::Verdict;
use super::stream::{Framed, Reading};
use super::{Guard, Open, inspect, shown};
use crate::tunnel::flow::End;
use crate::tunnel::flows::Purpose;
use crate::tunnel::local::LocalStream;
use crate::tunnel::peer::Who;
use crate::tunnel::supervisor::Tunnel;

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Why a request is not passed on, and what that is called in HTTP.
type Refused = (StatusCode, String);

/// Headers that are about one connection, not about the request (RFC 9110 section 7.6.1).
const OF_A_CONNECTION: [HeaderName; 6] =
    [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, HeaderName::from_static("keep-alive"), UPGRADE];

/// Serves a client to its end.
///
/// # Errors
/// None; what goes wrong is told to the client.
pub(in crate::tunnel) async fn serve(
    tunnel: &Arc<Tunnel>,
    guard: Arc<Guard>,
    local: LocalStream,
) -> Result<End, String> {
    let who = Who::of(&local).await;
    let reading = Reading::default();
    let client = Arc::new(Client {
        tunnel: tunnel.clone(),
        guard,
        over_tcp: matches!(local, LocalStream::Tcp(_)),
        who,
        reading: reading.clone(),
        engine: Mutex::new(None),
        relay: Mutex::new(None),
    });
    let service = service_fn(|request| {
        let client = client.clone();
        async move { Ok::<_, Infallible>(client.answer(request).await) }
    });
    let stream = TokioIo::new(Framed::new(local, reading));
    let served = server::conn::http1::Builder::new().serve_connection(stream, service).with_upgrades().await;
    if let Err(error) = served {
        tracing::debug!("a guarded connection ended: {error}");
    }
    // A connection that went over to another protocol goes on after HTTP has ended.
    let relay = client.relay.lock().await.take();
    match relay {
        Some(relay) => Ok(relay.await.unwrap_or(End::Cut)),
        None => Ok(End::Done),
    }
}

/// A client, as long as its connection lasts.
struct Client {
    tunnel: Arc<Tunnel>,
    guard: Arc<Guard>,
    over_tcp: bool,
    who: Who,
    reading: Reading,
    /// The connection to the Engine, once there was something to ask.
    engine: Mutex<Option<Upstream>>,
    relay: Mutex<Option<AbortOnDropHandle<End>>>,
}

/// A connection to the Engine.
struct Upstream {
    sender: client::conn::http1::SendRequest<Body>,
    _connection: AbortOnDropHandle<()>,
}

impl Client {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (method, target) = (request.method().to_string(), request.uri().to_string());
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let judged = self.judge(&method, &target);
        let refused = match judged {
            Ok((operation, must_inspect)) => {
                let open = self.guard.begins(&method, &path, &self.who);
                self.log("allowed", &method, &path, operation.name);
                match self.clone().pass_on(request, operation, must_inspect, open).await {
                    Ok(answer) => return answer,
                    Err(refused) => refused,
                }
            }
            Err(refused) => refused,
        };
        let (status, reason) = refused;
        self.log("refused", &method, &path, &reason);
        let reason = match status {
            StatusCode::FORBIDDEN => {
                format!("dtunnel: refused by the guard of this tunnel ({}): {reason}", self.guard.rules.label)
            }
            StatusCode::BAD_REQUEST => format!("dtunnel: refused by the guard of this tunnel: {reason}"),
            _ => format!("dtunnel: {reason}"),
        };
        refusal(status, &reason)
    }

    fn log(&self, verdict: &str, method: &str, path: &str, what: &str) {
        tracing::info!("{verdict} {method} {} for {}: {what}", shown(path), self.who);
    }

    /// Decides from the head of a request. True where its body is to be looked into.
    fn judge(&self, method: &str, target: &str) -> Result<(&'static Operation, bool), Refused> {
        let bad = |reason: &str| (StatusCode::BAD_REQUEST, reason.to_owned());
        let head = match self.reading.take_seen() {
            Some(Ok(head)) => head,
            Some(Err(refusal)) => return Err(bad(refusal)),
            None => return Err(bad("it was read in two ways")),
        };
        if head.method != method || head.target != target {
            return Err(bad("it was read in two ways"));
        }
        if self.over_tcp {
            self.of_this_machine(&head)?;
        }
        match self.guard.rules.decide(&head) {
            Verdict::Allow(operation) => Ok((operation, false)),
            Verdict::Inspect(operation) => Ok((operation, true)),
            Verdict::Bad(reason) => Err((StatusCode::BAD_REQUEST, reason)),
            Verdict::Refuse(reason) => Err((StatusCode::FORBIDDEN, reason)),
        }
    }

    /// A page in a browser can reach a loopback port, and a name that leads there can be made by anybody.
    fn of_this_machine(&self, head: &Head) -> Result<(), Refused> {
        if head.origin {
            return Err((StatusCode::FORBIDDEN, "it comes from a page in a browser".into()));
        }
        if !is_loopback(&head.host) {
            return Err((StatusCode::FORBIDDEN, format!("its Host {} is not loopback", head.host.escape_debug())));
        }
        Ok(())
    }

    async fn pass_on(
        self: Arc<Self>,
        request: Request<Incoming>,
        operation: &'static Operation,
        must_inspect: bool,
        open: Open,
    ) -> Result<Response<Body>, Refused> {
        let (mut parts, body) = request.into_parts();
        let body = if must_inspect {
            let limited = Limited::new(body, inspect::MAX_BODY).collect().await;
            let body = limited.map_err(|e| (StatusCode::BAD_REQUEST, format!("its body cannot be judged: {e}")))?;
            let body = self.guard.rules.inspect(operation, &body.to_bytes());
            let body = Bytes::from(body.map_err(|reason| (StatusCode::FORBIDDEN, reason))?);
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            full(body)
        } else {
            body.boxed_unsync()
        };
        let wanted = parts.headers.get(UPGRADE).cloned();
        strip(&mut parts.headers);
        parts.headers.remove(EXPECT);
        if let Some(protocol) = &wanted {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            parts.headers.insert(UPGRADE, protocol.clone());
        }
        parts.version = Version::HTTP_11;
        let on_client = parts.extensions.remove::<upgrade::OnUpgrade>();
        let mut answer = self.ask_engine(Request::from_parts(parts, body)).await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let on_engine = upgrade::on(&mut answer);
            let Some(on_client) = on_client.filter(|_| wanted.is_some()) else {
                return Err((StatusCode::BAD_GATEWAY, "the Engine switched protocols unasked".into()));
            };
            let reading = self.reading.clone();
            let relay = tokio::spawn(async move {
                let end = relay(on_client, on_engine, &reading).await;
                drop(open);
                end
            });
            *self.relay.lock().await = Some(AbortOnDropHandle::new(relay));
            // What is held now is the relay's.
            return Ok(answer.map(|_| full(Bytes::new())));
        }
        strip(answer.headers_mut());
        if wanted.is_some() {
            // What the client sent behind its request was meant for the other protocol.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        *answer.version_mut() = Version::HTTP_11;
        let mut open = Some(open);
        Ok(answer.map(|body| {
            let body = body.map_frame(move |frame| {
                // Open as long as there is a body to be sent.
                let _ = &mut open;
                frame
            });
            body.boxed_unsync()
        }))
    }

    async fn ask_engine(&self, request: Request<Body>) -> Result<Response<Incoming>, Refused> {
        let unreachable = |e: &dyn std::fmt::Display| {
            let said = self.tunnel.watch().borrow().last_error.as_ref().map(|(message, _)| message.clone());
            (StatusCode::BAD_GATEWAY, said.unwrap_or_else(|| format!("the Engine did not answer: {e}")))
        };
        let mut engine = self.engine.lock().await;
        let usable = match engine.as_mut() {
            Some(upstream) => upstream.sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            *engine = Some(self.connect().await.map_err(|e| unreachable(&e))?);
        }
        let Some(upstream) = engine.as_mut() else { return Err(unreachable(&"it is gone")) };
        match upstream.sender.try_send_request(request).await {
            Ok(answer) => Ok(answer),
            Err(mut failed) => match failed.take_message() {
                // The Engine had closed the connection meanwhile: nothing of the request was sent.
                Some(request) => {
                    let upstream = engine.insert(self.connect().await.map_err(|e| unreachable(&e))?);
                    upstream.sender.send_request(request).await.map_err(|e| unreachable(&e))
                }
                None => Err(unreachable(failed.error())),
            },
        }
    }

    async fn connect(&self) -> Result<Upstream, String> {
        let stream = self.tunnel.dial(Purpose::Engine).map_err(|e| e.to_string())?;
        let (sender, connection) =
            client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        let connection = tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Ok(Upstream { sender, _connection: AbortOnDropHandle::new(connection) })
    }
}

/// Carries bytes both ways once HTTP has been left behind.
async fn relay(on_client: upgrade::OnUpgrade, on_engine: upgrade::OnUpgrade, reading: &Reading) -> End {
    let (Ok(client), Ok(engine)) = tokio::join!(on_client, on_engine) else { return End::Cut };
    let client = client.downcast::<TokioIo<Framed>>();
    let engine = engine.downcast::<TokioIo<tokio::net::UnixStream>>();
    let (Ok(client), Ok(engine)) = (client, engine) else { return End::Cut };
    let from_client = [client.read_buf, Bytes::from(reading.held())];
    let (client, from_engine) = (client.io.into_inner().into_inner(), [engine.read_buf]);
    let engine = LocalStream::unix(engine.io.into_inner());
    let ended = tokio::try_join!(copy(&client, &engine, &from_client), copy(&engine, &client, &from_engine));
    match ended {
        Ok(_) => {
            client.finish();
            engine.finish();
            End::Done
        }
        Err(_) => {
            client.reset();
            engine.reset();
            End::Cut
        }
    }
}

/// One direction, to its end.
async fn copy(from: &LocalStream, to: &LocalStream, first: &[Bytes]) -> std::io::Result<()> {
    for data in first {
        write_all(to, data).await?;
    }
    loop {
        let data = from.read().await?;
        if data.is_empty() {
            return to.shutdown_write();
        }
        write_all(to, &data).await?;
    }
}

async fn write_all(to: &LocalStream, mut data: &[u8]) -> std::io::Result<()> {
    while !data.is_empty() {
        data = &data[to.write_some(data).await?..];
    }
    Ok(())
}

fn strip(headers: &mut HeaderMap) {
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// An error as the Engine words them, so that clients print it well. Ends the connection where it is not
/// known what comes next.
fn refusal(status: StatusCode, message: &str) -> Response<Body> {
    let body = serde_json::json!({ "message": message }).to_string() + "\n";
    let mut answer = Response::new(full(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status != StatusCode::FORBIDDEN {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// `localhost`, `127.0.0.1:2375`, `[::1]:2375`.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_loopback() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:2375", "[::1]:2375", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "127.0.0.1:x"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
