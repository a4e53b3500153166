//! Identifies the program at the other end of a local connection, which is one of this user's: others were rejected.

use crate::os::local_stream::LocalStream;
use crate::os::{process, tcp_clients, user};

/// The client process.
#[derive(Debug, Clone, Default)]
pub(in crate::tunnel) struct Who {
    /// Its process id, if the system tells.
    pub(in crate::tunnel) pid: Option<u32>,
    /// The name of its program, without arguments, which may hold secrets.
    pub(in crate::tunnel) command: Option<String>,
}

impl Who {
    /// The process id of the local endpoint's client.
    pub(in crate::tunnel) fn pid_of(local: &LocalStream) -> Option<u32> {
        local.peer_pid()
    }

    pub(in crate::tunnel) async fn of(local: &LocalStream) -> Self {
        let pid = match local.tcp_ends() {
            None => Self::pid_of(local),
            // A search through all processes would delay the thread that serves all clients.
            Some((client, server)) => {
                tokio::task::spawn_blocking(move || tcp_clients::process_of(client, server)).await.ok().flatten()
            }
        };
        Self::of_pid(pid)
    }

    pub(in crate::tunnel) fn of_pid(pid: Option<u32>) -> Self {
        let command = pid.and_then(process::name_of);
        Self { pid, command: command.map(|name| name.trim_end().escape_debug().to_string()) }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pid = self.pid.map_or_else(|| "?".into(), |pid| pid.to_string());
        // Clients of other users were rejected before.
        let uid = user::id();
        write!(f, "{} (pid {pid}, uid {uid})", self.command.as_deref().unwrap_or("?"))
    }
}
