//! What the answer to a request waits for on this machine, so that docker returns when everything is as with a local Engine.

use std::sync::Arc;

use super::api::Changed;
use super::guard::Effect;
use super::mounts::Mounts;
use super::ports::Looks;

/// What answers wait for.
#[derive(Debug)]
pub(super) struct FollowUp {
    pub(super) looks: Arc<Looks>,
    pub(super) mounts: Arc<Mounts>,
}

impl FollowUp {
    /// Waits until the published ports were listed again, and until what containers have written is here. Returns why the
    /// container was stopped again, if it was.
    pub(super) async fn on(&self, changed: &Changed) -> Option<String> {
        let Changed { effect, container, starts, .. } = changed;
        let container = container.as_deref();
        let ports = async {
            match effect {
                Effect::Ports => self.looks.once_more(container.filter(|_| *starts)).await,
                Effect::None | Effect::Written | Effect::Waited => None,
            }
        };
        tokio::join!(ports, self.mounts.written(container)).0
    }
}
