use std::fs;

use tempfile::TempDir;

use super::*;
use crate::tunnel::mounts::apply::Here;
use crate::tunnel::mounts::host::tests::LocalShell;
use crate::tunnel::mounts::host::{Arrived, Mirror, Sending};
use crate::tunnel::mounts::scan::Bounds;
use crate::tunnel::mounts::step::Step;

fn lab() -> (TempDir, TempDir, Arc<Here>, Mirror<LocalShell>) {
    let (here, host) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let ours = Arc::new(Here::open(here.path(), "t").expect("opened"));
    let mirror = LocalShell::sftp().mirror(&host.path().join("m"));
    (here, host, ours, mirror)
}

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).expect("a path")
}

fn pushing(here: &Here, name: &str) -> Step {
    let node = here.look(&path(name)).expect("looked").expect("is there");
    Step::Push { path: path(name), node, over: None }
}

#[tokio::test]
async fn files_of_any_size_go_and_come_whole() {
    let (here, host, ours, mirror) = lab();
    let sizes = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, (WINDOW + 2) * CHUNK + 7];
    let content = |size: usize| (0..size).map(|at| u8::try_from(at % 251).expect("fits")).collect::<Vec<_>>();
    for size in sizes {
        fs::write(here.path().join(size.to_string()), content(size)).expect("written");
    }
    let steps: Vec<Step> = sizes.iter().map(|size| pushing(&ours, &size.to_string())).collect();
    let sending = Sending { steps: steps.clone(), fill: Some(0o750), ..Sending::default() };
    let sent = mirror.send(ours.clone(), sending).await.expect("sent");
    assert_eq!((sent.done, sent.said), (vec![true; sizes.len()], vec![]));
    for size in sizes {
        assert_eq!(fs::read(host.path().join("m/tree").join(size.to_string())).expect("read"), content(size));
        fs::remove_file(here.path().join(size.to_string())).expect("removed");
    }
    let fetch = steps
        .iter()
        .filter_map(|step| Some(Step::Fetch { path: step.path().clone(), node: step.result()?.clone(), over: None }));
    let arrived = mirror.fetch(ours, fetch.collect(), Bounds::default(), "T".into()).await.expect("fetched");
    assert!(arrived.iter().all(|one| matches!(one, Arrived::Put { .. })), "{arrived:?}");
    for size in sizes {
        assert_eq!(fs::read(here.path().join(size.to_string())).expect("read"), content(size));
    }
    mirror.remove().await.expect("removed");
    assert_eq!(fs::read_dir(host.path()).expect("read").count(), 0);
}

#[tokio::test]
async fn a_tree_that_was_made_anew_is_another_mirror_and_old_stages_go() {
    let (here, host, ours, mirror) = lab();
    fs::write(here.path().join("a"), "1").expect("written");
    let sending = Sending { steps: vec![pushing(&ours, "a")], fill: Some(0o755), ..Sending::default() };
    mirror.send(ours.clone(), sending).await.expect("sent");
    let before = mirror.scan(Bounds::default()).await.expect("read");
    assert_eq!(mirror.scan(Bounds::default()).await.expect("read").digest, before.digest);
    // As the Engine does for a container whose directory has gone.
    let tree = host.path().join("m/tree");
    fs::remove_dir_all(&tree).and_then(|()| fs::create_dir(&tree)).expect("made anew");
    fs::write(tree.join("a"), "theirs").expect("written");
    let after = mirror.scan(Bounds::default()).await.expect("read");
    assert_ne!(after.identity, before.identity);
    // A process that was killed, and the next one.
    fs::create_dir_all(host.path().join("m/stage.old/tree/d")).expect("created");
    let next = LocalShell::sftp().mirror(&host.path().join("m"));
    let sending = |identity| Sending { steps: Vec::new(), identity, ..Sending::default() };
    let sent = next.send(ours.clone(), sending(before.identity)).await.expect("sent");
    assert_eq!((sent.identity, sent.said.len()), (None, 1));
    next.send(ours, sending(after.identity)).await.expect("sent");
    assert!(!host.path().join("m/stage.old").exists());
}

/// A server that takes requests and never answers.
struct Silent;

impl crate::tunnel::mounts::host::Run for Silent {
    async fn run(
        &self,
        _: &str,
        _: impl AsyncRead + Send + Unpin,
        _: impl AsyncWrite + Send + Unpin,
    ) -> io::Result<crate::tunnel::mounts::host::Ended> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn sftp(&self) -> io::Result<Box<dyn Stream>> {
        let (ours, theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let _held = theirs;
            std::future::pending::<()>().await;
        });
        Ok(Box::new(ours))
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let mut mirror = Mirror::over_sftp(Silent, "/nowhere".into());
    mirror.set_patience(std::time::Duration::from_millis(1));
    assert_eq!(mirror.scan(Bounds::default()).await.expect_err("silent").kind(), io::ErrorKind::TimedOut);
}
