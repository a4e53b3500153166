//! `top` on a real terminal (tmux), and `status --watch` without one.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::lab::{Lab, connect, remote, run, wait_for};

/// A terminal of this size in which a program runs, seen as a person sees it.
struct Terminal {
    socket: std::path::PathBuf,
}

impl Terminal {
    fn start(lab: &Lab, size: (u16, u16), command: &str) -> Self {
        let terminal = Self { socket: lab.path("tmux") };
        let mut tmux = terminal.tmux(&["-f", "/dev/null", "new-session", "-d"]);
        lab.set_env(&mut tmux);
        tmux.args(["-x", &size.0.to_string(), "-y", &size.1.to_string(), command]).env("TERM", "xterm-256color");
        run(&mut tmux);
        terminal
    }

    fn tmux(&self, args: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(&self.socket).args(args);
        tmux
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).output().unwrap().stdout).into_owned()
    }

    /// The screen with its colours.
    fn coloured(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p", "-e"]).output().unwrap().stdout).into_owned()
    }

    #[track_caller]
    fn shows(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        wait_for(&format!("{what}; the screen:\n{}", self.screen()), || Some(self.screen()).filter(|s| condition(s)))
    }

    fn presses(&self, key: &str) {
        run(&mut self.tmux(&["send-keys", key]));
    }

    fn is_over(&self) -> bool {
        !self.tmux(&["has-session"]).stderr(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]).stderr(Stdio::null()).status();
    }
}

/// Is a colour chosen anywhere (SGR 30 to 38)? Back to the terminal's own is 39.
fn has_colour(screen: &str) -> bool {
    let codes = screen.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m'));
    codes.flat_map(|(codes, _)| codes.split(';')).any(|code| code.len() == 2 && ("30"..="38").contains(&code))
}

/// A world whose tunnel is up and leads to what sends back what comes.
fn echoing() -> Lab {
    let lab = Lab::new("");
    remote::serve(&lab.path("remote/engine.sock"), remote::echo);
    lab.write_config(&format!(
        "ssh_config = {:?}\n[defaults]\nremote = {:?}\n",
        lab.path("ssh_config"),
        lab.path("remote/engine.sock")
    ));
    lab.ok(&["up", "lab"]);
    lab
}

const DTUNNEL: &str = env!("CARGO_BIN_EXE_dtunnel");

#[test]
fn top_shows_tunnels_flows_requests_and_rates_and_obeys_keys() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.write_config(&format!(
        "ssh_config = {:?}\n[defaults]\nremote = {:?}\n[profiles.lab]\naccess = \"read-only\"\nports = true\n",
        lab.path("ssh_config"),
        lab.remote_socket()
    ));
    lab.ok(&["up", "lab", "lab2"]);
    let terminal = Terminal::start(&lab, (120, 40), &format!("{DTUNNEL} top"));
    let screen = terminal.shows("both tunnels", |s| s.contains("2 of 2 tunnels up") && s.contains("20.10"));
    assert!(screen.lines().any(|l| l.trim_start().starts_with("lab ") && l.contains(" up ")), "{screen}");
    // A screen may be seen while it is being drawn.
    terminal.shows("the guard", |s| s.contains("guard  read-only"));
    terminal.shows("a round-trip time", |s| s.contains(" ms"));
    // Somebody follows events, and is seen with what is asked.
    let mut events = lab.docker("lab", &["events"]).stdout(Stdio::null()).spawn().unwrap();
    terminal.shows("the request", |s| s.contains("flow   docker: GET /v1.41/events"));
    events.kill().unwrap();
    events.wait().unwrap();
    terminal.shows("its end", |s| !s.contains("flow   docker"));
    // The other one.
    terminal.presses("Down");
    terminal.shows("lab2's details", |s| s.contains(" lab2 ─") && !s.contains("guard"));
    let before = lab.log("lab2").matches("over a connection with the new settings").count();
    terminal.presses("r");
    terminal.shows("the word", |s| s.contains("lab2: reconnecting"));
    wait_for("the new connection", || {
        (lab.log("lab2").matches("over a connection with the new settings").count() > before).then_some(())
    });
    // What goes wrong is seen.
    lab.sshd.stop();
    terminal.shows("the loss", |s| s.contains("reconnecting") && s.contains("error  "));
    assert!(has_colour(&terminal.coloured()), "colours");
    terminal.presses("q");
    wait_for("its end", || terminal.is_over().then_some(()));
}

#[test]
fn top_fits_into_small_terminals_and_does_without_colours() {
    let lab = echoing();
    for (size, details) in [((40, 10), false), ((20, 3), false), ((60, 24), true)] {
        let terminal = Terminal::start(&lab, size, &format!("NO_COLOR=1 {DTUNNEL} top lab"));
        let screen = terminal.shows("the tunnel", |s| s.contains("lab"));
        assert_eq!(screen.contains("in all"), details, "{screen}");
        assert!(!has_colour(&terminal.coloured()), "no colours");
        terminal.presses("Escape");
        wait_for("its end", || terminal.is_over().then_some(()));
    }
    let stderr = lab.fails(2, &["top"]);
    assert!(stderr.contains("top needs a terminal") && stderr.contains("status --watch"), "{stderr}");
}

#[test]
fn top_shows_how_fast_bytes_move() {
    let lab = echoing();
    let terminal = Terminal::start(&lab, (100, 30), &format!("{DTUNNEL} top"));
    terminal.shows("the tunnel", |s| s.contains("1 of 1"));
    let mut client = connect(&lab.socket("lab"));
    let reader = client.try_clone().unwrap();
    let reading = std::thread::spawn(move || std::io::copy(&mut BufReader::new(reader), &mut std::io::sink()));
    let rate = |s: &str| s.contains("kB/s") || s.contains("MB/s");
    // The echo's first byte must not look like a ping.
    client.write_all(b"x").unwrap();
    wait_for("the rate", || {
        client.write_all(&[b'x'; 20_000]).unwrap();
        rate(&terminal.screen()).then_some(())
    });
    drop(client);
    drop(terminal);
    drop(lab);
    let _ = reading.join();
}

#[test]
fn status_is_watched_in_lines_until_nobody_reads() {
    let lab = echoing();
    for (args, begins) in
        [(&["status", "--watch=100ms"][..], "20"), (&["status", "lab", "--json", "--watch=100ms"], "[{")]
    {
        let mut watch = lab.dtunnel(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines: Vec<String> =
            BufReader::new(watch.stdout.take().unwrap()).lines().take(3).map(Result::unwrap).collect();
        assert!(lines.iter().all(|line| line.starts_with(begins) && line.contains("lab")), "{lines:?}");
        // Its reader is gone now: so is it, without a word.
        let output = watch.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}
