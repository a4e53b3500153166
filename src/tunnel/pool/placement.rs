//! Decides which connection carries a new flow, which is closed, and when to open one more, from a [`View`] of each.
//! Pure: knows no connection, clock or lock.

use std::time::Duration;

use tokio::time::Instant;

use crate::tunnel::dial::Kind;

/// How long a connection beyond the first, or a channel that a client has left, may be unused before it is closed.
pub(super) const UNUSED: Duration = Duration::from_secs(60);
/// Flows that follow one another within this time are worth a second connection.
const FAST: Duration = Duration::from_millis(500);
/// All connections, those with clients that do not keep up included, are at most so many times `max_connections`.
const MOST: usize = 4;

/// The facts about a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// Flows placed on it, without the tunnel's own, which only listen.
    pub(super) flows: usize,
    /// Is there a flow among them without a bound, see [`Kind::Streaming`]?
    pub(super) taken: bool,
    /// Is there a client on it that does not keep up?
    pub(super) stalled: bool,
    /// Does its server allow no more flows on it?
    pub(super) full: bool,
    /// May it be dead?
    pub(super) suspect: bool,
    /// Until when a channel is open for the next flow.
    pub(super) spare_until: Option<Instant>,
    /// Has it carried anything yet?
    pub(super) used: bool,
    /// Since when no flow is on it; while one is, when the last one ended.
    pub(super) quiet_since: Instant,
}

/// The facts about a connection that matter to a client on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Others {
    /// As in [`View`], without the client's own flow.
    pub(super) flows: usize,
    pub(super) taken: bool,
    pub(super) stalled: bool,
    pub(super) suspect: bool,
}

/// How many connections are allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most connections whose clients keep up (`max_connections`).
    pub(super) max: usize,
    /// False after the server refused one, or where the login has questions.
    pub(super) may_grow: bool,
}

/// The decision for a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placement {
    /// Index of the connection; None: the flow waits.
    pub(super) at: Option<usize>,
    /// Is one more connection wanted?
    pub(super) grow: bool,
}

/// Is one more connection allowed? With a limit of 1 never, not even beside a stalled client.
pub(super) fn may_grow(connections: &[View], limits: Limits) -> bool {
    let most = if limits.max == 1 { 1 } else { limits.max * MOST };
    let keep_up = connections.iter().filter(|connection| !connection.stalled).count();
    limits.may_grow && keep_up < limits.max && connections.len() < most
}

/// The connection for a client's flow: one whose clients keep up, without a stream on it, with the fewest flows, of
/// those one with a spare channel, and of those the one that has been quiet for longest (a server that has just
/// closed a channel holds its next word back, Nagle's algorithm). Where there is none, one more connection is
/// wanted. So it is where commands come so fast that the only connection has no spare channel yet, and where a
/// stream takes the last one without.
///
/// A stream shares with other streams rather than with short requests, where it has to share.
///
/// The last resort is a connection with a client that does not keep up, which then holds it up no more. A `patient`
/// flow waits instead where one more connection may come; so does a stream that would not be alone, and a short request
/// that would be beside a stream.
pub(super) fn for_client(connections: &[View], limits: Limits, kind: Kind, patient: bool, now: Instant) -> Placement {
    let streams = kind == Kind::Streaming;
    let beside = |one: &View| if streams { one.flows > 0 && !one.taken } else { one.taken };
    let key =
        |(_, one): &(usize, &View)| (one.suspect, beside(one), one.flows, one.spare_until.is_none(), one.quiet_since);
    let open = || connections.iter().enumerate().filter(|(_, one)| !one.full);
    let best = open().filter(|(_, one)| !one.stalled).min_by_key(key);
    let suits = |one: &View| match kind {
        Kind::Streaming => one.flows == 0,
        Kind::Short => !one.taken,
        Kind::Unknown => true,
    };
    let too_fast = connections.len() == 1
        && best.is_some_and(|(_, one)| {
            one.spare_until.is_none() && one.used && now.duration_since(one.quiet_since) < FAST
        });
    let leaves_none = streams
        && best.is_some_and(|(at, _)| {
            connections.iter().enumerate().all(|(other, one)| other == at || one.taken || one.stalled)
        });
    let wanted = too_fast || leaves_none || best.is_none_or(|(_, one)| one.flows > 0);
    let grow = wanted && may_grow(connections, limits);
    let waits = patient && grow;
    let best = best.filter(|(_, one)| suits(one) || !waits).or_else(|| open().filter(|_| !waits).min_by_key(key));
    Placement { at: best.map(|(at, _)| at), grow }
}

/// May the next request of a client go on where the one before did, so that `others` are beside it? Elsewhere it would
/// have a channel to be opened first. `most` is [`Limits::max`].
pub(super) fn may_stay(others: Others, most: impl FnOnce() -> usize, kind: Kind) -> bool {
    let suits = match kind {
        Kind::Streaming => others.flows == 0,
        Kind::Short | Kind::Unknown => !others.taken,
    };
    !others.suspect && !others.stalled && (suits || most() == 1)
}

