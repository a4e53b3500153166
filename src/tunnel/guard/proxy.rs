//! One client's connection under a guard: each request is judged, then passed on or refused.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version, server, upgrade};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::bodies::Judged;
use super::engine::{Body, EngineSide, Make};
use super::head::Head;
use super::operation::{Body as Sending, Operation, Reach};
use super::policy::{Decision, Pass, Rules};
use super::reach::Settled;
use super::refusal::{Refusal, Refused, TOO_LATE, forbidden};
use super::stream::{Framed, Reading, Returned};
use super::{Guard, Open, ask, bodies, browser, linger, reach, shown, switched};
use crate::sync::lock;
use crate::tunnel::client::error_answer::error_body;
use crate::tunnel::client::peer::Who;
use crate::tunnel::client::stream::LocalStream;
use crate::tunnel::dial::Dial;
use crate::tunnel::flow::relay::End;
use crate::tunnel::ports::Looks;

/// The strict reader's view of a request, from before hyper read it.
type Seen = Option<Result<Head, Refusal>>;

/// Headers about a single connection, not about the request (RFC 9110 section 7.6.1).
const OF_A_CONNECTION: [HeaderName; 6] =
    [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, HeaderName::from_static("keep-alive"), UPGRADE];
/// Holds the reason if an answer has no body.
const REFUSED: HeaderName = HeaderName::from_static("x-dtunnel-refused");
/// Limit of a dropped body, in bytes: dockerode repeats parameters there.
const MAX_DROPPED: usize = 1 << 20;
/// Time limit of reading a body completely. It is small and comes from this machine.
const BODY_TIME: Duration = Duration::from_secs(60);
/// Limit of a body that a refusal waits for, in bytes, so that the connection can be used again.
/// Most JSON requests are smaller.
const SETTLED: usize = 64 << 10;
/// Time limit of that wait.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// Serves a client until its connection ends.
///
/// # Errors
/// None; failures are reported to the client.
pub(in crate::tunnel) async fn serve(
    tunnel: Arc<dyn Dial>,
    looks: Arc<Looks>,
    guard: Arc<Guard>,
    local: LocalStream,
) -> Result<End, String> {
    let who = Who::of(&local).await;
    let over_tcp = matches!(local, LocalStream::Tcp(_));
    let watched = if over_tcp { None } else { local.watched().ok() };
    let reading = Reading::default();
    let returned = Returned::default();
    let client = Arc::new(GuardedClient {
        guard,
        over_tcp,
        engine: EngineSide::new(tunnel.clone(), who.clone()),
        tunnel,
        looks,
        who,
        reading: reading.clone(),
        failed: Arc::default(),
        relay: Mutex::new(None),
    });
    let service = service_fn(|request| {
        let client = client.clone();
        // Taken right away; see `Framing::is_over`.
        let seen = client.reading.take_seen();
        async move { Ok::<_, Infallible>(client.answer(request, seen).await) }
    });
    let stream = TokioIo::new(Framed::new(local, reading, returned.clone()));
    // A client of a Unix socket that has closed only its sending direction still gets its answers, and can be told from
    // one that is gone. Over TCP both look the same.
    let served = server::conn::http1::Builder::new()
        .half_close(watched.is_some())
        .serve_connection(stream, service)
        .with_upgrades();
    let gone = async {
        match watched {
            Some(watched) if watched.gone().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                tracing::debug!("a guarded connection ended: {error}");
            }
        }
        () = gone => tracing::debug!("a guarded connection ended: the client went away"),
    }
    // A connection that has switched protocols continues after HTTP has ended.
    let relay = client.relay.lock().await.take();
    if let Some(relay) = relay {
        return Ok(relay.await.unwrap_or(End::Cut));
    }
    let end = if client.failed.load(Relaxed) { End::Cut } else { End::Done };
    let local = lock(&returned).take();
    if let Some(local) = local {
        linger::close(local).await;
    }
    Ok(end)
}

/// A client, for the duration of its connection.
struct GuardedClient {
    guard: Arc<Guard>,
    over_tcp: bool,
    who: Who,
    reading: Reading,
    engine: EngineSide,
    tunnel: Arc<dyn Dial>,
    /// Where answers to requests that change published ports wait for these.
    looks: Arc<Looks>,
    /// Whether a request got no answer from the Engine, or a truncated one.
    failed: Arc<AtomicBool>,
    relay: Mutex<Option<AbortOnDropHandle<End>>>,
}

