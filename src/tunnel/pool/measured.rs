//! Places for flows on connections that carry nothing, for benchmarks (benches/decisions.rs).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Carrier, PooledConnection};
use super::placement::{self, View};
use super::{Lease, Pool, views};
use crate::ssh::{Channel, Endpoint, OpenError};
use crate::sync::lock;
use crate::tunnel::dial::Kind;

/// The kind of request that is placed.
const KIND: Kind = Kind::Short;

/// No connection.
#[derive(Debug)]
struct Nothing;

impl Carrier for Nothing {
    async fn open(&self, _: &Endpoint) -> Result<Channel, OpenError> {
        Err(OpenError::Lost)
    }

    async fn ping(&self) -> bool {
        false
    }

    fn last_heard(&self) -> Duration {
        Duration::ZERO
    }

    fn is_acknowledged(&self) -> bool {
        false
    }

    fn sends_at_once(&self) -> bool {
        false
    }

    fn flows_are_apart(&self) -> bool {
        false
    }

    fn may_keep_spares(&self) -> bool {
        true
    }
}

/// A pool with flows on it, and a client between two short requests.
#[derive(Debug)]
pub struct Places {
    pool: Arc<Pool<Nothing>>,
    views: Vec<View>,
    _flows: Vec<Lease<Nothing>>,
    client: Option<Lease<Nothing>>,
}

impl Places {
    /// As many connections as there may be, with short requests spread over them.
    pub fn new(connections: usize, flows: usize) -> Self {
        let pool = Pool::new(connections);
        (0..connections).for_each(|_| pool.add(PooledConnection::new(Nothing)));
        let place = || pool.place(KIND, false);
        let flows = (0..flows).filter_map(|_| place()).collect();
        let client = place().inspect(Lease::park);
        let views = views(&lock(&pool.connections));
        Self { views, _flows: flows, client, pool }
    }

    /// Decides where one more flow goes. Returns the connection's index.
    pub fn decides(&self) -> Option<usize> {
        placement::for_client(&self.views, self.pool.limits(&Vec::new()), KIND, true, Instant::now()).at
    }

    /// Places one more flow, which ends at once. Returns whether there was a place.
    pub fn places(&self) -> bool {
        self.pool.place(KIND, true).is_some()
    }

    /// The client's next request begins on the connection of the one before, and ends. Returns whether it could stay.
    pub fn stays(&self) -> bool {
        self.client.as_ref().is_some_and(|client| {
            let stays = client.takes(KIND);
            client.park();
            stays
        })
    }
}
