//! The states of a tunnel, and its published status.
//!
//! ```text
//!   starting ──► up ──► reconnecting ──► up
//!      │          │         │  └──► failed ──(asked to retry)──► reconnecting
//!      ▼          ▼         ▼          ▼
//!    (error)     down ◄──── (stop) ◄───┘
//! ```
//!
//! A lazy tunnel begins as `idle`, is `reconnecting` when a flow arrives, and `idle` again after a while without flows.
//!
//! Only [`Publisher`] writes a tunnel's status. The state determines what flows can expect ([`Availability`]).

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::engine::EngineVersion;
use crate::host::{Class, Route};
use crate::ssh::{Carried, Endpoint, Step};
use crate::tunnel::error::Error;

/// The state of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Connecting for the first time.
    Starting,
    /// Connected.
    Up,
    /// Lazy, and not in use: connects on the first flow.
    Idle,
    /// The connection was lost, and a new one is being made.
    Reconnecting,
    /// The connection was lost, and only the user can restore it.
    Failed,
    /// Ended, or never started.
    Down,
}

/// An event that changes a tunnel's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// There is a connection, and the Engine answers.
    Connected,
    /// There is no connection, and one is being made.
    Connecting,
    /// The tunnel is lazy, and not in use.
    Unused,
    /// An attempt has failed for a reason that only the user can resolve.
    Refused,
    /// The tunnel ends.
    Stopped,
}

/// What flows can expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnel) enum Availability {
    /// There is a connection.
    Connected,
    /// No connection now; a flow may wait for one.
    Waiting,
    /// No connection without the user's action.
    Failed,
}

impl State {
    /// Whether docker can be used.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Up | Self::Idle)
    }

    /// The state after `event`; None if the event is impossible in this state.
    fn after(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Down, _) => None,
            (_, Event::Stopped) => Some(Self::Down),
            (Self::Starting | Self::Up | Self::Reconnecting, Event::Connected) => Some(Self::Up),
            (_, Event::Connecting) => Some(Self::Reconnecting),
            (Self::Starting | Self::Up | Self::Reconnecting | Self::Idle, Event::Unused) => Some(Self::Idle),
            (Self::Reconnecting, Event::Refused) => Some(Self::Failed),
            (Self::Idle | Self::Failed, Event::Connected)
            | (Self::Failed, Event::Unused)
            | (Self::Starting | Self::Up | Self::Idle | Self::Failed, Event::Refused) => None,
        }
    }

    /// What flows can expect in this state.
    pub(in crate::tunnel) fn availability(self) -> Availability {
        match self {
            Self::Up => Availability::Connected,
            Self::Starting | Self::Idle | Self::Reconnecting => Availability::Waiting,
            Self::Failed | Self::Down => Availability::Failed,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Idle => "idle",
            Self::Reconnecting => "reconnecting",
            Self::Failed => "failed",
            Self::Down => "down",
        })
    }
}

/// A tunnel's status at one moment, without counters.
#[derive(Debug, Clone)]
pub struct Status {
    /// Its state.
    pub state: State,
    /// The start of this state.
    pub since: SystemTime,
    /// The current step, while starting or reconnecting.
    pub step: Step,
    /// The Engine, once it has answered.
    pub engine: Option<EngineVersion>,
    /// The route to the Engine.
    pub route: Option<Route>,
    /// What carries the connection, or carried the last one.
    pub carried: Option<Carried>,
    /// The last failure with its hint. None once a connection is up again.
    pub last_error: Option<(String, Option<String>)>,
    /// The last client that was reset because it did not read: time, client and reason.
    pub last_reset: Option<(SystemTime, String)>,
    /// The class of `last_error`, if the connection failed.
    pub class: Option<Class>,
    /// The start of the next attempt, while one is pending.
    pub next_attempt: Option<SystemTime>,
}

/// The status of a tunnel, for any number of readers. Only its methods change it.
#[derive(Debug)]
pub(in crate::tunnel) struct Publisher(watch::Sender<Status>);

impl Publisher {
    /// The status of a tunnel that has not started; `route` is the last known route to its Engine, and `carried` what
    /// carried the last connection.
    pub(in crate::tunnel) fn new(route: Option<Route>, carried: Option<Carried>) -> Self {
        Self(watch::Sender::new(Status {
            state: State::Starting,
            since: SystemTime::now(),
            step: Step::Resolving,
            engine: None,
            route,
            carried,
            last_error: None,
            last_reset: None,
            class: None,
            next_attempt: None,
        }))
    }

