//! The user's consent to ports (`ports = "ask"`).

use std::collections::{BTreeSet, HashSet};

use super::mapping::Mapping;

/// Ports to agree to.
#[derive(Debug, Clone, Copy)]
pub enum Agreed<'a> {
    /// Every port that waits.
    All,
    /// These, of whichever container publishes them, now or next.
    Numbers(&'a [u16]),
    /// These, each of the container with this id.
    Of(&'a [(u16, String)]),
}

/// The ports that the user has agreed to. Consent is for a port of a container: another container with the same port
/// needs its own.
#[derive(Debug, Default)]
pub(super) struct Consent {
    /// Ports, each with the id of a container and with its name: a container that is renamed, or made anew, keeps it.
    given: HashSet<(u16, String)>,
    /// Ports that no container publishes yet. Those that do so first get the consent.
    early: BTreeSet<u16>,
}

impl Consent {
    pub(super) fn give(&mut self, agreed: Agreed<'_>, mappings: &[Mapping]) {
        match agreed {
            Agreed::All => self.give_to(mappings, |mapping, _| mapping.is_waiting()),
            Agreed::Numbers(ports) => {
                self.early.extend(ports);
                self.find_early(mappings);
            }
            Agreed::Of(ports) => self.give_to(mappings, |_, (id, port)| {
                ports.iter().any(|(agreed, of)| (*agreed, of.as_str()) == (port, id))
            }),
        }
    }

    /// Gives early consent to the containers that publish its ports now.
    pub(super) fn find_early(&mut self, mappings: &[Mapping]) {
        let early = std::mem::take(&mut self.early);
        self.give_to(mappings, |_, (_, port)| early.contains(&port));
        let published: BTreeSet<u16> = mappings.iter().filter_map(|mapping| Some(mapping.can_open()?.1)).collect();
        self.early = early.difference(&published).copied().collect();
    }

    /// Nothing waits for consent: there is none for ports to come.
    pub(super) fn forget_early(&mut self) {
        self.early.clear();
    }

    fn give_to(&mut self, mappings: &[Mapping], is_agreed: impl Fn(&Mapping, (&str, u16)) -> bool) {
        for mapping in mappings {
            if let Some((id, port)) = mapping.can_open().filter(|of| is_agreed(mapping, *of)) {
                self.given.extend([(port, id.to_owned()), (port, mapping.container().to_owned())]);
            }
        }
    }

    pub(super) fn covers(&self, mapping: &Mapping) -> bool {
        mapping.can_open().is_some_and(|(id, port)| {
            [id, mapping.container()].iter().any(|who| self.given.contains(&(port, (*who).to_owned())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::mapping::Wanted;
    use super::*;
    use crate::engine::{Container, Published};

    fn port(id: &str, name: &str, port: u16, protocol: &str) -> Mapping {
        let container = Container { id: id.into(), name: name.into(), host_network: false, published: vec![] };
        let address = "0.0.0.0".parse().expect("an address");
        let published = Published { address, port, container_port: 80, protocol: protocol.into() };
        let mut mapping = Mapping::new(Wanted::new(&container, &published, None, None));
        mapping.waits();
        mapping
    }

    #[test]
    fn consent_is_for_the_container_that_it_was_given_to() {
        let web = [port("1", "web", 80, "tcp")];
        let others = [port("2", "other", 80, "tcp"), port("1", "web", 81, "tcp")];
        for agreed in [Agreed::All, Agreed::Numbers(&[80]), Agreed::Of(&[(80, "1".into())])] {
            let mut consent = Consent::default();
            consent.give(agreed, &web);
            assert!(consent.covers(&web[0]), "{agreed:?}");
            assert!(others.iter().all(|other| !consent.covers(other)), "{agreed:?}");
            consent.find_early(&others);
            assert!(others.iter().all(|other| !consent.covers(other)), "{agreed:?}");
            // Made anew, and renamed.
            assert!(consent.covers(&port("3", "web", 80, "tcp")) && consent.covers(&port("1", "renamed", 80, "tcp")));
        }
        let mut consent = Consent::default();
        let both = [port("1", "web", 80, "tcp"), port("2", "other", 80, "tcp")];
        consent.give(Agreed::Of(&[(80, "2".into()), (81, "1".into())]), &both);
        assert_eq!(both.each_ref().map(|mapping| consent.covers(mapping)), [false, true]);
    }

    #[test]
    fn early_consent_goes_to_the_first_container_only() {
        let mut consent = Consent::default();
        consent.give(Agreed::Numbers(&[80]), &[port("1", "dns", 80, "udp"), port("2", "web", 81, "tcp")]);
        let first = [port("3", "first", 80, "tcp")];
        consent.find_early(&first);
        let second = [port("4", "second", 80, "tcp")];
        consent.find_early(&second);
        assert!(consent.covers(&first[0]) && !consent.covers(&second[0]));
        consent.give(Agreed::Numbers(&[90]), &[]);
        consent.forget_early();
        let third = [port("5", "third", 90, "tcp")];
        consent.find_early(&third);
        assert!(!consent.covers(&third[0]));
    }
}
