//! The background process around a tunnel: start, lock, control socket, log.
//!
//! One process per tunnel. [`spawn`] re-executes this program as the daemon, [`run`] is the daemon, and [`ControlClient`]
//! talks to it over its control socket. This module prints nothing.

mod client;
mod control;
mod log;
mod manager;
mod options;
mod prompt_relay;
mod protocol;
mod reload;
mod run;
mod spawn;

pub use client::{ClientError, ControlClient, Found, find, list};
pub(crate) use log::tail as log_tail;
pub use options::Options;
pub use protocol::{Added, Event, MountsTask, PROTOCOL, Request, Trouble, TunnelStatus};
pub use reload::CONNECTING;
pub use run::run;
pub use spawn::{SpawnError, spawn};
