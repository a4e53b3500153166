mod hostile;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::tunnel::mounts::apply::Done;
use crate::tunnel::mounts::tree::{Grain, Node, RelPath, Touched};

/// This machine as the host: with its own tools, or with busybox's alone.
#[derive(Debug)]
pub(in crate::tunnel::mounts) struct LocalShell {
    /// A directory with busybox's tools.
    pub(in crate::tunnel::mounts) tools: Option<TempDir>,
    /// By OpenSSH's SFTP server, without a shell.
    pub(in crate::tunnel::mounts) is_sftp: bool,
    /// The login, if it is not this process's.
    pub(in crate::tunnel::mounts) uid: Option<u32>,
    /// Bytes after which the link is cut, both ways together; negative: never.
    pub(in crate::tunnel::mounts) cut_after: Arc<AtomicI64>,
    /// Bytes that have passed, both ways together.
    pub(in crate::tunnel::mounts) passed: Arc<AtomicUsize>,
    /// What somebody does on the host just before each command that has such a text.
    pub(in crate::tunnel::mounts) before: Mutex<Option<(&'static str, String)>>,
}

impl LocalShell {
    pub(in crate::tunnel::mounts) fn gnu() -> Self {
        Self {
            tools: None,
            is_sftp: false,
            uid: None,
            cut_after: Arc::new(AtomicI64::new(-1)),
            passed: Arc::default(),
            before: Mutex::default(),
        }
    }

    fn meanwhile(&self, script: &str) {
        let before = lock(&self.before);
        let before = before.as_ref().filter(|(text, _)| script.contains(text));
        if let Some((_, before)) = before {
            let done = std::process::Command::new("sh").args(["-c", before]).status();
            assert!(done.expect("sh").success(), "{before}");
        }
    }

    pub(in crate::tunnel::mounts) fn sftp() -> Self {
        Self { is_sftp: true, ..Self::gnu() }
    }

    /// The mirror at `root` of this host.
    pub(in crate::tunnel::mounts) fn mirror(self, root: &Path) -> Mirror<Self> {
        let root = root.to_string_lossy().into_owned();
        if self.is_sftp { Mirror::over_sftp(self, root) } else { Mirror::new(self, root) }
    }

    pub(in crate::tunnel::mounts) fn busybox() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let installed = std::process::Command::new("busybox").args(["--install", "-s"]).arg(dir.path()).status();
        assert!(installed.expect("busybox").success());
        Self { tools: Some(dir), ..Self::gnu() }
    }

    /// A command of the login's.
    fn command(&self, program: &Path) -> tokio::process::Command {
        let Some(uid) = self.uid else { return tokio::process::Command::new(program) };
        let mut command = tokio::process::Command::new("/usr/bin/setpriv");
        command
            .args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into(), "--".into()])
            .arg(program);
        command
    }

    fn link(&self) -> Link {
        Link { cut_after: self.cut_after.clone(), passed: self.passed.clone() }
    }
}

/// What all bytes pass.
#[derive(Clone)]
struct Link {
    cut_after: Arc<AtomicI64>,
    passed: Arc<AtomicUsize>,
}

impl Link {
    /// Whether `count` bytes may pass.
    fn passes(&self, count: usize) -> bool {
        self.passed.fetch_add(count, Ordering::Relaxed);
        let left = self.cut_after.load(Ordering::Relaxed);
        if left < 0 {
            return true;
        }
        let left = left - i64::try_from(count).expect("fits");
        self.cut_after.store(left.max(0), Ordering::Relaxed);
        left > 0
    }

    async fn copy(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut buffer = vec![0; 4096];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return to.shutdown().await;
            }
            if !self.passes(read) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            to.write_all(&buffer[..read]).await?;
        }
    }
}

