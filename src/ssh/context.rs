//! What a connection is made with, wherever it leads.

use std::time::Duration;

use super::keys::Credentials;
use super::prompter::Prompter;
use super::step::OnStep;
use crate::config::Leg;

/// What a connection is made with: the same for a host and for the hops on the way to it.
#[derive(Clone)]
pub struct ConnectContext {
    /// Who is asked what only a person knows.
    pub prompter: Prompter,
    /// What is known of keys and passwords already.
    pub credentials: Credentials,
    /// The callback that receives the events.
    pub on_step: OnStep,
    /// Longest time for TCP in this attempt; None: `connect_timeout`.
    pub tcp_limit: Option<Duration>,
    /// Is it for somebody who only looks? Then nothing is written down, such as host keys, nor asked about them, and no
    /// key is handed to an agent.
    pub looks_only: bool,
    /// Where on the route the host is.
    pub leg: Leg,
}

impl ConnectContext {
    /// For a tunnel.
    pub fn new(prompter: Prompter, credentials: Credentials, on_step: OnStep) -> Self {
        Self { prompter, credentials, on_step, tcp_limit: None, looks_only: false, leg: Leg::default() }
    }

    /// For one who looks only.
    pub fn looking_only(prompter: Prompter, on_step: OnStep) -> Self {
        Self { looks_only: true, ..Self::new(prompter, Credentials::new(false), on_step) }
    }
}
