//! A background process of this program, and the connection between the two.
//!
//! The connection is the new process's standard input: one end of a socket pair. So the process can report a failure from
//! its start, and nobody waits for a socket file to appear. It ends with the process at either end, however that ends.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use super::local::BlockingStream;

/// Starts this program with the arguments `args`, and returns the connection to it.
///
/// # Errors
/// From the system.
pub fn start(args: &[OsString]) -> io::Result<(BlockingStream, Child)> {
    let (ours, theirs) = BlockingStream::pair()?;
    let child = Command::new(std::env::current_exe()?)
        .args(args)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((ours, child))
}

/// Called in the background process: takes the connection from standard input, which becomes the null device.
///
/// # Errors
/// Standard input is no such connection, as when a user starts the process by hand.
pub fn starter() -> io::Result<BlockingStream> {
    let stream = BlockingStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.peer_addr()?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(stream)
}
