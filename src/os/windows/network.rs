//! Reports changes of this machine's addresses (NotifyAddrChange), which a wake-up brings as a rule.

use std::time::Duration;

use tokio::sync::mpsc;

use super::system;

/// One change causes several reports: within this time they count as one.
const SETTLE: Duration = Duration::from_millis(500);

/// Watches this machine's network.
#[derive(Debug)]
pub struct Network {
    changes: mpsc::Receiver<()>,
}

impl Network {
    /// Starts watching, on a thread that ends with the process: the system's call cannot be given up.
    pub fn watch() -> Self {
        let (tell, changes) = mpsc::channel(1);
        let watching = move || {
            while !tell.is_closed() {
                if let Err(e) = system::wait_for_address_change() {
                    tracing::info!("cannot watch the network for changes: {e}");
                    return;
                }
                // One that waits to be told is enough.
                let _ = tell.try_send(());
            }
        };
        if let Err(e) = std::thread::Builder::new().name("network".into()).spawn(watching) {
            tracing::warn!("cannot watch the network for changes: {e}");
        }
        Self { changes }
    }

    /// Waits for the next change, and describes it. Cancel safe.
    pub async fn changed(&mut self) -> String {
        if self.changes.recv().await.is_none() {
            return std::future::pending().await;
        }
        tokio::time::sleep(SETTLE).await;
        let _ = self.changes.try_recv();
        "the network has changed".into()
    }
}
