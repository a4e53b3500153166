//! Which published port gets which local address, and the opening of a port's addresses together.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

use super::mapping::{Clients, Mapping, explain};
use crate::os::tcp_listener;
use crate::tunnel::client::listener::{BACKLOG, claim_tcp};

/// How often a port number is looked for that is free on both addresses.
const ATTEMPTS: usize = 16;

/// Opens those of the mappings that are `agreed` to and not open. The addresses of one published port open together, with one
/// number, or not at all: `localhost` means both. A loopback address that this machine does not have does not count.
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

/// Why a port does not get the number that it is published with.
enum Obstacle {
    /// This address cannot be bound.
    Unbound(SocketAddr, io::Error),
    /// This address is the port of that container.
    Anothers(SocketAddr, String),
}

impl Obstacle {
    /// For a port that has another number from now on, as long as it is open.
    fn then(&self) -> String {
        const WHEN: &str = "when this port was opened";
        match self {
            Self::Unbound(address, error) if tcp_listener::is_taken(error) => {
                format!("{address} was taken on this machine {WHEN}")
            }
            Self::Unbound(address, error) => format!("{address} {}", explain(error).1),
            Self::Anothers(address, container) => format!("{address} was the port of {container} {WHEN}"),
        }
    }
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
        let anothers = locals.iter().find_map(|local| among(&self.settled, *local).pop());
        let bound = match anothers {
            Some((local, winner)) => Err(Obstacle::Anothers(local, self.mappings[winner].container().to_owned())),
            None => {
                // First what was in the way before, so that nothing else is taken meanwhile, not even for a moment.
                let obstacle = group.iter().find_map(|at| self.mappings[*at].obstacle());
                self.bind_together(&locals, obstacle).map_err(|(local, error)| Obstacle::Unbound(local, error))
            }
        };
        match bound {
            Ok(bound) => self.serve(group, bound, None, false),
            Err(obstacle) if self.fallback => match bind_elsewhere(&locals) {
                Ok(bound) => self.serve(group, bound, Some(&obstacle.then()), false),
                Err(_) => self.fail(group, &obstacle),
            },
            Err(obstacle) => self.fail(group, &obstacle),
        }
        self.has_settled(group);
    }

    fn fail(&mut self, group: &[usize], obstacle: &Obstacle) {
        for at in group {
            match obstacle {
                Obstacle::Unbound(address, error) => self.mappings[*at].fails(error, Some(*address)),
                Obstacle::Anothers(address, container) => {
                    self.mappings[*at].is_anothers(&format!("{address} is the port of {container}"));
                }
            }
        }
    }

    /// Are all addresses of the port open, with one number, perhaps by opening some beside those that are?
    fn is_complete(&mut self, group: &[usize], open: &[SocketAddr]) -> bool {
        let Some(number) = open.first().map(SocketAddr::port) else { return false };
        let closed: Vec<usize> = group.iter().copied().filter(|at| self.mappings[*at].open_at().is_none()).collect();
        let beside = |at: &usize| self.mappings[*at].local().map(|local| SocketAddr::new(local.ip(), number));
        let locals: Vec<SocketAddr> = closed.iter().filter_map(beside).collect();
        let is_own = |at: &usize| self.mappings[*at].local().is_some_and(|local| local.port() == number);
        let is_anothers = |local: &SocketAddr| !among(&self.settled, *local).is_empty();
        if !self.fallback && !group.iter().all(is_own)
            || open.iter().any(|local| local.port() != number || is_anothers(local))
            || locals.iter().any(is_anothers)
        {
            return false;
        }
        let why = group.iter().find(|at| self.mappings[**at].open_at().is_some());
        let why = why.and_then(|at| self.mappings[*at].status().reason);
        match self.bind_together(&locals, None) {
            Ok(bound) => self.serve(&closed, bound, why.as_ref(), true),
            Err(_) => return false,
        }
        true
    }

    /// Listens at all of these addresses, of which this machine may not have some, as soon as it has all of them:
    /// `first`, then the others, and at last those that other ports have, which come later.
    fn bind_together(
        &mut self,
        locals: &[SocketAddr],
        first: Option<SocketAddr>,
    ) -> Result<Bound, (SocketAddr, io::Error)> {
        let mut claimed: Vec<Option<Claimed>> = locals.iter().map(|_| None).collect();
        let mut order: Vec<(usize, SocketAddr)> = locals.iter().copied().enumerate().collect();
        order.sort_by_key(|(_, local)| (!among(&self.unsettled, *local).is_empty(), Some(*local) != first));
        for (at, local) in order {
            for (_, place) in among(&self.unsettled, local) {
                self.groups[place].iter().for_each(|at| self.mappings[*at].close());
            }
            claimed[at] = Some(claim(local).map_err(|error| (local, error))?);
        }
        let listening = claimed.into_iter().flatten().zip(locals);
        listening.map(|(claimed, local)| listen(claimed).map_err(|error| (*local, error))).collect()
    }

    /// Serves at these addresses, one for each mapping. `is_open`: others of the port are open already.
    fn serve(&mut self, of: &[usize], bound: Bound, why: Option<&String>, is_open: bool) {
        let opens = is_open || bound.iter().any(io::Result::is_ok);
        for (at, listener) in of.iter().zip(bound) {
            match listener {
                Ok(listener) => self.mappings[*at].serve(listener, why.cloned(), self.clients),
                Err(_) if opens => self.mappings[*at].is_absent(),
                Err(error) => self.mappings[*at].fails(&error, None),
            }
        }
    }

    fn has_settled(&mut self, group: &[usize]) {
        let open = group.iter().filter_map(|at| Some((self.mappings[*at].open_at()?, *at)));
        self.settled.extend(open);
    }
}

