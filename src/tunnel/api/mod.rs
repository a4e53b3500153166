//! The Engine's API as it passes: where a request ends and where its answer does, so that each request finds its own way.
//!
//! Reads along and changes nothing. Whatever is not fully understood makes the rest of that connection blind: its bytes
//! pass as they are, and stay on the channel where they began. Knows no socket and no SSH.

mod answer;
mod exchange;
mod ping;

pub(super) use exchange::{Exchange, FromClient};
pub(super) use ping::{Early, Pings, ask};
