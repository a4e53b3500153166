//! Hosts that lie, and hosts that say nothing.

use super::*;

/// A host that takes a command and is never heard of again.
struct Silent;

impl Run for Silent {
    async fn run(
        &self,
        _: &str,
        stdin: impl AsyncRead + Send + Unpin,
        stdout: impl AsyncWrite + Send + Unpin,
    ) -> io::Result<Ended> {
        let _held = (stdin, stdout);
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_silent_host_is_given_up() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("a"), vec![0; 3 * PIPE]).expect("written");
    let here = Arc::new(Here::open(dir.path(), "t").expect("opened"));
    let mut mirror = Mirror::new(Silent, "/nowhere".into());
    mirror.set_patience(Duration::from_millis(1));
    let node = here.look(&path(b"a")).expect("looked").expect("is there");
    let steps = vec![Step::Push { path: path(b"a"), node: node.clone(), over: None }];
    let sent = mirror.send(here.clone(), Sending { steps, ..Sending::default() }).await;
    assert_eq!(sent.expect_err("silent").kind(), io::ErrorKind::TimedOut);
    let fetched = mirror.fetch(here, vec![fetching(&path(b"b"), node)], Bounds::default(), "T".into()).await;
    assert_eq!(fetched.expect_err("silent").kind(), io::ErrorKind::TimedOut);
    assert_eq!(mirror.scan(Bounds::default()).await.expect_err("silent").kind(), io::ErrorKind::TimedOut);
    assert_eq!(mirror.remove().await.expect_err("silent").kind(), io::ErrorKind::TimedOut);
}

/// A host that answers what it likes.
struct Liar(Vec<u8>);

impl Run for Liar {
    async fn run(
        &self,
        _: &str,
        _: impl AsyncRead + Send + Unpin,
        mut stdout: impl AsyncWrite + Send + Unpin,
    ) -> io::Result<Ended> {
        let _ = stdout.write_all(&self.0).await;
        Ok(Ended { status: Some(0), stderr: String::new() })
    }
}

fn archive(number: usize, entries: &[(&[u8], tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut bytes = format!("{:<511}\n", format!("dtunnel {number}")).into_bytes();
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        let is_link = matches!(kind, tar::EntryType::Symlink);
        header.set_size(if is_link { 0 } else { content.len().try_into().expect("fits") });
        header.set_mtime(1);
        if is_link {
            header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content);
        }
        header.set_cksum();
        bytes.extend(header.as_bytes());
        if !is_link {
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
    }
    bytes.extend([0; 1024]);
    bytes
}

#[tokio::test]
async fn a_host_that_lies_changes_nothing_but_what_was_asked_for() {
    use tar::EntryType;
    let long = vec![b'x'; 6000];
    let answers: Vec<Vec<u8>> = vec![
        archive(0, &[(b"../a", EntryType::Regular, b"evil")]),
        archive(0, &[(b"/tmp/a", EntryType::Regular, b"evil")]),
        archive(0, &[(b"b", EntryType::Regular, b"evil")]),
        archive(7, &[(b"./a", EntryType::Regular, b"evil")]),
        archive(0, &[(b"./a", EntryType::Symlink, b"/etc/passwd")]),
        archive(0, &[(b"./a", EntryType::Symlink, b"../out")]),
        archive(0, &[(b"./a", EntryType::Directory, b"")]),
        archive(0, &[(b"././@LongLink", EntryType::GNULongName, &long), (b"./a", EntryType::Regular, b"evil")]),
        archive(0, &[(b"./a", EntryType::Regular, b"evil")])[..1026].to_vec(),
        b"Welcome to this host!\n".to_vec(),
        vec![0xff; 2048],
        vec![],
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let dir = tempfile::tempdir().expect("a directory");
        let here = Arc::new(Here::open(dir.path(), "t").expect("opened"));
        let mirror = Mirror::new(Liar(answer), "/nowhere".into());
        let steps =
            vec![fetching(&path(b"a"), Node::File { size: 4, mtime: 1, mode: 0o644, touched: Touched::default() })];
        let arrived = mirror.fetch(here.clone(), steps, Bounds::default(), "T".into()).await.expect("an answer");
        assert!(matches!(&arrived[..], [Arrived::Failed(_)]), "{number}: {arrived:?}");
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 0, "{number}");
        assert!(mirror.scan(Bounds::default()).await.is_err());
        let sent = mirror.send(here, Sending::default()).await.expect("sent");
        assert_eq!(sent.identity, None);
    }
    // More bytes than allowed, then twice the same.
    let big = archive(0, &[(b"./a", EntryType::Regular, &vec![b'x'; 300_000])]);
    let twice = archive(0, &[(b"./a", EntryType::Regular, b"1"), (b"./a", EntryType::Regular, b"2")]);
    for (answer, expected) in [(big, None), (twice, Some("1"))] {
        let dir = tempfile::tempdir().expect("a directory");
        let here = Arc::new(Here::open(dir.path(), "t").expect("opened"));
        let steps =
            vec![fetching(&path(b"a"), Node::File { size: 4, mtime: 1, mode: 0o644, touched: Touched::default() })];
        let bounds = Bounds { bytes: 1000, entries: 9 };
        let _ = Mirror::new(Liar(answer), "/nowhere".into()).fetch(here, steps, bounds, "T".into()).await;
        assert_eq!(fs::read_to_string(dir.path().join("a")).ok().as_deref(), expected);
    }
}
