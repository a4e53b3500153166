//! Which published port gets which local address, and the opening of a port's addresses together.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::mapping::{Clients, Mapping, explain};
use crate::tunnel::client::listener::bind_tcp;

/// How often a port number is looked for that is free on both addresses.
const ATTEMPTS: usize = 16;

/// Opens those of the mappings that are `agreed` to and not open. The addresses of one published port open together, with one
/// number, or not at all: `localhost` means both. An address that this machine does not have does not count.
///
/// Ports are settled one after the other, those that precede others first. Who precedes closes who has its address, but
/// only if everything else that it needs is free.
pub(super) fn open_all(mappings: &mut [Mapping], agreed: impl Fn(&Mapping) -> bool, fallback: bool, clients: &Clients) {
    let may = |mapping: &Mapping| mapping.open_at().is_some() || agreed(mapping);
    let (agreed, others): (Vec<usize>, Vec<usize>) = (0..mappings.len()).partition(|at| may(&mappings[*at]));
    others.into_iter().for_each(|at| mappings[at].waits());
    let groups = groups(mappings, &agreed);
    let open_in = |(place, group): (usize, &Vec<usize>)| {
        let open: Vec<_> = group.iter().filter_map(|at| Some((mappings[*at].open_at()?, place))).collect();
        open
    };
    let unsettled = groups.iter().enumerate().flat_map(open_in).collect();
    let mut opening = Opening { mappings, groups: &groups, unsettled, settled: HashMap::new(), fallback, clients };
    groups.iter().for_each(|group| opening.settle(group));
}

