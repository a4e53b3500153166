//! What asks a daemon to end.

use std::io;

use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlLogoff, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_logoff, ctrl_shutdown,
};

pub use crate::os::events::Asked;

/// The events of the console (SetConsoleCtrlHandler), which do not end this process from now on.
#[derive(Debug)]
pub struct Signals {
    interrupt: CtrlC,
    break_key: CtrlBreak,
    close: CtrlClose,
    logoff: CtrlLogoff,
    shutdown: CtrlShutdown,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// From the system.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: ctrl_c()?,
            break_key: ctrl_break()?,
            close: ctrl_close()?,
            logoff: ctrl_logoff()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    /// Waits for the next one. Cancel safe.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.break_key.recv() => Asked::Stop,
            _ = self.close.recv() => Asked::Stop,
            _ = self.logoff.recv() => Asked::Stop,
            _ = self.shutdown.recv() => Asked::Stop,
        }
    }
}
