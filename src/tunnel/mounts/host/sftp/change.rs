//! Steps that change the mirror: in waves, of which each may be done in any order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use russh_sftp::protocol::{FileAttributes, OpenFlags};
use tokio::task::{JoinSet, spawn_blocking};

use super::{
    CHUNK, INNER_MARK, OPEN, Session, WINDOW, below, failed, is_lost, node_of, optional, parent, remove_all, with_mode,
};
use crate::os::beneath::seen;
use crate::tunnel::mounts::apply::Here;
use crate::tunnel::mounts::host::Sending;
use crate::tunnel::mounts::host::outgoing::Sent;
use crate::tunnel::mounts::progress::Meter;
use crate::tunnel::mounts::scan;
use crate::tunnel::mounts::step::Step;
use crate::tunnel::mounts::tree::{Grain, Node, RelPath};

/// Reasons of failures that are told.
const TOLD: usize = 5;

/// What all steps need.
struct Work {
    session: Arc<Session>,
    here: Arc<Here>,
    meter: Arc<Meter>,
    /// Where files are put until they are whole.
    stage: String,
    /// The tree, or the new one in the stage.
    tree: String,
    /// Nobody else knows the tree yet.
    is_fill: bool,
    in_place: bool,
}

/// Does the steps.
///
/// # Errors
/// The session's. Then nobody knows what was done.
pub(in super::super) async fn send(
    session: &Arc<Session>,
    root: &str,
    here: Arc<Here>,
    sending: Sending,
    meter: Arc<Meter>,
) -> io::Result<Sent> {
    let mut sent = Sent { done: vec![false; sending.steps.len()], identity: None, said: Vec::new() };
    let root = match session.root.get() {
        Some(root) if sending.fill.is_none() => root.clone(),
        _ => made(session, root).await?,
    };
    let nonce = format!("{:032x}", fastrand::u128(..));
    let stage = format!("{root}/stage.{nonce}");
    let (identity, staged) = tokio::join!(session.identity(&root), session.raw.mkdir(&stage, with_mode(0o700)));
    let identity = identity?;
    staged.map_err(failed)?;
    let is_meant = sending.identity.is_none() || identity == sending.identity;
    if !is_meant {
        session.raw.rmdir(&stage).await.map_err(failed)?;
        sent.said.push("the mirror is another one by now".into());
        return Ok(sent);
    }
    if !session.is_swept.swap(true, Ordering::Relaxed) {
        for (name, _) in session.names(&root, usize::MAX).await? {
            if name.strip_prefix("stage.").is_some_and(|of| of != nonce) {
                remove_all(session.clone(), format!("{root}/{name}")).await?;
            }
        }
    }
    let is_fill = sending.fill.is_some();
    let tree = if is_fill { format!("{stage}/tree") } else { format!("{root}/tree") };
    let in_place = sending.in_place;
    let work = Work { session: session.clone(), here, meter, stage: stage.clone(), tree, is_fill, in_place };
    let done = match sending.fill {
        Some(mode) => fill(Arc::new(work), &root, &nonce, mode, &sending.steps, &mut sent).await,
        None => steps(Arc::new(work), &sending.steps, &mut sent).await,
    };
    // Empty, if nothing went wrong.
    if session.raw.rmdir(&stage).await.is_err() {
        remove_all(session.clone(), stage).await?;
    }
    done?;
    sent.identity = if is_fill { session.identity(&root).await? } else { identity };
    Ok(sent)
}

/// The mirror's directory, made if it is not there, as the server calls it.
async fn made(session: &Session, root: &str) -> io::Result<String> {
    for (at, _) in root.match_indices('/').skip(1).chain([(root.len(), "")]) {
        // Those that are there make this fail.
        if let Err(e) = session.raw.mkdir(&root[..at], with_mode(0o700)).await.map_err(failed)
            && is_lost(&e)
        {
            return Err(e);
        }
    }
    let root = session.real(root).await?;
    match session.attrs(&root).await?.as_ref().and_then(node_of) {
        Some(Node::Dir { .. }) => Ok(root),
        _ => Err(io::Error::other(format!("the host has no directory {}", crate::text::shown(&root)))),
    }
}

async fn fill(work: Arc<Work>, root: &str, nonce: &str, mode: u16, all: &[Step], sent: &mut Sent) -> io::Result<()> {
    let session = work.session.clone();
    session.raw.mkdir(&work.tree, with_mode(0o700)).await.map_err(failed)?;
    let mark = match session.read_short(&format!("{root}/mark")).await? {
        Some(mark) if !mark.is_empty() => mark,
        _ => {
            session.write_short(&format!("{root}/mark"), nonce).await?;
            nonce.to_owned()
        }
    };
    session.write_short(&format!("{}/{INNER_MARK}", work.tree), &mark).await?;
    let mut made = Sent { done: sent.done.clone(), ..Sent::default() };
    let done = steps(work.clone(), all, &mut made).await;
    sent.said.append(&mut made.said);
    done?;
    session.raw.setstat(&work.tree, with_mode(mode)).await.map_err(failed)?;
    match session.rename(&work.tree, &format!("{root}/tree")).await {
        Ok(()) => sent.done = made.done,
        Err(e) if is_lost(&e) => return Err(e),
        Err(e) => sent.said.push(e.to_string()),
    }
    Ok(())
}

