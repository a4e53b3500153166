//! What is the same for all Unix systems. The interface is that of [`crate::os`].

pub mod agent;
pub mod background;
pub mod beneath;
pub mod files;
pub mod held_signals;
pub mod inherited;
pub mod local;
pub mod local_stream;
pub mod lock;
pub mod mux;
pub(super) mod peer;
pub mod private;
pub mod programs;
pub(super) mod readiness;
pub mod signals;
pub mod tcp_listener;
pub mod terminal;
pub mod user;
