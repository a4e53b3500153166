//! `config.toml`: its shape, and what is refused in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use super::keys::{Places, check_keys, places, position, section};
use super::nearest::nearest;
use super::values::{AuditSetting, Duration, Jump};
use super::{
    AccessSetting, CarrierSetting, Destination, Error, MountsSetting, PortsConflict, PortsSetting, Size, allowed,
    trusted_file,
};
use crate::bounded;

/// Largest configuration file that is read, in bytes: far above any real one.
const MAX_FILE: u64 = 1 << 20;
/// How long reading it may take: it may be a pipe, or on a network drive that is gone.
const READING: std::time::Duration = std::time::Duration::from_secs(10);

/// The configuration file of dtunnel, `config.toml`. Every key is optional.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// The ssh_config file to read in place of the user's own, as `ssh -F`; `"none"` reads no
    /// ssh_config at all.
    #[serde(default)]
    pub ssh_config: Option<String>,
    /// The target that is meant where none is named: a profile, `[user@]host[:port]` or a Host of ssh_config.
    #[serde(default)]
    pub default: Option<String>,
    /// What holds for every tunnel where neither its profile nor ssh_config says otherwise.
    #[serde(default)]
    pub defaults: Defaults,
    /// Named targets.
    #[serde(default)]
    pub profiles: BTreeMap<String, Profile>,
    /// The file this was read from; the default one even when it does not exist.
    #[serde(skip)]
    pub path: PathBuf,
    /// Where each setting stands, `FILE:LINE:COLUMN`.
    #[serde(skip)]
    places: Places,
}

/// Settings of every tunnel. (User, port and identity files for every host belong in ssh_config,
/// under `Host *`, where ssh finds them too.)
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// The Engine on the host: `auto`, a socket's path, `tcp:ADDRESS:PORT`, or `command:…` whose
    /// standard input and output are the Engine's; default `auto`.
    pub remote: Option<String>,
    /// After this long without a word from the server it is asked for a sign of life; `"0s"` never
    /// asks. Default `"4s"`.
    pub keepalive: Option<Duration>,
    /// How many such questions may go unanswered before the connection is given up; default 2.
    #[serde(default, deserialize_with = "allowed::count")]
    pub keepalive_count: Option<u32>,
    /// SSH connections that a tunnel may have at once, 1 to 16; default 4.
    #[serde(default, deserialize_with = "allowed::connections")]
    #[cfg_attr(test, schemars(range(min = 1, max = 16)))]
    pub max_connections: Option<NonZeroU8>,
    /// Most bytes that are kept on disk for one client which does not read, where others need its SSH
    /// connection: a number or text such as `"512MiB"`; `0` keeps none. Default `"1GiB"`.
    pub spill: Option<Size>,
    /// Longest time for TCP and for the SSH key exchange, each; default `"10s"`.
    pub connect_timeout: Option<Duration>,
    /// Longest time for which `down` lets busy flows finish; default `"5s"`.
    pub drain: Option<Duration>,
    /// Longest time for which a command waits while the connection is being made again; default
    /// `"30s"`.
    pub wait: Option<Duration>,
    /// Connect on first use, and close what is not used for `idle_timeout`.
    #[serde(default, deserialize_with = "allowed::flag")]
    pub lazy: Option<bool>,
    /// After this long without a flow a lazy tunnel closes its connections; default `"15m"`.
    pub idle_timeout: Option<Duration>,
    /// Read the requests of clients along, so that each finds its own way to the Engine; default `true`. `false` binds a
    /// client to one channel for as long as it is connected.
    #[serde(default, deserialize_with = "allowed::flag")]
    pub api: Option<bool>,
    /// Answer the ping of a docker command from the Engine's last answer, at most 30 s old; default `true`.
    #[serde(default, deserialize_with = "allowed::flag")]
    pub eager_ping: Option<bool>,
    /// Run `true` on the host after each login, so that its sshd sends without delay; default `false`.
    #[serde(default, deserialize_with = "allowed::flag")]
    pub server_nodelay: Option<bool>,
    /// Which SSH carries tunnels: dtunnel's own (`"native"`), the machine's (`"openssh"`), or `"auto"` (default), which
    /// takes the machine's where it is needed.
    pub carrier: Option<CarrierSetting>,
    /// What may be asked of the Engine: `"full"`, `"read-only"`, `"containers"`, `"build"`,
    /// `"no-privileged"`, or several of the last four in a list; default `"full"`.
    pub access: Option<AccessSetting>,
    /// What `dtunnel audit` does not count.
    pub audit: Option<AuditSetting>,
}

