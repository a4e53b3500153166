//! The files of `tests/ssh_config/corpus`, as dtunnel reads them: held against `ssh -G`, and with the ssh binary against
//! without it. Where no network can be reached: ssh runs commands and asks name servers for some of them.

// Written for Unix paths.
#![cfg(unix)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

use super::super::interpret::interpret;
use super::super::query::{Answer, with_ssh, without_ssh};
use super::super::settings::{Algorithms, IdentityAgent, Proxy, SshSettings};
use super::super::source::SshConfigSource;
use crate::config::{ConfigFile, Destination, Error, Overrides, Paths, Target, resolve};

/// Set in a process that has no network.
const INSIDE: &str = "DTUNNEL_TEST_INSIDE";

/// Runs the calling test again, in a network namespace of its own. True in there.
fn is_where_nothing_can_be_reached() -> bool {
    if std::env::var_os(INSIDE).is_some() {
        let interfaces = std::fs::read_to_string("/proc/net/dev").expect("readable");
        let mut names = interfaces.lines().skip(2).filter_map(|line| line.trim().split(':').next());
        assert!(names.all(|name| name == "lo"), "{interfaces}");
        return true;
    }
    let without_network = || {
        let mut command = Command::new("unshare");
        command.args(["--net", "--map-root-user"]).stdin(Stdio::null());
        command
    };
    if !without_network().arg("true").status().is_ok_and(|status| status.success()) {
        let _ = writeln!(std::io::stderr(), "skipped: no network namespaces");
        return false;
    }
    // ssh takes the passwd entry's home.
    let root = User::from_uid(Uid::from_raw(0)).expect("readable").expect("root has an entry");
    let mut again = without_network();
    again.arg(std::env::current_exe().expect("a path")).env(INSIDE, "1").env("HOME", root.dir);
    again.args(["--exact", std::thread::current().name().expect("the test's name"), "--nocapture"]);
    let output = again.output().expect("started");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// A file of the corpus, with what it includes beside it.
struct Sample {
    name: String,
    file: PathBuf,
    hosts: Vec<String>,
}

/// Copies the corpus to `dir`, which stands for `{dir}` in it.
fn corpus(dir: &Path) -> Vec<Sample> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ssh_config/corpus");
    std::fs::create_dir(dir.join("include.d")).expect("created");
    let mut samples = Vec::new();
    for below in ["", "include.d"] {
        for from in std::fs::read_dir(source.join(below)).expect("a corpus").flatten().map(|entry| entry.path()) {
            if from.is_dir() {
                continue;
            }
            let text = std::fs::read_to_string(&from).expect("text").replace("{dir}", &dir.display().to_string());
            let file = dir.join(below).join(from.file_name().expect("a name"));
            std::fs::write(&file, &text).expect("written");
            if below.is_empty() {
                let hosts = text.lines().next().and_then(|line| line.strip_prefix("# hosts: ")).expect("a first line");
                let hosts = hosts.split(' ').map(Into::into).collect();
                let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
                samples.push(Sample { name, file, hosts });
            }
        }
    }
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    samples
}

