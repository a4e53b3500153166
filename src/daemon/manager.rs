//! Messages to a service manager.

use crate::os::inherited;
use crate::tunnel::{State, Status};

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
    if let Err(e) = inherited::tell(&text, status.state.is_usable()) {
        tracing::debug!("cannot notify the service manager: {e}");
    }
}
