//! Merges command line, profile, ssh_config and defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::local::LocalEndpoint;
use super::name::is_login_name;
use super::ssh_config::{self, Proxy, SshConfigSource};
use super::target::{IgnoredCheck, Target};
use super::{
    Access, AccessSetting, AuditSetting, CarrierSetting, ConfigFile, Destination, Error, Ignore, Jump, Mounts,
    MountsSetting, Paths, Policy, Ports, PortsConflict, Profile, Remote, Said, TunnelName, mounts_dir,
};
use crate::os::beneath::ARE_MOUNTED;
use crate::os::local as endpoint;
use crate::text;

/// With [`DEFAULT_KEEPALIVE_COUNT`] a dead peer is noticed within 12 s: a question after 4 s of
/// silence, another after 8, given up at 12.
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(4);
const DEFAULT_KEEPALIVE_COUNT: u32 = 2;
/// With these defaults: how long a host may stall while flows are open, if its system acknowledges what is sent. As in
/// ssh, for which a host may stall without end, `docker logs -f` then survives what passes.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);
const DEFAULT_MAX_CONNECTIONS: usize = 4;
/// Hours of a client that does not read at all, and minutes of one that reads too slowly.
const DEFAULT_SPILL: u64 = 1 << 30;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The options of the command line that override the files.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `-F`: as ssh's.
    pub ssh_config: Option<PathBuf>,
    pub local: Option<String>,
    pub remote: Option<String>,
    pub carrier: Option<CarrierSetting>,
    pub lazy: bool,
    pub remember: bool,
    pub ports: bool,
    pub mounts: bool,
    /// `--read-only`: the policy of that name, whatever `access` says.
    pub access_read_only: bool,
}

/// The profile's value, else that of `[defaults]`.
fn ignored_checks(name: &str, config: &ConfigFile, profile: &Profile) -> Vec<IgnoredCheck> {
    let settings = [(Some(name), &profile.audit), (None, &config.defaults.audit)];
    let of = |(profile, setting): (Option<&str>, &Option<AuditSetting>)| {
        let place = config.place(profile, "audit");
        let ignored = setting.clone().unwrap_or_default().ignore.into_iter();
        ignored.map(move |Ignore { check, reason }| IgnoredCheck { check, reason, place: place.clone() })
    };
    settings.into_iter().flat_map(of).collect()
}

/// The meaning of a TARGET on the command line.
pub(super) struct Identified<'a> {
    /// The tunnel's name.
    pub(super) name: TunnelName,
    pub(super) destination: Destination,
    pub(super) profile: Option<&'a Profile>,
    /// The Engine's socket on the host, of a URL with a path.
    pub(super) socket: Option<String>,
}

pub(super) fn identify<'a>(input: &str, config: &'a ConfigFile) -> Result<Identified<'a>, Error> {
    let Some(profile) = config.profiles.get(input) else {
        let (destination, socket) = Destination::parse_with_socket(input)?;
        let name = TunnelName::of_destination(&destination, socket.as_deref());
        return Ok(Identified { name, destination, profile: None, socket });
    };
    let host = Destination::parse(profile.host.as_deref().unwrap_or(input));
    let mut destination = host.map_err(|error| config.at(Some(input), "host", error))?;
    if let Some(user) = profile.user.as_ref().filter(|user| !is_login_name(user)) {
        let error = Error::Target { input: text::shown(user), reason: "it is not a login name" };
        return Err(config.at(Some(input), "user", error));
    }
    destination.user = profile.user.clone().or(destination.user);
    destination.port = profile.port.or(destination.port);
    Ok(Identified { name: TunnelName::of_profile(input)?, destination, profile: Some(profile), socket: None })
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
    // A profile's `allow` extends its own policy, not the stricter one of `--read-only`.
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
        identify(input, config).map(|identified| identified.name)
    }
}

