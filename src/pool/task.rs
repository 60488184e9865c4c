//! Tasks on their way: how a call becomes a message, is made by a worker, and its outcome comes back.
//!
//! ```text
//! task    Header {word, generation, function's place, time limit} | Vec of arguments, each a tuple: a chunk
//! reply   Ticket {word, generation}                               | Reply: an outcome for each of them
//! ```
//! Several tasks may travel together, as a run: see [`super::run`].

use super::Target;
use super::run::Run;
use super::table::Table;
use crate::channel::{Outbox, Queue};
use crate::error::{ChannelError, Error, Result, TaskError};
use crate::process::panic_text;
use crate::sys::module::Place;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::cell::Cell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a function of a pool takes: serde values and shmkit's handles.
pub trait Argument: Serialize + DeserializeOwned + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Send + 'static> Argument for T {}

/// Which task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ticket {
    pub word: u32,
    pub generation: u32,
}

/// The word in the ticket of what is no reply: a worker wants the pool to look at its row.
pub(super) const NO_TASK: u32 = u32::MAX;

/// What comes before the arguments.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Header {
    pub ticket: Ticket,
    pub entry: Place,
    /// How long it may run, in nanoseconds; 0 for as long as it wants.
    pub limit: u64,
    /// The arguments are those of a run.
    pub is_run: bool,
}

/// What a worker has to say of a chunk. [`Outcomes`] reads it piece by piece.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply<R> {
    /// For each element that was not given to others the value, or what the panic said.
    Done(Vec<Result<R, String>>),
    /// The arguments or the function could not be read.
    Unreadable(String),
    /// The values could not be written.
    Unwritable(String),
    /// It was cancelled before all of them were done.
    Cancelled,
    /// Outcomes of a run follow.
    Part(Part),
}

/// Outcomes of a run: those of `count` tasks from `first` on, each with its length before it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Part {
    pub first: u32,
    pub count: u32,
    /// The run has ended.
    pub is_last: bool,
    /// It is one, without its length.
    pub is_alone: bool,
    /// How long a task took, in nanoseconds, if it is the last.
    pub pace: u64,
}

/// What came of a task of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome<R> {
    Done(R),
    Panicked(String),
    /// The arguments could not be read.
    Unreadable(String),
    /// The value could not be written.
    Unwritable(String),
}

/// Outcomes of a run, each with its length before it, or one alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Records<'b> {
    pub bytes: &'b [u8],
    pub is_alone: bool,
}

impl<'b> Records<'b> {
    /// The next one; `None` if there is none.
    fn next(&mut self) -> Option<&'b [u8]> {
        if self.is_alone {
            return Some(std::mem::take(&mut self.bytes));
        }
        let (record, rest) = postcard::take_from_bytes::<&[u8]>(self.bytes).ok()?;
        self.bytes = rest;
        Some(record)
    }

    /// Those behind the next `count`.
    pub(super) fn skip(mut self, count: u32) -> Records<'b> {
        for _ in 0..count {
            self.next();
        }
        self
    }
}

/// The part of a run's outcomes that a reply is, if it is one.
pub(super) fn part(reply: &[u8]) -> Option<(Part, Records<'_>)> {
    /// The number of [`Reply::Part`], as postcard writes it.
    const PART: u8 = 4;
    let (part, rest) = postcard::take_from_bytes::<Part>(reply.strip_prefix(&[PART])?).ok()?;
    let bytes = if part.is_alone { rest } else { postcard::take_from_bytes::<&[u8]>(rest).ok()?.0 };
    Some((part, Records { bytes, is_alone: part.is_alone }))
}

/// Why a reply to a run is none.
pub(super) fn why_none(reply: &[u8], task: u64) -> TaskError {
    let outcomes = Outcomes::<()>::new(Ok(reply), usize::MAX, task);
    outcomes.error.unwrap_or(TaskError::Cancelled { task })
}

/// An error as it is told of another task.
fn told_of(error: &TaskError, of: u64) -> TaskError {
    let mut error = error.clone();
    match &mut error {
        TaskError::WorkerDied { task, .. }
        | TaskError::Panicked { task, .. }
        | TaskError::Codec { task, .. }
        | TaskError::Cancelled { task }
        | TaskError::DeadlineExceeded { task, .. } => *task = of,
        _ => {}
    }
    error
}

/// A call that a worker has read and not yet made.
pub(super) type Call = Box<dyn FnOnce(&Responder) -> bool>;

