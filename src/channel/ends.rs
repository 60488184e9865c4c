//! [`Producer`] and [`Consumer`]: the ends of a [`Queue`](super::Queue), which know when nobody is left at the other one.
//!
//! A handle holds a reference in its role. Nobody is left when no valid reference in the other role is, and none in no
//! special role, since a `Queue` can do both. The death of a holder voids all its references by one store that happens
//! anyway, so nothing is counted and nothing leaks. Before the first one of a role has come, one waits for it: two bits in
//! the queue, which are only ever set, after the reference.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | who becomes a producer, before its bit | consumers wait for the first producer | nobody needs to: none has come | nothing |
//! | who becomes a producer, after its bit | the end, if it was the only one | recovery voids the reference and wakes all | nothing |
//! | the last producer, in a put | the message if it was committed, then the end | recovery | what was not committed |
//! | the last producer, dropping its handle | the end | recovery, if the reference was still there | nothing |
//! | a consumer, with a message | another consumer gets it again before the end | who finds the end recovers the dead first | nothing |
//! | the last consumer | `BrokenPipe` for producers, waiting ones too | who waits: at the end of a slice of its sleep, at most 1 s | nothing: messages stay for who opens the queue |

use super::family::{gets, puts, tells};
use super::port::{Peers, Port};
use super::queue::{QueueOptions, port_of};
use super::ring::Claimed;
use crate::error::{ChannelError, Result};
use crate::segment::object::{BodyId, Object, Shared, handle_as_value};
use serde::de::DeserializeOwned;
use shmkit_layouts::kinds::KIND_QUEUE;
use shmkit_layouts::objects::{QUEUE_HAD_CONSUMER, QUEUE_HAD_PRODUCER, ROLE_FIRST, ROLE_SECOND};
use std::marker::PhantomData;

/// A handle of a [`Queue`](super::Queue) that can only put: see [`Queue::producer`](super::Queue::producer).
///
/// Putting is a `BrokenPipe` when there were consumers, and every `Queue` and `Consumer` is dropped or dead.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let lines = shmkit::Queue::<String>::bounded(16)?;
/// let (producer, consumer) = (lines.producer()?, lines.consumer()?);
/// // A queue can put, too: only without it the producers are all there is.
/// drop(lines);
/// producer.put("the only one".to_owned())?;
/// drop(producer);
/// assert_eq!(consumer.iter().collect::<Result<Vec<_>, _>>()?, ["the only one"]);
/// # Ok(())
/// # }
/// ```
pub struct Producer<T> {
    port: Port,
    _messages: PhantomData<fn(T) -> T>,
}

/// A handle of a [`Queue`](super::Queue) that can only get: see [`Queue::consumer`](super::Queue::consumer).
///
/// Getting is an `EndOfFile` when nothing is left, there were producers, and every `Queue` and `Producer` is dropped or
/// dead.
pub struct Consumer<T> {
    pub(super) port: Port,
    _messages: PhantomData<fn(T) -> T>,
}

macro_rules! end {
    ($end:ident $name:literal: $role:ident, $had:ident, can $can:literal; peers $peer:ident, $peer_had:ident) => {
        impl<T> Shared for $end<T> {
            type Options = QueueOptions;

            fn kind() -> u32 {
                KIND_QUEUE
            }
            fn role() -> u32 {
                $role
            }
            fn label() -> Option<&'static str> {
                Some(std::any::type_name::<T>())
            }
            fn size(options: &QueueOptions) -> Result<u64> {
                options.size()
            }
            fn zeroed(options: &QueueOptions) -> u64 {
                options.zeroed()
            }
            fn build(options: &QueueOptions, start: *mut u8, id: BodyId) -> Result<()> {
                options.build(start, id)
            }
            fn attach(object: Object) -> Result<Self> {
                if object.reference.role != $role {
                    return Err(ChannelError::WrongDirection { can: $can }.into());
                }
                let port = Port { peers: Some(Peers { role: $peer, had: $peer_had }), ..port_of(object)? };
                failpoint!("queue.end_held");
                port.enter($had);
                failpoint!("queue.end_entered");
                Ok($end { port, _messages: PhantomData })
            }
            fn object(&self) -> &Object {
                &self.port.object
            }
        }

        handle_as_value!($end<T>);
        tells!($end $name);
    };
}

end!(Producer "Producer": ROLE_FIRST, QUEUE_HAD_PRODUCER, can "get"; peers ROLE_SECOND, QUEUE_HAD_CONSUMER);
end!(Consumer "Consumer": ROLE_SECOND, QUEUE_HAD_CONSUMER, can "put"; peers ROLE_FIRST, QUEUE_HAD_PRODUCER);
puts!(Producer);
gets!(Consumer);

impl<T: DeserializeOwned> Consumer<T> {
    fn receive(&self, claimed: Claimed) -> Result<T> {
        self.port.receive(claimed)
    }
}

impl<T> Producer<T> {
    /// Whether there were consumers, and nobody is left who could get.
    pub fn is_broken(&self) -> bool {
        self.port.is_deserted()
    }
}
