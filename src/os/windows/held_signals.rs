//! Signals that arrive while the terminal's echo is off: none. Ctrl-C is a key then, and what else ends a console ends this
//! process with it.

pub use crate::os::events::Came;

/// Nothing: there is nothing to leave.
pub fn leave_to_tunnel() {}

/// Defers nothing.
#[derive(Debug)]
pub struct Held(());

impl Held {
    /// Begins to defer them.
    #[expect(clippy::new_without_default, reason = "it is an action")]
    pub fn new() -> Self {
        Self(())
    }

    /// None.
    pub fn take(&self) -> Option<Came> {
        None
    }
}

/// Nothing: Windows stops no jobs.
pub fn stop() {}

/// Nothing: the caller ends this process.
pub fn end_by(_: i32) {}
