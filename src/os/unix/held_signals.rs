//! Signals that arrive while the terminal's echo is off: the echo must be restored.
//!
//! signal-hook cannot unregister a handler (signal-hook(1.0), "unregistering"). Between prompts the handler therefore
//! emulates the system's default action.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::flag;
use signal_hook::low_level::{self, pipe};

use crate::os::process::ignored_signals;

pub use crate::os::events::Came;

/// Signals that end or stop this process.
const ALL: [i32; 5] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP];
/// Signals handled by a tunnel in this process (`up --foreground`).
const OF_A_TUNNEL: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];

static SIGNALS: OnceLock<Option<Signals>> = OnceLock::new();
static A_TUNNEL_IS_HERE: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct Signals {
    /// Whether signals take their default action.
    by_default: Arc<AtomicBool>,
    /// The last signal received; 0 for none.
    came: Arc<AtomicUsize>,
    /// Readable after a signal.
    news: UnixStream,
}

/// Leaves SIGHUP, SIGINT and SIGTERM to the tunnel in this process. Call it before the first question.
pub fn leave_to_tunnel() {
    A_TUNNEL_IS_HERE.store(true, Ordering::SeqCst);
}

/// Defers signals until taken or dropped. At most one exists at a time, since there is one terminal.
#[derive(Debug)]
pub struct Held(Option<&'static Signals>);

impl Held {
    /// Begins to defer them.
    #[expect(clippy::new_without_default, reason = "it is an action")]
    pub fn new() -> Self {
        let signals = SIGNALS.get_or_init(|| Signals::new().ok()).as_ref();
        if let Some(signals) = signals {
            signals.by_default.store(false, Ordering::SeqCst);
        }
        Self(signals)
    }

    /// Readable after a signal.
    pub fn news(&self) -> Option<&UnixStream> {
        self.0.map(|signals| &signals.news)
    }

    /// Takes the last signal received, if any.
    pub fn take(&self) -> Option<Came> {
        let signals = self.0?;
        let mut bytes = [0; 64];
        while matches!(io::Read::read(&mut &signals.news, &mut bytes), Ok(1..)) {}
        match i32::try_from(signals.came.swap(0, Ordering::SeqCst)).ok()? {
            0 => None,
            SIGINT => Some(Came::Interrupt),
            SIGTSTP => Some(Came::Stop),
            signal => Some(Came::Ends(signal)),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(signals) = self.0 {
            signals.by_default.store(true, Ordering::SeqCst);
        }
    }
}

impl Signals {
    fn new() -> io::Result<Self> {
        let (news, sender) = UnixStream::pair()?;
        news.set_nonblocking(true)?;
        let (by_default, came) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let ignored = ignored_signals();
        for signal in ALL {
            let is_anothers = OF_A_TUNNEL.contains(&signal) && A_TUNNEL_IS_HERE.load(Ordering::SeqCst);
            // Set by nohup(1) and for background jobs.
            let is_ignored = ignored >> (signal - 1) & 1 == 1;
            if is_anothers || is_ignored {
                continue;
            }
            flag::register_conditional_default(signal, by_default.clone())?;
            flag::register_usize(signal, came.clone(), usize::try_from(signal).unwrap_or_default())?;
            pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { by_default, came, news })
    }
}

/// Stops this process, as Ctrl-Z does; returns when it is continued.
pub fn stop() {
    let _ = low_level::emulate_default_handler(SIGTSTP);
}

/// Ends this process as the signal would.
pub fn end_by(signal: i32) {
    let _ = low_level::emulate_default_handler(signal);
}
