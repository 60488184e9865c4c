//! Queues and connections: messages between threads and processes.
//!
//! | | messages | ends |
//! |---|---|---|
//! | [`PodQueue`] | plain-data elements, written and read in place | any number of producers and consumers |
//! | [`Queue`] | serde values of any size | any number of producers and consumers |
//!
//! * `ring`: the algorithm, on which all of them are built. `recovery`: what is done about the dead, with the crash tables.
//! * `port`: waiting at a ring. `message`, `codec`: how a value lies in a block.

mod codec;
mod message;
pub(crate) mod pod;
mod port;
pub(crate) mod queue;
mod recovery;
mod ring;

pub use pod::{Loan, PodQueue, PodQueueOptions, Received};
pub use queue::{Message, Queue, QueueOptions};
