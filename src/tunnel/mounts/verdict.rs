//! What becomes of a bind's source: a path of this machine, or of the host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::scan::Source;
use crate::config::{Mounts, OF_HOST};
use crate::os::private::is_mine;
use crate::text::shown;

/// What becomes of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The host's, as it is written.
    AsItIs,
    /// The host's at this path.
    OfHost(String),
    /// It is mirrored. `asks_host`: unless the host has the same path.
    Mirror { source: Source, asks_host: bool },
    /// There is none here yet, and it may be made here, if the host has none either.
    New(PathBuf),
}

/// Decides on a source. Blocks.
///
/// # Errors
/// Why it may not be mounted, or cannot be looked at.
pub(super) fn verdict(source: &str, mounts: &Mounts) -> Result<Verdict, String> {
    if let Some(theirs) = source.strip_prefix(OF_HOST) {
        return Ok(Verdict::OfHost(theirs.to_owned()));
    }
    let path = Path::new(source);
    // The nearest directory that a rule names decides.
    let depth = |dir: &Path| path.starts_with(dir).then(|| dir.components().count());
    let of_host = mounts.of_host.iter().filter_map(|theirs| depth(Path::new(theirs))).max();
    let ours = mounts.roots.iter().filter_map(|root| depth(root)).max();
    if !path.is_absolute() || of_host.is_some_and(|theirs| ours.is_none_or(|ours| theirs >= ours)) {
        return Ok(Verdict::AsItIs);
    }
    let said = |e: io::Error| format!("{} of this machine cannot be mounted: {e}", shown(source));
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(missing(path, mounts)),
        // It may be the host's.
        Err(_) if !mounts.roots.iter().any(|root| path.starts_with(root)) => return Ok(Verdict::AsItIs),
        Err(e) => return Err(said(e)),
    };
    let meta = fs::metadata(&real).map_err(said)?;
    if !is_in_roots(&real, mounts) {
        if is_mine(&meta) && meta.is_dir() {
            tracing::info!(
                "{} of this machine is not below a directory of `mounts`: the host's is mounted",
                shown(source)
            );
        }
        return Ok(Verdict::AsItIs);
    }
    if !is_mine(&meta) {
        return Err(format!(
            "{} belongs to another user of this machine: only your own files are mounted",
            shown(source)
        ));
    }
    if !meta.is_dir() && !meta.is_file() {
        return Err(format!(
            "{0} is a socket or device of this machine, which cannot be brought to the host. For the host's own, write \
             {OF_HOST}{0}",
            shown(source)
        ));
    }
    let source = Source::of(&real).map_err(said)?;
    Ok(Verdict::Mirror { source, asks_host: !mounts.are_named })
}

fn is_in_roots(real: &Path, mounts: &Mounts) -> bool {
    mounts.roots.iter().filter_map(|root| root.canonicalize().ok()).any(|root| real.starts_with(root))
}

/// For a path that is not there: the first directory above it that is decides.
fn missing(path: &Path, mounts: &Mounts) -> Verdict {
    let has_dots = path.components().any(|part| part == std::path::Component::ParentDir);
    let above = path.ancestors().skip(1).find_map(|above| above.canonicalize().ok());
    match above {
        Some(above)
            if !has_dots && is_in_roots(&above, mounts) && fs::metadata(&above).is_ok_and(|meta| is_mine(&meta)) =>
        {
            Verdict::New(path.to_owned())
        }
        _ => Verdict::AsItIs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::mounts::tree::RelPath;

    fn mounts(roots: &[&Path], are_named: bool) -> Mounts {
        let roots = roots.iter().map(|root| root.to_path_buf()).collect();
        Mounts { roots, are_named, of_host: vec!["/srv/theirs".into()], max: 0, records: PathBuf::new() }
    }

    #[test]
    fn what_is_below_a_root_is_mirrored_and_everything_else_is_the_hosts() {
        let home = tempfile::tempdir().expect("a directory");
        let home = home.path().canonicalize().expect("real");
        fs::create_dir_all(home.join("src/app")).expect("made");
        fs::write(home.join("src/conf"), "x").expect("written");
        let (in_home, in_src) = (mounts(&[&home], false), mounts(&[&home.join("src")], true));
        let of = |path: &Path, mounts: &Mounts| verdict(path.to_str().expect("UTF-8"), mounts);
        let source = |dir: &str, only: Option<&str>| Source {
            dir: home.join(dir),
            only: only.and_then(|name: &str| RelPath::new(name.as_bytes())),
        };
        let mirror = |source: Source, asks_host| Ok(Verdict::Mirror { source, asks_host });
        assert_eq!(of(&home.join("src/app"), &in_home), mirror(source("src/app", None), true));
        assert_eq!(of(&home.join("src/./app/../app"), &in_home), mirror(source("src/app", None), true));
        assert_eq!(of(&home.join("src/app"), &in_src), mirror(source("src/app", None), false));
        assert_eq!(of(&home.join("src/conf"), &in_home), mirror(source("src", Some("conf")), true));
        assert_eq!(of(&home, &in_src), Ok(Verdict::AsItIs));
        let both = Mounts { of_host: vec![home.to_str().expect("UTF-8").into()], ..in_src.clone() };
        assert_eq!(of(&home.join("src/app"), &both), mirror(source("src/app", None), false), "the nearer rule");
        let inner = Mounts { of_host: vec![home.join("src/app").to_str().expect("UTF-8").into()], ..in_src.clone() };
        assert_eq!(of(&home.join("src/app"), &inner), Ok(Verdict::AsItIs), "the nearer rule");
        assert_eq!(of(Path::new("/"), &in_home), Ok(Verdict::AsItIs));
        assert_eq!(of(Path::new("/etc"), &in_home), Ok(Verdict::AsItIs));
        assert_eq!(of(Path::new("/srv/theirs/x"), &mounts(&[Path::new("/srv")], true)), Ok(Verdict::AsItIs));
        assert_eq!(verdict("host:/srv/x", &in_home), Ok(Verdict::OfHost("/srv/x".into())));
        assert_eq!(verdict("data", &in_home), Ok(Verdict::AsItIs));
        assert_eq!(of(&home.join("src/new/dir"), &in_home), Ok(Verdict::New(home.join("src/new/dir"))));
        assert_eq!(of(&home.join("src/../../new"), &in_home), Ok(Verdict::AsItIs));
        assert_eq!(of(Path::new("/no/such/dir"), &in_home), Ok(Verdict::AsItIs));
    }
}
