//! One client of the Engine's, served request by request: each is placed once its head is here.
//!
//! Between two requests nothing but the client's connection is held, or a channel that may go without the client's noticing.
//! Under a guard each request is judged before it is placed.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use tokio::time::timeout;

use super::api::{Exchange, Rejected};
use super::client::error_answer::{answer, error_body};
use super::client::linger;
use super::client::peer::Who;
use super::dial::{Kind, Purpose};
use super::flow::carriage::End;
use super::guard::{GuardedClient, Police};
use super::placer::{Placed, Placing, or_gone};
use super::serving::Serving;
use crate::config::Target;
use crate::os::local_stream::LocalStream;

/// Limit of a body that a refusal waits for, in bytes, so that the connection can be used again.
/// Most JSON requests are smaller.
const SETTLED: usize = 64 << 10;
/// Time limit of that wait.
const SETTLE_TIME: Duration = Duration::from_millis(100);
/// Tells a client to send its body (RFC 9110 section 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's connection.
pub(super) struct Conversation {
    serving: Arc<Serving>,
    purpose: Purpose,
    /// The settings that the client came to.
    began: Arc<Target>,
    exchange: Arc<Exchange>,
    guarded: Option<Arc<GuardedClient>>,
}

/// The reading of a client's requests, judged by its guard if it has one.
pub(super) fn exchange(serving: &Serving, guarded: Option<&Arc<GuardedClient>>) -> Exchange {
    let police = guarded.cloned().map(|client| client as Arc<dyn Police>);
    Exchange::new(serving.early.pings.clone(), serving.wanted(), police)
}

/// What a client is served with next.
enum Next {
    /// Its request, which is to be placed.
    Request(Kind, LocalStream),
    /// Its connection is over.
    Ended(End),
}

impl Conversation {
    /// Of a client without a guard.
    pub(super) fn new(serving: Arc<Serving>, purpose: Purpose) -> Self {
        Self::with(serving, purpose, None)
    }

    /// Of a client under a guard.
    pub(super) fn guarded(serving: Arc<Serving>, client: Arc<GuardedClient>) -> Self {
        let purpose = Purpose::guarded(client.who().clone());
        Self::with(serving, purpose, Some(client))
    }

    fn with(serving: Arc<Serving>, purpose: Purpose, guarded: Option<Arc<GuardedClient>>) -> Self {
        let exchange = Arc::new(exchange(&serving, guarded.as_ref()));
        Self { began: serving.placer.settings.target(), serving, purpose, exchange, guarded }
    }

    /// Serves the client to its end.
    ///
    /// # Errors
    /// Why a request could not be placed.
    pub(super) async fn serve(self, mut local: LocalStream) -> Result<End, String> {
        let _entry = self.serving.clients.enter((Arc::downgrade(&self.exchange), Who::pid_of(&local)));
        loop {
            // On the heap: its task has no memory for it while the client is served.
            let kind = match Box::pin(self.next(local)).await? {
                Next::Ended(end) => return Ok(end),
                Next::Request(kind, client) => {
                    local = client;
                    kind
                }
            };
            let placing = Placing {
                purpose: Purpose { kind, ..self.purpose.clone() },
                began: self.began.clone(),
                exchange: Some(self.exchange.clone()),
            };
            local = match self.serving.placer.clone().place(local, Arc::new(placing)).await? {
                Placed::Ended(end) => return Ok(end),
                Placed::Free(local) => {
                    self.exchange.has_left();
                    local.move_here().map_err(|e| e.to_string())?
                }
                Placed::Refused(local, reason) => {
                    let refused = (StatusCode::BAD_GATEWAY, reason);
                    let head = self.exchange.take_head();
                    Box::pin(self.answer_refused(local, Rejected { refused, head })).await;
                    return Ok(End::Cut);
                }
            };
        }
    }

