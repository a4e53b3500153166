//! What the user's ssh_config says of a host.
//!
//! `ssh -G` is asked where there is an ssh binary: it *is* the reference for Include, Match, token
//! and first-match rules. Where there is none, the ssh2-config crate reads the file; what that
//! cannot do is listed in docs/configuration.md.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ssh2_config::{ParseRule, SshConfig};

use super::{Destination, Error, Paths};

/// Which ssh_config is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SshConfigSource {
    /// The user's own and the system's, as ssh does without `-F`.
    Default,
    /// This file only, as `ssh -F FILE`.
    File(PathBuf),
    /// None at all, as `ssh -F none`.
    None,
}

/// Where to look for an ssh-agent (IdentityAgent in ssh_config(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityAgent {
    /// The socket in `$SSH_AUTH_SOCK`, if set.
    Environment,
    /// No agent.
    None,
    /// This socket.
    Path(PathBuf),
}

/// What to do with a host key that is not known (StrictHostKeyChecking in ssh_config(5)). A
/// *changed* key is refused under each of them but `Off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// Refuse it.
    Strict,
    /// Ask the user.
    Ask,
    /// Trust and remember it.
    AcceptNew,
    /// Trust and remember it, and let even a changed key pass with a warning.
    Off,
}

/// How the TCP connection to the server is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// Directly.
    None,
    /// Through these hosts, nearest first (ProxyJump).
    Jump(Vec<Destination>),
    /// Over the standard input and output of this shell command, tokens not yet replaced
    /// (ProxyCommand).
    Command(String),
}

/// What ssh_config says of one host, as far as it is obeyed.
#[derive(Debug, Clone)]
pub struct SshSettings {
    /// HostName: the name or address to connect to.
    pub host_name: String,
    /// Port.
    pub port: u16,
    /// User.
    pub user: String,
    /// IdentityFile, in order, tokens and `~` replaced.
    pub identity_files: Vec<PathBuf>,
    /// IdentitiesOnly: of the agent's keys, offer only those of `identity_files`.
    pub identities_only: bool,
    /// IdentityAgent.
    pub identity_agent: IdentityAgent,
    /// UserKnownHostsFile; new keys go to the first.
    pub user_known_hosts: Vec<PathBuf>,
    /// GlobalKnownHostsFile.
    pub global_known_hosts: Vec<PathBuf>,
    /// HostKeyAlias: look the host key up under this name.
    pub host_key_alias: Option<String>,
    /// StrictHostKeyChecking.
    pub host_key_policy: HostKeyPolicy,
    /// HashKnownHosts: write new names hashed.
    pub hash_known_hosts: bool,
    /// ProxyJump or ProxyCommand.
    pub proxy: Proxy,
    /// ServerAliveInterval, if not 0.
    pub keepalive: Option<Duration>,
    /// ServerAliveCountMax; only said where `keepalive` is.
    pub keepalive_count: Option<u32>,
    /// ConnectTimeout, if set.
    pub connect_timeout: Option<Duration>,
    /// PubkeyAuthentication.
    pub pubkey_authentication: bool,
    /// PasswordAuthentication.
    pub password_authentication: bool,
    /// KbdInteractiveAuthentication.
    pub keyboard_interactive_authentication: bool,
    /// NumberOfPasswordPrompts.
    pub password_prompts: u32,
}

/// Asks what ssh_config says of `destination`; its user and port, where given, win over the
/// file's, as with `ssh -l` and `-p`.
///
/// # Errors
/// [`Error::SshConfig`] with ssh's own words, [`Error::File`] where the file cannot be read.
pub(super) fn query(destination: &Destination, source: &SshConfigSource, paths: &Paths) -> Result<SshSettings, Error> {
    let lines = match with_ssh(destination, source)? {
        Some(lines) => lines,
        None => without_ssh(destination, source, paths)?,
    };
    interpret(destination, &lines, paths)
}

/// One keyword, in lower case, and its arguments.
type Line = (String, String);

