//! The programs that start a user's services.

/// A service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceManager {
    /// systemd(1), with a manager for each user.
    Systemd,
    /// launchd(8), with agents for each user.
    Launchd,
    /// Windows' Task Scheduler, with tasks that begin when the user logs on.
    TaskScheduler,
}
