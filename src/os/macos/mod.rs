//! macOS: built and checked, not run, by the authors. The interface is that of [`crate::os`].

pub mod heap;
pub mod keyring;
pub mod network;
pub(super) mod peer;
pub mod places;
pub mod process;
pub mod services;
pub mod tcp;
pub mod tcp_clients;
