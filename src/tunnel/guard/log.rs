//! The lines of a guard in the tunnel's log, one for each request. They are formatted when the thread that serves the
//! request has nothing else to do, so that the request does not wait for it.

use std::sync::{Arc, Mutex};

use crate::os::pauses::{self, AtPause};
use crate::sync::lock;

/// Limit of lines that wait.
const MAX_WAITING: usize = 64;

/// Lines that are not in the log yet.
#[derive(Debug, Default)]
pub(super) struct RequestLog(Mutex<Vec<String>>);

impl RequestLog {
    /// Adds a line.
    pub(super) fn add(self: &Arc<Self>, line: String) {
        let mut lines = lock(&self.0);
        lines.push(line);
        // Each thread that adds some writes them all at its next pause: another one's may be far.
        if lines.len() >= MAX_WAITING || !pauses::put_off(self) {
            write(&mut lines);
        }
    }
}

impl AtPause for RequestLog {
    fn do_now(&self) {
        write(&mut lock(&self.0));
    }
}

/// Under the lock, so that lines keep their order.
fn write(lines: &mut Vec<String>) {
    for line in lines.drain(..) {
        tracing::info!(message = line.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8_lossy(&lock(&self.0)).into_owned();
            text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.1.to_owned())).collect()
        }
    }

    #[test]
    fn lines_keep_their_order_and_wait_for_a_pause_where_there_are_any() {
        let (written, log) = (Written::default(), Arc::new(RequestLog::default()));
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            log.add("one".into());
            assert_eq!(written.lines(), ["one"], "this thread has not paused yet");
            pauses::before_pause();
            ["two", "three"].iter().for_each(|line| log.add((*line).into()));
            assert_eq!(written.lines(), ["one"]);
            pauses::before_pause();
            assert_eq!(written.lines(), ["one", "two", "three"]);
            (0..MAX_WAITING).for_each(|at| log.add(at.to_string()));
            assert_eq!(written.lines().len(), 3 + MAX_WAITING, "too many to wait");
            log.add("last".into());
            pauses::before_pause();
            assert_eq!(written.lines().len(), 4 + MAX_WAITING);
        });
    }
}
