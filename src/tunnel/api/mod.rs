//! Finds the ends of requests and answers of the Engine API as they pass, so that each request can use another channel.
//!
//! Without a guard it reads only and changes nothing: data that is not fully understood makes the rest of that connection
//! blind; its bytes pass unchanged and stay on their channel. Under a guard what is not understood is refused. Independent of
//! sockets and SSH.

mod answer;
mod exchange;
mod framing;
mod ping;
mod request;

pub use framing::Framing;

pub(super) use exchange::{Changed, Exchange, FromClient, FromHost, Prepares, Rejected};
pub(super) use ping::{Early, Pings, ask};