/// Those whose address includes this one, or is included in it: `0.0.0.0` includes all of IPv4, `::` all of IPv6.
fn among(all: &HashMap<SocketAddr, usize>, local: SocketAddr) -> Vec<(SocketAddr, usize)> {
    let every: IpAddr = match local.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let entry = |at: &SocketAddr| all.get(at).map(|place| (*at, *place));
    if local.ip() != every {
        return [local, SocketAddr::new(every, local.port())].iter().filter_map(entry).collect();
    }
    let is_included = |at: &SocketAddr| at.is_ipv4() == local.is_ipv4() && at.port() == local.port();
    all.keys().filter(|at| is_included(at)).filter_map(entry).collect()
}

/// An address that is ours, or that this machine does not have.
type Claimed = io::Result<TcpSocket>;
/// A listener, or that this machine does not have the address.
type Bound = Vec<io::Result<TcpListener>>;

/// Takes this address. The inner error is that this machine does not have it, as one without IPv6 has no `::1`. An
/// address that is not loopback was named by somebody.
fn claim(local: SocketAddr) -> io::Result<Claimed> {
    let is_absent =
        |error: &io::Error| tcp_listener::is_family_absent(error) || error.kind() == io::ErrorKind::AddrNotAvailable;
    match claim_tcp(local) {
        Err(error) if !(local.ip().is_loopback() && is_absent(&error)) => Err(error),
        claimed => Ok(claimed),
    }
}

fn listen(claimed: Claimed) -> io::Result<io::Result<TcpListener>> {
    match claimed {
        Ok(socket) => socket.listen(BACKLOG).map(Ok),
        Err(absent) => Ok(Err(absent)),
    }
}