/// What `ssh -G` says of a host. None if it refuses the file or the host.
fn ssh_says(file: &Path, destination: &Destination, more: &[String]) -> Option<Vec<(String, String)>> {
    let mut ssh = Command::new("ssh");
    ssh.args(["-G", "-tt", "-F"]).arg(file).args(more).stdin(Stdio::null());
    if let Some(user) = &destination.user {
        ssh.args(["-l", user]);
    }
    if let Some(port) = destination.port {
        ssh.args(["-p", &port.to_string()]);
    }
    let output = ssh.args(["--", &destination.host]).output().expect("an ssh binary");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    output.status.success().then(|| lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// A text with its tokens replaced by ssh itself, as it does for ControlPath.
fn replaced_by_ssh(text: &str, file: &Path, destination: &Destination) -> String {
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    let said = ssh_says(file, destination, &["-o".into(), format!("ControlPath=\"{quoted}\"")]);
    let path = said.and_then(|lines| lines.into_iter().find(|(key, _)| key == "controlpath"));
    path.map_or_else(|| text.to_owned(), |(_, path)| path)
}

fn resolved(file: &Path, host: &str) -> Result<Target, Error> {
    let config = ConfigFile::parse("", Path::new("config.toml")).expect("valid");
    let overrides = Overrides { ssh_config: Some(file.into()), ..Overrides::default() };
    resolve(host, &config, &overrides, Path::new("/run/x.sock"))
}

/// A setting: what ssh and dtunnel make of it.
type Pair = (&'static str, String, String);

/// Each setting that matters for a connection.
fn both(file: &Path, destination: &Destination, said: &[(String, String)], target: &Target) -> Vec<Pair> {
    let all = |key: &str| {
        let values = said.iter().filter(|(known, _)| known == key).map(|(_, value)| value.as_str());
        values.collect::<Vec<_>>()
    };
    let get = |key: &str| all(key).first().copied().unwrap_or_default().to_owned();
    let unless_none = |value: String| if value == "none" { String::new() } else { value };
    let replaced = |text: &str| replaced_by_ssh(text, file, destination);
    let files = |key: &str| {
        let names = all(key).into_iter().filter(|name| *name != "none");
        names.map(replaced).collect::<Vec<_>>().join("\n")
    };
    let shown = |files: &[PathBuf], between: &str| {
        files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(between)
    };
    let ours = &target.ssh;
    let defaults = ssh_says(Path::new("none"), destination, &[]).expect("ssh's defaults");
    let algorithms = |key: &str, algorithms: &Algorithms| {
        let default = || defaults.iter().find(|(known, _)| known == key).expect("a default").1.clone();
        match algorithms {
            Algorithms::Default => default(),
            Algorithms::And(more) => format!("{},{}", default(), more.join(",")),
            Algorithms::Exactly(names) => names.join(","),
        }
    };
    let proxy = match &ours.proxy {
        Proxy::None => (String::new(), String::new()),
        Proxy::Command(command) => (String::new(), target.expand_proxy_command(command).expect("a home")),
        Proxy::Jump(hops) => (hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(","), String::new()),
    };
    let agent = match &ours.identity_agent {
        IdentityAgent::Environment => String::new(),
        // The corpus has a variable that is not set.
        IdentityAgent::None => {
            if get("identityagent").starts_with('$') {
                get("identityagent")
            } else {
                "none".into()
            }
        }
        IdentityAgent::Path(path) => path.display().to_string(),
    };
    let home = format!("{}/", Paths::new().expect("a home").home.display());
    let without_scheme = |jump: String| jump.replace("ssh://", "");
    let mut pairs = vec![
        ("hostname", get("hostname"), ours.host_name.clone()),
        ("user", get("user"), ours.user.clone()),
        ("port", get("port"), ours.port.to_string()),
        ("proxyjump", without_scheme(replaced(&unless_none(get("proxyjump")))), proxy.0),
        ("proxycommand", replaced(&unless_none(get("proxycommand"))), proxy.1),
        ("identityfile", files("identityfile"), shown(&ours.identity_files, "\n")),
        ("identityagent", get("identityagent"), agent),
        ("certificatefile", files("certificatefile"), shown(&ours.certificate_files, "\n")),
        ("userknownhostsfile", unless_none(get("userknownhostsfile")), shown(&ours.user_known_hosts, " ")),
        (
            "globalknownhostsfile",
            unless_none(get("globalknownhostsfile")).replace("~/", &home),
            shown(&ours.global_known_hosts, " "),
        ),
        ("hostkeyalias", get("hostkeyalias"), ours.host_key_alias.clone().unwrap_or_default()),
    ];
    for (key, list) in [
        ("ciphers", &ours.ciphers),
        ("kexalgorithms", &ours.kex_algorithms),
        ("macs", &ours.macs),
        ("hostkeyalgorithms", &ours.host_key_algorithms),
        ("pubkeyacceptedalgorithms", &ours.pubkey_accepted_algorithms),
        ("casignaturealgorithms", &ours.ca_signature_algorithms),
    ] {
        pairs.push((key, get(key), algorithms(key, list)));
    }
    pairs
}

#[test]
fn the_corpus_is_read_as_ssh_reads_it() {
    if !is_where_nothing_can_be_reached() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (mut settings, mut refused, mut differences) = (0, 0, Vec::new());
    let samples = corpus(dir.path());
    for Sample { name, file, hosts } in &samples {
        for host in hosts {
            let destination = Destination::parse(host).unwrap_or_else(|e| panic!("{name}: {e}"));
            match (ssh_says(file, &destination, &[]), resolved(file, host)) {
                (None, Err(_)) => refused += 1,
                (Some(said), Ok(target)) => {
                    let pairs = both(file, &destination, &said, &target);
                    settings += pairs.len();
                    let unlike = pairs.into_iter().filter(|(_, ssh, ours)| ssh != ours);
                    differences.extend(unlike.map(|pair| format!("{name}, {host}: {pair:?}")));
                }
                (said, ours) => {
                    let ours = ours.map(|_| ());
                    differences.push(format!("{name}, {host}: ssh says {said:?}, we say {ours:?}"));
                }
            }
        }
    }
    assert_eq!(differences, [""; 0], "{differences:#?}");
    assert!(samples.len() >= 45 && settings >= 1500 && refused >= 3, "{} {settings} {refused}", samples.len());
}

/// Each host of each file, read by ssh and by the crate: alike but for what docs/configuration.md lists.
#[test]
fn the_corpus_is_read_without_the_ssh_binary_as_with_it() {
    if !is_where_nothing_can_be_reached() {
        return;
    }
    let (match_or_time, lists) = ("the crate refuses", "ciphers, kex_algorithms, macs, host_key_algorithms");
    let more_lists = format!("{lists}, pubkey_accepted_algorithms");
    let allowed = [
        ("algorithms", lists),
        ("algorithms", &more_lists),
        ("canonical-always", match_or_time),
        ("canonical-refused", "ssh refuses"),
        ("certificates", "certificate_files"),
        ("certificates", "ca_signature_algorithms, pubkey_accepted_algorithms"),
        ("include-globs", "port, user"),
        ("include-globs", "user"),
        ("include-in-match", match_or_time),
        ("jump", "proxy"),
        ("jump-chain", "proxy"),
        ("match", match_or_time),
        ("match-after-host", match_or_time),
        ("match-canonical", match_or_time),
        ("match-final", match_or_time),
        ("old-switch", &more_lists),
        ("originalhost", match_or_time),
        ("policies", match_or_time),
        (
            "quotes",
            "user, identity_files, identity_agent, user_known_hosts, global_known_hosts, certificate_files, \
             update_host_keys",
        ),
        ("quotes", "identity_files, proxy"),
        ("repeated", "certificate_files"),
        ("several", "certificate_files"),
        ("syntax", "user, identity_files"),
        ("tailscale", match_or_time),
        ("times", match_or_time),
        ("times-short", match_or_time),
        ("tokens-everywhere", "certificate_files"),
        ("unknown", "ssh refuses"),
        ("use-keychain", match_or_time),
        ("users", match_or_time),
        ("vagrant", "host_key_algorithms, pubkey_accepted_algorithms"),
        ("values", "ciphers, kex_algorithms"),
    ];
    let dir = tempfile::tempdir().expect("a directory");
    let mut found = Vec::new();
    // With these it depends on ssh's release.
    let samples = corpus(dir.path()).into_iter().filter(|sample| !["localnetwork", "tagged"].contains(&&*sample.name));
    for Sample { name, file, hosts } in samples {
        for host in &hosts {
            let (with, without) = (read(&file, host, true), read(&file, host, false));
            let what = match (comparable(with), comparable(without)) {
                (None, None) => continue,
                (Some(_), None) => "the crate refuses".into(),
                (None, Some(_)) => "ssh refuses".into(),
                (Some(with), Some(without)) if with == without => continue,
                (Some(with), Some(without)) => differing(&with, &without),
            };
            let line = (name.clone(), what);
            if !found.contains(&line) {
                found.push(line);
            }
        }
    }
    let found: Vec<_> = found.iter().map(|(name, what)| (&name[..], &what[..])).collect();
    assert_eq!(found, allowed, "{found:#?}");
}

fn read(file: &Path, host: &str, with_binary: bool) -> Result<SshSettings, Error> {
    let paths = Paths::new()?;
    let destination = Destination::parse(host)?;
    let source = SshConfigSource::File(file.into());
    let answer = if with_binary {
        with_ssh(&destination, &source)?.expect("an ssh binary")
    } else {
        Answer { lines: without_ssh(&destination, &source, &paths)?, ..Answer::default() }
    };
    // Options for an ssh that is there are no settings of the file's.
    interpret(&destination, &answer, &paths).map(|settings| SshSettings { for_ssh: Vec::new(), ..settings })
}

/// The settings in lines, without what depends on the release of ssh.
fn comparable(settings: Result<SshSettings, Error>) -> Option<Vec<String>> {
    let mut settings = settings.ok()?;
    settings.identity_files.retain(|file| !file.ends_with("id_dsa") && !file.ends_with("id_xmss"));
    Some(format!("{settings:#?}").lines().map(Into::into).collect())
}

/// The names of the settings that differ.
fn differing(a: &[String], b: &[String]) -> String {
    let fields = |lines: &[String]| -> Vec<(String, String)> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in lines {
            match line.strip_prefix("    ").filter(|line| !line.starts_with([' ', ']', ')', '}'])) {
                Some(line) => {
                    let (name, value) = line.split_once(": ").unwrap_or((line, ""));
                    fields.push((name.into(), value.into()));
                }
                None => fields.iter_mut().last().into_iter().for_each(|(_, value)| value.push_str(line)),
            }
        }
        fields
    };
    let unlike = fields(a).into_iter().zip(fields(b)).filter(|(a, b)| a != b).map(|((name, _), _)| name);
    unlike.collect::<Vec<_>>().join(", ")
}
