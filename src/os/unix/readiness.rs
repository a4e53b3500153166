//! Readiness of a descriptor, from the current runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a non-blocking descriptor with the current runtime, which tells when it is ready for `interest`.
///
/// # Errors
/// The system's error, most likely for lack of memory.
#[expect(deprecated, reason = "unsound only for types whose descriptor may change; an OwnedFd's does not")]
pub(in crate::os) fn registered(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}