/// The connection for a flow of our own that only listens: the first whose clients keep up.
/// The last resort as for a client.
pub(super) fn for_listener(connections: &[View], limits: Limits, patient: bool) -> Placement {
    if let Some(at) = connections.iter().position(|connection| !connection.stalled) {
        return Placement { at: Some(at), grow: false };
    }
    let grow = may_grow(connections, limits);
    let last_resort = if patient && grow { None } else { connections.first() };
    Placement { at: last_resort.map(|_| 0), grow }
}

/// The index of a connection that is unused for [`UNUSED`]; one always stays.
pub(super) fn unused(connections: &[View], now: Instant) -> Option<usize> {
    let is_unused = |one: &View| one.flows == 0 && now.duration_since(one.quiet_since) >= UNUSED;
    connections.iter().rposition(is_unused).filter(|_| connections.len() > 1)
}

/// When the next connection is unused for [`UNUSED`], or a spare channel has waited for too long.
pub(super) fn next_unused(connections: &[View]) -> Option<Instant> {
    let idle = connections.iter().filter(|one| one.flows == 0 && connections.len() > 1).map(|one| one.quiet_since);
    let spares = connections.iter().filter_map(|one| one.spare_until);
    idle.map(|since| since + UNUSED).chain(spares).min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANY: Limits = Limits { max: 4, may_grow: true };

    /// One that was made long ago, has been used, and is unused.
    fn idle(now: Instant) -> View {
        View {
            flows: 0,
            taken: false,
            stalled: false,
            full: false,
            suspect: false,
            spare_until: Some(now),
            used: true,
            quiet_since: now,
        }
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn the_best_connection_is_alive_quiet_with_a_spare_and_longest_so() {
        let now = later();
        let quiet = idle(now - FAST * 2);
        let place = |connections: &[View]| for_client(connections, MANY, Kind::Unknown, true, now);
        let rows: [(&str, Vec<View>, Option<usize>, bool); 9] = [
            ("none", vec![], None, true),
            ("an idle one", vec![quiet], Some(0), false),
            ("fewer flows", vec![View { flows: 2, ..quiet }, View { flows: 1, ..quiet }], Some(1), true),
            ("a spare", vec![View { spare_until: None, ..quiet }, quiet], Some(1), false),
            ("quiet for longer", vec![quiet, View { quiet_since: now - FAST * 3, ..quiet }], Some(1), false),
            ("alive", vec![View { suspect: true, ..quiet }, View { flows: 3, ..quiet }], Some(1), true),
            ("clients that keep up", vec![View { stalled: true, ..quiet }, View { flows: 9, ..quiet }], Some(1), true),
            ("room", vec![View { full: true, ..quiet }, View { flows: 9, ..quiet }], Some(1), true),
            ("none with room", vec![View { full: true, ..quiet }], None, true),
        ];
        for (what, connections, at, grow) in rows {
            assert_eq!(place(&connections), Placement { at, grow }, "{what}");
        }
    }

    #[test]
    fn commands_that_follow_one_another_are_worth_a_second_connection() {
        let now = later();
        let just_used = View { spare_until: None, quiet_since: now - FAST / 2, ..idle(now) };
        let grow = |connections: &[View]| for_client(connections, MANY, Kind::Unknown, true, now).grow;
        assert!(grow(&[just_used]));
        assert!(!grow(&[View { used: false, ..just_used }]), "the first one");
        assert!(!grow(&[View { quiet_since: now - FAST, ..just_used }]), "slow enough");
        assert!(!grow(&[just_used, idle(now)]), "there are two");
    }

    #[test]
    fn the_last_resort_is_a_stalled_connection_once_nothing_better_comes() {
        let now = later();
        let stalled = View { stalled: true, flows: 1, ..idle(now) };
        let single = Limits { max: 1, may_grow: true };
        let refused = Limits { may_grow: false, ..MANY };
        for (limits, patient, at, grow) in [
            (MANY, true, None, true),
            (MANY, false, Some(0), true),
            (refused, true, Some(0), false),
            (single, true, Some(0), false),
        ] {
            let expected = Placement { at, grow };
            assert_eq!(for_client(&[stalled], limits, Kind::Unknown, patient, now), expected, "{limits:?} {patient}");
            assert_eq!(for_listener(&[stalled], limits, patient), expected, "a listener: {limits:?} {patient}");
        }
        assert_eq!(for_listener(&[stalled, idle(now)], MANY, true), Placement { at: Some(1), grow: false });
        assert_eq!(for_listener(&[], MANY, false), Placement { at: None, grow: true });
    }

    #[test]
    fn a_stream_is_alone_and_short_requests_are_apart_where_connections_can_be_made() {
        let now = later();
        let quiet = idle(now - FAST * 2);
        let short = View { flows: 1, ..quiet };
        let stream = View { flows: 1, taken: true, ..quiet };
        let two = Limits { max: 2, may_grow: true };
        for (what, kind, patient, connections, at, grow) in [
            ("a stream takes a free one, and leaves one", Kind::Streaming, true, vec![quiet, quiet], Some(0), false),
            ("a stream takes the last free one", Kind::Streaming, true, vec![quiet], Some(0), true),
            ("a stream waits for one", Kind::Streaming, true, vec![short], None, true),
            ("a stream has waited", Kind::Streaming, false, vec![short], Some(0), true),
            ("a stream shares with streams", Kind::Streaming, true, vec![short, stream], Some(1), false),
            ("a short one is apart", Kind::Short, true, vec![stream, View { flows: 5, ..quiet }], Some(1), false),
            ("a short one waits for one", Kind::Short, true, vec![stream], None, true),
            ("a short one has waited", Kind::Short, false, vec![stream], Some(0), true),
            ("no further one may come", Kind::Short, true, vec![stream, stream], Some(0), false),
            ("what is not known waits for nothing", Kind::Unknown, true, vec![stream], Some(0), true),
        ] {
            assert_eq!(for_client(&connections, two, kind, patient, now), Placement { at, grow }, "{what}");
        }
    }

    #[test]
    fn a_client_stays_where_its_next_request_suits() {
        let free = Others { flows: 0, taken: false, stalled: false, suspect: false };
        let single = Limits { max: 1, may_grow: true };
        for (what, others, kind, limits, stays) in [
            ("nobody else", free, Kind::Streaming, MANY, true),
            ("beside short ones", Others { flows: 3, ..free }, Kind::Short, MANY, true),
            ("a stream beside short ones", Others { flows: 3, ..free }, Kind::Streaming, MANY, false),
            ("beside a stream", Others { flows: 1, taken: true, ..free }, Kind::Short, MANY, false),
            (
                "the only connection there may be",
                Others { flows: 1, taken: true, ..free },
                Kind::Streaming,
                single,
                true,
            ),
            ("it may be dead", Others { suspect: true, ..free }, Kind::Short, MANY, false),
            ("a client does not keep up", Others { stalled: true, ..free }, Kind::Unknown, single, false),
        ] {
            assert_eq!(may_stay(others, || limits.max, kind), stays, "{what}");
        }
    }

    #[test]
    fn stalled_connections_do_not_count_up_to_four_times_the_limit() {
        let stalled = View { stalled: true, flows: 1, ..idle(later()) };
        assert!(may_grow(&[stalled; 15], MANY));
        assert!(!may_grow(&[stalled; 16], MANY));
        let keeps_up = View { stalled: false, ..stalled };
        assert!(may_grow(&[keeps_up; 3], MANY));
        assert!(!may_grow(&[keeps_up; 4], MANY));
    }

    #[test]
    fn unused_connections_go_but_the_last_one_and_spares_go_too() {
        let now = later();
        let old = View { quiet_since: now - UNUSED, spare_until: None, ..idle(now) };
        let young = View { quiet_since: now - UNUSED / 2, ..old };
        assert_eq!(unused(&[old], now), None, "the last one");
        assert_eq!(unused(&[old, old, young], now), Some(1));
        assert_eq!(unused(&[young, View { flows: 1, ..old }], now), None);
        assert_eq!(next_unused(&[old]), None, "nothing is waited for");
        assert_eq!(next_unused(&[young, old]), Some(now));
        assert_eq!(next_unused(&[View { spare_until: Some(now + UNUSED), ..old }]), Some(now + UNUSED));
    }

    fn any_view(now: Instant) -> impl Strategy<Value = View> {
        let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
        (0_usize..4, flags, 0_u64..120_000).prop_map(
            move |(flows, (taken, stalled, full, suspect, spare, used), quiet)| View {
                flows,
                taken: taken && flows > 0,
                stalled,
                full,
                suspect,
                spare_until: spare.then_some(now),
                used,
                quiet_since: now - Duration::from_millis(quiet),
            },
        )
    }

    proptest! {
        /// Whatever there is: no flow on a full connection, none beside a stalled client while another will
        /// do, and nobody waits in vain.
        #[test]
        fn a_flow_is_placed_well_or_waits_for_something(
            connections in proptest::collection::vec(any_view(later()), 0..6),
            max in 1_usize..5, allowed: bool, patient: bool,
            kind in prop_oneof![Just(Kind::Unknown), Just(Kind::Short), Just(Kind::Streaming)],
        ) {
            let limits = Limits { max, may_grow: allowed };
            let placement = for_client(&connections, limits, kind, patient, later());
            prop_assert!(!placement.grow || may_grow(&connections, limits));
            match placement.at {
                Some(at) => {
                    prop_assert!(!connections[at].full);
                    let other_will_do = connections.iter().any(|one| !one.stalled && !one.full);
                    prop_assert!(!(connections[at].stalled && other_will_do));
                    let alone = |one: &View| !one.stalled && !one.full && !one.suspect && one.flows == 0;
                    let shares = kind == Kind::Streaming && connections[at].flows > 0;
                    prop_assert!(!shares || !(connections.iter().any(alone) || (patient && placement.grow)));
                }
                None => prop_assert!(placement.grow || connections.iter().all(|one| one.full)),
            }
        }
    }
}
