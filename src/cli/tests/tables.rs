//! The tables and reports of `status`, `ports`, `doctor` and `audit`, and the JSON of `status`.

use std::time::{Duration, SystemTime};

use super::super::{audit, doctor, output, ports, status};
use super::assert_text;
use crate::audit::{Evidence, Finding, Outcome, RULES, Report};
use crate::config::{Difference, Takes};
use crate::daemon::TunnelStatus;
use crate::doctor::{Check, Verdict};
use crate::engine::EngineVersion;
use crate::ssh::Carrier;
use crate::tunnel::{ConnectionStatus, PortState, PortStatus, State};

/// A width that fits a row on one line, and one that does not.
const WIDE: Option<usize> = Some(200);
const NARROW: Option<usize> = Some(60);

fn port(container: &str, remote_port: u16, state: PortState, reason: Option<&str>) -> PortStatus {
    PortStatus {
        container: container.into(),
        container_id: format!("id-of-{container}"),
        protocol: "tcp".into(),
        remote_address: if remote_port == 5432 { "::".into() } else { "0.0.0.0".into() },
        remote_port,
        container_port: 80,
        local: (state == PortState::Open).then(|| format!("127.0.0.1:{remote_port}")),
        state,
        reason: reason.map(Into::into),
        flows_open: 0,
        bytes_in: 1_500,
        bytes_out: 12_345_678,
    }
}

fn all_ports() -> Vec<PortStatus> {
    vec![
        port("web", 8080, PortState::Open, None),
        port("db", 5432, PortState::Waiting, Some("`dtunnel ports prod-1 --open 5432` brings it here")),
        port("old", 8081, PortState::Taken, Some("another program has 127.0.0.1:8081")),
        port("dns", 53, PortState::NotForwarded, Some("SSH carries TCP only")),
        PortStatus { remote_address: String::new(), ..port("host", 0, PortState::HostNetwork, None) },
    ]
}

fn up() -> TunnelStatus {
    TunnelStatus {
        state: State::Up,
        since: Some("2026-11-25T12:00:00Z".into()),
        host: Some("prod-1.example".into()),
        user: Some("deploy".into()),
        port: Some(22),
        local: Some("unix:///run/user/1000/dtunnel/prod-1.sock".into()),
        remote: Some("/run/docker.sock".into()),
        transport: Some("streamlocal".into()),
        carrier: Some(Carrier::Native),
        carrier_reason: None,
        connections: vec![ConnectionStatus {
            flows: 1,
            stalled: 0,
            spilled: 0,
            bytes_in: 4_300,
            bytes_out: 5_800,
            rtt_ms: Some(24.5),
            spare: true,
        }],
        flows_open: 1,
        flows_total: 12,
        bytes_in: 4_300,
        bytes_out: 5_800,
        access: Some("read-only".into()),
        ports: Some(all_ports()),
        engine: Some(EngineVersion { version: "27.3.1".into(), api_version: "1.47".into() }),
        changed: vec![Difference {
            setting: "drain".into(),
            running: "10m".into(),
            wanted: "1m".into(),
            takes: Takes::Reload,
        }],
        pid: Some(4242),
        arguments: vec!["daemon".into(), "--".into(), "prod-1".into()],
        ..TunnelStatus::down("prod-1")
    }
}

fn statuses() -> Vec<TunnelStatus> {
    // Not close to a time at which `3days 2h` would change during the test.
    let since = SystemTime::now() - Duration::from_secs(3 * 86_400 + 2 * 3600 + 1800);
    let since = Some(humantime::format_rfc3339_seconds(since).to_string());
    let reconnecting = TunnelStatus {
        state: State::Reconnecting,
        host: Some("2001:db8::1".into()),
        user: Some("root".into()),
        port: Some(2222),
        local: Some("tcp://127.0.0.1:2375".into()),
        last_error: Some("the connection to 2001:db8::1 was lost".into()),
        last_reset: Some("12:00:03 docker (pid 4711) did not read for 180s".into()),
        ..TunnelStatus::down("staging")
    };
    vec![TunnelStatus { since, ..up() }, reconnecting, TunnelStatus::down("old")]
}

#[test]
fn status_as_a_table_and_as_blocks() {
    assert_text("status", &status::table(&statuses(), WIDE));
    assert_text("status_narrow", &status::table(&statuses(), NARROW));
}

#[test]
fn status_as_json() {
    let statuses = [up(), TunnelStatus::down("old")];
    assert_text("status_json", &serde_json::to_string_pretty(&statuses).expect("JSON"));
}

#[test]
fn ports_as_a_table() {
    assert_text("ports", &ports::table(&all_ports(), WIDE));
}

#[test]
fn doctor_as_lines() {
    let check = |id, verdict, ms, detail: &str, remedy: Option<&str>| Check {
        id,
        verdict,
        ms,
        detail: detail.into(),
        remedy: remedy.map(Into::into),
    };
    let checks = [
        check("target", Verdict::Ok, Some(0.0), "deploy@prod-1.example:22", None),
        check("resolve", Verdict::Ok, Some(1.2), "192.0.2.1", None),
        check("forwarding", Verdict::Warning, Some(24.0), "the server refused", Some("AllowTcpForwarding yes")),
        check("engine", Verdict::Failed, None, "nothing answers", Some("systemctl start docker")),
        check("clock", Verdict::Skipped, None, "a step before it failed", None),
    ];
    let lines: String = checks.iter().map(doctor::line).collect();
    let mut summaries = String::new();
    for target in [Some("prod-1"), None] {
        for checks in [&checks[..2], &checks[..3], &checks[..]] {
            summaries += &format!("{}\n", doctor::summary(target, checks));
        }
    }
    assert_text("doctor", &format!("{lines}\n{summaries}"));
}

/// An audit with a finding, an ignored one and an unknown one.
fn report() -> Report {
    let line =
        |container: Option<&str>, text: &str| Evidence { container: container.map(Into::into), text: text.into() };
    let state = |id: &str| match id {
        "socket-mode" => Finding::Found(vec![line(None, "/run/docker.sock: mode 666, owner root, group docker")]),
        "docker-group" => Finding::Found((0..7).map(|n| line(None, &format!("docker: user-{n}"))).collect()),
        "container-privileged" => Finding::Found(vec![line(Some("web"), "--privileged"), line(Some("db"), "")]),
        "container-memory" => Finding::Found(vec![line(Some("web"), "")]),
        "icc" => Finding::Ignored {
            reason: Some("one user only".into()),
            evidence: vec![line(None, "com.docker.network.bridge.enable_icc=true")],
        },
        "seccomp" => Finding::Ignored { reason: None, evidence: vec![line(None, "seccomp is not there")] },
        "swarm-autolock" => Finding::Unknown("the Engine does not say".into()),
        _ => Finding::Passed,
    };
    let outcome = |rule: &'static crate::audit::Rule| Outcome {
        rule,
        state: state(rule.id),
        remedy: rule.remedy.replace("SOCKET", "/run/docker.sock"),
    };
    Report {
        host: "deploy@prod-1.example:22".into(),
        score: 57,
        versions_as_of: "2026-08-23",
        outcomes: RULES.iter().map(outcome).collect(),
    }
}

#[test]
fn audit_as_a_report() {
    assert_text("audit", &audit::report_text(&report(), false));
    assert_text("audit_verbose", &audit::report_text(&report(), true));
}

#[test]
fn a_span_of_the_status_table_is_the_two_largest_units() {
    assert_eq!(output::span(Duration::from_secs(3 * 86_400 + 2 * 3600 + 1800)), "3days 2h");
}