    /// Waits for the client's next request that is to be placed, and answers what is not.
    async fn next(&self, mut local: LocalStream) -> Result<Next, String> {
        let (serving, exchange) = (&self.serving, &self.exchange);
        let mut settings = serving.placer.settings.subscribe();
        loop {
            if let Some(client) = &self.guarded {
                if let Some(asked) = exchange.to_be_judged() {
                    // On the heap, as all that is rare: the wait for a request needs no memory for it.
                    let judging = Box::pin(client.judge(&asked.pass, &asked.head, asked.body.as_ref()));
                    let Ok(verdict) = or_gone(&local, judging).await else {
                        client.left(&asked.head);
                        return Ok(Next::Ended(End::ClientGone));
                    };
                    exchange.judged(asked, verdict);
                    continue;
                }
                if exchange.awaits_body() && local.write_all(CONTINUE).await.is_err() {
                    return Ok(Next::Ended(End::ClientGone));
                }
                let rejected = match exchange.broken() {
                    Some((.., true)) => {
                        local.reset();
                        return Ok(Next::Ended(End::Cut));
                    }
                    Some((status, why, false)) => {
                        Some(Rejected { refused: (status, why.to_owned()), head: exchange.take_head() })
                    }
                    None => exchange.rejected(),
                };
                if let Some(rejected) = rejected {
                    let end = if rejected.refused.0 == StatusCode::BAD_GATEWAY { End::Cut } else { End::Done };
                    match Box::pin(self.answer_refused(local, rejected)).await {
                        Some(client) => local = client,
                        None => return Ok(Next::Ended(end)),
                    }
                    exchange.goes_on();
                    continue;
                }
                if exchange.has_finished() {
                    Box::pin(linger::close(local)).await;
                    return Ok(Next::Ended(End::Done));
                }
            }
            let Some(kind) = exchange.ready() else {
                tokio::select! {
                    read = local.read() => match read {
                        Ok(data) if !data.is_empty() => drop(exchange.client_sent(data)),
                        Ok(_) => if exchange.is_over() {
                            local.finish();
                            return Ok(Next::Ended(End::Done));
                        },
                        Err(_) => return Ok(Next::Ended(End::ClientGone)),
                    },
                    () = exchange.overdue() => {}
                    () = exchange.cut() => {
                        local.reset();
                        return Ok(Next::Ended(End::Cut));
                    }
                    // It asks nothing, and what it asked next would go to another host, or past a guard.
                    _ = settings.changed() => if !self.may_go_on() {
                        local.finish();
                        return Ok(Next::Ended(End::Done));
                    }
                }
                continue;
            };
            if exchange.is_first_ping()
                && self.may_go_on()
                && let Some(early) = serving.early.answer()
            {
                if local.write_all(&early.answer).await.is_err() {
                    return Ok(Next::Ended(End::ClientGone));
                }
                serving.placer.counters.received(early.answer.len());
                let question = exchange.answer_early(&early);
                if early.is_to_be_checked {
                    let (serving, client) = (serving.clone(), exchange.clone());
                    tokio::spawn(async move { serving.early.check(serving.clone(), client, question).await });
                }
                continue;
            }
            if exchange.is_to_be_prepared() {
                // Without a connection the request is refused when it is placed.
                or_gone(&local, Box::pin(serving.until_connected())).await?;
                match or_gone(&local, Box::pin(serving.prepare(exchange.to_be_prepared()))).await? {
                    Ok(others) => exchange.prepared(&others),
                    Err(why) => {
                        let refusal = answer("400 Bad Request", &error_body(&format!("dtunnel: {why}")), true);
                        return Ok(Next::Ended(match local.write_all(refusal.as_bytes()).await {
                            Ok(()) => {
                                local.finish();
                                End::Done
                            }
                            Err(_) => End::ClientGone,
                        }));
                    }
                }
            }
            return Ok(Next::Request(kind, local));
        }
    }

    /// May the client's next request be sent, as far as the settings are concerned?
    fn may_go_on(&self) -> bool {
        self.serving.placer.may_go_on(&self.began, self.guarded.is_some())
    }

    /// Answers a request that does not pass. Returns the client where its connection can be used for another one.
    async fn answer_refused(&self, local: LocalStream, rejected: Rejected) -> Option<LocalStream> {
        let Rejected { refused, head } = rejected;
        let may_go_on = refused.0 == StatusCode::FORBIDDEN && head.as_ref().is_some_and(|head| !head.is_last());
        let expects = head.as_ref().is_some_and(|head| head.expects);
        let goes_on = may_go_on && self.body_settles(&local, expects).await;
        let answer = self.guarded.as_ref()?.refusal(&refused, head.as_ref(), !goes_on);
        local.write_all(&answer).await.ok()?;
        if goes_on {
            return Some(local);
        }
        linger::close(local).await;
        None
    }

    /// Whether the body of a refused request has ended. Waits for a small one, unless the client expects `100 Continue`
    /// first.
    async fn body_settles(&self, local: &LocalStream, expects: bool) -> bool {
        if expects {
            return self.exchange.body_has_ended();
        }
        let reading = async {
            let mut left = SETTLED;
            while !self.exchange.body_has_ended() {
                let data = local.read().await.ok().filter(|data| !data.is_empty())?;
                left = left.checked_sub(data.len())?;
                self.exchange.client_sent(data);
            }
            Some(())
        };
        matches!(timeout(SETTLE_TIME, reading).await, Ok(Some(())))
    }
}