impl GuardedClient {
    async fn answer(self: Arc<Self>, request: Request<Incoming>, seen: Seen) -> Response<Body> {
        let (method, target) = (request.method().to_string(), request.uri().to_string());
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let expects = matches!(&seen, Some(Ok(head)) if head.expects);
        let (refused, reusable) = match self.judge(&method, &target, seen) {
            Ok(pass) => {
                let open = self.guard.begins(&method, &path, &self.who);
                self.log("allowed", &method, &path, pass.operation.name);
                match self.clone().pass_on(request, pass, open).await {
                    Ok(answer) => return answer,
                    Err(refused) => {
                        let reusable = refused.0 == StatusCode::FORBIDDEN;
                        (refused, reusable)
                    }
                }
            }
            Err(refused) => {
                let settled = settled(request.into_body(), expects).await;
                let reusable = refused.0 == StatusCode::FORBIDDEN && settled;
                (refused, reusable)
            }
        };
        let (status, reason) = refused;
        if status == StatusCode::BAD_GATEWAY {
            self.failed.store(true, Relaxed);
        }
        self.log("refused", &method, &path, &reason);
        let reason = match status {
            StatusCode::FORBIDDEN => {
                format!("dtunnel: refused by the guard of this tunnel ({}): {reason}", self.guard.rules.label)
            }
            StatusCode::BAD_REQUEST | StatusCode::REQUEST_TIMEOUT => {
                format!("dtunnel: refused by the guard of this tunnel: {reason}")
            }
            // The Engine's wording, which clients look for.
            StatusCode::NOT_FOUND => {
                reason.rsplit_once(": No such").map_or(reason.clone(), |(_, what)| format!("No such{what}"))
            }
            _ => format!("dtunnel: {reason}"),
        };
        let mut answer = refusal(status, &reason, reusable);
        // An answer to HEAD has no body, and clients make up an error (for `docker cp - c:/` docker reports that / is
        // no directory, whatever the status).
        if method == "HEAD"
            && let Ok(reason) = HeaderValue::from_str(&reason)
        {
            answer.headers_mut().insert(REFUSED, reason);
        }
        answer
    }

    fn log(&self, verdict: &str, method: &str, path: &str, what: &str) {
        tracing::info!("{verdict} {method} {} for {}: {what}", shown(path), self.who);
    }

    /// Decides on a request from its head.
    fn judge(&self, method: &str, target: &str, seen: Seen) -> Result<Pass, Refused> {
        let bad = |reason: &str| (StatusCode::BAD_REQUEST, reason.to_owned());
        let head = match seen {
            Some(Ok(head)) => head,
            Some(Err(TOO_LATE)) => return Err((StatusCode::REQUEST_TIMEOUT, TOO_LATE.into())),
            Some(Err(refusal)) => return Err(bad(refusal)),
            None => return Err(bad("it can be read in two ways")),
        };
        if head.method != method || head.target != target {
            return Err(bad("it can be read in two ways"));
        }
        if self.over_tcp {
            browser::check(&head)?;
        }
        match self.guard.rules.decide(&head) {
            Decision::Pass(pass) => Ok(pass),
            Decision::Bad(reason) => Err((StatusCode::BAD_REQUEST, reason)),
            Decision::Refuse(reason) => Err((StatusCode::FORBIDDEN, reason)),
        }
    }

