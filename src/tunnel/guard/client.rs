//! A client under a guard: the verdict on each of its requests.
//!
//! Most are decided on by their heads alone. Some need their bodies, or an answer of the Engine's about what exists there.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;

use super::ask::ask;
use super::bodies::{self, Judged as JudgedBody};
use super::head::Head;
use super::make::Make;
use super::operation::{Body as Sending, Makes};
use super::police::{ByHead, Passed, Police};
use super::policy::{Decision, Pass, Rules};
use super::questions::Questions;
use super::reach::Settled;
use super::refusal::{Refused, forbidden};
use super::{Guard, browser, shown};
use crate::sync::lock;
use crate::tunnel::client::error_answer::{answer, error_body};
use crate::tunnel::client::peer::Who;
use crate::tunnel::dial::Dial;

/// Limit of a dropped body, in bytes: dockerode repeats parameters there.
const MAX_DROPPED: usize = 1 << 20;
/// How long an answer tells whose Engine it is.
const SAME_ENGINE: Duration = Duration::from_secs(30);
/// Holds the reason if an answer has no body.
const REFUSED: &str = "x-dtunnel-refused";

/// A client, for the duration of its connection.
pub(in crate::tunnel) struct GuardedClient {
    guard: Arc<Guard>,
    over_tcp: bool,
    who: Who,
    /// The same as text, which is in each line of the log.
    name: String,
    tunnel: Arc<dyn Dial>,
}

impl fmt::Debug for GuardedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedClient").field("who", &self.who).finish_non_exhaustive()
    }
}

impl GuardedClient {
    /// A client of this guard's. Over TCP it may be a browser.
    pub(in crate::tunnel) fn new(guard: Arc<Guard>, over_tcp: bool, who: Who, tunnel: Arc<dyn Dial>) -> Self {
        let name = who.to_string();
        Self { guard, over_tcp, who, name, tunnel }
    }

    /// The client's process.
    pub(in crate::tunnel) fn who(&self) -> &Who {
        &self.who
    }

    fn needs_docker(&self, method: &str) -> bool {
        self.guard.rules.knows_only_docker() && !matches!(method, "GET" | "HEAD")
    }

    /// Judges a request with its body, where that is looked at.
    ///
    /// # Errors
    /// Why it may not pass.
    pub(in crate::tunnel) async fn judge(
        &self,
        pass: &Pass,
        head: &Head,
        body: Option<&Bytes>,
    ) -> Result<Passed, Refused> {
        let operation = pass.operation;
        let heard = |make| self.heard(make);
        let questions = Questions::new(&self.who, &self.tunnel, &heard);
        if self.needs_docker(&head.method) {
            self.must_be_dockers(&questions).await?;
        }
        let (mut body, mut settled, mut target) = (body.cloned(), Settled::ForGood, pass.target.clone());
        if let Some(here) = &body {
            if pass.inspect || operation.has_binds {
                let ours =
                    self.tunnel.with_engines_socket(here.clone()).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
                body = Some(ours.clone());
                if pass.inspect {
                    let judged = self.inspect(pass, &ours, &questions).await?;
                    (body, settled) = (Some(judged.0), judged.1);
                }
                // It was judged as it was written.
                if let Some(judged) = body {
                    let mirrored = self.tunnel.with_mirrors(judged).await;
                    body = Some(mirrored.map_err(|why| (StatusCode::BAD_REQUEST, why))?);
                }
            } else {
                Rules::drop_body(operation, here).map_err(forbidden)?;
                body = None;
            }
        }
        if let Some(reach) = self.guard.rules.must_ask(operation) {
            let (path, query) = target.split_once('?').map_or((target.as_str(), None), |(path, q)| (path, Some(q)));
            let path = self.guard.reach(operation.name, reach, path, &questions).await?;
            target = query.map_or(path.clone(), |query| format!("{path}?{query}"));
        }
        self.log("allowed", &head.method, &target, operation.name);
        let makes = self.guard.rules.remembers(operation).filter(|_| settled == Settled::ForGood);
        Ok(Passed { target, body, makes })
    }

    /// The judged body, to be sent in place of this one.
    async fn inspect(&self, pass: &Pass, body: &[u8], questions: &Questions<'_>) -> Result<(Bytes, Settled), Refused> {
        let operation = pass.operation;
        let (body, settled) = match self.guard.rules.inspect(operation, &pass.target, body).map_err(forbidden)? {
            JudgedBody::Ready(body) => (body, Settled::ForGood),
            JudgedBody::Create(mut create) => {
                let settled = self.guard.settle(&mut create, questions).await;
                let settled = settled.map_err(|(status, reason)| (status, format!("{}: {reason}", operation.name)))?;
                (create.to_body().map_err(forbidden)?, settled)
            }
        };
        Ok((body.into(), settled))
    }

