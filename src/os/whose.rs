//! Whose a client is.

/// The owner of a client's end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    ThisUsers,
    AnotherUsers,
    /// It had closed its connection before its owner could be looked up, and the system no longer tells.
    Unknown,
}