/// Listens at a port of the system's choice that is free at all of these addresses.
fn bind_elsewhere(locals: &[SocketAddr]) -> io::Result<Bound> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        let first = locals.iter().find_map(|local| claim_tcp(SocketAddr::new(local.ip(), 0)).ok());
        let Some(first) = first else { return Err(last) };
        let chosen = first.local_addr()?;
        // It stays bound, so that nobody else gets it meanwhile.
        let mut first = Some(first);
        let claim = |local: &SocketAddr| match first.take_if(|_| local.ip() == chosen.ip()) {
            Some(first) => Ok(Ok(first)),
            None => claim(SocketAddr::new(local.ip(), chosen.port())),
        };
        let claimed: io::Result<Vec<Claimed>> = locals.iter().map(claim).collect();
        match claimed.and_then(|claimed| claimed.into_iter().map(listen).collect()) {
            Ok(bound) => return Ok(bound),
            Err(error) if tcp_listener::is_taken(&error) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};

    use tokio::sync::mpsc;

    use super::super::mapping::{PortState, Wanted};
    use super::*;
    use crate::engine::{Container, Published};

    const HOST: &str = "192.0.2.7";

    /// Another program's listener.
    fn taken(address: &str, port: u16) -> std::net::TcpListener {
        std::net::TcpListener::bind(SocketAddr::new(address.parse().expect("an address"), port)).expect("free")
    }

    /// The ports of these containers, each published on these addresses of the host.
    fn mappings(port: u16, containers: &[(&str, &[&str])]) -> Vec<Mapping> {
        mappings_at(None, port, containers)
    }

    /// With `here` in place of loopback.
    fn mappings_at(here: Option<&str>, port: u16, containers: &[(&str, &[&str])]) -> Vec<Mapping> {
        let here = here.map(|here| here.parse().expect("an address"));
        let of = |(name, addresses): &(&str, &[&str])| {
            let container =
                Container { id: (*name).into(), name: (*name).into(), host_network: false, published: vec![] };
            let mapping = |address: &&str| {
                let address = address.parse().expect("an address");
                let published = Published { address, port, container_port: 80, protocol: "tcp".into() };
                Mapping::new(Wanted::new(&container, &published, None, here))
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

    /// A port that is free at both addresses, and another one each time. It is none that the system gives to whoever asks for
    /// any port, or connects.
    fn free() -> u16 {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let first = u16::try_from(std::process::id() % 10_000).expect("small");
        let is_free =
            |port: &u16| ["127.0.0.1", "::1"].iter().all(|at| std::net::TcpListener::bind((*at, *port)).is_ok());
        let numbers = || Some(20_000 + (first + NEXT.fetch_add(1, Relaxed)) % 10_000);
        std::iter::from_fn(numbers).find(is_free).expect("endless")
    }

    #[tokio::test]
    async fn both_addresses_of_a_port_open_or_none_does() {
        let port = free();
        let taken = self::taken("::1", port);
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
        let why = format!("127.0.0.1:{port} was taken on this machine when this port was opened");
        assert_eq!(other[0].status().reason, Some(why));
        assert_eq!(open(&mut other, true), elsewhere, "it stays there");
        // Without a fallback it does not, whether its own number is free or not.
        let moved = open(&mut other, false);
        assert_eq!(moved[0], (PortState::Taken, format!("127.0.0.1:{port} is taken on this machine")));
        open(&mut other, true);
        drop(both);
        assert_eq!(open(&mut other, false), local(port));
        assert_eq!(other[0].status().reason, None);
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
        let taken = self::taken("127.0.0.1", port);
        let mut both = mappings(port, &[("web", &["0.0.0.0"])]);
        let first = open(&mut both, true).remove(0);
        drop(taken);
        both.extend(mappings(port, &[("web", &["::"])]));
        let chosen = first.1.parse::<SocketAddr>().expect("an address").port();
        let together = |port| [format!("127.0.0.1:{port}"), format!("[::1]:{port}")].map(|at| (PortState::Open, at));
        assert_eq!(open(&mut both, true), together(chosen), "it stays, and the other one goes there");
        // Where that cannot be, both go elsewhere, or none is open.
        let port = free();
        let _taken = self::taken("::1", port);
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

        let _taken = taken("::1", port);
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
        for fallback in [false, true] {
            let shown = open(&mut both, fallback);
            assert!(
                shown.iter().all(|(state, why)| *state == PortState::Failed && why.contains("192.0.2.9")),
                "{shown:?}"
            );
            assert!(both[0].may_open_later(), "it is looked for again");
        }
        // A machine without IPv6.
        both[1].is_absent();
        assert_eq!(shown_of(&both[1]), (PortState::NotForwarded, "this machine has no address ::1".into()));
        assert!(!both[1].may_open_later());
    }

    #[tokio::test]
    async fn every_address_of_one_family_leaves_the_other_family_alone() {
        let port = free();
        for fallback in [false, true] {
            let mut both = mappings_at(Some("::"), port, &[("web", &["0.0.0.0", "::"])]);
            let expected = [format!("127.0.0.1:{port}"), format!("[::]:{port}")].map(|local| (PortState::Open, local));
            assert_eq!(open(&mut both, fallback), expected);
        }
    }

    #[tokio::test]
    async fn every_address_includes_that_of_another_port_of_ours() {
        let port = free();
        let mut mappings = mappings_at(Some("0.0.0.0"), port, &[("all", &["0.0.0.0"])]);
        assert_eq!(open(&mut mappings, false), [(PortState::Open, format!("0.0.0.0:{port}"))]);
        mappings.extend(self::mappings(port, &[("exact", &["127.0.0.1"])]));
        let expected = (PortState::Taken, format!("0.0.0.0:{port} is the port of all"));
        assert_eq!(open(&mut mappings, false)[1], expected);
        assert_eq!(open(&mut mappings, false)[1], expected);
        mappings.remove(0);
        assert_eq!(open(&mut mappings, false), [(PortState::Open, format!("127.0.0.1:{port}"))]);
    }

    #[test]
    fn a_port_that_waits_for_one_address_does_not_touch_the_other_one() {
        let name = format!("{}::in_its_own_process::a_port_that_waits_is_not_touched", module_path!());
        let name = name.split_once("::").expect("behind the crate's").1;
        let own = std::env::current_exe().expect("this program");
        let run = std::process::Command::new(own).args(["--exact", "--ignored", name]).output().expect("run");
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&run.stderr));
    }

    /// Where others start programs, those have the sockets of this one until they are other programs.
    mod in_its_own_process {
        use super::*;

        #[tokio::test]
        #[ignore = "has a process of its own, see above"]
        async fn a_port_that_waits_is_not_touched() {
            let port = free();
            let _taken = taken("::1", port);
            let mut both = mappings(port, &[("web", &["0.0.0.0", "::"])]);
            let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let is_over = AtomicBool::new(false);
            std::thread::scope(|threads| {
                let connecting = threads.spawn(|| {
                    while !is_over.load(Relaxed) {
                        let refused = TcpStream::connect(v4).expect_err("nobody listens");
                        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
                    }
                });
                // The first attempt cannot know.
                open(&mut both, false);
                let binding = threads.spawn(|| {
                    while !is_over.load(Relaxed) {
                        // Without SO_REUSEADDR.
                        TcpSocket::new_v4().expect("a socket").bind(v4).expect("free");
                    }
                });
                let is_taken = |(state, _): &(PortState, String)| *state == PortState::Taken;
                let all_taken = (0..1000).all(|_| open(&mut both, false).iter().all(is_taken));
                is_over.store(true, Relaxed);
                assert!(all_taken);
                connecting.join().expect("always refused");
                binding.join().expect("always free");
            });
        }
    }

    #[tokio::test]
    async fn a_number_chosen_for_one_port_is_given_up_for_whom_it_is_the_own_number() {
        let port = free();
        let _taken = taken("127.0.0.1", port);
        let mut mappings = mappings(port, &[("moved", &["0.0.0.0"])]);
        let chosen: SocketAddr = open(&mut mappings, true)[0].1.parse().expect("an address");
        mappings.extend(self::mappings(chosen.port(), &[("owner", &["127.0.0.1"])]));
        let after = open(&mut mappings, true);
        assert_eq!(after[1], (PortState::Open, chosen.to_string()));
        assert!(after[0].0 == PortState::Open && after[0].1 != chosen.to_string(), "{after:?}");
    }
}
