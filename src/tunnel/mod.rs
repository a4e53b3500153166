//! The product: a local endpoint, its SSH connection, the Engine at the other end.
//!
//! Knows nothing of processes, control sockets or terminals. [`Tunnel`] owns all state; whoever
//! drives it calls [`Tunnel::run`] once and reads along through [`Tunnel::watch`].

mod backlog;
mod counters;
mod error;
mod flow;
mod flows;
mod listener;
mod local;
mod peer;
mod pool;
mod supervisor;
mod worker;

pub use counters::{Counters, Snapshot};
pub use error::Error;
pub use listener::Listener;
pub(crate) use listener::{SocketFile, bind_private};
pub use pool::ConnectionStatus;
pub use supervisor::{State, Status, Tunnel};
