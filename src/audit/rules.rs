//! What is looked at: every check with its severity, its number in the CIS Docker Benchmark 1.6.0, and
//! what to do.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth doing.
    Low,
    /// Makes an attack easier, or its damage larger.
    Medium,
    /// A way to root on the host for whoever is in a container, or near one.
    High,
    /// A way to root on the host for whoever is on its network, or logged in there.
    Critical,
}

impl Severity {
    /// Every one, the worst first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Medium, Self::Low];

    /// What a finding takes from the score.
    pub(super) fn weight(self) -> u32 {
        match self {
            Self::Critical => 25,
            Self::High => 10,
            Self::Medium => 4,
            Self::Low => 1,
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        })
    }
}

/// A check.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its name, which stays the same from version to version.
    pub id: &'static str,
    /// What is wrong where it finds something.
    pub title: &'static str,
    /// How bad that is.
    pub severity: Severity,
    /// Its number in the CIS Docker Benchmark 1.6.0.
    pub cis: Option<&'static str>,
    /// What to do, to be pasted where it can be.
    pub remedy: &'static str,
}

use Severity::{Critical, High, Low, Medium};

const fn rule(
    id: &'static str,
    severity: Severity,
    cis: Option<&'static str>,
    title: &'static str,
    remedy: &'static str,
) -> Rule {
    Rule { id, title, severity, cis, remedy }
}

