//! Disks that are full, files that are somebody else's, and odd names. Tests that need root do nothing without it.

use super::*;

/// A file system of its own with so little room; gone when it is dropped.
struct Small(TempDir);

impl Small {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=400k,mode=755", "tmpfs"])
            .arg(dir.path())
            .output();
        mount.is_ok_and(|done| done.status.success()).then_some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn is_root() -> bool {
    std::process::Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n")
}

const WAYS: [fn() -> LocalShell; 3] = [LocalShell::gnu, LocalShell::busybox, LocalShell::sftp];

#[tokio::test]
async fn a_full_disk_on_the_host_is_survived() {
    for way in WAYS {
        let Some(small) = Small::new() else { return };
        let here = tempfile::tempdir().expect("a directory");
        shell(here.path(), "echo 1 > a; mkdir d; echo 2 > d/b; head -c 600000 /dev/zero > big");
        let mount = mount(here.path(), small.0.path(), way(), false);
        let tree = small.0.path().join("mirror/tree");
        // The fill, then a change.
        let report = mount.round().await.expect("a round");
        assert!(!report.is_in_step());
        shell(here.path(), "rm big");
        for _ in 0..3 {
            mount.round().await.expect("a round");
        }
        assert_eq!(all(here.path()), all(&tree));
        shell(here.path(), "head -c 600000 /dev/zero > a; echo 3 > d/b");
        let report = mount.round().await.expect("a round");
        assert!(!report.is_in_step());
        assert!(text(&tree, "a") == "1\n" && fs::metadata(here.path().join("a")).expect("is there").len() == 600_000);
        shell(here.path(), "echo short > a");
        for _ in 0..3 {
            mount.round().await.expect("a round");
        }
        let last = mount.round().await.expect("a round");
        assert_eq!((last.done, last.is_in_step()), (0, true), "{last:?}");
        assert_eq!(all(here.path()), all(&tree));
        assert_eq!([text(here.path(), "a"), text(here.path(), "d/b")], ["short\n", "3\n"]);
    }
}

#[tokio::test]
async fn a_file_that_is_written_in_place_is_as_it_was_if_the_disk_is_full() {
    for way in [LocalShell::gnu, LocalShell::busybox] {
        let Some(small) = Small::new() else { return };
        let here = tempfile::tempdir().expect("a directory");
        shell(here.path(), "head -c 100000 /dev/zero > a");
        let mount = mount(&here.path().join("a"), small.0.path(), way(), false);
        assert!(mount.round().await.expect("a round").is_in_step());
        // Room for the stage, but not for the copy and what grows.
        shell(here.path(), "head -c 150000 /dev/zero | tr '\\0' x > a");
        let report = mount.round().await.expect("a round");
        assert!(!report.is_in_step(), "{report:?}");
        let there = fs::read(small.0.path().join("mirror/tree/a")).expect("read");
        assert!(there.len() == 100_000 && there.iter().all(|byte| *byte == 0));
        assert_eq!(fs::metadata(here.path().join("a")).expect("is there").len(), 150_000);
    }
}

#[tokio::test]
async fn a_full_disk_here_is_survived() {
    for way in WAYS {
        let Some(small) = Small::new() else { return };
        let other = tempfile::tempdir().expect("a directory");
        shell(small.0.path(), "echo 1 > a; echo 2 > b");
        let mount = mount(small.0.path(), other.path(), way(), false);
        assert!(mount.round().await.expect("a round").is_in_step());
        let tree = other.path().join("mirror/tree");
        shell(&tree, "head -c 600000 /dev/zero > a; echo of it > c; head -c 600000 /dev/zero > b");
        shell(small.0.path(), "echo mine, too > b");
        let report = mount.round().await.expect("a round");
        assert!(!report.is_in_step(), "{report:?}");
        assert_eq!([text(small.0.path(), "a"), text(small.0.path(), "b")], ["1\n", "mine, too\n"]);
        // The host's version that could not be kept here is not replaced there.
        assert_eq!(fs::metadata(tree.join("b")).expect("is there").len(), 600_000);
        shell(&tree, "echo less, now > a; echo less, too, of b > b");
        for _ in 0..2 {
            mount.round().await.expect("a round");
        }
        let last = mount.round().await.expect("a round");
        assert_eq!((last.done, last.is_in_step()), (0, true), "{last:?}");
        assert_eq!(
            [text(small.0.path(), "a"), text(small.0.path(), "b"), text(small.0.path(), "c")],
            ["less, now\n", "mine, too\n", "of it\n"]
        );
        let names = fs::read_dir(small.0.path()).expect("read");
        let names = names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        assert!(!names.into_iter().any(|name| name.starts_with(".dtunnel-tmp")));
    }
}

/// A container runs as root, the login is somebody.
#[tokio::test]
async fn files_of_another_user_on_the_host_are_fetched_if_they_can_be_read_and_told_if_not() {
    if !is_root() {
        return;
    }
    for way in WAYS {
        let (here, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        shell(here.path(), "mkdir d; echo 1 > d/a; echo 2 > b; echo 3 > c");
        shell(other.path(), "chmod 755 .; mkdir host; chown 65534:65534 host");
        let mut shell_there = way();
        shell_there.uid = Some(65534);
        if let Some(tools) = &shell_there.tools {
            shell(tools.path(), "chmod 755 .");
        }
        let mirror = shell_there.mirror(&other.path().join("host/mirror"));
        let source = Source::of(here.path()).expect("a source");
        let mount =
            Mount::open(source, mirror, &other.path().join("journal"), Bounds::default(), false).expect("opened");
        assert!(mount.round().await.expect("a round").is_in_step());
        let tree = other.path().join("host/mirror/tree");
        shell(
            &tree,
            "mkdir out shut; echo built > out/r; echo secret > key; chmod 600 key; chmod 700 shut; echo in > shut/in; echo root > b",
        );
        let report = mount.round().await.expect("a round");
        assert_eq!([text(here.path(), "out/r"), text(here.path(), "b")], ["built\n", "root\n"]);
        let failed: BTreeSet<&str> = report.failed.iter().map(|(path, _)| path.as_str()).collect();
        // busybox's find does not tell which directory it was.
        assert!(failed.contains("key") && (failed.contains("shut") || failed.contains(".")), "{report:?}");
        // What cannot be changed there is told, and the rest is done.
        shell(here.path(), "echo mine, longer > out/r; echo mine > c; rm d/a; chmod 711 b; echo 4 > shut2");
        let report = mount.round().await.expect("a round");
        assert!(report.failed.iter().any(|(path, _)| path == "out/r"), "{report:?}");
        assert_eq!([text(&tree, "out/r"), text(&tree, "c"), text(&tree, "shut2")], ["built\n", "mine\n", "4\n"]);
        assert!(!tree.join("d/a").exists());
        // The directory that holds what nobody here knows stays.
        shell(here.path(), "rm -r d");
        shell(&tree, "echo hidden > d/x; chmod 600 d/x");
        for _ in 0..2 {
            mount.round().await.expect("a round");
        }
        assert_eq!(text(&tree, "d/x"), "hidden\n");
        assert_eq!([text(here.path(), "out/r"), text(here.path(), "c")], ["mine, longer\n", "mine\n"]);
        // Once the owner gives it up, all is in step.
        shell(&tree, "chown -R 65534:65534 .");
        for _ in 0..3 {
            mount.round().await.expect("a round");
        }
        assert_eq!(all(here.path()), all(&tree));
        assert_eq!([text(here.path(), "key"), text(here.path(), "shut/in")], ["secret\n", "in\n"]);
    }
}

#[tokio::test]
async fn odd_names_and_names_that_differ_in_case_only() {
    for way in [LocalShell::gnu, LocalShell::sftp] {
        let lab = Lab::new(way(), false);
        let (here, there) = (lab.here.path(), lab.tree());
        let long = "n".repeat(255);
        shell(
            here,
            &format!("echo 1 > {long}; mkdir 'd\n'; echo 2 > 'd\n/a\n'; echo 3 > Readme; echo 4 > -; echo 5 > '*'"),
        );
        lab.in_step().await;
        shell(here, "mv Readme README; mv -- - -rf");
        shell(&there, &format!("echo longer than before > {long}; mv '*' '?'"));
        lab.in_step().await;
        assert_eq!(all(here), all(&there));
        assert_eq!(
            [text(here, &long), text(&there, "README"), text(here, "?")],
            ["longer than before\n", "3\n", "5\n"]
        );
        // A conflict of a name that has no room for more.
        shell(here, &format!("echo mine > {long}"));
        shell(&there, &format!("echo theirs, again > {long}"));
        let copy = lab.in_step().await.conflicts[0].to_string();
        assert_eq!([text(here, &long), text(here, &copy)], ["mine\n", "theirs, again\n"]);
    }
}

/// Its length takes more than 32 bits, and more than tar's octal digits if it were 8 GiB.
#[tokio::test]
#[ignore = "some minutes"]
async fn a_file_of_more_than_four_gigabytes() {
    for way in [LocalShell::gnu, LocalShell::sftp] {
        let (here, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        shell(here.path(), "truncate -s 4300000000 a; echo end >> a");
        let mirror = way().mirror(&other.path().join("mirror"));
        let source = Source::of(here.path()).expect("a source");
        let bounds = Bounds { bytes: 1 << 40, entries: 10 };
        let mount = Mount::open(source, mirror, &other.path().join("journal"), bounds, false).expect("opened");
        assert!(mount.round().await.expect("a round").is_in_step());
        let there = other.path().join("mirror/tree/a");
        assert_eq!(fs::metadata(&there).expect("is there").len(), 4_300_000_004);
        shell(other.path(), "echo more >> mirror/tree/a; truncate -s 4300000000 mirror/tree/b");
        assert!(mount.round().await.expect("a round").is_in_step());
        assert_eq!(fs::metadata(here.path().join("a")).expect("is there").len(), 4_300_000_009);
    }
}
