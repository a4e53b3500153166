//! The clients whose requests are read along, for `status` and `top`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

use super::api::Exchange;
use super::client::peer::Who;
use super::guard::{MOST_SHOWN, RequestStatus};
use crate::sync::lock;

/// A client's requests, and its process id.
type Client = (Weak<Exchange>, Option<u32>);

/// The clients that are connected.
#[derive(Debug, Default)]
pub(super) struct Clients {
    all: Mutex<BTreeMap<u64, Client>>,
    next: AtomicU64,
}

impl Clients {
    /// Registers a client with its process id, for as long as the returned value lives.
    pub(super) fn join(&self, exchange: &Arc<Exchange>, pid: Option<u32>) -> Joined<'_> {
        let number = self.next.fetch_add(1, Relaxed);
        lock(&self.all).insert(number, (Arc::downgrade(exchange), pid));
        Joined { clients: self, number }
    }

    /// Their requests in progress; at most [`MOST_SHOWN`].
    pub(super) fn requests(&self) -> Vec<RequestStatus> {
        let all: Vec<_> = lock(&self.all).values().cloned().collect();
        let request = |(exchange, pid): Client| {
            let request = exchange.upgrade()?.in_progress()?;
            Some(RequestStatus::new(&request.method, request.path(), request.since, &Who::of_pid(pid)))
        };
        all.into_iter().filter_map(request).take(MOST_SHOWN).collect()
    }
}

/// A registered client.
#[derive(Debug)]
pub(super) struct Joined<'a> {
    clients: &'a Clients,
    number: u64,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        lock(&self.clients.all).remove(&self.number);
    }
}
