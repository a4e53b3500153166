//! The process of a master of our own: `ssh`, its command line, its messages and its end.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr};
use tokio_util::task::AbortOnDropHandle;

use super::home::Home;
use crate::config::{Target, quoted_path};
use crate::os::process::end_with_parent;
use crate::os::programs::{self, own_program};
use crate::ssh::prompter::Prompter;
use crate::sync::lock;
use crate::text;

/// The name by which this program starts ssh: a child of it that ends with it, however it ends.
const STARTER: &str = "dtunnel-ssh";
/// Lines kept of what it says, and the longest of them in bytes.
const MOST_LINES: usize = 12;
const MAX_LINE: usize = 1000;
/// Longest wait for its last words, and for its end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Becomes `ssh` if this process was started for that, under the name [`STARTER`]: with the daemon's end, the kernel ends
/// it, where it does that ([`end_with_parent`]).
pub fn become_ssh() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    arguments.next().filter(|program| program == STARTER)?;
    let parent = arguments.next()?;
    if !end_with_parent(&parent.to_string_lossy()) {
        return Some(ExitCode::FAILURE);
    }
    let error = programs::become_program(Command::new("ssh").args(arguments));
    // The daemon reads it.
    let _ = writeln!(io::stderr(), "cannot run ssh: {error}");
    Some(ExitCode::from(127))
}

/// The arguments of a master for `target`, whose control socket is at `control`. The user's ssh_config applies but for what
/// would make it another thing than a master that forwards.
fn arguments(target: &Target, control: &Path, looks_only: bool) -> Vec<OsString> {
    let mut options = vec![
        "ControlMaster=yes".to_owned(),
        format!("ControlPath={}", quoted_path(control)),
        "ControlPersist=no".into(),
        "ExitOnForwardFailure=yes".into(),
        "ClearAllForwardings=yes".into(),
        "ForwardAgent=no".into(),
        "ForwardX11=no".into(),
        "PermitLocalCommand=no".into(),
        "RemoteCommand=none".into(),
        "RequestTTY=no".into(),
        "Tunnel=no".into(),
        format!("ServerAliveInterval={}", target.keepalive.map_or(0, |interval| interval.as_secs().max(1))),
        format!("ServerAliveCountMax={}", target.keepalives().max(1)),
        // Tells how the login was made.
        "LogLevel=VERBOSE".into(),
        format!("ConnectTimeout={}", target.connect_timeout.as_secs().max(1)),
    ];
    if looks_only {
        options.extend(["UpdateHostKeys=no".into(), "StrictHostKeyChecking=yes".into()]);
    }
    options.extend(target.ssh.for_ssh.iter().cloned());
    let options = options.into_iter().flat_map(|option| ["-o".into(), option.into()]);
    ["-N", "-T"].map(OsString::from).into_iter().chain(options).chain(target.ssh_arguments()).collect()
}

/// Can a master of this machine's ssh be asked for a stream to a socket? From OpenSSH 9.4 on.
pub(super) async fn opens_sockets() -> bool {
    let told = tokio::process::Command::new("ssh").arg("-V").stdin(Stdio::null()).kill_on_drop(true).output();
    match tokio::time::timeout(LAST_WORDS, told).await {
        Ok(Ok(output)) => version(&String::from_utf8_lossy(&output.stderr)).is_some_and(|version| version >= (9, 4)),
        _ => false,
    }
}

/// Of `OpenSSH_9.2p1 Debian-2, OpenSSL …`: 9 and 2.
fn version(text: &str) -> Option<(u32, u32)> {
    let rest = text.split_once("OpenSSH_")?.1;
    let rest = rest.strip_prefix("for_Windows_").unwrap_or(rest);
    let (major, rest) = rest.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The process groups of masters that run: with them end the programs on their way to the host (ProxyCommand, ProxyJump).
static GROUPS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Ends all masters of this process, which ends, and the programs on their way.
pub(in crate::ssh) fn end_masters() {
    std::mem::take(&mut *lock(&GROUPS)).into_iter().for_each(programs::end_group);
}

/// A running master.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Until it has ended.
    group: Option<u32>,
    said: Arc<Mutex<Said>>,
    /// The task that reads what it says.
    listening: AbortOnDropHandle<()>,
}

