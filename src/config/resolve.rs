//! Puts command line, profile, ssh_config and defaults together.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha1::{Digest, Sha1};

use super::paths::check_socket_path;
use super::ssh_config::{self, Proxy, SshSettings};
use super::ssh_source::SshConfigSource;
use super::tokens::Tokens;
use super::{
    Access, AccessSetting, AuditSetting, ConfigFile, Destination, Error, Ignore, Jump, Paths, Policy, Ports, Profile,
    Remote, Said, TunnelName, is_profile_name,
};
use crate::shell_word::shell_word;
use crate::text;

/// With [`DEFAULT_KEEPALIVE_COUNT`] a dead peer is noticed within 12 s: a question after 4 s of
/// silence, another after 8, given up at 12.
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(4);
const DEFAULT_KEEPALIVE_COUNT: u32 = 2;
const DEFAULT_MAX_CONNECTIONS: usize = 4;
/// Hours of a client that does not read at all, and minutes of one that reads too slowly.
const DEFAULT_SPILL: u64 = 1 << 30;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Hops that are themselves reached through hops, and so on: ssh_config could go in circles.
const MAX_DEPTH: usize = 8;

/// What the command line says that the files may say otherwise.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `-F`: as ssh's.
    pub ssh_config: Option<PathBuf>,
    /// `--local`.
    pub local: Option<String>,
    /// `--remote`.
    pub remote: Option<String>,
    /// `--lazy`.
    pub lazy: bool,
    /// `--remember`.
    pub remember: bool,
    /// `--ports`.
    pub ports: bool,
    /// `--read-only`: the policy of that name, whatever `access` says.
    pub access_read_only: bool,
}

/// The local end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalEndpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// A loopback address; port 0 means any free one.
    Tcp(SocketAddr),
}

impl LocalEndpoint {
    /// Reads `unix:PATH` or `tcp:ADDRESS:PORT`.
    ///
    /// ```
    /// use dtunnel::config::LocalEndpoint;
    /// assert!(LocalEndpoint::parse("tcp:127.0.0.1:2375").is_ok());
    /// assert!(LocalEndpoint::parse("tcp:0.0.0.0:2375").is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::Local`] for anything that is not loopback or not absolute, [`Error::SocketPath`].
    pub fn parse(input: &str) -> Result<Self, Error> {
        let bad = |reason| Error::Local { input: input.escape_debug().to_string(), reason };
        if let Some(path) = input.strip_prefix("unix:") {
            let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
            if path.chars().any(char::is_control) {
                return Err(bad("the path holds control characters"));
            }
            // Clients read it out of a URL. Go's net/url refuses `%` without two digits, and java.net.URI takes it with
            // them for another character; docker-py takes what is behind `?` and `#` for no part of the path.
            if path.contains(['%', '?', '#']) {
                return Err(bad("Docker's clients could not find it: %, ? and # have a meaning in unix:// addresses"));
            }
            let path = PathBuf::from(path);
            if !path.is_absolute() || path.file_name().is_none() {
                return Err(bad("the path is not absolute"));
            }
            check_socket_path(&path)?;
            return Ok(Self::Unix(path));
        }
        // As with --remote, a path stands for itself.
        if input.starts_with('/') {
            return Self::parse(&format!("unix:{input}"));
        }
        let Some(address) = input.strip_prefix("tcp:") else {
            return Err(bad("it is neither unix:PATH, an absolute path nor tcp:ADDRESS:PORT"));
        };
        let address = address.strip_prefix("//").unwrap_or(address);
        let address = match address.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => address.into(),
        };
        let address: SocketAddr = address.parse().map_err(|_| bad("it is not ADDRESS:PORT"))?;
        let loopback = match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        };
        if loopback { Ok(Self::Tcp(address)) } else { Err(bad("only a loopback address is private to this machine")) }
    }

    /// As docker's `DOCKER_HOST` wants it: `unix:///path` or `tcp://127.0.0.1:2375`.
    pub fn docker_host(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix://{}", path.display()),
            Self::Tcp(address) => format!("tcp://{address}"),
        }
    }
}

/// A check of `dtunnel audit` whose findings do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredCheck {
    /// Its name.
    pub check: String,
    /// Why.
    pub reason: Option<String>,
    /// Where the configuration says so, `FILE:LINE:COLUMN`.
    pub place: Option<String>,
}

