//! A small SSH server for what sshd needs PAM for, or would never do: keyboard-interactive in
//! several rounds, questions without end, a banner of a megabyte.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use russh::keys::PrivateKey;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Response, Session};
use russh::{Channel, MethodKind, MethodSet};
use tokio::net::{TcpListener, UnixStream};

/// How the server behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// A password and a visible word, then a code; all must be right.
    TwoRounds,
    /// One question after the other, whatever is answered.
    Endless,
    /// A banner of a megabyte, then `TwoRounds`.
    BigBanner,
    /// Closes as soon as a login is tried.
    Closes,
    /// A banner with an address; lets everybody in once the file `visited` is beside the host key.
    Visit,
}

/// Starts a server on a loopback port, which it returns; it lives as long as the test process.
/// Channels lead to `socket`.
pub fn serve(behaviour: Behaviour, host_key: &std::path::Path, socket: Option<PathBuf>) -> u16 {
    let key = PrivateKey::from_openssh(std::fs::read(host_key).unwrap()).unwrap();
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::KeyboardInteractive);
    let config = Arc::new(Config {
        keys: vec![key],
        methods,
        auth_rejection_time: std::time::Duration::ZERO,
        ..Config::default()
    });
    let visited = host_key.with_file_name("visited");
    let (told, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap().port()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let handler = Server { behaviour, round: 0, socket: socket.clone(), visited: visited.clone() };
                let config = config.clone();
                tokio::spawn(async move {
                    if let Ok(session) = russh::server::run_stream(config, stream, handler).await {
                        let _ = session.await;
                    }
                });
            }
        });
    });
    port.recv().unwrap()
}

struct Server {
    behaviour: Behaviour,
    round: usize,
    socket: Option<PathBuf>,
    visited: PathBuf,
}

impl Handler for Server {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        // A packet has a quarter of that at most; as much as fits.
        Ok(match self.behaviour {
            Behaviour::BigBanner => Some("\u{1b}[31mbanner ".repeat(20_000)),
            Behaviour::Visit => Some("To authenticate, visit: https://example.invalid/a/1\n".into()),
            _ => None,
        })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let answers: Vec<String> =
            response.into_iter().flatten().map(|answer| String::from_utf8_lossy(&answer).into_owned()).collect();
        let ask = |prompts: &'static [(Cow<'static, str>, bool)]| Auth::Partial {
            name: "".into(),
            instructions: "Who goes there?".into(),
            prompts: prompts.into(),
        };
        let round = self.round;
        self.round += 1;
        Ok(match (self.behaviour, round) {
            (Behaviour::Visit, _) => {
                while !self.visited.exists() {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                Auth::Accept
            }
            (Behaviour::Closes, _) => return Err(russh::Error::Disconnect),
            (Behaviour::Endless, _) => ask(&[(Cow::Borrowed("Again?"), true)]),
            (_, 0) => ask(&[(Cow::Borrowed("Password:"), false), (Cow::Borrowed("Word:"), true)]),
            (_, 1) if answers == ["secret", "open sesame"] => ask(&[(Cow::Borrowed("Code:"), false)]),
            (_, 2) if answers == ["123456"] => Auth::Accept,
            _ => {
                self.round = 0;
                Auth::reject()
            }
        })
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(path) = &self.socket else { return Ok(()) };
        let mut socket = UnixStream::connect(path).await?;
        reply.accept().await;
        tokio::spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut socket).await;
        });
        Ok(())
    }
}