/// The function a task's place leads to: reads the arguments.
pub(super) type Entry = fn(&[u8], bool) -> Result<Call, String>;

/// The table of the pool this process is a worker of.
static TABLE: OnceLock<Table> = OnceLock::new();
/// The task this worker runs: generation (32 bits) and word plus one (32 bits); else 0.
static CURRENT: AtomicU64 = AtomicU64::new(0);

/// Whether the task that this worker runs was cancelled, or has passed its deadline, and should end soon: whatever it returns is
/// thrown away, and if it goes on, its process is terminated, then killed. A long task asks now and then; all threads of it may.
/// Costs as much as reading a word of memory. Always false in a process that is no worker.
///
/// # Examples
/// ```
/// use shmkit::{Error, Pool, TaskError, pool::is_cancelled};
///
/// # fn main() -> shmkit::Result<()> {
/// let pool = Pool::new(1)?;
/// let endless = pool.apply_async(
///     || {
///         while !is_cancelled() {
///             std::thread::yield_now();
///         }
///     },
///     (),
/// );
/// endless.cancel();
/// let mut endless = endless;
/// assert!(matches!(endless.get(), Err(Error::Task(TaskError::Cancelled { .. }))));
/// # Ok(())
/// # }
/// ```
pub fn is_cancelled() -> bool {
    // Relaxed: set by this process before the task began.
    let current = CURRENT.load(Ordering::Relaxed);
    let (word, generation) = ((current as u32).wrapping_sub(1), (current >> 32) as u32);
    current != 0 && TABLE.get().is_some_and(|table| table.is_cancelled(word, generation))
}

/// Where a worker's outcome goes.
pub(super) struct Responder {
    pub table: Table,
    pub replies: Queue<()>,
    pub ticket: Ticket,
    /// Takes what the last panic of this thread said.
    pub last_panic: fn() -> Option<String>,
    /// Called when the task was run, before the reply is sent.
    pub on_end: fn(&Responder),
    pub row: u32,
    /// Bytes of memory from which on the worker wants to be replaced; 0 for no limit.
    pub max_rss: u64,
}

impl Responder {
    /// Says what runs now to those who ask [`is_cancelled`].
    pub(super) fn begin(&self) {
        TABLE.get_or_init(|| self.table.clone());
        let current = u64::from(self.ticket.generation) << 32 | u64::from(self.ticket.word + 1);
        CURRENT.store(current, Ordering::Relaxed);
    }

    /// Takes the next element of the chunk; false if the rest has been given to others.
    fn advance(&self) -> bool {
        self.table.advance(self.ticket.word, self.ticket.generation)
    }

    /// Sends the reply; false if this worker was condemned and must end.
    pub(super) fn send<R: Serialize>(&self, reply: &Reply<R>) -> bool {
        self.conclude(&(&self.ticket, reply))
    }

    /// Ends the task and sends what is told of it; false if this worker was condemned and must end.
    pub(super) fn conclude(&self, message: &impl Serialize) -> bool {
        let mut outbox = Outbox::default();
        // An outcome that cannot be sent is told; if even that fails, the pool is gone.
        if let Err(why) = self.write(&mut outbox, message) {
            let _ = self.replies.write(&mut outbox, &(&self.ticket, &Reply::<()>::Unwritable(why)));
        }
        (self.on_end)(self);
        CURRENT.store(0, Ordering::Relaxed);
        let goes_on = self.table.end(self.ticket.word, self.ticket.generation);
        failpoint!("worker.ended");
        self.deliver(&mut outbox);
        goes_on
    }

    /// Writes a message, or says why that cannot be. A user's `Serialize` may panic.
    pub(super) fn write(&self, outbox: &mut Outbox, message: &impl Serialize) -> Result<(), String> {
        match catch_unwind(AssertUnwindSafe(|| self.replies.write(outbox, message))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Error::Channel(ChannelError::Codec { why, .. }))) => Err(why),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err((self.last_panic)().unwrap_or_else(|| "panicked".to_owned())),
        }
    }

    /// Sends what was written.
    pub(super) fn deliver(&self, outbox: &mut Outbox) {
        // Waits only while the pool's process is stopped in the middle of taking a reply.
        if self.replies.send(outbox, None).is_err() {
            self.replies.discard(outbox);
        }
    }

    /// Has the pool look at this worker's row.
    pub(super) fn call_attention(&self) {
        let mut outbox = Outbox::default();
        let ticket = (Ticket { word: NO_TASK, generation: self.row },);
        if self.replies.write(&mut outbox, &ticket).is_ok() {
            self.deliver(&mut outbox);
        }
    }
}