/// `ssh -G`. None where there is no ssh.
fn with_ssh(destination: &Destination, source: &SshConfigSource) -> Result<Option<Vec<Line>>, Error> {
    let mut command = Command::new("ssh");
    command.arg("-G").arg("-T").stdin(Stdio::null());
    match source {
        SshConfigSource::Default => {}
        SshConfigSource::File(file) => {
            command.arg("-F").arg(file);
        }
        SshConfigSource::None => {
            command.arg("-F").arg("none");
        }
    }
    if let Some(user) = &destination.user {
        command.arg("-l").arg(user);
    }
    if let Some(port) = destination.port {
        command.arg("-p").arg(port.to_string());
    }
    command.arg("--").arg(&destination.host);
    let output = match command.output() {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            return Err(Error::SshConfig { host: destination.host.clone(), message: e.to_string() });
        }
    };
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().replace(['\r', '\n'], "; ");
        return Err(Error::SshConfig { host: destination.host.clone(), message });
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(Some(
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned()))
            .collect(),
    ))
}

/// The ssh2-config crate, brought into the form of `ssh -G`.
fn without_ssh(destination: &Destination, source: &SshConfigSource, paths: &Paths) -> Result<Vec<Line>, Error> {
    let (file, named) = match source {
        SshConfigSource::None => return Ok(Vec::new()),
        SshConfigSource::Default => (paths.home.join(".ssh/config"), false),
        SshConfigSource::File(file) => (file.clone(), true),
    };
    let opened = match std::fs::File::open(&file) {
        Ok(opened) => opened,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !named => return Ok(Vec::new()),
        Err(source) => return Err(Error::File { action: "read", path: file, source }),
    };
    let config = SshConfig::default()
        .parse(&mut BufReader::new(opened), ParseRule::ALLOW_UNKNOWN_FIELDS | ParseRule::ALLOW_UNSUPPORTED_FIELDS)
        .map_err(|e| Error::SshConfig {
            host: destination.host.clone(),
            message: format!("{}: {e}", file.display()),
        })?;
    let found = config.query(&destination.host);
    let mut lines: Vec<Line> = Vec::new();
    let mut push = |key: &str, value: Option<String>| lines.extend(value.map(|value| (key.to_owned(), value)));
    push("hostname", found.host_name);
    push("user", found.user);
    push("port", found.port.map(|port| port.to_string()));
    push("proxyjump", found.proxy_jump.map(|hops| hops.join(",")));
    push("connecttimeout", found.connect_timeout.map(|time| time.as_secs().to_string()));
    push("serveraliveinterval", found.server_alive_interval.map(|time| time.as_secs().to_string()));
    push("pubkeyauthentication", found.pubkey_authentication.map(|on| on.to_string()));
    for identity in found.identity_file.unwrap_or_default() {
        push("identityfile", Some(identity.to_string_lossy().into_owned()));
    }
    for (key, values) in found.unsupported_fields.into_iter().chain(found.ignored_fields) {
        push(&key.to_ascii_lowercase(), Some(values.join(" ")));
    }
    Ok(lines)
}

