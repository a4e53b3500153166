//! The product: a local endpoint, its SSH connection, the Engine at the other end.
//!
//! Knows nothing of processes, control sockets or terminals. [`Tunnel`] owns all state; whoever
//! drives it calls [`Tunnel::run`] once and reads along through [`Tunnel::watch`].

mod client;
mod counters;
mod dispatch;
mod error;
mod flow;
mod guard;
mod handle;
mod pool;
mod ports;
mod uptime;

pub use client::listener::{Inherited, Listener};
pub(crate) use client::listener::{SocketFile, bind_private};
pub use counters::{Counters, Snapshot};
pub use error::Error;
pub use guard::{Framing, Head, Refusal, RequestStatus};
pub use handle::Reloading;
pub use pool::member::ConnectionStatus;
pub use ports::{PortState, PortStatus};
pub use uptime::supervisor::{State, Status, Tunnel};