/// A named target. What it leaves out comes from ssh_config for its host, then from `[defaults]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Host name, address, or a Host of ssh_config; default: the profile's own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Login name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// TCP port of the SSH server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "allowed::port")]
    #[cfg_attr(test, schemars(range(min = 1, max = 65535)))]
    pub port: Option<u16>,
    /// Private keys to log in with, in this order, in place of ssh_config's; `~/` is the home
    /// directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_files: Option<Vec<String>>,
    /// Hosts to go through, nearest first: one `[user@]host[:port]` or a list; `"none"` goes
    /// straight even where ssh_config says ProxyJump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jump: Option<Jump>,
    /// The local endpoint: `unix:PATH` or `tcp:127.0.0.1:PORT` (port 0: any free one).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// The Engine on the host: `auto`, a socket's path, `tcp:ADDRESS:PORT`, or `command:…` whose
    /// standard input and output are the Engine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// After this long without a word from the server it is asked for a sign of life; `"0s"` never
    /// asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<Duration>,
    /// How many such questions may go unanswered before the connection is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "allowed::count")]
    pub keepalive_count: Option<u32>,
    /// SSH connections that a tunnel may have at once, 1 to 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "allowed::connections")]
    #[cfg_attr(test, schemars(range(min = 1, max = 16)))]
    pub max_connections: Option<NonZeroU8>,
    /// Most bytes that are kept on disk for one client which does not read, where others need its SSH
    /// connection: a number or text such as `"512MiB"`; `0` keeps none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spill: Option<Size>,
    /// Longest time for TCP and for the SSH key exchange, each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
    /// Longest time for which `down` lets busy flows finish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Duration>,
    /// Longest time for which a command waits while the connection is being made again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<Duration>,
    /// Connect on first use, and close what is not used for `idle_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "allowed::flag")]
    pub lazy: Option<bool>,
    /// After this long without a flow a lazy tunnel closes its connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// Read the requests of clients along, so that each finds its own way to the Engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "allowed::flag")]
    pub api: Option<bool>,
    /// Answer the ping of a docker command from the Engine's last answer, at most 30 s old.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "allowed::flag")]
    pub eager_ping: Option<bool>,
    /// Run `true` on the host after each login, so that its sshd sends without delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "allowed::flag")]
    pub server_nodelay: Option<bool>,
    /// Which SSH carries the tunnel: dtunnel's own (`"native"`), the machine's (`"openssh"`), or `"auto"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier: Option<CarrierSetting>,
    /// What may be asked of the Engine: `"full"`, `"read-only"`, `"containers"`, `"build"`,
    /// `"no-privileged"`, or several of the last four in a list (docs/security.md, "The guard").
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessSetting>,
    /// Operations that may be asked for beyond `access`, such as `"containers.archive"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// Directories of the host that containers may be given in spite of `"no-privileged"`: exactly these, for writing
    /// too. One that ends in `/` is meant with all that is below it, for reading only (`:ro`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_binds: Option<Vec<String>>,
    /// Which published TCP ports are brought to this machine: `true`, `"ask"`, or a list of rules such as
    /// `"8080"`, `"3000-3999"`, `"web-*:80"` and `"!web-3"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortsSetting>,
    /// Take another local port where the published one is taken or privileged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "allowed::flag")]
    pub ports_fallback: Option<bool>,
    /// What happens to a container that is started through the tunnel if a local port of its is taken: `"warn"` (default)
    /// or `"refuse"`, which stops it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports_conflict: Option<PortsConflict>,
    /// The local address for ports that are published on every address of the host; default: loopback.
    /// With any other address others can reach them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "allowed::address")]
    pub ports_address: Option<IpAddr>,
    /// Directories of this machine that containers on the host may mount: `true` for what is below the home directory, or
    /// a list such as `"~/src"`, `"."` (the configuration's directory) and `"host:/srv"` (left to the host).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<MountsSetting>,
    /// Most bytes below one such directory: a number or text such as `"2GiB"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts_max: Option<Size>,
    /// What `dtunnel audit` does not count, beyond `[defaults]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditSetting>,
    /// A description for people, shown by `profile list`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl ConfigFile {
    /// Reads the file at `path`. A file that does not exist is an empty configuration, unless it
    /// was `named` by the user.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Syntax`], [`Error::UnknownKey`], the last two with line and column.
    pub fn load(path: &Path, named: bool) -> Result<Self, Error> {
        let failed = |source| Error::File { action: "read", path: path.into(), source };
        let file = path.to_owned();
        let read = bounded::within(READING, "configuration", move || read(&file, named)).map_err(failed)?;
        let late = || {
            let why = format!("it could not be read within {} s", READING.as_secs());
            Err(failed(io::Error::new(io::ErrorKind::TimedOut, why)))
        };
        Self::parse(&read.unwrap_or_else(late)?, path)
    }

    /// Was the file read, or found absent? Otherwise the user's settings are unknown.
    pub fn is_read(&self) -> bool {
        !self.path.as_os_str().is_empty()
    }

    /// Reads `text` as the contents of `path`.
    ///
    /// # Errors
    /// As [`ConfigFile::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let syntax = |offset: usize, message: &str| {
            let (line, column) = position(text, offset);
            Error::Syntax { path: path.into(), line, column, message: message.trim_end().replace('\n', ": ") }
        };
        let of_toml = |e: toml::de::Error| syntax(e.span().map_or(0, |span| span.start), e.message());
        let table = DeTable::parse(text).map_err(of_toml)?;
        check_keys(text, path, table.get_ref())?;
        let mut config: Self = toml::from_str(text).map_err(of_toml)?;
        if let Some(default) = &config.default
            && !config.profiles.contains_key(default)
            && let Err(error) = Destination::parse(default)
        {
            return Err(syntax(
                table.get_ref().get("default").map_or(0, |value| value.span().start),
                &error.to_string(),
            ));
        }
        config.path = path.into();
        config.places = places(text, path, table.get_ref());
        Ok(config)
    }

    /// Where a setting stands, `FILE:LINE:COLUMN`: in the profile's table, or without one in `[defaults]`.
    pub fn place(&self, profile: Option<&str>, key: &str) -> Option<String> {
        self.places.get(&(section(profile), key.into())).cloned()
    }

    /// An error in a setting's value, with the place of the setting.
    pub(super) fn at(&self, profile: Option<&str>, key: &str, error: Error) -> Error {
        match self.place(profile, key) {
            Some(place) => Error::At { place, key: key.into(), error: Box::new(error) },
            None => error,
        }
    }

    /// The profile's name that is written most like `name`, if any is alike.
    pub fn nearest_profile(&self, name: &str) -> Option<String> {
        nearest(name, self.profiles.keys().map(String::as_str))
    }

    /// The profile `name`.
    ///
    /// # Errors
    /// [`Error::NoProfile`], which names the nearest one.
    pub fn profile(&self, name: &str) -> Result<&Profile, Error> {
        self.profiles.get(name).ok_or_else(|| Error::NoProfile {
            name: name.into(),
            path: self.path.clone(),
            nearest: self.nearest_profile(name),
        })
    }
}