    async fn pass_on(
        self: Arc<Self>,
        request: Request<Incoming>,
        pass: Pass,
        open: Open,
    ) -> Result<Response<Body>, Refused> {
        let operation = pass.operation;
        let (mut parts, body) = request.into_parts();
        let (body, settled) = self.body_to_send(&mut parts, body, &pass).await?;
        let wanted = parts.headers.get(UPGRADE).cloned();
        strip(&mut parts.headers);
        parts.headers.remove(EXPECT);
        if let Some(protocol) = &wanted {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            parts.headers.insert(UPGRADE, protocol.clone());
        }
        parts.version = Version::HTTP_11;
        let target = Uri::try_from(pass.target);
        parts.uri = target.map_err(|e| (StatusCode::BAD_REQUEST, format!("its target cannot be written: {e}")))?;
        if let Some(reach) = self.guard.rules.must_ask(operation) {
            parts.uri = self.reach(operation, reach, &parts.uri).await?;
        }
        let starts = operation.started(parts.uri.path()).map(str::to_owned);
        let on_client = parts.extensions.remove::<upgrade::OnUpgrade>();
        let answer = self.engine.ask(Request::from_parts(parts, body)).await;
        let mut answer = answer.map_err(|reason| match self.reading.broken() {
            Some(refusal) => (StatusCode::BAD_REQUEST, refusal.to_owned()),
            None => (StatusCode::BAD_GATEWAY, reason),
        })?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let on_engine = upgrade::on(&mut answer);
            let Some(on_client) = on_client.filter(|_| wanted.is_some()) else {
                return Err((StatusCode::BAD_GATEWAY, "the Engine switched protocols unasked".into()));
            };
            let reading = self.reading.clone();
            let relay = tokio::spawn(async move {
                let end = switched::relay(on_client, on_engine, &reading).await;
                drop(open);
                end
            });
            *self.relay.lock().await = Some(AbortOnDropHandle::new(relay));
            // The relay takes over the held data.
            return Ok(answer.map(|_| full(Bytes::new())));
        }
        if operation.changes_ports
            && answer.status().as_u16() < 400
            && let Some(why) = self.looks.once_more(starts.as_deref()).await
        {
            return Err((StatusCode::INTERNAL_SERVER_ERROR, why));
        }
        strip(answer.headers_mut());
        if wanted.is_some() {
            // Data that the client sent after its request was meant for the other protocol.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        *answer.version_mut() = Version::HTTP_11;
        let made = self.guard.rules.remembers(operation).filter(|_| settled == Settled::ForGood);
        if let Some(made) = made.filter(|_| answer.status() == StatusCode::CREATED) {
            let (parts, body) = answer.into_parts();
            let body = read_whole(body).await?;
            self.guard.learn(made, &body);
            return Ok(Response::from_parts(parts, full(body)));
        }
        Ok(self.watched(answer, open))
    }

    /// Keeps the request open until the answer's body was sent, and counts a truncated answer as failed.
    fn watched(&self, answer: Response<Incoming>, open: Open) -> Response<Body> {
        let (mut open, failed) = (Some(open), self.failed.clone());
        answer.map(|body| {
            let body = body.map_frame(move |frame| {
                let _ = &mut open;
                frame
            });
            let body = body.map_err(move |error| {
                failed.store(true, Relaxed);
                error
            });
            body.boxed_unsync()
        })
    }

    /// The body to send to the Engine, judged if its operation requires that. Adapts the headers about the body.
    async fn body_to_send(&self, parts: &mut Parts, body: Incoming, pass: &Pass) -> Result<(Body, Settled), Refused> {
        let operation = pass.operation;
        if self.guard.rules.knows_only_docker() && !parts.method.is_safe() {
            self.must_be_dockers().await?;
        }
        // What is not judged passes whatever its size.
        let may_be_read = body.size_hint().exact().is_some_and(|length| length <= bodies::MAX_BODY as u64);
        if pass.inspect || operation.has_binds && may_be_read {
            let body = self.whole(body, bodies::MAX_BODY).await?;
            let body = self.tunnel.with_engines_socket(body).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
            let (body, settled) = match pass.inspect {
                true => self.inspect(operation, &pass.target, &body).await?,
                false => (body, Settled::ForGood),
            };
            parts.headers.remove(TRANSFER_ENCODING);
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            return Ok((full(body), settled));
        }
        if operation.body == Sending::Sent {
            return Ok((body.boxed_unsync(), Settled::ForGood));
        }
        let body = self.whole(body, MAX_DROPPED).await?;
        Rules::drop_body(operation, &body).map_err(|reason| (StatusCode::FORBIDDEN, reason))?;
        if parts.headers.contains_key(CONTENT_LENGTH) || parts.headers.contains_key(TRANSFER_ENCODING) {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        }
        parts.headers.remove(CONTENT_TYPE);
        Ok((full(Bytes::new()), Settled::ForGood))
    }

