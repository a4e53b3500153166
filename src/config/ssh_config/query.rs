//! Asks what ssh_config says of a host, as keywords and their arguments.
//!
//! `ssh -G` is asked where there is an ssh binary: it *is* the reference for Include, Match, token
//! and first-match rules. Where there is none, the ssh2-config crate reads the file; what that
//! cannot do is listed in docs/configuration.md.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ssh2_config::{Host, ParseRule, SshConfig};

use super::source::SshConfigSource;
use crate::bounded;
use crate::config::{Destination, Error, Paths, trusted_file};
use crate::os::programs;

/// Files that include files, one in the other (READCONF_MAX_DEPTH in OpenSSH's readconf.c).
const MAX_INCLUDES: usize = 16;

/// How long ssh may take to read its files: it runs commands there, and may ask name servers. Less than a client waits
/// for a daemon that has nothing to say.
const LIMIT: Duration = Duration::from_secs(9);

/// Keywords that ssh knows under another name, too (readconf.c), and the crate does not.
const FORMER_NAMES: [(&str, &str); 4] = [
    ("challengeresponseauthentication", "kbdinteractiveauthentication"),
    ("pubkeyacceptedkeytypes", "pubkeyacceptedalgorithms"),
    ("skeyauthentication", "kbdinteractiveauthentication"),
    ("tisauthentication", "kbdinteractiveauthentication"),
];

/// One keyword, in lower case, and its arguments.
pub(super) type Line = (String, String);

/// The keywords that apply to a host.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// With the user's files.
    pub(super) lines: Vec<Line>,
    /// Without any file: ssh's own defaults, if there is an ssh binary.
    pub(super) defaults: Vec<Line>,
}

impl Answer {
    /// The arguments of a keyword.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The arguments of a keyword that may stand several times.
    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// ssh's own default for a keyword.
    pub(super) fn ssh_default(&self, key: &str) -> Option<&str> {
        self.defaults.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

/// Asks ssh, or without an ssh binary reads the file.
///
/// # Errors
/// [`Error::SshConfig`] with ssh's own words, [`Error::File`] where the file cannot be read.
pub(super) fn ask(destination: &Destination, source: &SshConfigSource, paths: &Paths) -> Result<Answer, Error> {
    match with_ssh(destination, source)? {
        Some(answer) => Ok(answer),
        None => Ok(Answer { lines: without_ssh(destination, source, paths)?, defaults: Vec::new() }),
    }
}

/// `ssh -G`, twice at once: with the files and without. None where there is no ssh, or none that works for this user.
pub(super) fn with_ssh(destination: &Destination, source: &SshConfigSource) -> Result<Option<Answer>, Error> {
    let failed = |message: String| Error::SshConfig { host: destination.host.clone(), message };
    let (lines, defaults) = match (start(destination, source), start(destination, &SshConfigSource::None)) {
        (Ok(lines), Ok(defaults)) => (lines, defaults),
        (Err(e), _) | (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        (Err(e), _) | (_, Err(e)) => return Err(failed(e.to_string())),
    };
    let until = Instant::now() + LIMIT;
    let finish = |child: Child| {
        let output = output_until(child, until).map_err(|e| failed(e.to_string()))?;
        // A uid without a name, as in many containers: ssh does nothing at all for it.
        if !output.status.success() && output.stderr.starts_with(b"No user exists for uid") {
            return Ok(None);
        }
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().replace(['\r', '\n'], "; ")));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        Ok(Some(lines.map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned())).collect()))
    };
    let (lines, defaults) = (finish(lines)?, finish(defaults)?);
    Ok(lines.zip(defaults).map(|(lines, defaults)| Answer { lines, defaults }))
}

/// The output of a program, which must end by `until`: `Match exec` runs any command, and CanonicalizeHostname asks
/// name servers.
fn output_until(child: Child, until: Instant) -> io::Result<Output> {
    let pid = child.id();
    // Its child processes may hold its streams open after it has ended.
    let left = until.saturating_duration_since(Instant::now());
    bounded::within(left, "ssh -G", move || child.wait_with_output())?.unwrap_or_else(|| {
        // Kills its commands as well, unless they run at the person's terminal, where Ctrl-C ends them all.
        if programs::is_session_of_its_own() {
            programs::end_group(pid);
        } else {
            programs::end(pid);
        }
        let limit = LIMIT.as_secs();
        let why = format!("`ssh -G` has not answered within {limit} s; does a command of a `Match exec` hang?");
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    })
}