/// Reads the arguments of a chunk, or a run, of `F`.
pub(super) fn entry<F, A>(bytes: &[u8], is_run: bool) -> Result<Call, String>
where
    F: Target<A, Outcome: Argument>,
    A: Argument,
{
    if is_run {
        let arguments = arguments_of_run::<A>(bytes).map_err(|error| error.to_string())?;
        return Ok(Box::new(move |responder| make_run::<F, A>(arguments, responder)));
    }
    let chunk: Vec<A> = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
    Ok(Box::new(move |responder| {
        let (len, mut outcomes) = (chunk.len(), Vec::with_capacity(chunk.len()));
        for arguments in chunk {
            if len > 1 && !responder.advance() {
                break;
            }
            failpoint!("worker.advanced");
            outcomes.push(call::<F, A>(arguments, responder));
            if len > 1 && is_cancelled() {
                return responder.send(&Reply::<()>::Cancelled);
            }
        }
        responder.send(&Reply::Done(outcomes))
    }))
}

/// Makes one call; gives what its panic said.
fn call<F, A>(arguments: A, responder: &Responder) -> Result<F::Outcome, String>
where
    F: Target<A, Outcome: Argument>,
    A: Argument,
{
    // SAFETY: a type without bytes has no invalid ones, a value of it existed in the pool's process, which gave it away for this,
    // and it is `Copy`, so there may be several.
    let target = unsafe { NonNull::<F>::dangling().read() };
    catch_unwind(AssertUnwindSafe(|| target.call(arguments)))
        .map_err(|_| (responder.last_panic)().unwrap_or_else(|| "panicked".to_owned()))
}

/// What `read` reads of a user's type, or why it cannot be read. A user's `Deserialize` may panic: whoever waits is told.
fn reading<T>(read: impl FnOnce() -> postcard::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(payload) => Err(format!("panicked: {}", panic_text(&*payload))),
    }
}

/// The arguments of each task of a run, or why they cannot be read.
type Arguments<A> = Vec<Result<A, String>>;

fn arguments_of_run<A: DeserializeOwned>(bytes: &[u8]) -> postcard::Result<Arguments<A>> {
    let (count, bytes) = postcard::take_from_bytes::<u32>(bytes)?;
    let (mut bytes, _) = postcard::take_from_bytes::<&[u8]>(bytes)?;
    let mut arguments = Vec::with_capacity((count as usize).min(bytes.len()));
    for _ in 0..count {
        let (record, rest) = postcard::take_from_bytes::<&[u8]>(bytes)?;
        arguments.push(reading(|| postcard::from_bytes(record)));
        bytes = rest;
    }
    Ok(arguments)
}

/// Makes the calls of a run.
fn make_run<F, A>(arguments: Arguments<A>, responder: &Responder) -> bool
where
    F: Target<A, Outcome: Argument>,
    A: Argument,
{
    let mut run = Run::begin(responder);
    for arguments in arguments {
        if !responder.advance() {
            break;
        }
        failpoint!("worker.advanced");
        let outcome = match arguments {
            Ok(arguments) => call::<F, A>(arguments, responder).map_or_else(Outcome::Panicked, Outcome::Done),
            Err(why) => Outcome::Unreadable(why),
        };
        if !run.publish(&outcome) {
            break;
        }
    }
    run.end()
}

/// Where `entry::<F, A>` lies.
pub(super) fn place<F, A>() -> Result<Place>
where
    F: Target<A, Outcome: Argument>,
    A: Argument,
{
    const { crate::process::assert_no_captures::<F>() };
    thread_local! {
        /// The last one: to find a place, every module of the program is looked at.
        static LAST: Cell<Option<(usize, Place)>> = const { Cell::new(None) };
    }
    let entry: Entry = entry::<F, A>;
    let address = entry as usize;
    if let Some((_, place)) = LAST.get().filter(|(last, _)| *last == address) {
        return Ok(place);
    }
    let place = crate::sys::module::place_of(address)
        .ok_or_else(|| Error::Other("the pool's function is in no module of this program".to_owned()))?;
    LAST.set(Some((address, place)));
    Ok(place)
}

