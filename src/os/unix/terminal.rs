//! The terminal at which people are asked: its keys, lines and echo.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use super::held_signals::Held;
use super::local::BlockingStream;
pub use crate::os::events::Ready;

/// The controlling terminal.
#[derive(Debug)]
pub struct Terminal(File);

impl Terminal {
    /// Opens it.
    ///
    /// # Errors
    /// There is none.
    pub fn open() -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open("/dev/tty").map(Self)
    }

    /// Waits for the user's next key or line, for something to read on `news`, or for a signal. Signals take precedence;
    /// typed input stays readable.
    ///
    /// # Errors
    /// From the system.
    pub fn wait(&self, news: Option<&BlockingStream>, signals: Option<&Held>) -> io::Result<Ready> {
        loop {
            let mut all = vec![PollFd::new(&self.0, PollFlags::IN)];
            all.extend(signals.and_then(Held::news).map(|news| PollFd::new(news, PollFlags::IN)));
            let of_signals = all.len();
            all.extend(news.map(|news| PollFd::new(news, PollFlags::IN)));
            match rustix::event::poll(&mut all, None) {
                // A signal that is not held was handled.
                Err(rustix::io::Errno::INTR) if signals.is_some() => return Ok(Ready::Signal),
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled?,
            };
            let has_come = |index: usize| all.get(index).is_some_and(|fd| !fd.revents().is_empty());
            match (has_come(0), of_signals == 2 && has_come(1)) {
                (_, true) => return Ok(Ready::Signal),
                (true, false) => return Ok(Ready::Typed),
                (false, false) if has_come(of_signals) => return Ok(Ready::News),
                (false, false) => {}
            }
        }
    }

    /// The next byte that was typed; None at the end of the terminal.
    ///
    /// # Errors
    /// From the system.
    pub fn read_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        loop {
            match (&self.0).read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(byte[0])),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Switches off echo, line editing and signal keys until dropped.
    ///
    /// # Errors
    /// From the system.
    pub fn hide(&self) -> io::Result<Hidden<'_>> {
        let before = tcgetattr(&self.0)?;
        let mut hidden = before.clone();
        hidden.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&self.0, OptionalActions::Flush, &hidden)?;
        Ok(Hidden { terminal: &self.0, before })
    }
}

impl Write for &Terminal {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&self.0).write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.0).flush()
    }
}

/// A terminal without echo.
#[derive(Debug)]
pub struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Does what Ctrl-Z does: stops the whole job. This process hears it as a signal.
pub fn stop_job() {
    let _ = rustix::process::kill_current_process_group(Signal::TSTP);
}

/// Does what Ctrl-\ does: ends the whole job. This process hears it as a signal.
pub fn quit_job() {
    let _ = rustix::process::kill_current_process_group(Signal::QUIT);
}
