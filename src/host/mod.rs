//! The remote host: where its Engine is, and the route to it.
//!
//! Independent of tunnels: `doctor` and `audit` use it over a separate connection.

mod error;
mod exec;
mod find;
mod probe;

pub use error::{Class, Error, Obstacle};
pub use exec::Tool;
pub(crate) use exec::{own_command, to_port};
pub use find::{Route, find as find_engine, open as open_engine};
pub use probe::{Access, HostProbe, Socket};