impl Run for LocalShell {
    async fn run(
        &self,
        script: &str,
        stdin: impl AsyncRead + Send + Unpin,
        mut stdout: impl AsyncWrite + Send + Unpin,
    ) -> io::Result<Ended> {
        self.meanwhile(script);
        let shell = self.tools.as_ref().map_or_else(|| PathBuf::from("sh"), |tools| tools.path().join("sh"));
        let mut command = self.command(&shell);
        if let Some(tools) = &self.tools {
            command.env("PATH", tools.path());
        }
        let mut child = command
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut errors = child.stderr.take().expect("piped");
        let mut stderr = String::new();
        let link = self.link();
        let sending = async {
            match link.copy(stdin, input).await {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                result => result,
            }
        };
        let receiving = async {
            let result = link.copy(output, &mut stdout).await;
            drop(stdout);
            result
        };
        tokio::try_join!(sending, receiving, async { errors.read_to_string(&mut stderr).await.map(|_| ()) })?;
        let status = child.wait().await?.code().and_then(|code| u32::try_from(code).ok());
        Ok(Ended { status, stderr })
    }

    async fn sftp(&self) -> io::Result<Box<dyn Stream>> {
        let mut child = self
            .command(Path::new("/usr/lib/openssh/sftp-server"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let (link, (from, to)) = (self.link(), tokio::io::split(theirs));
        tokio::spawn(async move {
            let ended = tokio::try_join!(link.copy(from, input), link.copy(output, to));
            drop((ended, child));
        });
        Ok(Box::new(ours))
    }
}

const BOTH: [fn() -> LocalShell; 2] = [LocalShell::gnu, LocalShell::busybox];
const ALL: [fn() -> LocalShell; 3] = [LocalShell::gnu, LocalShell::busybox, LocalShell::sftp];

struct Lab {
    here: TempDir,
    host: TempDir,
    mirror: Mirror<LocalShell>,
}

impl Lab {
    fn new(shell: LocalShell) -> Self {
        let (here, host) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let mirror = shell.mirror(&host.path().join("it's a/mirror"));
        Self { here, host, mirror }
    }

    fn tree(&self) -> PathBuf {
        PathBuf::from(self.mirror.tree())
    }

    fn ours(&self) -> Arc<Here> {
        Arc::new(Here::open(self.here.path(), "t").expect("opened"))
    }

    /// What is here, as the host has it once it was sent: when it was last changed there is not known.
    fn node(&self, path: &RelPath) -> Node {
        let mut node = self.ours().look(path).expect("looked").expect("is there");
        node.set_touched(Touched::default());
        node
    }

    async fn send(&self, steps: Vec<Step>, is_new: bool) -> Sent {
        let sending = Sending { steps, fill: is_new.then_some(0o755), ..Sending::default() };
        self.mirror.send(self.ours(), sending).await.expect("sent")
    }

    async fn push(&self, names: &[&[u8]], is_new: bool) -> Sent {
        let push = |name: &&[u8]| {
            let path = path(name);
            Step::Push { node: self.node(&path), path, over: None }
        };
        self.send(names.iter().map(push).collect(), is_new).await
    }

    async fn scan(&self) -> Listing {
        self.mirror.scan(Bounds::default()).await.expect("read")
    }

    fn shell(&self, dir: &Path, script: &str) {
        let done = std::process::Command::new("sh").args(["-c", script]).current_dir(dir).status();
        assert!(done.expect("sh").success(), "{script}");
    }
}

fn path(name: &[u8]) -> RelPath {
    RelPath::new(name).expect("a path")
}

fn fetching(path: &RelPath, node: Node) -> Step {
    Step::Fetch { path: path.clone(), node, over: None }
}

fn long(byte: u8) -> Vec<u8> {
    vec![byte; 255]
}

#[tokio::test]
async fn a_mirror_is_filled_read_and_fetched_with_any_tools() {
    for shell in ALL {
        let lab = Lab::new(shell());
        let is_sftp = lab.mirror.run.is_sftp;
        let is_gnu = lab.mirror.run.tools.is_none() && !is_sftp;
        lab.shell(
            lab.here.path(),
            "mkdir -p d/deep; printf hello > d/a; printf x > '-rf'; printf y > \"it's\"; ln -s ../d d/deep/l; chmod 750 d/a; \
             printf z > \"$(printf '\\377\\376')\"; printf w > .hidden; : > empty",
        );
        fs::write(lab.here.path().join("d").join(String::from_utf8(long(b'n')).expect("UTF-8")), "long")
            .expect("written");
        let in_d = [b"d/".as_slice(), &long(b'n')].concat();
        let mut names: Vec<&[u8]> =
            vec![b"d", b"d/deep", b"d/a", b"-rf", b"it's", b"d/deep/l", b"\xff\xfe", b".hidden", b"empty", &in_d];
        if is_sftp {
            names.retain(|name| str::from_utf8(name).is_ok());
        }
        if is_gnu || is_sftp {
            fs::write(lab.here.path().join("line\nbreak\n"), "lines").expect("written");
            names.push(b"line\nbreak\n");
        }
        assert_eq!(lab.scan().await.identity, None);
        let sent = lab.push(&names, true).await;
        assert_eq!((sent.done, sent.said), (vec![true; names.len()], vec![]));
        let listing = lab.scan().await;
        assert_eq!(listing.identity, sent.identity);
        assert_eq!(listing.reading.tree.len(), names.len());
        assert_eq!(listing.grain, if is_gnu { Grain::Nanosecond } else { Grain::Second });
        for name in &names {
            let (theirs, ours) = (&listing.reading.tree[&path(name)], lab.node(&path(name)));
            assert!(theirs.same(&ours, listing.grain), "{theirs:?} {ours:?}");
        }
        // Only the mirror, its mark, and no stage.
        assert_eq!(fs::read_dir(lab.tree().parent().expect("a parent")).expect("read").count(), 2);

        // Into an empty directory here.
        let back = tempfile::tempdir().expect("a directory");
        let here = Arc::new(Here::open(back.path(), "t").expect("opened"));
        for dir in ["d", "d/deep"] {
            here.make_dir(&path(dir.as_bytes()), 0o755).expect("made");
        }
        let files = listing.reading.tree.iter().filter(|(_, node)| !node.is_dir());
        let steps: Vec<Step> = files.map(|(path, node)| fetching(path, node.clone())).collect();
        let arrived =
            lab.mirror.fetch(here.clone(), steps.clone(), Bounds::default(), "T".into()).await.expect("fetched");
        for (step, one) in steps.iter().zip(arrived) {
            let Arrived::Put { node, done } = one else { panic!("{step:?}: {one:?}") };
            assert_eq!((Some(&node), done), (step.result(), Done::Changed(node.clone())), "{step:?}");
            assert_eq!(here.look(step.path()).expect("looked"), Some(node));
        }
        assert_eq!(fs::read(back.path().join("d/a")).expect("read"), b"hello");

        lab.mirror.remove().await.expect("removed");
        assert!(!lab.host.path().join("it's a/mirror").exists());
    }
}

#[tokio::test]
async fn steps_change_the_mirror_only_where_it_is_as_planned() {
    for shell in ALL {
        let lab = Lab::new(shell());
        lab.shell(lab.here.path(), "for n in a b c e; do printf $n > $n; done; mkdir d; printf x > d/x");
        lab.push(&[b"a", b"b", b"c", b"d", b"d/x"], true).await;
        let seen: Vec<Node> = [b"a", b"b", b"c"].map(|name| lab.node(&path(name))).into();
        lab.shell(lab.here.path(), "for n in a b c; do printf 'new' > $n; done; mkdir n; printf y > n/y");
        // The host changes one of them meanwhile.
        fs::write(lab.tree().join("b"), "theirs!").expect("written");
        let over = |name: &[u8; 1], at: usize| {
            let path = path(name);
            Step::Push { node: lab.node(&path), path, over: Some(seen[at].clone()) }
        };
        let new = |name: &[u8]| Step::Push { node: lab.node(&path(name)), path: path(name), over: None };
        let x = lab.node(&path(b"d/x"));
        let steps = vec![
            Step::DeleteThere { path: path(b"d/x"), node: x },
            Step::DeleteThere { path: path(b"d"), node: Node::Dir { mode: 0o755 } },
            over(b"a", 0),
            over(b"b", 1),
            over(b"c", 2),
            new(b"e"),
            new(b"n"),
            new(b"n/y"),
        ];
        let sent = lab.send(steps, false).await;
        assert_eq!(sent.done, [true, true, true, false, true, true, true, true], "{:?}", sent.said);
        let text = |name: &str| fs::read_to_string(lab.tree().join(name)).expect("read");
        assert_eq!([text("a"), text("b"), text("c"), text("e"), text("n/y")], ["new", "theirs!", "new", "e", "y"]);
        assert!(!lab.tree().join("d").exists());
        let mode = |name: &[u8], mode| {
            let over = lab.node(&path(name));
            Step::ModeThere { path: path(name), node: over.with_mode(mode), over }
        };
        let sent = lab.send(vec![mode(b"a", 0o711), mode(b"n", 0o750), mode(b"b", 0o700)], false).await;
        assert_eq!(sent.done, [true, true, false], "{:?}", sent.said);
        let listing = lab.scan().await;
        assert_eq!(listing.reading.tree[&path(b"a")].mode(), Some(0o711));
        assert_eq!(listing.reading.tree[&path(b"n")].mode(), Some(0o750));
    }
}

/// Who writes in the container has replaced directories by links to the login's own files.
#[tokio::test]
async fn nothing_outside_the_mirror_is_read_or_written() {
    for shell in ALL {
        let lab = Lab::new(shell());
        lab.shell(lab.here.path(), "mkdir d; printf x > d/x; printf key > d/key; printf f > f");
        lab.push(&[b"d", b"d/x", b"d/key", b"f"], true).await;
        let secret = lab.host.path().join("login");
        fs::create_dir(&secret).expect("created");
        for name in ["key", "x", "f"] {
            fs::write(secret.join(name), "secret").expect("written");
        }
        lab.shell(&lab.tree(), &format!("rm -r d f; ln -s {} d; ln -s {}/f f", secret.display(), secret.display()));
        let seen = lab.node(&path(b"d/x"));
        let x = || path(b"d/x");
        lab.shell(lab.here.path(), "printf new > d/n");
        let steps = vec![
            Step::DeleteThere { path: path(b"d/key"), node: lab.node(&path(b"d/key")) },
            Step::Push { path: x(), node: seen.clone(), over: Some(seen.clone()) },
            Step::Push { path: path(b"d/n"), node: lab.node(&path(b"d/n")), over: None },
            Step::ModeThere { path: x(), node: seen.with_mode(0o777), over: seen.clone() },
            Step::ModeThere { path: path(b"d"), node: Node::Dir { mode: 0o777 }, over: Node::Dir { mode: 0o755 } },
            Step::ModeThere { path: path(b"f"), node: seen.with_mode(0o777), over: Node::Other },
        ];
        let sent = lab.send(steps, false).await;
        assert_eq!(sent.done, [false; 6]);
        let names = fs::read_dir(&secret).expect("read").count();
        assert_eq!((names, fs::read_to_string(secret.join("x")).expect("read")), (3, "secret".into()));
        let readable = |name: &str| {
            let meta = fs::metadata(secret.join(name)).expect("is there");
            crate::os::beneath::seen(&meta).mode & 0o111
        };
        assert_eq!((readable("f"), readable("x")), (0, 0));
        let steps = vec![fetching(&path(b"d/key"), seen.clone()), fetching(&path(b"f"), seen)];
        let back = tempfile::tempdir().expect("a directory");
        fs::create_dir(back.path().join("d")).expect("created");
        let here = Arc::new(Here::open(back.path(), "t").expect("opened"));
        let arrived = lab.mirror.fetch(here, steps, Bounds::default(), "T".into()).await.expect("fetched");
        assert!(arrived.iter().all(|one| matches!(one, Arrived::Failed(_))), "{arrived:?}");
        assert_eq!(fs::read_dir(back.path().join("d")).expect("read").count(), 0);
        assert_eq!(fs::read_dir(back.path()).expect("read").count(), 1);
    }
}

#[tokio::test]
async fn names_of_one_file_are_fetched_both() {
    for shell in ALL {
        let lab = Lab::new(shell());
        lab.push(&[], true).await;
        lab.shell(&lab.tree(), "printf twice > a; ln a b");
        let listing = lab.scan().await;
        let steps: Vec<Step> = listing.reading.tree.iter().map(|(path, node)| fetching(path, node.clone())).collect();
        let arrived = lab.mirror.fetch(lab.ours(), steps, Bounds::default(), "T".into()).await.expect("fetched");
        assert!(arrived.iter().all(|one| matches!(one, Arrived::Put { .. })), "{arrived:?}");
        assert_eq!(fs::read(lab.here.path().join("b")).expect("read"), b"twice");
    }
}

#[tokio::test]
async fn a_listing_says_what_the_tools_cannot() {
    let lab = Lab::new(LocalShell::busybox());
    lab.push(&[], true).await;
    lab.shell(&lab.tree(), "printf x > 'a\nb'; mkfifo p; mkdir 'c d'; printf y > 'c d/y'; ln -s y 'c d/l'");
    let listing = lab.scan().await;
    assert!(listing.reading.unknown.contains(&path(b"a\nb")));
    assert_eq!(listing.failed.len(), 1);
    assert_eq!(listing.reading.tree.len(), 4, "{listing:?}");
    assert_eq!(listing.reading.tree[&path(b"p")], Node::Other);
    assert_eq!(listing.reading.tree[&path(b"c d/l")], Node::Link { target: b"y".as_slice().into() });
}

#[tokio::test]
async fn a_listing_is_sent_only_if_it_has_changed() {
    for shell in BOTH {
        let lab = Lab::new(shell());
        lab.shell(lab.here.path(), "for n in 1 2 3 4 5 6 7 8 9; do echo $n > a-file-of-the-name-$n; done");
        let names: Vec<String> = (1..10).map(|n| format!("a-file-of-the-name-{n}")).collect();
        lab.push(&names.iter().map(String::as_bytes).collect::<Vec<_>>(), true).await;
        let passed = || lab.mirror.run.passed.swap(0, Ordering::Relaxed);
        passed();
        let first = lab.scan().await;
        assert!(passed() > 100);
        let second = lab.scan().await;
        assert_eq!(passed(), scripts::SAME.len());
        assert_eq!((&second.reading, second.identity), (&first.reading, first.identity));
        // Another mode, another name, another mirror.
        let name = "a-file-of-the-name-1";
        for change in [format!("chmod 700 {name}"), format!("mv {name} x"), "cd ..; echo y > mark".into()] {
            let before = lab.scan().await;
            lab.shell(&lab.tree(), &change);
            let after = lab.scan().await;
            assert_ne!((before.reading, before.identity), (after.reading, after.identity), "{change}");
        }
        fs::remove_dir_all(lab.tree()).expect("removed");
        assert_eq!(lab.scan().await.identity, None);
        assert_eq!(lab.scan().await.identity, None);
    }
}

#[tokio::test]
async fn nothing_is_done_in_another_mirror_than_the_one_that_was_read() {
    for shell in ALL {
        let lab = Lab::new(shell());
        lab.shell(lab.here.path(), "echo 1 > a; echo 2 > b");
        lab.push(&[b"a"], true).await;
        let identity = lab.scan().await.identity;
        let sending = |identity| {
            let steps = vec![Step::Push { path: path(b"b"), node: lab.node(&path(b"b")), over: None }];
            Sending { steps, identity, ..Sending::default() }
        };
        let sent = lab.mirror.send(lab.ours(), sending(Some("other 7 ".into()))).await.expect("sent");
        assert_eq!((sent.done, sent.identity), (vec![false], None));
        assert!(sent.said[0].contains("another one"), "{:?}", sent.said);
        let sent = lab.mirror.send(lab.ours(), sending(identity)).await.expect("sent");
        assert_eq!(sent.done, [true]);
    }
}
