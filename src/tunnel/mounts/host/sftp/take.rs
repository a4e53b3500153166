//! Files from the mirror.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use russh_sftp::protocol::{FileAttributes, OpenFlags};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::io::SyncIoBridge;
use tokio_util::task::AbortOnDropHandle;

use super::{CHUNK, Session, WINDOW, below, failed, is_lost, node_of, optional, parent};
use crate::tunnel::mounts::apply::Here;
use crate::tunnel::mounts::host::incoming::{APART, Arrived, over};
use crate::tunnel::mounts::progress::{Meter, Metered};
use crate::tunnel::mounts::scan::Bounds;
use crate::tunnel::mounts::step::Step;
use crate::tunnel::mounts::tree::Node;

/// Files that come at once: each has a thread that writes it.
const FILES: usize = 32;

/// What all files need.
struct Taking {
    session: Arc<Session>,
    here: Arc<Here>,
    meter: Arc<Meter>,
    tree: String,
    time: String,
    is_synced: bool,
    /// Bytes that may still come.
    room: AtomicU64,
}

/// Fetches the files and links of the steps. The result has an entry for each.
///
/// # Errors
/// The session's, before anything arrived.
pub(in super::super) async fn fetch(
    session: &Arc<Session>,
    root: &str,
    here: Arc<Here>,
    steps: Vec<Step>,
    bounds: Bounds,
    time: String,
    meter: Arc<Meter>,
) -> io::Result<Vec<Arrived>> {
    let root = session.real(root).await?;
    let is_synced = steps.len() <= APART;
    let taking = Arc::new(Taking {
        session: session.clone(),
        here: here.clone(),
        meter,
        tree: format!("{root}/tree"),
        time,
        is_synced,
        room: AtomicU64::new(bounds.bytes),
    });
    let mut arrived: Vec<Arrived> = Vec::new();
    arrived.resize_with(steps.len(), || Arrived::Missing);
    let mut running = JoinSet::new();
    let mut waiting = steps.into_iter().enumerate();
    let mut lost = None;
    loop {
        while lost.is_none()
            && running.len() < FILES
            && let Some((at, step)) = waiting.next()
        {
            let taking = taking.clone();
            running.spawn(async move { (at, taking.take(step).await) });
        }
        let Some(ended) = running.join_next().await else { break };
        let (at, result) = ended?;
        arrived[at] = match result {
            Ok(one) => one,
            Err(e) => {
                let reason = Arrived::Failed(e.to_string());
                if is_lost(&e) {
                    lost = Some(e);
                }
                reason
            }
        };
    }
    if !is_synced && let Err(e) = spawn_blocking(move || here.sync()).await? {
        arrived.iter_mut().for_each(|one| *one = Arrived::Failed(e.to_string()));
    }
    match lost {
        Some(e) if arrived.iter().all(|one| matches!(one, Arrived::Failed(_) | Arrived::Missing)) => Err(e),
        lost => {
            let reason = lost.map_or_else(|| "it is not there any more".into(), |e| e.to_string());
            for one in arrived.iter_mut().filter(|one| matches!(one, Arrived::Missing)) {
                *one = Arrived::Failed(reason.clone());
            }
            Ok(arrived)
        }
    }
}

impl Taking {
    async fn take(&self, step: Step) -> io::Result<Arrived> {
        let path = step.path();
        let (dir, there) = (parent(&self.tree, path)?, below(&self.tree, path)?);
        let (checked, found) = tokio::join!(self.session.check_dir(&dir), self.session.attrs(&there));
        checked?;
        self.meter.file();
        match found?.as_ref().and_then(node_of) {
            None => Ok(Arrived::Missing),
            Some(Node::Link { .. }) => {
                let target = self.session.link_target(&there).await?;
                self.link(step, target).await
            }
            Some(Node::File { .. }) => self.file(step, &there).await,
            Some(_) => Err(io::Error::other("the host has neither a file nor a link there")),
        }
    }

