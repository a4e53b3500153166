//! End to end: the real binary against real servers. A file a capability; `lab` has the servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, reason = "one crate: nothing is reachable from outside")]

#[path = "../lab/mod.rs"]
mod lab;

mod asked;
mod attended;
mod audit;
mod carrier;
mod causes;
mod cli;
mod clients;
mod contexts;
mod cuts;
mod docker;
mod docker_java;
mod failures;
mod faults;
mod flows;
mod guard;
mod host_keys;
mod hosts;
mod keyring;
mod lifecycle;
mod login;
mod logins;
mod machine;
mod manners;
mod mounts;
mod names;
mod nodelay;
mod passwords;
mod pipelines;
mod plugin;
mod ports;
mod privileged;
mod questions;
mod quiet;
mod refusals;
mod reload;
mod requests;
mod restart;
mod shells;
mod sockets;
mod spares;
mod ssh_config;
mod stalls;
mod strangers;
mod top;
mod trust;
mod volumes;
mod waits;
