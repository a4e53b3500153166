//! Reports changes of the machine's addresses, routes or clock, which indicate another network or a wake-up. Uses no
//! polling and no timer that fires.
//!
//! Addresses and routes are reported over a netlink socket (rtnetlink(7)). A clock that was set, as by a wake-up from
//! sleep, cancels a timer (TFD_TIMER_CANCEL_ON_SET in timerfd_create(2)).

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::os::unix::readiness::registered;

/// Changes of addresses and routes of both families (`RTMGRP_*` in linux/rtnetlink.h).
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
/// One change causes many messages, for addresses and then routes: within this time they count as one.
const SETTLE: Duration = Duration::from_millis(200);
/// Far in the future, in seconds since 1970: the timer never fires.
const NEVER: i64 = 1 << 40;

/// Watches this machine's network and clock.
#[derive(Debug)]
pub struct Network {
    routes: Option<AsyncFd<OwnedFd>>,
    clock: Option<AsyncFd<OwnedFd>>,
    /// The end of the time in which further messages belong to the same change.
    settling: Option<Instant>,
    /// Time that the machine has slept since its start.
    slept: Duration,
}

impl Network {
    /// Starts watching. A source that cannot be watched is logged and left out.
    pub fn watch() -> Self {
        let routes = routes().inspect_err(|e| tracing::warn!("cannot watch the network for changes: {e}"));
        let clock = clock().inspect_err(|e| tracing::warn!("cannot watch for waking up: {e}"));
        Self { routes: routes.ok(), clock: clock.ok(), settling: None, slept: slept() }
    }

    /// Waits for the next change, and describes it. Cancel safe.
    pub async fn changed(&mut self) -> String {
        if let Some(until) = self.settling {
            return self.settled(until).await;
        }
        tokio::select! {
            () = drained(self.routes.as_ref()) => {
                let until = Instant::now() + SETTLE;
                self.settling = Some(until);
                self.settled(until).await
            }
            () = drained(self.clock.as_ref()) => {
                if let Some(clock) = &self.clock {
                    let _ = arm(clock.get_ref());
                }
                let slept = slept();
                let before = std::mem::replace(&mut self.slept, slept);
                match slept.saturating_sub(before).as_secs() {
                    0 => "the clock was set".into(),
                    seconds => format!("awake after {seconds} s of sleep"),
                }
            }
        }
    }
}

impl Network {
    async fn settled(&mut self, until: Instant) -> String {
        tokio::time::sleep_until(until).await;
        self.settling = None;
        if let Some(routes) = &self.routes {
            drain(routes);
        }
        "the network has changed".into()
    }
}

fn routes() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 of this family is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    registered(socket, Interest::READABLE)
}

fn clock() -> io::Result<AsyncFd<OwnedFd>> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    arm(&timer)?;
    registered(timer, Interest::READABLE)
}

fn arm(timer: &OwnedFd) -> io::Result<()> {
    let never = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: NEVER, tv_nsec: 0 },
    };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never)?;
    Ok(())
}

/// CLOCK_BOOTTIME continues during sleep, CLOCK_MONOTONIC does not (clock_gettime(2)).
fn slept() -> Duration {
    let duration = |time: Timespec| Duration::try_from(time).unwrap_or_default();
    duration(clock_gettime(ClockId::Boottime)).saturating_sub(duration(clock_gettime(ClockId::Monotonic)))
}

/// Waits for messages, and reads them. Never returns if there is nothing to watch.
async fn drained(watched: Option<&AsyncFd<OwnedFd>>) {
    let Some(watched) = watched else { return std::future::pending().await };
    loop {
        let Ok(ready) = watched.readable().await else { return std::future::pending().await };
        drop(ready);
        if drain(watched) {
            return;
        }
    }
}

/// Reads all pending messages; returns whether there were any. Errors count as messages: ENOBUFS for too many of
/// them, ECANCELED from the timer.
fn drain(watched: &AsyncFd<OwnedFd>) -> bool {
    let mut any = false;
    loop {
        let taken = watched.try_io(Interest::READABLE, |fd| {
            let mut buffer = [0_u8; 4096];
            match recv(fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok(_) => Ok(()),
                Err(rustix::io::Errno::NOTSOCK) => rustix::io::read(fd, &mut buffer[..]).map(drop).map_err(Into::into),
                Err(e) => Err(io::Error::from(e)),
            }
        });
        match taken {
            Ok(()) => any = true,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return any,
            Err(_) => return true,
        }
    }
}
