//! `dtunnel service`: installs a tunnel as a user service, under systemd, launchd or the Task Scheduler.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, Subcommand};

use super::global::{Global, WayArgs};
use super::ui::{self, ui};
use crate::config::{ConfigFile, LocalEndpoint, RuntimeFiles, replace_file, runtime_dir};
use crate::failure::{ExitCode, Failure};
use crate::os::ServiceManager;
use crate::os::services::MANAGER;
use crate::os::user;

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Write and start a user service that keeps a tunnel up from login on
    Install(InstallArgs),
    /// Stop a tunnel's service and remove it
    Uninstall {
        /// The target
        #[arg(add = super::completions::targets())]
        target: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct InstallArgs {
    /// The target: best a profile, which holds all options
    #[arg(add = super::completions::targets())]
    target: String,
    /// Let the service manager hold the socket, and start the tunnel with its first use (systemd)
    #[arg(long)]
    socket: bool,
    /// Print what would be written, and change nothing
    #[arg(long)]
    print: bool,
    /// Write the files, but do not start anything
    #[arg(long)]
    no_start: bool,
}

/// A service's files, and the service manager's commands that start and stop it.
struct Service {
    /// Paths and contents.
    files: Vec<(PathBuf, String)>,
    start: Vec<Vec<String>>,
    stop: Vec<Vec<String>>,
}

/// The data for the service's files.
struct About<'a> {
    name: &'a str,
    target: &'a str,
    program: &'a Path,
    /// `--config FILE` and `-F FILE`, if given.
    options: Vec<String>,
    local: &'a Path,
    socket: bool,
}

impl About<'_> {
    /// The command that the service manager runs.
    fn command(&self) -> Vec<String> {
        let up = words(&["up", "--foreground", "--quiet"]);
        let target = words(&["--", self.target]);
        [vec![self.program.display().to_string()], up, self.options.clone(), target].concat()
    }
}

pub(super) fn service(global: &Global, command: &ServiceCommand) -> Result<(), Failure> {
    let config = global.config()?;
    match command {
        ServiceCommand::Install(args) => install(global, &config, args),
        ServiceCommand::Uninstall { target } => uninstall(global, &config, target),
    }
}

fn install(global: &Global, config: &ConfigFile, args: &InstallArgs) -> Result<(), Failure> {
    if args.socket && MANAGER != ServiceManager::Systemd {
        let why = match MANAGER {
            ServiceManager::TaskScheduler => "Windows hands over no endpoint",
            _ => "launchd hands a socket over in another way",
        };
        return Err(Failure::new(ExitCode::Usage, format!("--socket needs systemd: {why}"))
            .hint("without --socket the tunnel is up from login on"));
    }
    let service = plan(global, config, &args.target, args.socket)?;
    if args.print {
        return ui::print(
            &service.files.iter().map(|(path, text)| format!("# {}\n{text}", path.display())).collect::<String>(),
        );
    }
    for (path, text) in &service.files {
        replace_file(path, text)
            .map_err(|e| Failure::new(ExitCode::Other, format!("cannot write {}: {e}", path.display())))?;
        ui().note(&format!("wrote {}", path.display()));
    }
    if args.no_start { Ok(()) } else { tell(&service.start) }
}

fn uninstall(global: &Global, config: &ConfigFile, target: &str) -> Result<(), Failure> {
    let service = plan(global, config, target, true)?;
    let there: Vec<_> = service.files.iter().map(|(path, _)| path).filter(|path| path.exists()).collect();
    if there.is_empty() {
        ui().note(&format!("{target} has no service"));
        return Ok(());
    }
    let told = tell(&service.stop);
    for path in there {
        std::fs::remove_file(path)
            .map_err(|e| Failure::new(ExitCode::Other, format!("cannot remove {}: {e}", path.display())))?;
        ui().note(&format!("removed {}", path.display()));
    }
    told
}

