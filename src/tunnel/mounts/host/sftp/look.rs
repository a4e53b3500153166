//! What is in the mirror.

use std::io;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::{OPEN, Session, below, is_lost, node_of, optional};
use crate::tunnel::mounts::host::listing::Listing;
use crate::tunnel::mounts::scan::Bounds;
use crate::tunnel::mounts::tree::{Grain, Node, Reading, RelPath, is_own_name};

/// A directory's entries, each with its name.
type Entries = Vec<(String, io::Result<Node>)>;

/// Reads all that is in the mirror.
///
/// # Errors
/// The session's; it has more than `bounds`.
pub(in super::super) async fn scan(session: &Arc<Session>, root: &str, bounds: Bounds) -> io::Result<Listing> {
    let nothing = Listing {
        identity: None,
        reading: Reading::default(),
        grain: Grain::Second,
        touched: Grain::Second,
        digest: String::new(),
        failed: Vec::new(),
    };
    let root = match session.root.get() {
        Some(root) => root.clone(),
        None => {
            let Some(root) = optional(session.real(root).await)? else { return Ok(nothing) };
            root
        }
    };
    let Some(identity) = session.identity(&root).await? else { return Ok(nothing) };
    let root = session.root.get_or_init(|| root);
    let mut walk = Walk { listing: Listing { identity: Some(identity), ..nothing }, bounds, bytes: 0 };
    let tree = format!("{root}/tree");
    let most = usize::try_from(bounds.entries).unwrap_or(usize::MAX);
    let mut waiting: Vec<Option<RelPath>> = vec![None];
    let mut reading = JoinSet::new();
    loop {
        while reading.len() < OPEN / 4
            && let Some(dir) = waiting.pop()
        {
            let path = dir.as_ref().map_or_else(|| Ok(tree.clone()), |dir| below(&tree, dir))?;
            let session = session.clone();
            reading.spawn(async move { (dir, read_dir(&session, &path, most).await) });
        }
        let Some(read) = reading.join_next().await else { break };
        match read? {
            (dir, Ok(entries)) => walk.add(dir.as_ref(), entries, &mut waiting)?,
            (_, Err(e)) if is_lost(&e) => return Err(e),
            (None, Err(e)) => return Err(e),
            (Some(dir), Err(e)) => {
                walk.listing.failed.push((dir.to_string(), e.to_string()));
                walk.listing.reading.unknown.insert(dir);
            }
        }
    }
    let mut listing = walk.listing;
    listing.failed.sort();
    let mut digest = Sha256::new();
    digest.update(format!("{:?} {:?}", listing.identity, listing.failed));
    for (path, node) in &listing.reading.tree {
        digest.update(format!("{:?} {node:?}", path.as_bytes()));
    }
    listing.digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(listing)
}

async fn read_dir(session: &Session, path: &str, most: usize) -> io::Result<Entries> {
    session.check_dir(path).await?;
    let mut entries = Vec::new();
    for (name, attrs) in session.names(path, most).await? {
        let node = match node_of(&attrs) {
            Some(Node::Link { .. }) => {
                let target = session.link_target(&format!("{path}/{name}")).await;
                target.map(|target| Node::Link { target: target.into() })
            }
            Some(node) => Ok(node),
            None => Err(io::Error::other("the server does not tell what it is")),
        };
        match node {
            Err(e) if is_lost(&e) => return Err(e),
            node => entries.push((name, node)),
        }
    }
    Ok(entries)
}

struct Walk {
    listing: Listing,
    bounds: Bounds,
    bytes: u64,
}

impl Walk {
    fn add(&mut self, dir: Option<&RelPath>, entries: Entries, waiting: &mut Vec<Option<RelPath>>) -> io::Result<()> {
        for (name, node) in entries {
            let bytes = name.as_bytes();
            let path = dir.map_or_else(|| RelPath::new(bytes), |dir| dir.join(bytes));
            let Some(path) = path.filter(|_| !name.contains(['/', '\u{fffd}'])) else {
                self.listing.reading.is_partial = true;
                self.listing.failed.push((crate::text::shown(&name), "the name is too long or not UTF-8".into()));
                continue;
            };
            let node = match node {
                Ok(node) if !is_own_name(bytes) => node,
                Ok(_) => {
                    self.listing.reading.unknown.insert(path);
                    continue;
                }
                Err(e) => {
                    self.listing.failed.push((path.to_string(), e.to_string()));
                    self.listing.reading.unknown.insert(path);
                    continue;
                }
            };
            if let Node::File { size, .. } = node {
                self.bytes = self.bytes.saturating_add(size);
            }
            if node.is_dir() {
                waiting.push(Some(path.clone()));
            }
            self.listing.reading.tree.insert(path, node);
            let entries = u64::try_from(self.listing.reading.tree.len()).unwrap_or(u64::MAX);
            if self.bytes > self.bounds.bytes || entries > self.bounds.entries {
                return Err(io::Error::other("the mirror on the host has more than may be mounted"));
            }
        }
        Ok(())
    }
}
