//! The tunnel's log file. A log that cannot be written does not stop the tunnel.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt};

use crate::os::private;

/// Size in bytes at which the log is renamed to `NAME.log.1`, which it replaces. A tunnel's
/// logs take at most twice this.
const MAX_LOG: u64 = 1 << 20;

/// Writes log messages to the file at `path`, and with `echo` to standard error as well.
///
/// russh's own messages (of the `log` crate) are dropped: they may contain secrets.
pub(super) fn start(path: &Path, verbose: u8, echo: bool) {
    let level = if verbose > 0 { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let file = Mutex::new(RotatingFile { path: path.into(), open: None });
    let writer = if echo { BoxMakeWriter::new(file.and(io::stderr)) } else { BoxMakeWriter::new(file) };
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_ansi(false);
    // A second call in the same process keeps the first subscriber.
    let _ = subscriber.with_writer(writer).try_init();
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}

/// A log file that is renamed at [`MAX_LOG`].
struct RotatingFile {
    path: PathBuf,
    /// The file and its size, once opened.
    open: Option<(File, u64)>,
}

impl RotatingFile {
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
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // After an error, the next line tries again.
        if let Ok((file, size)) = self.open()
            && file.write_all(line).is_ok()
        {
            *size += line.len() as u64;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
        let mut log = RotatingFile { path: path.clone(), open: None };
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
    fn a_log_that_cannot_be_written_is_no_error() {
        let mut log = RotatingFile { path: "/proc/nowhere/x.log".into(), open: None };
        log.write_all(b"line\n").expect("never fails");
    }
}
