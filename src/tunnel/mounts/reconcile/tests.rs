mod random;

use super::*;
use crate::tunnel::mounts::base::Seen;
use crate::tunnel::mounts::tree::Touched;

const RULES: Rules<'_> =
    Rules { grain: Grain::Nanosecond, read_only: false, is_same_mirror: true, seen: &Seen::new(), time: "T" };

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).expect("a path")
}

fn file(time: i64) -> Node {
    Node::File { size: 1, mtime: time, mode: 0o644, touched: Touched::default() }
}

/// In 1985, in nanoseconds since 1970.
const WHOLE: i64 = 499_162_500_000_000_000;

fn dir() -> Node {
    Node::Dir { mode: 0o755 }
}

fn link(target: &str) -> Node {
    Node::Link { target: target.as_bytes().into() }
}

fn reading(nodes: &[(&str, Node)]) -> Reading {
    Reading { tree: nodes.iter().map(|(name, node)| (path(name), node.clone())).collect(), ..Reading::default() }
}

fn known(nodes: &[(&str, Node)]) -> Base {
    nodes.iter().map(|(name, node)| (path(name), Known::InStep(node.clone()))).collect()
}

/// The steps in words.
fn said(plan: &Plan) -> Vec<String> {
    let word = |step: &Step| match step {
        Step::Agree { .. } => "agree",
        Step::KeepBoth { .. } => "keep both",
        Step::DeleteThere { .. } => "delete there",
        Step::Push { .. } => "push",
        Step::ModeThere { .. } => "mode there",
        Step::DeleteHere { .. } => "delete here",
        Step::Fetch { .. } => "fetch",
        Step::ModeHere { .. } => "mode here",
    };
    plan.steps.iter().map(|step| format!("{} {}", word(step), step.path())).collect()
}

fn steps(base: &[(&str, Node)], here: &[(&str, Node)], there: &[(&str, Node)]) -> Vec<String> {
    said(&plan(&known(base), &reading(here), &reading(there), RULES))
}

