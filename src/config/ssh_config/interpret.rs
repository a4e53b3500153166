//! From the keywords of ssh_config to settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::query::{Answer, ask, words};
use super::settings::{
    AddToAgent, AddressFamily, Algorithms, HostKeyPolicy, IdentityAgent, MissingMethod, Proxy, SshSettings,
    UpdateHostKeys,
};
use super::source::SshConfigSource;
use super::tokens::{Tokens, account, unknown};
use crate::config::name::{is_host_name, is_user_name};
use crate::config::{ConfigFile, Destination, Error, Paths};
use crate::os::places::expanded;

/// Keywords about trust or the route that dtunnel does not support, and the values at which they have no effect.
const NOT_OBEYED: &[(&str, &[&str])] =
    &[("bindinterface", &["none"]), ("proxyusefdpass", &["no"]), ("verifyhostkeydns", &["no", "false"])];

/// Keywords for which the machine's ssh is needed, and the values at which it is not.
const ONLY_SSH: &[(&str, &[&str])] = &[
    ("hostbasedauthentication", &["no", "false"]),
    ("pkcs11provider", &["none"]),
    ("knownhostscommand", &["none"]),
    ("verifyhostkeydns", &["no", "false"]),
    ("proxyusefdpass", &["no"]),
    ("bindinterface", &["none"]),
];

/// The same without an ssh binary that would obey them.
const NOT_OBEYED_WITHOUT_SSH: &[(&str, &[&str])] = &[("canonicalizehostname", &["no", "false"])];

/// Keywords whose values may have tokens, as far as they are used.
const WITH_TOKENS: [&str; 6] =
    ["certificatefile", "identityagent", "identityfile", "proxycommand", "proxyjump", "userknownhostsfile"];

/// The default minimum size of an RSA key in bits (RequiredRSASize in ssh_config(5)).
const REQUIRED_RSA_SIZE: u32 = 1024;

/// ssh's own ServerAliveCountMax.
const SERVER_ALIVE_COUNT_MAX: u32 = 3;

/// Asks what ssh_config says of `destination`; its user and port, where given, win over the
/// file's, as with `ssh -l` and `-p`.
///
/// # Errors
/// [`Error::SshConfig`] with ssh's own words, [`Error::File`] where the file cannot be read.
pub(in crate::config) fn query(
    destination: &Destination,
    source: &SshConfigSource,
    paths: &Paths,
) -> Result<SshSettings, Error> {
    // Checked before ssh sees them: they may be inserted into a command (ProxyCommand, Match exec).
    check_names(&destination.host, destination.user.as_deref().unwrap_or_default())?;
    let settings = interpret(destination, &ask(destination, source, paths)?, paths)?;
    check_names(&settings.host_name, &settings.user)?;
    Ok(settings)
}

fn check_names(host: &str, user: &str) -> Result<(), Error> {
    let refused = |input: &str, reason| Error::Target { input: input.escape_debug().to_string(), reason };
    if !is_host_name(host) {
        return Err(refused(host, "a host's name has none of ' ` \" $ \\ ; & < > | ( ) { } , and no blanks"));
    }
    if !is_user_name(user) {
        return Err(refused(
            user,
            "a user's name has none of ' ` \" ; & < > | ( ) { }, no `\\` at its end and no ` -`",
        ));
    }
    Ok(())
}