fn start(destination: &Destination, source: &SshConfigSource) -> io::Result<Child> {
    let mut command = Command::new("ssh");
    // As for a session at a terminal: otherwise ssh reports `UpdateHostKeys ask` as `no` (ssh.c).
    command.arg("-G").arg("-tt").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if programs::is_session_of_its_own() {
        programs::own_group(&mut command);
    }
    command.args(arguments(destination, source)).spawn()
}

/// A path as the value of an option of ssh: percent signs are no tokens, and blanks are part of it.
pub fn quoted_path(path: &Path) -> String {
    let path = path.display().to_string().replace('%', "%%");
    if path.contains([' ', '\t', '#']) { format!("\"{path}\"") } else { path }
}

/// The arguments of ssh that name a host and the configuration that applies to it.
pub(in crate::config) fn arguments(destination: &Destination, source: &SshConfigSource) -> Vec<OsString> {
    let file = match source {
        SshConfigSource::Default => None,
        SshConfigSource::File(file) => Some(file.as_os_str()),
        SshConfigSource::None => Some("none".as_ref()),
    };
    let user = destination.user.as_ref().map(OsString::from);
    let port = destination.port.map(|port| port.to_string().into());
    let options = [("-F", file.map(Into::into)), ("-l", user), ("-p", port)];
    let options = options.into_iter().filter_map(|(option, value)| Some([option.into(), value?])).flatten();
    options.chain(["--".into(), destination.host.clone().into()]).collect()
}

/// The hosts that the user's ssh_config names one by one, in its order; patterns are no hosts.
///
/// # Errors
/// [`Error::SshConfig`], [`Error::File`].
pub(super) fn hosts(source: &SshConfigSource, paths: &Paths) -> Result<Vec<String>, Error> {
    let Some((_, config)) = read(source, paths).map_err(|(file, problem)| problem.of("Host", file))? else {
        return Ok(Vec::new());
    };
    let clauses = config.get_hosts().iter().flat_map(|host| &host.pattern).filter(|clause| !clause.negated);
    let mut names = Vec::new();
    for name in clauses.map(|clause| &clause.pattern).filter(|name| !name.contains(['*', '?'])) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    Ok(names)
}

/// Why a file could not be read.
enum Problem {
    Ours(Error),
    System(io::Error),
    Content(String),
}

impl Problem {
    fn of(self, host: &str, file: PathBuf) -> Error {
        match self {
            Self::Ours(error) => error,
            Self::System(source) => Error::File { action: "read", path: file, source },
            Self::Content(problem) => {
                Error::SshConfig { host: host.into(), message: format!("{}: {problem}", file.display()) }
            }
        }
    }
}

/// The file as the ssh2-config crate reads it. None where there is none to read.
fn read(source: &SshConfigSource, paths: &Paths) -> Result<Option<(PathBuf, SshConfig)>, (PathBuf, Problem)> {
    let (file, named) = match source {
        SshConfigSource::None => return Ok(None),
        SshConfigSource::Default => (paths.home.join(".ssh/config"), false),
        SshConfigSource::File(file) => (file.clone(), true),
    };
    let opened = match std::fs::File::open(&file) {
        Ok(opened) => opened,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !named => return Ok(None),
        Err(source) => return Err((file, Problem::System(source))),
    };
    // As ssh: a file given by name is not checked, all included files are.
    let trusted = if named { Ok(()) } else { trusted_file::check(&opened, &file) };
    trusted.and_then(|()| check_includes(&file, paths, 0)).map_err(|error| (file.clone(), Problem::Ours(error)))?;
    let rules = ParseRule::ALLOW_UNKNOWN_FIELDS | ParseRule::ALLOW_UNSUPPORTED_FIELDS;
    match SshConfig::default().parse(&mut BufReader::new(opened), rules) {
        Ok(config) => Ok(Some((file, config))),
        Err(e) => Err((file, Problem::Content(e.to_string()))),
    }
}

