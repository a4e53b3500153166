//! Which published port gets which local address, and the opening of a port's addresses together.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::mapping::{Mapping, explain};
use crate::tunnel::client::listener::bind_tcp;
use crate::tunnel::client::stream::LocalStream;
use crate::tunnel::dial::Purpose;

/// How often a port number is looked for that is free on both addresses.
const ATTEMPTS: usize = 16;

/// Opens those of the mappings that are `agreed` to and not open. The addresses of one published port open together, with one
/// number, or not at all: `localhost` means both. An address that this machine does not have does not count.
pub(super) fn open_all(
    mappings: &mut [Mapping],
    agreed: impl Fn(&Mapping) -> bool,
    fallback: bool,
    clients: &mpsc::Sender<(LocalStream, Purpose)>,
) {
    let (agreed, others): (Vec<usize>, Vec<usize>) = (0..mappings.len()).partition(|at| agreed(&mappings[*at]));
    others.into_iter().for_each(|at| mappings[at].waits());
    let losers = losers(mappings, &agreed);
    let groups = groups(mappings, &agreed);
    // What is given up first is free for those who get it.
    for group in &groups {
        let Some((local, winner)) = lost(mappings, group, &losers) else { continue };
        let why = format!("{local} is the port of {}", mappings[winner].container());
        for at in group {
            if !mappings[*at].is_open_elsewhere() {
                mappings[*at].yields(&why);
            }
        }
    }
    for group in groups {
        let closed: Vec<usize> = group.iter().copied().filter(|at| !mappings[*at].is_open()).collect();
        let locals: Vec<SocketAddr> = closed.iter().filter_map(|at| mappings[*at].local()).collect();
        let has_lost = lost(mappings, &group, &losers).is_some();
        if closed.is_empty() || has_lost && !fallback {
            continue;
        }
        let taken = |(address, error): &(SocketAddr, io::Error)| format!("{address} {}", explain(error).1);
        let (bound, why) = match bind_together(&locals) {
            bound if !has_lost && (bound.is_ok() || !fallback) => (bound, None),
            bound => {
                // The reason of a port that has lost its address was set above.
                let why = bound.err().filter(|_| !has_lost).as_ref().map(taken).or(mappings[closed[0]].status().reason);
                (bind_elsewhere(&locals).map_err(|error| (locals[0], error)), why)
            }
        };
        match bound {
            Ok(bound) => {
                for (at, listener) in closed.iter().zip(bound) {
                    match listener {
                        Ok(listener) => mappings[*at].serve(listener, why.clone(), clients),
                        Err(error) => mappings[*at].fails(&error, None),
                    }
                }
            }
            Err((address, error)) => closed.iter().for_each(|at| mappings[*at].fails(&error, Some(address))),
        }
    }
}

/// The first address that a port does not get, and the one that gets it.
fn lost(mappings: &[Mapping], group: &[usize], losers: &HashMap<usize, usize>) -> Option<(SocketAddr, usize)> {
    group.iter().find_map(|at| Some((mappings[*at].local()?, *losers.get(at)?)))
}

/// Those that do not get their local address, each with the one that does.
fn losers(mappings: &[Mapping], agreed: &[usize]) -> HashMap<usize, usize> {
    let mut winners: HashMap<SocketAddr, usize> = HashMap::new();
    let wanted = || agreed.iter().filter_map(|at| Some((*at, mappings[*at].local()?)));
    for (at, local) in wanted() {
        let winner = winners.entry(local).or_insert(at);
        if mappings[at].rank() < mappings[*winner].rank() {
            *winner = at;
        }
    }
    wanted().map(|(at, local)| (at, winners[&local])).filter(|(at, winner)| at != winner).collect()
}

