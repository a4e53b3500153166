use super::*;
use crate::tunnel::mounts::scan::Source;

fn entry() -> Entry {
    let source = Source { dir: "/home/me/src".into(), only: None };
    let root = "/home/dev/.cache/dtunnel/mounts/src-0".into();
    let known = Known { id: "src-0".into(), source, root, by_sftp: false, files: 0, bytes: 0 };
    Entry::new(known, true, 1 << 20)
}

fn used(container: &str, is_running: bool, read_only: bool) -> MountUse {
    MountUse { id: format!("{container}-id"), container: container.into(), is_running, read_only }
}

/// A start waited for ever for a mirror of somebody else's that was dropped as unused just then.
#[tokio::test(start_paused = true)]
async fn who_waits_for_an_entry_that_ends_is_told() {
    let entry = entry();
    for want in [Want::Pushed, Want::Fetched, Want::Round] {
        let number = entry.want(want);
        let waiting = tokio::time::timeout(Duration::from_secs(1), entry.until(number)).await;
        assert!(waiting.is_err(), "{want:?}: nobody keeps it");
    }
    let number = entry.want(Want::Round);
    let (waited, ()) = tokio::join!(entry.until(number), async { entry.end() });
    assert!(waited.is_err() && entry.is_ended());
    assert!(entry.round().await.is_err(), "nor does the next one wait");
}

#[test]
fn what_may_have_been_written_is_told_by_requests_and_not_by_the_host() {
    let entry = entry();
    entry.used_by(vec![used("web", true, false)]);
    assert!(!entry.may_be_written_by(None) && !entry.may_be_written_by(Some("web")), "as the host says");
    assert!(entry.becomes_writable() && !entry.becomes_writable());
    assert!(entry.may_be_written_by(None) && entry.may_be_written_by(Some("web")));
    assert!(entry.may_be_written_by(Some("web-i")), "the beginning of its id");
    assert!(!entry.may_be_written_by(Some("db")));
    // Once it has ended it may have, until that is here.
    entry.used_by(vec![used("db", true, true)]);
    assert!(entry.may_be_written_by(Some("web")) && !entry.may_be_written_by(Some("db")));
    entry.is_done(entry.wanted.borrow().number);
    assert!(!entry.may_be_written_by(Some("web")));
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_unused_from_the_end_of_its_last_container_on() {
    let entry = entry();
    tokio::time::advance(Duration::from_secs(7)).await;
    assert_eq!((entry.unused_for(), entry.wanted_for()), (Some(Duration::from_secs(7)), None));
    entry.is_wanted();
    assert_eq!((entry.unused_for(), entry.wanted_for()), (Some(Duration::ZERO), Some(Duration::ZERO)));
    entry.used_by(vec![used("web", false, true)]);
    assert_eq!((entry.unused_for(), entry.wanted_for()), (None, None), "one that is stopped counts");
    entry.used_by(Vec::new());
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(entry.unused_for(), Some(Duration::from_secs(3)));
}
