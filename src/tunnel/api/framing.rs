//! The strict reading of a guard alone: what it makes of a client's bytes where every request may pass and is answered at
//! once. For those who compare it with other readers: a property test, and fuzzing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{Exchange, FromClient};
use crate::sync::lock;
use crate::tunnel::binds::Wanted;
use crate::tunnel::guard::{ByHead, Head, Makes, Police, Refusal, Refused};

/// Takes the place of a refused request, so that other readers can answer it in its turn.
const IN_ITS_PLACE: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

type Seen = VecDeque<Result<Head, String>>;

/// Passes everything, and keeps the heads.
#[derive(Debug, Default)]
struct Everything(Mutex<Seen>, AtomicUsize);

impl Police for Everything {
    fn decide(&self, head: &Head) -> Result<ByHead, Refused> {
        lock(&self.0).push_back(Ok(head.clone()));
        self.1.fetch_add(1, Relaxed);
        Ok(ByHead::Send(head.target.clone()))
    }

    fn answered(&self, _: &[u8]) {}

    fn made(&self, _: Makes, _: &[u8]) {}
}

/// Reads the requests of one connection.
#[derive(Debug)]
pub struct Framing {
    exchange: Exchange,
    seen: Arc<Everything>,
    /// How many of those that were passed have been sent.
    begun: usize,
}

impl Default for Framing {
    fn default() -> Self {
        let seen = Arc::<Everything>::default();
        Self { exchange: Exchange::new(Arc::default(), Wanted::default(), Some(seen.clone())), seen, begun: 0 }
    }
}

impl Framing {
    /// Reads more input; what is sent goes to `out`.
    ///
    /// # Errors
    /// Why a body is invalid.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        let passed = self.exchange.client_sent(Bytes::copy_from_slice(input));
        if let FromClient::Pass(data) = passed {
            out.extend_from_slice(&data);
        }
        loop {
            if let Some(rejected) = self.exchange.rejected() {
                out.extend_from_slice(IN_ITS_PLACE);
                let mut seen = lock(&self.seen.0);
                let passed = self.seen.1.load(Relaxed);
                // Its head was passed, and its body is what is wrong with it.
                if std::mem::replace(&mut self.begun, passed) < passed {
                    seen.pop_back();
                }
                seen.push_back(Err(rejected.refused.1));
                return Ok(());
            }
            if let Some((_, refusal, _)) = self.exchange.broken() {
                return Err(refusal);
            }
            if self.exchange.ready().is_some() {
                out.extend_from_slice(&self.exchange.begin());
                self.begun += 1;
            } else if self.exchange.is_asked_whole() {
                self.exchange.host_sent(ANSWER);
            } else {
                return Ok(());
            }
        }
    }

    /// The next request, as it was understood or refused.
    pub fn take_seen(&mut self) -> Option<Result<Head, String>> {
        lock(&self.seen.0).pop_front()
    }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod by_hyper;
