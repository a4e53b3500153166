//! What a round consists of. Pure.

use super::tree::{Node, RelPath};

/// A step. The nodes are those that the readings had, which whoever carries it out holds the files against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Both sides have this, or neither has anything: only the base changes.
    Agree { path: RelPath, node: Option<Node> },
    /// The host's version is fetched and put at `copy`, which is a name beside ours. Then the host's is the base.
    KeepBoth { path: RelPath, node: Node, copy: RelPath },
    /// Removes it on the host; a directory only if it is empty.
    DeleteThere { path: RelPath, node: Node },
    /// Creates it on the host, or replaces `over`, which is no directory.
    Push { path: RelPath, node: Node, over: Option<Node> },
    /// Changes its mode on the host, of `over`. `node` has the new one.
    ModeThere { path: RelPath, node: Node, over: Node },
    /// Removes it here; a directory only if it is empty.
    DeleteHere { path: RelPath, node: Node },
    /// Creates it here, or replaces `over`, which is no directory.
    Fetch { path: RelPath, node: Node, over: Option<Node> },
    /// Changes its mode here, of `over`. `node` has the new one.
    ModeHere { path: RelPath, node: Node, over: Node },
}

impl Step {
    /// The path that the step is about.
    pub(super) fn path(&self) -> &RelPath {
        match self {
            Self::Agree { path, .. }
            | Self::KeepBoth { path, .. }
            | Self::DeleteThere { path, .. }
            | Self::Push { path, .. }
            | Self::ModeThere { path, .. }
            | Self::DeleteHere { path, .. }
            | Self::Fetch { path, .. }
            | Self::ModeHere { path, .. } => path,
        }
    }

    /// What both sides have at the path once the step is done; what the host has, if both are kept.
    pub(super) fn result(&self) -> Option<&Node> {
        match self {
            Self::Agree { node, .. } => node.as_ref(),
            Self::KeepBoth { node, .. }
            | Self::Push { node, .. }
            | Self::ModeThere { node, .. }
            | Self::Fetch { node, .. }
            | Self::ModeHere { node, .. } => Some(node),
            Self::DeleteThere { .. } | Self::DeleteHere { .. } => None,
        }
    }
}