    /// Fails for an Engine other than Docker's, for which a judgement does not hold.
    async fn must_be_dockers(&self, questions: &Questions<'_>) -> Result<(), Refused> {
        if self.make().is_none() {
            ask(questions, "/_ping", "ping").await?;
        }
        match self.make() {
            Some(Make::Docker) => Ok(()),
            Some(Make::Podman(name)) => Err(forbidden(format!(
                "no-privileged does not cover Podman's Engine ({}), so nothing can be changed here",
                shown(&name)
            ))),
            None => Err((StatusCode::BAD_GATEWAY, "the Engine does not say what it is".into())),
        }
    }

    /// The vendor of the Engine, where it has answered lately, and the tunnel has stayed up since.
    fn make(&self) -> Option<Make> {
        let (make, said, up_since) = lock(&self.guard.make).clone()?;
        (said.elapsed() < SAME_ENGINE && up_since == self.tunnel.up_since()).then_some(make)
    }

    /// The Engine has answered, and is of this vendor.
    fn heard(&self, make: Make) {
        *lock(&self.guard.make) = Some((make, Instant::now(), self.tunnel.up_since()));
    }

    /// The answer to a request that does not pass.
    pub(in crate::tunnel) fn refusal(&self, refused: &Refused, head: Option<&Head>, closes: bool) -> Vec<u8> {
        let (status, reason) = refused;
        let method = head.map_or("?", |head| head.method.as_str());
        // What the Engine fails to answer may have passed.
        let verdict = if *status == StatusCode::BAD_GATEWAY { "failed" } else { "refused" };
        self.log(verdict, method, head.map_or("?", |head| head.target.as_str()), reason);
        let reason = match *status {
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
        let mut answer = answer(&status.to_string(), &error_body(&reason), closes);
        // An answer to HEAD has no body, and clients make up an error (for `docker cp - c:/` docker reports that / is
        // no directory, whatever the status).
        if method == "HEAD" {
            let end = answer.find("\r\n\r\n").map_or(answer.len(), |at| at + 2);
            answer.truncate(end);
            if reason.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                answer += &format!("{REFUSED}: {reason}\r\n");
            }
            answer += "\r\n";
        }
        if head.is_some_and(Head::is_old) {
            answer = answer.replacen("HTTP/1.1", "HTTP/1.0", 1);
        }
        answer.into_bytes()
    }

    /// The client has left before its request was decided on. Nothing of that is sent.
    pub(in crate::tunnel) fn left(&self, head: &Head) {
        self.log("dropped", &head.method, &head.target, "its client went away");
    }

    fn log(&self, verdict: &str, method: &str, target: &str, what: &str) {
        let path = target.split('?').next().unwrap_or_default();
        // In one piece: it is on the way of each request.
        self.guard.log.add([verdict, " ", method, " ", &shown(path), " for ", &self.name, ": ", what].concat());
    }
}

impl Police for GuardedClient {
    fn decide(&self, head: &Head) -> Result<ByHead, Refused> {
        if self.over_tcp {
            browser::check(head)?;
        }
        let pass = match self.guard.rules.decide(head) {
            Decision::Pass(pass) => pass,
            Decision::Bad(reason) => return Err((StatusCode::BAD_REQUEST, reason)),
            Decision::Refuse(reason) => return Err((StatusCode::FORBIDDEN, reason)),
        };
        let operation = pass.operation;
        // What is not judged passes whatever its size.
        let may_have_binds =
            operation.has_binds && head.length().is_some_and(|length| length <= bodies::MAX_BODY as u64);
        let most = match operation.body {
            _ if pass.inspect || may_have_binds => Some(bodies::MAX_BODY),
            Sending::Sent => None,
            _ if head.body => Some(MAX_DROPPED),
            _ => None,
        };
        let asks = self.guard.rules.must_ask(operation).is_some() || self.needs_docker(&head.method);
        if most.is_some() || asks {
            return Ok(ByHead::Judge(pass, most));
        }
        self.log("allowed", &head.method, &pass.target, operation.name);
        Ok(ByHead::Send(pass.target))
    }

    fn answered(&self, head: &[u8]) {
        // Of no matter to other judgements.
        if self.guard.rules.knows_only_docker() {
            self.heard(Make::of_head(head));
        }
    }

    fn made(&self, made: Makes, answer: &[u8]) {
        self.guard.learn(made, answer);
    }
}