#[test]
fn one_sides_change_goes_to_the_other() {
    let other = ("z", file(9));
    let with = |nodes: &[(&'static str, Node)]| [nodes, std::slice::from_ref(&other)].concat();
    for (base, here, there, expected) in [
        (vec![], vec![("a", file(1))], vec![], vec!["push a"]),
        (vec![], vec![], vec![("a", file(1))], vec!["fetch a"]),
        (vec![("a", file(1))], vec![("a", file(2))], vec![("a", file(1))], vec!["push a"]),
        (vec![("a", file(1))], vec![("a", file(1))], vec![("a", file(2))], vec!["fetch a"]),
        (vec![("a", file(1))], vec![], vec![("a", file(1))], vec!["delete there a"]),
        (vec![("a", file(1))], vec![("a", file(1))], vec![], vec!["delete here a"]),
        (vec![("a", file(1))], vec![], vec![], vec!["agree a"]),
        (vec![], vec![("a", file(1))], vec![("a", file(1))], vec!["agree a"]),
        (vec![("a", file(1))], vec![("a", file(1))], vec![("a", file(1))], vec![]),
    ] {
        assert_eq!(steps(&with(&base), &with(&here), &with(&there)), expected, "{base:?} {here:?} {there:?}");
    }
}

#[test]
fn the_host_has_no_say_in_what_is_not_carried() {
    let name = ".dtunnelignore";
    let ours = [(name, file(1)), ("z", file(9))];
    let only_z = [("z", file(9))];
    assert_eq!(steps(&ours, &ours, &only_z), ["push .dtunnelignore"], "deleted there");
    let theirs = [(name, file(2)), ("z", file(9))];
    assert_eq!(steps(&ours, &ours, &theirs), ["keep both .dtunnelignore", "push .dtunnelignore"], "changed there");
    let mine = [(name, file(3)), ("z", file(9))];
    assert_eq!(steps(&ours, &mine, &ours), ["push .dtunnelignore"], "changed here");
    assert_eq!(steps(&ours, &only_z, &ours), ["delete there .dtunnelignore"], "deleted here");
    // One that only the host has is not obeyed, and stays there.
    let new = plan(&known(&only_z), &reading(&only_z), &reading(&theirs), RULES);
    assert_eq!(said(&new), Vec::<String>::new());
    assert_eq!(new.left, [(path(name), Left::IgnoreFile)]);
    // Nor does its directory go.
    let below = [("d", dir()), ("d/.dtunnelignore", file(1)), ("d/a", file(1)), ("z", file(9))];
    assert_eq!(steps(&below, &below, &only_z), ["push d", "push d/.dtunnelignore", "delete here d/a"]);
}

#[test]
fn what_both_changed_is_kept_twice_and_an_edit_outlives_a_deletion() {
    let old = [("a", file(1)), ("z", file(9))];
    let only_z = [("z", file(9))];
    let (mine, theirs) = ([("a", file(2)), ("z", file(9))], [("a", file(3)), ("z", file(9))]);
    assert_eq!(steps(&old, &mine, &theirs), ["keep both a", "push a"]);
    assert_eq!(steps(&[], &mine, &theirs), ["agree z", "keep both a", "push a"], "a lost journal");
    assert_eq!(steps(&old, &mine, &only_z), ["push a"]);
    assert_eq!(steps(&old, &only_z, &theirs), ["fetch a"]);
    let chmod = [("a", Node::File { size: 1, mtime: 2, mode: 0o755, touched: Touched::default() }), ("z", file(9))];
    assert_eq!(steps(&old, &mine, &chmod), ["mode there a"], "the same content");
}

#[test]
fn a_host_that_lost_its_files_deletes_nothing_here() {
    let all = [("a", file(1)), ("d", dir()), ("d/b", file(2))];
    let emptied = plan(&known(&all), &reading(&all), &reading(&[]), Rules { is_same_mirror: false, ..RULES });
    assert!(emptied.starts_over && !emptied.deletes_here());
    assert_eq!(said(&emptied), ["push a", "push d", "push d/b"]);
    let log = reading(&[("log", file(5))]);
    let another = plan(&known(&all), &reading(&all), &log, Rules { is_same_mirror: false, ..RULES });
    assert!(another.starts_over);
    assert_eq!(said(&another), ["push a", "push d", "push d/b", "fetch log"]);
    let partial = Reading { is_partial: true, ..reading(&[("a", file(1)), ("log", file(5))]) };
    assert_eq!(said(&plan(&known(&all), &reading(&all), &partial, RULES)), ["fetch log"]);
}

#[test]
fn whoever_deletes_all_of_a_mirror_means_it() {
    let all = [("a", file(1)), ("d", dir()), ("d/b", file(2))];
    let mut emptied = plan(&known(&all), &reading(&all), &reading(&[]), RULES);
    assert!(!emptied.starts_over && emptied.deletes_here());
    assert_eq!(said(&emptied), ["delete here d/b", "delete here d", "delete here a"]);
    emptied.keep_here();
    assert_eq!(said(&emptied), [""; 0]);
    // What would take the place of something that is kept stays away.
    let flat = [("a", dir()), ("a/n", file(3)), ("d", file(4)), ("e", dir()), ("e/n", file(5))];
    let mut other = plan(&known(&all), &reading(&all), &reading(&flat), RULES);
    other.keep_here();
    assert_eq!(said(&other), ["fetch e", "fetch e/n"]);
}

#[test]
fn directories_and_files_take_each_others_place() {
    let tree = [("d", dir()), ("d/a", file(1)), ("z", file(9))];
    let flat = [("d", file(5)), ("z", file(9))];
    assert_eq!(steps(&tree, &flat, &tree), ["delete there d/a", "delete there d", "push d"]);
    assert_eq!(steps(&tree, &tree, &flat), ["delete here d/a", "delete here d", "fetch d"]);
    assert_eq!(steps(&flat, &tree, &flat), ["delete there d", "push d", "push d/a"]);
    assert_eq!(steps(&flat, &flat, &tree), ["delete here d", "fetch d", "fetch d/a"]);
    let grown = [("d", dir()), ("d/a", file(1)), ("d/n", file(7)), ("z", file(9))];
    // What is new here keeps its directory; what the host had in its place is kept beside.
    assert_eq!(steps(&tree, &grown, &flat), ["keep both d", "delete there d", "push d", "push d/n", "delete here d/a"]);
    // What is new there is kept beside the file that replaced its directory here.
    let kept = plan(&known(&tree), &reading(&flat), &reading(&grown), RULES);
    assert_eq!(said(&kept), ["keep both d/n", "delete there d/n", "delete there d/a", "delete there d", "push d"]);
    assert!(matches!(&kept.steps[0], Step::KeepBoth { copy, .. } if *copy == path("d.dtunnel-conflict-T/n")));
    // A deleted directory comes back for what is new in it.
    assert_eq!(steps(&tree, &[("z", file(9))], &grown), ["delete there d/a", "fetch d", "fetch d/n"]);
    assert_eq!(steps(&tree, &grown, &[("z", file(9))]), ["push d", "push d/n", "delete here d/a"]);
}

#[test]
fn links_that_lead_out_do_not_come_here() {
    let there = [("l", link("/etc/passwd")), ("m", link("a")), ("z", file(9))];
    let plan_of = |here: &[(&str, Node)]| plan(&known(&[("z", file(9))]), &reading(here), &reading(&there), RULES);
    let plan = plan_of(&[("z", file(9))]);
    assert_eq!(said(&plan), ["fetch m"]);
    assert_eq!(plan.left, [(path("l"), Left::LinkLeadsOut)]);
    // Nor does what is below such a link's name change.
    let plan = plan_of(&[("l", dir()), ("l/a", file(1)), ("m", link("a")), ("z", file(9))]);
    assert_eq!(said(&plan), ["agree m"]);
    // One from here is as it was.
    assert!(plan_of(&there).left.is_empty());
}

#[test]
fn sockets_and_what_is_not_known_stay_and_so_do_their_directories() {
    let base = known(&[("d", dir()), ("d/a", file(1)), ("z", file(9))]);
    let all = reading(&[("d", dir()), ("d/a", file(1)), ("z", file(9))]);
    let only_z = reading(&[("z", file(9))]);
    let unread = |reading: &Reading| Reading { unknown: [path("d/a")].into(), ..reading.clone() };
    for (here, there) in [(&all, &unread(&only_z)), (&unread(&only_z), &all), (&unread(&all), &only_z)] {
        let plan = plan(&base, here, there, RULES);
        assert_eq!(said(&plan), [""; 0], "{here:?} {there:?}");
    }
    let socket = reading(&[("d", dir()), ("d/a", Node::Other), ("z", file(9))]);
    let plan = plan(&base, &all, &socket, RULES);
    assert_eq!((said(&plan), plan.left), (vec![], vec![(path("d/a"), Left::Special)]));
}

#[test]
fn a_read_only_mount_overwrites_and_takes_nothing() {
    let rules = Rules { read_only: true, ..RULES };
    let base = known(&[("a", file(1)), ("b", file(2)), ("d", dir())]);
    let here = reading(&[("a", file(1)), ("b", file(2)), ("d", dir())]);
    let there = reading(&[("a", file(7)), ("d", file(8)), ("n", dir()), ("n/a", file(9))]);
    let plan = plan(&base, &here, &there, rules);
    assert_eq!(said(&plan), ["delete there n/a", "delete there n", "delete there d", "push a", "push b", "push d"]);
}

#[test]
fn the_same_second_is_no_proof_of_the_same_content() {
    let rules = Rules { grain: Grain::Second, ..RULES };
    let of = |nanosecond: i64| reading(&[("a", file(1_000_000_000 + nanosecond))]);
    let base = known(&[("a", file(1_000_000_003))]);
    assert_eq!(said(&plan(&base, &of(3), &of(0), rules)), [""; 0]);
    assert_eq!(said(&plan(&base, &of(4), &of(0), rules)), ["push a"]);
    assert_eq!(said(&plan(&Base::new(), &of(4), &of(0), rules)), ["keep both a", "push a"]);
}

/// Of an npm package, of tar -x, by SOURCE_DATE_EPOCH.
#[test]
fn a_time_of_whole_seconds_is_no_proof_of_the_same_content_where_nothing_is_known() {
    let whole = file(WHOLE);
    assert_eq!(steps(&[], &[("a", whole.clone())], &[("a", whole.clone())]), ["keep both a", "push a"]);
    let old = [("a", file(1))];
    assert_eq!(steps(&old, &[("a", whole.clone())], &[("a", whole.clone())]), ["keep both a", "push a"]);
    assert_eq!(steps(&[("a", whole.clone())], &[("a", whole.clone())], &[("a", whole.clone())]), [""; 0]);
    let empty = Node::File { size: 0, mtime: WHOLE, mode: 0o644, touched: Touched::default() };
    assert_eq!(steps(&[], &[("a", empty.clone())], &[("a", empty)]), ["agree a"]);
}

/// A container that writes a file and gives it its old time back.
#[test]
fn a_change_there_without_a_trace_in_size_and_time_counts_if_it_is_known_when_it_was_touched() {
    let touched = |mtime, mode, touched| Node::File { size: 1, mtime, mode, touched: Touched(touched) };
    let seen: Seen = [(path("a"), 5)].into();
    let rules = Rules { seen: &seen, ..RULES };
    // Here it has a time of its own.
    let (ours, edited) = (touched(3, 0o644, 70), touched(4, 0o644, 90));
    let base = known(&[("a", ours.clone()), ("d", dir())]);
    let of = |here: Option<&Node>, there: &Node| {
        let here = here.map(|here| ("a", here.clone()));
        let here: Vec<_> = here.into_iter().chain([("d", dir())]).collect();
        said(&plan(&base, &reading(&here), &reading(&[("a", there.clone()), ("d", dir())]), rules))
    };
    assert_eq!(of(Some(&ours), &touched(3, 0o644, 5)), [""; 0]);
    assert_eq!(of(Some(&ours), &touched(3, 0o644, 0)), [""; 0], "not known there");
    assert_eq!(of(Some(&ours), &touched(3, 0o644, 6)), ["fetch a"]);
    assert_eq!(of(Some(&edited), &touched(3, 0o644, 6)), ["keep both a", "push a"]);
    assert_eq!(of(Some(&edited), &touched(3, 0o644, 5)), ["push a"]);
    assert_eq!(of(None, &touched(3, 0o644, 6)), ["fetch a"]);
    assert_eq!(of(None, &touched(3, 0o644, 5)), ["delete there a"]);
    // A new mode touches it, too.
    assert_eq!(of(Some(&ours), &touched(3, 0o600, 6)), ["mode here a"]);
    let unknown = plan(
        &base,
        &reading(&[("a", ours), ("d", dir())]),
        &reading(&[("a", touched(3, 0o644, 6)), ("d", dir())]),
        RULES,
    );
    assert_eq!(said(&unknown), [""; 0], "not known before");
    // Ours did not get there since theirs was touched.
    let going: Base = [(path("a"), Known::Going { old: Some(touched(3, 0o644, 5)), new: Some(edited.clone()) })].into();
    let of = |there| said(&plan(&going, &reading(&[("a", edited.clone())]), &reading(&[("a", there)]), RULES));
    assert_eq!(of(touched(3, 0o644, 5)), ["push a"]);
    assert_eq!(of(touched(3, 0o644, 6)), ["keep both a", "push a"]);
    assert_eq!(of(touched(4, 0o644, 6)), ["agree a"]);
}

#[test]
fn a_directory_gets_its_mode_when_its_files_are_there() {
    let sealed = [("d", Node::Dir { mode: 0o555 }), ("d/a", file(1))];
    assert_eq!(steps(&[], &sealed, &[]), ["push d", "push d/a", "mode there d"]);
    assert_eq!(steps(&[], &[], &sealed), ["fetch d", "fetch d/a", "mode here d"]);
}

/// A change that was cut off is not taken for one of the host's.
#[test]
fn a_push_of_which_nobody_knows_whether_it_arrived_is_made_again() {
    let base: Base =
        [(path("a"), Known::Going { old: Some(file(1)), new: Some(file(2)) }), (path("z"), Known::InStep(file(9)))]
            .into();
    let with = |time| reading(&[("a", file(time)), ("z", file(9))]);
    assert_eq!(said(&plan(&base, &with(3), &with(2), RULES)), ["push a"]);
    assert_eq!(said(&plan(&base, &with(3), &with(1), RULES)), ["push a"]);
    assert_eq!(said(&plan(&base, &with(1), &with(2), RULES)), ["push a"], "put back here");
    assert_eq!(said(&plan(&base, &with(2), &with(2), RULES)), ["agree a"]);
    assert_eq!(said(&plan(&base, &with(2), &with(5), RULES)), ["keep both a", "push a"]);
}
