//! A guarded connection that has switched protocols: copies bytes both ways, as without a guard.

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::engine::EngineStream;
use super::stream::{Framed, Reading};
use crate::tunnel::client::stream::LocalStream;
use crate::tunnel::flow::relay::End;

/// Copies bytes both ways after the end of HTTP.
pub(super) async fn relay(on_client: OnUpgrade, on_engine: OnUpgrade, reading: &Reading) -> End {
    let (Ok(client), Ok(engine)) = tokio::join!(on_client, on_engine) else { return End::Cut };
    let client = client.downcast::<TokioIo<Framed>>();
    let engine = engine.downcast::<TokioIo<EngineStream>>();
    let (Ok(client), Ok(engine)) = (client, engine) else { return End::Cut };
    let from_client = [client.read_buf, Bytes::from(reading.held())];
    let Ok(local) = client.io.into_inner().into_inner() else { return End::Cut };
    let (client, from_engine) = (local, [engine.read_buf]);
    let engine = LocalStream::unix(engine.io.into_inner().into_inner());
    let there = copy((&client, End::ClientGone), (&engine, End::Cut), &from_client);
    let back = copy((&engine, End::Cut), (&client, End::ClientGone), &from_engine);
    let end = {
        tokio::pin!(there, back);
        let (mut there_done, mut back_done) = (false, false);
        loop {
            let ended = tokio::select! {
                ended = &mut there, if !there_done => {
                    there_done = true;
                    ended
                }
                ended = &mut back, if !back_done => {
                    back_done = true;
                    ended
                }
                // All data from the client was passed on. A container may be silent for long, so only
                // this detects the client's end.
                Ok(()) = client.gone(), if there_done && !back_done => Err(End::ClientGone),
            };
            match ended {
                Ok(()) if there_done && back_done => break None,
                Ok(()) => {}
                Err(end) => break Some(end),
            }
        }
    };
    match end {
        None => {
            client.finish();
            engine.finish();
            End::Done
        }
        Some(end) => {
            client.reset();
            engine.reset();
            end
        }
    }
}

/// Copies one direction until its end. On failure returns the end that stands for the side that is gone.
async fn copy(from: (&LocalStream, End), to: (&LocalStream, End), first: &[Bytes]) -> Result<(), End> {
    let ((from, from_gone), (to, to_gone)) = (from, to);
    for data in first {
        write_all(to, data).await.map_err(|_| to_gone.clone())?;
    }
    loop {
        let data = from.read().await.map_err(|_| from_gone.clone())?;
        if data.is_empty() {
            return to.shutdown_write().map_err(|_| to_gone);
        }
        write_all(to, &data).await.map_err(|_| to_gone.clone())?;
    }
}

async fn write_all(to: &LocalStream, mut data: &[u8]) -> std::io::Result<()> {
    while !data.is_empty() {
        data = &data[to.write_some(data).await?..];
    }
    Ok(())
}
