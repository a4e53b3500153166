use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::tunnel::mounts::tree::Touched;

const TIME: &str = "T";

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).expect("a path")
}

fn place_for_it() -> (TempDir, Here) {
    let dir = tempfile::tempdir().expect("a directory");
    let here = Here::open(dir.path(), "t").expect("opened");
    (dir, here)
}

fn node(content: &str) -> Node {
    Node::File {
        size: content.len().try_into().expect("fits"),
        mtime: 1_234_567_891_234_567_890,
        mode: 0o640,
        touched: Touched::default(),
    }
}

fn names(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .expect("read")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn text(dir: &TempDir, name: &str) -> String {
    fs::read_to_string(dir.path().join(name)).expect("read")
}

impl Here {
    fn put(&self, name: &str, content: &str, over: Option<&Node>) -> io::Result<Done> {
        self.put_file(&path(name), &node(content), over, &mut content.as_bytes(), TIME, true)
    }
}

#[test]
fn a_file_arrives_whole_with_its_time_and_mode_or_not_at_all() {
    let (dir, here) = place_for_it();
    assert_eq!(here.put("a", "hello", None).expect("put"), Done::Changed(node("hello")));
    assert_eq!(here.look(&path("a")).expect("looked"), Some(node("hello")));
    assert_eq!(text(&dir, "a"), "hello");
    assert_eq!(here.put("a", "again!", Some(&node("hello"))).expect("put"), Done::Changed(node("again!")));
    let cut = here.put_file(&path("a"), &node("longer"), Some(&node("again!")), &mut "short".as_bytes(), TIME, false);
    assert_eq!(cut.expect_err("cut").kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!((text(&dir, "a"), names(&dir)), ("again!".into(), vec!["a".into()]));
}

#[test]
fn what_is_not_as_planned_stays_and_the_new_file_is_kept_beside_it() {
    let (dir, here) = place_for_it();
    fs::write(dir.path().join("a"), "mine").expect("written");
    for (over, copy) in [
        (None, "a.dtunnel-conflict-T"),
        (Some(node("old")), "a.dtunnel-conflict-T.dtunnel-conflict-2"),
        (Some(Node::Dir { mode: 0o755 }), "a.dtunnel-conflict-T.dtunnel-conflict-3"),
    ] {
        assert_eq!(here.put("a", "new", over.as_ref()).expect("put"), Done::KeptBoth(path(copy)));
        assert_eq!((text(&dir, "a"), text(&dir, copy)), ("mine".into(), "new".into()));
    }
    // Deleted here meanwhile.
    assert_eq!(here.put("b", "new", Some(&node("old"))).expect("put"), Done::KeptBoth(path("b.dtunnel-conflict-T")));
    assert!(here.delete(&path("a"), &node("old")).is_err());
    assert_eq!(text(&dir, "a"), "mine");
    assert!(names(&dir).iter().all(|name| !name.starts_with(".dtunnel-tmp")), "{:?}", names(&dir));
}

#[test]
fn no_link_is_written_through() {
    let (dir, here) = place_for_it();
    let outside = tempfile::tempdir().expect("a directory");
    fs::write(outside.path().join("a"), "theirs").expect("written");
    let made = std::process::Command::new("ln")
        .arg("-s")
        .args([outside.path(), &dir.path().join("d")])
        .status()
        .and_then(|_| {
            std::process::Command::new("ln").arg("-s").args([outside.path().join("a"), dir.path().join("f")]).status()
        });
    assert!(made.expect("ln").success());
    assert!(here.put("d/a", "new", None).is_err());
    assert!(here.put("d/b", "new", None).is_err());
    assert!(here.make_dir(&path("d/c"), 0o755).is_err());
    assert!(here.delete(&path("d/a"), &node("theirs")).is_err());
    assert!(here.put_link(&path("d/l"), b"a", None, TIME).is_err());
    assert!(here.read(&path("f")).is_err() && here.read(&path("d/a")).is_err());
    assert_eq!(here.put("f", "new", None).expect("put"), Done::KeptBoth(path("f.dtunnel-conflict-T")));
    let link = here.look(&path("f")).expect("looked").expect("is there");
    assert!(here.set_mode(&path("f"), &link, 0o777).is_err());
    assert_eq!(here.put("f", "new", Some(&link)).expect("put"), Done::Changed(node("new")));
    assert_eq!((text(&outside, "a"), names(&outside)), ("theirs".into(), vec!["a".into()]));
}

#[test]
fn links_are_made_only_if_they_stay_inside() {
    let (dir, here) = place_for_it();
    assert!(here.put_link(&path("l"), b"/etc/passwd", None, TIME).is_err());
    assert!(here.put_link(&path("l"), b"../x", None, TIME).is_err());
    assert!(here.keep_link(b"/etc", &path("l.dtunnel-conflict-T")).is_err());
    here.put_link(&path("l"), b"a/b", None, TIME).expect("put");
    assert_eq!(fs::read_link(dir.path().join("l")).expect("read"), PathBuf::from("a/b"));
    assert_eq!(names(&dir), ["l"]);
}

#[test]
fn directories_are_removed_empty_only() {
    let (dir, here) = place_for_it();
    let made = here.make_dir(&path("d"), 0o750).expect("made");
    assert_eq!(made, Done::Changed(Node::Dir { mode: 0o750 }));
    here.put("d/a", "x", None).expect("put");
    assert!(here.delete(&path("d"), &Node::Dir { mode: 0o750 }).is_err());
    here.delete(&path("d/a"), &node("x")).expect("deleted");
    here.delete(&path("d"), &Node::Dir { mode: 0o750 }).expect("deleted");
    here.delete(&path("d"), &Node::Dir { mode: 0o750 }).expect("is gone");
    assert!(names(&dir).is_empty());
}

#[test]
fn a_copy_with_the_same_bytes_is_not_kept() {
    let (dir, here) = place_for_it();
    fs::write(dir.path().join("a"), "hello").expect("written");
    let keep = |content: &str, copy: &str| {
        here.keep_file(&path("a"), &node(content), &path(copy), &mut content.as_bytes()).expect("kept")
    };
    assert_eq!(keep("hello", "a.dtunnel-conflict-T"), Done::Same);
    assert_eq!(keep("hellO", "a.dtunnel-conflict-T"), Done::KeptBoth(path("a.dtunnel-conflict-T")));
    assert_eq!(keep("other", "d.dtunnel-conflict-T/e/a"), Done::KeptBoth(path("d.dtunnel-conflict-T/e/a")));
    // The name of a copy's directory is a file's.
    assert_eq!(
        keep("third", "a.dtunnel-conflict-T/b"),
        Done::KeptBoth(path("a.dtunnel-conflict-T.dtunnel-conflict-2/b"))
    );
    let copies = ["a.dtunnel-conflict-T", "a.dtunnel-conflict-T.dtunnel-conflict-2", "d.dtunnel-conflict-T"];
    assert_eq!(names(&dir), [["a"].as_slice(), &copies].concat());
}

#[test]
fn modes_are_changed_of_what_was_seen_only() {
    let (dir, here) = place_for_it();
    here.put("a", "hello", None).expect("put");
    assert!(here.set_mode(&path("a"), &node("other!"), 0o600).is_err());
    let changed = here.set_mode(&path("a"), &node("hello"), 0o755).expect("changed");
    assert_eq!(changed, Done::Changed(node("hello").with_mode(0o755)));
    assert_eq!(here.look(&path("a")).expect("looked"), Some(node("hello").with_mode(0o755)));
    assert_eq!(names(&dir), ["a"]);
}

#[test]
fn what_a_cut_left_is_swept_but_for_what_may_be_the_users() {
    let (dir, here) = place_for_it();
    fs::create_dir(dir.path().join("d")).expect("created");
    for name in [
        ".dtunnel-tmp-new-t-1",
        ".dtunnel-tmp-old-t-1",
        "d/.dtunnel-tmp-new-t-2",
        "d/.dtunnel-tmp-old-t-2",
        ".dtunnel-tmp-new-other-1",
    ] {
        fs::write(dir.path().join(name), "x").expect("written");
    }
    let kept = here.sweep([path("d"), path("gone")].iter()).expect("swept");
    assert_eq!(kept, [path(".dtunnel-tmp-old-t-1"), path("d/.dtunnel-tmp-old-t-2")]);
    assert_eq!(names(&dir), [".dtunnel-tmp-new-other-1", ".dtunnel-tmp-old-t-1", "d"]);
}

/// Somebody writes to the file all the time while it is replaced: no version of theirs is lost.
#[test]
fn a_file_that_is_being_changed_is_not_lost() {
    let (dir, here) = place_for_it();
    let at = dir.path().join("a");
    let users = std::thread::spawn({
        let (at, temporary) = (at.clone(), dir.path().join("editor"));
        move || {
            // Saved as editors do, only if the last version of the user's own is there.
            for version in 0..300 {
                fs::write(&temporary, format!("mine {version}")).expect("written");
                fs::rename(&temporary, &at).expect("renamed");
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    let mut fetched = 0;
    while !users.is_finished() {
        if let Ok(Some(seen)) = here.look(&path("a"))
            && let Ok(Done::Changed(_)) = here.put("a", "theirs", Some(&seen))
        {
            fetched += 1;
        }
    }
    users.join().expect("no panic");
    let last = text(&dir, "a");
    assert!(last == "mine 299" || fetched > 0 && last == "theirs", "{last}");
    assert!(names(&dir).iter().all(|name| !name.starts_with(".dtunnel-tmp")), "{:?}", names(&dir));
}
