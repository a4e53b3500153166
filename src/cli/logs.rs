//! `dtunnel logs`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::global::Global;
use super::ui;
use crate::config::log_path;
use crate::daemon::log_tail;
use crate::failure::{ExitCode, Failure};
use crate::os::files;

/// Poll interval of `--follow`.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// The tunnel, up or not [default: DTUNNEL_TARGET, `default` of the configuration, or the only profile]
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    target: Option<String>,
    /// Go on as the log grows, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    lines: usize,
}

pub(super) fn logs(global: &Global, args: &LogsArgs) -> Result<(), Failure> {
    let chosen = global.choose(args.target.as_deref())?;
    let path = log_path(&chosen.name)?;
    let failed = |e: &io::Error| Failure::new(ExitCode::Other, format!("cannot read {}: {e}", path.display()));
    let mut end = std::fs::metadata(&path).map(|meta| (files::identity(&meta), meta.len())).unwrap_or_default();
    match log_tail(&path, args.lines) {
        Ok(lines) => ui::print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(global.unknown(&chosen.target, &chosen.name, &chosen.config).unwrap_or_else(|| {
                Failure::new(ExitCode::Other, format!("{} has no log: it was never up", chosen.target))
            }));
        }
        Err(e) => return Err(failed(&e)),
    }
    if !args.follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(LOOK);
        match read_on(&path, &mut end) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => ui::print(&text)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(&e)),
        }
    }
}

/// Reads the data after `end` (the file's identity and length), and updates `end`. A new file is read from its start.
fn read_on(path: &Path, end: &mut (u64, u64)) -> io::Result<String> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    if files::identity(&meta) != end.0 || meta.len() < end.1 {
        *end = (files::identity(&meta), 0);
    }
    file.seek(SeekFrom::Start(end.1))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    end.1 += text.len() as u64;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
