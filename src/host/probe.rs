//! Probes the host with one command, for the login, the sockets and the tools.
//!
//! The server sends the same error for all failures to open a socket; the probe distinguishes them.

use std::time::Duration;

use super::exec::{PLACES, TOOLS, Tool};
use crate::config::DEFAULT_SOCKET;
use crate::shell_word::quoted;
use crate::ssh::Connection;
use crate::text::shown;

/// Time limit of the probe.
const LIMIT: Duration = Duration::from_secs(5);
/// Prefix of each line of the probe's output; a login shell may print other lines.
const MARK: &str = "dtunnel:";

/// The probe's result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostProbe {
    pub user: String,
    pub groups: Vec<String>,
    /// The sockets looked for, in order of preference.
    pub sockets: Vec<Socket>,
    /// The tools found.
    pub tools: Vec<Tool>,
    /// The group `docker` with its members, from the host's files.
    pub docker_group: Option<String>,
}

/// A socket on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    pub path: String,
    pub access: Access,
    /// Mode, owner and group, as `ls -l` shows them.
    pub listing: String,
}

/// Whether this login may use a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Granted,
    /// The socket exists, but this login may not use it.
    Denied,
    /// No socket, or none visible to this login.
    Absent,
}

impl HostProbe {
    /// Runs the probe. It checks the socket `also` first.
    ///
    /// # Errors
    /// The server's message if it runs no commands, for instance that the password has expired. May be empty.
    pub async fn take(connection: &Connection, also: Option<&str>) -> Result<Self, String> {
        let output = connection.run("exec sh", &script(also), LIMIT).await.map_err(|_| String::new())?;
        Self::read(&output.stdout).ok_or(output.stderr)
    }

    fn read(output: &str) -> Option<Self> {
        let mut probe = Self::default();
        let mut complete = false;
        for line in output.lines().filter_map(|line| line.trim_end().strip_prefix(MARK)) {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            match key {
                "user" => probe.user = shown(value),
                "groups" => probe.groups = value.split_whitespace().map(shown).collect(),
                "docker-group" => probe.docker_group = Some(value.into()).filter(|v: &String| !v.is_empty()),
                "tool" => probe.tools.extend(TOOLS.into_iter().filter(|tool| tool.program() == value)),
                "granted" | "denied" => {
                    // `srw-rw---- 1 root docker 0 Nov 24 18:53 PATH`
                    let mut words = value.split_whitespace();
                    let (mode, owner, group) = (words.next(), words.nth(1), words.next());
                    let listing = shown(&[mode, owner, group].map(Option::unwrap_or_default).join(" "));
                    // A path that cannot be displayed unchanged cannot be named in a setting either.
                    let Some(path) = value.find(" /").map(|at| value[at + 1..].to_owned()) else { continue };
                    if shown(&path) != path {
                        continue;
                    }
                    let access = if key == "granted" { Access::Granted } else { Access::Denied };
                    probe.add(Socket { path, access, listing });
                }
                "absent" => {
                    probe.add(Socket { path: shown(value), access: Access::Absent, listing: String::new() });
                }
                "end" => complete = true,
                _ => {}
            }
        }
        complete.then_some(probe)
    }

    /// Adds a socket, unless another path to it was added: `/var/run` is `/run` on most hosts.
    fn add(&mut self, socket: Socket) {
        let known = |other: &Socket| other.path.trim_start_matches("/var") == socket.path.trim_start_matches("/var");
        if !self.sockets.iter().any(known) {
            self.sockets.push(socket);
        }
    }

    /// The sockets that this login may use.
    pub fn usable(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().filter(|socket| socket.access == Access::Granted)
    }

    /// Whether the user was added to the group `docker` after this login began.
    pub(super) fn needs_new_login(&self) -> bool {
        let listed = |group: &str| group.split([':', ',']).any(|member| member == self.user);
        self.docker_group.as_deref().is_some_and(listed) && !self.groups.iter().any(|group| group == "docker")
    }
}

