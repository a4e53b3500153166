//! Commands on the host that carry a flow if its SSH server does not forward.
//!
//! A server does not end a command when its connection ends, so a command that waits for the Engine would run for ever.
//! Each command therefore runs under a small shell that ends it when the server's process for this login has ended, or
//! when the server passes on a signal.

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::config::Remote;
use crate::shell_word::quoted;
use crate::ssh::Endpoint;

/// A tool on the host that connects a socket to its standard input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    Docker,
    Socat,
    /// netcat with Unix sockets (OpenBSD's, ncat).
    Nc,
    Podman,
}

/// The tools, best first: docker's and podman's end with the stream; the others need options for that.
pub(super) const TOOLS: [Tool; 4] = [Tool::Docker, Tool::Socat, Tool::Nc, Tool::Podman];

impl Tool {
    /// The name of its program.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Socat => "socat",
            Self::Nc => "nc",
            Self::Podman => "podman",
        }
    }

    /// The command that connects to the Engine at `remote`, and its display name. None if the tool does not support it.
    fn command(self, remote: &Remote) -> Option<(String, String)> {
        let (url, socat) = match remote {
            Remote::Socket(path) => (format!("unix://{path}"), format!("UNIX-CONNECT:{}", escaped(path))),
            Remote::Tcp { host, port } => (remote.to_string().replacen("tcp:", "tcp://", 1), socat_tcp(host, *port)),
            Remote::Auto | Remote::Command(_) => return None,
        };
        Some(match (self, remote) {
            (Self::Docker, _) => {
                ("docker system dial-stdio".into(), format!("docker -H {} system dial-stdio", quoted(&url)))
            }
            // By default socat closes the other direction half a second after one has ended.
            (Self::Socat, _) => ("socat".into(), format!("socat -t 2000000 - {}", quoted(&socat))),
            // -N passes on the end of the stream; versions without -N cannot.
            (Self::Nc, Remote::Socket(path)) => {
                let path = quoted(path);
                let command = format!(
                    "sh -c {}",
                    quoted(&format!("case $(nc -h 2>&1) in *-N*) exec nc -N -U {path};; *) exec nc -U {path};; esac"))
                );
                ("nc -U".into(), command)
            }
            (Self::Nc, _) => return None,
            (Self::Podman, _) => {
                ("podman system dial-stdio".into(), format!("podman --url {} system dial-stdio", quoted(&url)))
            }
        })
    }

    /// The endpoint of `remote` through this tool; None if the tool does not support it.
    pub(super) fn endpoint(self, remote: &Remote) -> Option<Endpoint> {
        let (name, command) = self.command(remote)?;
        Some(Endpoint::Command { name, command: guarded(&command) })
    }
}

/// The endpoint of a TCP port, as the host sees it, through any available tool.
pub(crate) fn to_port(host: &str, port: u16) -> Endpoint {
    let script = format!(
        "if command -v socat >/dev/null; then exec socat -t 2000000 - {}; fi; \
         case $(nc -h 2>&1) in *-N*) exec nc -N {nc} {port};; *) exec nc {nc} {port};; esac",
        quoted(&socat_tcp(host, port)),
        nc = quoted(host),
    );
    let name = format!("socat or nc to port {port}");
    Endpoint::Command { name, command: guarded(&format!("sh -c {}", quoted(&script))) }
}

/// The endpoint of the user's `command:…`, which may be a compound command.
pub(super) fn own_command(command: &str) -> Endpoint {
    Endpoint::Command { name: command.into(), command: guarded(&format!("sh -c {}", quoted(command))) }
}

/// `command` under the shell described above, for any login shell: one line, in single quotes, without characters
/// that are special to csh or fish.
///
/// `$1` runs with the channel as its standard input (a shell's background command would have /dev/null). No other
/// process keeps the channel's descriptors, so that the end of its output is noticed. `$PPID` is the server's process
/// for this login, since the login shell replaced itself by this one (exec).
fn guarded(command: &str) -> String {
    const GUARD: &str = "exec 3<&0 </dev/null; eval \"exec $1\" <&3 3<&- & b=$!; exec 3<&- >/dev/null; \
                         (while kill -0 $PPID && kill -0 $b; do sleep 2; done; kill $b) 2>/dev/null & w=$!; \
                         trap \"kill $b $w 2>/dev/null\" TERM HUP INT; wait $b; s=$?; kill $w 2>/dev/null; exit $s";
    format!("exec sh -c '{GUARD}' dtunnel {}", quoted(command))
}

/// A TCP port in socat's syntax.
fn socat_tcp(host: &str, port: u16) -> String {
    let address = Address::of(host, port);
    if address.is_ipv6() { format!("TCP6:{address}") } else { format!("TCP:{address}") }
}

/// Escapes a path for socat, whose addresses have special characters.
fn escaped(path: &str) -> String {
    let special = |c| matches!(c, ':' | ',' | '!' | '"' | '\'' | '\\' | '(' | '[' | '{');
    path.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_stay_one_word() {
        let remote = Remote::Socket("/a b/it's,:x".into());
        let words = |tool: Tool| {
            let (_, command) = tool.command(&remote).expect("a command");
            let shown = std::process::Command::new("sh").args(["-c", &format!("printf '%s|' {command}")]).output();
            String::from_utf8(shown.expect("sh").stdout).expect("UTF-8")
        };
        assert_eq!(words(Tool::Docker), "docker|-H|unix:///a b/it's,:x|system|dial-stdio|");
        assert_eq!(words(Tool::Socat), r"socat|-t|2000000|-|UNIX-CONNECT:/a b/it\'s\,\:x|");
    }

    #[test]
    fn an_ipv6_address_is_one_for_socat_whichever_way_leads_there() {
        let (_, command) = Tool::Socat.command(&Remote::Tcp { host: "::1".into(), port: 2375 }).expect("a command");
        assert!(command.ends_with("TCP6:[::1]:2375'") || command.ends_with("TCP6:[::1]:2375"), "{command}");
        let Endpoint::Command { command, .. } = to_port("::1", 80) else { panic!("a command") };
        assert!(command.contains("TCP6:[::1]:80"), "{command}");
    }

    #[test]
    fn a_guarded_command_has_our_input_and_its_own_status() {
        use std::io::Write;
        use std::process::{Command, Stdio};
        for (command, status) in [("cat", 0), ("sh -c 'cat; exit 3'", 3), ("cat >&2", 0)] {
            let mut child = Command::new("sh")
                .args(["-c", &guarded(command)])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("sh");
            child.stdin.take().expect("piped").write_all(b"hello").expect("written");
            let output = child.wait_with_output().expect("ended");
            assert_eq!(output.status.code(), Some(status));
            assert_eq!([output.stdout, output.stderr].concat(), b"hello");
        }
    }
}
