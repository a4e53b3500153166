//! The command `true` in a session of its own, for its effect on the server: OpenSSH's sshd turns Nagle's algorithm off
//! (TCP_NODELAY) for a connection, for good, when a session on it first runs a command (session.c, `do_exec_pty` and
//! `do_exec_no_pty`; packet.c, `ssh_packet_set_interactive`).

use std::time::Duration;

use russh::ChannelMsg;
use russh::client::{Handle, Msg};
use tokio::time::{Instant, timeout_at};

use super::channel::Channel;
use super::endpoint::LeadsTo;
use super::handler::SessionHandler;

/// The command, which prints nothing and has no effect.
const COMMAND: &str = "true";
/// The terminal's type and size; nobody reads it.
const TERMINAL: (&str, u32, u32) = ("dumb", 80, 24);
/// Limit for opening the session and for the command, together.
const LIMIT: Duration = Duration::from_secs(5);

/// Runs the command, with a terminal where the server grants one. (Without a terminal sshd would mark the connection's
/// packets with IPQoS's class for bulk.) Tells whether a command ran, be it another that the server has forced on the login.
pub(super) async fn run(handle: &Handle<SessionHandler>) -> bool {
    let begun = Instant::now();
    let Ok(Ok(mut session)) = timeout_at(begun + LIMIT, handle.channel_open_session()).await else { return false };
    let mut has_begun = false;
    // Once it has begun, how it ends does not matter.
    let _ = timeout_at(begun + LIMIT, attempt(&mut session, &mut has_begun)).await;
    // Closes it, and ends what still runs.
    drop(Channel::new(session, LeadsTo::Command { is_marked: false }));
    has_begun
}

async fn attempt(session: &mut russh::Channel<Msg>, has_begun: &mut bool) -> Result<(), russh::Error> {
    let (kind, columns, rows) = TERMINAL;
    // All at once, which saves round trips: the server answers in order, and without a terminal the command runs without
    // one. The end of input is for a command that reads.
    session.request_pty(true, kind, columns, rows, 0, 0, &[]).await?;
    session.exec(true, COMMAND).await?;
    session.eof().await?;
    let _of_terminal = answer(session).await;
    *has_begun = answer(session).await == Some(true);
    while *has_begun && !matches!(session.wait().await, None | Some(ChannelMsg::Close)) {}
    Ok(())
}

/// The answer to the next request of a channel; None: the channel has ended.
async fn answer(session: &mut russh::Channel<Msg>) -> Option<bool> {
    loop {
        match session.wait().await? {
            ChannelMsg::Success => return Some(true),
            ChannelMsg::Failure => return Some(false),
            ChannelMsg::Close => return None,
            _ => {}
        }
    }
}
