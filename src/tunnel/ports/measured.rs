//! Published ports that change, for benchmarks (benches/decisions.rs).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{MOST, Ports, wanted};
use crate::config::{self, Target};
use crate::engine::{Container, Published};
use crate::os::programs;

/// The first one's number.
const FIRST: u16 = 10_000;
/// Published ports of a container.
const EACH: usize = 10;

/// The ports of some containers, open on this machine.
#[derive(Debug)]
pub struct OpenPorts {
    ports: Ports,
    target: Target,
    containers: Vec<Container>,
    /// One that starts and ends.
    other: Option<Container>,
}

impl OpenPorts {
    /// Opens so many ports, at most 1990, with as many open files as a daemon has. To be called in a runtime.
    pub fn new(mut target: Target, count: usize) -> Self {
        programs::limit_daemon();
        target.ports = config::Ports::All;
        let ports = Ports::new(mpsc::channel(1).0, Arc::default());
        let mut containers: Vec<Container> = (0..=count.min(MOST - EACH) / EACH).map(container).collect();
        let other = containers.pop();
        ports.apply(wanted(&containers, &target), &target);
        Self { ports, target, containers, other }
    }

    /// Takes in a list of containers after one more has started or ended. Returns how many ports are known then.
    pub fn changes(&mut self) -> usize {
        match self.other.take() {
            Some(started) => self.containers.push(started),
            None => self.other = self.containers.pop(),
        }
        self.ports.apply(wanted(&self.containers, &self.target), &self.target);
        self.ports.status().len()
    }
}

fn container(number: usize) -> Container {
    let published = |at: usize| Published {
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        port: FIRST + u16::try_from(number * EACH + at).unwrap_or_default(),
        container_port: 80,
        protocol: "tcp".into(),
    };
    let id = format!("{number:064x}");
    let name = format!("web-{number}");
    Container { id, name, host_network: false, published: (0..EACH).map(published).collect() }
}
