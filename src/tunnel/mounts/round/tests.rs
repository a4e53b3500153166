mod faults;
mod random;
mod traces;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use tempfile::TempDir;

use super::*;
use crate::tunnel::mounts::host::tests::LocalShell;
use crate::tunnel::mounts::watcher::Changed;

/// A directory here and a host, both on this machine.
struct Lab {
    here: TempDir,
    /// The mirror and the journal.
    other: TempDir,
    /// None while it is opened anew.
    mount: Option<Mount<LocalShell>>,
}

fn mount(here: &Path, other: &Path, shell: LocalShell, read_only: bool) -> Mount<LocalShell> {
    let mirror = shell.mirror(&other.join("mirror"));
    Mount::open(Source::of(here).expect("a source"), mirror, &other.join("journal"), Bounds::default(), read_only)
        .expect("opened")
}

impl Lab {
    fn new(shell: LocalShell, read_only: bool) -> Self {
        let (here, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let mount = mount(here.path(), other.path(), shell, read_only);
        Self { here, other, mount: Some(mount) }
    }

    fn tree(&self) -> PathBuf {
        self.other.path().join("mirror/tree")
    }

    fn mount(&self) -> &Mount<LocalShell> {
        self.mount.as_ref().expect("is open")
    }

    /// As after a restart of the process.
    fn reopen(&mut self, shell: LocalShell) -> &mut Mount<LocalShell> {
        let read_only = self.mount().read_only.load(Relaxed);
        self.mount = None;
        self.mount.insert(mount(self.here.path(), self.other.path(), shell, read_only))
    }

    async fn round(&self) -> Report {
        self.mount().round().await.expect("a round")
    }

    async fn push(&self, names: &[&str]) -> Report {
        let paths = names.iter().map(|name| RelPath::new(name.as_bytes()).expect("a path")).collect();
        self.mount().push(paths).await.expect("a push")
    }

    /// A round after which nothing is left to do.
    async fn in_step(&self) -> Report {
        let report = self.round().await;
        assert!(report.is_in_step(), "{report:?}");
        let again = self.round().await;
        assert_eq!((again.done, again.is_in_step()), (0, true), "{again:?}");
        report
    }
}

fn shell(dir: &Path, script: &str) {
    let done = std::process::Command::new("sh").args(["-c", script]).current_dir(dir).status();
    assert!(done.expect("sh").success(), "{script}");
}

fn text(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_else(|_| "-".into())
}

/// All files with their contents, and directories and links.
fn all(dir: &Path) -> BTreeSet<String> {
    let found = std::process::Command::new("sh")
        .args([
            "-c",
            "find . -mindepth 1 ! -name .dtunnel-tmp-mark ! -name '*.dtunnel-conflict-*' ! -path '*.dtunnel-conflict-*/*' \\( -type f -printf 'f %m %p ' \
             -exec cat {} \\; -printf '\\n' -o -printf '%y %m %p %l\\n' \\)",
        ])
        .current_dir(dir)
        .output()
        .expect("find");
    String::from_utf8(found.stdout).expect("UTF-8").lines().map(Into::into).collect()
}

#[tokio::test]
async fn both_sides_get_in_step_with_any_tools() {
    for tools in [LocalShell::gnu, LocalShell::busybox, LocalShell::sftp] {
        let lab = Lab::new(tools(), false);
        let (here, there) = (lab.here.path(), lab.tree());
        shell(
            here,
            "mkdir -p src/deep; echo 1 > src/a; echo 2 > src/deep/b; ln -s a src/l; echo '*.o' > .dtunnelignore; echo o > x.o",
        );
        let report = lab.in_step().await;
        assert_eq!((report.done, report.entries), (6, 6));
        assert!(!there.join("x.o").exists());
        // Changes of both sides, then of the same file on both.
        shell(here, "echo 1b > src/a; rm -r src/deep; mkdir bin; echo run > bin/run; chmod 755 bin/run");
        shell(&there, "mkdir out; echo built > out/result; echo o > y.o; chmod 700 out; ln -s ../src out/back");
        lab.in_step().await;
        assert_eq!((text(&there, "src/a"), text(here, "out/result")), ("1b\n".into(), "built\n".into()));
        assert!(!here.join("y.o").exists() && there.join("y.o").exists() && !there.join("src/deep").exists());
        shell(here, "echo mine, longer > src/a; rm -r out");
        shell(&there, "echo theirs > src/a; rm bin/run; echo 2 > out/result2");
        let report = lab.in_step().await;
        assert_eq!(report.conflicts.len(), 1);
        let copy = report.conflicts[0].to_string();
        assert_eq!(
            [text(here, "src/a"), text(&there, "src/a"), text(here, &copy)],
            ["mine, longer\n", "mine, longer\n", "theirs\n"]
        );
        assert_eq!([text(here, "bin/run"), text(here, "out/result"), text(here, "out/result2")], ["-", "-", "2\n"]);
        shell(here, "rm -rf y.o x.o");
        fs::remove_file(there.join("y.o")).expect("removed");
        assert_eq!(all(here), all(&there));
    }
}

#[tokio::test]
async fn a_host_that_lost_its_files_gets_them_again() {
    let mut lab = Lab::new(LocalShell::gnu(), false);
    let here = &lab.here.path().to_owned();
    shell(here, "mkdir d; echo 1 > d/a; echo 2 > b");
    lab.in_step().await;
    let before = all(here);
    // All of it; only the tree, which the Engine makes anew.
    for lose in ["rm -rf mirror", "mkdir new; rm -rf mirror/tree; mv new mirror/tree; echo log > mirror/tree/log"] {
        shell(lab.other.path(), lose);
        lab.in_step().await;
        assert!(before.is_subset(&all(here)), "{lose}");
        assert_eq!(all(here), all(&lab.tree()), "{lose}");
    }
    // A lost journal: what differs is kept twice.
    fs::remove_file(lab.other.path().join("journal")).expect("removed");
    shell(&lab.tree(), "echo other > b");
    lab.reopen(LocalShell::gnu());
    let report = lab.round().await;
    assert_eq!((report.conflicts.len(), text(here, "b")), (1, "2\n".into()));
}

#[tokio::test]
async fn what_a_container_deletes_is_deleted_here_and_be_it_all() {
    for tools in [LocalShell::gnu, LocalShell::busybox, LocalShell::sftp] {
        let lab = Lab::new(tools(), false);
        let (here, there) = (lab.here.path(), lab.tree());
        shell(here, "mkdir d; echo 1 > d/a; echo 2 > b");
        lab.in_step().await;
        shell(&there, "rm -r d b; echo new > n");
        assert_eq!(lab.in_step().await.done, 4);
        assert_eq!((fs::read_dir(here).expect("read").count(), text(here, "n")), (1, "new\n".into()));
        shell(&there, "rm n");
        lab.in_step().await;
        assert!(all(here).is_empty() && all(&there).is_empty());
        shell(here, "echo 3 > c");
        lab.in_step().await;
        assert_eq!(text(&there, "c"), "3\n");
    }
}

/// Somebody removes the mirror, not what is in it.
#[tokio::test]
async fn nothing_here_is_deleted_while_the_host_still_deletes() {
    for tools in [LocalShell::gnu, LocalShell::busybox] {
        let lab = Lab::new(tools(), false);
        let (here, there) = (lab.here.path(), lab.tree());
        shell(here, "for i in 1 2 3 4 5; do echo $i > f$i; done; mkdir d; echo 1 > d/a");
        lab.in_step().await;
        let before = all(here);
        // One more is gone at each look.
        let removing = format!("cd '{}'; set -- f*; [ -e \"$1\" ] || set -- d; rm -rf \"$1\"", there.display());
        *lock(&lab.mount().mirror.run().before) = Some(("printf 'gone", removing));
        let report = lab.round().await;
        assert!(!report.is_in_step() && report.done == 0, "{report:?}");
        let report = lab.mount().look().await.expect("a look").expect("a round");
        assert!(!report.is_in_step() && report.done == 0, "{report:?}");
        assert_eq!(all(here), before);
        shell(lab.other.path(), "rm -r mirror");
        *lock(&lab.mount().mirror.run().before) = None;
        lab.in_step().await;
        assert_eq!([all(here), all(&there)], [before.clone(), before]);
        // What is only written meanwhile keeps no deletion away.
        let writing = format!("echo more >> '{}/f1'", there.display());
        *lock(&lab.mount().mirror.run().before) = Some(("printf 'gone", writing));
        shell(&there, "rm f2");
        lab.round().await;
        assert!(!here.join("f2").exists() && here.join("f3").exists());
    }
}

fn copies(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("read").map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.contains(".dtunnel-conflict-")).collect()
}