/// The POSIX shell script, read from standard input, so that no quoting for the login shell is needed.
fn script(also: Option<&str>) -> String {
    let also = also.map(quoted).unwrap_or_default();
    let tools: Vec<&str> = TOOLS.into_iter().map(Tool::program).collect();
    format!(
        r#"say() {{ echo "{MARK}$1"; }}
PATH=$PATH:{PLACES}
export PATH
say "user=$(id -un)"
say "groups=$(id -Gn)"
say "docker-group=$( (getent group docker || grep '^docker:' /etc/group) 2>/dev/null)"
for t in {tools}; do if command -v $t >/dev/null 2>&1; then say "tool=$t"; fi; done
u=$(id -u)
h=
if [ -z "$DOCKER_HOST" ]; then
  DOCKER_HOST=$(docker context inspect --format '{{{{.Endpoints.docker.Host}}}}' </dev/null 2>/dev/null)
fi
case "$DOCKER_HOST" in unix:///*) h="${{DOCKER_HOST#unix://}}";; esac
for s in {also} "$h" {DEFAULT_SOCKET} "${{XDG_RUNTIME_DIR:-/run/user/$u}}/docker.sock" "/run/user/$u/docker.sock" \
    /run/podman/podman.sock "${{XDG_RUNTIME_DIR:-/run/user/$u}}/podman/podman.sock" "/run/user/$u/podman/podman.sock"; do
  if [ -z "$s" ]; then continue; fi
  if [ -S "$s" ]; then
    if [ -r "$s" ] && [ -w "$s" ]; then a=granted; else a=denied; fi
    l=$(LC_ALL=C ls -ldL "$s" 2>/dev/null)
    say "$a=${{l%%/*}}$s"
  else say "absent=$s"; fi
done
# Docker Desktop, Colima, Rancher Desktop, OrbStack: without their own context, and not worth a word where they are absent.
for s in .docker/run/docker.sock .docker/desktop/docker.sock .colima/default/docker.sock .colima/docker.sock \
    .config/colima/default/docker.sock .rd/docker.sock .orbstack/run/docker.sock; do
  s="$HOME/$s"
  if [ -S "$s" ] && [ -r "$s" ] && [ -w "$s" ]; then
    l=$(LC_ALL=C ls -ldL "$s" 2>/dev/null)
    say "granted=${{l%%/*}}$s"
  fi
done
say end
"#,
        tools = tools.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_says_is_read_whatever_else_it_prints() {
        let output = std::process::Command::new("sh").args(["-c", &script(Some("/tmp/it's no socket"))]).output();
        let output = String::from_utf8(output.expect("sh").stdout).expect("UTF-8");
        let probe = HostProbe::read(&format!("Welcome!\n{output}")).expect("complete");
        assert!(!probe.user.is_empty() && !probe.groups.is_empty());
        assert_eq!(probe.sockets[0].path, "/tmp/it's no socket");
        assert_eq!(probe.sockets[0].access, Access::Absent);
        assert_eq!(HostProbe::read("dtunnel:user=me\n"), None, "cut short");
    }

    #[test]
    fn sockets_and_groups_are_told_apart() {
        let probe = HostProbe::read(
            "dtunnel:user=me\ndtunnel:groups=me adm\ndtunnel:docker-group=docker:x:999:you,me\ndtunnel:tool=nc\n\
             dtunnel:denied=srw-rw---- 1 root docker 0 Nov 24 18:53 /var/run/docker.sock\n\
             dtunnel:denied=srw-rw---- 1 root docker 0 Nov 24 18:53 /run/docker.sock\n\
             dtunnel:granted=srw------- 1 me me 0 Nov 24 18:53 /run/user/1/docker.sock\ndtunnel:end\n",
        );
        let probe = probe.expect("complete");
        assert!(probe.needs_new_login());
        assert_eq!(probe.tools, [Tool::Nc]);
        assert_eq!(probe.sockets.len(), 2, "{:?}", probe.sockets);
        assert_eq!(probe.sockets[0].listing, "srw-rw---- root docker");
        assert_eq!(probe.usable().map(|s| s.path.as_str()).collect::<Vec<_>>(), ["/run/user/1/docker.sock"]);
    }
}
