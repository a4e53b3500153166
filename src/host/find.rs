//! Finds the Engine on the host and the route to it.
//!
//! Forwarding (`direct-streamlocal`, `direct-tcpip`) is always tried first. If the server refuses, one command on the
//! host finds the cause: a missing socket, a socket that this login may not use, or a server that does not forward. In
//! the last case a tool on the host is used as a bridge.

use std::fmt;
use std::time::Duration;

use super::error::{Error, Obstacle};
use super::exec::{TOOLS, Tool, own_command};
use super::probe::{Access, HostProbe};
use crate::config::{DEFAULT_SOCKET, Remote, Target};
use crate::engine::{self, EngineVersion};
use crate::ssh::{BEGIN, Channel, ChannelStream, Connection, Endpoint, OpenError};
use crate::text;

/// Time limit of the Engine's first answer.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of a failed bridge's error message.
const COMPLAINT: Duration = Duration::from_secs(3);
/// Limit of lines shown of that message.
const MOST_LINES: usize = 3;
/// Sockets to try if the host runs no commands: Podman's socket for root, and those of rootless Docker and Podman
/// for the first user of a host.
const GUESSES: [&str; 3] =
    ["/run/podman/podman.sock", "/run/user/1000/docker.sock", "/run/user/1000/podman/podman.sock"];

/// The route to an Engine on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The Engine's address on the host; never [`Remote::Auto`].
    remote: Remote,
    /// The command that carries the flows if the server does not forward.
    tool: Option<Tool>,
}

impl Route {
    fn direct(remote: Remote) -> Self {
        Self { remote, tool: None }
    }

    /// The route to the Engine's default socket.
    pub(crate) fn usual() -> Self {
        Self::direct(Remote::Socket(DEFAULT_SOCKET.into()))
    }

    /// The Engine's address on the host.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The transport of flows: `streamlocal`, `direct-tcpip`, or `exec` and the command.
    pub fn transport(&self) -> String {
        match self.endpoint() {
            Endpoint::Streamlocal(_) => "streamlocal".into(),
            Endpoint::Tcp { .. } => "direct-tcpip".into(),
            Endpoint::Command { name, .. } => format!("exec: {name}"),
            Endpoint::Subsystem(name) => format!("subsystem: {name}"),
        }
    }

    /// The endpoint of a flow's channel.
    pub fn endpoint(&self) -> Endpoint {
        if let Some(endpoint) = self.tool.and_then(|tool| tool.endpoint(&self.remote)) {
            return endpoint;
        }
        match &self.remote {
            Remote::Socket(path) => Endpoint::Streamlocal(path.clone()),
            Remote::Tcp { host, port } => Endpoint::Tcp { host: host.clone(), port: *port },
            Remote::Command(command) => own_command(command),
            Remote::Auto => Endpoint::Streamlocal(DEFAULT_SOCKET.into()),
        }
    }
}

/// The form stored for the next `up`: `streamlocal:/run/user/1000/docker.sock`, `socat:/run/docker.sock`.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.tool.map_or("streamlocal", Tool::program), self.remote)
    }
}

impl std::str::FromStr for Route {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (how, remote) = text.trim_end().split_once(':').ok_or(())?;
        let tool = match how {
            "streamlocal" => None,
            name => Some(TOOLS.into_iter().chain([Tool::Plain]).find(|tool| tool.program() == name).ok_or(())?),
        };
        match Remote::parse(remote).map_err(|_| ())? {
            remote @ Remote::Socket(_) => Ok(Self { remote, tool }),
            _ => Err(()),
        }
    }
}

/// Why an attempt failed.
enum Miss {
    /// The channel was not opened.
    Refused(OpenError),
    /// The channel was opened, but no Engine answered.
    Silent(engine::Error),
}

