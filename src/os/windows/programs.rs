//! Programs: limits of this process, becoming another program, starting and ending others.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::windows::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::files::is_program;
use super::system;
use crate::os::search_path::places_of;

/// CREATE_NO_WINDOW (winbase.h).
const NO_WINDOW: u32 = 0x0800_0000;
/// CREATE_NEW_PROCESS_GROUP (winbase.h): Ctrl-C does not reach it.
const NEW_GROUP: u32 = 0x0000_0200;

/// Leaves the directory that it was started in, which could not be removed otherwise. A daemon has no console to leave.
pub fn leave_terminal() {
    if let Some(home) = std::env::var_os("USERPROFILE") {
        let _ = std::env::set_current_dir(home);
    }
}

/// Nothing to set: there is no limit of open handles that would matter, and dumps of processes are the system's to configure.
pub fn limit_daemon() {}

/// No limit.
pub fn most_open_files() -> u64 {
    u64::MAX
}

/// The process that started this one, if it still runs.
pub fn parent() -> Option<u32> {
    system::parent_of(std::process::id())
}

/// The program of this process.
///
/// # Errors
/// From the system.
pub fn own_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// Nothing: a program's name is that of its file.
pub fn set_name(_: &mut Command, _: &str) {}

/// The program that `name` means at a prompt: with one of the endings of `%PATHEXT%`, of which [`Command`] adds `.exe` only.
pub fn found(name: &OsStr) -> OsString {
    let is_name = Path::new(name).components().count() == 1;
    let mut places = name.to_str().filter(|_| is_name).into_iter().flat_map(places_of);
    places.find(|place| is_program(place)).map_or_else(|| name.to_owned(), PathBuf::into_os_string)
}

/// Runs the program in place of this process, which only waits for it and ends with its exit code: Windows cannot replace a
/// program. A Ctrl-C reaches both, and is the program's to answer. Returns why it could not be run.
pub fn become_program(command: &mut Command) -> io::Error {
    // Registered, so that this process does not end by Ctrl-C.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return e,
    };
    let entered = runtime.enter();
    let held = (tokio::signal::windows::ctrl_c(), tokio::signal::windows::ctrl_break());
    let ran = command.status();
    drop((held, entered));
    match ran {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(e) => e,
    }
}

/// The user's shell: the one that runs this program if it is PowerShell, else `%ComSpec%`, else cmd.
pub fn shell() -> OsString {
    let parent = parent().and_then(super::process::name_of).unwrap_or_default();
    if ["pwsh", "powershell"].contains(&parent.to_ascii_lowercase().as_str()) {
        return parent.into();
    }
    std::env::var_os("ComSpec").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "cmd.exe".into())
}

/// The command that runs a line of ssh_config with cmd, as Windows' ssh does. Without a window.
pub fn shell_command(line: &str) -> Command {
    let shell = std::env::var_os("ComSpec").unwrap_or_else(|| "cmd.exe".into());
    let mut command = Command::new(shell);
    // With /s cmd takes away the two outer quotation marks, and no other: without it, those of a program's path in some lines.
    command.args(["/d", "/s", "/c"]).raw_arg(format!("\"{line}\"")).creation_flags(NO_WINDOW);
    command
}

/// True for a process without a console, which a daemon is: what it starts must not open a window.
pub fn is_session_of_its_own() -> bool {
    !std::io::IsTerminal::is_terminal(&std::io::stderr())
}

/// Has the program get no Ctrl-C from a console, and open no window.
pub fn own_group(command: &mut Command) {
    command.creation_flags(NEW_GROUP | NO_WINDOW);
}

/// Ends the process `pid`, a child of this one that was not waited for, and those that it has started: Windows has no
/// signal that asks.
pub fn hang_up(pid: u32) {
    end_group(pid);
}

/// Ends the process `pid`.
pub fn end(pid: u32) {
    end_group(pid);
}

/// Ends the process `pid`, and those that it has started (taskkill).
pub fn end_group(pid: u32) {
    let mut command = Command::new("taskkill");
    command.args(["/T", "/F", "/PID", &pid.to_string()]).creation_flags(NO_WINDOW);
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_name_without_the_ending() {
        assert!(Path::new(&found("cmd".as_ref())).is_absolute());
        assert_eq!(found("no-such-program".as_ref()), "no-such-program");
        assert_eq!(found(r"dir\cmd".as_ref()), r"dir\cmd");
    }

    #[test]
    fn quoted_words_of_a_command_are_its_own() {
        let cmd = std::env::var("ComSpec").expect("set");
        // Quotation marks at both ends, more than two of them, and characters that are cmd's.
        for line in [
            format!(r#""{cmd}" /d /c echo "one word""#),
            format!(r#""{cmd}" /d /c "echo "one word"""#),
            r#"echo "one word""#.into(),
            r#"echo "one word" (and) two"#.into(),
        ] {
            let output = shell_command(&line).output().expect("run");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("\"one word\""), "{line}: {said}");
        }
    }
}
