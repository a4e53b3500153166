//! Local directories in remote containers: a mirror on the host of a directory here, kept in step both ways.
//!
//! The API layer asks [`Mounts`] (`service`) for the host's path in place of a bind's source (`verdict`); for each such
//! source there is one mirror (`entry`, `known`), reached by commands of the login (`login`).
//!
//! A round (`round`) reads both sides (`scan`, `host`), decides from them and from what was in step at last (`journal`)
//! what is to be done (`reconcile`, pure), and does it here (`apply`) and there (`host`). Commands run on the host through
//! [`host::Run`], or SFTP where the login may run none; nothing here knows of connections or of the Engine. A watcher
//! (`watcher`) tells of changes here, which are pushed by themselves (`round::quick`).
//!
//! No file here is ever lost, whatever the host does and wherever a round is cut: docs of `reconcile` and `apply`.

mod apply;
mod base;
mod entry;
mod ground;
mod host;
mod journal;
mod keeping;
mod known;
mod login;
mod partial;
mod progress;
mod reconcile;
mod report;
mod round;
mod scan;
mod service;
mod status;
mod step;
mod tree;
mod verdict;
mod watcher;

#[cfg(fuzzing)]
pub use host::read_whatever;
pub(in crate::tunnel) use keeping::{Parts, keep};
pub(in crate::tunnel) use service::Mounts;
pub use status::{MountState, MountStatus, MountUse};