/// From keywords to settings. Keywords that are absent have ssh's defaults (ssh_config(5)).
fn interpret(destination: &Destination, lines: &[Line], paths: &Paths) -> Result<SshSettings, Error> {
    let get = |key: &str| lines.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
    let yes = |key: &str, default: bool| get(key).map_or(default, |v| matches!(v, "yes" | "true"));
    let seconds =
        |key: &str| get(key).and_then(|v| v.parse().ok()).filter(|seconds| *seconds != 0).map(Duration::from_secs);
    let host_name = get("hostname").unwrap_or(&destination.host).replace("%h", &destination.host);
    let user = match destination.user.as_deref().or(get("user")) {
        Some(user) => user.to_owned(),
        None => std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default(),
    };
    let port = destination.port.or(get("port").and_then(|port| port.parse().ok())).unwrap_or(22);
    let tokens = Tokens {
        alias: &destination.host,
        host_name: &host_name,
        port,
        user: &user,
        host_key_alias: get("hostkeyalias"),
        paths,
    };
    let files = |key: &str, defaults: &[&str]| -> Vec<PathBuf> {
        let given: Vec<&str> = lines.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect();
        let names = if given.is_empty() { defaults.to_vec() } else { given };
        names.into_iter().filter(|name| *name != "none").map(|name| tokens.path(name)).collect()
    };
    let known_hosts = |key: &str, default: &str| -> Vec<PathBuf> {
        let names = get(key).unwrap_or(default).split_whitespace();
        names.filter(|name| *name != "none").map(|name| tokens.path(name)).collect()
    };
    let proxy = match (get("proxycommand"), get("proxyjump")) {
        (_, Some(jump)) if jump != "none" => {
            Proxy::Jump(jump.split(',').map(|hop| Destination::parse(hop.trim())).collect::<Result<_, _>>()?)
        }
        (Some(command), _) if command != "none" => Proxy::Command(command.into()),
        _ => Proxy::None,
    };
    let keepalive = seconds("serveraliveinterval");
    Ok(SshSettings {
        identity_files: files(
            "identityfile",
            &["~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ecdsa_sk", "~/.ssh/id_ed25519", "~/.ssh/id_ed25519_sk"],
        ),
        identities_only: yes("identitiesonly", false),
        identity_agent: match get("identityagent") {
            None | Some("SSH_AUTH_SOCK") => IdentityAgent::Environment,
            Some("none") => IdentityAgent::None,
            Some(name) => match name.strip_prefix('$') {
                Some(variable) if !variable.starts_with('{') => match std::env::var_os(variable) {
                    Some(path) => IdentityAgent::Path(path.into()),
                    None => IdentityAgent::None,
                },
                _ => IdentityAgent::Path(tokens.path(name)),
            },
        },
        user_known_hosts: known_hosts("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"),
        global_known_hosts: known_hosts("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"),
        host_key_alias: get("hostkeyalias").map(Into::into),
        host_key_policy: match get("stricthostkeychecking") {
            Some("yes" | "true") => HostKeyPolicy::Strict,
            Some("accept-new") => HostKeyPolicy::AcceptNew,
            Some("no" | "off" | "false") => HostKeyPolicy::Off,
            _ => HostKeyPolicy::Ask,
        },
        hash_known_hosts: yes("hashknownhosts", false),
        proxy,
        keepalive,
        keepalive_count: keepalive.and(get("serveralivecountmax")).and_then(|count| count.parse().ok()),
        connect_timeout: seconds("connecttimeout"),
        pubkey_authentication: get("pubkeyauthentication").is_none_or(|v| !matches!(v, "no" | "false")),
        password_authentication: yes("passwordauthentication", true),
        keyboard_interactive_authentication: yes("kbdinteractiveauthentication", true),
        password_prompts: get("numberofpasswordprompts").and_then(|n| n.parse().ok()).unwrap_or(3),
        host_name,
        port,
        user,
    })
}

/// What the `%` tokens of ssh_config(5), "TOKENS", stand for.
pub(crate) struct Tokens<'a> {
    pub(crate) alias: &'a str,
    pub(crate) host_name: &'a str,
    pub(crate) port: u16,
    pub(crate) user: &'a str,
    pub(crate) host_key_alias: Option<&'a str>,
    pub(crate) paths: &'a Paths,
}