/// The profile's, then everybody's.
fn ignored_checks(name: &str, config: &ConfigFile, profile: &Profile) -> Vec<IgnoredCheck> {
    let settings = [(Some(name), &profile.audit), (None, &config.defaults.audit)];
    let of = |(profile, setting): (Option<&str>, &Option<AuditSetting>)| {
        let place = config.place(profile, "audit");
        let ignored = setting.clone().unwrap_or_default().ignore.into_iter();
        ignored.map(move |Ignore { check, reason }| IgnoredCheck { check, reason, place: place.clone() })
    };
    settings.into_iter().flat_map(of).collect()
}

/// A target, resolved: all that a tunnel needs to know.
#[derive(Debug, Clone)]
pub struct Target {
    /// The tunnel's name.
    pub name: TunnelName,
    /// The host as the user names it: the ssh_config alias, the name or the address.
    pub destination: Destination,
    /// How to get there and log in.
    pub ssh: SshSettings,
    /// The local end.
    pub local: LocalEndpoint,
    /// Where the Engine is on the host.
    pub remote: Remote,
    /// Silence after which the server is asked for a sign of life; None never asks.
    pub keepalive: Option<Duration>,
    /// Unanswered questions after which the connection is given up.
    pub keepalive_count: u32,
    /// SSH connections at once.
    pub max_connections: usize,
    /// Most bytes on disk for one client that does not read.
    pub spill: u64,
    /// Longest time for TCP and for the key exchange, each.
    pub connect_timeout: Duration,
    /// Longest time for which busy flows may finish at the end.
    pub drain: Duration,
    /// Longest time for which a new flow waits for a connection.
    pub wait: Duration,
    /// After how long without a flow a lazy tunnel closes its connections; None for one that is not
    /// lazy.
    pub idle_timeout: Option<Duration>,
    /// ssh_config of the hops.
    pub ssh_config: SshConfigSource,
    /// Keep in the system keyring what people answer and the server accepts.
    pub remember: bool,
    /// What clients may ask of the Engine.
    pub access: Access,
    /// Which published ports are brought here.
    pub ports: Ports,
    /// Take another local port where the published one cannot be had.
    pub ports_fallback: bool,
    /// The local address for ports that are published on every address; None: loopback.
    pub ports_address: Option<IpAddr>,
    /// What `dtunnel audit` does not count.
    pub audit_ignore: Vec<IgnoredCheck>,
    /// Was it said to be lazy, which it cannot be with ports?
    lazy_in_vain: bool,
    /// What of this the configuration says.
    pub(super) said: Said,
    /// Is there a profile of its name?
    pub has_profile: bool,
    /// How many targets this one is a hop for.
    depth: usize,
    /// The hops before this one, where it is one itself.
    before: Vec<Destination>,
}

/// A login name goes to `ssh -G` as an argument, and is shown.
fn check_user(user: &str) -> Result<(), Error> {
    // The same as in `user@host`.
    match Destination::parse(&format!("{user}@host")) {
        Ok(destination) if destination.user.as_deref() == Some(user) => Ok(()),
        Ok(_) => Err(Error::Target { input: text::shown(user), reason: "it is no login name" }),
        Err(error) => Err(error),
    }
}

/// What a TARGET on the command line stands for: its tunnel's name, the place, and the profile.
pub(super) fn identify<'a>(
    input: &str,
    config: &'a ConfigFile,
) -> Result<(TunnelName, Destination, Option<&'a Profile>), Error> {
    let Some(profile) = config.profiles.get(input) else {
        let destination = Destination::parse(input)?;
        return Ok((TunnelName::of_destination(&destination), destination, None));
    };
    let host = Destination::parse(profile.host.as_deref().unwrap_or(input));
    let mut destination = host.map_err(|error| config.at(Some(input), "host", error))?;
    if let Some(user) = &profile.user {
        check_user(user).map_err(|error| config.at(Some(input), "user", error))?;
    }
    destination.user = profile.user.clone().or(destination.user);
    destination.port = profile.port.or(destination.port);
    Ok((TunnelName::of_profile(input)?, destination, Some(profile)))
}

