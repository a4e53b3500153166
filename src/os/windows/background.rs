//! A background process of this program, and the connection between the two.
//!
//! The connection is a pipe of a random name, which the new process reads from its standard input. It ends with the process
//! at either end, however that ends.

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::local::{self, BlockingStream, connect_within};
use super::system;

/// CREATE_NO_WINDOW and CREATE_NEW_PROCESS_GROUP (winbase.h): no console window, and no Ctrl-C of another console.
const IN_BACKGROUND: u32 = 0x0800_0000 | 0x0000_0200;
/// Time limit of opening the pipe, which is there.
const CONNECTING: Duration = Duration::from_secs(10);
/// Longest name of a pipe.
const MAX_NAME: u64 = 512;

/// Starts this program with the arguments `args`, and returns the connection to it.
///
/// # Errors
/// From the system.
pub fn start(args: &[OsString]) -> io::Result<(BlockingStream, Child)> {
    let (ours, name) = local::nameless()?;
    system::keep_standard_streams();
    let mut child = Command::new(std::env::current_exe()?)
        .args(args)
        .creation_flags(IN_BACKGROUND)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // Closed after it.
    let mut input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    writeln!(input, "{name}")?;
    Ok((ours, child))
}

/// Called in the background process: takes the connection that standard input names.
///
/// # Errors
/// Standard input names none, as when a user starts the process by hand.
pub fn starter() -> io::Result<BlockingStream> {
    let stdin = io::stdin();
    if io::IsTerminal::is_terminal(&stdin) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut name = String::new();
    io::Read::take(stdin.lock(), MAX_NAME).read_line(&mut name)?;
    connect_within(Path::new(name.trim_end()), CONNECTING)
}