/// Which steps may be done together, in which order.
fn waves(steps: &[Step]) -> BTreeMap<(u8, usize), Vec<usize>> {
    let mut waves: BTreeMap<(u8, usize), Vec<usize>> = BTreeMap::new();
    for (number, step) in steps.iter().enumerate() {
        let depth = step.path().names().count();
        let deepest_first = usize::MAX - depth;
        let wave = match step {
            Step::DeleteThere { node: Node::Dir { .. }, .. } => (1, deepest_first),
            Step::DeleteThere { .. } => (0, 0),
            Step::Push { node: Node::Dir { .. }, .. } => (2, depth),
            Step::Push { .. } => (3, 0),
            _ => (4, deepest_first),
        };
        waves.entry(wave).or_default().push(number);
    }
    waves
}

async fn steps(work: Arc<Work>, steps: &[Step], sent: &mut Sent) -> io::Result<()> {
    for wave in waves(steps).into_values() {
        let mut running = JoinSet::new();
        let mut waiting = wave.into_iter();
        loop {
            while running.len() < OPEN
                && let Some(number) = waiting.next()
                && let Some(step) = steps.get(number).cloned()
            {
                let work = work.clone();
                running.spawn(async move {
                    let done = work.step(number, &step).await;
                    work.meter.file();
                    (number, step, done)
                });
            }
            let Some(ended) = running.join_next().await else { break };
            let (number, step, done) = ended?;
            match done {
                Ok(is_done) => sent.done[number] = is_done,
                Err(e) if is_lost(&e) => return Err(e),
                Err(e) if sent.said.len() < TOLD => sent.said.push(format!("{}: {e}", step.path())),
                Err(_) => {}
            }
        }
    }
    Ok(())
}

impl Work {
    /// False if it is not as planned any more, here or there.
    async fn step(&self, number: usize, step: &Step) -> io::Result<bool> {
        let path = step.path();
        let there = below(&self.tree, path)?;
        match step {
            Step::DeleteThere { node, .. } => {
                if !self.is_as_planned(path, Some(node)).await? {
                    return Ok(false);
                }
                let raw = &self.session.raw;
                let removed = if node.is_dir() { raw.rmdir(there).await } else { raw.remove(there).await };
                removed.map(|_| true).map_err(failed)
            }
            Step::Push { node: Node::Dir { mode }, .. } => {
                self.check_parent(path).await?;
                self.session.raw.mkdir(&there, with_mode(*mode)).await.map_err(failed)?;
                self.session.raw.setstat(&there, with_mode(*mode)).await.map(|_| true).map_err(failed)
            }
            Step::Push { node, over, .. } => self.put(number, path, node, over.as_ref(), &there).await,
            Step::ModeThere { node, over, .. } => self.mode(path, node.mode().unwrap_or_default(), over, &there).await,
            _ => Ok(false),
        }
    }

    async fn check_parent(&self, path: &RelPath) -> io::Result<()> {
        if self.is_fill {
            return Ok(());
        }
        self.session.check_dir(&parent(&self.tree, path)?).await
    }

    /// Whether the host has at `path` what was planned; of links and directories only the kind is looked at.
    async fn is_as_planned(&self, path: &RelPath, planned: Option<&Node>) -> io::Result<bool> {
        if self.is_fill {
            return Ok(true);
        }
        let there = below(&self.tree, path)?;
        let (checked, found) = tokio::join!(self.check_parent(path), self.session.attrs(&there));
        checked?;
        let found = found?.map(|attrs| node_of(&attrs).unwrap_or(Node::Other));
        Ok(match (planned, found) {
            (Some(planned @ Node::File { .. }), Some(found)) => found.same_content(planned, Grain::Second),
            (Some(planned), Some(found)) => std::mem::discriminant(planned) == std::mem::discriminant(&found),
            (None, None) => true,
            _ => false,
        })
    }

