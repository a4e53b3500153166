//! The product: a local endpoint, its SSH connection, the Engine at the other end.
//!
//! Knows nothing of processes, control sockets or terminals. [`Tunnel`] owns all state; whoever
//! drives it calls [`Tunnel::run`] once and reads along through [`Tunnel::watch`].

mod bridge;
mod counters;
mod error;
mod flow;
mod flows;
mod guard;
mod handle;
mod heap;
mod listener;
mod local;
mod member;
mod network;
mod outage;
mod pace;
mod peer;
mod pool;
mod ports;
mod remote;
mod send_buffer;
mod spill;
mod supervisor;
mod survey;
mod worker;

pub use bridge::Tool;
pub(crate) use bridge::quoted;
pub use counters::{Counters, Snapshot};
pub use error::{Class, Error, Obstacle};
pub use guard::{Framing, Head, Refusal, RequestStatus};
pub use handle::Reloading;
pub use listener::{Inherited, Listener};
pub(crate) use listener::{SocketFile, bind_private};
pub use member::ConnectionStatus;
pub use ports::{PortState, PortStatus};
pub use remote::{Route, find as find_engine};
pub use supervisor::{State, Status, Tunnel};
pub use survey::{Access, Socket, Survey};
