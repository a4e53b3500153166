//! The list of checks, each with its severity, its number in the CIS Docker Benchmark 1.6.0, the remedy, and the
//! function that decides it.

use super::containers::Look;
use super::facts::Facts;
use super::finding::Finding;
use super::rule::{Check, Rule, Severity};
use super::{checks, containers};

use Severity::{Critical, High, Low, Medium};

const fn rule(
    id: &'static str,
    severity: Severity,
    cis: Option<&'static str>,
    title: &'static str,
    remedy: &'static str,
    check: Check,
) -> Rule {
    Rule { id, title, severity, cis, remedy, check }
}

const fn engine(judge: fn(&Facts) -> Finding) -> Check {
    Check::Engine(judge)
}

const fn each(look: Look) -> Check {
    Check::EachContainer(look)
}

/// All checks, in the order of the report.
pub const RULES: &[Rule] = &[
    rule(
        "socket-mode",
        Critical,
        Some("3.16"),
        "Users other than owner and group can use the Engine's socket",
        "sudo chmod 660 SOCKET (and set SocketMode=0660 in docker.socket)",
        engine(checks::socket_mode),
    ),
    rule(
        "socket-owner",
        Medium,
        Some("3.15"),
        "The Engine's socket is not owned by root, or its group is not docker",
        "sudo chown root:docker SOCKET",
        engine(checks::socket_owner),
    ),
    rule(
        "docker-group",
        Medium,
        Some("1.1.2"),
        "Members of the socket's group are root on the host",
        "sudo gpasswd -d USER docker, for each one who need not be root",
        engine(checks::docker_group),
    ),
    rule(
        "tcp-open",
        Critical,
        Some("2.7"),
        "The Engine listens on a network address without authenticating clients (TLS)",
        "remove the tcp:// host from /etc/docker/daemon.json or dockerd's options and use SSH; or set \"tlsverify\": true with certificates",
        engine(checks::tcp_open),
    ),
    rule(
        "tcp-loopback",
        High,
        Some("2.7"),
        "The Engine listens on a loopback port without authenticating clients: every local user and browser can use it",
        "remove the tcp:// host from /etc/docker/daemon.json or dockerd's options and use the socket",
        engine(checks::tcp_loopback),
    ),
    rule(
        "tcp-reachable",
        High,
        Some("2.7"),
        "The Engine's usual ports (2375, 2376) can be reached from here, beside SSH",
        "close them in the host's firewall, or stop the Engine from listening there",
        engine(checks::tcp_reachable),
    ),
    rule(
        "ssh-root",
        Medium,
        None,
        "This login is root",
        "use a login in the group docker, and set PermitRootLogin no in sshd_config",
        engine(checks::ssh_root),
    ),
    rule(
        "ssh-password",
        Medium,
        None,
        "The SSH server accepts passwords",
        "PasswordAuthentication no and KbdInteractiveAuthentication no in sshd_config",
        engine(checks::ssh_password),
    ),
    rule(
        "ssh-unrestricted",
        Low,
        None,
        "This login can do more than forward",
        "restrict,port-forwarding,command=\"/bin/false\" before its key in authorized_keys; in sshd_config, for a login that is for tunnels only: Match User USER, then AllowTcpForwarding local, AllowStreamLocalForwarding local, PermitTTY no, ForceCommand /bin/false",
        engine(checks::ssh_unrestricted),
    ),
    rule(
        "ssh-host-key",
        High,
        None,
        "Host keys are not checked: anyone in between can pose as the host",
        "StrictHostKeyChecking ask (or accept-new) for this host in ssh_config",
        engine(checks::ssh_host_key),
    ),
    rule(
        "ssh-algorithms",
        Medium,
        None,
        "The SSH handshake can be tampered with (Terrapin, CVE-2023-48795)",
        "update the server's OpenSSH to 9.6 or later",
        engine(checks::ssh_algorithms),
    ),
    rule(
        "ssh-quantum",
        Low,
        None,
        "SSH traffic recorded today could be decrypted by a quantum computer later",
        "update the server's OpenSSH to 9.9 or later, for mlkem768x25519-sha256",
        engine(checks::ssh_quantum),
    ),
    rule(
        "user-namespaces",
        Medium,
        Some("2.9"),
        "Root in a container is root on the host: neither user namespaces nor rootless",
        "\"userns-remap\": \"default\" in /etc/docker/daemon.json, or rootless Docker (dockerd-rootless-setuptool.sh install)",
        engine(checks::user_namespaces),
    ),
    rule(
        "mandatory-access",
        Medium,
        Some("5.2, 5.3"),
        "Neither AppArmor nor SELinux confines containers",
        "install AppArmor, or set \"selinux-enabled\": true in /etc/docker/daemon.json",
        engine(checks::mandatory_access),
    ),
    rule(
        "seccomp",
        High,
        Some("5.22"),
        "The Engine filters no system calls (seccomp) by default",
        "remove \"seccomp-profile\": \"unconfined\" from /etc/docker/daemon.json",
        engine(checks::seccomp),
    ),
    rule(
        "no-new-privileges",
        Medium,
        Some("2.14"),
        "Containers may gain privileges by setuid programs",
        "\"no-new-privileges\": true in /etc/docker/daemon.json",
        engine(checks::no_new_privileges),
    ),
    rule(
        "icc",
        Medium,
        Some("2.2"),
        "Containers on the default bridge can reach each other",
        "\"icc\": false in /etc/docker/daemon.json",
        engine(checks::icc),
    ),
    rule(
        "userland-proxy",
        Low,
        Some("2.16"),
        "A process forwards each published port, though the kernel could",
        "\"userland-proxy\": false in /etc/docker/daemon.json",
        engine(checks::userland_proxy),
    ),
    rule(
        "live-restore",
        Low,
        Some("2.15"),
        "Updating the Engine ends all containers, so updates are put off",
        "\"live-restore\": true in /etc/docker/daemon.json",
        engine(checks::live_restore),
    ),
    rule(
        "content-trust",
        Low,
        None,
        "DOCKER_CONTENT_TRUST is set here: Docker is retiring it, and pulls of official images fail with it",
        "unset DOCKER_CONTENT_TRUST; name images by digest (NAME@sha256:…), or check signatures with cosign or notation",
        engine(checks::content_trust),
    ),
    rule(
        "insecure-registries",
        High,
        Some("2.5"),
        "Images may come from registries that are not authenticated",
        "remove them from \"insecure-registries\" in /etc/docker/daemon.json",
        engine(checks::insecure_registries),
    ),
    rule(
        "experimental",
        Low,
        Some("2.18"),
        "Experimental features are on",
        "remove \"experimental\" from /etc/docker/daemon.json",
        engine(checks::experimental),
    ),
    rule(
        "logging",
        Low,
        Some("2.13"),
        "Logs of containers stay on the host, or are not kept",
        "\"log-driver\": \"journald\" (or syslog, fluentd …) in /etc/docker/daemon.json",
        engine(checks::logging),
    ),
    rule(
        "authorization",
        Low,
        Some("2.12"),
        "No authorization plugin checks requests to the Engine",
        "\"authorization-plugins\": [\"PLUGIN\"] in /etc/docker/daemon.json",
        engine(checks::authorization),
    ),
    rule(
        "swarm-autolock",
        Medium,
        Some("7.5"),
        "The swarm's keys are stored unlocked on the managers' disks",
        "docker swarm update --autolock=true",
        engine(checks::swarm_autolock),
    ),
    rule(
        "container-socket",
        Critical,
        Some("5.32"),
        "The Engine's socket is mounted into a container: a process in it can be root on the host",
        "run it without `-v /var/run/docker.sock:…`; if it needs the API, give it a proxy that filters",
        each(containers::socket),
    ),
    rule(
        "container-privileged",
        High,
        Some("5.5"),
        "A container is privileged",
        "run it without --privileged; name what it needs with --cap-add and --device",
        each(containers::privileged),
    ),
    rule(
        "container-host-namespaces",
        High,
        Some("5.10, 5.16, 5.17, 5.21, 5.31"),
        "A container shares namespaces of the host",
        "run it without --network, --pid, --ipc, --uts or --userns host",
        each(containers::host_namespaces),
    ),
    rule(
        "container-capabilities",
        High,
        Some("5.4"),
        "A container has capabilities beyond the default",
        "run it without --cap-add; --cap-drop ALL and what it really needs",
        each(containers::capabilities),
    ),
    rule(
        "container-binds",
        High,
        Some("5.6"),
        "A directory of the host's system is mounted into a container",
        "mount only what it needs, read-only where it only reads",
        each(containers::binds),
    ),
    rule(
        "container-confinement",
        High,
        Some("5.2, 5.22"),
        "A container runs without its system call filter or AppArmor profile",
        "run it without --security-opt seccomp=unconfined, apparmor=unconfined",
        each(containers::confinement),
    ),
    rule(
        "container-devices",
        Medium,
        Some("5.18"),
        "A container has devices of the host",
        "run it without --device",
        each(containers::devices),
    ),
    rule(
        "container-memory",
        Low,
        Some("5.11"),
        "A container may take all memory",
        "run it with --memory",
        each(containers::memory),
    ),
    rule(
        "container-pids",
        Low,
        Some("5.29"),
        "A container may start any number of processes",
        "run it with --pids-limit",
        each(containers::pids),
    ),
    rule(
        "container-root",
        Low,
        Some("4.1"),
        "A container runs as root",
        "USER in its Dockerfile, or run it with --user",
        each(containers::root),
    ),
    rule(
        "container-published",
        Medium,
        Some("5.14"),
        "A port is published on every address of the host (around most firewalls)",
        "publish it as 127.0.0.1:PORT:PORT; dtunnel up --ports forwards it to you",
        each(containers::published),
    ),
    rule(
        "version-engine",
        High,
        Some("1.2.2"),
        "The Engine's version gets no more fixes",
        "update Docker Engine",
        engine(checks::version_engine),
    ),
    rule(
        "version-api",
        Low,
        Some("1.2.2"),
        "The Engine speaks API versions that current clients no longer support",
        "update Docker Engine",
        engine(checks::version_api),
    ),
    rule(
        "version-containerd",
        Medium,
        Some("1.2.2"),
        "containerd's version gets no more fixes",
        "update containerd",
        engine(checks::version_containerd),
    ),
    rule(
        "version-runc",
        High,
        Some("1.2.2"),
        "runc's version has known container escapes",
        "update runc (it comes with containerd.io, or your distribution's package)",
        engine(checks::version_runc),
    ),
    rule(
        "version-kernel",
        Medium,
        Some("1.2.1"),
        "The kernel's series gets no more fixes",
        "update the host's operating system",
        engine(checks::version_kernel),
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