    async fn put(
        &self,
        number: usize,
        path: &RelPath,
        node: &Node,
        over: Option<&Node>,
        there: &str,
    ) -> io::Result<bool> {
        let session = &self.session;
        if self.in_place && matches!((node, over), (Node::File { .. }, Some(Node::File { .. }))) {
            return Ok(self.is_as_planned(path, over).await? && self.upload(path, node, there, OpenFlags::WRITE).await?);
        }
        let staged = if self.is_fill { there.to_owned() } else { format!("{}/{number}", self.stage) };
        match node {
            Node::Link { target } => {
                let target = std::str::from_utf8(target).map_err(|_| io::Error::other("a link that is not UTF-8"))?;
                // OpenSSH has the two in the other order than the draft, and so have others since.
                session.raw.symlink(target, &staged).await.map_err(failed)?;
                if session.link_target(&staged).await? != target.as_bytes() {
                    return Err(io::Error::other("the server makes other links"));
                }
            }
            _ => {
                let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
                let uploaded = self.upload(path, node, &staged, flags).await;
                if !matches!(uploaded, Ok(true)) {
                    // A new tree must not have the half of it.
                    optional(session.raw.remove(&staged).await.map_err(failed))?;
                    return uploaded;
                }
            }
        }
        if self.is_fill {
            return Ok(true);
        }
        if !self.is_as_planned(path, over).await? {
            session.raw.remove(&staged).await.map_err(failed)?;
            return Ok(false);
        }
        match over {
            Some(_) => session.rename_over(&staged, there).await?,
            None => session.rename(&staged, there).await?,
        }
        Ok(true)
    }

    /// False if it is not `node` here any more.
    async fn upload(&self, path: &RelPath, node: &Node, to: &str, flags: OpenFlags) -> io::Result<bool> {
        let Node::File { size, mtime, mode, .. } = node else { return Ok(false) };
        let (here, at, planned) = (self.here.clone(), path.clone(), node.clone());
        let opened = spawn_blocking(move || {
            let file = here.read(&at)?;
            Ok::<_, io::Error>(is_planned(&file, &planned)?.then_some(file))
        });
        let Some(file) = opened.await?? else { return Ok(false) };
        let raw = &self.session.raw;
        let handle = raw.open(to, flags, with_mode(0o600)).await.map_err(failed)?.handle;
        let written = self.content(file, node, &handle).await;
        let time = u32::try_from(mtime.div_euclid(1_000_000_000)).unwrap_or_default();
        let attrs = FileAttributes {
            size: (!flags.contains(OpenFlags::CREATE)).then_some(*size),
            permissions: Some((*mode).into()),
            atime: Some(time),
            mtime: Some(time),
            ..FileAttributes::default()
        };
        // Half of it must not look like the whole.
        if !matches!(written, Ok(true)) {
            self.session.close(handle).await;
            return written;
        }
        let (set, ()) = tokio::join!(raw.fsetstat(handle.as_str(), attrs), self.session.close(handle.clone()));
        set.map(|_| true).map_err(failed)
    }

    async fn content(&self, mut file: File, node: &Node, handle: &str) -> io::Result<bool> {
        let Node::File { size, .. } = node else { return Ok(false) };
        let (mut offset, planned) = (0, node.clone());
        let mut writing = JoinSet::new();
        while offset < *size {
            let (again, bytes) = spawn_blocking(move || {
                let mut bytes = vec![0; CHUNK];
                let read = read_full(&mut file, &mut bytes)?;
                bytes.truncate(read);
                Ok::<_, io::Error>((file, bytes))
            })
            .await??;
            file = again;
            let length = u64::try_from(bytes.len()).map_err(io::Error::other)?.min(size - offset);
            if length == 0 {
                return Ok(false);
            }
            self.meter.bytes(bytes.len());
            if writing.len() >= WINDOW {
                writing.join_next().await.transpose()?.transpose()?;
            }
            let (session, handle, at) = (self.session.clone(), handle.to_owned(), offset);
            writing.spawn(async move { session.raw.write(handle, at, bytes).await.map_err(failed) });
            offset += length;
        }
        while let Some(written) = writing.join_next().await {
            written??;
        }
        spawn_blocking(move || is_planned(&file, &planned)).await?
    }

    async fn mode(&self, path: &RelPath, mode: u16, over: &Node, there: &str) -> io::Result<bool> {
        let (session, attrs) = (&self.session, with_mode(mode));
        if over.is_dir() {
            if !self.is_fill {
                session.check_dir(there).await?;
            }
            return session.raw.setstat(there, attrs).await.map(|_| true).map_err(failed);
        }
        if !self.is_as_planned(path, Some(over)).await? {
            return Ok(false);
        }
        match session.raw.open(there, OpenFlags::READ, FileAttributes::empty()).await {
            Ok(opened) => {
                let handle = opened.handle;
                let (set, ()) =
                    tokio::join!(session.raw.fsetstat(handle.as_str(), attrs), session.close(handle.clone()));
                set.map(|_| true).map_err(failed)
            }
            // The login may not read it.
            Err(_) => session.raw.setstat(there, attrs).await.map(|_| true).map_err(failed),
        }
    }
}

fn is_planned(file: &File, planned: &Node) -> io::Result<bool> {
    let found = scan::node_of(&seen(&file.metadata()?));
    Ok(found.same(planned, Grain::Nanosecond) && !found.may_be_touched(planned))
}

/// Fills the buffer as far as the file goes.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
