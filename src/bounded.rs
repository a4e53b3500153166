//! A time limit for system calls that may block forever.

use std::sync::mpsc;
use std::time::Duration;

/// The result of `work`, which is done on a thread of its own; None where it has not ended within `limit`. The thread
/// then stays behind, with everything it holds.
///
/// # Errors
/// Where the system has no thread to give.
pub fn within<T: Send + 'static>(
    limit: Duration,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<Option<T>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name(name.into()).spawn(move || sender.send(work()))?;
    Ok(receiver.recv_timeout(limit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_is_told_and_what_does_not_is_left() {
        assert_eq!(within(Duration::from_secs(60), "t", || 1).expect("a thread"), Some(1));
        let (keep, never) = mpsc::channel::<()>();
        let left = within(Duration::from_millis(1), "t", move || never.recv());
        assert_eq!(left.expect("a thread"), None);
        drop(keep);
    }
}
