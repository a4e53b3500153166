//! The command `true` in a session of its own, for its effect on the server: OpenSSH's sshd turns Nagle's algorithm off
//! (TCP_NODELAY) for a connection, for good, when a session on it first runs a command (session.c, `do_exec_pty` and
//! `do_exec_no_pty`; packet.c, `ssh_packet_set_interactive`).

use std::time::Duration;

use russh::ChannelMsg;
use russh::client::Handle;

use super::channel::Channel;
use super::handler::SessionHandler;

/// The command, which prints nothing and has no effect.
const COMMAND: &str = "true";
/// The terminal's type and size; nobody reads it.
const TERMINAL: (&str, u32, u32) = ("dumb", 80, 24);
/// Limit for opening the session and for the command, together.
const LIMIT: Duration = Duration::from_secs(5);

/// What became of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// It ended as `true` does: without output, with status 0.
    AsAsked,
    /// Something else ran in its place (it printed or failed), or it did not end within 5 s.
    Otherwise,
    /// The server runs no commands for this login.
    Refused,
    /// The connection was lost meanwhile.
    Lost,
}

/// Runs the command, with a terminal where the server grants one. (Without a terminal sshd would mark the connection's
/// packets with IPQoS's class for bulk.)
pub(super) async fn run(handle: &Handle<SessionHandler>) -> Ran {
    tokio::time::timeout(LIMIT, attempt(handle)).await.unwrap_or(Ran::Otherwise)
}

async fn attempt(handle: &Handle<SessionHandler>) -> Ran {
    let mut channel = match handle.channel_open_session().await {
        Ok(channel) => channel,
        Err(russh::Error::ChannelOpenFailure(_)) => return Ran::Refused,
        Err(_) => return Ran::Lost,
    };
    let (kind, columns, rows) = TERMINAL;
    // Both at once, which saves a round trip: the server answers in order, and without a terminal the command runs
    // without one.
    let asked = match channel.request_pty(true, kind, columns, rows, 0, 0, &[]).await {
        Ok(()) => channel.exec(true, COMMAND).await,
        Err(error) => Err(error),
    };
    let asked = match asked {
        // For a command that reads, without a terminal.
        Ok(()) => channel.eof().await,
        Err(error) => Err(error),
    };
    if asked.is_err() {
        return Ran::Lost;
    }
    let mut heard = Heard::default();
    let ran = loop {
        let message = channel.wait().await;
        if let Some(ran) = heard.hear(message.as_ref()) {
            break ran;
        }
    };
    // Closes it, and ends what still runs.
    drop(Channel::new(channel, true));
    ran
}

/// What the server has said of the session so far.
#[derive(Debug, Default)]
struct Heard {
    /// Whether the request for a terminal was answered.
    of_terminal: bool,
    status: Option<u32>,
}

impl Heard {
    /// The outcome, once it is known; None for `message`: the connection was lost.
    fn hear(&mut self, message: Option<&ChannelMsg>) -> Option<Ran> {
        match message {
            None => return Some(Ran::Lost),
            Some(ChannelMsg::Data { data }) if data.is_empty() => {}
            Some(ChannelMsg::Data { .. } | ChannelMsg::ExtendedData { .. } | ChannelMsg::ExitSignal { .. }) => {
                return Some(Ran::Otherwise);
            }
            Some(ChannelMsg::Success) => self.of_terminal = true,
            Some(ChannelMsg::Failure) if self.of_terminal => return Some(Ran::Refused),
            Some(ChannelMsg::Failure) => self.of_terminal = true,
            Some(ChannelMsg::ExitStatus { exit_status }) => self.status = Some(*exit_status),
            Some(ChannelMsg::Close) => {
                return Some(if self.status == Some(0) { Ran::AsAsked } else { Ran::Otherwise });
            }
            Some(_) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(messages: &[&ChannelMsg]) -> Option<Ran> {
        let mut heard = Heard::default();
        messages.iter().find_map(|message| heard.hear(Some(*message)))
    }

    #[test]
    fn only_silence_and_status_0_are_true() {
        let (yes, no, close) = (ChannelMsg::Success, ChannelMsg::Failure, ChannelMsg::Close);
        let status = |exit_status| ChannelMsg::ExitStatus { exit_status };
        let data = |text: &'static str| ChannelMsg::Data { data: text.as_bytes().into() };
        let (fine, failed, hello, eof) = (status(0), status(1), data("hello"), ChannelMsg::Eof);
        let rows: [(&str, &[&ChannelMsg], Option<Ran>); 8] = [
            ("as asked", &[&yes, &yes, &fine, &eof, &close], Some(Ran::AsAsked)),
            ("no terminal", &[&no, &yes, &fine, &close], Some(Ran::AsAsked)),
            ("no commands", &[&yes, &no], Some(Ran::Refused)),
            ("neither", &[&no, &no], Some(Ran::Refused)),
            ("output", &[&yes, &yes, &hello], Some(Ran::Otherwise)),
            ("another status", &[&yes, &yes, &failed, &close], Some(Ran::Otherwise)),
            ("no status", &[&yes, &yes, &close], Some(Ran::Otherwise)),
            ("not over", &[&yes, &yes, &fine], None),
        ];
        for (what, messages, ran) in rows {
            assert_eq!(outcome(messages), ran, "{what}");
        }
        assert_eq!(Heard::default().hear(None), Some(Ran::Lost));
    }
}