    /// The status and its changes.
    pub(in crate::tunnel) fn subscribe(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    pub(in crate::tunnel) fn state(&self) -> State {
        self.0.borrow().state
    }

    /// The state and when it began, of one moment.
    pub(in crate::tunnel) fn state_since(&self) -> (State, SystemTime) {
        let status = self.0.borrow();
        (status.state, status.since)
    }

    /// The current step.
    pub(super) fn current_step(&self) -> Step {
        self.0.borrow().step
    }

    /// The last known route to the Engine.
    pub(in crate::tunnel) fn route(&self) -> Option<Route> {
        self.0.borrow().route.clone()
    }

    /// Could the machine's ssh log in where dtunnel's own could not?
    pub(super) fn openssh_first(&self) -> bool {
        self.0.borrow().carried.as_ref().is_some_and(|carried| carried.is_first)
    }

    pub(super) fn carries(&self, carried: Option<Carried>) {
        self.0.send_if_modified(|status| std::mem::replace(&mut status.carried, carried.clone()) != carried);
    }

    /// The endpoint of flows to the Engine.
    pub(in crate::tunnel) fn endpoint(&self) -> Endpoint {
        self.0.borrow().route.as_ref().map_or_else(|| Route::usual().endpoint(), Route::endpoint)
    }

    /// The last failure, as text.
    pub(in crate::tunnel) fn last_error(&self) -> Option<String> {
        self.0.borrow().last_error.as_ref().map(|(message, _)| message.clone())
    }

    /// Applies an event. The only place where a tunnel's state changes.
    pub(super) fn apply(&self, event: Event) {
        self.0.send_if_modified(|status| {
            let Some(next) = status.state.after(event) else {
                // A bug in dtunnel; the published state stays.
                tracing::error!("{event:?} while {}", status.state);
                return false;
            };
            let clears_error = event == Event::Connected && status.last_error.take().is_some();
            let changes = status.state != next;
            if changes {
                status.state = next;
                status.since = SystemTime::now();
            }
            changes || clears_error
        });
    }

    /// Publishes that the tunnel is down for good.
    pub(in crate::tunnel) fn stopped(&self) {
        self.apply(Event::Stopped);
    }

    pub(super) fn step(&self, step: Step) {
        self.0.send_modify(|status| status.step = step);
    }

    pub(super) fn found(&self, route: Route, engine: EngineVersion) {
        self.0.send_modify(|status| (status.engine, status.route) = (Some(engine), Some(route)));
    }

    /// Publishes a failed attempt to connect to `target`, as typed.
    pub(super) fn failed(&self, error: &Error, target: &str) {
        let mut described = (error.with_causes(), error.hint());
        if !error.may_pass() {
            described.0 = format!("needs you: run dtunnel up {target} ({})", described.0);
        }
        self.0.send_modify(|status| (status.last_error, status.class) = (Some(described), Some(error.class())));
    }

    /// Drops the last failure, which concerned the previous host.
    pub(in crate::tunnel) fn forget_failure(&self) {
        self.0.send_modify(|status| (status.last_error, status.class) = (None, None));
    }

    /// Publishes that the next attempt begins after `pause`; None if it has begun.
    pub(super) fn next_attempt(&self, pause: Option<Duration>) {
        let at = pause.and_then(|pause| SystemTime::now().checked_add(pause));
        self.0.send_modify(|status| status.next_attempt = at);
    }

    /// Publishes that a client was reset because it did not read.
    pub(in crate::tunnel) fn flow_reset(&self, why: String) {
        tracing::warn!("a flow was reset: {why}");
        self.0.send_modify(|status| status.last_reset = Some((SystemTime::now(), why)));
    }

    /// Publishes why flows are refused; None: they are accepted again.
    pub(in crate::tunnel) fn flows_refused(&self, reason: Option<&str>) {
        self.0.send_if_modified(|status| {
            let changes = reason.is_some() || status.last_error.is_some();
            if status.state == State::Up && changes {
                status.last_error = reason.map(|reason| (reason.to_owned(), None));
            }
            changes
        });
    }
}

/// Waits until flows need not wait for a connection. None at the end of the tunnel.
pub(in crate::tunnel) async fn settled(status: &mut watch::Receiver<Status>) -> Option<Availability> {
    let settled = status.wait_for(|status| status.state.availability() != Availability::Waiting).await;
    settled.ok().map(|status| status.state.availability())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests each state with each event.
    #[test]
    fn each_state_and_event_has_its_next_state_or_cannot_be() {
        use Event::{Connected, Connecting, Refused, Stopped, Unused};
        use State::{Down, Failed, Idle, Reconnecting, Starting, Up};
        let events = [Connected, Connecting, Unused, Refused, Stopped];
        let table = [
            (Starting, [Some(Up), Some(Reconnecting), Some(Idle), None, Some(Down)]),
            (Up, [Some(Up), Some(Reconnecting), Some(Idle), None, Some(Down)]),
            (Idle, [None, Some(Reconnecting), Some(Idle), None, Some(Down)]),
            (Reconnecting, [Some(Up), Some(Reconnecting), Some(Idle), Some(Failed), Some(Down)]),
            (Failed, [None, Some(Reconnecting), None, None, Some(Down)]),
            (Down, [None, None, None, None, None]),
        ];
        for (state, next) in table {
            for (event, next) in events.into_iter().zip(next) {
                assert_eq!(state.after(event), next, "{event:?} while {state}");
            }
        }
    }

    #[test]
    fn what_is_published_follows_the_events_and_nothing_else() {
        let published = Publisher::new(None, None);
        let mut seen = published.subscribe();
        let error = Error::System(std::io::Error::other("x"));
        published.apply(Event::Connecting);
        published.failed(&error, "prod-1");
        assert_eq!(published.last_error().as_deref(), Some("cannot start a connection: x"));
        assert_eq!(published.state().availability(), Availability::Waiting);
        published.apply(Event::Refused);
        assert_eq!(published.state().availability(), Availability::Failed);
        seen.mark_unchanged();
        // The event is impossible, so it changes nothing.
        published.apply(Event::Connected);
        assert_eq!((published.state(), seen.has_changed().ok()), (State::Failed, Some(false)));
        published.apply(Event::Connecting);
        published.apply(Event::Connected);
        assert_eq!((published.state(), published.last_error()), (State::Up, None));
        assert_eq!(published.state().availability(), Availability::Connected);
        published.flows_refused(Some("no"));
        assert_eq!(published.last_error().as_deref(), Some("no"));
        published.flows_refused(None);
        assert_eq!(published.last_error(), None);
        published.stopped();
        published.apply(Event::Connecting);
        assert_eq!(published.state(), State::Down);
    }
}
