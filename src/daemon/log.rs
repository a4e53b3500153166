//! The tunnel's log file. A log that cannot be written does not stop the tunnel.
//!
//! Under a guard each request has a line. It is written when the thread that serves the request has nothing else to do.

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::os::pauses::{self, AtPause};
use crate::os::private;
use crate::sync::lock;

/// Size in bytes at which the log is renamed to `NAME.log.1`, which it replaces. A tunnel's
/// logs take at most twice this.
const MAX_LOG: u64 = 1 << 20;
/// Most bytes that wait to be written.
const MAX_WAITING: usize = 16 << 10;

/// Writes log messages to the file at `path`, and with `echo` to standard error as well.
///
/// russh's own messages (of the `log` crate) are dropped: they may contain secrets.
pub(super) fn start(path: &Path, verbose: u8, echo: bool) {
    let level = if verbose > 0 { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let log = Arc::new(Log(Mutex::new(RotatingFile::new(path))));
    let file = move || Appending(log.clone());
    let writer = if echo { BoxMakeWriter::new(file.and(io::stderr)) } else { BoxMakeWriter::new(file) };
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).event_format(Lines::default());
    // A second call in the same process keeps the first subscriber.
    let _ = subscriber.with_writer(writer).try_init();
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}

/// Formats a line: the time in UTC (RFC 3339), the level, the message.
#[derive(Default)]
struct Lines {
    /// A second since 1970, and its time as text.
    second: Mutex<(u64, String)>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N> for Lines {
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut now = since_1970();
        let mut second = lock(&self.second);
        while second.0 != now.as_secs() {
            // A second may end meanwhile.
            *second = (now.as_secs(), as_text()?);
            now = since_1970();
        }
        write!(writer, "{}.{:06}Z {:>5} ", second.1, now.subsec_micros(), event.metadata().level().as_str())?;
        drop(second);
        event.record(&mut Message(Escaped(writer.by_ref())));
        writer.write_char('\n')
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// This second.
fn as_text() -> Result<String, fmt::Error> {
    let mut text = String::new();
    tracing_subscriber::fmt::time::SystemTime.format_time(&mut Writer::new(&mut text))?;
    text.truncate(text.find('.').unwrap_or(text.len()));
    Ok(text)
}

/// Writes an event's message, and behind it the names and values of its fields.
struct Message<W>(Escaped<W>);

impl<W: fmt::Write> Visit for Message<W> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => drop(self.0.write_str(value)),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

/// Writes text without control characters, which a terminal would obey, but for line breaks.
struct Escaped<W>(W);

impl<W: fmt::Write> fmt::Write for Escaped<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t')) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|c| match c {
            '\n' | '\t' => self.0.write_char(c),
            _ if c.is_control() => write!(self.0, "{}", c.escape_unicode()),
            _ => self.0.write_char(c),
        })
    }
}

/// The log's file, for all threads.
struct Log(Mutex<RotatingFile>);

impl AtPause for Log {
    fn do_now(&self) {
        lock(&self.0).write_waiting();
    }
}

/// Appends a line to the log.
struct Appending(Arc<Log>);

