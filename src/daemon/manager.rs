//! Messages to a service manager, and the sockets it passes (sd_notify(3), sd_listen_fds(3)).

use std::io;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::tunnel::{Inherited, State, Status};

/// The listening socket passed by a service manager, if any. Must be called while the process has one thread, since it
/// removes the environment variables.
///
/// # Errors
/// The passed socket is not usable.
pub fn inherited() -> io::Result<Option<Inherited>> {
    if std::env::var_os("LISTEN_FDS").is_none() {
        return Ok(None);
    }
    let mut passed = ListenFd::from_env();
    match passed.len() {
        0 => Ok(None),
        1 => match passed.take_unix_listener(0) {
            Ok(listener) => Ok(listener.map(Inherited::Unix)),
            Err(_) => Ok(passed.take_tcp_listener(0)?.map(Inherited::Tcp)),
        },
        more => {
            let message = format!("the service manager passed {more} sockets; one is expected");
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    }
}

/// Reports the tunnel's state to the service manager.
pub(super) fn tell(status: &Status) {
    let text = match (status.state, &status.engine, &status.last_error) {
        (_, _, Some((error, _))) => format!("{}: {error}", status.state),
        (State::Up, Some(engine), _) => format!("up: Engine {}", engine.version),
        (State::Idle, ..) => "idle: connects on first use".into(),
        (state, ..) => state.to_string(),
    };
    // A line break would start another assignment (sd_notify(3)).
    let text = text.replace(char::is_control, " ");
    let mut states = vec![NotifyState::Status(&text)];
    if status.state.is_usable() {
        states.push(NotifyState::Ready);
    }
    if let Err(e) = sd_notify::notify(&states) {
        tracing::debug!("cannot notify the service manager: {e}");
    }
}

/// Reports the beginning of the end to the service manager.
pub(super) fn tell_stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}
