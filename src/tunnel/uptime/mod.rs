//! Brings the tunnel up, keeps it up, and takes it down.

pub(super) mod commands;
pub(super) mod connect;
mod nodelay;
mod reconnect_policy;
pub(super) mod state;
pub(super) mod supervisor;
