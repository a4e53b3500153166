//! What a service manager passes to this process: nothing on Windows.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;

use super::local::Listener;

/// A listening socket that a service manager passed to this process: never.
#[derive(Debug)]
pub enum Inherited {
    /// A local endpoint.
    Local(Infallible),
    /// A TCP port.
    Tcp(TcpListener),
}

/// None.
///
/// # Errors
/// None.
pub fn take() -> io::Result<Option<Inherited>> {
    Ok(None)
}

/// Never called.
///
/// # Errors
/// None.
pub fn adopt(listener: Infallible) -> io::Result<(PathBuf, Listener)> {
    match listener {}
}

/// Nothing: nobody is to be told.
///
/// # Errors
/// None.
pub fn tell(_: &str, _: bool) -> io::Result<()> {
    Ok(())
}

/// Nothing: nobody is to be told.
pub fn tell_stopping() {}