/// What a master has said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Its last lines, safe for a terminal.
    pub(super) lines: VecDeque<String>,
    /// How the login was made, in ssh's words.
    pub(super) method: Option<String>,
    /// The server forwards no TCP.
    pub(super) prohibits: bool,
    /// How many streams the server has refused.
    pub(super) refusals: usize,
}

impl Process {
    /// Starts one, whose questions go to the program in `home`.
    ///
    /// # Errors
    /// From the system.
    pub(super) fn start(
        target: &Target,
        home: &Home,
        agent: Option<&Path>,
        prompter: &Prompter,
        looks_only: bool,
    ) -> io::Result<Self> {
        let mut command = Command::new(own_program()?);
        programs::set_name(&mut command, STARTER);
        // A Ctrl-C is the daemon's to obey.
        programs::own_group(&mut command);
        command
            .arg(std::process::id().to_string())
            .args(arguments(target, &home.control(), looks_only))
            .env("SSH_ASKPASS", home.askpass())
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(agent) = agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        let group = child.id();
        lock(&GROUPS).extend(group);
        let said = Arc::new(Mutex::new(Said::default()));
        let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let listening = tokio::spawn(listen(stderr, said.clone(), prompter.clone()));
        Ok(Self { child, group, said, listening: AbortOnDropHandle::new(listening) })
    }

    /// Waits for its end, and for its last words. Cancel safe.
    pub(super) async fn ended(&mut self) {
        let _ = self.child.wait().await;
        self.has_ended();
        let _ = tokio::time::timeout(LAST_WORDS, &mut self.listening).await;
    }

    /// Its number may be another process's from now on.
    fn has_ended(&mut self) {
        let group = self.group.take();
        lock(&GROUPS).retain(|other| Some(*other) != group);
    }

    /// What it has said so far.
    pub(super) fn said(&self) -> Arc<Mutex<Said>> {
        self.said.clone()
    }

    /// Ends it.
    pub(super) async fn end(&mut self) {
        if let Some(group) = self.group {
            programs::end_group(group);
            if tokio::time::timeout(LAST_WORDS, self.child.wait()).await.is_ok() {
                self.has_ended();
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            programs::end_group(group);
            self.has_ended();
        }
    }
}

async fn listen(mut stderr: ChildStderr, said: Arc<Mutex<Said>>, prompter: Prompter) {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        for byte in &buffer[..read] {
            match byte {
                b'\n' | b'\r' => hear(&std::mem::take(&mut line), &said, &prompter),
                byte if line.len() < MAX_LINE => line.push(*byte),
                _ => {}
            }
        }
    }
    hear(&line, &said, &prompter);
}

fn hear(line: &[u8], said: &Mutex<Said>, prompter: &Prompter) {
    let shown = text::shown_bytes(line);
    if shown.is_empty() {
        return;
    }
    let mut said = lock(said);
    if let Some((_, method)) = shown.strip_prefix("Authenticated to ").and_then(|rest| rest.rsplit_once(" using ")) {
        said.method = Some(method.trim_end_matches('.').trim_matches('"').to_owned());
        return;
    }
    if shown.contains("open failed: administratively prohibited") {
        said.prohibits = true;
    }
    said.refusals += usize::from(shown.starts_with("channel ") && shown.contains(": open failed: "));
    // What a channel came to is its caller's to tell; how much was sent in all, nobody's.
    if ["channel ", "mux_", "Transferred: ", "Bytes per second: "].iter().any(|word| shown.starts_with(word)) {
        return;
    }
    tracing::info!("ssh: {shown}");
    if said.method.is_none() {
        prompter.tell(shown.clone());
    }
    said.lines.push_back(shown);
    if said.lines.len() > MOST_LINES {
        said.lines.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19"), Some((9, 2)));
        assert_eq!(version("OpenSSH_for_Windows_9.5p1, LibreSSL 3.8.2"), Some((9, 5)));
        assert_eq!(version("OpenSSH_10.0p2, OpenSSL 3.5.1"), Some((10, 0)));
        assert_eq!(version("Sun_SSH_1.1"), None);
    }
}
