//! Keeps a server for exactly as long as the test lives.
//!
//! A shell starts the server and reads from a pipe whose other end only the test process has. When
//! that closes, by drop or by the process's end of any kind, the shell ends the server and its
//! children and runs the clean-up.

use std::io::Write;
use std::process::{Child, Command, Stdio};

pub struct Keeper {
    shell: Child,
}

impl Keeper {
    /// Runs a shell script at the end.
    pub fn at_the_end(script: &str) -> Self {
        Self::start(&[":"], script)
    }

    /// Starts `server` (a program and its arguments); `clean_up` is a shell script for the end.
    pub fn start(server: &[&str], clean_up: &str) -> Self {
        let script = format!(
            r#"trap '' INT TERM HUP
            "$@" </dev/null >/dev/null 2>&1 &
            server=$!
            read -r line
            kids=$(cat /proc/$server/task/$server/children 2>/dev/null)
            kill $server $kids 2>/dev/null
            wait $server
            {clean_up}"#
        );
        let shell = Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg("keeper")
            .args(server)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { shell }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            let _ = pipe.write_all(b"\n");
        }
        let _ = self.shell.wait();
    }
}
