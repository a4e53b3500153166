//! The clients whose requests are read along, for `status` and `top`.

use std::sync::Weak;

use super::api::Exchange;
use super::client::peer::Who;
use super::guard::{MOST_SHOWN, RequestStatus};
use super::registry::Registry;

/// A connected client: its requests, and its process id.
pub(super) type Client = (Weak<Exchange>, Option<u32>);

/// The clients' requests in progress; at most [`MOST_SHOWN`].
pub(super) fn requests(clients: &Registry<Client>) -> Vec<RequestStatus> {
    let request = |(exchange, pid): Client| {
        let request = exchange.upgrade()?.in_progress()?;
        Some(RequestStatus::new(&request.method, request.path(), request.since, &Who::of_pid(pid)))
    };
    clients.values(usize::MAX).into_iter().filter_map(request).take(MOST_SHOWN).collect()
}