/// From keywords to settings. Keywords that are absent have ssh's defaults (ssh_config(5)).
pub(super) fn interpret(destination: &Destination, answer: &Answer, paths: &Paths) -> Result<SshSettings, Error> {
    let get = |key: &str| answer.get(key);
    // A newer ssh reports this itself.
    if let Some(why) = get("refuseconnection") {
        let message = format!("RefuseConnection is set for it: {why}");
        return Err(Error::SshConfig { host: destination.host.clone(), message });
    }
    let yes = |key: &str, default: bool| get(key).map_or(default, |v| matches!(v, "yes" | "true"));
    let seconds =
        |key: &str| get(key).and_then(|v| v.parse().ok()).filter(|seconds| *seconds != 0).map(Duration::from_secs);
    let list = |key: &str| -> Option<Vec<String>> {
        get(key).map(|names| names.split(',').map(|name| name.trim().to_owned()).collect())
    };
    let algorithms = |key: &str| match (list(key), answer.ssh_default(key)) {
        (None, _) => Algorithms::Default,
        (Some(names), None) => Algorithms::Exactly(names),
        (Some(names), Some(default)) => {
            let default: Vec<&str> = default.split(',').collect();
            match names.len().checked_sub(default.len()) {
                Some(0) if names == default => Algorithms::Default,
                Some(more) if names.iter().take(default.len()).eq(&default) => {
                    Algorithms::And(names[names.len() - more..].to_vec())
                }
                _ => Algorithms::Exactly(names),
            }
        }
    };
    // ssh's answer has no tokens there any more.
    let host_name = match get("hostname") {
        Some(name) if answer.defaults.is_empty() => with_host(name, &destination.host),
        Some(name) => name.to_owned(),
        None => destination.host.clone(),
    };
    let user = match destination.user.as_deref().or(get("user")) {
        Some(user) => user.to_owned(),
        None => account(),
    };
    if user.is_empty() {
        let reason = "this system has no name for your uid: say whom to log in as, `user@host`";
        return Err(Error::Target { input: destination.host.escape_debug().to_string(), reason });
    }
    let port = destination.port.or(get("port").and_then(|port| port.parse().ok())).unwrap_or(22);
    let tokens = Tokens {
        alias: &destination.host,
        host_name: &host_name,
        port,
        user: &user,
        host_key_alias: get("hostkeyalias"),
        jump: get("proxyjump").filter(|jump| *jump != "none").unwrap_or_default(),
        paths,
    };
    let files = |key: &str, defaults: &[&str]| -> Vec<PathBuf> {
        let given: Vec<&str> = answer.all(key).collect();
        let names = if given.is_empty() { defaults.to_vec() } else { given };
        names.into_iter().filter(|name| *name != "none").map(|name| tokens.path(name)).collect()
    };
    // Releases that know tokens in known_hosts files (8.4 and later) have replaced them, and those of IdentityAgent, before
    // they answer. What looks like a token then is none (it was written `%%`).
    let is_replaced = answer.ssh_default("userknownhostsfile").is_some_and(|names| !names.starts_with('~'));
    let answered = |name: &str| if is_replaced { PathBuf::from(name) } else { tokens.path(name) };
    let known_hosts = |key: &str, default: &str| -> Vec<String> {
        file_names(get(key).unwrap_or(default)).into_iter().filter(|name| !name.eq_ignore_ascii_case("none")).collect()
    };
    let user_known_hosts = known_hosts("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2");
    let global_known_hosts = known_hosts("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2");
    let revoked_host_keys = match get("revokedhostkeys") {
        None | Some("none") => Vec::new(),
        Some(names) => match tokens.path(names) {
            one if one.exists() => vec![one],
            _ => file_names(names).iter().map(|name| tokens.path(name)).collect(),
        },
    };
    let proxy = match (get("proxycommand"), get("proxyjump")) {
        (_, Some(jump)) if jump != "none" => {
            let hops = jump.split(',').map(|hop| Destination::parse(&tokens.replace(hop.trim())));
            Proxy::Jump(hops.collect::<Result<_, _>>()?)
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
                _ => IdentityAgent::Path(answered(name)),
            },
        },
        user_known_hosts: user_known_hosts.iter().map(|name| answered(name)).collect(),
        // ssh knows no tokens here.
        global_known_hosts: global_known_hosts.iter().map(|name| paths.expand_home(name)).collect(),
        host_key_alias: get("hostkeyalias").map(Into::into),
        host_key_policy: match get("stricthostkeychecking") {
            Some("yes" | "true") => HostKeyPolicy::Strict,
            Some("accept-new") => HostKeyPolicy::AcceptNew,
            Some("no" | "off" | "false") => HostKeyPolicy::Off,
            _ => HostKeyPolicy::Ask,
        },
        revoked_host_keys,
        known_hosts_command: get("knownhostscommand").filter(|command| *command != "none").map(Into::into),
        required_rsa_size: get("requiredrsasize").and_then(|bits| bits.parse().ok()).unwrap_or(REQUIRED_RSA_SIZE),
        batch_mode: yes("batchmode", false),
        check_host_ip: yes("checkhostip", false),
        trusts_localhost: yes("nohostauthenticationforlocalhost", false),
        ca_signature_algorithms: algorithms("casignaturealgorithms"),
        hash_known_hosts: yes("hashknownhosts", false),
        proxy,
        keepalive,
        keepalive_count: keepalive
            .map(|_| get("serveralivecountmax").and_then(|count| count.parse().ok()).unwrap_or(SERVER_ALIVE_COUNT_MAX)),
        connect_timeout: seconds("connecttimeout"),
        pubkey_authentication: get("pubkeyauthentication").is_none_or(|v| !matches!(v, "no" | "false")),
        password_authentication: yes("passwordauthentication", true),
        keyboard_interactive_authentication: yes("kbdinteractiveauthentication", true),
        password_prompts: get("numberofpasswordprompts").and_then(|n| n.parse().ok()).unwrap_or(3),
        preferred_authentications: list("preferredauthentications"),
        certificate_files: files("certificatefile", &[]),
        ciphers: algorithms("ciphers"),
        kex_algorithms: algorithms("kexalgorithms"),
        macs: algorithms("macs"),
        host_key_algorithms: algorithms("hostkeyalgorithms"),
        pubkey_accepted_algorithms: algorithms("pubkeyacceptedalgorithms"),
        compression: yes("compression", false),
        address_family: match get("addressfamily") {
            Some("inet") => AddressFamily::Inet,
            Some("inet6") => AddressFamily::Inet6,
            _ => AddressFamily::Any,
        },
        bind_address: get("bindaddress").map(Into::into),
        connection_attempts: get("connectionattempts").and_then(|n| n.parse().ok()).unwrap_or(1).max(1),
        // As ssh: enabled by default only if UserKnownHostsFile has its default value.
        update_host_keys: match get("updatehostkeys") {
            Some("no" | "false") => UpdateHostKeys::No,
            Some("ask") => UpdateHostKeys::Ask,
            None if get("userknownhostsfile").is_some() => UpdateHostKeys::No,
            Some(_) | None => UpdateHostKeys::Yes,
        },
        add_keys_to_agent: get("addkeystoagent").and_then(add_to_agent),
        not_obeyed: NOT_OBEYED
            .iter()
            .chain(NOT_OBEYED_WITHOUT_SSH.iter().filter(|_| answer.defaults.is_empty()))
            .filter(|(key, idle)| get(key).is_some_and(|value| !idle.contains(&value)))
            .chain((get("addkeystoagent") == Some("ask")).then_some(&("addkeystoagent", &[][..])))
            .map(|(key, _)| (*key).to_owned())
            .collect(),
        unknown_tokens: WITH_TOKENS
            .iter()
            .filter(|key| !(is_replaced && matches!(**key, "identityagent" | "userknownhostsfile")))
            .flat_map(|key| answer.all(key).flat_map(unknown).map(|token| ((*key).to_owned(), token)))
            .collect(),
        missing_methods: MissingMethod::CHOSEN
            .into_iter()
            .filter(|method| {
                get(&method.keyword().to_ascii_lowercase()).is_some_and(|value| !matches!(value, "no" | "none"))
            })
            .collect(),
        only_ssh: ONLY_SSH
            .iter()
            .filter(|(key, idle)| get(key).is_some_and(|value| !idle.contains(&value)))
            .map(|(key, _)| *key)
            .collect(),
        control_path: get("controlpath").filter(|path| *path != "none").map(|path| tokens.path(path)),
        // An older ssh ends at an option that it does not know.
        for_ssh: get("forkafterauthentication").map(|_| "ForkAfterAuthentication=no".into()).into_iter().collect(),
        host_name,
        port,
        user,
    })
}

