//! Our own connections to the Engine, and the stream of its events over one after another.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::dial::{Dial, Purpose};
use super::uptime::state::{Availability, Status};
use crate::backoff::Backoff;
use crate::engine::{self, Session};

/// Pauses before the Engine's events are requested again: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A connection to the Engine.
///
/// # Errors
/// There is none.
pub(super) async fn session(dial: &Arc<dyn Dial>) -> Result<Session, engine::Error> {
    let stream = dial.clone().dial(Purpose::listening()).map_err(|e| engine::Error::Body(e.to_string()))?;
    Session::over(stream).await
}

/// Listens to the Engine's events, and again after each end, whenever there is a connection. Never returns.
pub(super) async fn follow(
    mut status: watch::Receiver<Status>,
    mut listen: impl AsyncFnMut() -> Result<(), engine::Error>,
) {
    let is_connected = |status: &Status| status.state.availability() == Availability::Connected;
    let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        if status.wait_for(is_connected).await.is_err() {
            return std::future::pending().await;
        }
        let begun = Instant::now();
        if let Err(error) = listen().await {
            tracing::debug!("the Engine's events have ended: {error}");
        }
        // After a long stream the pauses start over.
        if begun.elapsed() > LONGEST_PAUSE {
            pauses.reset();
        }
        let cut_off = status.wait_for(|status| !is_connected(status));
        let _ = tokio::time::timeout(pauses.pause(), cut_off).await;
    }
}
