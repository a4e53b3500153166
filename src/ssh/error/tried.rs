//! The login methods and keys tried, and the results.

use std::fmt;

/// A key or an agent that was not used for the login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file or agent.
    pub what: String,
    /// Why it was not used.
    pub why: String,
    /// The line to type, if there is one.
    pub fix: Option<String>,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// The results of the login methods and keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    /// Accepted by the server, which then required another method.
    pub accepted: Vec<String>,
    /// Refused by the server.
    pub refused: Vec<String>,
    /// Not offered to the server.
    pub skipped: Vec<Skipped>,
    /// The line that installs a refused key on the host.
    pub copy_id: Option<String>,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped: Vec<String> = self.skipped.iter().map(ToString::to_string).collect();
        let all = [("accepted", &self.accepted), ("refused", &self.refused)];
        let said = all.iter().filter(|(_, list)| !list.is_empty());
        let mut parts: Vec<String> = said.map(|(how, list)| format!("the server {how} {}", list.join(", "))).collect();
        if parts.is_empty() {
            parts.push("no key or password was tried".into());
        }
        if !skipped.is_empty() {
            parts.extend(skipped.iter().map(|skipped| format!("skipped {skipped}")));
        }
        f.write_str(&parts.join("; "))
    }
}

impl Tried {
    /// The line that would let a skipped or refused key be accepted next time.
    pub(super) fn hint(&self) -> Option<String> {
        self.skipped.iter().find_map(|skipped| skipped.fix.clone()).or_else(|| self.copy_id.clone())
    }

    /// The same as separate lines, shown before a question for a password.
    pub(in crate::ssh) fn notes(&self) -> Vec<String> {
        let fix = |fix: &Option<String>| fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
        let skipped = self.skipped.iter().map(|skipped| format!("skipped {skipped}{}", fix(&skipped.fix)));
        let refused = (!self.refused.is_empty())
            .then(|| format!("the server refused {}{}", self.refused.join(", "), fix(&self.copy_id)));
        skipped.chain(refused).collect()
    }
}