/// A HostName with its tokens replaced, `%h` and `%%`.
fn with_host(name: &str, host: &str) -> String {
    name.split("%%").map(|part| part.replace("%h", host)).collect::<Vec<_>>().join("%")
}

/// The names of files that one line has. `ssh -G` prints them without their quotes: a word that does not begin like an
/// absolute path continues the name before it, which has a blank there.
fn file_names(line: &str) -> Vec<String> {
    // As the crate reads them.
    if line.contains('"') {
        return words(line);
    }
    let is_absolute = |word: &str| word.starts_with(['/', '~', '%', '$']) || Path::new(&expanded(word)).is_absolute();
    let mut names: Vec<String> = Vec::new();
    for word in line.split(' ') {
        match names.last_mut() {
            Some(name) if is_absolute(name) && !is_absolute(word) && !word.eq_ignore_ascii_case("none") => {
                name.push(' ');
                name.push_str(word);
            }
            _ => names.push(word.to_owned()),
        }
    }
    names.into_iter().map(|name| name.trim_end().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// `ask` needs a person at a moment when none may be present; a warning names it.
fn add_to_agent(value: &str) -> Option<AddToAgent> {
    let (first, lifetime) = value.split_once(' ').unwrap_or((value, ""));
    let seconds = |text: &str| text.parse().ok().filter(|seconds| *seconds != 0);
    match first {
        "yes" | "true" => Some(AddToAgent { confirm: false, lifetime: seconds(lifetime) }),
        "confirm" => Some(AddToAgent { confirm: true, lifetime: seconds(lifetime) }),
        time => seconds(time).map(|lifetime| AddToAgent { confirm: false, lifetime: Some(lifetime) }),
    }
}

/// The file an option names: `none`, or a path.
pub(in crate::config) fn source_of(option: &Path, paths: &Paths) -> SshConfigSource {
    if option == Path::new("none") {
        SshConfigSource::None
    } else {
        SshConfigSource::File(paths.expand_home(&option.to_string_lossy()))
    }
}

/// Interprets any text as the output of `ssh -G`. For fuzzing.
#[cfg(fuzzing)]
pub fn read_ssh_answer(text: &str) -> Option<SshSettings> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let lines = lines.map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned())).collect();
    let destination = Destination::parse("host.example").ok()?;
    interpret(&destination, &Answer { lines, defaults: Vec::new() }, &Paths::new().ok()?).ok()
}