/// Resolves a TARGET. `default_socket` is the local endpoint if none is configured.
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
    let Identified { name, destination, profile, socket } = identify(input, config)?;
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
        let options = ssh.identity_files.iter().map(|file| format!("IdentityFile={}", ssh_config::quoted_path(file)));
        ssh.for_ssh.extend(options);
    }
    if let Some(jump) = &profile.jump {
        let hops = match jump {
            Jump::One(hop) if hop == "none" => &[],
            Jump::One(hop) => std::slice::from_ref(hop),
            Jump::Chain(hops) => hops.as_slice(),
        };
        let hops = hops.iter().map(|hop| Destination::parse(hop)).collect::<Result<Vec<_>, _>>();
        let hops = hops.map_err(|error| config.at(Some(input), "jump", error))?;
        let named: Vec<String> = hops.iter().map(ToString::to_string).collect();
        ssh.for_ssh.push(format!("ProxyJump={}", if hops.is_empty() { "none".into() } else { named.join(",") }));
        ssh.proxy = if hops.is_empty() { Proxy::None } else { Proxy::Jump(hops) };
    }
    let local = match (&overrides.local, &profile.local) {
        (Some(local), _) => LocalEndpoint::parse(local)?,
        (None, Some(local)) => LocalEndpoint::parse(local).map_err(|error| config.at(Some(input), "local", error))?,
        // The same checks apply: its directory's name comes from the environment.
        (None, None) => match default_socket.to_str() {
            Some(path) => LocalEndpoint::parse(&format!("{}:{path}", endpoint::SCHEME))?,
            None => {
                let input = default_socket.to_string_lossy().into_owned();
                return Err(Error::Local { input, reason: "the path is not UTF-8, and DOCKER_HOST has to be" });
            }
        },
    };
    let remote = match (overrides.remote.as_ref().or(socket.as_ref()), &profile.remote, &defaults.remote) {
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
    let is_timed = [profile.keepalive.is_some(), ssh.keepalive.is_some(), defaults.keepalive.is_some()];
    let is_counted =
        [profile.keepalive_count.is_some(), ssh.keepalive_count.is_some(), defaults.keepalive_count.is_some()];
    let is_default = ![is_timed, is_counted].concat().contains(&true);
    let api = profile.api.or(defaults.api).unwrap_or(true);
    let mounts = mounts_of(input, &name, config, profile, overrides, &paths)?;
    let mounts_in_vain = mounts.as_ref().and_then(|_| vain(&access, api, &remote));
    let mounts = mounts.filter(|_| mounts_in_vain.is_none());
    // Published ports and mounts follow the Engine's events, which takes a connection.
    let stays = ports != Ports::Off || mounts.is_some();
    let ports_conflict = profile.ports_conflict.unwrap_or_default();
    if ports_conflict == PortsConflict::Refuse && !api && !access.is_limited() {
        let place = config.place(Some(input), "ports_conflict").unwrap_or_else(|| input.to_owned());
        let reason = "`ports_conflict = \"refuse\"` cannot hold with `api = false`: no request is read".to_owned();
        return Err(Error::Setting { name: place, reason });
    }
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
        patience: is_default.then_some(DEFAULT_PATIENCE),
        max_connections: profile
            .max_connections
            .or(defaults.max_connections)
            .map_or(DEFAULT_MAX_CONNECTIONS, |most| usize::from(most.get())),
        spill: profile.spill.or(defaults.spill).map_or(DEFAULT_SPILL, |size| size.0),
        connect_timeout,
        drain: time(profile.drain, None, defaults.drain).unwrap_or(DEFAULT_DRAIN),
        wait: time(profile.wait, None, defaults.wait).unwrap_or(DEFAULT_WAIT),
        said,
        has_profile,
        lazy_in_vain: lazy && stays,
        idle_timeout: (lazy && !stays)
            .then(|| time(profile.idle_timeout, None, defaults.idle_timeout).unwrap_or(DEFAULT_IDLE_TIMEOUT)),
        ssh,
        ssh_config,
        remember: overrides.remember,
        access,
        ports,
        api,
        eager_ping: profile.eager_ping.or(defaults.eager_ping).unwrap_or(true),
        server_nodelay: profile.server_nodelay.or(defaults.server_nodelay).unwrap_or(false),
        carrier: overrides.carrier.or(profile.carrier).or(defaults.carrier).unwrap_or_default(),
        ports_fallback: profile.ports_fallback.unwrap_or(false),
        ports_conflict,
        ports_address: profile.ports_address,
        mounts,
        mounts_in_vain,
        audit_ignore: ignored_checks(input, config, profile),
    })
}

/// The directories that containers may mount, by the profile and the option.
fn mounts_of(
    input: &str,
    name: &TunnelName,
    config: &ConfigFile,
    profile: &Profile,
    overrides: &Overrides,
    paths: &Paths,
) -> Result<Option<Mounts>, Error> {
    let setting = match &profile.mounts {
        None | Some(MountsSetting::Home(false)) => &MountsSetting::Home(overrides.mounts),
        Some(setting) => setting,
    };
    let dir = config.path.parent().unwrap_or(Path::new(""));
    Mounts::of(setting, profile.mounts_max, dir, mounts_dir(name)?, paths).map_err(|reason| Error::Setting {
        name: config.place(Some(input), "mounts").unwrap_or_else(|| input.to_owned()),
        reason: format!("`mounts`: {reason}"),
    })
}

