//! A person at a terminal: a program under script(1), which gives it a terminal of its own.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use super::{Lab, wait_for};

pub struct Person {
    child: Child,
    keyboard: std::process::ChildStdin,
    screen: Arc<Mutex<String>>,
}

impl Person {
    /// Types `command` into a shell at a terminal.
    pub fn types(lab: &Lab, command: &str) -> Self {
        let mut script = Command::new("script");
        lab.set_env(&mut script);
        let mut child = script
            .args(["--quiet", "--return", "--command", command, "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let keyboard = child.stdin.take().unwrap();
        let mut output = child.stdout.take().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = screen.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Self { child, keyboard, screen }
    }

    /// Everything shown so far.
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    /// Waits until `text` is shown.
    #[track_caller]
    pub fn sees(&mut self, text: &str) {
        wait_for(&format!("{text:?} on the screen, which shows {:?}", self.screen()), || {
            self.screen().contains(text).then_some(())
        });
    }

    /// Presses keys.
    pub fn presses(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Waits for the program's end.
    pub fn leaves(mut self) -> (ExitStatus, String) {
        let status = wait_for(&format!("the program's end; the screen shows {:?}", self.screen()), || {
            self.child.try_wait().unwrap()
        });
        (status, self.screen())
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
