//! The pool's minutes, under paused time, with connections that are none.

use super::placement::UNUSED;
use super::*;
use crate::ssh::{Channel, OpenError};

/// Opens nothing, and answers as long as it is said to.
#[derive(Debug, Default)]
struct Fake {
    is_silent: AtomicBool,
    is_acknowledged: AtomicBool,
    /// When it was last heard, if it says anything now and then.
    heard: Mutex<Option<Instant>>,
}

impl Carrier for Fake {
    async fn open(&self, _: &Endpoint) -> Result<Channel, OpenError> {
        Err(OpenError::Lost)
    }

    async fn ping(&self) -> bool {
        if self.is_silent.load(Relaxed) {
            return std::future::pending().await;
        }
        true
    }

    fn last_heard(&self) -> Duration {
        lock(&self.heard).map_or(Duration::ZERO, |heard| heard.elapsed())
    }

    fn is_acknowledged(&self) -> bool {
        self.is_acknowledged.load(Relaxed)
    }

    fn sends_at_once(&self) -> bool {
        false
    }

    fn flows_are_apart(&self) -> bool {
        false
    }

    fn may_keep_spares(&self) -> bool {
        true
    }
}

fn connection() -> Arc<PooledConnection<Fake>> {
    PooledConnection::new(Fake::default())
}

fn pool(max: usize, connections: usize) -> Arc<Pool<Fake>> {
    let pool = Pool::new(max);
    (0..connections).for_each(|_| pool.add(connection()));
    pool
}

fn is_on(lease: &Lease<Fake>, pool: &Pool<Fake>, at: usize) -> bool {
    Arc::ptr_eq(&lease.pooled, &pool.connections()[at])
}

