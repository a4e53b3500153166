//! The mirrors that a tunnel has made, on the disk: so that they are found again, and can be removed.
//!
//! In the tunnel's directory are `ID.mirror`, the record, and `ID.journal`, what was in step (`journal`).

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::host::Mirror;
use super::login::Login;
use super::scan::Source;
use super::tree::RelPath;
use crate::config::Mounts;
use crate::engine::Mounting;
use crate::os::beneath::{bytes_of, name_of};
use crate::os::private::{create_dirs, private};
use crate::os::user;

/// The ending of a record's name.
const RECORD: &str = "mirror";
const JOURNAL: &str = "journal";
/// The ending of the name of an empty file: it is in use.
const USED: &str = "used";
/// Longest record that is read, in bytes.
const MAX_RECORD: u64 = 64 << 10;
/// Bytes of the hash in an id.
const HASH: usize = 8;
/// Most characters of the directory's name in an id.
const NAME: usize = 24;

/// A mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) id: String,
    pub(super) source: Source,
    /// Its directory on the host.
    pub(super) root: String,
    /// Is it reached by SFTP, and not by commands?
    pub(super) by_sftp: bool,
    /// Files, directories and links in it when it was last used, and their bytes.
    pub(super) files: usize,
    pub(super) bytes: u64,
}

impl Known {
    /// Its mirror.
    pub(super) fn mirror(&self, login: Login) -> Mirror<Login> {
        match self.by_sftp {
            true => Mirror::over_sftp(login, self.root.clone()),
            false => Mirror::new(login, self.root.clone()),
        }
    }

    /// Where containers have it on the host.
    pub(super) fn path_on_host(&self) -> String {
        let name = self
            .source
            .only
            .as_ref()
            .map(|name| format!("/{}", String::from_utf8_lossy(name.as_bytes())))
            .unwrap_or_default();
        format!("{}/tree{name}", self.root)
    }

    /// Whether a container mounts it.
    pub(super) fn is_mounted_by(&self, container: &Mounting) -> bool {
        container.binds.iter().any(|bind| self.is_at(&bind.source))
    }

    /// Whether a container's bind is of it.
    pub(super) fn is_at(&self, source: &str) -> bool {
        source.strip_prefix(&self.root).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// As it stands in a file. Paths are bytes.
#[derive(Serialize, Deserialize)]
struct Record {
    dir: Vec<u8>,
    only: Option<Vec<u8>>,
    root: String,
    #[serde(default)]
    by_sftp: bool,
    #[serde(default)]
    files: usize,
    #[serde(default)]
    bytes: u64,
}

/// The records of a tunnel.
#[derive(Debug, Clone)]
pub(super) struct Records {
    dir: PathBuf,
}

impl Records {
    /// Of the tunnel with these settings.
    pub(super) fn of(settings: &Mounts) -> Self {
        Self { dir: settings.records.clone() }
    }

    /// All mirrors. Records that cannot be read are left out.
    pub(super) fn all(&self) -> Vec<Known> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| read(&entry.path())).collect()
    }

    /// The id of a source's mirror: its name for people, and what tells it from those of other machines, users and tunnels
    /// on the same login.
    ///
    /// # Errors
    /// From the system.
    pub(super) fn id(&self, source: &Source) -> io::Result<String> {
        let path = source.path();
        let mut hash = Sha256::new();
        let host = user::host_name().into_bytes();
        for part in [self.machine()?, host, bytes_of(self.dir.as_os_str())?, bytes_of(path.as_os_str())?] {
            hash.update(u64::try_from(part.len()).unwrap_or_default().to_be_bytes());
            hash.update(part);
        }
        let hash: String = hash.finalize()[..HASH].iter().map(|byte| format!("{byte:02x}")).collect();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name: String =
            name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(NAME).collect();
        Ok(format!("{}-{hash}", name.trim_start_matches(['.', '-'])))
    }

    /// What tells this machine and user from others of the same name: made once.
    fn machine(&self) -> io::Result<Vec<u8>> {
        let dir = self.dir.parent().unwrap_or(&self.dir);
        create_dirs(dir)?;
        let path = dir.join("machine");
        let new = format!("{:032x}\n", fastrand::u128(..));
        match private(OpenOptions::new().write(true).create_new(true)).open(&path) {
            Ok(mut file) => file.write_all(new.as_bytes())?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        fs::read(path)
    }

    /// Writes a record, before the mirror is made.
    ///
    /// # Errors
    /// From the system.
    pub(super) fn add(&self, known: &Known) -> io::Result<()> {
        create_dirs(&self.dir)?;
        let record = Record {
            dir: bytes_of(known.source.dir.as_os_str())?,
            only: known.source.only.as_ref().map(|name| name.as_bytes().to_vec()),
            root: known.root.clone(),
            by_sftp: known.by_sftp,
            files: known.files,
            bytes: known.bytes,
        };
        let temporary = self.dir.join(format!("{}.{:x}", known.id, fastrand::u64(..)));
        let mut file = private(OpenOptions::new().write(true).create_new(true)).open(&temporary)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
        file.sync_all()?;
        fs::rename(&temporary, self.path(&known.id, RECORD))
    }

    /// Whether there is a record of it.
    pub(super) fn has(&self, known: &Known) -> bool {
        self.path(&known.id, RECORD).exists()
    }

    /// Forgets a mirror that is not there any more.
    ///
    /// # Errors
    /// From the system.
    pub(super) fn remove(&self, known: &Known) -> io::Result<()> {
        for ending in [JOURNAL, USED, "lock"] {
            match fs::remove_file(self.path(&known.id, ending)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        // The last one, by which all are found.
        fs::remove_file(self.path(&known.id, RECORD))
    }

    /// A container may write to it, and what that writes may not be here yet.
    ///
    /// # Errors
    /// From the system.
    pub(super) fn begins(&self, known: &Known) -> io::Result<()> {
        private(OpenOptions::new().write(true).create(true).truncate(true)).open(self.path(&known.id, USED)).map(drop)
    }

    /// Nothing uses it, and all of it is here.
    pub(super) fn ends(&self, known: &Known) {
        let _ = self.add(known);
        let _ = fs::remove_file(self.path(&known.id, USED));
    }

    /// Has it been used, and nobody knows whether all of it is here?
    pub(super) fn is_begun(&self, known: &Known) -> bool {
        self.path(&known.id, USED).exists()
    }

    /// The journal of a mirror.
    pub(super) fn journal(&self, id: &str) -> PathBuf {
        self.path(id, JOURNAL)
    }

    fn path(&self, id: &str, ending: &str) -> PathBuf {
        self.dir.join(format!("{id}.{ending}"))
    }
}

fn read(path: &Path) -> Option<Known> {
    let id = path.file_name()?.to_str()?.strip_suffix(RECORD)?.strip_suffix('.')?.to_owned();
    let mut content = Vec::new();
    fs::File::open(path).ok()?.take(MAX_RECORD).read_to_end(&mut content).ok()?;
    let Record { dir, only, root, by_sftp, files, bytes } = serde_json::from_slice(&content).ok()?;
    let only = match only {
        Some(name) => Some(RelPath::new(&name)?),
        None => None,
    };
    let source = Source { dir: name_of(&dir).ok()?.into(), only };
    Some(Known { id, source, root, by_sftp, files, bytes })
}
