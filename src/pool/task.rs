//! Tasks on their way: how a call becomes a message, is made by a worker, and its outcome comes back.
//!
//! ```text
//! task    Header {word, generation, function's place} | Vec of arguments, each a tuple: a chunk
//! reply   Ticket {word, generation}                   | Reply: an outcome for each of them
//! ```

use super::Target;
use crate::channel::Queue;
use crate::error::{ChannelError, Error, Result, TaskError};
use crate::sys::module::Place;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

/// What a function of a pool takes: serde values and shmkit's handles.
pub trait Argument: Serialize + DeserializeOwned + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Send + 'static> Argument for T {}

/// Which task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ticket {
    pub word: u32,
    pub generation: u32,
}

/// What comes before the arguments.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Header {
    pub ticket: Ticket,
    pub entry: Place,
}

/// What a worker has to say of a chunk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply<R> {
    /// For each element the value, or what the panic said.
    Done(Vec<Result<R, String>>),
    /// The arguments or the function could not be read.
    Unreadable(String),
    /// The values could not be written.
    Unwritable(String),
}

/// A call that a worker has read and not yet made.
pub(super) type Call = Box<dyn FnOnce(&Responder)>;

/// The function a task's place leads to: reads the arguments.
pub(super) type Entry = fn(&[u8]) -> Result<Call, String>;

/// Where a worker's outcome goes.
pub(super) struct Responder {
    pub replies: Queue<()>,
    pub ticket: Ticket,
    /// Takes what the last panic of this thread said.
    pub last_panic: fn() -> Option<String>,
}

impl Responder {
    pub(super) fn send<R: Serialize>(&self, reply: &Reply<R>) {
        let sent = self.replies.retyped().put_ref(&(&self.ticket, reply));
        let why = match sent {
            Ok(()) => return,
            Err(Error::Channel(ChannelError::Codec { why, .. })) => why,
            Err(error) => error.to_string(),
        };
        // An outcome that cannot be sent is told; if even that fails, the pool is gone.
        let _ = self.replies.retyped().put_ref(&(&self.ticket, &Reply::<()>::Unwritable(why)));
    }
}

/// Reads a chunk of arguments of `F`.
pub(super) fn entry<F, A>(bytes: &[u8]) -> Result<Call, String>
where
    F: Target<A, Outcome: Argument>,
    A: Argument,
{
    let chunk: Vec<A> = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
    Ok(Box::new(move |responder| {
        let outcomes = chunk
            .into_iter()
            .map(|arguments| {
                // SAFETY: a type without bytes has no invalid ones, a value of it existed in the pool's process, which gave it away
                // for this, and it is `Copy`, so there may be several.
                let target = unsafe { NonNull::<F>::dangling().read() };
                catch_unwind(AssertUnwindSafe(|| target.call(arguments)))
                    .map_err(|_| (responder.last_panic)().unwrap_or_else(|| "panicked".to_owned()))
            })
            .collect();
        responder.send(&Reply::Done(outcomes));
    }))
}

/// Where `entry::<F, A>` lies.
pub(super) fn place<F, A>() -> Result<Place>
where
    F: Target<A, Outcome: Argument>,
    A: Argument,
{
    const { crate::process::assert_no_captures::<F>() };
    let entry: Entry = entry::<F, A>;
    crate::sys::module::place_of(entry as usize)
        .ok_or_else(|| Error::Other("the pool's function is in no module of this program".to_owned()))
}

/// The outcomes in a reply; each says what happened to one element of the chunk.
pub(super) fn outcomes<R: DeserializeOwned>(bytes: &[u8], task: u64) -> Result<Vec<Result<R, TaskError>>, TaskError> {
    let codec = |action, why| TaskError::Codec { action, why, task };
    match postcard::from_bytes::<Reply<R>>(bytes) {
        Ok(Reply::Done(outcomes)) => Ok(outcomes
            .into_iter()
            .map(|outcome| outcome.map_err(|message| TaskError::Panicked { message, task }))
            .collect()),
        Ok(Reply::Unreadable(why)) => Err(codec("read the arguments", why)),
        Ok(Reply::Unwritable(why)) => Err(codec("write the result", why)),
        Err(error) => Err(codec("read the result", error.to_string())),
    }
}