#[tokio::test]
async fn a_file_that_the_host_always_writes_has_one_copy_until_its_conflict_is_settled() {
    for tools in [LocalShell::gnu, LocalShell::busybox] {
        let lab = Lab::new(tools(), false);
        let (here, there) = (lab.here.path(), lab.tree());
        shell(here, "echo start > log; echo other > o");
        lab.in_step().await;
        shell(here, "echo from here >> log");
        shell(&there, "echo 1 >> log");
        // Whenever something is sent.
        let writing = format!("echo more >> '{}/log'", there.display());
        *lock(&lab.mount().mirror.run().before) = Some(("tar -xpof", writing.clone()));
        for number in 0..4 {
            let report = lab.round().await;
            assert!(report.failed.iter().any(|(path, _)| path == "log"), "{report:?}");
            let [copy] = copies(here).try_into().expect("one copy");
            assert_eq!(text(here, &copy), format!("start\n1\n{}", "more\n".repeat(number)));
        }
        // One that was changed here is somebody's.
        let copy = copies(here).remove(0);
        shell(here, &format!("echo mine >> {copy}"));
        lab.round().await;
        assert_eq!(copies(here).len(), 2);
        *lock(&lab.mount().mirror.run().before) = None;
        lab.in_step().await;
        assert_eq!((text(&there, "log"), copies(here).len()), ("start\nfrom here\n".into(), 2));
        // The next conflict is another one.
        shell(here, "echo again > log");
        shell(&there, "echo theirs, again > log");
        lab.in_step().await;
        assert_eq!((text(&there, "log"), copies(here).len()), ("again\n".into(), 3));
    }
}

