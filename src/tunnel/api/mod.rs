//! Finds the ends of requests and answers of the Engine API as they pass, so that each request can use another channel.
//!
//! Reads only and changes nothing. Data that is not fully understood makes the rest of that connection blind: its bytes
//! pass unchanged and stay on their channel. Independent of sockets and SSH.

mod answer;
mod exchange;
mod ping;
mod request;

pub(super) use exchange::{Changed, Exchange, FromClient};
pub(super) use ping::{Early, Pings, ask};
