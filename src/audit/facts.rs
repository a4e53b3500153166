//! Gathers the facts for the checks: from the Engine, from the host if it runs commands, and from
//! the SSH connection. Read-only.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::Value;
use tokio::net::TcpStream;

use super::answers::{Container, Info, Network, Swarm, Version};
use crate::config::{DEFAULT_SOCKET, HostKeyPolicy, Proxy, Target};
use crate::engine::{self, Session};
use crate::host::{self, Route, find_engine, open_engine};
use crate::os::proc_net::socket_address;
use crate::shell_word::quoted;
use crate::ssh::{self, ChannelStream, ConnectContext, Connection, OpenError, Prompter};

/// Time limit of each request.
const LIMIT: Duration = Duration::from_secs(10);
/// Time limit of connecting to a port that should be closed.
const REACH: Duration = Duration::from_secs(3);
/// Limit of inspected containers.
const MOST_CONTAINERS: usize = 500;
/// Prefix of each line of the script's output.
const MARK: &str = "dtunnel:";

/// An answer of the Engine, or why there is none.
#[derive(Debug)]
pub(super) enum Answer<T> {
    /// The Engine's answer.
    Told(T),
    /// The object does not exist.
    Absent,
    /// The Engine does not answer this request, for this reason.
    Unknown(String),
}

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self::Unknown("the Engine was not asked".into())
    }
}

/// Whether the host runs commands for this login, with their result.
#[derive(Debug, Default)]
pub(super) enum Commands {
    /// The host ran the script.
    Run(Host),
    /// The host runs no command, or only a fixed one.
    Refused,
    /// The script did not end in time.
    #[default]
    Unknown,
}

/// The facts for the checks.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// `GET /info`; every field is unknown if the request was refused.
    pub(super) info: Info,
    /// `GET /version`; every field is unknown if the request was refused.
    pub(super) version: Version,
    /// `GET /networks/bridge`.
    pub(super) bridge: Answer<Network>,
    /// `GET /swarm`.
    pub(super) swarm: Answer<Swarm>,
    /// `GET /containers/ID/json` of the running containers, each with its display name. None
    /// if they could not be listed.
    pub(super) containers: Option<Vec<(String, Container)>>,
    /// Number of containers that were not inspected.
    pub(super) more_containers: usize,
    /// The socket on the host; None if the Engine is not at a socket.
    pub(super) socket: Option<String>,
    /// The result of the script on the host.
    pub(super) commands: Commands,
    /// The target's ports that accepted a connection from this machine; None if the host is not reached directly.
    pub(super) reached: Option<Vec<u16>>,
    /// None: the machine's ssh has negotiated it, and does not tell.
    pub(super) ssh: Option<ssh::Negotiated>,
    pub(super) login: ssh::Login,
    pub(super) user: String,
    /// Whether changed host keys are accepted (StrictHostKeyChecking no).
    pub(super) any_host_key: bool,
    /// `DOCKER_CONTENT_TRUST` on this machine.
    pub(super) content_trust: bool,
    /// The date, as `2026-11-24`.
    pub(super) today: String,
}

impl Facts {
    /// Whether a security option of this name is set; None if unknown.
    pub(super) fn has_option(&self, name: &str) -> Option<bool> {
        let wanted = format!("name={name}");
        let options = self.info.security_options.items()?;
        Some(options.iter().any(|option| option.split(',').next() == Some(&wanted)))
    }

    /// Whether root in a container is another user on the host (user namespaces or rootless mode).
    pub(super) fn confined_root(&self) -> Option<bool> {
        Some(self.has_option("userns")? || self.has_option("rootless")?)
    }

    /// The script's result; None if there is none.
    pub(super) fn host(&self) -> Option<&Host> {
        match &self.commands {
            Commands::Run(host) => Some(host),
            Commands::Refused | Commands::Unknown => None,
        }
    }
}