/// The outcomes of a chunk, or of tasks of a run, one for each element: read from a reply as they are asked for.
pub(super) struct Outcomes<'b, R> {
    /// Of a chunk.
    bytes: &'b [u8],
    /// Of a run.
    records: Option<Records<'b>>,
    left: usize,
    task: u64,
    /// What has befallen all that is left.
    error: Option<TaskError>,
    _outcomes: PhantomData<R>,
}

impl<'b, R: DeserializeOwned> Outcomes<'b, R> {
    /// What a reply says of the `len` elements of a chunk; or what befell them all.
    pub(super) fn new(reply: Result<&'b [u8], TaskError>, len: usize, task: u64) -> Self {
        let mut outcomes = Outcomes { bytes: &[], records: None, left: len, task, error: None, _outcomes: PhantomData };
        match reply {
            Ok(bytes) => {
                outcomes.bytes = bytes;
                if let Err(error) = outcomes.open() {
                    outcomes.error = Some(error);
                }
            }
            Err(error) => outcomes.error = Some(error),
        }
        outcomes
    }

    /// The outcomes of the next `len` tasks of a run, of which `task` is the first; or what befell them all.
    pub(super) fn of_run(records: Result<Records<'b>, TaskError>, len: usize, task: u64) -> Self {
        let (records, error) = match records {
            Ok(records) => (records, None),
            Err(error) => (Records { bytes: &[], is_alone: false }, Some(error)),
        };
        Outcomes { bytes: &[], records: Some(records), left: len, task, error, _outcomes: PhantomData }
    }

    /// Whether each element is a task, and none of them a chunk's.
    pub(super) fn is_run(&self) -> bool {
        self.records.is_some()
    }

    fn next_of_run(&mut self) -> Result<R, TaskError> {
        let (task, record) = (self.task, self.records.as_mut().and_then(Records::next));
        self.task += 1;
        if let Some(error) = &self.error {
            return Err(told_of(error, task));
        }
        let codec = |action, why| Err(TaskError::Codec { action, why, task });
        let Some(record) = record else { return codec("read the result", "it is not there".to_owned()) };
        match reading(|| postcard::from_bytes::<Outcome<R>>(record)) {
            Ok(Outcome::Done(value)) => Ok(value),
            Ok(Outcome::Panicked(message)) => Err(TaskError::Panicked { message, task }),
            Ok(Outcome::Unreadable(why)) => codec("read the arguments", why),
            Ok(Outcome::Unwritable(why)) => codec("write the result", why),
            Err(why) => codec("read the result", why),
        }
    }

    fn codec(&self, action: &'static str, why: String) -> TaskError {
        TaskError::Codec { action, why, task: self.task }
    }

    fn read<T: DeserializeOwned>(&mut self) -> Result<T, TaskError> {
        let (value, rest) =
            reading(|| postcard::take_from_bytes(self.bytes)).map_err(|why| self.codec("read the result", why))?;
        self.bytes = rest;
        Ok(value)
    }

    /// Reads up to the first value. What postcard writes of a [`Reply`]: the variant's number, and of a `Vec` its length first.
    fn open(&mut self) -> Result<(), TaskError> {
        match self.bytes.first() {
            Some(0) => {
                self.bytes = &self.bytes[1..];
                if self.read::<u64>()? == self.left as u64 {
                    return Ok(());
                }
                Err(self.codec("read the result", "there are more or fewer than were asked for".to_owned()))
            }
            _ => Err(match self.read::<Reply<()>>()? {
                Reply::Unreadable(why) => self.codec("read the arguments", why),
                Reply::Unwritable(why) => self.codec("write the result", why),
                Reply::Cancelled | Reply::Done(_) | Reply::Part(_) => TaskError::Cancelled { task: self.task },
            }),
        }
    }
}

impl<R: DeserializeOwned> Iterator for Outcomes<'_, R> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        if self.records.is_some() {
            return Some(self.next_of_run());
        }
        if let Some(error) = &self.error {
            return Some(Err(error.clone()));
        }
        let outcome = match self.read::<Result<R, String>>() {
            Ok(outcome) => outcome.map_err(|message| TaskError::Panicked { message, task: self.task }),
            Err(error) => {
                self.error = Some(error.clone());
                Err(error)
            }
        };
        Some(outcome)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<R: DeserializeOwned> ExactSizeIterator for Outcomes<'_, R> {}