fn plan(global: &Global, config: &ConfigFile, target: &str, socket: bool) -> Result<Service, Failure> {
    let other = |message: String| Failure::new(ExitCode::Other, message);
    // An unresolvable target would fail later as a service, where nobody sees it.
    let resolved = global.resolved(target, config, &WayArgs::default())?;
    let name = &resolved.name;
    let program = std::env::current_exe().map_err(|e| other(format!("cannot find this program: {e}")))?;
    let mut options = Vec::new();
    if let (path, true) = global.config_path()? {
        options.extend(["--config".into(), path.display().to_string()]);
    }
    if let Some(path) = global.ssh_config() {
        options.extend(["-F".into(), path.display().to_string()]);
    }
    let home = crate::config::Paths::new()?.home;
    let local = match &resolved.local {
        LocalEndpoint::Unix(path) => path.clone(),
        LocalEndpoint::Tcp(_) => RuntimeFiles::new(&runtime_dir()?, name)?.socket,
    };
    let unit = format!("dtunnel-{}", name.as_str().replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_"));
    let about = checked(About { name: &unit, target, program: &program, options, local: &local, socket })?;
    match MANAGER {
        ServiceManager::Systemd => Ok(systemd(&about, &home)),
        ServiceManager::Launchd => Ok(launchd(&about, &home)),
        ServiceManager::TaskScheduler => Ok(task(&about, &runtime_dir()?)),
    }
}

/// Checks that every value fits a line of a unit or a property list: valid UTF-8 without control characters.
fn checked(about: About<'_>) -> Result<About<'_>, Failure> {
    let paths = [Some(about.program), Some(about.local)].into_iter().flatten();
    let paths = paths.map(|path| path.to_str().ok_or_else(|| path.display().to_string()));
    let words = about.options.iter().map(String::as_str).chain([about.name, about.target]).map(Ok);
    for word in paths.chain(words) {
        match word {
            Ok(word) if !word.chars().any(|c| c.is_control() || c == '\u{fffd}') => {}
            Ok(word) => return Err(no_line(word)),
            Err(word) => return Err(no_line(&word)),
        }
    }
    Ok(about)
}

fn no_line(word: &str) -> Failure {
    let reason = "it holds control characters or is not UTF-8, so a service file cannot hold it";
    Failure::new(ExitCode::Usage, format!("`{}`: {reason}", word.escape_debug()))
}

/// Runs the service manager's commands, or prints them if there is no service manager.
fn tell(commands: &[Vec<String>]) -> Result<(), Failure> {
    for words in commands {
        let shown = words.join(" ");
        let Some((program, arguments)) = words.split_first() else { continue };
        match Command::new(program).args(arguments).stdin(Stdio::null()).status() {
            Ok(status) if status.success() => {}
            Ok(status) => {
                let failure = Failure::new(ExitCode::Other, format!("`{shown}` ended with {status}"));
                return Err(match MANAGER {
                    ServiceManager::Systemd => failure
                        .hint("without a user session there is no service manager; `loginctl enable-linger` makes one"),
                    ServiceManager::Launchd | ServiceManager::TaskScheduler => failure,
                });
            }
            Err(_) => ui().note(&format!("{program} is not installed; not done: {shown}")),
        }
    }
    Ok(())
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

// ---- systemd

fn systemd(about: &About<'_>, home: &Path) -> Service {
    let dir = match std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        Some(dir) => dir.join("systemd/user"),
        None => home.join(".config/systemd/user"),
    };
    let (service, socket) = (format!("{}.service", about.name), format!("{}.socket", about.name));
    let mut files = vec![(dir.join(&service), service_unit(about))];
    let started = if about.socket {
        files.push((dir.join(&socket), socket_unit(about)));
        socket.clone()
    } else {
        service.clone()
    };
    let systemctl = |list: &[&str]| words(&[&["systemctl", "--user"], list].concat());
    Service {
        files,
        start: vec![systemctl(&["daemon-reload"]), systemctl(&["enable", "--now", &started])],
        stop: vec![systemctl(&["disable", "--now", &service, &socket]), systemctl(&["daemon-reload"])],
    }
}

/// A word of an ExecStart line (systemd.service(5), "COMMAND LINES").
fn unit_word(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$"))
}

fn service_unit(about: &About<'_>) -> String {
    let command = about.command().iter().map(|word| unit_word(word)).collect::<Vec<_>>().join(" ");
    let install = if about.socket { "" } else { "\n[Install]\nWantedBy=default.target\n" };
    format!(
        "# Written by `dtunnel service install`; `dtunnel service uninstall` removes it.
[Unit]
Description=dtunnel: the Docker Engine of {target}
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
# A wrong configuration, login or host key takes a person; everything else may pass.
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2 4 5
TimeoutStopSec=15
UMask=0077
LimitCORE=0
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=%h %t
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
{install}",
        target = about.target.replace('%', "%%"),
    )
}

fn socket_unit(about: &About<'_>) -> String {
    format!(
        "# Written by `dtunnel service install --socket`; `dtunnel service uninstall` removes it.
[Unit]
Description=dtunnel: the socket of {target}

[Socket]
ListenStream={path}
SocketMode=0600
DirectoryMode=0700
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
",
        target = about.target.replace('%', "%%"),
        path = about.local.display().to_string().replace('%', "%%"),
    )
}

// ---- launchd

fn launchd(about: &About<'_>, home: &Path) -> Service {
    let label = format!("dtunnel.{}", about.name.trim_start_matches("dtunnel-"));
    let path = home.join(format!("Library/LaunchAgents/{label}.plist"));
    let file = path.display().to_string();
    Service {
        files: vec![(path, plist(about, &label))],
        start: vec![words(&["launchctl", "load", "-w", &file])],
        stop: vec![words(&["launchctl", "unload", "-w", &file])],
    }
}

/// A property list (launchd.plist(5)).
fn plist(about: &About<'_>, label: &str) -> String {
    let command: String =
        about.command().iter().map(|word| format!("    <string>{}</string>\n", escaped(word))).collect();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>{}</string>
  <key>ProgramArguments</key>
  <array>
{command}  </array>
  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <dict>
    <key>SuccessfulExit</key>
    <false/>
  </dict>
  <key>ThrottleInterval</key>
  <integer>10</integer>
  <key>Umask</key>
  <integer>63</integer>
  <key>ProcessType</key>
  <string>Interactive</string>
</dict>
</plist>
"#,
        escaped(label)
    )
}

/// A text in XML, outside of a tag (XML 1.0 section 2.4).
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

// ---- Windows' Task Scheduler

/// A task that begins when the user logs on. Its file is for schtasks to read, and kept to tell that there is a service.
fn task(about: &About<'_>, runtime: &Path) -> Service {
    let dir = runtime.parent().unwrap_or(runtime).join("services");
    let path = dir.join(format!("{}.xml", about.name));
    let file = path.display().to_string();
    Service {
        files: vec![(path, task_text(about, &user::id().to_string()))],
        start: vec![
            words(&["schtasks", "/Create", "/F", "/TN", about.name, "/XML", &file]),
            words(&["schtasks", "/Run", "/TN", about.name]),
        ],
        stop: vec![
            words(&["schtasks", "/End", "/TN", about.name]),
            words(&["schtasks", "/Delete", "/F", "/TN", about.name]),
        ],
    }
}

/// A word of a command line, as programs take it apart (CommandLineToArgvW): backslashes count before a quotation mark only.
fn task_word(word: &str) -> String {
    if !word.is_empty() && !word.contains([' ', '\t', '"']) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    let mut backslashes = 0;
    for c in word.chars() {
        match c {
            '\\' => backslashes += 1,
            _ => {
                let before = if c == '"' { 2 * backslashes + 1 } else { backslashes };
                quoted.extend(std::iter::repeat_n('\\', before));
                quoted.push(c);
                backslashes = 0;
            }
        }
    }
    quoted.extend(std::iter::repeat_n('\\', 2 * backslashes));
    quoted + "\""
}

/// A task's definition (Task Scheduler Schema). It only brings the tunnel up: a console window is there for that long, and the
/// background process has none.
fn task_text(about: &About<'_>, user: &str) -> String {
    let arguments = [words(&["up", "--quiet"]), about.options.clone(), words(&["--", about.target])].concat();
    let arguments: Vec<String> = arguments.iter().map(|word| task_word(word)).collect();
    format!(
        r#"<?xml version="1.0"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo><Description>dtunnel: the Docker Engine of {target}</Description></RegistrationInfo>
  <Triggers><LogonTrigger><Enabled>true</Enabled><UserId>{user}</UserId></LogonTrigger></Triggers>
  <Principals>
    <Principal id="Author">
      <UserId>{user}</UserId>
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure><Interval>PT1M</Interval><Count>999</Count></RestartOnFailure>
  </Settings>
  <Actions Context="Author">
    <Exec><Command>{program}</Command><Arguments>{arguments}</Arguments></Exec>
  </Actions>
</Task>
"#,
        target = escaped(about.target),
        program = escaped(&about.program.display().to_string()),
        arguments = escaped(&arguments.join(" ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(target: &'static str) -> About<'static> {
        About {
            name: "dtunnel-p",
            target,
            program: Path::new("/opt/100% \"odd\"/dtunnel"),
            options: vec!["--config".into(), "/home/me/$x.toml".into()],
            local: Path::new("/run/user/1/dtunnel/p.sock"),
            socket: false,
        }
    }

    #[test]
    fn odd_words_stay_one_word() {
        let unit = service_unit(&about("p"));
        let line = unit.lines().find(|line| line.starts_with("ExecStart=")).expect("a command");
        assert_eq!(
            line,
            r#"ExecStart="/opt/100%% \"odd\"/dtunnel" "up" "--foreground" "--quiet" "--config" "/home/me/$$x.toml" "--" "p""#
        );
    }

    #[test]
    fn a_property_list_is_well_formed() {
        let text = plist(&about("a<b&c"), "dtunnel.p");
        assert!(text.contains("<string>a&lt;b&amp;c</string>"));
        assert_eq!(text.matches("<dict>").count(), text.matches("</dict>").count());
    }
}