/// What clients may ask of the Engine.
pub(super) fn access_of(
    input: &str,
    name: &TunnelName,
    profile: Option<&Profile>,
    config: &ConfigFile,
    overrides: &Overrides,
) -> Result<Access, Error> {
    let access = match overrides.access_read_only {
        true => Some(&AccessSetting::One(Policy::ReadOnly)),
        false => profile.and_then(|profile| profile.access.as_ref()).or(config.defaults.access.as_ref()),
    };
    // What a profile allows beyond its own policy is not meant for a stricter one.
    let allow = profile.and_then(|profile| profile.allow.as_deref()).filter(|_| !overrides.access_read_only);
    let binds = profile.and_then(|profile| profile.allowed_binds.as_deref());
    let access = Access::new(access, allow.unwrap_or_default(), binds.unwrap_or_default());
    let mut access = access.map_err(|(key, reason)| {
        let place = config.place(Some(input), key).or_else(|| config.place(None, key));
        Error::Setting { name: place.unwrap_or_else(|| name.to_string()), reason }
    })?;
    access.allow_place = config.place(Some(input), "allow");
    Ok(access)
}

impl TunnelName {
    /// The tunnel's name of a TARGET, without asking ssh_config.
    ///
    /// # Errors
    /// [`Error::Target`].
    pub fn of_target(input: &str, config: &ConfigFile) -> Result<Self, Error> {
        identify(input, config).map(|(name, _, _)| name)
    }
}

/// Resolves a TARGET. `default_socket` is the local endpoint where nobody names one.
///
/// # Errors
/// Each of [`Error`].
pub fn resolve(
    input: &str,
    config: &ConfigFile,
    overrides: &Overrides,
    default_socket: &Path,
) -> Result<Target, Error> {
    let paths = Paths::new()?;
    let (name, destination, profile) = identify(input, config)?;
    let said = Said::of(profile, config);
    let has_profile = profile.is_some();
    let none = Profile::default();
    let profile = profile.unwrap_or(&none);
    let defaults = &config.defaults;

    let ssh_config = match overrides.ssh_config.as_deref().or(config.ssh_config.as_deref().map(Path::new)) {
        Some(option) => ssh_config::source_of(option, &paths),
        None => SshConfigSource::Default,
    };
    let mut ssh = ssh_config::query(&destination, &ssh_config, &paths)?;
    if let Some(files) = &profile.identity_files {
        ssh.identity_files = files.iter().map(|file| paths.expand_home(file)).collect();
    }
    if let Some(jump) = &profile.jump {
        let hops = match jump {
            Jump::One(hop) if hop == "none" => &[],
            Jump::One(hop) => std::slice::from_ref(hop),
            Jump::Chain(hops) => hops.as_slice(),
        };
        let hops = hops.iter().map(|hop| Destination::parse(hop)).collect::<Result<Vec<_>, _>>();
        let hops = hops.map_err(|error| config.at(Some(input), "jump", error))?;
        ssh.proxy = if hops.is_empty() { Proxy::None } else { Proxy::Jump(hops) };
    }
    let local = match (&overrides.local, &profile.local) {
        (Some(local), _) => LocalEndpoint::parse(local)?,
        (None, Some(local)) => LocalEndpoint::parse(local).map_err(|error| config.at(Some(input), "local", error))?,
        // By way of the same checks: its directory's name comes from the environment.
        (None, None) => match default_socket.to_str() {
            Some(path) => LocalEndpoint::parse(&format!("unix:{path}"))?,
            None => {
                let input = default_socket.to_string_lossy().into_owned();
                return Err(Error::Local { input, reason: "the path is not UTF-8, and DOCKER_HOST has to be" });
            }
        },
    };
    let remote = match (&overrides.remote, &profile.remote, &defaults.remote) {
        (Some(remote), ..) => Remote::parse(remote)?,
        (None, Some(remote), _) => Remote::parse(remote).map_err(|error| config.at(Some(input), "remote", error))?,
        (None, None, Some(remote)) => Remote::parse(remote).map_err(|error| config.at(None, "remote", error))?,
        (None, None, None) => Remote::Auto,
    };
    let access = access_of(input, &name, Some(profile), config, overrides)?;
    let ports = match (overrides.ports, profile.ports.as_ref().map(Ports::from).unwrap_or_default()) {
        (true, Ports::Off) => Ports::All,
        (_, ports) => ports,
    };
    let lazy = overrides.lazy || profile.lazy.or(defaults.lazy).unwrap_or(false);
    let time = |of_profile: Option<super::Duration>, of_ssh: Option<Duration>, of_defaults: Option<super::Duration>| {
        of_profile.map(|d| d.0).or(of_ssh).or(of_defaults.map(|d| d.0))
    };
    let keepalive = time(profile.keepalive, ssh.keepalive, defaults.keepalive).unwrap_or(DEFAULT_KEEPALIVE);
    let connect_timeout =
        time(profile.connect_timeout, ssh.connect_timeout, defaults.connect_timeout).unwrap_or(DEFAULT_CONNECT_TIMEOUT);
    Ok(Target {
        name,
        destination,
        local,
        remote,
        keepalive: (!keepalive.is_zero()).then_some(keepalive),
        keepalive_count: profile
            .keepalive_count
            .or(ssh.keepalive_count)
            .or(defaults.keepalive_count)
            .unwrap_or(DEFAULT_KEEPALIVE_COUNT),
        max_connections: profile
            .max_connections
            .or(defaults.max_connections)
            .map_or(DEFAULT_MAX_CONNECTIONS, |most| usize::from(most.get())),
        spill: profile.spill.or(defaults.spill).map_or(DEFAULT_SPILL, |size| size.0),
        connect_timeout,
        drain: time(profile.drain, None, defaults.drain).unwrap_or(DEFAULT_DRAIN),
        wait: time(profile.wait, None, defaults.wait).unwrap_or(DEFAULT_WAIT),
        // Published ports are learnt from the Engine's events, which takes a connection.
        said,
        has_profile,
        lazy_in_vain: lazy && ports != Ports::Off,
        idle_timeout: (lazy && ports == Ports::Off)
            .then(|| time(profile.idle_timeout, None, defaults.idle_timeout).unwrap_or(DEFAULT_IDLE_TIMEOUT)),
        ssh,
        ssh_config,
        remember: overrides.remember,
        access,
        ports,
        ports_fallback: profile.ports_fallback.unwrap_or(false),
        ports_address: profile.ports_address,
        audit_ignore: ignored_checks(input, config, profile),
        depth: 0,
        before: Vec::new(),
    })
}