fn read(path: &Path, named: bool) -> Result<String, Error> {
    let failed = |source| Error::File { action: "read", path: path.into(), source };
    match File::open(path) {
        Ok(file) => {
            trusted_file::check(&file, path)?;
            read_bounded(file).map_err(failed)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && !named => Ok(String::new()),
        Err(e) => Err(failed(e)),
    }
}

fn read_bounded(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::keys::{DEFAULTS_KEYS, PROFILE_KEYS, TOP_KEYS};
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile, Error> {
        ConfigFile::parse(text, Path::new("config.toml"))
    }

    fn schema() -> serde_json::Value {
        serde_json::to_value(schemars::schema_for!(ConfigFile)).expect("a schema")
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place_and_the_nearest_one() {
        let error = parse("[profiles.prod]\nhost = \"a\"\nidentity_file = [\"k\"]\n").expect_err("unknown");
        assert_eq!(error.to_string(), "config.toml:3:1: unknown key `identity_file` in [profiles.prod]");
        assert_eq!(error.hint().as_deref(), Some("did you mean `identity_files`?"));
        let error = parse("[default]\n").expect_err("unknown");
        assert_eq!(error.to_string(), "config.toml:1:2: unknown key `default` in the top level");
    }

    #[test]
    fn a_wrong_type_or_value_is_refused_with_its_place() {
        for (text, place) in [
            ("[profiles.p]\nport = \"22\"\n", "config.toml:2:8: "),
            ("[profiles.p]\nport = 70000\n", "config.toml:2:8: "),
            ("[defaults]\nkeepalive = 15\n", "config.toml:2:13: "),
            ("[defaults]\nkeepalive = \"15 bananas\"\n", "config.toml:2:13: "),
            ("[profiles.\"a b\"]\n", "config.toml:1:11: "),
            ("[profiles\n", "config.toml:1:"),
            ("profiles = 3\n", "config.toml:1:12: "),
            ("default = 3\n", "config.toml:1:11: "),
            ("\ndefault = \"a b\"\n", "config.toml:2:11: "),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with(place), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn durations_are_read_and_shown_alike() {
        let config = parse("[defaults]\nkeepalive = \"1m 30s\"\n").expect("valid");
        assert_eq!(config.defaults.keepalive.expect("set").to_string(), "1m 30s");
    }

    #[test]
    fn the_lists_of_keys_are_those_of_the_schema() {
        let schema = schema();
        let keys = |at: &str| -> Vec<String> {
            let properties = schema.pointer(at).and_then(|v| v.as_object()).expect(at);
            properties.keys().cloned().collect()
        };
        for (at, known) in [
            ("/properties", TOP_KEYS),
            ("/$defs/Defaults/properties", DEFAULTS_KEYS),
            ("/$defs/Profile/properties", &[PROFILE_KEYS, DEFAULTS_KEYS].concat()),
        ] {
            let mut known: Vec<_> = known.iter().map(ToString::to_string).collect();
            let mut real = keys(at);
            known.sort();
            real.sort();
            assert_eq!(known, real, "{at}");
        }
    }

    #[test]
    fn the_shipped_schema_is_the_one_of_this_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.schema.json");
        let now = serde_json::to_string_pretty(&schema()).expect("a schema") + "\n";
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &now).expect("written");
        }
        let shipped = std::fs::read_to_string(path).unwrap_or_default();
        assert!(shipped == now, "docs/config.schema.json is old: run `UPDATE_DOCS=1 cargo test --lib schema`");
    }
}
