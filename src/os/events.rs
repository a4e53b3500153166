//! What comes from a terminal and from the system.

/// What has come while a person is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// A key or a line.
    Typed,
    /// The connection has something to read.
    News,
    /// A signal. Never on Windows.
    Signal,
}

/// A signal that has come while the terminal's echo is off. Never on Windows, where Ctrl-C is a key then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// Ctrl-C (SIGINT).
    Interrupt,
    /// Ctrl-Z (SIGTSTP).
    Stop,
    /// Another one, that ends this process: its number.
    Ends(i32),
}

/// What a daemon is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The end: SIGTERM or SIGINT; on Windows Ctrl-C, Ctrl-Break, the end of the console, the session or the system.
    Stop,
    /// To read the configuration again (SIGHUP). Never on Windows, where `dtunnel reload` asks for it.
    Reload,
}
