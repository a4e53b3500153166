//! Where on the route to a target one host is.

use super::Destination;

/// Hops that are themselves reached through hops, and so on: ssh_config could go in circles.
const MAX_DEPTH: usize = 8;

/// The position of one host on the route: the target itself by default, otherwise a hop.
#[derive(Debug, Clone, Default)]
pub struct Leg {
    /// How many hosts it is nested in: 0 for the target, 1 for its hops, 2 for the hops of those.
    depth: usize,
    /// The hops of the same list that come before it.
    before: Vec<Destination>,
}

impl Leg {
    /// A hop on the way to the host at this leg, behind the hops `before` it.
    pub fn hop(&self, before: &[Destination]) -> Self {
        Self { depth: self.depth + 1, before: before.to_vec() }
    }

    /// Whether the host is on the way to another one.
    pub fn is_hop(&self) -> bool {
        self.depth > 0
    }

    pub(super) fn before(&self) -> &[Destination] {
        &self.before
    }

    pub(super) fn is_too_deep(&self) -> bool {
        self.depth > MAX_DEPTH
    }
}