/// The mappings by published port, in their order.
fn groups(mappings: &[Mapping], agreed: &[usize]) -> Vec<Vec<usize>> {
    let (mut groups, mut places): (Vec<Vec<usize>>, HashMap<_, usize>) = (Vec::new(), HashMap::new());
    for at in agreed.iter().copied().filter(|at| mappings[*at].local().is_some()) {
        let place = *places.entry(mappings[at].port()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    groups
}

type Bound = Vec<io::Result<TcpListener>>;

/// Listens at all of these addresses, of which this machine may not have some.
fn bind_together(locals: &[SocketAddr]) -> Result<Bound, (SocketAddr, io::Error)> {
    let bind = |local: &SocketAddr| match bind_tcp(*local) {
        Err(error) if error.kind() != io::ErrorKind::AddrNotAvailable => Err((*local, error)),
        bound => Ok(bound),
    };
    locals.iter().map(bind).collect()
}

/// Listens at a port of the system's choice that is free at all of these addresses.
fn bind_elsewhere(locals: &[SocketAddr]) -> io::Result<Bound> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        let first = locals.iter().find_map(|local| bind_tcp(SocketAddr::new(local.ip(), 0)).ok());
        let Some(first) = first else { return Err(last) };
        let chosen = first.local_addr()?;
        // It stays bound, so that nobody else gets it meanwhile.
        let mut first = Some(first);
        let bind = |local: &SocketAddr| match first.take_if(|_| local.ip() == chosen.ip()) {
            Some(first) => Ok(Ok(first)),
            None => match bind_tcp(SocketAddr::new(local.ip(), chosen.port())) {
                Err(error) if error.kind() != io::ErrorKind::AddrNotAvailable => Err(error),
                bound => Ok(bound),
            },
        };
        match locals.iter().map(bind).collect() {
            Ok(bound) => return Ok(bound),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::super::mapping::{PortState, Wanted};
    use super::*;
    use crate::engine::{Container, Published};

    const HOST: &str = "192.0.2.7";

    /// The ports of these containers, each published on these addresses of the host.
    fn mappings(port: u16, containers: &[(&str, &[&str])]) -> Vec<Mapping> {
        let of = |(name, addresses): &(&str, &[&str])| {
            let container =
                Container { id: (*name).into(), name: (*name).into(), host_network: false, published: vec![] };
            let mapping = |address: &&str| {
                let address = address.parse().expect("an address");
                let published = Published { address, port, container_port: 80, protocol: "tcp".into() };
                Mapping::new(Wanted::new(&container, &published, None, None))
            };
            addresses.iter().map(mapping).collect::<Vec<_>>()
        };
        containers.iter().flat_map(of).collect()
    }

    fn shown(mappings: &[Mapping]) -> Vec<(PortState, String)> {
        mappings.iter().map(Mapping::status).map(|s| (s.state, s.local.or(s.reason).unwrap_or_default())).collect()
    }

    fn open(mappings: &mut [Mapping], fallback: bool) -> Vec<(PortState, String)> {
        open_all(mappings, |_| true, fallback, &mpsc::channel(1).0);
        shown(mappings)
    }

    /// A port that is free at both addresses.
    fn free() -> u16 {
        bind_elsewhere(&["127.0.0.1:0".parse().expect("v4"), "[::1]:0".parse().expect("v6")]).expect("a port")[0]
            .as_ref()
            .expect("bound")
            .local_addr()
            .expect("its address")
            .port()
    }

    #[tokio::test]
    async fn both_addresses_of_a_port_open_or_none_does() {
        let port = free();
        let taken = bind_tcp(format!("[::1]:{port}").parse().expect("an address")).expect("free");
        let mut both = mappings(port, &[("web", &["0.0.0.0", "::"])]);
        let why = format!("[::1]:{port} is taken on this machine");
        assert_eq!(
            open(&mut both, false),
            [
                (PortState::Taken, format!("{why}; both addresses of a port open together")),
                (PortState::Taken, why.clone())
            ]
        );
        drop(taken);
        let local = |port| [format!("127.0.0.1:{port}"), format!("[::1]:{port}")].map(|local| (PortState::Open, local));
        assert_eq!(open(&mut both, false), local(port));
        // Somebody else's: with another number, the same for both.
        let mut other = mappings(port, &[("other", &["0.0.0.0", "::"])]);
        let elsewhere = open(&mut other, true);
        let chosen: SocketAddr = elsewhere[0].1.parse().expect("an address");
        assert_ne!(chosen.port(), port);
        assert_eq!(elsewhere, local(chosen.port()));
        assert_eq!(other[0].status().reason.expect("a reason"), format!("127.0.0.1:{port} is taken on this machine"));
        assert_eq!(open(&mut other, true), elsewhere, "it stays there");
    }

    #[tokio::test]
    async fn an_address_goes_to_who_publishes_on_exactly_it_whoever_came_first() {
        let port = free();
        let (exact, all, of_host) = (("exact", &["127.0.0.1"][..]), ("all", &["0.0.0.0"][..]), ("host", &[HOST][..]));
        for order in [[exact, all, of_host], [of_host, all, exact], [all, of_host, exact]] {
            let mut mappings = mappings(port, &order);
            for (state, what) in open(&mut mappings, false).iter().zip(&order).map(|(shown, (name, _))| {
                let expected = match *name {
                    "exact" => (PortState::Open, format!("127.0.0.1:{port}")),
                    _ => (PortState::Taken, format!("127.0.0.1:{port} is the port of exact")),
                };
                (shown.clone(), expected)
            }) {
                assert_eq!(state, what);
            }
        }
        // The one that came first has it, and gives it up.
        let mut first = mappings(port, &[of_host]);
        assert_eq!(open(&mut first, false)[0].0, PortState::Open);
        first.extend(self::mappings(port, &[all]));
        let after = open(&mut first, false);
        assert_eq!(after[0], (PortState::Taken, format!("127.0.0.1:{port} is the port of all")));
        assert_eq!(after[1].0, PortState::Open);
        // Of two of the same rank the one that has it keeps it.
        first.insert(0, self::mappings(port, &[("second", &["0.0.0.0"])]).remove(0));
        let after = open(&mut first, true);
        assert_eq!((after[0].0, after[2].1.clone()), (PortState::Open, format!("127.0.0.1:{port}")));
        assert_ne!(after[0].1, after[2].1);
        assert_eq!(open(&mut first, true), after);
    }

    #[tokio::test]
    async fn one_address_of_a_port_that_is_anothers_takes_the_other_address_along() {
        let port = free();
        let mut mappings = mappings(port, &[("all", &["0.0.0.0", "::"]), ("exact", &["127.0.0.1"])]);
        let why = format!("127.0.0.1:{port} is the port of exact");
        let expected =
            [(PortState::Taken, why.clone()), (PortState::Taken, why), (PortState::Open, format!("127.0.0.1:{port}"))];
        assert_eq!(open(&mut mappings, false), expected);
        assert_eq!(open(&mut mappings, false), expected);
    }
}
