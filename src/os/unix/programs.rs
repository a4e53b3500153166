//! Programs: limits of this process, becoming another program, starting and ending others.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::{getpid, getsid};
use rustix::fs::Mode;
use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, getrlimit, kill_process, kill_process_group, setrlimit};

/// Leaves the terminal: a session of its own gets no signals from there (setsid(2)).
pub fn leave_terminal() {
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
}

/// Sets the limits of a daemon: no core dumps, which would have its secrets; as many open files as are allowed, since each
/// flow needs several and the usual soft limit of 1024 is meant for programs that use select(2); new files are private.
pub fn limit_daemon() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    rustix::process::umask(Mode::from_raw_mode(0o077));
}

/// The program that `name` means to [`Command`]: itself.
pub fn found(name: &OsStr) -> &OsStr {
    name
}

/// Most files that this process may have open (RLIMIT_NOFILE in getrlimit(2)).
pub fn most_open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The process that started this one.
pub fn parent() -> Option<u32> {
    getppid().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
}

/// The program of this process, or what has taken its place: by its path, since nobody but root may follow a link below /proc
/// of a process that keeps its memory private (PR_SET_DUMPABLE).
///
/// # Errors
/// From the system.
pub fn own_program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?.into_os_string().into_vec();
    // What Linux says of a file that has been replaced (proc_pid_exe(5)).
    let path = path.strip_suffix(b" (deleted)").map(<[u8]>::to_vec).unwrap_or(path);
    Ok(OsString::from_vec(path).into())
}

/// Has the program be started under another name than its own (`argv[0]`).
pub fn set_name(command: &mut Command, name: &str) {
    command.arg0(name);
}

/// Replaces this process by the program, which then gets the signals and sets the exit code. Returns why it could not.
pub fn become_program(command: &mut Command) -> io::Error {
    command.exec()
}

/// The user's shell: `$SHELL`, else sh.
pub fn shell() -> OsString {
    let set = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    set.unwrap_or_else(|| "/bin/sh".into())
}

/// The command that runs a line of ssh_config with the user's shell, as ssh does (`exec` so that the shell doesn't linger).
pub fn shell_command(line: &str) -> Command {
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let mut command = Command::new(shell);
    command.arg("-c").arg(format!("exec {line}"));
    command
}

/// A daemon's process has no terminal that would send Ctrl-C to its children. By nix: a session that was begun outside
/// of our PID namespace is number 0, which rustix's `Pid` cannot be.
pub fn is_session_of_its_own() -> bool {
    getsid(None).is_ok_and(|session| session == getpid())
}

/// Has the program, and those that it starts, be ended together ([`end_group`]), and get no Ctrl-C from a terminal.
pub fn own_group(command: &mut Command) {
    command.process_group(0);
}

/// Asks the process `pid`, a child of this one that was not waited for, to end because its connection is over (SIGHUP).
pub fn hang_up(pid: u32) {
    if let Some(pid) = number(pid) {
        let _ = kill_process(pid, Signal::HUP);
    }
}

/// Asks the process `pid` to end (SIGTERM).
pub fn end(pid: u32) {
    if let Some(pid) = number(pid) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// Asks the group of the process `pid`, which was started with [`own_group`], to end.
pub fn end_group(pid: u32) {
    if let Some(group) = number(pid) {
        let _ = kill_process_group(group, Signal::TERM);
        // One that is stopped hears it only then.
        let _ = kill_process_group(group, Signal::CONT);
    }
}

fn number(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}