/// Checks that the files included by `file`, directly or not, are trusted. Finds them as the crate does.
fn check_includes(file: &Path, paths: &Paths, depth: usize) -> Result<(), Error> {
    let text = match std::fs::read(file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(source) => return Err(Error::File { action: "read", path: file.into(), source }),
    };
    let refused = |problem: String| Error::SshConfig {
        host: "Include".into(),
        message: format!("{}: {problem}", file.display()),
    };
    for pattern in text.lines().filter_map(included).flatten() {
        if depth >= MAX_INCLUDES {
            return Err(refused("its Include lines form a loop".into()));
        }
        let pattern = match pattern.strip_prefix('~') {
            Some(_) => paths.expand_home(&pattern),
            None => paths.home.join(".ssh").join(&pattern),
        };
        let found = glob::glob(&pattern.to_string_lossy()).map_err(|e| refused(e.to_string()))?;
        for path in found {
            let path = path.map_err(|e| refused(e.to_string()))?;
            let opened = std::fs::File::open(&path);
            let opened = opened.map_err(|source| Error::File { action: "read", path: path.clone(), source })?;
            trusted_file::check(&opened, &path)?;
            check_includes(&path, paths, depth + 1)?;
        }
    }
    Ok(())
}

/// The patterns of an Include line; None for any other.
fn included(line: &str) -> Option<Vec<String>> {
    let line = line.trim();
    let end = line.find(|c: char| c.is_whitespace() || c == '=')?;
    if !line[..end].eq_ignore_ascii_case("include") {
        return None;
    }
    Some(words(line[end..].trim_start_matches(|c: char| c.is_whitespace() || c == '=')))
}

/// The words of a line, of which some are in double quotes.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match (c, words.last_mut()) {
            ('"', _) => quoted = !quoted,
            (c, _) if c.is_whitespace() && !quoted => words.push(String::new()),
            (c, Some(word)) => word.push(c),
            (_, None) => {}
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The ssh2-config crate, brought into the form of `ssh -G`.
pub(super) fn without_ssh(
    destination: &Destination,
    source: &SshConfigSource,
    paths: &Paths,
) -> Result<Vec<Line>, Error> {
    let Some((file, config)) = read(source, paths).map_err(|(file, problem)| problem.of(&destination.host, file))?
    else {
        return Ok(Vec::new());
    };
    // The crate would take a Match block's lines for those of the Host before it.
    let fields = |host: &Host| -> Vec<String> {
        host.params.unsupported_fields.keys().chain(host.params.ignored_fields.keys()).cloned().collect()
    };
    if config.get_hosts().iter().flat_map(fields).any(|key| key.eq_ignore_ascii_case("match")) {
        return Err(Error::SshConfig {
            host: destination.host.clone(),
            message: format!("{} uses Match, which needs the OpenSSH client: install it", file.display()),
        });
    }
    let found = config.query(&destination.host);
    let mut lines: Vec<Line> = Vec::new();
    let mut push = |key: &str, value: Option<String>| lines.extend(value.map(|value| (key.to_owned(), value)));
    push("hostname", found.host_name);
    push("user", found.user);
    push("port", found.port.map(|port| port.to_string()));
    push("proxyjump", found.proxy_jump.map(|hops| hops.join(",")));
    push("connecttimeout", found.connect_timeout.map(|time| time.as_secs().to_string()));
    push("serveraliveinterval", found.server_alive_interval.map(|time| time.as_secs().to_string()));
    push("pubkeyauthentication", found.pubkey_authentication.map(yes_or_no));
    push("compression", found.compression.map(yes_or_no));
    push("addkeystoagent", found.add_keys_to_agent.map(yes_or_no));
    push("bindaddress", found.bind_address);
    push("bindinterface", found.bind_interface);
    push("connectionattempts", found.connection_attempts.map(|attempts| attempts.to_string()));
    push("certificatefile", found.certificate_file.map(|file| file.to_string_lossy().into_owned()));
    for (key, list) in [
        ("ciphers", &found.ciphers),
        ("kexalgorithms", &found.kex_algorithms),
        ("macs", &found.mac),
        ("hostkeyalgorithms", &found.host_key_algorithms),
        ("pubkeyacceptedalgorithms", &found.pubkey_accepted_algorithms),
        ("casignaturealgorithms", &found.ca_signature_algorithms),
    ] {
        push(key, (!list.is_default()).then(|| list.algorithms().join(",")));
    }
    let mut identities = found.identity_file.unwrap_or_default();
    let mut seen = HashSet::new();
    identities.retain(|identity| seen.insert(identity.clone()));
    for identity in identities {
        push("identityfile", Some(identity.to_string_lossy().into_owned()));
    }
    for (key, values) in found.unsupported_fields.into_iter().chain(found.ignored_fields) {
        let key = key.to_ascii_lowercase();
        let now = FORMER_NAMES.iter().find(|(former, _)| *former == key).map_or(&key[..], |(_, now)| *now);
        push(now, Some(values.join(" ")));
    }
    Ok(lines)
}

fn yes_or_no(on: bool) -> String {
    if on { "yes" } else { "no" }.into()
}