/// The script's result on the host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Mode (octal), owner and group of the Engine's socket.
    pub(super) socket: Option<(u32, String, String)>,
    /// Members of the socket's group.
    pub(super) members: Vec<String>,
    /// Whether the host's user database lists the group's members.
    pub(super) knows_members: bool,
    /// dockerd's command-line options, if its process is visible.
    pub(super) options: Option<Vec<String>>,
    /// dockerd's configuration file: null if it is missing, None if it cannot be read.
    pub(super) config: Option<Value>,
    /// Listening addresses; None if the host cannot list them.
    pub(super) listening: Option<Vec<(IpAddr, u16)>>,
}

/// Connects to the host and gathers the facts.
pub(super) async fn gather(target: &Target, prompter: &Prompter) -> Result<Facts, host::Error> {
    let context = ConnectContext::looking_only(prompter.clone(), Arc::new(|_| {}));
    let connection = Connection::establish(target, &context).await?;
    let (route, _) = find_engine(&connection, target, None).await?;
    let mut facts = Facts {
        socket: route.remote().socket().map(Into::into),
        ssh: connection.negotiated(),
        login: connection.login().clone(),
        user: target.ssh.user.clone(),
        any_host_key: target.ssh.host_key_policy == HostKeyPolicy::Off,
        content_trust: std::env::var("DOCKER_CONTENT_TRUST").is_ok_and(|value| value == "1"),
        today: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string().chars().take(10).collect(),
        ..Facts::default()
    };
    of_engine(&connection, &route, target, &mut facts).await?;
    facts.commands = of_host(&connection, facts.socket.as_deref()).await;
    if matches!(target.ssh.proxy, Proxy::None) {
        facts.reached = Some(reach(&target.ssh.host_name).await);
    }
    connection.disconnect().await;
    Ok(facts)
}

async fn of_engine(
    connection: &Connection,
    route: &Route,
    target: &Target,
    facts: &mut Facts,
) -> Result<(), host::Error> {
    let (host, socket) = (target.address(), route.remote().to_string());
    let channel = open_engine(connection, route, target, LIMIT).await?;
    let asked = async {
        let mut session = Session::over(ChannelStream::from(channel)).await?;
        if let Answer::Told(version) = answer(session.json("/version", LIMIT).await)? {
            facts.version = version;
        }
        if let Answer::Told(info) = answer(session.json("/info", LIMIT).await)? {
            facts.info = info;
        }
        facts.bridge = answer(session.json("/networks/bridge", LIMIT).await)?;
        facts.swarm = answer(session.json("/swarm", LIMIT).await)?;
        let Answer::Told(listed) = answer(session.containers(LIMIT).await)? else { return Ok(()) };
        facts.more_containers = listed.len().saturating_sub(MOST_CONTAINERS);
        let mut containers = Vec::new();
        for container in listed.iter().take(MOST_CONTAINERS) {
            match answer(session.json(&format!("/containers/{}/json", container.id), LIMIT).await)? {
                Answer::Told(told) => containers.push((container.name.clone(), told)),
                // A container that has ended in the meantime is left out.
                Answer::Absent => {}
                Answer::Unknown(_) => containers.push((container.name.clone(), Container::default())),
            }
        }
        facts.containers = Some(containers);
        Ok(())
    };
    asked.await.map_err(|source| host::Error::Engine { host, socket, source })
}

/// An error status is an answer as well; a lost connection to the Engine ends the audit.
fn answer<T>(asked: Result<T, engine::Error>) -> Result<Answer<T>, engine::Error> {
    match asked {
        Ok(told) => Ok(Answer::Told(told)),
        Err(engine::Error::Status(StatusCode::NOT_FOUND)) => Ok(Answer::Absent),
        Err(error @ (engine::Error::Status(_) | engine::Error::Body(_))) => Ok(Answer::Unknown(error.to_string())),
        Err(error) => Err(error),
    }
}

