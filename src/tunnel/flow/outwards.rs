//! From the client to the host.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::carriage::{Carriage, End, Shared};
use crate::ssh::ChannelWriter;
use crate::tunnel::api::{Exchange, FromClient};
use crate::tunnel::client::stream::LocalStream;

/// How the client's direction ended.
pub(super) enum Outward {
    /// The flow ends with it.
    Ends(End),
    /// The host has heard of the end.
    Told,
    /// The next request goes on another connection.
    Elsewhere,
}

/// Carries the client's direction to its end. Once both directions have ended, a client that still reads looks just like one that is gone;
/// then nothing is left to be cut.
pub(super) async fn outwards(
    local: &LocalStream,
    writer: &ChannelWriter,
    carriage: Carriage<'_>,
    shared: &Shared,
) -> Outward {
    loop {
        if shared.leaving.load(Relaxed) {
            return Outward::Elsewhere;
        }
        if let Some(exchange) = carriage.exchange.filter(|exchange| exchange.must_leave()) {
            shared.is_clean.store(exchange.leaves_nothing(), Relaxed);
            return Outward::Elsewhere;
        }
        if let Some(held) = carriage.exchange.and_then(Exchange::take_held) {
            if let Some(end) = send(held, writer, carriage, shared).await {
                return end;
            }
            continue;
        }
        let data = match carriage.exchange.and_then(Exchange::ready) {
            Some(kind) => {
                // A request: the first one on this channel has been placed here.
                let is_to_be_changed = carriage.exchange.is_some_and(Exchange::names_our_socket);
                if is_to_be_changed || !((carriage.may_stay)() && carriage.lease.takes(kind)) {
                    return Outward::Elsewhere;
                }
                shared.requests.fetch_add(1, Relaxed);
                carriage.exchange.map(Exchange::begin).unwrap_or_default()
            }
            None => match read(local, carriage.exchange).await {
                None => continue,
                // It has ended with nothing under way: no end of the channel's can matter to it.
                Some(Ok(data)) if data.is_empty() && carriage.exchange.is_some_and(Exchange::is_over) => {
                    shared.is_clean.store(true, Relaxed);
                    return Outward::Elsewhere;
                }
                Some(Ok(data))
                    if data.is_empty() && carriage.exchange.is_some_and(|e| e.ready().is_some() || e.must_leave()) =>
                {
                    continue;
                }
                Some(Ok(data)) if data.is_empty() => break,
                Some(Ok(data)) => match carriage.exchange.map(|exchange| exchange.client_sent(data.clone())) {
                    None => data,
                    Some(FromClient::Pass(data)) => data,
                    Some(FromClient::Wait | FromClient::Ready) => continue,
                },
                Some(Err(_)) => return Outward::Ends(End::ClientGone),
            },
        };
        if let Some(end) = send(data, writer, carriage, shared).await {
            return end;
        }
    }
    if let Some(exchange) = carriage.exchange {
        exchange.client_ended();
        // Over TCP an end and a client that is gone look the same.
        while matches!(local, LocalStream::Unix { .. }) && exchange.keeps_end() {
            tokio::select! {
                () = exchange.news() => {}
                Ok(()) = local.gone() => return Outward::Ends(End::ClientGone),
            }
        }
        if exchange.must_leave() {
            return Outward::Elsewhere;
        }
        if let Some(held) = exchange.take_held()
            && let Some(end) = send(held, writer, carriage, shared).await
        {
            return end;
        }
    }
    shared.set_sending(true);
    let sent = writer.eof().await;
    shared.set_sending(false);
    if sent.is_err() {
        return Outward::Ends(End::Cut);
    }
    let gone = local.gone().await.is_ok() && !shared.told.load(Relaxed);
    if gone { Outward::Ends(End::ClientGone) } else { Outward::Told }
}

/// Sends data to the host. Returns the end if that cannot be done.
async fn send(data: Bytes, writer: &ChannelWriter, carriage: Carriage<'_>, shared: &Shared) -> Option<Outward> {
    let size = data.len();
    shared.set_sending(true);
    let sent = writer.send(data).await;
    shared.set_sending(false);
    if sent.is_err() {
        return Some(Outward::Ends(End::Cut));
    }
    carriage.counters.iter().for_each(|c| c.sent(size));
    None
}

/// What comes next from the client. None: no more is waited for.
async fn read(local: &LocalStream, exchange: Option<&Exchange>) -> Option<std::io::Result<Bytes>> {
    let Some(exchange) = exchange else { return Some(local.read().await) };
    let is_full = exchange.is_full();
    tokio::select! {
        read = local.read(), if !is_full => Some(read),
        Ok(()) = local.gone(), if is_full => Some(Err(std::io::ErrorKind::ConnectionReset.into())),
        () = exchange.overdue() => None,
        () = exchange.news() => None,
    }
}
