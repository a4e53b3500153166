//! The messages byte for byte: a daemon and its clients may have different versions (golden/*.snap).

use std::collections::BTreeSet;

use super::*;
use crate::config::{Access, Policy, Takes};
use crate::failure::ExitCode;
use crate::tunnel::{MountState, MountUse, PortState};

/// Compares the lines with the stored ones.
fn assert_golden(name: &str, lines: &[String]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, lines.join("\n")));
}

/// The stored lines.
fn stored(name: &str) -> Vec<String> {
    let path = format!("{}/src/daemon/protocol/golden/{name}.snap", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect(&path);
    let lines = text.splitn(3, "---\n").nth(2).expect("a body");
    lines.lines().map(str::to_owned).collect()
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("JSON")
}

/// Each kind of request has a number, so that a new one does not compile here.
fn number_of_request(request: &Request) -> usize {
    match request {
        Request::Watch { .. } => 0,
        Request::Answer { .. } => 1,
        Request::Status => 2,
        Request::OpenPorts { .. } => 3,
        Request::Reconnect => 4,
        Request::Reload { .. } => 5,
        Request::Down => 6,
        Request::Mounts { .. } => 7,
    }
}

fn number_of_event(event: &Event) -> usize {
    match event {
        Event::Hello { .. } => 0,
        Event::Status { .. } => 1,
        Event::Warning { .. } => 2,
        Event::Step { .. } => 3,
        Event::Prompt { .. } => 4,
        Event::PromptOver { .. } => 5,
        Event::Failed { .. } => 6,
        Event::Reloaded { .. } => 7,
        Event::AlreadyRunning => 8,
        Event::Draining { .. } => 9,
        Event::Stopped => 10,
        Event::Mounts { .. } => 11,
    }
}

fn requests() -> Vec<Request> {
    vec![
        Request::Watch { interactive: true, limit_ms: Some(30_000), agent: Some("/tmp/agent".into()) },
        Request::Watch { interactive: false, limit_ms: None, agent: None },
        Request::Answer { id: 7, answer: Some(Secret::new("s3cret".into())) },
        Request::Answer { id: 7, answer: None },
        Request::Status,
        Request::OpenPorts { ports: Some(vec![8080]), of: None },
        Request::OpenPorts { ports: Some(vec![8080]), of: Some(vec!["4f5e".into()]) },
        Request::OpenPorts { ports: None, of: None },
        Request::Reconnect,
        Request::Reload(Added { lazy: true, ..Added::default() }),
        Request::Mounts { what: MountsTask::Check },
        Request::Mounts { what: MountsTask::Sync },
        Request::Mounts { what: MountsTask::Prune },
        Request::Down,
    ]
}

fn status() -> TunnelStatus {
    TunnelStatus {
        carrier: None,
        carrier_reason: None,
        name: "prod-1".into(),
        state: State::Up,
        ending: false,
        since: Some("2026-11-25T12:00:00Z".into()),
        host: Some("prod-1.example".into()),
        user: Some("deploy".into()),
        port: Some(22),
        local: Some("unix:///run/user/1000/dtunnel/prod-1.sock".into()),
        remote: Some("/run/docker.sock".into()),
        transport: Some("streamlocal".into()),
        connections: vec![ConnectionStatus {
            flows: 2,
            stalled: 1,
            spilled: 4096,
            bytes_in: 10,
            bytes_out: 20,
            rtt_ms: Some(12.5),
            spare: true,
        }],
        flows_open: 2,
        flows_total: 9,
        flows_failed: 1,
        bytes_in: 10,
        bytes_out: 20,
        settings: Some(Settings {
            carrier: None,
            destination: "deploy@prod-1.example".into(),
            access: Access { policies: vec![Policy::ReadOnly], ..Access::default() },
            local: "unix:///run/user/1000/dtunnel/prod-1.sock".into(),
            remote: "auto".into(),
            lazy: false,
            ports: true,
            mounts: Some(true),
            has_profile: true,
            read_only: false,
            remember: Some(false),
            ssh_config: None,
            said: None,
        }),
        changed: vec![Difference {
            setting: "lazy".into(),
            running: "false".into(),
            wanted: "true".into(),
            takes: Takes::Reload,
        }],
        access: Some("read-only".into()),
        requests: vec![RequestStatus {
            method: "GET".into(),
            path: "/events".into(),
            since: "2026-11-25T12:00:01Z".into(),
            pid: Some(4711),
            command: Some("docker".into()),
        }],
        ports: Some(vec![PortStatus {
            container: "web".into(),
            container_id: "0123456789ab".into(),
            protocol: "tcp".into(),
            remote_address: "0.0.0.0".into(),
            remote_port: 8080,
            container_port: 80,
            local: Some("127.0.0.1:8080".into()),
            state: PortState::Open,
            reason: None,
            flows_open: 1,
            bytes_in: 5,
            bytes_out: 6,
        }]),
        mounts: Some(vec![MountStatus {
            path: "/home/me/src".into(),
            mirror: "/home/deploy/.cache/dtunnel/mounts/src-0123".into(),
            containers: vec![MountUse {
                id: "0123456789ab".into(),
                container: "web".into(),
                is_running: true,
                read_only: false,
            }],
            state: MountState::InStep,
            progress: None,
            files: 12,
            bytes: 3456,
            last_change: Some("2026-11-25T12:00:00Z".into()),
            conflicts: vec!["a.dtunnel-conflict-20261125T120000Z".into()],
            failed: vec!["b: Permission denied".into()],
            left: vec!["c: a socket, device or FIFO".into()],
        }]),
        engine: Some(EngineVersion { version: "27.3.1".into(), api_version: "1.47".into() }),
        last_error: Some("the connection to prod-1.example was lost".into()),
        last_reset: None,
        pid: Some(4242),
        arguments: vec!["daemon".into(), "--".into(), "prod-1".into()],
    }
}

fn events() -> Vec<Event> {
    let again = true;
    let notes = || vec!["the server refused key id_ed25519".to_owned()];
    let questions = [
        Question::HostKey {
            host: "prod-1.example".into(),
            key_type: "ED25519".into(),
            fingerprint: "SHA256:abc".into(),
            also_known_as: vec!["other (/home/me/.ssh/known_hosts:3)".into()],
        },
        Question::UpdatedHostKeys {
            host: "prod-1.example".into(),
            new: vec!["ED25519 SHA256:new".into()],
            old: vec!["RSA SHA256:old".into()],
        },
        Question::Passphrase { file: "/home/me/.ssh/id_ed25519".into(), again },
        Question::Password { account: "deploy@prod-1.example".into(), again, notes: notes() },
        Question::Server {
            account: "deploy@prod-1.example".into(),
            instruction: "Second factor".into(),
            prompt: "Code:".into(),
            echo: false,
            notes: notes(),
        },
    ];
    let trouble = Trouble { message: "cannot connect".into(), next_ms: Some(1500) };
    let failure = Failure {
        exit: ExitCode::Unreachable,
        message: "cannot connect to prod-1.example port 22".into(),
        causes: vec!["Connection refused (os error 111)".into()],
        hint: Some("is sshd running?".into()),
    };
    let mut events = vec![
        Event::Hello { protocol: PROTOCOL, version: "0.1.0".into(), pid: 4242 },
        Event::Status { status: Box::new(status()) },
        Event::Status { status: Box::new(TunnelStatus::down("prod-2")) },
        Event::Warning { message: "ssh_config: Foo is not obeyed".into(), said: false },
        Event::Warning { message: "https://login.example/device".into(), said: true },
        Event::Mounts { removed: 2, trouble: None },
        Event::Mounts { removed: 0, trouble: Some("the host has no tar".into()) },
    ];
    for step in [Step::Resolving, Step::Connecting, Step::HostKey, Step::Authenticating, Step::Confirming, Step::Engine]
    {
        events.push(Event::Step { step, trouble: None });
    }
    events.push(Event::Step { step: Step::Connecting, trouble: Some(trouble) });
    events.extend(questions.map(|question| Event::Prompt { id: 7, question }));
    events.extend([
        Event::PromptOver { id: 7 },
        Event::Failed { failure },
        Event::Reloaded { warnings: vec!["`local` takes a restart".into()] },
        Event::AlreadyRunning,
        Event::Draining { flows: 3, limit_ms: Some(600_000) },
        Event::Stopped,
    ]);
    events
}

#[test]
fn every_request_is_said_and_read_as_ever() {
    let requests = requests();
    assert_eq!(requests.iter().map(number_of_request).collect::<BTreeSet<_>>(), (0..8).collect());
    assert_golden("requests", &requests.iter().map(line).collect::<Vec<_>>());
    for said in stored("requests") {
        let request: Request = serde_json::from_str(&said).expect(&said);
        assert_eq!(line(&request), said);
    }
}

#[test]
fn every_event_is_said_and_read_as_ever() {
    let events = events();
    assert_eq!(events.iter().map(number_of_event).collect::<BTreeSet<_>>(), (0..12).collect());
    assert_golden("events", &events.iter().map(line).collect::<Vec<_>>());
    for said in stored("events") {
        let event: Event = serde_json::from_str(&said).expect(&said);
        assert_eq!(line(&event), said);
    }
}

/// Messages of versions that lack some fields, and of later ones with an additional field.
#[test]
fn other_versions_are_understood() {
    for request in
        [r#"{"op":"watch","interactive":true}"#, r#"{"op":"reload"}"#, r#"{"op":"status","a_later_field":1}"#]
    {
        assert!(serde_json::from_str::<Request>(request).is_ok(), "{request}");
    }
    for event in [
        r#"{"event":"warning","message":"x"}"#,
        r#"{"event":"step","step":"connecting"}"#,
        r#"{"event":"draining","flows":1}"#,
        r#"{"event":"prompt","id":1,"question":{"ask":"password","account":"a@b","again":false}}"#,
        r#"{"event":"stopped","a_later_field":{}}"#,
        r#"{"event":"status","status":{"name":"p","state":"up","since":null,"host":"h","user":"u","port":22,
            "local":"unix:///s","remote":"auto","transport":"streamlocal",
            "connections":[{"flows":0,"bytes_in":0,"bytes_out":0}],"flows_open":0,"flows_total":0,"flows_failed":0,
            "bytes_in":0,"bytes_out":0,"settings":{"access":{"policies":[],"allow":[],"allowed_binds":[]},
            "local":"unix:///s","remote":"auto","lazy":false,"ports":false},
            "engine":null,"last_error":null,"pid":1}}"#,
    ] {
        assert!(serde_json::from_str::<Event>(event).is_ok(), "{event}");
    }
    assert!(serde_json::from_str::<Request>(r#"{"op":"unknown"}"#).is_err());
}