impl Tokens<'_> {
    /// A file name with `~`, `%` tokens and `${VARIABLES}` replaced.
    fn path(&self, name: &str) -> PathBuf {
        self.paths.expand_home(&self.replace(&environment(name)))
    }

    /// `text` with its `%` tokens replaced; unknown ones stay as they are.
    pub(crate) fn replace(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('%') => out.push('%'),
                Some('d') => out.push_str(&self.paths.home.to_string_lossy()),
                Some('h') => out.push_str(self.host_name),
                Some('i') => out.push_str(&rustix::process::getuid().as_raw().to_string()),
                Some('k') => out.push_str(self.host_key_alias.unwrap_or(self.alias)),
                Some('L') => out.push_str(local_host().split('.').next().unwrap_or_default()),
                Some('l') => out.push_str(&local_host()),
                Some('n') => out.push_str(self.alias),
                Some('p') => out.push_str(&self.port.to_string()),
                Some('r') => out.push_str(self.user),
                Some('u') => out.push_str(&std::env::var("USER").unwrap_or_default()),
                Some(other) => out.extend(['%', other]),
                None => out.push('%'),
            }
        }
        out
    }
}

fn local_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// `${VARIABLE}` replaced by the environment's value, nothing where it is not set.
fn environment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            return out + "${" + after;
        };
        out.push_str(&std::env::var(name).unwrap_or_default());
        rest = after;
    }
    out + rest
}

/// The file an option names: `none`, or a path.
pub(super) fn source_of(option: &Path, paths: &Paths) -> SshConfigSource {
    if option == Path::new("none") {
        SshConfigSource::None
    } else {
        SshConfigSource::File(paths.expand_home(&option.to_string_lossy()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str, destination: &str, with_binary: bool) -> SshSettings {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config");
        std::fs::write(&file, text).expect("written");
        let paths = Paths { home: "/home/me".into() };
        let destination = Destination::parse(destination).expect("a target");
        let source = SshConfigSource::File(file);
        let lines = if with_binary {
            with_ssh(&destination, &source).expect("ssh -G").expect("an ssh binary")
        } else {
            without_ssh(&destination, &source, &paths).expect("readable")
        };
        interpret(&destination, &lines, &paths).expect("valid")
    }

    /// What both ways of reading the file must agree on.
    #[test]
    fn a_host_is_resolved_alike_with_and_without_the_ssh_binary() {
        let text = "Host web\n  HostName web.example.com\n  Port 2222\n  User deploy\n  IdentityFile /keys/a\n\
                    \x20 UserKnownHostsFile /kh/one /kh/two\n  StrictHostKeyChecking accept-new\n\
                    \x20 ServerAliveInterval 7\n  ConnectTimeout 4\n  ProxyJump bastion,u@inner:2200\n";
        for with_binary in [true, false] {
            let s = settings(text, "web", with_binary);
            assert_eq!((s.host_name.as_str(), s.port, s.user.as_str()), ("web.example.com", 2222, "deploy"));
            assert_eq!(s.identity_files, [PathBuf::from("/keys/a")]);
            assert_eq!(s.user_known_hosts, [PathBuf::from("/kh/one"), PathBuf::from("/kh/two")]);
            assert_eq!(s.host_key_policy, HostKeyPolicy::AcceptNew);
            assert_eq!(s.keepalive, Some(Duration::from_secs(7)));
            assert_eq!(s.connect_timeout, Some(Duration::from_secs(4)));
            let Proxy::Jump(hops) = s.proxy else { panic!("no jump") };
            assert_eq!(hops.iter().map(ToString::to_string).collect::<Vec<_>>(), ["bastion", "u@inner:2200"]);
        }
    }

    #[test]
    fn user_and_port_of_the_target_win_over_the_file() {
        for with_binary in [true, false] {
            let s = settings("Host *\n  User x\n  Port 1\n", "me@h:22", with_binary);
            assert_eq!((s.user.as_str(), s.port), ("me", 22));
        }
    }

    #[test]
    fn tokens_home_and_variables_are_replaced_in_paths() {
        let s = settings("Host h\n  HostName %h.example.com\n  User u\n  IdentityFile ~/.ssh/%r@%h-%p-%%\n", "h", true);
        assert_eq!(s.identity_files, [PathBuf::from("/home/me/.ssh/u@h.example.com-22-%")]);
        assert_eq!(environment("a${DTUNNEL_TEST_NOT_SET}b${c"), "ab${c");
    }
}
