//! Each error once, with its causes, its hint and its exit code, as printed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::super::ui::error_text;
use crate::config::{self, LocalEndpoint, MissingMethod};
use crate::engine;
use crate::failure::Failure;
use crate::host::{self, Obstacle};
use crate::ssh::{self, Phase, Skipped, Tried, TurnedAway, Unconfirmed};
use crate::tunnel;

fn assert_errors(name: &str, errors: Vec<Failure>) {
    let text = |failure: &Failure| format!("{}exit code: {}\n", error_text(failure), failure.exit as u8);
    super::assert_text(name, &errors.iter().map(text).collect::<Vec<_>>().join("\n"));
}

fn os(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

const HOST: &str = "prod-1.example";
const ACCOUNT: &str = "deploy@prod-1.example";

fn host() -> String {
    HOST.into()
}

fn tried() -> Tried {
    Tried {
        accepted: vec!["password".into()],
        refused: vec!["key /home/me/.ssh/id_ed25519".into()],
        skipped: vec![Skipped {
            what: "/home/me/.ssh/id_rsa".into(),
            why: "its passphrase is not known".into(),
            fix: Some("ssh-add /home/me/.ssh/id_rsa".into()),
        }],
        copy_id: Some("ssh-copy-id -i /home/me/.ssh/id_ed25519.pub deploy@prod-1.example".into()),
    }
}

fn refused() -> Tried {
    Tried { accepted: Vec::new(), skipped: Vec::new(), ..tried() }
}

fn reaching() -> Vec<ssh::Error> {
    use ssh::Error;
    let timeout = |step| Error::Timeout { host: host(), step, limit: Duration::from_secs(10) };
    let turned_away = |message: &str, why| Error::TurnedAway { host: host(), message: message.into(), why };
    let connect = |code| Error::Connect { host: host(), port: 22, source: os(code) };
    let proxy = |said: &[&str]| Error::Proxy {
        command: "nc prod-1.example 22".into(),
        how: "ended with exit status: 1".into(),
        said: said.iter().map(|line| (*line).into()).collect(),
    };
    vec![
        Error::Resolve { host: host(), source: io::Error::other("Name or service not known") },
        connect(111),
        connect(113),
        Error::ProxyCommand { command: "nc prod-1.example 22".into(), source: os(2) },
        Error::Jump { hop: "bastion".into(), host: host(), port: 22, reason: "ConnectFailed".into() },
        timeout(Phase::Resolution),
        timeout(Phase::Tcp),
        timeout(Phase::Greeting),
        timeout(Phase::Handshake),
        timeout(Phase::KeyExchange),
        timeout(Phase::Login),
        Error::Handshake { host: host(), source: "connection closed".into() },
        turned_away("Exceeded MaxStartups", TurnedAway::TooBusy),
        turned_away("", TurnedAway::Silent),
        turned_away("go away", TurnedAway::Other),
        Error::NotSsh { host: host(), port: 80, what: "an HTTP server", message: "HTTP/1.1 400".into() },
        Error::NoCommonAlgorithm {
            host: host(),
            kind: "key exchange",
            keyword: "KexAlgorithms",
            ours: vec!["curve25519-sha256".into()],
            theirs: vec!["diffie-hellman-group1-sha1".into()],
        },
        proxy(&["nc: timed out"]),
        proxy(&[]),
        Error::NoAlgorithm { keyword: "Ciphers" },
        Error::Config(config::Error::NoHome),
        Error::OpenSshStart { source: os(2) },
        by_ssh("ssh: connect to host prod-1.example port 22: Connection refused", ssh::Kind::Unreachable),
        Error::Lost { host: host(), message: "no answer for 60s".into() },
    ]
}

fn host_keys() -> Vec<ssh::Error> {
    use ssh::Error;
    let unknown = |reason| Error::HostKeyUnknown {
        host: host(),
        key_type: "ED25519".into(),
        fingerprint: "SHA256:new".into(),
        reason,
    };
    vec![
        Error::HostKeyChanged {
            host: host(),
            expected_type: "ED25519".into(),
            expected: "SHA256:old".into(),
            file: PathBuf::from("/home/me/.ssh/known_hosts"),
            line: 3,
            key_type: "ED25519".into(),
            fingerprint: "SHA256:new".into(),
        },
        Error::HostKeyRevoked { host: host(), place: "/etc/ssh/revoked".into() },
        Error::HostKeyUncheckable { host: host(), reason: "KnownHostsCommand is not run".into() },
        unknown(Unconfirmed::Strict),
        unknown(Unconfirmed::OddName),
        unknown(Unconfirmed::NoFile),
        unknown(Unconfirmed::NotAsked),
        unknown(Unconfirmed::Nobody),
        unknown(Unconfirmed::Refused),
    ]
}

fn by_ssh(said: &str, kind: ssh::Kind) -> ssh::Error {
    ssh::Error::OpenSsh { account: ACCOUNT.into(), said: vec![said.into()], kind }
}

fn logins() -> Vec<ssh::Error> {
    use ssh::Error;
    let auth = |tried, offered: &[&str], missing| Error::Auth {
        account: ACCOUNT.into(),
        tried,
        offered: offered.iter().map(|method| (*method).into()).collect(),
        missing,
    };
    let password = "the password";
    vec![
        auth(tried(), &["password"], Vec::new()),
        auth(refused(), &["publickey"], vec![MissingMethod::Gssapi]),
        auth(Tried { copy_id: None, ..refused() }, &[], Vec::new()),
        auth(Tried::default(), &[], Vec::new()),
        by_ssh("deploy@prod-1.example: Permission denied (publickey,gssapi-with-mic).", ssh::Kind::Auth),
        by_ssh("Host key verification failed.", ssh::Kind::HostKey),
        Error::AuthClosed { host: host(), message: "Too many failures".into(), is_said: true, tried: tried() },
        Error::PasswordExpired { account: ACCOUNT.into(), port: 22 },
        Error::PasswordExpired { account: ACCOUNT.into(), port: 2222 },
        Error::NeedsPerson { account: ACCOUNT.into(), tried: tried(), what: password.into(), missing: Vec::new() },
        Error::NeedsPerson {
            account: ACCOUNT.into(),
            tried: Tried::default(),
            what: password.into(),
            missing: Vec::new(),
        },
    ]
}

/// The groups above hold each kind of error at least once: a new kind does not compile here.
fn number(error: &ssh::Error) -> usize {
    use ssh::Error;
    match error {
        Error::Resolve { .. } => 0,
        Error::Connect { .. } => 1,
        Error::ProxyCommand { .. } => 2,
        Error::Jump { .. } => 3,
        Error::Timeout { .. } => 4,
        Error::Handshake { .. } => 5,
        Error::TurnedAway { .. } => 6,
        Error::NotSsh { .. } => 7,
        Error::NoCommonAlgorithm { .. } => 8,
        Error::Proxy { .. } => 9,
        Error::HostKeyChanged { .. } => 10,
        Error::HostKeyRevoked { .. } => 11,
        Error::HostKeyUncheckable { .. } => 12,
        Error::HostKeyUnknown { .. } => 13,
        Error::Auth { .. } => 14,
        Error::AuthClosed { .. } => 15,
        Error::PasswordExpired { .. } => 16,
        Error::NeedsPerson { .. } => 17,
        Error::NoAlgorithm { .. } => 18,
        Error::Config(_) => 19,
        Error::Lost { .. } => 20,
        Error::OpenSshStart { .. } => 21,
        Error::OpenSsh { .. } => 22,
    }
}

#[test]
fn errors_on_the_way_to_a_login() {
    let groups = [("reaching", reaching()), ("host_keys", host_keys()), ("logins", logins())];
    let numbers: std::collections::BTreeSet<_> = groups.iter().flat_map(|(_, group)| group).map(number).collect();
    assert_eq!(numbers, (0..23).collect());
    for (name, group) in groups {
        let failures = group.into_iter().map(|error| host::Error::Ssh(error).into()).collect();
        assert_errors(&format!("errors_{name}"), failures);
    }
}

fn of_configuration() -> Vec<config::Error> {
    use config::Error;
    let file = || PathBuf::from("/home/me/.config/dtunnel/config.toml");
    let unknown_key = |nearest: Option<&str>| Error::UnknownKey {
        path: file(),
        line: 4,
        column: 1,
        key: "usr".into(),
        section: "[profiles.prod-1]".into(),
        nearest: nearest.map(Into::into),
    };
    let no_profile = |nearest: Option<&str>| Error::NoProfile {
        name: "prod".into(),
        path: file(),
        nearest: nearest.map(Into::into),
    };
    let remote = || Error::Remote { input: "udp:1".into(), reason: "the Engine listens on no such thing" };
    vec![
        Error::File { action: "read", path: file(), source: os(13) },
        Error::Syntax { path: file(), line: 3, column: 7, message: "expected a string".into() },
        unknown_key(Some("user")),
        unknown_key(None),
        Error::At { place: "config.toml:5:10".into(), key: "remote".into(), error: Box::new(remote()) },
        Error::Target { input: "a b".into(), reason: "a host's name has no blanks" },
        Error::ProfileName { name: "-x".into() },
        Error::ProfileExists { name: "prod-1".into(), path: file() },
        no_profile(Some("prod-1")),
        no_profile(None),
        Error::Local { input: "tcp:0.0.0.0:1".into(), reason: "only loopback addresses are private" },
        Error::LocalPlace { path: "/tmp/x.sock".into(), reason: "others may write /tmp".into() },
        remote(),
        Error::Setting { name: "prod-1".into(), reason: "`lazy` and `ports` exclude each other".into() },
        Error::SocketPath { path: "/a/long/path.sock".into(), length: 120 },
        Error::RuntimeDir { path: "/run/user/1000".into(), reason: "it belongs to uid 0".into() },
        Error::NotTrusted {
            path: file(),
            reason: "others may write it (mode 0664)".into(),
            remedy: "if what is in it is yours: chmod go-w '/home/me/.config/dtunnel/config.toml'".into(),
        },
        Error::NoHome,
        Error::SshConfig { host: host(), message: "line 3: Bad configuration option: foo".into() },
    ]
}

fn number_of_configuration(error: &config::Error) -> usize {
    use config::Error;
    match error {
        Error::File { .. } => 0,
        Error::Syntax { .. } => 1,
        Error::UnknownKey { .. } => 2,
        Error::At { .. } => 3,
        Error::Target { .. } => 4,
        Error::ProfileName { .. } => 5,
        Error::ProfileExists { .. } => 6,
        Error::NoProfile { .. } => 7,
        Error::Local { .. } => 8,
        Error::LocalPlace { .. } => 9,
        Error::Remote { .. } => 10,
        Error::Setting { .. } => 11,
        Error::SocketPath { .. } => 12,
        Error::RuntimeDir { .. } => 13,
        Error::NotTrusted { .. } => 14,
        Error::NoHome => 15,
        Error::SshConfig { .. } => 16,
    }
}

#[test]
fn errors_of_the_configuration() {
    let errors = of_configuration();
    let numbers: std::collections::BTreeSet<_> = errors.iter().map(number_of_configuration).collect();
    assert_eq!(numbers, (0..17).collect());
    assert_errors("errors_configuration", errors.into_iter().map(Failure::from).collect());
}

fn of_engine() -> Vec<host::Error> {
    use host::Error;
    let (host, socket) = (|| "deploy@prod-1.example:22".to_owned(), || "/run/docker.sock".to_owned());
    let obstacle = |obstacle| Error::Obstacle { host: host(), obstacle };
    let no_socket = |docker_installed| Obstacle::NoSocket { looked: vec![socket()], docker_installed };
    let permission = |new_login| Obstacle::Permission {
        socket: socket(),
        listing: "srw-rw---- root docker".into(),
        user: "deploy".into(),
        new_login,
    };
    let forwarding = |said: &str| Error::Forwarding {
        host: host(),
        socket: socket(),
        user: "deploy".into(),
        said: said.into(),
        source: ssh::OpenError::Refused {
            endpoint: socket(),
            reason: "ConnectFailed".into(),
            kind: ssh::Refusal::ConnectFailed,
        },
    };
    let engine = |source| Error::Engine { host: host(), socket: socket(), source };
    vec![
        forwarding(""),
        forwarding("This account is currently not available."),
        obstacle(no_socket(true)),
        obstacle(no_socket(false)),
        obstacle(permission(true)),
        obstacle(permission(false)),
        obstacle(Obstacle::Prohibited { socket: socket() }),
        obstacle(Obstacle::NotListening { socket: socket(), said: "Connection refused".into() }),
        obstacle(Obstacle::Command { command: "docker system dial-stdio".into(), said: "not found".into() }),
        engine(engine::Error::Timeout(Duration::from_secs(10))),
        engine(engine::Error::Status(hyper::StatusCode::FORBIDDEN)),
        engine(engine::Error::Body("its end is missing".into())),
    ]
}

#[test]
fn errors_between_a_login_and_the_engine() {
    assert_errors("errors_engine", of_engine().into_iter().map(Failure::from).collect());
}

#[test]
fn errors_of_a_tunnel() {
    use tunnel::Error;
    let timeout = |step| Error::Timeout { host: ACCOUNT.into(), limit: Duration::from_secs(30), step };
    let errors = [
        Error::Listen { endpoint: LocalEndpoint::Unix("/run/user/1000/dtunnel/p.sock".into()), source: os(98) },
        Error::System(os(24)),
        Error::Access { name: "prod-1".into(), reason: "`x` in `allow` is not an operation of the Engine".into() },
        timeout(ssh::Step::Connecting),
        timeout(ssh::Step::HostKey),
        timeout(ssh::Step::Confirming),
        timeout(ssh::Step::Engine),
    ];
    assert_errors("errors_tunnel", errors.into_iter().map(Failure::from).collect());
}
