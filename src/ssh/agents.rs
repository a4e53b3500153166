//! The ssh-agents of whoever has brought the tunnel up: a later login of the user may have another one than the one that
//! the tunnel was born with.

use std::path::PathBuf;

use crate::os::agent;

/// Most agents kept. Those of logins that have ended are gone.
const MOST: usize = 4;

/// The agents' sockets, the newest first.
#[derive(Debug, Default)]
pub(super) struct Agents(Vec<PathBuf>);

impl Agents {
    /// Prefers this one from now on.
    pub(super) fn prefer(&mut self, socket: PathBuf) {
        self.0.retain(|other| *other != socket);
        self.0.insert(0, socket);
        self.0.truncate(MOST);
    }

    /// All of them, and at last the one of this process.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        let own = agent::own().filter(|own| !self.0.contains(own));
        self.0.iter().cloned().chain(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_agent_is_the_first_and_old_ones_are_forgotten() {
        let mut agents = Agents::default();
        for socket in ["/1", "/2", "/3", "/2", "/4", "/5"] {
            agents.prefer(socket.into());
        }
        assert_eq!(agents.0, ["/5", "/4", "/2", "/3"].map(PathBuf::from));
        assert!(agents.all().starts_with(&agents.0));
    }
}
