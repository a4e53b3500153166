//! The context of a connection attempt, whatever its host.

use std::time::Duration;

use super::keys::Credentials;
use super::prompter::Prompter;
use super::step::OnStep;
use crate::config::Leg;

/// The context of a connection attempt: the same for a host and for the hops on the route to it.
#[derive(Clone)]
pub struct ConnectContext {
    /// Asks the user.
    pub prompter: Prompter,
    /// The keys and passwords unlocked so far.
    pub credentials: Credentials,
    /// The callback that receives the events.
    pub on_step: OnStep,
    /// Limit for TCP in this attempt; None means `connect_timeout`.
    pub tcp_limit: Option<Duration>,
    /// Whether the caller only inspects the host. If so, nothing such as a host key is stored or asked about, and
    /// no key is added to an agent.
    pub looks_only: bool,
    /// Whether a connection of the machine's ssh that is there may be used.
    pub may_share: bool,
    /// Whether the machine's ssh could log in before where dtunnel's own could not.
    pub openssh_first: bool,
    /// The host's place on the route.
    pub leg: Leg,
}

impl ConnectContext {
    /// The context of a tunnel's connection.
    pub fn new(prompter: Prompter, credentials: Credentials, on_step: OnStep) -> Self {
        Self {
            prompter,
            credentials,
            on_step,
            tcp_limit: None,
            looks_only: false,
            may_share: true,
            openssh_first: false,
            leg: Leg::default(),
        }
    }

    /// The context of a caller that only inspects the host.
    pub fn looking_only(prompter: Prompter, on_step: OnStep) -> Self {
        Self { looks_only: true, ..Self::new(prompter, Credentials::new(false), on_step) }
    }
}
