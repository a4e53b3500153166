//! The tunnel comes up, stays up, and goes down.

mod network;
mod outage;
pub(super) mod supervisor;