impl Write for Appending {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut file = lock(&self.0.0);
        file.waiting.extend_from_slice(line);
        // Each thread that adds some writes them all at its next pause: another one's may be far.
        if file.waiting.len() > MAX_WAITING || !pauses::put_off(&self.0) {
            file.write_waiting();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log file that is renamed at [`MAX_LOG`].
struct RotatingFile {
    path: PathBuf,
    /// The file and its size, once opened.
    open: Option<(File, u64)>,
    /// Lines that are not written yet.
    waiting: Vec<u8>,
}

impl RotatingFile {
    fn new(path: &Path) -> Self {
        Self { path: path.into(), open: None, waiting: Vec::new() }
    }

    fn open(&mut self) -> io::Result<&mut (File, u64)> {
        if let Some((_, size)) = &self.open
            && *size >= MAX_LOG
        {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            self.open = None;
        }
        if self.open.is_none() {
            if let Some(dir) = self.path.parent() {
                private::create_dirs(dir)?;
            }
            let mut options = OpenOptions::new();
            let file = private::private(options.append(true).create(true)).open(&self.path)?;
            let size = file.metadata()?.len();
            self.open = Some((file, size));
        }
        self.open.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Writes the lines that wait. After an error they are lost, and the next ones try again.
    fn write_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let mut lines = std::mem::take(&mut self.waiting);
        if let Ok((file, size)) = self.open()
            && file.write_all(&lines).is_ok()
        {
            *size += lines.len() as u64;
        }
        lines.clear();
        self.waiting = lines;
    }
}

/// The last `lines` of a log that may have been rotated, oldest first.
///
/// # Errors
/// Neither file can be read.
pub(crate) fn tail(path: &Path, lines: usize) -> io::Result<Vec<String>> {
    let mut old = path.to_path_buf().into_os_string();
    old.push(".1");
    let before = fs::read(old).unwrap_or_default();
    let now = fs::read(path);
    if now.is_err() && before.is_empty() {
        now.as_ref().map_err(|e| io::Error::from(e.kind()))?;
    }
    let all = [before, now.unwrap_or_default()].concat();
    let all = String::from_utf8_lossy(&all);
    let skip = all.lines().count().saturating_sub(lines);
    Ok(all.lines().skip(skip).map(Into::into).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_rotated_and_its_end_still_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("deep/x.log");
        let mut log = Appending(Arc::new(Log(Mutex::new(RotatingFile::new(&path)))));
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..1500 {
            log.write_all(line.as_bytes()).expect("never fails");
        }
        log.write_all(b"the last\n").expect("never fails");
        assert!(fs::metadata(&path).expect("there").len() < MAX_LOG);
        let lines = tail(&path, 1200).expect("read");
        assert_eq!((lines.len(), lines.last().map(String::as_str)), (1200, Some("the last")));
    }

    #[test]
    fn lines_that_wait_for_a_pause_are_written_in_their_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.log");
        let log = Arc::new(Log(Mutex::new(RotatingFile::new(&path))));
        let mut here = Appending(log.clone());
        let of_thread = path.clone();
        std::thread::spawn(move || {
            let path = of_thread;
            pauses::before_pause();
            let mut there = Appending(log);
            for line in ["one\n", "two\n"] {
                there.write_all(line.as_bytes()).expect("never fails");
            }
            assert_eq!(fs::read_to_string(&path).unwrap_or_default(), "");
            pauses::before_pause();
            assert_eq!(fs::read_to_string(&path).expect("there"), "one\ntwo\n");
            there.write_all(&[b'x'; MAX_WAITING + 1]).expect("never fails");
            assert!(fs::read(&path).expect("there").ends_with(b"x"), "too much to wait");
        })
        .join()
        .expect("joined");
        here.write_all(b"three\n").expect("never fails");
        assert!(fs::read(&path).expect("there").ends_with(b"three\n"), "a thread without pauses writes at once");
    }

    #[test]
    fn a_terminal_obeys_nothing_in_a_line() {
        for (text, shown) in
            [("plain\n\ttext", "plain\n\ttext"), ("\x1b[2J \u{9b}1m grün", "\\u{1b}[2J \\u{9b}1m grün")]
        {
            let mut line = Escaped(String::new());
            fmt::Write::write_str(&mut line, text).expect("a string takes all");
            assert_eq!(line.0, shown);
        }
    }

    #[test]
    fn a_log_that_cannot_be_written_is_no_error() {
        let mut log = Appending(Arc::new(Log(Mutex::new(RotatingFile::new(Path::new("/proc/nowhere/x.log"))))));
        log.write_all(b"line\n").expect("never fails");
    }
}
