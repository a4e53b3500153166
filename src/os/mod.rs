//! The platform room: what an operating system does for this program, and the only place with conditions on the system
//! (tests/fast holds this).
//!
//! Each system has a folder with the same modules and the same names in them; the compiler holds that. What differs is
//! said in the doc comments of each system's own. Another system is one more folder.
//!
//! - `heap`: memory goes back to the system;
//! - `keyring`: where secrets are kept;
//! - `network`: changes of the network, and waking up;
//! - `places`: paths and directories;
//! - `process`: this process's memory, its parent, other processes' names;
//! - `services`: the service manager;
//! - `tcp`: options of a connection;
//! - `tcp_clients`: whose a client on the loopback is.
//!
//! Beside them stands what is the same for all Unix systems. This module imports no other one.

mod desktop_keyring;
mod events;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
pub mod pauses;
pub mod proc_net;
#[cfg(any(target_os = "macos", test))]
mod routing_message;
pub mod search_path;
mod service_manager;
mod trust;
#[cfg(unix)]
mod unix;
mod whose;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub use linux::{heap, keyring, network, places, process, services, tcp, tcp_clients};
#[cfg(target_os = "macos")]
pub use macos::{heap, keyring, network, places, process, services, tcp, tcp_clients};
pub use service_manager::ServiceManager;
#[cfg(unix)]
pub use unix::{
    agent, background, beneath, files, held_signals, inherited, local, local_stream, lock, mux, private, programs,
    signals, tcp_listener, terminal, user,
};
pub use whose::Whose;
#[cfg(windows)]
pub use windows::{
    agent, background, beneath, files, heap, held_signals, inherited, keyring, local, local_stream, lock, mux, network,
    places, private, process, programs, services, signals, tcp, tcp_clients, tcp_listener, terminal, user,
};

#[cfg(target_os = "linux")]
use linux::peer::peer_of;
#[cfg(target_os = "macos")]
use macos::peer::peer_of;

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
compile_error!("dtunnel runs on Linux, macOS and Windows: another system needs a folder of its own in src/os");

#[cfg(test)]
mod tests {
    use super::lock::Lock;

    #[test]
    fn only_one_holds_it_and_it_is_free_again_after() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.lock");
        let lock = Lock::take(&path).expect("opened").expect("free");
        assert!(Lock::take(&path).expect("opened").is_none());
        drop(lock);
        assert!(!path.exists());
        assert!(Lock::take(&path).expect("opened").is_some());
    }
}
