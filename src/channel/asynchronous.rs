//! Receiving in tokio's tasks.

use super::port::Patience;
use super::{Connection, Consumer, JoinableQueue, PodQueue, Queue, Received, Receiver};
use crate::element::Element;
use crate::error::{ChannelError, Error, Result};
use crate::sync::Async;
use serde::de::DeserializeOwned;

/// `Empty` is not yet.
fn not_yet<R>(attempt: Result<R>) -> Result<Option<R>> {
    match attempt {
        Ok(taken) => Ok(Some(taken)),
        Err(Error::Channel(ChannelError::Empty { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

macro_rules! queues {
    ($($queue:ident),*) => {
        $(impl<T: DeserializeOwned> Async<$queue<T>> {
            /// The next message, waiting while there is none.
            ///
            /// # Errors
            #[doc = concat!("As [`", stringify!($queue), "::get`], and as [`Async::ready`].")]
            pub async fn recv(&self) -> Result<T> {
                self.take(|queue| not_yet(queue.try_get())).await
            }

            /// As `recv`, under the queue's own name for it.
            ///
            /// # Errors
            /// As `recv`.
            pub async fn get(&self) -> Result<T> {
                self.recv().await
            }
        })*
    };
}
queues!(Queue, JoinableQueue, Consumer);

impl<T: Element> Async<PodQueue<T>> {
    /// The next element where it lies, waiting while there is none. Its room goes back when it is dropped.
    ///
    /// # Errors
    /// As [`PodQueue::recv`], and as [`Async::ready`].
    pub async fn recv(&self) -> Result<Received<'_, T>> {
        self.take(|queue| not_yet(queue.try_recv())).await
    }

    /// A copy of the next element, waiting while there is none.
    ///
    /// # Errors
    /// As [`Async::recv`].
    pub async fn get(&self) -> Result<T> {
        self.take(|queue| not_yet(queue.try_get())).await
    }
}

impl<T: Element> Async<Receiver<T>> {
    /// The next element, waiting while there is none.
    ///
    /// # Errors
    /// As [`Receiver::recv`], and as [`Async::ready`].
    pub async fn recv(&self) -> Result<T> {
        self.take(|receiver| not_yet(receiver.try_recv())).await
    }
}

impl Async<Connection> {
    /// The next message as a value, waiting while there is none.
    ///
    /// # Errors
    /// As [`Connection::recv`], and as [`Async::ready`].
    pub async fn recv<T: DeserializeOwned>(&self) -> Result<T> {
        self.take(|connection| not_yet(connection.try_recv())).await
    }

    /// The bytes of the next message, waiting while there is none.
    ///
    /// # Errors
    /// As [`Connection::recv_bytes`], and as [`Async::ready`].
    pub async fn recv_bytes(&self) -> Result<Vec<u8>> {
        self.take(|connection| {
            let port = connection.receiver()?;
            not_yet(port.take(Patience::None).and_then(|claimed| port.receive_bytes(claimed)))
        })
        .await
    }
}