/// All of them, in the order in which they are told.
pub const RULES: &[Rule] = &[
    rule(
        "socket-mode",
        Critical,
        Some("3.16"),
        "Others than owner and group can use the Engine's socket",
        "sudo chmod 660 SOCKET (and set SocketMode=0660 in docker.socket)",
    ),
    rule(
        "socket-owner",
        Medium,
        Some("3.15"),
        "The Engine's socket is not root's, or not the group docker's",
        "sudo chown root:docker SOCKET",
    ),
    rule(
        "docker-group",
        Medium,
        Some("1.1.2"),
        "Members of the socket's group are root on the host",
        "sudo gpasswd -d USER docker, for each one who need not be root",
    ),
    rule(
        "tcp-open",
        Critical,
        Some("2.7"),
        "The Engine listens on a network address without checking who comes (TLS)",
        "remove the tcp:// host from /etc/docker/daemon.json or dockerd's options and use SSH; or set \"tlsverify\": true with certificates",
    ),
    rule(
        "tcp-loopback",
        High,
        Some("2.7"),
        "The Engine listens on a loopback port without checking who comes: every local user and browser can use it",
        "remove the tcp:// host from /etc/docker/daemon.json or dockerd's options and use the socket",
    ),
    rule(
        "tcp-reachable",
        High,
        Some("2.7"),
        "The Engine's usual ports (2375, 2376) can be reached from here, beside SSH",
        "close them in the host's firewall, or stop the Engine from listening there",
    ),
    rule(
        "ssh-root",
        Medium,
        None,
        "This login is root's",
        "use a login in the group docker, and set PermitRootLogin no in sshd_config",
    ),
    rule(
        "ssh-password",
        Medium,
        None,
        "The SSH server takes passwords",
        "PasswordAuthentication no and KbdInteractiveAuthentication no in sshd_config",
    ),
    rule(
        "ssh-unrestricted",
        Low,
        None,
        "This login can do more than forward",
        "restrict,port-forwarding,command=\"/bin/false\" before its key in authorized_keys; in sshd_config, for a login that is for tunnels only: Match User USER, then AllowTcpForwarding local, AllowStreamLocalForwarding local, PermitTTY no, ForceCommand /bin/false",
    ),
    rule(
        "ssh-host-key",
        High,
        None,
        "Host keys are not checked: whoever is in between can be the host",
        "StrictHostKeyChecking ask (or accept-new) for this host in ssh_config",
    ),
    rule(
        "ssh-algorithms",
        Medium,
        None,
        "The SSH handshake can be tampered with (Terrapin, CVE-2023-48795)",
        "update the server's OpenSSH to 9.6 or later",
    ),
    rule(
        "ssh-quantum",
        Low,
        None,
        "What is recorded of SSH today could be read by a quantum computer later",
        "update the server's OpenSSH to 9.9 or later, for mlkem768x25519-sha256",
    ),
    rule(
        "user-namespaces",
        Medium,
        Some("2.9"),
        "Root in a container is root on the host: neither user namespaces nor rootless",
        "\"userns-remap\": \"default\" in /etc/docker/daemon.json, or rootless Docker (dockerd-rootless-setuptool.sh install)",
    ),
    rule(
        "mandatory-access",
        Medium,
        Some("5.2, 5.3"),
        "Neither AppArmor nor SELinux confines containers",
        "install AppArmor, or set \"selinux-enabled\": true in /etc/docker/daemon.json",
    ),
    rule(
        "seccomp",
        High,
        Some("5.22"),
        "The Engine filters no system calls (seccomp) by default",
        "remove \"seccomp-profile\": \"unconfined\" from /etc/docker/daemon.json",
    ),
    rule(
        "no-new-privileges",
        Medium,
        Some("2.14"),
        "Containers may gain privileges by setuid programs",
        "\"no-new-privileges\": true in /etc/docker/daemon.json",
    ),
    rule(
        "icc",
        Medium,
        Some("2.2"),
        "Containers on the default bridge can reach each other",
        "\"icc\": false in /etc/docker/daemon.json",
    ),
    rule(
        "userland-proxy",
        Low,
        Some("2.16"),
        "A process carries each published port where the kernel could",
        "\"userland-proxy\": false in /etc/docker/daemon.json",
    ),
    rule(
        "live-restore",
        Low,
        Some("2.15"),
        "Updating the Engine ends all containers, so updates are put off",
        "\"live-restore\": true in /etc/docker/daemon.json",
    ),
    rule(
        "content-trust",
        Low,
        None,
        "DOCKER_CONTENT_TRUST is set here: Docker retires it, and pulls of official images fail with it",
        "unset DOCKER_CONTENT_TRUST; name images by digest (NAME@sha256:…), or check signatures with cosign or notation",
    ),
    rule(
        "insecure-registries",
        High,
        Some("2.5"),
        "Images may come from registries that are not authenticated",
        "remove them from \"insecure-registries\" in /etc/docker/daemon.json",
    ),
    rule(
        "experimental",
        Low,
        Some("2.18"),
        "Experimental features are on",
        "remove \"experimental\" from /etc/docker/daemon.json",
    ),
    rule(
        "logging",
        Low,
        Some("2.13"),
        "Logs of containers stay on the host, or are not kept",
        "\"log-driver\": \"journald\" (or syslog, fluentd …) in /etc/docker/daemon.json",
    ),
    rule(
        "authorization",
        Low,
        Some("2.12"),
        "No authorization plugin decides on what is asked of the Engine",
        "\"authorization-plugins\": [\"PLUGIN\"] in /etc/docker/daemon.json",
    ),
    rule(
        "swarm-autolock",
        Medium,
        Some("7.5"),
        "The swarm's keys lie on the managers' disks unlocked",
        "docker swarm update --autolock=true",
    ),
    rule(
        "container-socket",
        Critical,
        Some("5.32"),
        "The Engine's socket is mounted into a container: whoever is in there is root on the host",
        "run it without `-v /var/run/docker.sock:…`; a proxy that filters the API where it cannot do without",
    ),
    rule(
        "container-privileged",
        High,
        Some("5.5"),
        "A container is privileged",
        "run it without --privileged; name what it needs with --cap-add and --device",
    ),
    rule(
        "container-host-namespaces",
        High,
        Some("5.10, 5.16, 5.17, 5.21, 5.31"),
        "A container shares namespaces of the host",
        "run it without --network, --pid, --ipc, --uts or --userns host",
    ),
    rule(
        "container-capabilities",
        High,
        Some("5.4"),
        "A container has capabilities beyond the default",
        "run it without --cap-add; --cap-drop ALL and what it really needs",
    ),
    rule(
        "container-binds",
        High,
        Some("5.6"),
        "A directory of the host's system is mounted into a container",
        "mount only what it needs, read-only where it only reads",
    ),
    rule(
        "container-confinement",
        High,
        Some("5.2, 5.22"),
        "A container runs without its system call filter or AppArmor profile",
        "run it without --security-opt seccomp=unconfined, apparmor=unconfined",
    ),
    rule("container-devices", Medium, Some("5.18"), "A container has devices of the host", "run it without --device"),
    rule("container-memory", Low, Some("5.11"), "A container may take all memory", "run it with --memory"),
    rule(
        "container-pids",
        Low,
        Some("5.29"),
        "A container may start any number of processes",
        "run it with --pids-limit",
    ),
    rule(
        "container-root",
        Low,
        Some("4.1"),
        "A container runs as root",
        "USER in its Dockerfile, or run it with --user",
    ),
    rule(
        "container-published",
        Medium,
        Some("5.14"),
        "A port is published on every address of the host (around most firewalls)",
        "publish it as 127.0.0.1:PORT:PORT; dtunnel up --ports brings it to you",
    ),
    rule("version-engine", High, Some("1.2.2"), "The Engine's version gets no more fixes", "update Docker Engine"),
    rule(
        "version-api",
        Low,
        Some("1.2.2"),
        "The Engine speaks API versions that current clients no longer do",
        "update Docker Engine",
    ),
    rule("version-containerd", Medium, Some("1.2.2"), "containerd's version gets no more fixes", "update containerd"),
    rule(
        "version-runc",
        High,
        Some("1.2.2"),
        "runc's version has known ways out of a container",
        "update runc (it comes with containerd.io, or your distribution's package)",
    ),
    rule(
        "version-kernel",
        Medium,
        Some("1.2.1"),
        "The kernel's series gets no more fixes",
        "update the host's operating system",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_checks_are_these() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md");
        let text = std::fs::read_to_string(path).expect("docs/audit.md");
        let (begin, end) = ("<!-- checks -->\n", "<!-- end of checks -->");
        let from = text.find(begin).expect("a place for the checks") + begin.len();
        let to = text.find(end).expect("its end");
        let mut table = String::from("| check | severity | CIS | finds |\n| --- | --- | --- | --- |\n");
        for rule in RULES {
            let cis = rule.cis.unwrap_or("-");
            table += &format!("| `{}` | {} | {cis} | {} |\n", rule.id, rule.severity, rule.title);
        }
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, format!("{}{table}{}", &text[..from], &text[to..])).expect("written");
        } else {
            assert!(text[from..to] == table, "docs/audit.md is old: run `UPDATE_DOCS=1 cargo test --lib audit`");
        }
    }
}