    /// Fails for an Engine other than Docker's, for which a judgement does not hold.
    async fn must_be_dockers(&self) -> Result<(), Refused> {
        if self.engine.make().is_none() {
            ask::ask(self, "/_ping", "ping").await?;
        }
        match self.engine.make() {
            Some(Make::Docker) => Ok(()),
            Some(Make::Podman(name)) => Err(forbidden(format!(
                "no-privileged does not cover Podman's Engine ({}), so nothing can be changed here",
                shown(&name)
            ))),
            None => Err((StatusCode::BAD_GATEWAY, "the Engine does not say what it is".into())),
        }
    }

    /// The judged body, to be sent in place of this one.
    async fn inspect(&self, operation: &Operation, target: &str, body: &[u8]) -> Result<(Bytes, Settled), Refused> {
        let forbidden = |reason| (StatusCode::FORBIDDEN, reason);
        let (body, settled) = match self.guard.rules.inspect(operation, target, body).map_err(forbidden)? {
            Judged::Ready(body) => (body, Settled::ForGood),
            Judged::Create(mut create) => {
                let settled = self.guard.settle(&mut create, self).await;
                let settled = settled.map_err(|(status, reason)| (status, format!("{}: {reason}", operation.name)))?;
                (create.to_body().map_err(forbidden)?, settled)
            }
        };
        Ok((body.into(), settled))
    }

    /// The target with the object's id in place of its name, after its check.
    async fn reach(&self, operation: &Operation, reach: Reach, target: &Uri) -> Result<Uri, Refused> {
        let path = self.guard.reach(operation.name, reach, target.path(), self).await?;
        let target = target.query().map_or(path.clone(), |query| format!("{path}?{query}"));
        target.parse().map_err(|e| (StatusCode::BAD_REQUEST, format!("its target cannot be written: {e}")))
    }

    /// Reads a body completely.
    async fn whole(&self, body: Incoming, most: usize) -> Result<Bytes, Refused> {
        match timeout(BODY_TIME, Limited::new(body, most).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => {
                let reason = self.reading.broken().map_or_else(|| error.to_string(), str::to_owned);
                Err((StatusCode::BAD_REQUEST, format!("its body cannot be judged: {reason}")))
            }
            Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "its body did not come within a minute".into())),
        }
    }
}

/// Whether the body of a refused request has ended. Waits for a small body, unless the client
/// expects `100 Continue` first.
async fn settled(mut body: Incoming, expects: bool) -> bool {
    if body.is_end_stream() {
        return true;
    }
    if expects {
        return false;
    }
    let reading = async {
        let mut left = SETTLED;
        while let Some(frame) = body.frame().await {
            let size = frame.ok()?.data_ref().map_or(0, Bytes::len);
            left = left.checked_sub(size)?;
        }
        Some(())
    };
    matches!(timeout(SETTLE_TIME, reading).await, Ok(Some(())))
}

impl ask::Ask for GuardedClient {
    async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), Refused> {
        let request = Request::get(path).header(HOST, "docker").body(full(Bytes::new()));
        let request = request.map_err(|e| (StatusCode::BAD_REQUEST, format!("{path} cannot be asked for: {e}")))?;
        let answer = self.engine.ask(request).await.map_err(|reason| (StatusCode::BAD_GATEWAY, reason))?;
        let status = answer.status();
        Ok((status, read_whole(answer.into_body()).await?))
    }
}

/// Reads an answer of limited size.
async fn read_whole(body: Incoming) -> Result<Bytes, Refused> {
    let read = Limited::new(body, reach::MAX_ANSWER).collect().await;
    let unreadable = |e| (StatusCode::BAD_GATEWAY, format!("the Engine's answer cannot be read: {e}"));
    read.map(|body| body.to_bytes()).map_err(unreadable)
}

fn strip(headers: &mut HeaderMap) {
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// An error in the Engine's form, so that clients display it well. Closes the connection unless it is `reusable`.
fn refusal(status: StatusCode, message: &str, reusable: bool) -> Response<Body> {
    let body = error_body(message) + "\n";
    let mut answer = Response::new(full(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if !reusable {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}