/// Finds the Engine over `connection`, and the route to it. `last` is the route that worked before.
///
/// # Errors
/// [`Error::Forwarding`], [`Error::Engine`], [`Error::Obstacle`], and [`Error::Ssh`] if the connection is lost.
pub async fn find(
    connection: &Connection,
    target: &Target,
    last: Option<&Route>,
) -> Result<(Route, EngineVersion), Error> {
    let last = last.filter(|last| target.remote == Remote::Auto || last.remote == target.remote);
    let first = match (&target.remote, last) {
        (Remote::Auto, last) => last.map_or_else(Route::usual, |last| Route::direct(last.remote.clone())),
        (remote, _) => Route::direct(remote.clone()),
    };
    let search = Search { connection, target };
    let mut missed = match search.attempt(&first).await? {
        Ok(engine) => return Ok((first, engine)),
        Err(miss) => miss,
    };
    if let (Miss::Refused(_), Some(last)) = (&missed, last.filter(|last| last.tool.is_some())) {
        match search.attempt(last).await? {
            Ok(engine) => return search.unless_direct(&first, &missed, (last.clone(), engine)).await,
            Err(Miss::Refused(error)) => missed = Miss::Refused(error),
            // The server is not the cause; the probe finds it.
            Err(Miss::Silent(_)) => {}
        }
    }
    let auto = target.remote == Remote::Auto;
    if let (Miss::Silent(_), false) = (&missed, auto) {
        // A program listens there, and the user named this socket.
        return Err(search.no_answer(&first, missed).await);
    }
    match HostProbe::take(connection, target.remote.socket()).await {
        Ok(probe) => search.by_probe(&probe, &first, missed).await,
        Err(said) if auto => search.by_guessing(&first, missed, said).await,
        Err(said) => Err(search.unexplained(&first, missed, said)),
    }
}

/// Opens a stream to the Engine at the end of `route`, within `limit`.
///
/// # Errors
/// [`Error::Forwarding`], [`Error::Engine`], and [`Error::Ssh`] if the connection is lost.
pub async fn open(connection: &Connection, route: &Route, target: &Target, limit: Duration) -> Result<Channel, Error> {
    let search = Search { connection, target };
    let missed = match tokio::time::timeout(limit, connection.open(&route.endpoint())).await {
        Ok(Ok(channel)) => return Ok(channel),
        Ok(Err(OpenError::Lost)) => return Err(connection.ended().await.into()),
        Ok(Err(refused)) => Miss::Refused(refused),
        Err(_) => Miss::Silent(engine::Error::Timeout(limit)),
    };
    Err(search.unexplained(route, missed, String::new()))
}

struct Search<'a> {
    connection: &'a Connection,
    target: &'a Target,
}

