//! Closes a client's connection so that the last answer arrives.
//!
//! A guard often answers before a request's body has arrived, and then closes. A client that is still sending would get
//! EPIPE or a reset, and TCP even discards data that it has not read yet (RFC 9112 section 9.6). So the sending
//! direction is closed, and incoming data is read and dropped until the client closes its direction.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::os::local_stream::LocalStream;

/// Limit of dropped bytes. Some clients send the whole body before they read: an image to load, or a build's context.
/// Larger ones are rare, and get a reset.
const MAX_BYTES: u64 = 8 << 30;
/// Time limit: 8 GiB at the rate of a slow disk. Only a descriptor is in use meanwhile.
const MAX_TIME: Duration = Duration::from_secs(120);
/// Limit of a client's silence. It has the answer, so it has no reason to pause for long while sending.
const MAX_SILENCE: Duration = Duration::from_secs(10);

/// Waits for the client's end, and closes the connection.
pub(in crate::tunnel) async fn close(local: LocalStream) {
    close_within(local, MAX_BYTES, MAX_TIME, MAX_SILENCE).await;
}

async fn close_within(local: LocalStream, most: u64, time: Duration, silence: Duration) {
    let _ = local.shutdown_write();
    let end = Instant::now() + time;
    let mut left = most;
    while left > 0 {
        let read = timeout_at(end, timeout(silence, local.read())).await;
        match read {
            Ok(Ok(Ok(bytes))) if !bytes.is_empty() => left = left.saturating_sub(bytes.len() as u64),
            Ok(Ok(Ok(_))) => return local.finish(),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use crate::os::local;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn the_answer_is_read_by_a_client_that_sends_first() {
        let (ours, mut theirs) = local::Stream::pair().expect("a pair");
        let local = LocalStream::local(ours).expect("registered");
        assert_eq!(local.write_some(b"answer").await.expect("written"), 6);
        let closing = tokio::spawn(close_within(local, 64 << 20, LONG, LONG));
        theirs.write_all(&vec![0; 32 << 20]).await.expect("all of it is taken");
        let mut answer = Vec::new();
        theirs.read_to_end(&mut answer).await.expect("no reset");
        assert_eq!(answer, b"answer");
        drop(theirs);
        closing.await.expect("closed");
    }

    #[tokio::test]
    async fn a_client_that_never_stops_is_cut_off() {
        let (ours, mut theirs) = local::Stream::pair().expect("a pair");
        let closing = tokio::spawn(close_within(LocalStream::local(ours).expect("registered"), 1 << 20, LONG, LONG));
        let sent = async { while theirs.write_all(&[0; 4096]).await.is_ok() {} };
        let (closed, ()) = tokio::join!(closing, sent);
        closed.expect("closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_silent_or_slow_is_cut_off() {
        for pause in [LONG, Duration::from_secs(9)] {
            let (ours, mut theirs) = local::Stream::pair().expect("a pair");
            let closing = tokio::spawn(close(LocalStream::local(ours).expect("registered")));
            let mut sent = 0;
            while theirs.write_all(b"x").await.is_ok() {
                sent += 1;
                tokio::time::sleep(pause).await;
            }
            closing.await.expect("closed");
            assert!(sent <= 20, "{sent}");
        }
    }
}
