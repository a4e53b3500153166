//! Commands on the host that carry a flow if its SSH server does not forward.
//!
//! A server does not end a command when its connection ends, so a command that waits for the Engine would run for ever.
//! Each command therefore runs under a small shell that ends it when the server's process for this login has ended, or
//! when the server passes on a signal. That process may be another user's (dropbear's is root's): it is not signalled, but
//! no longer the shell's parent once it has ended.

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::config::Remote;
use crate::shell_word::{quoted, shell_word};
use crate::ssh::{BEGIN, Endpoint};

/// [`Tool::Plain`]'s command.
const PLAIN: &str = "docker system dial-stdio";
/// Where programs are that a login without a terminal does not find: Homebrew's, MacPorts', snap's, and those of Synology's
/// and QNAP's packages.
pub(super) const PLACES: &str = "/usr/local/bin:/usr/local/sbin:/opt/homebrew/bin:/opt/local/bin:/snap/bin:/opt/bin:\
                                 /var/packages/ContainerManager/target/usr/bin:/var/packages/Docker/target/usr/bin:\
                                 /share/CACHEDEV1_DATA/.qpkg/container-station/bin:\
                                 /Applications/Docker.app/Contents/Resources/bin";

/// A tool on the host that connects a socket to its standard input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    Docker,
    Socat,
    /// netcat with Unix sockets (OpenBSD's, ncat).
    Nc,
    Podman,
    /// docker's own way to its Engine, in words that every login shell knows; or whatever the server has forced on the
    /// login in its place.
    Plain,
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
            Self::Plain => "dial-stdio",
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
                ("docker system dial-stdio".into(), format!("docker -H {} system dial-stdio", shell_word(&url)))
            }
            // By default socat closes the other direction half a second after one has ended.
            (Self::Socat, _) => ("socat".into(), format!("socat -t 2000000 - {}", shell_word(&socat))),
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
                ("podman system dial-stdio".into(), format!("podman --url {} system dial-stdio", shell_word(&url)))
            }
            (Self::Plain, _) => return None,
        })
    }

    /// The endpoint of `remote` through this tool; None if the tool does not support it.
    pub(super) fn endpoint(self, remote: &Remote) -> Option<Endpoint> {
        if self == Self::Plain {
            return Some(Endpoint::Command { name: PLAIN.into(), command: PLAIN.into(), is_marked: false });
        }
        let (name, command) = self.command(remote)?;
        Some(guarded(name, &command))
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
    guarded(format!("socat or nc to port {port}"), &format!("sh -c {}", quoted(&script)))
}

/// The endpoint of a command in the language of a POSIX shell, such as the user's `command:…`. It may be a compound one.
pub(crate) fn own_command(command: &str) -> Endpoint {
    guarded(command.into(), &format!("sh -c {}", quoted(command)))
}

/// `command` under the shell described above, for any login shell that has `exec`: one line, in single quotes, in which
/// is nothing that csh, fish, elvish, nu or xonsh read otherwise than sh: no single quote, backslash or `!`. A command
/// that has such goes there as its bytes' numbers, which awk makes bytes again.
///
/// The command runs with the channel as its standard input (a shell's background command would have /dev/null). No other
/// process keeps the channel's descriptors, so that the end of its output is noticed. The parent is the server's process
/// for this login, since the login shell replaced itself by this one (exec). Its number is /proc's, which may be of another
/// PID namespace. [`BEGIN`] tells where its output begins: a
/// login shell's files may print something before.
fn guarded(name: String, command: &str) -> Endpoint {
    const RUN: &str = "case $1 in -) c=$(LC_ALL=C awk -v x=$2 -v d=, -v f=%c \
                       \"BEGIN{n=split(x,a,d);for(i=1;i<=n;i++)printf f,a[i]+0}\");; *) c=$1;; esac; exec 3<&0 </dev/null; \
                       eval \"exec $c\" <&3 3<&- & b=$!; exec 3<&- >/dev/null; \
                       { read -r m x x q x </proc/self/stat; } 2>/dev/null || { m=$$; q=$PPID; }; \
                       (while { read -r x x x p x </proc/$m/stat || p=$(ps -o ppid= -p $m) || p=$q; } && \
                       [ $((p)) = $q ] && kill -0 $b; do sleep 2; done; kill $b) 2>/dev/null & w=$!; \
                       trap \"kill $b $w 2>/dev/null\" TERM HUP INT; wait $b; s=$?; kill $w 2>/dev/null; exit $s";
    let command = match command.chars().all(|c| c.is_ascii_alphanumeric() || " /:._=@%+,-".contains(c)) {
        true => format!("'{command}'"),
        false => format!("- {}", command.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(",")),
    };
    let command = format!("exec sh -c 'PATH=$PATH:{PLACES}; export PATH; echo {BEGIN}; {RUN}' dtunnel {command}");
    Endpoint::Command { name, command, is_marked: true }
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
        let numbers = command.rsplit(' ').next().expect("numbers").split(',');
        let bytes = numbers.map(|number| number.parse::<u8>().expect("a byte")).collect();
        let command = String::from_utf8(bytes).expect("UTF-8");
        assert!(command.contains("TCP6:[::1]:80"), "{command}");
    }

    /// The command line of an endpoint.
    fn line(command: &str) -> String {
        let Endpoint::Command { command, is_marked: true, .. } = guarded("name".into(), command) else {
            panic!("a marked command")
        };
        command
    }

    #[test]
    fn a_guarded_command_has_our_input_and_its_own_status() {
        use std::io::Write;
        use std::process::{Command, Stdio};
        for (command, status) in
            [("cat", 0), ("sh -c 'cat; exit 3'", 3), ("cat >&2", 0), ("sh -c 'cat # it'\\''s é!'", 0)]
        {
            let mut child = Command::new("sh")
                .args(["-c", &line(command)])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("sh");
            child.stdin.take().expect("piped").write_all(b"hello").expect("written");
            let output = child.wait_with_output().expect("ended");
            assert_eq!(output.status.code(), Some(status), "{command}");
            let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
            assert_eq!(said, format!("{BEGIN}\nhello"), "{command}");
        }
    }

    #[test]
    fn a_command_line_has_nothing_that_other_shells_read_otherwise() {
        for command in ["docker -H unix:///run/docker.sock system dial-stdio", "sh -c 'it'\\''s!\n\\'"] {
            let line = line(command);
            // csh looks for its history at a terminal only; `$!` is sh's.
            assert!(!line.replace("=$!;", "").contains(['!', '\\', '\n']), "{line}");
            assert!(matches!(line.matches('\'').count(), 2 | 4), "{line}");
        }
    }
}