    async fn link(&self, step: Step, target: Vec<u8>) -> io::Result<Arrived> {
        let (here, time) = (self.here.clone(), self.time.clone());
        spawn_blocking(move || {
            let done = match &step {
                Step::KeepBoth { copy, .. } => here.keep_link(&target, copy)?,
                _ => here.put_link(step.path(), &target, over(&step), &time)?,
            };
            Ok(Arrived::Put { node: Node::Link { target: target.into() }, done })
        })
        .await?
    }

    async fn file(&self, step: Step, there: &str) -> io::Result<Arrived> {
        let raw = &self.session.raw;
        let opened = raw.open(there, OpenFlags::READ, FileAttributes::empty()).await.map_err(failed);
        let Some(handle) = optional(opened)?.map(|opened| opened.handle) else { return Ok(Arrived::Missing) };
        let taken = self.open_file(step, &handle).await;
        self.session.close(handle).await;
        taken
    }

    async fn open_file(&self, step: Step, handle: &str) -> io::Result<Arrived> {
        let attrs = self.session.raw.fstat(handle).await.map_err(failed)?.attrs;
        let node = match node_of(&attrs) {
            Some(node @ Node::File { .. }) => node,
            _ => return Err(io::Error::other("it is no regular file any more")),
        };
        let Node::File { size, .. } = node else { return Ok(Arrived::Missing) };
        let take = |room: u64| room.checked_sub(size);
        if self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Err(io::Error::other("the mirror on the host has more than may be mounted"));
        }
        let (ours, theirs) = tokio::io::duplex(super::super::PIPE);
        let (here, time, meter, is_synced) = (self.here.clone(), self.time.clone(), self.meter.clone(), self.is_synced);
        let planned = node.clone();
        let putting = spawn_blocking(move || {
            let mut content = Metered(SyncIoBridge::new(ours), &meter);
            match &step {
                Step::KeepBoth { path, copy, .. } => here.keep_file(path, &planned, copy, &mut content),
                _ => here.put_file(step.path(), &planned, over(&step), &mut content, &time, is_synced),
            }
        });
        let (read, put) = tokio::join!(self.content(handle, &node, theirs), putting);
        match (read, put?) {
            // A full disk here ends the pipe, too.
            (Err(e), _) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
            (_, done) => Ok(Arrived::Put { node, done: done? }),
        }
    }

    /// The content, whose last part comes only if the file was not changed meanwhile.
    async fn content(&self, handle: &str, node: &Node, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let Node::File { size, .. } = node else { return Ok(()) };
        let chunk = u64::try_from(CHUNK).map_err(io::Error::other)?;
        let (mut asked, mut reading) = (0, VecDeque::new());
        let mut last = None;
        loop {
            while asked < *size && reading.len() < WINDOW {
                let length = chunk.min(size - asked);
                let (session, handle, at) = (self.session.clone(), handle.to_owned(), asked);
                let read = async move { read_part(&session, &handle, at, length).await };
                reading.push_back(AbortOnDropHandle::new(tokio::spawn(read)));
                asked += length;
            }
            let Some(read) = reading.pop_front() else { break };
            let bytes = read.await??;
            if let Some(before) = last.replace(bytes) {
                to.write_all(&before).await?;
            }
        }
        let now = self.session.raw.fstat(handle).await.map_err(failed)?.attrs;
        if node_of(&now).as_ref() != Some(node) {
            return Err(io::Error::other("it has changed on the host meanwhile"));
        }
        if let Some(bytes) = last {
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    }
}

/// A server may send less than was asked for.
async fn read_part(session: &Session, handle: &str, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let have = u64::try_from(bytes.len()).map_err(io::Error::other)?;
        let Some(rest) = length.checked_sub(have).filter(|rest| *rest > 0) else { break };
        let rest = u32::try_from(rest).map_err(io::Error::other)?;
        let more = session.raw.read(handle, at + have, rest).await.map_err(failed)?.data;
        if more.is_empty() || u32::try_from(more.len()).is_ok_and(|more| more > rest) {
            return Err(io::Error::other("a strange answer"));
        }
        bytes.extend(more);
    }
    Ok(bytes)
}