async fn of_host(connection: &Connection, socket: Option<&str>) -> Commands {
    let begun = Instant::now();
    let script = script(socket.unwrap_or(DEFAULT_SOCKET));
    match connection.run("exec sh", &script, LIMIT).await {
        Ok(output) => match Host::read(&output.stdout, socket) {
            Some(host) => Commands::Run(host),
            // The server ran a fixed command instead, or none.
            None if output.status.is_some() || begun.elapsed() < LIMIT => Commands::Refused,
            None => Commands::Unknown,
        },
        Err(OpenError::Refused { .. }) => Commands::Refused,
        Err(OpenError::Lost) => Commands::Unknown,
    }
}

/// The ports that accept a connection from this machine.
async fn reach(host: &str) -> Vec<u16> {
    let try_port = |port: u16| async move {
        let connected = tokio::time::timeout(REACH, TcpStream::connect((host, port))).await;
        matches!(connected, Ok(Ok(_))).then_some(port)
    };
    let (plain, tls) = tokio::join!(try_port(2375), try_port(2376));
    plain.into_iter().chain(tls).collect()
}

/// The POSIX shell script, read from standard input.
fn script(socket: &str) -> String {
    let socket = quoted(socket);
    format!(
        r#"say() {{ printf '%s\n' "{MARK}$1"; }}
s={socket}
say "socket=$(LC_ALL=C stat -L -c '%a %U %G' "$s" 2>/dev/null)"
g=$(stat -L -c %G "$s" 2>/dev/null)
say "group=$( (getent group "$g" || grep "^$g:" /etc/group) 2>/dev/null)"
config=/etc/docker/daemon.json
for p in /proc/[0-9]*; do
  read -r n < $p/comm || continue
  if [ "$n" = dockerd ]; then say "dockerd=$(tr '\000' '\037' < $p/cmdline)"; fi
done 2>/dev/null
if [ -e "$config" ]; then
  if [ -r "$config" ]; then head -c 16384 "$config" | while IFS= read -r l || [ -n "$l" ]; do say "config=$l"; done; else say unreadable; fi
fi
for f in /proc/net/tcp /proc/net/tcp6; do
  if [ -r $f ]; then say listens; while read -r n l r state more; do
    if [ "$state" = 0A ]; then say "listen=$l"; fi
  done < $f; fi
done
say end
"#
    )
}

impl Host {
    fn read(output: &str, socket: Option<&str>) -> Option<Self> {
        let mut host = Self::default();
        let (mut daemons, mut config, mut readable, mut complete) = (Vec::new(), String::new(), true, false);
        for line in output.lines().filter_map(|line| line.trim_end().strip_prefix(MARK)) {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            match key {
                "socket" => {
                    let words: Vec<&str> = value.split(' ').collect();
                    if let [mode, owner, group] = words.as_slice() {
                        host.socket =
                            u32::from_str_radix(mode, 8).ok().map(|mode| (mode, (*owner).into(), (*group).into()));
                    }
                }
                "group" => {
                    host.knows_members = !value.is_empty();
                    let members = value.rsplit(':').next().unwrap_or_default().split(',');
                    host.members = members.filter(|member| !member.is_empty()).map(Into::into).collect();
                }
                "dockerd" => daemons.push(value.split('\u{1f}').map(str::to_owned).collect::<Vec<_>>()),
                "config" => {
                    config += value;
                    config += "\n";
                }
                "unreadable" => readable = false,
                "listens" => drop(host.listening.get_or_insert_default()),
                "listen" => {
                    // Assumes a little-endian host; big-endian ones are rare.
                    let address = socket_address(value, true).map(|address| (address.ip(), address.port()));
                    host.listening.get_or_insert_default().extend(address);
                }
                "end" => complete = true,
                _ => {}
            }
        }
        host.options = choose(daemons, socket);
        let named = host.options.as_ref().is_some_and(|options| options.iter().any(|o| o.starts_with("--config-file")));
        host.config = match (readable && !named, config.is_empty()) {
            (false, _) => None,
            (true, true) => Some(Value::Null),
            (true, false) => serde_json::from_str(&config).ok(),
        };
        complete.then_some(host)
    }

