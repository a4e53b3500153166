//! A command after each login, so that the host's sshd sends without delay (`server_nodelay`).
//!
//! A command that the server forces on the login would run in its place, and no client can tell beforehand whether there is
//! one: hence only where the settings ask for it.

use std::sync::Arc;

use tokio::sync::watch;

use super::state::Publisher;
use crate::config::Target;
use crate::ssh::Connection;

/// Runs the command once the settings want it. Ends when that is done, or the settings are gone.
pub(super) async fn after_login(
    connection: &Connection,
    mut settings: watch::Receiver<Arc<Target>>,
    status: &Publisher,
) {
    loop {
        let is_wanted = settings.borrow_and_update().server_nodelay;
        // Flows through commands have the same effect, and a session more could take the place of one (MaxSessions).
        if is_wanted && !status.endpoint().is_command() {
            if !connection.run_true().await {
                tracing::info!("the host runs no command for this login: server_nodelay has no effect");
            }
            return;
        }
        if settings.changed().await.is_err() {
            return;
        }
    }
}
