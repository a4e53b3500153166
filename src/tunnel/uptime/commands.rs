//! Requests to the supervisor.

use std::sync::Mutex;

use tokio::sync::Notify;

use crate::sync::lock;

/// A request to the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnel) enum Command {
    /// A flow has arrived.
    Use,
    /// Connect now, whatever the previous failure.
    Retry,
    /// The connection settings have changed.
    Reload,
}

/// Pending requests, each kind at most once. The supervisor takes the kinds that apply in its phase; the others stay
/// for the next one.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct Commands {
    waiting: Mutex<Vec<Command>>,
    arrived: Notify,
}

impl Commands {
    /// Adds a request.
    pub(in crate::tunnel) fn send(&self, command: Command) {
        let mut waiting = lock(&self.waiting);
        // A pending request has already woken the supervisor: no further wake-up per flow.
        if waiting.contains(&command) {
            return;
        }
        waiting.push(command);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Waits for a request of these kinds, and takes the oldest one. For one caller at a time.
    pub(super) async fn take(&self, kinds: &[Command]) -> Command {
        loop {
            {
                let mut waiting = lock(&self.waiting);
                if let Some(at) = waiting.iter().position(|command| kinds.contains(command)) {
                    return waiting.remove(at);
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Drops a request that was just fulfilled.
    pub(super) fn forget(&self, command: Command) {
        lock(&self.waiting).retain(|other| *other != command);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_kind_is_kept_once_until_somebody_takes_it() {
        let commands = Commands::default();
        commands.send(Command::Reload);
        commands.send(Command::Use);
        commands.send(Command::Use);
        assert_eq!(commands.take(&[Command::Use, Command::Retry]).await, Command::Use);
        commands.send(Command::Retry);
        commands.forget(Command::Retry);
        assert_eq!(commands.take(&[Command::Retry, Command::Reload]).await, Command::Reload);
        assert_eq!(*lock(&commands.waiting), []);
        let (taken, ()) = tokio::join!(commands.take(&[Command::Retry]), async {
            commands.send(Command::Use);
            tokio::task::yield_now().await;
            commands.send(Command::Retry);
        });
        assert_eq!(taken, Command::Retry);
    }
}
