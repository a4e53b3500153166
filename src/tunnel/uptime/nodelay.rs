//! A command after each login, so that the host's sshd sends without delay (`server_nodelay`).
//!
//! A forced command would run in its place, and no client can tell beforehand that there is one. By default it is
//! therefore run only where an earlier command of dtunnel's own ran as asked ([`host::commands`]).

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::state::Publisher;
use crate::config::{ServerNodelay, Target};
use crate::host::commands;
use crate::ssh::{Connection, Ran};
use crate::sync::lock;

/// What one tunnel has learnt of it.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct Nodelay {
    /// The logins ([`Connection::account`]) for which no further attempt is made.
    given_up: Mutex<Vec<String>>,
}

impl Nodelay {
    /// Runs the command once the settings want it. Ends when that is done, or the settings are gone.
    pub(super) async fn after_login(
        &self,
        connection: &Connection,
        mut settings: watch::Receiver<Arc<Target>>,
        status: &Publisher,
    ) {
        let account = connection.account();
        loop {
            let setting = settings.borrow_and_update().server_nodelay;
            let facts = Facts {
                by_command: status.endpoint().is_command(),
                is_known: commands::run_as_asked(connection),
                is_given_up: lock(&self.given_up).iter().any(|other| other == account),
            };
            if is_wanted(setting, facts) {
                let ran = connection.run_true().await;
                tracing::debug!("`true` on the host, for server_nodelay: {ran:?}");
                self.learn(connection, setting, ran);
                return;
            }
            if settings.changed().await.is_err() {
                return;
            }
        }
    }

    fn learn(&self, connection: &Connection, setting: ServerNodelay, ran: Ran) {
        let lesson = lesson(setting, ran);
        if lesson.forget {
            commands::note(connection, false);
        }
        if lesson.give_up {
            tracing::info!("the host does not run `true` as asked ({ran:?}): server_nodelay has no effect");
            lock(&self.given_up).push(connection.account().to_owned());
        }
    }
}

/// What the decision depends on, beside the setting.
#[derive(Debug, Clone, Copy)]
struct Facts {
    /// Flows go through commands, which have the same effect; a session more could take the place of one (MaxSessions).
    by_command: bool,
    /// Commands run as asked with this login.
    is_known: bool,
    /// Another attempt in this tunnel has failed.
    is_given_up: bool,
}

fn is_wanted(setting: ServerNodelay, facts: Facts) -> bool {
    let may_be = !facts.by_command && !facts.is_given_up;
    match setting {
        ServerNodelay::Auto => may_be && facts.is_known,
        ServerNodelay::Always => may_be,
        ServerNodelay::Never => false,
    }
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lesson {
    /// Commands are not known to run as asked any more.
    forget: bool,
    /// No further attempt in this tunnel.
    give_up: bool,
}

fn lesson(setting: ServerNodelay, ran: Ran) -> Lesson {
    match ran {
        Ran::AsAsked | Ran::Lost => Lesson { forget: false, give_up: false },
        // Whoever sets `true` wants what runs there.
        Ran::Otherwise => Lesson { forget: true, give_up: setting != ServerNodelay::Always },
        Ran::Refused => Lesson { forget: true, give_up: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ServerNodelay::{Always, Auto, Never};

    #[test]
    fn a_command_runs_where_it_is_known_to_run_as_asked_or_is_demanded() {
        for by_command in [false, true] {
            for is_known in [false, true] {
                for is_given_up in [false, true] {
                    let facts = Facts { by_command, is_known, is_given_up };
                    let may_be = !by_command && !is_given_up;
                    assert_eq!(is_wanted(Auto, facts), may_be && is_known, "{facts:?}");
                    assert_eq!(is_wanted(Always, facts), may_be, "{facts:?}");
                    assert!(!is_wanted(Never, facts), "{facts:?}");
                }
            }
        }
    }

    #[test]
    fn what_did_not_run_as_asked_is_not_tried_again_unless_it_is_demanded() {
        let all = [
            (Auto, Ran::AsAsked, false, false),
            (Auto, Ran::Lost, false, false),
            (Auto, Ran::Otherwise, true, true),
            (Auto, Ran::Refused, true, true),
            (Always, Ran::AsAsked, false, false),
            (Always, Ran::Otherwise, true, false),
            (Always, Ran::Refused, true, true),
        ];
        for (setting, ran, forget, give_up) in all {
            assert_eq!(lesson(setting, ran), Lesson { forget, give_up }, "{setting:?} {ran:?}");
        }
    }
}