#[tokio::test]
async fn a_directory_that_is_made_anew_here_is_the_one_that_counts() {
    let lab = Lab::new(LocalShell::gnu(), false);
    let (here, there) = (lab.here.path(), lab.tree());
    shell(here, "echo 1 > a; echo 2 > b");
    lab.in_step().await;
    shell(here, "cd ..; mv $OLDPWD $OLDPWD.old; mkdir $OLDPWD; echo new > $OLDPWD/a; rm -r $OLDPWD.old");
    shell(&there, "echo 3 > c");
    lab.in_step().await;
    assert_eq!(all(here), all(&there));
    assert_eq!([text(&there, "a"), text(&there, "b"), text(here, "c")], ["new\n", "-", "3\n"]);
    shell(here, "cd ..; rm -r $OLDPWD");
    assert!(matches!(lab.mount().round().await, Err(Error::Scan(_))));
    assert_eq!(text(&there, "a"), "new\n");
    fs::create_dir(here).expect("created");
}

/// What a watcher tells goes to the host, and what comes from there is no more work.
#[tokio::test]
async fn a_watcher_and_pushes_keep_the_host_in_step() {
    let lab = Lab::new(LocalShell::gnu(), false);
    let (here, there) = (lab.here.path(), lab.tree());
    shell(here, "mkdir d; echo 1 > d/a");
    lab.in_step().await;
    let mut watcher = lab.mount().watch().await.expect("watched");
    let mut push_until = async |name: &str, expected: &str| {
        let mut done = 0;
        while text(&there, name) != expected {
            let Changed::Paths(paths) = watcher.changed().await else { panic!("all") };
            done += lab.mount().push(paths).await.expect("a push").done;
        }
        done
    };
    shell(here, "echo 2 > d/a");
    assert_eq!(push_until("d/a", "2\n").await, 1);
    shell(here, "mkdir -p e/f; echo 3 > e/f/g; mv d/a d/b");
    push_until("e/f/g", "3\n").await;
    // From the host, and then one change here: only that is pushed.
    shell(&there, "echo 4 > h");
    lab.round().await;
    lab.mount().mirror.run().passed.store(0, Ordering::Relaxed);
    shell(here, "echo 5 > i");
    assert_eq!(push_until("i", "5\n").await, 1);
    assert_eq!(text(here, "h"), "4\n");
}

#[tokio::test]
async fn a_read_only_mount_changes_nothing_here() {
    let lab = Lab::new(LocalShell::gnu(), true);
    let here = lab.here.path();
    shell(here, "mkdir d; echo 1 > d/a; echo 2 > b");
    lab.in_step().await;
    let before = all(here);
    shell(&lab.tree(), "echo x > b; rm -r d; mkdir n; echo n > n/n");
    lab.in_step().await;
    assert_eq!((all(here), all(&lab.tree())), (before.clone(), before));
}

