//! A thread that carries one SSH connection and its flows.
//!
//! Why a thread each: a thread that moves bulk is always busy, and gets its turns from the system like every busy
//! thread, some milliseconds late. One that carries small requests sleeps, and is woken at once. On a runtime that both
//! share, small requests would wait as bulk does (docs/benchmarks.md has the figures); and two downloads use two cores.
//!
//! Knows nothing of SSH.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::os::pauses;

/// How many tasks may run before the thread looks for new input. tokio's default of 61 is for many
/// short tasks; those here move up to a few hundred KB in one go.
const EVENT_INTERVAL: u32 = 4;

/// The thread. Dropping it ends the thread and all its tasks.
#[derive(Debug)]
pub(in crate::tunnel) struct Worker {
    handle: Handle,
    _stop: DropGuard,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system said.
    pub(in crate::tunnel) fn start() -> io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        builder.enable_all().event_interval(EVENT_INTERVAL).on_thread_park(pauses::before_pause);
        let runtime = builder.build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        std::thread::Builder::new().name("connection".into()).spawn(move || {
            runtime.block_on(stopped.cancelled());
            // Does not wait for a passphrase that is still being tried.
            runtime.shutdown_background();
            pauses::before_pause();
        })?;
        Ok(Self { handle, _stop: stop.drop_guard() })
    }

    /// Runs `work` on the thread. Dropping the returned handle aborts it.
    pub(in crate::tunnel) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        AbortOnDropHandle::new(self.handle.spawn(work))
    }
}
