//! Windows: shown under Wine by the authors, not tried on Windows itself. The interface is that of [`crate::os`].

pub mod agent;
pub mod background;
pub mod beneath;
pub mod files;
pub mod heap;
pub mod held_signals;
pub mod inherited;
pub mod keyring;
pub mod local;
pub mod local_stream;
pub mod lock;
pub mod mux;
pub mod network;
mod pipe;
pub mod places;
pub mod private;
pub mod process;
pub mod programs;
pub mod services;
pub mod signals;
mod system;
pub mod tcp;
pub mod tcp_clients;
pub mod tcp_listener;
pub mod terminal;
pub mod user;