/// The hosts that an ssh_config (`-F`, else `ssh_config` in the file, else the user's own) names one by
/// one.
///
/// # Errors
/// [`Error::SshConfig`], [`Error::File`].
pub fn ssh_hosts(option: Option<&Path>, config: &ConfigFile) -> Result<Vec<String>, Error> {
    let paths = Paths::new()?;
    let option = option.or(config.ssh_config.as_deref().map(Path::new));
    let source = option.map_or(SshConfigSource::Default, |option| source_of(option, &paths));
    super::query::hosts(&source, &paths)
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use nix::unistd::{Uid, User};

    use super::super::query::{with_ssh, without_ssh};
    use super::*;

    #[test]
    fn algorithms_are_the_defaults_more_than_them_or_a_list() {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let of = |text: &str| settings(&format!("Host *\n{text}\n"), "h", true);
        let plain = of("");
        assert_eq!((&plain.ciphers, &plain.macs), (&Algorithms::Default, &Algorithms::Default));
        assert_eq!((&plain.kex_algorithms, &plain.host_key_algorithms), (&Algorithms::Default, &Algorithms::Default));
        assert_eq!(of("Ciphers +aes128-cbc").ciphers, Algorithms::And(names(&["aes128-cbc"])));
        let two = ["aes128-ctr", "aes256-ctr"];
        assert_eq!(of("Ciphers aes128-ctr,aes256-ctr").ciphers, Algorithms::Exactly(names(&two)));
        assert!(matches!(of("MACs -hmac-sha1").macs, Algorithms::Exactly(_)));
    }

    #[test]
    fn what_matters_and_is_not_obeyed_is_named() {
        assert_eq!(settings("Host *\n", "h", true).not_obeyed, [""; 0]);
        let set = settings("Host *\n  VerifyHostKeyDNS yes\n  BindInterface lo\n", "h", true);
        assert_eq!(set.not_obeyed, ["bindinterface", "verifyhostkeydns"]);
        let localhost = settings("Host *\n  NoHostAuthenticationForLocalhost yes\n", "h", true);
        assert!(localhost.trusts_localhost && localhost.not_obeyed.is_empty());
        // ssh -G has obeyed it.
        let canonical = "Host *\n  CanonicalizeHostname always\n  CanonicalDomains invalid\n";
        assert_eq!(settings(canonical, "h", true).not_obeyed, [""; 0]);
        assert_eq!(settings(canonical, "h", false).not_obeyed, ["canonicalizehostname"]);
        let refused = read("Host *\n  RefuseConnection gone\n", "h", false);
        assert!(matches!(refused, Err(Error::SshConfig { .. })), "{refused:?}");
        // As Debian, Ubuntu and Fedora ship it: no reason for a warning.
        let stock =
            settings("Host *\n  SendEnv LANG LC_*\n  HashKnownHosts yes\n  GSSAPIAuthentication yes\n", "h", true);
        assert_eq!((stock.not_obeyed, stock.missing_methods), (Vec::new(), vec![MissingMethod::Gssapi]));
    }

    fn settings(text: &str, destination: &str, with_binary: bool) -> SshSettings {
        read(text, destination, with_binary).expect("valid")
    }

    fn read(text: &str, destination: &str, with_binary: bool) -> Result<SshSettings, Error> {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config");
        std::fs::write(&file, text).expect("written");
        let paths = Paths { home: "/home/me".into() };
        let destination = Destination::parse(destination).expect("a target");
        let source = SshConfigSource::File(file);
        let answer = if with_binary {
            with_ssh(&destination, &source)?.expect("an ssh binary")
        } else {
            Answer { lines: without_ssh(&destination, &source, &paths)?, ..Answer::default() }
        };
        interpret(&destination, &answer, &paths)
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
    fn tokens_of_a_jump_are_replaced() {
        let text = "Host web\n  HostName web.example.com\n  Port 2222\n  User deploy\n\
                    \x20 ProxyJump %r@bastion,%n\n";
        for with_binary in [true, false] {
            let Proxy::Jump(hops) = settings(text, "web", with_binary).proxy else { panic!("no jump") };
            let hops: Vec<String> = hops.iter().map(ToString::to_string).collect();
            assert_eq!(hops, ["deploy@bastion", "web"]);
        }
    }

    /// Whatever paths look like here: homes have blanks in their names where people's names have.
    #[test]
    fn a_path_of_this_system_with_a_blank_is_one_name() {
        let home = std::env::temp_dir().join("First Last").display().to_string();
        let names = [format!("{home}/.ssh/known_hosts"), format!("{home}/.ssh/known_hosts2")];
        assert_eq!(file_names(&names.join(" ")), names);
        assert_eq!(file_names(&format!("none {}", names[1])), ["none", &names[1]]);
    }

    #[cfg(unix)]
    #[test]
    fn a_quoted_blank_belongs_to_a_files_name() {
        let s = settings(
            "Host h\n  User u\n  UserKnownHostsFile \"/kh/a  blank\" /kh/%r \"~/with blank\"\n\
             \x20 GlobalKnownHostsFile \"/g/all of us\" /g/%r\n  RevokedHostKeys \"/r/not these\"\n",
            "h",
            true,
        );
        // ssh takes the passwd entry's home.
        let home = User::from_uid(Uid::current()).expect("readable").expect("an entry").dir;
        let user = [PathBuf::from("/kh/a  blank"), "/kh/u".into(), home.join("with blank")];
        assert_eq!(s.user_known_hosts, user);
        assert_eq!(s.global_known_hosts, [PathBuf::from("/g/all of us"), "/g/%r".into()]);
        assert_eq!(s.revoked_host_keys, [PathBuf::from("/r/not these")]);
        assert_eq!(file_names("/a b none /c"), ["/a b", "none", "/c"]);
        assert_eq!(file_names("relative other"), ["relative", "other"]);
        assert_eq!(file_names(""), [""; 0]);
    }

    #[test]
    fn tokens_that_ssh_has_replaced_are_not_replaced_again() {
        let s = settings("Host h\n  User u\n  UserKnownHostsFile /%%r-%r\n  IdentityAgent /%%h-%h\n", "h", true);
        assert_eq!(s.user_known_hosts, [PathBuf::from("/%r-u")]);
        assert_eq!(s.identity_agent, IdentityAgent::Path("/%h-h".into()));
        assert_eq!(s.unknown_tokens, []);
    }

    #[test]
    fn a_token_that_cannot_be_replaced_is_named_with_its_keyword() {
        let text = "Host h\n  IdentityFile /k/%T-%h\n  CertificateFile /k/%H\n  ProxyCommand nc %I %h\n";
        for with_binary in [true, false] {
            let s = settings(text, "h", with_binary);
            assert_eq!(s.identity_files, [PathBuf::from("/k/%T-h")]);
            let named = [("certificatefile", 'H'), ("identityfile", 'T'), ("proxycommand", 'I')];
            assert_eq!(s.unknown_tokens, named.map(|(key, token)| (key.to_owned(), token)));
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
    }
}
