//! Changes that leave no trace in size and time.

use super::*;

/// As of an npm package: all its files have this time.
const OLD: &str = "touch -d 1985-10-26T08:15:00Z";

#[tokio::test]
async fn files_of_the_same_size_and_whole_second_that_are_new_on_both_sides_are_compared() {
    for tools in [LocalShell::gnu, LocalShell::busybox, LocalShell::sftp] {
        let lab = Lab::new(tools(), false);
        let (here, there) = (lab.here.path(), lab.tree());
        shell(here, "echo a > a");
        lab.in_step().await;
        shell(here, &format!("echo mine > f; echo same > s; {OLD} f s; echo fine > n"));
        shell(
            &there,
            &format!("echo them > f; echo same > s; {OLD} f s; echo fine > n; touch -r '{}/n' n", here.display()),
        );
        let copy = lab.in_step().await.conflicts[0].to_string();
        assert_eq!([text(here, "f"), text(&there, "f"), text(here, &copy)], ["mine\n", "mine\n", "them\n"]);
        assert_eq!(copies(here).len(), 1);
        assert_eq!([text(here, "s"), text(&there, "s")], ["same\n", "same\n"]);
    }
}

#[tokio::test]
async fn a_change_of_the_hosts_without_a_trace_in_size_and_time_is_seen() {
    for tools in [LocalShell::gnu, LocalShell::busybox] {
        let lab = Lab::new(tools(), false);
        let (here, there) = (lab.here.path(), lab.tree());
        shell(here, &format!("for i in a b c d e f g; do echo 1 > $i; {OLD} $i; done; chmod 640 a; echo fine > z"));
        lab.in_step().await;
        // Seconds are all that busybox tells, of the clock that files have.
        let later = |script: &str| {
            let wait = "now() { touch ../../tick; stat -c %Z ../../tick; }; t=$(now); while [ \"$(now)\" = \"$t\" ]; do :; done";
            shell(&there, &format!("{wait}; {script}"));
        };
        later(&format!(
            "echo 2 > a; echo 2 > b; {OLD} a b; chmod 640 c; chmod 600 d; ln e e2; touch -r z t; echo more > z; echo fine > z; touch -r t z; rm t"
        ));
        // Changed here, too, or deleted.
        shell(here, "echo mine > b");
        let report = lab.in_step().await;
        let copy = report.conflicts[0].to_string();
        assert_eq!(
            [text(here, "a"), text(here, "b"), text(&there, "b"), text(here, &copy)],
            ["2\n", "mine\n", "mine\n", "2\n"]
        );
        assert_eq!((report.conflicts.len(), all(here)), (1, all(&there)));
        later(&format!("echo 2 > c; {OLD} c"));
        fs::remove_file(here.join("c")).expect("removed");
        lab.in_step().await;
        assert_eq!(text(here, "c"), "2\n");
        // After a restart, too; and just before something is sent, by a round or a push.
        let changing = format!("cd '{}'; echo 3 > f; echo 3 > g; {OLD} f g", there.display());
        *lock(&lab.mount().mirror.run().before) = Some(("tar -xpof", changing.clone()));
        later("true");
        shell(here, "echo mine > f");
        let report = lab.push(&["f"]).await;
        assert!(report.needs_round && report.done == 0, "{report:?}");
        fs::remove_file(here.join("g")).expect("removed");
        let report = lab.push(&["g"]).await;
        assert!(report.needs_round && report.done == 0, "{report:?}");
        *lock(&lab.mount().mirror.run().before) = None;
        let copy = lab.in_step().await.conflicts[0].to_string();
        assert_eq!([text(here, "f"), text(here, "g"), text(here, &copy)], ["mine\n", "3\n", "3\n"]);
        assert_eq!(all(here), all(&there));
    }
}

/// Within a tick of the clock, or by a tool that sets the old time.
#[tokio::test]
async fn a_change_without_a_trace_in_size_and_time_is_seen() {
    let lab = Lab::new(LocalShell::gnu(), false);
    let (here, there) = (lab.here.path(), lab.tree());
    shell(here, "echo 1 > a; echo 1 > b; echo 1 > c");
    lab.in_step().await;
    shell(here, "touch -r a t; echo 2 > a; touch -r t a; rm t");
    lab.in_step().await;
    assert_eq!(text(&there, "a"), "2\n");
    shell(here, "touch -r b t; echo 2 > b; touch -r t b; rm t");
    assert_eq!(lab.push(&["b"]).await.done, 1);
    assert_eq!(text(&there, "b"), "2\n");
    // The host's change and such a one: both are kept.
    shell(here, "touch -r c t; echo 3 > c; touch -r t c; rm t");
    shell(&there, "echo theirs > c");
    let copy = lab.in_step().await.conflicts[0].to_string();
    assert_eq!([text(here, "c"), text(&there, "c"), text(here, &copy)], ["3\n", "3\n", "theirs\n"]);
    // What was fetched, and changes of modes on either side, are no such changes.
    shell(&there, "echo new > d; chmod 700 a");
    shell(here, "chmod 711 b");
    assert_eq!(lab.in_step().await.done, 3);
    assert_eq!(text(here, "d"), "new\n");
}
