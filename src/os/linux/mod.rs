//! Linux. The interface is that of [`crate::os`].

pub mod heap;
pub mod keyring;
pub mod network;
pub(super) mod peer;
pub mod places;
pub mod process;
pub mod services;
mod sock_diag;
pub mod tcp;
pub mod tcp_clients;
