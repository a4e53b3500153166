//! What others ask of the supervisor.

use std::sync::Mutex;

use tokio::sync::Notify;

use crate::sync::lock;

/// One request to the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnel) enum Command {
    /// A flow has come.
    Use,
    /// Somebody wants the tunnel up now, whatever failed before.
    Retry,
    /// The settings of connections have changed.
    Reload,
}

/// The requests that wait to be taken, each kind once: asking twice is asking once. The supervisor takes the kinds that
/// mean something in its phase; the others stay for the next one.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct Commands {
    waiting: Mutex<Vec<Command>>,
    arrived: Notify,
}

impl Commands {
    /// Asks for something.
    pub(in crate::tunnel) fn send(&self, command: Command) {
        let mut waiting = lock(&self.waiting);
        // Whoever would take it has been woken for the one that waits: not once more for each flow.
        if waiting.contains(&command) {
            return;
        }
        waiting.push(command);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Waits for one of these kinds, and takes it: the one that was asked for first. For one taker at a time.
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

    /// Drops a request that has just been answered.
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
