//! The console at which people are asked: its keys, lines and echo.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{disable_raw_mode, enable_raw_mode};

use super::held_signals::Held;
use super::local::BlockingStream;
pub use crate::os::events::Ready;

/// How long the console and the connection are waited for in turn.
const TURN: Duration = Duration::from_millis(50);

/// The console of this process.
#[derive(Debug)]
pub struct Terminal {
    output: File,
    _input: File,
    /// Bytes that were typed and not read.
    typed: RefCell<VecDeque<u8>>,
    /// Whether the echo is on: then a line is read as a whole.
    echoes: RefCell<bool>,
}

impl Terminal {
    /// Opens it.
    ///
    /// # Errors
    /// There is none.
    pub fn open() -> io::Result<Self> {
        let open = |name| OpenOptions::new().read(true).write(true).open(name);
        let (input, output) = (open("CONIN$")?, open("CONOUT$")?);
        Ok(Self { output, _input: input, typed: RefCell::default(), echoes: RefCell::new(true) })
    }

    /// Waits for the user's next key, or for something to read on `news`.
    ///
    /// # Errors
    /// From the system.
    pub fn wait(&self, news: Option<&BlockingStream>, _: Option<&Held>) -> io::Result<Ready> {
        loop {
            if !self.typed.borrow().is_empty() {
                return Ok(Ready::Typed);
            }
            if event::poll(TURN)?
                && let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
            {
                self.take(key)?;
            }
            if news.is_some_and(|news| news.has_news(Duration::from_millis(1))) {
                return Ok(Ready::News);
            }
        }
    }

    /// A key as the bytes that a Unix terminal would send.
    fn take(&self, key: KeyEvent) -> io::Result<()> {
        let mut typed = self.typed.borrow_mut();
        let mut echo = String::new();
        match key.code {
            KeyCode::Char(c) if key.modifiers == KeyModifiers::CONTROL && c.is_ascii_alphabetic() => {
                typed.push_back(c.to_ascii_lowercase() as u8 & 0x1f);
            }
            KeyCode::Char(c) => {
                echo.push(c);
                typed.extend(c.to_string().bytes());
            }
            KeyCode::Enter => {
                echo.push_str("\r\n");
                typed.push_back(b'\n');
            }
            KeyCode::Backspace => typed.push_back(0x7f),
            _ => {}
        }
        if *self.echoes.borrow() {
            (&self.output).write_all(echo.as_bytes())?;
        }
        Ok(())
    }

    /// The next byte that was typed; None for Ctrl-C.
    ///
    /// # Errors
    /// From the system.
    pub fn read_byte(&self) -> io::Result<Option<u8>> {
        const CTRL_C: u8 = 3;
        loop {
            let next = self.typed.borrow_mut().pop_front();
            match next {
                Some(CTRL_C) if *self.echoes.borrow() => return Ok(None),
                Some(byte) => return Ok(Some(byte)),
                None => drop(self.wait(None, None)?),
            }
        }
    }

    /// Switches off echo and line editing until dropped; Ctrl-C is a key meanwhile.
    ///
    /// # Errors
    /// From the system.
    pub fn hide(&self) -> io::Result<Hidden<'_>> {
        enable_raw_mode()?;
        *self.echoes.borrow_mut() = false;
        Ok(Hidden(self))
    }
}

impl Write for &Terminal {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&self.output).write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.output).flush()
    }
}

/// A console without echo.
#[derive(Debug)]
pub struct Hidden<'a>(&'a Terminal);

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        *self.0.echoes.borrow_mut() = true;
        let _ = disable_raw_mode();
    }
}

/// Nothing: Windows stops no jobs.
pub fn stop_job() {}

/// Nothing: Windows has no such key.
pub fn quit_job() {}
