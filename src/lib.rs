//! dtunnel: the Docker Engine of a remote host as a private local socket, over SSH.
//!
//! The map. Imports go down this list only, never up:
//!
//! - `cli`: one file a command, and the only module that prints;
//! - `doctor`: every step from a target to its Engine, tried one by one;
//! - `audit`: finds what is unsafe about an Engine, the access to it and its containers;
//! - `daemon`: the background process around a tunnel: lock, control socket, log;
//! - `tunnel`: the product: listener, flows, supervision;
//! - `host`: the remote host: finding its Engine, and the route to it;
//! - `engine`: our own requests to Docker Engine through a tunnel;
//! - `ssh`: one authenticated connection; the only module that names russh;
//! - `config`: profiles and ssh_config, resolved to a `Target`;
//! - `failure`: a failure as people see it, with the exit code;
//! - `os`: what the operating system does for us; the only module with conditions on the system;
//! - `address`, `text`, `shell_word`, `glob`, `backoff`, `bounded`, `sync`: small tools for all modules. They and `os`
//!   import no other module.
//!
//! docs/architecture.md tells how they work together. This library exists for the binary, the
//! tests and the benchmarks; it promises no stable interface.

pub mod address;
pub mod audit;
pub mod backoff;
pub mod bounded;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod engine;
pub mod failure;
pub mod glob;
pub mod host;
pub mod os;
pub mod shell_word;
pub mod ssh;
pub mod sync;
pub mod text;
pub mod tunnel;