impl Target {
    /// The settings of a hop on the way, from the same ssh_config. As with `ssh -J`, the nearest one is
    /// reached as its own ProxyJump or ProxyCommand says, the others through those `before` them. A hop that is said to be reached through itself (as `Host *` easily does) is reached
    /// directly.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn hop(&self, destination: &Destination, before: &[Destination]) -> Result<Target, Error> {
        let mut ssh = ssh_config::query(destination, &self.ssh_config, &Paths::new()?)?;
        let depth = self.depth + 1;
        let through_itself =
            matches!(&ssh.proxy, Proxy::Jump(hops) if hops.iter().any(|hop| hop.host == destination.host));
        if !before.is_empty() || through_itself || depth > MAX_DEPTH {
            ssh.proxy = Proxy::None;
        }
        Ok(Self { ssh, destination: destination.clone(), depth, before: before.to_vec(), ..self.clone() })
    }

    /// Is this a host on the way to another one?
    pub fn is_hop(&self) -> bool {
        self.depth > 0
    }

    /// Was it asked to connect on first use?
    pub(super) fn is_lazy(&self) -> bool {
        self.idle_timeout.is_some() || self.lazy_in_vain
    }

    /// `user@host:port` for people, as connected to.
    pub fn address(&self) -> String {
        let destination = Destination {
            user: Some(self.ssh.user.clone()),
            host: self.ssh.host_name.clone(),
            port: Some(self.ssh.port),
        };
        destination.to_string()
    }

    /// These settings for a tunnel that is running: what takes a restart stays as it is there. The local endpoint that was
    /// wanted, where it is another one.
    pub fn for_running(&mut self, running: &Self) -> Option<LocalEndpoint> {
        if self.local == running.local {
            return None;
        }
        self.said.keep_what_takes_a_restart(&running.said);
        Some(std::mem::replace(&mut self.local, running.local.clone()))
    }

    /// Do both lead to the same host by the same way, and to the same Engine there?
    pub fn ends_as(&self, other: &Self) -> bool {
        self.ssh == other.ssh && self.remote == other.remote
    }

    /// Would the same connection do for both?
    pub fn leads_as(&self, other: &Self) -> bool {
        self.ends_as(other) && (self.keepalive, self.keepalive_count) == (other.keepalive, other.keepalive_count)
    }

    /// The TARGET that leads here, as a word for a line that is to be typed.
    pub fn typed(&self) -> String {
        let name = self.name.as_str();
        shell_word(&if is_profile_name(name) { name.to_owned() } else { self.destination.to_string() })
    }

    /// `user@host`, for people.
    pub fn account(&self) -> String {
        format!("{}@{}", self.ssh.user, self.ssh.host_name)
    }

    /// How the host is reached, in a form that differs where the way does: the hops as they are written, or a
    /// digest of the ProxyCommand (which may hold what is not for every eye). None: directly.
    ///
    /// # Errors
    /// [`Error::NoHome`].
    pub fn way(&self) -> Result<Option<String>, Error> {
        let hops = match &self.ssh.proxy {
            _ if !self.before.is_empty() => &self.before,
            Proxy::Jump(hops) => hops,
            Proxy::None => return Ok(None),
            Proxy::Command(command) => {
                let digest = Sha1::digest(self.expand_proxy_command(command)?);
                let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                return Ok(Some(format!("a ProxyCommand ({hash})")));
            }
        };
        Ok(Some(hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
    }

    /// What the user should know, such as keywords of ssh_config that matter here and are not obeyed.
    pub fn warnings(&self) -> Vec<String> {
        let keywords = self.ssh.not_obeyed.iter();
        let mut warnings: Vec<String> = keywords
            .map(|keyword| format!("ssh_config sets `{keyword}` for this host; dtunnel does not obey it"))
            .collect();
        if self.lazy_in_vain {
            warnings.push("with published ports a tunnel stays connected: `lazy` is passed over".into());
        }
        if let Some(address) = self.ports_address.filter(|address| !address.is_loopback() && self.ports != Ports::Off) {
            warnings.push(format!("published ports are opened on {address}, where others can reach them"));
        }
        warnings
    }

    /// ProxyCommand with its tokens replaced (ssh_config(5), "TOKENS").
    ///
    /// # Errors
    /// [`Error::NoHome`].
    pub fn expand_proxy_command(&self, command: &str) -> Result<String, Error> {
        let tokens = Tokens {
            alias: &self.destination.host,
            host_name: &self.ssh.host_name,
            port: self.ssh.port,
            user: &self.ssh.user,
            host_key_alias: self.ssh.host_key_alias.as_deref(),
            paths: &Paths::new()?,
        };
        Ok(tokens.replace(command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> ConfigFile {
        ConfigFile::parse(text, Path::new("config.toml")).expect("valid")
    }

    fn resolved(input: &str, text: &str) -> Target {
        let overrides = Overrides { ssh_config: Some("none".into()), ..Overrides::default() };
        resolve(input, &config(text), &overrides, Path::new("/run/x.sock")).expect("resolved")
    }

    #[test]
    fn a_profile_wins_over_defaults_and_defaults_over_what_is_built_in() {
        let text = "[defaults]\nkeepalive = \"9s\"\nconnect_timeout = \"3s\"\nremote = \"/d.sock\"\n\
                    [profiles.p]\nhost = \"u@h:2222\"\nuser = \"me\"\nkeepalive = \"0s\"\njump = \"j\"\n";
        let target = resolved("p", text);
        assert_eq!(target.name.as_str(), "p");
        assert_eq!(target.address(), "me@h:2222");
        assert_eq!(target.keepalive, None);
        assert_eq!(target.connect_timeout, Duration::from_secs(3));
        assert_eq!(target.remote, Remote::Socket("/d.sock".into()));
        assert_eq!((target.wait, target.idle_timeout), (DEFAULT_WAIT, None));
        assert_eq!(target.drain, DEFAULT_DRAIN);
        assert_eq!((target.spill, resolved("h", "[defaults]\nspill = \"2MiB\"\n").spill), (DEFAULT_SPILL, 2 << 20));
        assert_eq!(resolved("p", "[defaults]\nspill = 9\n[profiles.p]\nspill = 0\n").spill, 0);
        assert_eq!(target.ssh.proxy, Proxy::Jump(vec![Destination::parse("j").expect("a target")]));
        assert_eq!(target.local.docker_host(), "unix:///run/x.sock");
    }

    #[test]
    fn the_command_line_wins_over_the_profile() {
        let overrides = Overrides {
            ssh_config: Some("none".into()),
            local: Some("tcp:localhost:0".into()),
            remote: Some("tcp:127.0.0.1:2375".into()),
            lazy: true,
            ..Overrides::default()
        };
        let config = config("[profiles.p]\nlocal = \"unix:/l\"\nremote = \"/p.sock\"\nidle_timeout = \"3m\"\n");
        let target = resolve("p", &config, &overrides, Path::new("/run/x.sock")).expect("resolved");
        assert_eq!(target.local.docker_host(), "tcp://127.0.0.1:0");
        assert_eq!(target.remote, Remote::Tcp { host: "127.0.0.1".into(), port: 2375 });
        assert_eq!(target.idle_timeout, Some(Duration::from_secs(180)));
    }

    #[test]
    fn the_way_to_a_host_is_part_of_what_it_is() {
        let way = |target: &Target| target.way().expect("a home");
        let text = "[profiles.straight]\nhost = \"h\"\n[profiles.far]\nhost = \"h\"\njump = [\"a\", \"u@b:2222\"]\n";
        assert_eq!(way(&resolved("straight", text)), None);
        let far = resolved("far", text);
        assert_eq!(way(&far).as_deref(), Some("a, u@b:2222"));
        let Proxy::Jump(hops) = &far.ssh.proxy else { panic!("a jump") };
        assert_eq!(way(&far.hop(&hops[0], &[]).expect("resolved")), None);
        assert_eq!(way(&far.hop(&hops[1], &hops[..1]).expect("resolved")).as_deref(), Some("a"));
        let mut by_command = resolved("h", "");
        by_command.ssh.proxy = Proxy::Command("nc %h".into());
        let one = way(&by_command);
        by_command.ssh.proxy = Proxy::Command("nc -x %h".into());
        assert!(one.is_some() && one != way(&by_command));
    }

    #[test]
    fn a_name_that_could_be_a_command_is_refused_for_hosts_hops_and_users() {
        let overrides = Overrides { ssh_config: Some("none".into()), ..Overrides::default() };
        let text = "[profiles.host]\nhost = \"a$(touch)\"\n[profiles.user]\nhost = \"h\"\nuser = \"a`touch`\"\n";
        for input in ["a$(touch)", "a;b", "u'u@h", "host", "user"] {
            let resolved = resolve(input, &config(text), &overrides, Path::new("/run/x.sock"));
            assert!(matches!(resolved, Err(Error::Target { .. })), "{input}");
        }
        let target = resolved("h", "");
        let hop = Destination { user: None, host: "a$(touch)".into(), port: None };
        assert!(matches!(target.hop(&hop, &[]), Err(Error::Target { .. })));
    }

    #[test]
    fn only_what_is_private_to_this_machine_can_be_a_local_endpoint() {
        for input in [
            "tcp:0.0.0.0:1",
            "tcp:192.0.2.1:1",
            "tcp:[::]:1",
            "tcp:127.0.0.1",
            "unix:rel",
            "unix:/a\nb",
            "x",
            "unix:/a%zz",
            "unix:/a%20b",
            "/a?b",
            "unix:///a#b",
        ] {
            assert!(LocalEndpoint::parse(input).is_err(), "{input:?} was accepted");
        }
        assert_eq!(LocalEndpoint::parse("unix:///a/b").expect("valid"), LocalEndpoint::Unix("/a/b".into()));
        assert_eq!(LocalEndpoint::parse("/a/b").expect("valid"), LocalEndpoint::Unix("/a/b".into()));
        assert!(LocalEndpoint::parse("tcp:[::1]:2375").is_ok());
        assert_eq!(LocalEndpoint::parse("/a b/é;@[").expect("valid").docker_host(), "unix:///a b/é;@[");
        assert!(matches!(
            LocalEndpoint::parse(&format!("unix:/{}", "x".repeat(200))),
            Err(Error::SocketPath { length: 201, .. })
        ));
    }
}
