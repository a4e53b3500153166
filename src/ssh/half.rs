//! The two halves of a channel, whoever carries it: our own connection, or a master of the machine's ssh.

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, Sig};

use super::openssh::flow::{Reading, Writing};

/// The channel or its connection no longer exists.
#[derive(Debug, thiserror::Error)]
#[error("the channel is gone")]
pub struct Gone;

#[derive(Debug)]
pub(super) enum ReadHalf {
    Own(russh::ChannelReadHalf),
    Masters(Box<Reading>),
}

impl ReadHalf {
    /// The next message; None: the connection is lost. Cancel safe.
    pub(super) async fn wait(&mut self) -> Option<ChannelMsg> {
        match self {
            Self::Own(inner) => inner.wait().await,
            // On the heap: a flow over our own connection has no memory for it.
            Self::Masters(inner) => Box::pin(inner.wait()).await,
        }
    }
}

#[derive(Debug)]
pub(super) enum WriteHalf {
    Own(russh::ChannelWriteHalf<Msg>),
    Masters(Writing),
}

impl WriteHalf {
    pub(super) async fn send(&self, data: Bytes) -> Result<(), Gone> {
        match self {
            Self::Own(inner) => inner.data_bytes(data).await.map_err(|_| Gone),
            Self::Masters(inner) => inner.send(data).await.map_err(|_| Gone),
        }
    }

    pub(super) async fn eof(&self) -> Result<(), Gone> {
        match self {
            Self::Own(inner) => inner.eof().await.map_err(|_| Gone),
            Self::Masters(inner) => {
                inner.eof();
                Ok(())
            }
        }
    }

    /// Sends SIGTERM to a command. A master passes no signals on.
    pub(super) async fn terminate(&self) {
        if let Self::Own(inner) = self {
            let _ = inner.signal(Sig::TERM).await;
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Own(inner) => drop(inner.close().await),
            Self::Masters(inner) => inner.close(),
        }
    }
}
