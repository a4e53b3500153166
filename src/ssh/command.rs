//! Commands in sessions where a server has peculiarities of its own.
//!
//! `true` is run for its effect on the server: OpenSSH's sshd turns Nagle's algorithm off (TCP_NODELAY) for a connection,
//! for good, when a session on it first runs a command (session.c, `do_exec_pty` and `do_exec_no_pty`; packet.c,
//! `ssh_packet_set_interactive`).

use std::time::Duration;

use russh::client::{Handle, Msg};
use russh::{ChannelMsg, ChannelOpenFailure};
use tokio::time::{Instant, timeout_at};

use super::channel::Channel;
use super::endpoint::LeadsTo;
use super::handler::SessionHandler;

/// Prints nothing and has no effect.
const COMMAND: &str = "true";
/// The terminal's type and size; nobody reads it.
const TERMINAL: (&str, u32, u32) = ("dumb", 80, 24);
/// Limit for opening the session and for the command, together.
const LIMIT: Duration = Duration::from_secs(5);
/// Sessions opened for a command, at most, by [`begin`].
const SESSIONS: usize = 10;

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

/// Opens a session for `command` and returns once the server says that it runs, at the cost of a round trip.
///
/// For Dropbear, up to 2026.94 at least: when a command ends, it closes every session of the connection whose own command
/// is still to be asked for (common-channel.c, `check_close`; svr-chansession.c, `sesscheckclose`). Nothing was sent on
/// such a session, so that another one is opened.
///
/// # Errors
/// The server opens no session, does not run the command, or closes each of the sessions.
pub(super) async fn begin(handle: &Handle<SessionHandler>, command: &str) -> Result<russh::Channel<Msg>, russh::Error> {
    for _ in 0..SESSIONS {
        let mut session = handle.channel_open_session().await?;
        session.exec(true, command).await?;
        match answer(&mut session).await {
            Some(true) => return Ok(session),
            Some(false) => {
                session.close().await?;
                break;
            }
            None if handle.is_closed() => return Err(russh::Error::Disconnect),
            None => {}
        }
    }
    Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ResourceShortage))
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
