//! From the client to the host.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::carriage::{Carriage, End, Shared};
use crate::os::local_stream::LocalStream;
use crate::ssh::ChannelWriter;
use crate::tunnel::api::{Exchange, FromClient};

/// How the client's direction ended.
pub(super) enum Outward {
    /// The flow ends with it.
    Ends(End),
    /// The host has heard of the end.
    Told,
    /// The next request goes on another connection.
    Elsewhere,
}

/// Carries the client's direction to its end. Once both directions have ended, a client that still reads looks just like
/// one that is gone; then nothing is left to be cut.
pub(super) async fn outwards(
    local: &LocalStream,
    writer: &ChannelWriter,
    carriage: &Carriage<'_>,
    shared: &Shared,
) -> Outward {
    // The client sends no more, and the host is not to hear of it before its last request is answered.
    let mut keeps_end = false;
    loop {
        if shared.leaving.load(Relaxed) {
            return Outward::Elsewhere;
        }
        if let Some(is_clean) = carriage.exchange.and_then(Exchange::must_leave) {
            shared.is_clean.store(is_clean, Relaxed);
            return Outward::Elsewhere;
        }
        if let Some(held) = carriage.exchange.and_then(Exchange::take_held) {
            if let Some(end) = send(held, writer, carriage, shared).await {
                return end;
            }
            continue;
        }
        let data = match carriage.exchange.and_then(Exchange::ready) {
            Some(_) if shared.holding.load(Relaxed) => {
                shared.released.notified().await;
                continue;
            }
            Some(kind) => {
                // A request: the first one on this channel has been placed here.
                let is_to_be_prepared = carriage.exchange.is_some_and(Exchange::is_to_be_prepared);
                if is_to_be_prepared || !((carriage.may_stay)() && carriage.lease.takes(kind)) {
                    return Outward::Elsewhere;
                }
                shared.requests.fetch_add(1, Relaxed);
                carriage.exchange.map(Exchange::begin).unwrap_or_default()
            }
            None if keeps_end && !carriage.exchange.is_some_and(Exchange::keeps_end) => break,
            None => match read(local, carriage.exchange, !keeps_end).await {
                None => continue,
                // It has ended with nothing under way: no end of the channel's can matter to it.
                Some(Ok(data)) if data.is_empty() && carriage.exchange.is_some_and(Exchange::is_over) => {
                    shared.is_clean.store(true, Relaxed);
                    return Outward::Elsewhere;
                }
                Some(Ok(data))
                    if data.is_empty()
                        && carriage.exchange.is_some_and(|e| e.ready().is_some() || e.must_leave().is_some()) =>
                {
                    continue;
                }
                Some(Ok(data)) if data.is_empty() => {
                    carriage.exchange.into_iter().for_each(Exchange::client_ended);
                    // Over TCP an end and a client that is gone look the same.
                    keeps_end = !local.is_tcp() && carriage.exchange.is_some_and(Exchange::keeps_end);
                    if !keeps_end {
                        break;
                    }
                    continue;
                }
                Some(Ok(data)) => match carriage.exchange {
                    None => data,
                    Some(exchange) => match exchange.client_sent(data) {
                        FromClient::Pass(data) => data,
                        FromClient::Wait | FromClient::Ready => continue,
                    },
                },
                Some(Err(_)) => return Outward::Ends(End::ClientGone),
            },
        };
        if let Some(end) = send(data, writer, carriage, shared).await {
            return end;
        }
    }
    shared.set_sending(true);
    let sent = Box::pin(writer.eof()).await;
    shared.set_sending(false);
    if sent.is_err() {
        return Outward::Ends(End::Cut);
    }
    let gone = local.gone().await.is_ok() && !shared.told.load(Relaxed);
    if gone { Outward::Ends(End::ClientGone) } else { Outward::Told }
}

/// Sends data to the host. Returns the end if that cannot be done.
async fn send(data: Bytes, writer: &ChannelWriter, carriage: &Carriage<'_>, shared: &Shared) -> Option<Outward> {
    let size = data.len();
    shared.set_sending(true);
    // On the heap, so that it takes no memory while a flow rests.
    let sent = Box::pin(writer.send(data)).await;
    shared.set_sending(false);
    if sent.is_err() {
        return Some(Outward::Ends(End::Cut));
    }
    carriage.counters.iter().for_each(|c| c.sent(size));
    None
}

/// What comes next from the client, if more may. None: look again.
async fn read(local: &LocalStream, exchange: Option<&Exchange>, may_come: bool) -> Option<std::io::Result<Bytes>> {
    let Some(exchange) = exchange.filter(|exchange| !may_come || exchange.awaits()) else {
        return Some(local.read().await);
    };
    let (reads, has_news) = (may_come && !exchange.is_full(), exchange.is_policed());
    // On the heap: most clients' tasks never need it.
    Box::pin(async {
        tokio::select! {
            read = local.read(), if reads => Some(read),
            Ok(()) = local.gone(), if !reads => Some(Err(std::io::ErrorKind::ConnectionReset.into())),
            () = exchange.overdue() => None,
            () = exchange.news(), if has_news => None,
        }
    })
    .await
}
