//! What a request costs without any I/O, for benchmarks (benches/decisions.rs): the code that serves clients, without a
//! socket before it and a channel behind it.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::Tunnel;
use super::api::Exchange;
use super::client::peer::Who;
use super::conversation::exchange;
use super::guard::{ByHead, GuardedClient, Head, Police, Refused, head_end, read_head};

pub use super::pool::measured::Places;
pub use super::ports::measured::OpenPorts;

/// The client's name in the guard's log.
const NAME: &str = "docker";

/// A client's connection to a tunnel, under the tunnel's guard if it has one.
#[derive(Debug)]
pub struct Client {
    exchange: Exchange,
    guarded: Option<Arc<GuardedClient>>,
}

/// A request's head as it was read, and its body.
#[derive(Debug)]
pub struct Question {
    head: Head,
    body: Bytes,
}

impl Question {
    /// Reads a request of which all is here; None if it cannot be read.
    pub fn read(request: &Bytes) -> Option<Self> {
        let end = head_end(request, 0)?;
        let (head, _) = read_head(&request[..end]).ok()?;
        Some(Self { head, body: request.slice(end..) })
    }
}

impl Client {
    /// A client on the Unix socket at `socket`. The tunnel needs not run.
    pub fn new(tunnel: &Tunnel, socket: &str) -> Self {
        let serving = &tunnel.dispatcher.serving;
        serving.sockets.get_or_init(|| Arc::new([socket.to_owned()]));
        let who = Who { pid: Some(std::process::id()), command: Some(NAME.into()) };
        let guard = tunnel.settings.guard();
        let guarded = guard.map(|guard| Arc::new(GuardedClient::new(guard, false, who, serving.clone())));
        Self { exchange: exchange(serving, guarded.as_ref()), guarded }
    }

    /// The client sends a request. Returns the bytes for the host; None if it does not pass, or the Engine would have to
    /// be asked first.
    pub fn sends(&self, request: &Bytes) -> Option<Bytes> {
        self.exchange.client_sent(request.clone());
        if let Some(client) = &self.guarded
            && let Some(asked) = self.exchange.to_be_judged()
        {
            let verdict = at_once(client.judge(&asked.pass, &asked.head, asked.body.as_ref()))?;
            self.exchange.judged(asked, verdict);
        }
        self.exchange.ready()?;
        let is_held = self.exchange.is_first_ping() || self.exchange.is_to_be_prepared();
        (!is_held).then(|| self.exchange.begin())
    }

    /// A piece of the answer arrives. Returns how many bytes of it the client gets.
    pub fn hears(&self, answer: &[u8]) -> usize {
        self.exchange.host_sent(answer).passes
    }

    /// Whether the request has been answered and the next one can go anywhere.
    pub fn is_between(&self) -> bool {
        self.exchange.is_between()
    }

    /// The guard's verdict. Returns the body for the host, empty where the body is not looked at.
    ///
    /// # Errors
    /// The request does not pass, there is no guard, or the Engine would have to be asked first.
    pub fn verdict(&self, question: &Question) -> Result<Bytes, String> {
        let client = self.guarded.as_ref().ok_or("there is no guard")?;
        let refused = |(_, reason): Refused| reason;
        match client.decide(&question.head).map_err(refused)? {
            ByHead::Send(_) => Ok(Bytes::new()),
            ByHead::Judge(pass, most) => {
                let body = most.map(|_| &question.body);
                let verdict = at_once(client.judge(&pass, &question.head, body)).ok_or("the Engine is asked")?;
                Ok(verdict.map_err(refused)?.body.unwrap_or_default())
            }
        }
    }
}

/// The result of what waits for nothing; None if it does.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}
