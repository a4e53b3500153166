//! Identifies the program at the other end of a local connection, which is one of this user's: others were rejected.

use super::stream::LocalStream;
use crate::os::{process, tcp_clients};

/// The client process.
#[derive(Debug, Clone, Default)]
pub(in crate::tunnel) struct Who {
    /// Its process id, if the system tells.
    pub(in crate::tunnel) pid: Option<u32>,
    /// The name of its program, without arguments, which may hold secrets.
    pub(in crate::tunnel) command: Option<String>,
}

impl Who {
    /// The process id of a Unix socket's client.
    pub(in crate::tunnel) fn pid_of(local: &LocalStream) -> Option<u32> {
        let LocalStream::Unix { stream, .. } = local else { return None };
        stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok())
    }

    pub(in crate::tunnel) async fn of(local: &LocalStream) -> Self {
        let pid = match local {
            LocalStream::Unix { .. } => Self::pid_of(local),
            LocalStream::Tcp(stream) => match (stream.peer_addr(), stream.local_addr()) {
                // A search through all processes would delay the thread that serves all clients.
                (Ok(client), Ok(server)) => {
                    tokio::task::spawn_blocking(move || tcp_clients::process_of(client, server)).await.ok().flatten()
                }
                _ => None,
            },
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
        let uid = rustix::process::getuid().as_raw();
        write!(f, "{} (pid {pid}, uid {uid})", self.command.as_deref().unwrap_or("?"))
    }
}
