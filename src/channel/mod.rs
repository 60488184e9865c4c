//! Queues and connections: messages between threads and processes.
//!
//! | | messages | ends |
//! |---|---|---|
//! | [`PodQueue`] | plain-data elements, written and read in place | any number of producers and consumers |
//! | [`channel()`] | plain-data elements, copied or in place; the fastest | one sender, one receiver |
//! | [`Queue`] | serde values of any size | any number of producers and consumers |
//! | [`JoinableQueue`] | the same, each in the queue until it is done | any number of producers and consumers |
//! | [`Connection`] | serde values or bytes, of any size, both ways | two, each held by any number of processes |
//!
//! Unrelated processes meet by name: a [`Listener`] accepts, a [`Client`] connects, both have a [`Connection`].
//!
//! * `ring` (with `batch` and `spec`): the algorithm of all but `pipe`, which has its own.
//! * `recovery`: what is done about the dead, with the crash tables.
//! * `port`: waiting at a ring. `growth`: rings whose payloads come from the heap. `message`, `codec`: how a value lies in a block.

#[cfg(feature = "tokio")]
mod asynchronous;
mod batch;
pub(crate) mod codec;
pub(crate) mod connection;
mod ends;
mod family;
mod growth;
mod handshake;
pub(crate) mod joinable;
pub(crate) mod listener;
mod loan;
mod message;
pub(crate) mod pipe;
pub(crate) mod pod;
mod port;
pub(crate) mod queue;
mod recovery;
mod ring;
mod spec;
mod waitable;

pub use connection::{Connection, ConnectionOptions, pipe, pipe_in};
pub use ends::{Consumer, Producer};
pub use joinable::{JoinableQueue, Task};
pub use listener::{Client, ClientBuilder, Listener, ListenerBuilder};
pub use loan::{Loan, Received};
pub use pipe::{ChannelAt, Elements, IntoElements, Receiver, RecvRef, SendLoan, Sender, channel, channel_in};
pub use pod::{PodQueue, PodQueueOptions};
pub(crate) use queue::Outbox;
pub use queue::{Message, Queue, QueueOptions};
