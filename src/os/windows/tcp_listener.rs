//! TCP sockets that listen.

use std::io;

/// Nothing: the system refuses clients once the listener is closed.
pub fn stop<T>(_: &T) {}

/// Whether the error is that this machine has no addresses of a family (WSAEAFNOSUPPORT).
pub fn is_family_absent(error: &io::Error) -> bool {
    const WSAEAFNOSUPPORT: i32 = 10_047;
    error.raw_os_error() == Some(WSAEAFNOSUPPORT)
}
