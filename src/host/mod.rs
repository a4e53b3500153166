//! What is on the other machine: where its Engine is, and the way there.
//!
//! Knows nothing of tunnels: `doctor` and `audit` use it over a connection of their own.

mod error;
mod exec;
mod find;
mod probe;

pub use error::{Class, Error, Obstacle};
pub use exec::Tool;
pub(crate) use exec::to_port;
pub use find::{Route, find as find_engine, open as open_engine};
pub use probe::{Access, HostProbe, Socket};
