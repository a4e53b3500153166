//! How fast a mirror is filled and looked at, beside `rsync -a`: `cargo test --release --lib mounts -- --ignored --nocapture`.

use std::path::Path;
use std::time::Instant;

use super::super::*;
use crate::tunnel::mounts::host::tests::LocalShell;

fn source(dir: &Path) {
    for outer in 0..200 {
        let dir = dir.join(format!("dir-{outer}"));
        std::fs::create_dir(&dir).expect("created");
        for inner in 0..100 {
            let size = 1024 + (outer * 100 + inner) * 7 % 3072;
            std::fs::write(dir.join(format!("file-{inner}.txt")), vec![b'x'; size]).expect("written");
        }
    }
}

/// `DTUNNEL_SPEED_DIR`: where both sides are, a directory of a real file system. `DTUNNEL_SPEED_SFTP`: by SFTP.
#[tokio::test]
#[ignore = "measures"]
async fn a_fill_of_many_small_files() {
    let at = std::env::var_os("DTUNNEL_SPEED_DIR").map_or_else(std::env::temp_dir, Into::into);
    let lab = tempfile::tempdir_in(&at).expect("a directory");
    let here = lab.path().join("here");
    std::fs::create_dir(&here).expect("created");
    source(&here);
    let rsync = || {
        let copy = lab.path().join("copy");
        let _ = std::fs::remove_dir_all(&copy);
        let start = Instant::now();
        let status = std::process::Command::new("rsync").arg("-a").arg(here.join("")).arg(&copy).status();
        assert!(status.expect("rsync").success());
        start.elapsed()
    };
    rsync();
    for number in 0..3 {
        let is_sftp = std::env::var_os("DTUNNEL_SPEED_SFTP").is_some();
        let shell = if is_sftp { LocalShell::sftp() } else { LocalShell::gnu() };
        let mirror = shell.mirror(&lab.path().join(format!("mirror-{number}")));
        let source = Source::of(&here).expect("a source");
        let journal = lab.path().join(format!("journal-{number}"));
        let mount = Mount::open(source, mirror, &journal, Bounds::default(), false).expect("opened");
        let mut times = Vec::new();
        let mut took = |what: &'static str, start: Instant| times.push((what, start.elapsed()));
        let start = Instant::now();
        let report = mount.round().await.expect("a round");
        took("fill", start);
        assert_eq!((report.done, report.is_in_step()), (20_200, true));
        let start = Instant::now();
        mount.round().await.expect("a round");
        took("round with a listing", start);
        let start = Instant::now();
        mount.round().await.expect("a round");
        took("round without", start);
        let start = Instant::now();
        mount.look().await.expect("a look");
        took("look", start);
        std::fs::write(here.join("dir-7/file-7.txt"), format!("changed {number}")).expect("written");
        let start = Instant::now();
        mount.push(vec![RelPath::new(b"dir-7/file-7.txt").expect("a path")]).await.expect("a push");
        took("push of one", start);
        let tree = lab.path().join(format!("mirror-{number}/tree"));
        let touch = ["-c", "find . -type f -exec touch {} +"];
        let touched = std::process::Command::new("sh").args(touch).current_dir(tree).status();
        assert!(touched.expect("touch").success());
        let start = Instant::now();
        let report = mount.round().await.expect("a round");
        took("fetch of all", start);
        // The pushed one may have been changed within the same second, which is all that SFTP tells.
        assert!(report.done >= 19_999 && report.is_in_step());
        eprintln!("rsync -a: {:?}; {times:?}", rsync());
    }
}
