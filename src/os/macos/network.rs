//! Reports changes of the machine's addresses or routes, and wake-ups: signs of another network.
//!
//! The kernel writes changes to every routing socket (PF_ROUTE in route(4)), which anyone may open: nothing is polled for
//! them. Of a wake-up there is no message without IOKit and its run loop, so the time slept is looked at every 15 s
//! (tailscale does so too: `pollWallTimeInterval` in net/netmon). The network mostly changes at a wake-up as well, and is
//! reported sooner.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::os::routing_message::is_another_network;
use crate::os::unix::readiness::registered;

/// One change causes many messages, for addresses and then routes: within this time they count as one.
const SETTLE: Duration = Duration::from_millis(200);
/// Pause between two looks at the time slept.
const LOOK: Duration = Duration::from_secs(15);
/// Shortest sleep that counts: below, the two clocks may only have been set.
const SLEPT: Duration = Duration::from_secs(2);

/// Watches this machine's network and its sleep.
#[derive(Debug)]
pub struct Network {
    routes: Option<AsyncFd<OwnedFd>>,
    /// The end of the time in which further messages belong to the same change.
    settling: Option<Instant>,
    /// When the time slept is looked at next.
    next_look: Instant,
    sleep: Sleep,
}

impl Network {
    /// Starts watching. A source that cannot be watched is logged and left out.
    pub fn watch() -> Self {
        let routes = routes().inspect_err(|e| tracing::warn!("cannot watch the network for changes: {e}"));
        Self { routes: routes.ok(), settling: None, next_look: Instant::now() + LOOK, sleep: Sleep::begin() }
    }

    /// Waits for the next change, and describes it. Cancel safe.
    pub async fn changed(&mut self) -> String {
        loop {
            if let Some(until) = self.settling {
                tokio::time::sleep_until(until).await;
                self.settling = None;
                if let Some(routes) = &self.routes {
                    drain(routes);
                }
                return "the network has changed".into();
            }
            tokio::select! {
                () = another_network(self.routes.as_ref()) => self.settling = Some(Instant::now() + SETTLE),
                () = tokio::time::sleep_until(self.next_look) => {
                    self.next_look = Instant::now() + LOOK;
                    if let Some(slept) = self.sleep.since_last_look() {
                        return format!("awake after {} s of sleep", slept.as_secs());
                    }
                }
            }
        }
    }
}

/// How long the machine has slept: one clock continues during sleep, the other does not.
#[derive(Debug)]
struct Sleep {
    awake: std::time::Instant,
    all: Duration,
}

impl Sleep {
    fn begin() -> Self {
        // CLOCK_UPTIME_RAW is what Instant reads, CLOCK_MONOTONIC goes on during sleep (clock_gettime(3)).
        let all = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
        Self { awake: std::time::Instant::now(), all }
    }

    fn since_last_look(&mut self) -> Option<Duration> {
        let now = Self::begin();
        let before = std::mem::replace(self, now);
        let slept = self.all.saturating_sub(before.all).saturating_sub(self.awake.duration_since(before.awake));
        (slept >= SLEPT).then_some(slept)
    }
}

fn routes() -> io::Result<AsyncFd<OwnedFd>> {
    let socket = socket(AddressFamily::ROUTE, SocketType::RAW, None)?;
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&socket, true)?;
    registered(socket, Interest::READABLE)
}

/// Waits for messages, and reads them, until one is about another network. Never returns if there is nothing to watch.
async fn another_network(watched: Option<&AsyncFd<OwnedFd>>) {
    let Some(watched) = watched else { return std::future::pending().await };
    loop {
        let Ok(ready) = watched.readable().await else { return std::future::pending().await };
        drop(ready);
        if drain(watched) {
            return;
        }
    }
}

/// Reads all pending messages; returns whether one was about another network. Errors count as such: ENOBUFS for too many
/// messages.
fn drain(watched: &AsyncFd<OwnedFd>) -> bool {
    let mut any = false;
    loop {
        let taken = watched.try_io(Interest::READABLE, |fd| {
            // Each read returns one message; what does not fit is cut off, and is addresses only.
            let mut buffer = [0_u8; 2048];
            let read = rustix::io::read(fd, &mut buffer[..])?;
            Ok(is_another_network(&buffer[..read]))
        });
        match taken {
            Ok(is) => any |= is,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return any,
            Err(_) => return true,
        }
    }
}