    /// A dockerd setting, from its options or its file. The outer None means unknown.
    pub(super) fn setting(&self, name: &str) -> Option<Value> {
        let (options, config) = (self.options.as_ref()?, self.config.as_ref()?);
        let flag = format!("--{name}");
        let mut given = None;
        for (at, option) in options.iter().enumerate() {
            if let Some(value) = option.strip_prefix(&format!("{flag}=")) {
                given = Some(value.into());
            } else if *option == flag {
                // A flag without a value, or an option with one.
                let next = options.get(at + 1).filter(|next| !next.starts_with('-'));
                given = Some(next.map_or("true", String::as_str).into());
            }
        }
        Some(given.unwrap_or_else(|| config[name].clone()))
    }

    /// The addresses that dockerd is configured to listen on; None if unknown.
    pub(super) fn hosts(&self) -> Option<Vec<String>> {
        let (options, config) = (self.options.as_ref()?, self.config.as_ref()?);
        let mut hosts: Vec<String> =
            config["hosts"].as_array().into_iter().flatten().filter_map(|host| host.as_str()).map(Into::into).collect();
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match option.as_str() {
                "-H" | "--host" => hosts.extend(options.next().cloned()),
                other => {
                    let value = other.strip_prefix("--host=").or_else(|| other.strip_prefix("-H="));
                    hosts.extend(value.or_else(|| other.strip_prefix("-H")).map(Into::into));
                }
            }
        }
        Some(hosts)
    }
}

/// The options of the dockerd with this socket; a host may run several daemons.
fn choose(daemons: Vec<Vec<String>>, socket: Option<&str>) -> Option<Vec<String>> {
    let usual = socket.is_none_or(|path| path.trim_start_matches("/var") == "/run/docker.sock");
    let names = |options: &Vec<String>| options.iter().any(|o| socket.is_some_and(|path| o.ends_with(path)));
    let names_any = |options: &Vec<String>| options.iter().any(|o| o.contains("unix://"));
    let mut fitting = daemons.into_iter().filter(|options| names(options) || (usual && !names_any(options)));
    let chosen = fitting.next()?;
    // If several match, the right one is unknown.
    fitting.next().is_none().then_some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read() {
        let text = "Welcome\ndtunnel:socket=660 root docker\ndtunnel:group=docker:x:999:ann,bob\n\
            dtunnel:dockerd=/usr/bin/dockerd\u{1f}-H\u{1f}fd://\u{1f}--icc=false\u{1f}-Htcp://0.0.0.0:2375\u{1f}\n\
            dtunnel:config={\ndtunnel:config=\"live-restore\": true}\n\
            dtunnel:listens\ndtunnel:listen=0100007F:0947\ndtunnel:listen=00000000000000000000000001000000:0016\ndtunnel:end\n";
        let host = Host::read(text, Some("/var/run/docker.sock")).expect("complete");
        assert_eq!(host.socket, Some((0o660, "root".into(), "docker".into())));
        assert_eq!(host.members, ["ann", "bob"]);
        assert_eq!(host.setting("icc"), Some("false".into()));
        assert_eq!(host.setting("live-restore"), Some(true.into()));
        assert_eq!(host.setting("userland-proxy"), Some(Value::Null));
        assert_eq!(host.hosts().expect("known"), ["fd://", "tcp://0.0.0.0:2375"]);
        let listening: Vec<String> = host.listening.iter().flatten().map(|(a, p)| format!("{a} {p}")).collect();
        assert_eq!(listening, ["127.0.0.1 2375", "::1 22"]);
        assert_eq!(Host::read("dtunnel:socket=\n", None), None, "cut short");
    }

    #[test]
    fn the_script_is_one_that_a_shell_runs() {
        let output =
            std::process::Command::new("sh").args(["-c", &script("/tmp/no such 'socket")]).output().expect("sh");
        let host =
            Host::read(&String::from_utf8_lossy(&output.stdout), Some("/tmp/no such 'socket")).expect("complete");
        assert_eq!(host.socket, None);
        assert!(!cfg!(target_os = "linux") || host.listening.is_some());
    }
}
