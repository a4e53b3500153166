//! A temporary file of one flow: blocks of bytes, read in the order in which they were written.
//!
//! The file has no name (O_TMPFILE, or unlinked at once), so that nothing remains however the process ends, and
//! only this user can read it. Disks can be slow and full: each access is a separate blocking task, one at a time,
//! never on the connection's thread.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::config::spill_dirs;
use crate::os::places::check_on_disk;
use crate::os::{files, private};

/// Bytes per block. Accessed as a whole: a fraction of a millisecond in the page cache.
pub(in crate::tunnel) const BLOCK: usize = 1 << 20;
/// Time limit of an access. A slower disk is not used.
const SLOWEST: Duration = Duration::from_secs(5);

/// The result of an access, with its block.
#[derive(Debug)]
enum Done {
    /// The block was written at this position; its memory can be reused.
    Stored(Arc<File>, u64, Vec<u8>),
    /// The block could not be written, and is returned.
    Failed(io::Error, Vec<u8>),
    /// The oldest block was read.
    Loaded(io::Result<Vec<u8>>),
}

/// The result of an access, for the buffer.
pub(in crate::tunnel) enum Outcome {
    /// This memory can be reused.
    Stored(Vec<u8>),
    /// The block could not be stored.
    Failed(io::Error, Vec<u8>),
    /// The oldest block was read.
    Loaded(Vec<u8>),
}

/// A file without a name. Freed blocks are reused, the lowest first; an empty file is closed.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct Spill {
    file: Option<Arc<File>>,
    /// Positions of the stored blocks, in units of a block, the oldest first.
    stored: VecDeque<u64>,
    free: BTreeSet<u64>,
    /// The file's length, in blocks.
    size: u64,
    access: Option<JoinHandle<Done>>,
    storing: bool,
}

impl Spill {
    /// Number of bytes in the file or being written to it.
    pub(in crate::tunnel) fn bytes(&self) -> u64 {
        (self.stored.len() + usize::from(self.storing)) as u64 * BLOCK as u64
    }

    pub(in crate::tunnel) fn is_busy(&self) -> bool {
        self.access.is_some()
    }

    pub(in crate::tunnel) fn has_stored(&self) -> bool {
        !self.stored.is_empty()
    }

    /// Begins to store a block. Must not be called while busy.
    pub(in crate::tunnel) fn store(&mut self, block: Vec<u8>) {
        let place = self.free.pop_first().unwrap_or_else(|| {
            self.size += 1;
            self.size - 1
        });
        self.storing = true;
        let file = self.file.clone();
        self.access = Some(tokio::task::spawn_blocking(move || {
            let written = file.map_or_else(open, Ok).and_then(|file| {
                files::write_all_at(&file, &block, place * BLOCK as u64)?;
                Ok(file)
            });
            match written {
                Ok(file) => Done::Stored(file, place, block),
                Err(error) => Done::Failed(error, block),
            }
        }));
    }

    /// Begins to load the oldest block, if there is one. Must not be called while busy.
    pub(in crate::tunnel) fn load(&mut self) {
        let (Some(file), Some(place)) = (self.file.clone(), self.stored.front().copied()) else { return };
        self.access = Some(tokio::task::spawn_blocking(move || {
            let mut block = vec![0; BLOCK];
            Done::Loaded(files::read_exact_at(&file, &mut block, place * BLOCK as u64).map(|()| block))
        }));
    }

    /// Waits for the end of the current access; never returns if there is none. Cancel safe.
    ///
    /// # Errors
    /// A block cannot be read back, or the disk is too slow.
    pub(in crate::tunnel) async fn accessed(&mut self) -> io::Result<Outcome> {
        let Some(access) = &mut self.access else { return std::future::pending().await };
        // A cancelled wait restarts its time limit, but only progress of the flow cancels it.
        let done = tokio::time::timeout(SLOWEST, access).await;
        self.access = None;
        let done = done.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(io::Error::other)?;
        Ok(match done {
            Done::Stored(file, place, block) => {
                self.file = Some(file);
                self.storing = false;
                self.stored.push_back(place);
                Outcome::Stored(block)
            }
            Done::Failed(error, block) => {
                self.storing = false;
                Outcome::Failed(error, block)
            }
            Done::Loaded(block) => {
                let block = block?;
                self.free.extend(self.stored.pop_front());
                if self.stored.is_empty() {
                    self.give_back();
                }
                Outcome::Loaded(block)
            }
        })
    }

    /// Closes the file on a blocking thread: freeing a large file takes a while.
    fn give_back(&mut self) {
        (self.size, self.free) = (0, BTreeSet::new());
        if let (Some(file), Ok(runtime)) = (self.file.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn_blocking(move || drop(file));
        }
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Creates a file in the first suitable directory.
fn open() -> io::Result<Arc<File>> {
    let mut error = io::Error::new(io::ErrorKind::NotFound, "there is no directory on disk for it");
    for dir in spill_dirs() {
        match private::create_dirs(&dir).and_then(|()| check_on_disk(&dir)) {
            Ok(()) => match private::temporary_file(&dir) {
                Ok(file) => return Ok(Arc::new(file)),
                Err(e) => error = io::Error::new(e.kind(), format!("{}: {e}", dir.display())),
            },
            Err(e) => error = io::Error::new(e.kind(), format!("{}: {e}", dir.display())),
        }
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(byte: u8) -> Vec<u8> {
        vec![byte; BLOCK]
    }

    async fn stored(spill: &mut Spill, byte: u8) {
        spill.store(block(byte));
        assert!(matches!(spill.accessed().await.expect("stored"), Outcome::Stored(_)));
    }

    async fn loaded(spill: &mut Spill) -> u8 {
        spill.load();
        match spill.accessed().await.expect("loaded") {
            Outcome::Loaded(data) => {
                assert_eq!(data, block(data[0]));
                data[0]
            }
            _ => panic!("something else"),
        }
    }

    #[tokio::test]
    async fn blocks_come_back_in_order_and_their_space_is_used_again() {
        let mut spill = Spill::default();
        for byte in 0..4 {
            stored(&mut spill, byte).await;
        }
        assert_eq!(spill.bytes(), 4 << 20);
        for byte in 4..50 {
            assert_eq!(loaded(&mut spill).await, byte - 4);
            stored(&mut spill, byte).await;
        }
        let file = spill.file.clone().expect("a file");
        assert!(file.metadata().expect("meta").len() <= 5 << 20, "its space is used again");
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&file.metadata().expect("meta")), 0, "it has no name");
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&file.metadata().expect("meta")) & 0o077, 0);
        drop(file);
        for byte in 46..50 {
            assert_eq!(loaded(&mut spill).await, byte);
        }
        assert!(spill.file.is_none() && spill.bytes() == 0, "an empty one takes no space");
        stored(&mut spill, 7).await;
        assert_eq!(loaded(&mut spill).await, 7);
    }
}