#[tokio::test]
async fn links_and_sockets_of_the_host_stay_there() {
    let lab = Lab::new(LocalShell::gnu(), false);
    let here = lab.here.path();
    shell(here, "mkdir d; echo 1 > d/a");
    lab.in_step().await;
    shell(&lab.tree(), "ln -s /etc out; mkfifo p; rm -r d; ln -s / d");
    let report = lab.in_step().await;
    assert_eq!(report.left.len(), 3);
    assert_eq!(text(here, "d/a"), "1\n");
    assert!(!here.join("out").is_symlink() && !here.join("p").exists());
}

/// A container that binds a file holds its inode.
#[tokio::test]
async fn a_single_file_keeps_its_place_on_the_host_and_comes_back_whole() {
    for tools in [LocalShell::gnu, LocalShell::busybox, LocalShell::sftp] {
        let (here, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        shell(here.path(), "echo 1 > n.conf; echo x > other; chmod 640 n.conf");
        let mount = mount(&here.path().join("n.conf"), other.path(), tools(), false);
        let in_step = async || {
            let report = mount.round().await.expect("a round");
            assert!(report.is_in_step(), "{report:?}");
            let again = mount.round().await.expect("a round");
            assert_eq!((again.done, again.is_in_step()), (0, true), "{again:?}");
            report
        };
        assert_eq!(in_step().await.entries, 1);
        let tree = other.path().join("mirror/tree");
        assert_eq!(mount.bind_path(), tree.join("n.conf").to_string_lossy());
        // What a container has open, and a name of the same file.
        fs::hard_link(tree.join("n.conf"), other.path().join("bound")).expect("linked");
        let bound = || text(other.path(), "bound");
        shell(here.path(), "echo longer > n.conf.new; mv n.conf.new n.conf; chmod 600 n.conf");
        assert_eq!(in_step().await.done, 1);
        assert_eq!((bound(), text(&tree, "n.conf")), ("longer\n".into(), "longer\n".into()));
        // Deleted here for a moment, as some editors do, and never there.
        shell(here.path(), "rm n.conf");
        in_step().await;
        assert_eq!(bound(), "longer\n");
        shell(here.path(), "echo again, by me > n.conf");
        in_step().await;
        assert_eq!(bound(), "again, by me\n");
        // The container's write comes back; nothing else does.
        shell(other.path(), "echo built by it > bound; echo y > mirror/tree/other");
        in_step().await;
        assert_eq!((text(here.path(), "n.conf"), text(here.path(), "other")), ("built by it\n".into(), "x\n".into()));
        shell(here.path(), "echo mine > n.conf");
        shell(other.path(), "echo theirs, longer > bound");
        let copy = in_step().await.conflicts[0].to_string();
        assert_eq!(
            [text(here.path(), "n.conf"), bound(), text(here.path(), &copy)],
            ["mine\n", "mine\n", "theirs, longer\n"]
        );
        // A link in its place is neither followed nor carried.
        shell(here.path(), "rm n.conf; ln -s other n.conf");
        assert_eq!(mount.round().await.expect("a round").failed.len(), 1);
        assert_eq!(bound(), "mine\n");
        assert_eq!(fs::read_dir(other.path().join("mirror")).expect("read").count(), 2);
    }
}

#[tokio::test]
async fn a_push_takes_what_changed_here_and_nothing_else() {
    for tools in [LocalShell::gnu, LocalShell::busybox, LocalShell::sftp] {
        let lab = Lab::new(tools(), false);
        let (here, there) = (lab.here.path(), lab.tree());
        shell(
            here,
            "mkdir -p src/deep old/x; echo 1 > src/a; echo 2 > src/deep/b; echo 3 > old/x/c; echo '*.o' > .dtunnelignore",
        );
        // Without a round nothing is known of the host.
        assert!(lab.push(&["src/a"]).await.needs_round);
        lab.in_step().await;
        shell(
            here,
            "echo 1b, longer > src/a; rm -r old; mkdir -p n/m; echo 4 > n/m/d; ln -s a src/l; echo o > src/x.o; chmod 700 src/deep",
        );
        let told = [
            "src/a",
            "old/x/c",
            "old/x",
            "old",
            "n",
            "n/m/d",
            "src/l",
            "src/x.o",
            "src/deep",
            "gone",
            ".dtunnel-tmp-new-1",
        ];
        let report = lab.push(&told).await;
        assert!(report.is_in_step(), "{report:?}");
        shell(here, "rm src/x.o");
        assert_eq!(all(here), all(&there));
        // The same again is nothing, and costs no command.
        lab.mount().mirror.run().passed.store(0, Ordering::Relaxed);
        assert_eq!(lab.push(&told).await.done, 0);
        assert_eq!(lab.mount().mirror.run().passed.load(Ordering::Relaxed), 0);
        assert_eq!(lab.round().await.done, 0);
        // What became a file, below which there was something, and the other way round.
        shell(here, "rm -r n; echo file > n; rm src/a; mkdir src/a; echo in > src/a/in");
        let report = lab.push(&["n/m/d", "src/a/in"]).await;
        assert!(report.is_in_step(), "{report:?}");
        assert_eq!(all(here), all(&there));
        // The host changed the file, too.
        shell(here, "echo mine, longest of all > src/deep/b; echo 5 > src/e");
        shell(&there, "echo theirs > src/deep/b");
        let report = lab.push(&["src/deep/b", "src/e"]).await;
        assert!(report.needs_round && report.done == 1, "{report:?}");
        assert_eq!([text(&there, "src/deep/b"), text(&there, "src/e")], ["theirs\n", "5\n"]);
        assert_eq!(lab.in_step().await.conflicts.len(), 1);
        // What decides what is carried.
        shell(here, "echo '*.p' > .dtunnelignore");
        assert!(lab.push(&[".dtunnelignore"]).await.needs_round);
        lab.in_step().await;
        // Another mirror.
        shell(
            lab.other.path(),
            "rm -rf mirror; mkdir -p mirror/tree; echo other > mirror/mark; echo 6 > mirror/tree/theirs",
        );
        shell(here, "echo 7 > src/e");
        let report = lab.push(&["src/e"]).await;
        assert!(report.needs_round && report.done == 0, "{report:?}");
        assert_eq!(text(&there, "src/e"), "-");
        lab.in_step().await;
        assert_eq!([text(&there, "src/e"), text(here, "theirs")], ["7\n", "6\n"]);
    }
}

#[tokio::test]
async fn a_look_does_nothing_until_the_host_changes_something() {
    let lab = Lab::new(LocalShell::gnu(), false);
    shell(lab.here.path(), "echo 1 > a");
    lab.in_step().await;
    assert!(lab.mount().look().await.expect("a look").is_none());
    shell(&lab.tree(), "echo 2 > b");
    let report = lab.mount().look().await.expect("a look").expect("a round");
    assert_eq!((report.done, text(lab.here.path(), "b")), (1, "2\n".into()));
    assert!(lab.mount().look().await.expect("a look").is_some_and(|report| report.done == 0));
    assert!(lab.mount().look().await.expect("a look").is_none());
    // Its own push is seen once.
    shell(lab.here.path(), "echo 3 > c");
    lab.push(&["c"]).await;
    assert!(lab.mount().look().await.expect("a look").is_some_and(|report| report.done == 0));
    assert!(lab.mount().look().await.expect("a look").is_none());
}

#[tokio::test]
async fn a_mount_is_open_once_and_what_a_killed_process_left_goes() {
    let mut lab = Lab::new(LocalShell::gnu(), false);
    shell(lab.here.path(), "mkdir d; echo 1 > d/a");
    lab.in_step().await;
    let journal = lab.other.path().join("journal");
    let mirror = Mirror::new(LocalShell::gnu(), "/nowhere".into());
    let source = Source::of(lab.here.path()).expect("a source");
    let second = Mount::open(source, mirror, &journal, Bounds::default(), false);
    assert_eq!(second.expect_err("open twice").kind(), io::ErrorKind::ResourceBusy);
    let tag = tag(&journal);
    shell(
        lab.here.path(),
        &format!("touch d/.dtunnel-tmp-new-{tag}-1 .dtunnel-tmp-new-{tag}-2 d/.dtunnel-tmp-old-{tag}-3"),
    );
    lab.reopen(LocalShell::gnu());
    assert!(lab.here.path().join(format!("d/.dtunnel-tmp-old-{tag}-3")).exists());
    assert_eq!(fs::read_dir(lab.here.path().join("d")).expect("read").count(), 2);
    assert_eq!(fs::read_dir(lab.here.path()).expect("read").count(), 1);
}