#[tokio::test(start_paused = true)]
async fn flows_spread_and_ask_for_more_until_there_are_enough() {
    let pool = pool(2, 1);
    let first = pool.place(Kind::Unknown, true).expect("a place");
    assert!(!pool.takes_wish(), "the first flow has the connection for itself");
    let second = pool.place(Kind::Unknown, true).expect("a place");
    assert!(is_on(&second, &pool, 0) && pool.takes_wish());
    pool.add(connection());
    let third = pool.place(Kind::Unknown, true).expect("a place");
    assert!(is_on(&third, &pool, 1));
    let fourth = pool.place(Kind::Unknown, true).expect("a place");
    assert!(is_on(&fourth, &pool, 1) && !pool.takes_wish(), "there are as many as may be");
    drop((first, second, third, fourth));
    assert!(pool.connections().iter().all(|pooled| pooled.load.load(Relaxed) == 0));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_not_asked_for_again_for_a_while() {
    let pool = pool(4, 1);
    let _flows = (pool.place(Kind::Unknown, true), pool.place(Kind::Unknown, true));
    assert!(pool.takes_wish());
    pool.growth_failed(false);
    let wishes_after = async |time| {
        tokio::time::sleep(time).await;
        pool.flow_lasts();
        pool.takes_wish()
    };
    assert!(!wishes_after(REFUSED - Duration::from_millis(1)).await);
    assert!(wishes_after(Duration::from_millis(1)).await);
    pool.growth_failed(true);
    assert!(!wishes_after(REFUSED * 100).await, "a person would have to log in");
    // All is new after an outage.
    pool.clear();
    assert!(wishes_after(Duration::ZERO).await);
}

#[tokio::test(start_paused = true)]
async fn an_unused_connection_is_taken_out_after_its_time_and_the_last_one_stays() {
    let pool = pool(4, 3);
    let busy = pool.place(Kind::Unknown, true).expect("a place");
    let begun = Instant::now();
    pool.needs_care().await;
    assert_eq!(begun.elapsed(), UNUSED);
    assert!(pool.take_unused().is_some_and(|gone| !Arc::ptr_eq(&gone, &busy.pooled)));
    assert!(pool.take_unused().is_some_and(|gone| !Arc::ptr_eq(&gone, &busy.pooled)));
    assert!(pool.take_unused().is_none());
    drop(busy);
    // One connection without a spare channel needs no timer.
    assert!(tokio::time::timeout(UNUSED * 10, pool.needs_care()).await.is_err());
    assert!(pool.take_unused().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_lazy_tunnels_connections_are_taken_out_when_none_has_had_a_flow_for_so_long() {
    let pool = pool(4, 2);
    let limit = Duration::from_secs(300);
    let flow = pool.place(Kind::Unknown, true).expect("a place");
    let begun = Instant::now();
    let (unused, ()) = tokio::join!(pool.unused_for(limit), async {
        tokio::time::sleep(limit * 2).await;
        drop(flow);
    });
    assert_eq!(begun.elapsed(), limit * 3);
    assert_eq!((unused.len(), pool.is_empty()), (2, true));
}

#[tokio::test(start_paused = true)]
async fn beside_a_client_that_does_not_keep_up_there_is_another_connection_or_a_short_wait() {
    let pool = pool(1, 1);
    let slow = pool.place(Kind::Unknown, true).expect("a place");
    let stall = slow.stall();
    assert!(pool.place(Kind::Unknown, true).is_some(), "a single connection stays single");
    pool.set_max(2);
    assert!(pool.place(Kind::Unknown, true).is_none() && pool.takes_wish(), "one more may come");
    assert!(pool.place(Kind::Unknown, false).is_some(), "none came");
    let mut changes = pool.changes();
    changes.mark_unchanged();
    drop(stall);
    assert!(changes.has_changed().expect("open") && pool.place(Kind::Unknown, true).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_silent_is_given_up_and_one_that_answers_is_not() {
    let limit = Duration::from_secs(2);
    let (silent, alive) = (connection(), connection());
    silent.carrier.is_silent.store(true, Relaxed);
    let begun = Instant::now();
    alive.check(limit).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    silent.check(limit).await;
    assert_eq!(begun.elapsed(), limit);
    assert!(tokio::time::timeout(Duration::ZERO, silent.given_up()).await.is_ok());
    assert!(tokio::time::timeout(limit, alive.given_up()).await.is_err());
    // A host that is too busy to answer, on a way that is in order.
    let busy = connection();
    busy.carrier.is_silent.store(true, Relaxed);
    busy.carrier.is_acknowledged.store(true, Relaxed);
    busy.check(limit).await;
    assert!(tokio::time::timeout(limit, busy.given_up()).await.is_err());
    // Something was sent at the last moment, which cannot have been acknowledged yet.
    let sending = connection();
    sending.carrier.is_silent.store(true, Relaxed);
    sending.carrier.is_acknowledged.store(true, Relaxed);
    tokio::join!(sending.check(limit), async {
        tokio::time::sleep(limit * 95 / 100).await;
        sending.carrier.is_acknowledged.store(false, Relaxed);
    });
    assert!(tokio::time::timeout(limit, sending.given_up()).await.is_err());
    // Bytes that arrive are a sign of life as well.
    let moving = connection();
    moving.carrier.is_silent.store(true, Relaxed);
    tokio::join!(moving.check(limit), async {
        tokio::time::sleep(limit * 3 / 4).await;
        moving.has_received(1);
    });
    assert!(tokio::time::timeout(limit, moving.given_up()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_listener_leaves_a_client_that_does_not_keep_up_where_it_can_listen_elsewhere() {
    let pool = pool(2, 2);
    let listener = pool.place_listener(true).expect("a place");
    let slow = pool.place(Kind::Unknown, true).expect("a place");
    assert!(is_on(&listener, &pool, 0) && is_on(&slow, &pool, 0));
    let stall = slow.stall();
    let begun = Instant::now();
    listener.broken().await;
    assert_eq!(begun.elapsed(), DEAF);
    drop(stall);
    assert!(tokio::time::timeout(DEAF * 2, listener.broken()).await.is_err());
    listener.pooled.drain();
    listener.broken().await;
    assert!(tokio::time::timeout(DEAF, slow.broken()).await.is_err(), "a client's flow stays to its end");
    slow.pooled.give_up();
    slow.broken().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_stalls_has_more_time_with_flows_open_if_its_system_acknowledges() {
    let after = async |load: usize, is_acknowledged: bool, is_held_up: bool| {
        let pooled = connection();
        pooled.load.store(load, Relaxed);
        pooled.carrier.is_acknowledged.store(is_acknowledged, Relaxed);
        pooled.stalled.send_replace(usize::from(is_held_up));
        pooled.users.send_replace(load);
        let begun = Instant::now();
        *lock(&pooled.carrier.heard) = Some(begun);
        let silence = pooled.silence(Duration::from_secs(12), Duration::from_secs(30));
        let _ = tokio::time::timeout(Duration::from_secs(100), silence).await;
        begun.elapsed().as_secs()
    };
    assert_eq!(after(0, true, false).await, 12, "an idle connection");
    assert_eq!(after(1, false, false).await, 12, "a link that is gone");
    assert_eq!(after(1, true, false).await, 30, "a host that stalls");
    assert_eq!(after(1, true, true).await, 100, "a client that does not read");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_answers_again_is_not_given_up() {
    let pooled = connection();
    *lock(&pooled.carrier.heard) = Some(Instant::now());
    let silence = pooled.silence(Duration::from_secs(12), Duration::from_secs(30));
    tokio::pin!(silence);
    for _ in 0..10 {
        tokio::select! {
            () = &mut silence => panic!("given up"),
            () = tokio::time::sleep(Duration::from_secs(11)) => {}
        }
        *lock(&pooled.carrier.heard) = Some(Instant::now());
    }
    // A flow that has ended makes it idle.
    pooled.load.store(1, Relaxed);
    pooled.carrier.is_acknowledged.store(true, Relaxed);
    tokio::select! {
        () = &mut silence => panic!("given up"),
        () = tokio::time::sleep(Duration::from_secs(20)) => {}
    }
    pooled.load.store(0, Relaxed);
    let begun = Instant::now();
    silence.await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}