/// Why no directory of this machine can be mounted.
fn vain(access: &Access, api: bool, remote: &Remote) -> Option<&'static str> {
    match remote {
        _ if !ARE_MOUNTED => Some("directories of this system cannot be mounted"),
        _ if access.only_looks() => Some("with `read-only` no container is created"),
        _ if !api && !access.is_limited() => Some("with `api = false` no request is read"),
        Remote::Tcp { .. } => Some("the Engine at the end of a TCP port may be on another host than the login"),
        Remote::Command(_) => Some("the Engine that a command leads to may be on another host than the login"),
        Remote::Auto | Remote::Socket(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Leg;

    fn config(text: &str) -> ConfigFile {
        ConfigFile::parse(text, Path::new("config.toml")).expect("valid")
    }

    fn resolved(input: &str, text: &str) -> Target {
        let overrides = Overrides { ssh_config: Some("none".into()), ..Overrides::default() };
        resolve(input, &config(text), &overrides, Path::new("/run/x.sock")).expect("resolved")
    }

    #[test]
    fn a_port_conflict_cannot_be_refused_where_no_request_is_read() {
        let resolved = |more: &str| {
            let text = format!("ssh_config = \"none\"\n[profiles.p]\nports_conflict = \"refuse\"\n{more}");
            resolve("p", &config(&text), &Overrides::default(), Path::new("/run/x.sock"))
        };
        assert!(resolved("").is_ok_and(|target| target.ports_conflict == PortsConflict::Refuse));
        assert!(resolved("api = false\naccess = \"containers\"").is_ok());
        let error = resolved("api = false").expect_err("it cannot hold").to_string();
        assert!(error.contains("config.toml") && error.contains("api = false"), "{error}");
    }

    #[test]
    fn a_profile_wins_over_defaults_and_defaults_over_what_is_built_in() {
        let text = "[defaults]\nkeepalive = \"9s\"\nconnect_timeout = \"3s\"\nremote = \"/d.sock\"\n\
                    [profiles.p]\nhost = \"u@h:2222\"\nuser = \"me\"\nkeepalive = \"0s\"\njump = \"j\"\n";
        let target = resolved("p", text);
        assert_eq!(target.name.as_str(), "p");
        assert_eq!(target.address(), "me@h:2222");
        assert_eq!(target.keepalive, None);
        assert_eq!((target.silence(), target.patience), (None, None));
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
    fn a_setting_for_keepalives_holds_with_flows_open_too() {
        let times = |text: &str| {
            let target = resolved("p", text);
            (target.silence().expect("keepalives").as_secs(), target.patience, target.keepalives())
        };
        let patience = Duration::from_secs(30);
        assert_eq!(times("[profiles.p]\n"), (12, Some(patience), 7));
        assert_eq!(times("[profiles.p]\nkeepalive = \"4s\"\n"), (12, None, 2));
        assert_eq!(times("[profiles.p]\nkeepalive_count = 4\n"), (20, None, 4));
        assert_eq!(times("[defaults]\nkeepalive = \"20s\"\n[profiles.p]\n"), (60, None, 2));
        assert_eq!(times("[defaults]\nkeepalive_count = 2\n[profiles.p]\n"), (12, None, 2));
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
        let way = |target: &Target| target.way(&Leg::default()).expect("a home");
        let text = "[profiles.straight]\nhost = \"h\"\n[profiles.far]\nhost = \"h\"\njump = [\"a\", \"u@b:2222\"]\n";
        assert_eq!(way(&resolved("straight", text)), None);
        let far = resolved("far", text);
        assert_eq!(way(&far).as_deref(), Some("a, u@b:2222"));
        let Proxy::Jump(hops) = &far.ssh.proxy else { panic!("a jump") };
        let hop_way = |index: usize| {
            let leg = Leg::default().hop(&hops[..index]);
            far.hop(&hops[index], &leg).expect("resolved").way(&leg).expect("a home")
        };
        assert_eq!(hop_way(0), None);
        assert_eq!(hop_way(1).as_deref(), Some("a"));
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
        assert!(matches!(target.hop(&hop, &Leg::default().hop(&[])), Err(Error::Target { .. })));
    }
}