/// The mappings by published port: first those that get their address before others, at equal rank those that have it.
fn groups(mappings: &[Mapping], agreed: &[usize]) -> Vec<Vec<usize>> {
    let (mut groups, mut places): (Vec<Vec<usize>>, HashMap<_, usize>) = (Vec::new(), HashMap::new());
    for at in agreed.iter().copied().filter(|at| mappings[*at].local().is_some()) {
        let place = *places.entry(mappings[at].port()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    let has_it = |at: &usize| mappings[*at].open_at().is_some_and(|open| Some(open) == mappings[*at].local());
    groups.sort_by_cached_key(|group| (group.iter().map(|at| mappings[*at].rank()).max(), !group.iter().any(has_it)));
    groups
}

struct Opening<'a> {
    mappings: &'a mut [Mapping],
    groups: &'a [Vec<usize>],
    /// Local addresses that groups have whose turn has not come, each with its group's place.
    unsettled: HashMap<SocketAddr, usize>,
    /// Local addresses of the groups whose turn is over, each with its mapping.
    settled: HashMap<SocketAddr, usize>,
    fallback: bool,
    clients: &'a Clients,
}

impl Opening<'_> {
    fn settle(&mut self, group: &[usize]) {
        let open: Vec<SocketAddr> = group.iter().filter_map(|at| self.mappings[*at].open_at()).collect();
        for local in &open {
            self.unsettled.remove(local);
        }
        if self.is_complete(group, &open) {
            return self.has_settled(group);
        }
        group.iter().for_each(|at| self.mappings[*at].close());
        let locals: Vec<SocketAddr> = group.iter().filter_map(|at| self.mappings[*at].local()).collect();
        let anothers = locals.iter().find_map(|local| Some((*local, *self.settled.get(local)?)));
        let (mut bound, why) = match anothers {
            Some((local, winner)) => {
                let why = format!("{local} is the port of {}", self.mappings[winner].container());
                (Err((local, io::ErrorKind::AddrInUse.into())), Some(why))
            }
            None => match self.bind_together(&locals) {
                Err((local, error)) => {
                    let why = format!("{local} {}", explain(&error).1);
                    (Err((local, error)), Some(why))
                }
                bound => (bound, None),
            },
        };
        if self.fallback && bound.is_err() {
            bound = bind_elsewhere(&locals).map_err(|error| (locals[0], error));
        }
        match bound {
            Ok(bound) => self.serve(group, bound, why.as_ref(), false),
            Err((address, error)) => {
                for at in group {
                    match &why {
                        Some(why) if anothers.is_some() => self.mappings[*at].is_anothers(why),
                        _ => self.mappings[*at].fails(&error, Some(address)),
                    }
                }
            }
        }
        self.has_settled(group);
    }

    /// Are all addresses of the port open, with one number, perhaps by opening some beside those that are?
    fn is_complete(&mut self, group: &[usize], open: &[SocketAddr]) -> bool {
        let Some(number) = open.first().map(SocketAddr::port) else { return false };
        let closed: Vec<usize> = group.iter().copied().filter(|at| self.mappings[*at].open_at().is_none()).collect();
        let beside = |at: &usize| self.mappings[*at].local().map(|local| SocketAddr::new(local.ip(), number));
        let locals: Vec<SocketAddr> = closed.iter().filter_map(beside).collect();
        if open.iter().any(|local| local.port() != number || self.settled.contains_key(local))
            || locals.iter().any(|local| self.settled.contains_key(local))
        {
            return false;
        }
        let why = group.iter().find(|at| self.mappings[**at].open_at().is_some());
        let why = why.and_then(|at| self.mappings[*at].status().reason);
        match self.bind_together(&locals) {
            Ok(bound) => self.serve(&closed, bound, why.as_ref(), true),
            Err(_) => return false,
        }
        true
    }

    /// Listens at all of these addresses, of which this machine may not have some. Those that other ports have, which
    /// come later, are taken from them if the others are free.
    fn bind_together(&mut self, locals: &[SocketAddr]) -> Result<Bound, (SocketAddr, io::Error)> {
        let mut bound: Vec<Option<io::Result<TcpListener>>> = locals.iter().map(|_| None).collect();
        for is_taken_from_another in [false, true] {
            for (local, bound) in locals.iter().zip(&mut bound).filter(|(_, bound)| bound.is_none()) {
                match self.unsettled.get(local) {
                    Some(_) if !is_taken_from_another => continue,
                    Some(place) => self.groups[*place].iter().for_each(|at| self.mappings[*at].close()),
                    None => {}
                }
                *bound = Some(bind(*local).map_err(|error| (*local, error))?);
            }
        }
        Ok(bound.into_iter().flatten().collect())
    }

    /// Serves at these addresses, one for each mapping. `is_open`: others of the port are open already.
    fn serve(&mut self, of: &[usize], bound: Bound, why: Option<&String>, is_open: bool) {
        let opens = is_open || bound.iter().any(io::Result::is_ok);
        for (at, listener) in of.iter().zip(bound) {
            match listener {
                Ok(listener) => self.mappings[*at].serve(listener, why.cloned(), self.clients),
                Err(_) if opens && self.mappings[*at].is_on_loopback() => self.mappings[*at].is_absent(),
                Err(error) => self.mappings[*at].fails(&error, None),
            }
        }
    }

    fn has_settled(&mut self, group: &[usize]) {
        let open = group.iter().filter_map(|at| Some((self.mappings[*at].open_at()?, *at)));
        self.settled.extend(open);
    }
}

type Bound = Vec<io::Result<TcpListener>>;

