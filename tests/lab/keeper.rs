//! Keeps servers for exactly as long as the test lives.
//!
//! A shell starts the server and reads from a pipe whose other end only the test process has. When
//! that closes, by drop or by the process's end of any kind, the shell ends the server and its
//! descendants and runs the clean-up.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::wait_for;

pub struct Keeper {
    shell: Child,
}

impl Keeper {
    /// Runs a shell script at the end.
    pub fn at_the_end(script: &str) -> Self {
        Self::start(&[":"], script)
    }

    /// Starts `server` (a program and its arguments); `clean_up` is a shell script for the end.
    pub fn start(server: &[&str], clean_up: &str) -> Self {
        let script = format!(
            r#"trap '' INT TERM HUP
            "$@" </dev/null >/dev/null 2>&1 &
            server=$!
            read -r line
            all=
            add() {{
                all="$all $1"
                for list in /proc/$1/task/*/children; do
                    read -r children <$list
                    for child in $children; do add $child; done
                done
            }}
            add $server
            kill $all
            # One that a test has stopped hears it only then.
            kill -CONT $all
            wait $server
            {clean_up}"#
        );
        Self { shell: shell(&script, server, Stdio::null()) }
    }

    /// Ends the server, and returns once this process of it has ended. (What enters a namespace for it ends at once; until
    /// the server has, too, it has its port, and would remove the pid file of the next one.)
    pub fn end_with(self, process: Option<u32>) {
        let process = process.and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        drop(self);
        if let Some(process) = process {
            wait_for("a server to end", || {
                let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&Timespec::default()));
                ended.is_ok_and(|count| count == 1).then_some(())
            });
        }
    }

    /// The server's process.
    pub fn pid(&self) -> Option<u32> {
        child_of(self.shell.id())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let_go(&mut self.shell);
    }
}

/// Namespaces in which servers can be run: network, mount, UTS and PID. With their first process the kernel ends all
/// others and takes mounts and interfaces away; nothing here has a name outside that could be left.
pub struct World {
    /// The first process, as this machine counts.
    pub pid: u32,
    shell: Child,
}

impl World {
    /// `setup` is a shell script for inside, `clean_up` one for outside, when all has ended.
    pub fn start(setup: &str, clean_up: &str) -> Self {
        // The first process reads from the pipe by itself, so that it ends with the test process even where the shell is
        // killed, too. It waits in `wait`, as only that takes away those of its processes that have ended.
        let script = format!(
            r#"trap '' INT TERM HUP
            unshare --net --mount --uts --pid --fork sh -ec "$1"
            {clean_up}"#
        );
        let inside = format!(
            r#"read -r pid rest </proc/self/stat
            mount -t proc proc /proc
            {setup}
            echo $pid
            exec 3<&0 >/dev/null
            read -r line <&3 &
            wait $!"#
        );
        let mut shell = shell(&script, &[&inside], Stdio::piped());
        let mut pid = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let pid = pid.trim().parse().expect("a world of its own");
        Self { pid, shell }
    }

    /// The words that make a command one of this world's.
    pub fn enter(&self) -> Vec<String> {
        [&self.enter_network()[..], &["--mount", "--uts", "--pid"].map(Into::into)].concat()
    }

    /// The same for its network only: there, processes have this machine's numbers.
    pub fn enter_network(&self) -> Vec<String> {
        ["nsenter", "--target", &self.pid.to_string(), "--net"].map(Into::into).into()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let_go(&mut self.shell);
    }
}

/// The first child of a process.
pub fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split(' ').next()?.parse().ok()
}

/// A shell that is told by its standard input when to end. Nothing of this machine's environment reaches a server.
fn shell(script: &str, arguments: &[&str], stdout: Stdio) -> Child {
    Command::new("sh")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .args(["-c", script, "keeper"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn let_go(shell: &mut Child) {
    if let Some(mut pipe) = shell.stdin.take() {
        let _ = pipe.write_all(b"\n");
    }
    let _ = shell.wait();
}
