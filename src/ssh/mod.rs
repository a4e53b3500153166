//! An authenticated SSH connection: connect, host key, login, hops, channels.
//!
//! The only module that uses russh, or that has the machine's ssh carry anything. It is independent of tunnels, Docker and the daemon; questions to the
//! user go through a [`Prompter`].

mod agent_signer;
mod agents;
mod algorithms;
mod auth;
mod carrier;
mod channel;
mod channel_stream;
mod command;
mod confirm;
mod connection;
mod context;
mod endpoint;
mod error;
mod half;
mod handler;
mod heard;
mod host_key;
mod host_key_update;
mod identity;
pub mod keyring;
mod keys;
mod known_hosts;
mod krl;
mod native;
mod negotiated;
mod openssh;
mod passwords;
mod preamble;
mod prompter;
mod proxy_command;
mod revoked;
mod step;
mod transport;
mod uncoupled;

pub use crate::os::agent::own as own_agent;
pub use carrier::{Carried, Carrier};
pub use channel::{Channel, ChannelReader, ChannelWriter, OpenError, Received, Refusal};
pub use channel_stream::ChannelStream;
pub use connection::{Connection, Output};
pub use context::ConnectContext;
pub use endpoint::Endpoint;
pub use error::{Error, Kind, Phase, Skipped, Tried, TurnedAway, Unconfirmed};
pub use half::Gone;
pub use host_key::known_identities;
pub use identity::Identity;
pub use keys::{Credentials, needs_passphrase, opens};
#[cfg(fuzzing)]
pub use known_hosts::read_known_hosts;
pub use negotiated::{Login, Negotiated};
pub use openssh::{answer_as_askpass, become_ssh};
pub use passwords::{Bound, keep_password};
pub use preamble::BEGIN;
pub use prompter::{Ask, Prompter, Question, Questions, Said, Secret};
#[cfg(fuzzing)]
pub use revoked::read_revoked_keys;
pub(crate) use step::OnStep;
pub use step::{News, Step};
pub(crate) use transport::no_greeting;

/// Ends the programs that carry connections, and removes their files. Must be called before this process exits, or they
/// would survive it. Blocks for a few seconds at most.
pub fn end_programs() {
    openssh::end_masters();
    openssh::remove_homes();
    proxy_command::end_proxy_commands();
}