impl Search<'_> {
    fn host(&self) -> String {
        self.target.address()
    }

    /// Opens a channel and pings the Engine. The outer error ends the search.
    async fn attempt(&self, route: &Route) -> Result<Result<EngineVersion, Miss>, Error> {
        let endpoint = route.endpoint();
        let opening = self.connection.open_in_turn(&endpoint);
        let channel = match tokio::time::timeout(ENGINE_TIMEOUT, opening).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(OpenError::Lost)) => return Err(self.connection.ended().await.into()),
            Ok(Err(refused)) => return Ok(Err(Miss::Refused(refused))),
            Err(_) => return Ok(Err(Miss::Silent(engine::Error::Timeout(ENGINE_TIMEOUT)))),
        };
        Ok(engine::ping(ChannelStream::from(channel), ENGINE_TIMEOUT).await.map_err(Miss::Silent))
    }

    /// What was found through a tool, unless it is reached without one by now: an Engine that has just begun to listen was
    /// not there at the first attempt.
    async fn unless_direct(
        &self,
        direct: &Route,
        missed: &Miss,
        found: (Route, EngineVersion),
    ) -> Result<(Route, EngineVersion), Error> {
        if matches!(missed, Miss::Refused(error) if !error.is_prohibited())
            && let Ok(engine) = self.attempt(direct).await?
        {
            return Ok((direct.clone(), engine));
        }
        Ok(found)
    }

    /// Tries each usable socket and, if forwarding is refused, each tool. `first` was already
    /// tried and failed with `missed`.
    async fn by_probe(&self, probe: &HostProbe, first: &Route, missed: Miss) -> Result<(Route, EngineVersion), Error> {
        let named = |path: &str| self.target.remote == Remote::Auto || self.target.remote.socket() == Some(path);
        let mut usable: Vec<Remote> =
            probe.usable().filter(|s| named(&s.path)).map(|s| Remote::Socket(s.path.clone())).collect();
        if let remote @ Remote::Tcp { .. } = &self.target.remote {
            usable.push(remote.clone());
        }
        let Some(socket) = usable.first().map(ToString::to_string) else { return Err(self.obstacle(probe)) };
        let mut complaints = Vec::new();
        let (mut missed, mut silent) = (Some(missed), None);
        for remote in usable {
            let direct = Route::direct(remote.clone());
            let miss = match missed.take_if(|_| direct == *first) {
                Some(miss) => miss,
                None => match self.attempt(&direct).await? {
                    Ok(engine) => return Ok((direct, engine)),
                    Err(miss) => miss,
                },
            };
            if let Miss::Silent(source) = miss {
                // The listener is no Engine: no tool would help.
                silent.get_or_insert((direct, source));
                continue;
            }
            for tool in probe.tools.iter().copied().filter(|tool| tool.endpoint(&remote).is_some()) {
                let route = Route { remote: remote.clone(), tool: Some(tool) };
                if let Ok(engine) = self.attempt(&route).await? {
                    let found = self.unless_direct(&direct, &miss, (route, engine)).await?;
                    if found.0.tool.is_some() {
                        tracing::info!("the server does not forward to {remote}; flows go through {}", tool.program());
                    }
                    return Ok(found);
                }
                complaints.extend(self.complaint(&route).await);
            }
        }
        Err(match silent {
            Some((route, source)) => Error::Engine { host: self.host(), socket: route.remote.to_string(), source },
            None if complaints.is_empty() => self.error(Obstacle::Prohibited { socket }),
            None => self.error(Obstacle::NotListening { socket, said: complaints.join("; ") }),
        })
    }

    /// Tries the usual sockets, and docker itself, for a server that did not run the probe but printed `said` instead: its
    /// login has a forced command, or a shell that is not like sh.
    async fn by_guessing(&self, first: &Route, missed: Miss, said: String) -> Result<(Route, EngineVersion), Error> {
        let plain = Route { tool: Some(Tool::Plain), ..Route::usual() };
        let guesses = GUESSES.map(|path| Route::direct(Remote::Socket(path.into())));
        for route in guesses.into_iter().chain([plain]) {
            if let Ok(engine) = self.attempt(&route).await? {
                return Ok((route, engine));
            }
        }
        Err(self.unexplained(first, missed, said))
    }

    /// The error if only the first attempt's result is known. `said` is the output of a fixed command there, if any.
    fn unexplained(&self, route: &Route, missed: Miss, said: String) -> Error {
        let (host, socket, user) = (self.host(), route.remote.to_string(), self.target.ssh.user.clone());
        match missed {
            Miss::Refused(source) => Error::Forwarding { host, socket, user, said, source },
            Miss::Silent(source) => Error::Engine { host, socket, source },
        }
    }

    /// The error of a listener that is no Engine, or of the user's command that failed with a message.
    async fn no_answer(&self, route: &Route, missed: Miss) -> Error {
        match self.complaint(route).await {
            Some(said) => self.error(Obstacle::Command { command: route.remote.to_string(), said }),
            None => self.unexplained(route, missed, String::new()),
        }
    }

    fn obstacle(&self, probe: &HostProbe) -> Error {
        let named = self.target.remote.socket();
        let denied = probe.sockets.iter().find(|socket| socket.access == Access::Denied);
        let denied = denied.filter(|socket| named.is_none_or(|path| path == socket.path));
        self.error(match denied {
            Some(socket) => Obstacle::Permission {
                socket: socket.path.clone(),
                listing: socket.listing.clone(),
                user: probe.user.clone(),
                new_login: probe.needs_new_login(),
            },
            None => Obstacle::NoSocket {
                looked: match named {
                    Some(path) => vec![path.into()],
                    None => probe.sockets.iter().map(|socket| socket.path.clone()).collect(),
                },
                docker_installed: probe.tools.contains(&Tool::Docker),
            },
        })
    }

    fn error(&self, obstacle: Obstacle) -> Error {
        Error::Obstacle { host: self.host(), obstacle }
    }

    /// The error message of a command that carried no data.
    async fn complaint(&self, route: &Route) -> Option<String> {
        let Endpoint::Command { name, command, .. } = route.endpoint() else { return None };
        let output = self.connection.run(&command, "", COMPLAINT).await.ok()?;
        let own = output.stdout.rsplit_once(BEGIN).map_or(&*output.stdout, |(_, own)| own.trim_start());
        let said = if output.stderr.is_empty() { own.to_owned() } else { output.stderr };
        (output.status != Some(0)).then(|| format!("{name}: {}", text::last_lines(&said, MOST_LINES).join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_kept_and_read_again() {
        for text in ["streamlocal:/run/user/1000/docker.sock", "socat:/run/docker.sock", "dial-stdio:/run/docker.sock"]
        {
            assert_eq!(text.parse::<Route>().expect("a route").to_string(), text);
        }
        for text in ["", "streamlocal:relative", "rm:/x", "socat:command:rm -rf /"] {
            assert_eq!(text.parse::<Route>(), Err(()), "{text}");
        }
    }
}