/// Listens at this address. The inner error is that this machine does not have it.
fn bind(local: SocketAddr) -> io::Result<io::Result<TcpListener>> {
    match bind_tcp(local) {
        Err(error) if error.kind() != io::ErrorKind::AddrNotAvailable => Err(error),
        bound => Ok(bound),
    }
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
            None => bind(SocketAddr::new(local.ip(), chosen.port())),
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
    use tokio::sync::mpsc;

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
        mappings.iter().map(shown_of).collect()
    }

    fn shown_of(mapping: &Mapping) -> (PortState, String) {
        let status = mapping.status();
        (status.state, status.local.or(status.reason).unwrap_or_default())
    }

    fn open(mappings: &mut [Mapping], fallback: bool) -> Vec<(PortState, String)> {
        open_all(mappings, |_| true, fallback, &Clients::new(mpsc::channel(1).0));
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

    #[tokio::test]
    async fn an_address_that_comes_later_gets_the_number_of_the_first() {
        let port = free();
        let taken = bind_tcp(format!("127.0.0.1:{port}").parse().expect("an address")).expect("free");
        let mut both = mappings(port, &[("web", &["0.0.0.0"])]);
        let first = open(&mut both, true).remove(0);
        drop(taken);
        both.extend(mappings(port, &[("web", &["::"])]));
        let chosen = first.1.parse::<SocketAddr>().expect("an address").port();
        let together = |port| [format!("127.0.0.1:{port}"), format!("[::1]:{port}")].map(|at| (PortState::Open, at));
        assert_eq!(open(&mut both, true), together(chosen), "it stays, and the other one goes there");
        // Where that cannot be, both go elsewhere, or none is open.
        let port = free();
        let _taken = bind_tcp(format!("[::1]:{port}").parse().expect("an address")).expect("free");
        for fallback in [true, false] {
            let mut both = mappings(port, &[("web", &["0.0.0.0"])]);
            assert_eq!(open(&mut both, fallback)[0].1, format!("127.0.0.1:{port}"));
            both.extend(mappings(port, &[("web", &["::"])]));
            let after = open(&mut both, fallback);
            if fallback {
                let chosen = after[0].1.parse::<SocketAddr>().expect("an address").port();
                assert_eq!(after, together(chosen));
                assert_ne!(chosen, port);
            } else {
                assert!(after.iter().all(|(state, _)| *state == PortState::Taken), "{after:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_port_that_is_not_open_keeps_no_address_from_others() {
        let (port, v6) = (free(), &["2001:db8::7"][..]);
        let mut mappings =
            self::mappings(port, &[("other", v6), ("all", &["0.0.0.0", "::"]), ("exact", &["127.0.0.1"])]);
        let after = open(&mut mappings, false);
        assert_eq!(after[0], (PortState::Open, format!("[::1]:{port}")));
        assert_eq!((after[1].0, after[3].0), (PortState::Taken, PortState::Open));
        drop(mappings);

        let _taken = bind_tcp(format!("[::1]:{port}").parse().expect("an address")).expect("free");
        let mut mappings = self::mappings(port, &[("all", &["0.0.0.0", "::"]), ("host", &[HOST])]);
        let expected = open(&mut mappings, false);
        assert_eq!(expected[2], (PortState::Open, format!("127.0.0.1:{port}")));
        assert!(expected[1].1.contains("taken on this machine"), "{expected:?}");
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a listener");
        client.set_nonblocking(true).expect("non-blocking");
        assert_eq!(open(&mut mappings, false), expected);
        let read = io::Read::read(&mut &client, &mut [0]).expect_err("nothing to read");
        assert_eq!(read.kind(), io::ErrorKind::WouldBlock, "another attempt does not close what is open");
    }

    #[tokio::test]
    async fn an_address_that_this_machine_does_not_have_is_missed_where_it_was_asked_for() {
        let port = free();
        let there = |address: &str, here: &str| {
            let published = Published {
                address: address.parse().expect("an address"),
                port,
                container_port: 80,
                protocol: "tcp".into(),
            };
            let container = Container { id: "web".into(), name: "web".into(), host_network: false, published: vec![] };
            Mapping::new(Wanted::new(&container, &published, None, here.parse().ok()))
        };
        // TEST-NET-1 (RFC 5737).
        let mut both = [there("0.0.0.0", "192.0.2.9"), there("::", "192.0.2.9")];
        let shown = open(&mut both, false);
        assert_eq!((shown[0].0, &shown[1]), (PortState::Failed, &(PortState::Open, format!("[::1]:{port}"))));
        assert!(both[0].may_open_later(), "it is looked for again");
        // A machine without IPv6.
        both[1].close();
        both[1].is_absent();
        assert_eq!(shown_of(&both[1]), (PortState::NotForwarded, "this machine has no address ::1".into()));
        assert!(!both[1].may_open_later() && both[1].is_on_loopback() && !both[0].is_on_loopback());
    }

    #[tokio::test]
    async fn a_number_chosen_for_one_port_is_given_up_for_whom_it_is_the_own_number() {
        let port = free();
        let _taken = bind_tcp(format!("127.0.0.1:{port}").parse().expect("an address")).expect("free");
        let mut mappings = mappings(port, &[("moved", &["0.0.0.0"])]);
        let chosen: SocketAddr = open(&mut mappings, true)[0].1.parse().expect("an address");
        mappings.extend(self::mappings(chosen.port(), &[("owner", &["127.0.0.1"])]));
        let after = open(&mut mappings, true);
        assert_eq!(after[1], (PortState::Open, chosen.to_string()));
        assert!(after[0].0 == PortState::Open && after[0].1 != chosen.to_string(), "{after:?}");
    }
}
