//! Pools: worker processes that run functions.
//!
//! ```text
//!            tasks: Queue ──▶ worker ──▶ replies: Queue
//! Pool ────┤                    │ claims the task's word              ├──▶ manager ──▶ AsyncResult, map, imap
//!            table: a word for each task under way, a row for each worker
//! ```
//! Which worker runs which task stands in the table, in a word that the worker changes by one compare-and-swap. So the death
//! of a worker fails just its task, at once, with [`TaskError::WorkerDied`] (or the task is sent again, if that was asked
//! for), and another worker takes its place. Results that a worker had sent before it died count.
//!
//! # Crash behaviour
//!
//! | the worker is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | idle | nothing | the pool starts another one | nothing |
//! | after it took a task's message, before it claimed the task | a message that is delivered again | recovery; another worker runs it | nothing |
//! | after the claim, before it gave the message back | RUNNING by a dead one; the message again | recovery makes it LOST; the message is passed over | the task fails, or is sent again |
//! | while it runs the task | RUNNING by a dead one | recovery makes it LOST | the task fails, or is sent again |
//! | after it sent the reply | the reply | nobody needs to | nothing |
//! | before it is ready, again and again | – | the pool gives up after three: `BrokenPool` with what the last one said | all tasks |
//! | **the pool's process** | – | the workers are daemons and die with it; recovery frees the queues and the table | all |

mod imap;
mod manager;
mod promise;
mod table;
mod task;
mod worker;

pub use imap::Imap;
pub use promise::AsyncResult;
pub(crate) use table::KIND;
pub use task::Argument;

use crate::error::{Result, SegmentError, TaskError};
use crate::process::{Outcome, Target};
use crate::segment::object::{Carrier, sending};
use manager::{Complete, Plan, Send, Shared};
use promise::Promise;
use std::any::Any;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use task::{Header, outcomes, place};
use worker::{Initializer, InitializerEntry};

/// The most workers a pool can have.
const MOST_WORKERS: usize = 1000;

/// Worker processes that run functions: Python's `Pool`.
///
/// The functions are function items, or closures that capture nothing; arguments and results are serde values and shmkit's
/// handles. Dropping the pool terminates it; [`Pool::close`] and [`Pool::join`] let it finish first.
///
/// # Crash behaviour
/// A worker that dies, however it dies, fails the one task it ran ([`TaskError::WorkerDied`]) and is replaced; with
/// [`PoolBuilder::retries`] the task is run again by another one. See the table in [`crate::pool`].
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let pool = shmkit::Pool::new(2)?;
/// assert_eq!(pool.map(|x: u64| x * x, 0..5)?, [0, 1, 4, 9, 16]);
/// assert_eq!(pool.apply(|a: u64, b: u64| a + b, (2, 3))?, 5);
/// let mut lengths: Vec<usize> =
///     pool.imap_unordered(|word: String| word.len(), ["a".to_owned(), "bcd".to_owned()]).collect::<Result<_, _>>()?;
/// lengths.sort();
/// assert_eq!(lengths, [1, 3]);
/// pool.close();
/// pool.join()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    manager: Option<JoinHandle<()>>,
}

/// How a pool is to be: [`Pool::builder`].
#[must_use = "nothing runs before `start`"]
pub struct PoolBuilder {
    workers: usize,
    retries: u32,
    limit: u64,
    initializer: Option<Initializer>,
    kept: Option<Box<dyn Any + std::marker::Send + Sync>>,
    error: Option<crate::Error>,
}

impl PoolBuilder {
    /// How many workers: as many as there are CPUs unless told otherwise.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How often a task is sent again whose worker died running it. Such a task may have been run in part: it should be one that
    /// can be run twice. 0 unless told otherwise.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Each worker ends after so many tasks (a chunk is one) and is replaced. 0, which is usual, for no limit.
    pub fn max_tasks_per_worker(mut self, tasks: u64) -> Self {
        self.limit = tasks;
        self
    }

    /// Each worker calls `initializer` with these arguments before its first task. If it fails in three workers, one after the
    /// other, the pool is broken: every task gets [`TaskError::BrokenPool`] with what it said.
    pub fn initializer<F, A>(mut self, initializer: F, arguments: A) -> Self
    where
        F: Target<A, Outcome: Outcome>,
        A: Argument + Sync,
    {
        const { crate::process::assert_no_captures::<F>() };
        let entry: InitializerEntry = initialize::<F, A>;
        let (written, _) = sending(Carrier::Sender, || postcard::to_stdvec(&arguments));
        match (written, crate::sys::module::place_of(entry as usize)) {
            (Ok(written), Some(entry)) => {
                self.initializer = Some(Initializer { entry, arguments: written });
                self.kept = Some(Box::new(arguments));
                let _ = initializer;
            }
            (Err(error), _) => self.error = Some(crate::Error::Other(format!("the initializer's arguments: {error}"))),
            (_, None) => self.error = Some(crate::Error::Other("the initializer is in no module".to_owned())),
        }
        self
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// `InvalidSize` for no workers, or more than 1000; `Start`; the errors of making objects in the session segment.
    pub fn start(self) -> Result<Pool> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if !(1..=MOST_WORKERS).contains(&self.workers) {
            let (what, found) = ("a pool's number of workers", self.workers as u64);
            return Err(SegmentError::InvalidSize { what, found, why: "it must be 1 to 1000" }.into());
        }
        let PoolBuilder { workers, retries, limit, initializer, kept, .. } = self;
        let (shared, manager) =
            Shared::start(Plan { workers: workers as u32, retries, limit, initializer, _kept: kept })?;
        Ok(Pool { shared, manager: Some(manager) })
    }
}

/// What a worker calls for `F` as its initializer.
fn initialize<F, A>(bytes: &[u8]) -> std::result::Result<(), String>
where
    F: Target<A, Outcome: Outcome>,
    A: Argument,
{
    let arguments: A = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
    // SAFETY: a type without bytes has no invalid ones, a value of it existed in the pool's process, which gave it away for
    // this, and it is `Copy`.
    let target = unsafe { std::ptr::NonNull::<F>::dangling().read() };
    let report = target.call(arguments).report();
    match (report.code, report.message) {
        (0, _) => Ok(()),
        (code, message) => Err(message.unwrap_or_else(|| format!("exit code {code}"))),
    }
}

impl Pool {
    /// A pool of `workers` processes.
    ///
    /// # Errors
    /// As [`PoolBuilder::start`].
    pub fn new(workers: usize) -> Result<Pool> {
        Pool::builder().workers(workers).start()
    }

    /// How to make a pool with other than the usual settings.
    pub fn builder() -> PoolBuilder {
        let workers = crate::process::cpu_count();
        PoolBuilder { workers, retries: 0, limit: 0, initializer: None, kept: None, error: None }
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.shared.workers()
    }

    /// Process ids of the workers.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.shared.pids()
    }

    /// Tasks (a chunk is one) that the workers have ended since the pool was made.
    pub fn tasks_done(&self) -> u64 {
        self.shared.done()
    }

    /// Sends a chunk; `complete` is called with what happened to each of its elements, or to all of them.
    fn submit<F, A>(
        &self,
        chunk: Vec<A>,
        complete: impl FnOnce(Result<Vec<Result<F::Outcome, TaskError>>, TaskError>) + std::marker::Send + 'static,
    ) where
        F: Target<A, Outcome: Argument>,
        A: Argument,
    {
        let entry = match place::<F, A>() {
            Ok(entry) => entry,
            Err(error) => return complete(Err(TaskError::BrokenPool { why: error.to_string() })),
        };
        let send: Send = Box::new(move |tasks, header| tasks.retyped::<(&Header, &Vec<A>)>().try_put((header, &chunk)));
        let complete: Complete =
            Box::new(move |reply, task| complete(reply.and_then(|bytes| outcomes::<F::Outcome>(bytes, task))));
        self.shared.submit(entry, send, complete);
    }

    /// Calls `function` in a worker and waits for its result.
    ///
    /// # Errors
    /// A [`TaskError`]: `Panicked` with what the panic said, `WorkerDied`, `Codec`, `PoolClosed`, `BrokenPool`.
    pub fn apply<F, A>(&self, function: F, arguments: A) -> Result<F::Outcome>
    where
        F: Target<A, Outcome: Argument>,
        A: Argument,
    {
        self.apply_async(function, arguments).get()
    }

    /// Calls `function` in a worker; the result comes later.
    pub fn apply_async<F, A>(&self, _function: F, arguments: A) -> AsyncResult<F::Outcome>
    where
        F: Target<A, Outcome: Argument>,
        A: Argument,
    {
        let promise = Promise::new();
        let result = AsyncResult::of(&promise);
        self.submit::<F, A>(vec![arguments], move |outcome| {
            promise.fulfil(outcome.and_then(|mut outcomes| outcomes.pop().unwrap_or(Err(TaskError::Taken))));
        });
        result
    }

    /// Calls `function` with each of the items, in chunks, and gives the results in order.
    ///
    /// # Errors
    /// The [`TaskError`] of the first item that failed, when all have ended.
    pub fn map<F, T, I>(&self, function: F, items: I) -> Result<Vec<F::Outcome>>
    where
        F: Target<(T,), Outcome: Argument>,
        (T,): Argument,
        I: IntoIterator<Item = T>,
    {
        self.map_async(function, items).get()
    }

    /// As [`Pool::map`]; the results come later.
    pub fn map_async<F, T, I>(&self, function: F, items: I) -> AsyncResult<Vec<F::Outcome>>
    where
        F: Target<(T,), Outcome: Argument>,
        (T,): Argument,
        I: IntoIterator<Item = T>,
    {
        self.starmap_async(function, items.into_iter().map(|item| (item,)))
    }

    /// Calls `function` with each of the tuples as its arguments; otherwise as [`Pool::map`].
    ///
    /// # Errors
    /// As [`Pool::map`].
    pub fn starmap<F, A, I>(&self, function: F, items: I) -> Result<Vec<F::Outcome>>
    where
        F: Target<A, Outcome: Argument>,
        A: Argument,
        I: IntoIterator<Item = A>,
    {
        self.starmap_async(function, items).get()
    }

    /// As [`Pool::starmap`]; the results come later.
    pub fn starmap_async<F, A, I>(&self, function: F, items: I) -> AsyncResult<Vec<F::Outcome>>
    where
        F: Target<A, Outcome: Argument>,
        A: Argument,
        I: IntoIterator<Item = A>,
    {
        let items: Vec<A> = items.into_iter().collect();
        // Four chunks for each worker: as Python does.
        let chunk = items.len().div_ceil(4 * self.workers()).max(1);
        self.in_chunks(function, items, chunk)
    }

    /// As [`Pool::map_async`], with so many items in a chunk: a chunk is what a worker takes at once.
    pub fn map_chunked<F, T, I>(&self, function: F, items: I, chunk: usize) -> AsyncResult<Vec<F::Outcome>>
    where
        F: Target<(T,), Outcome: Argument>,
        (T,): Argument,
        I: IntoIterator<Item = T>,
    {
        self.in_chunks(function, items.into_iter().map(|item| (item,)).collect(), chunk.max(1))
    }

    fn in_chunks<F, A>(&self, _function: F, items: Vec<A>, chunk: usize) -> AsyncResult<Vec<F::Outcome>>
    where
        F: Target<A, Outcome: Argument>,
        A: Argument,
    {
        let promise = Promise::new();
        let result = AsyncResult::of(&promise);
        let chunks = items.len().div_ceil(chunk);
        if chunks == 0 {
            promise.fulfil(Ok(Vec::new()));
            return result;
        }
        let gathered = Arc::new(Gathered {
            promise,
            state: Mutex::new(GatheredState { chunks: (0..chunks).map(|_| None).collect(), missing: chunks }),
        });
        let mut items = items.into_iter();
        for index in 0..chunks {
            let part: Vec<A> = items.by_ref().take(chunk).collect();
            let gathered = Arc::clone(&gathered);
            self.submit::<F, A>(part, move |outcome| gathered.add(index, outcome));
        }
        result
    }

    /// Calls `function` with each of the items and gives the results in order, as they come. The items are taken one by one, as
    /// room becomes free, so there may be any number of them.
    pub fn imap<F, T, I>(&self, _function: F, items: I) -> Imap<'_, F, (T,), I::IntoIter>
    where
        F: Target<(T,), Outcome: Argument>,
        (T,): Argument,
        I: IntoIterator<Item = T>,
    {
        Imap::new(self, items.into_iter(), true)
    }

    /// As [`Pool::imap`], in the order in which they are done.
    pub fn imap_unordered<F, T, I>(&self, _function: F, items: I) -> Imap<'_, F, (T,), I::IntoIter>
    where
        F: Target<(T,), Outcome: Argument>,
        (T,): Argument,
        I: IntoIterator<Item = T>,
    {
        Imap::new(self, items.into_iter(), false)
    }

    /// Takes no more tasks. The workers end when those that were taken are done.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Takes no more tasks and kills the workers: what is not done fails with `PoolClosed`.
    pub fn terminate(&self) {
        self.shared.terminate();
    }

    /// Waits until all workers have ended.
    ///
    /// # Errors
    /// `PoolOpen` if the pool was neither closed nor terminated: it would wait for ever.
    pub fn join(&self) -> Result<()> {
        if self.shared.is_open() {
            return Err(TaskError::PoolOpen.into());
        }
        self.shared.join(None);
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.terminate();
        // Killed processes end; but nobody should hang on one that the kernel cannot end.
        let ended = self.shared.join(Some(Duration::from_secs(5)));
        // A callback may drop the pool: the manager does not wait for itself.
        if let Some(manager) = self.manager.take().filter(|manager| manager.thread().id() != thread::current().id())
            && ended
        {
            let _ = manager.join();
        }
    }
}

/// The results of a map while they come in.
struct Gathered<R> {
    promise: Arc<Promise<Vec<R>>>,
    state: Mutex<GatheredState<R>>,
}

struct GatheredState<R> {
    chunks: Vec<Option<Result<Vec<R>, TaskError>>>,
    missing: usize,
}

impl<R> Gathered<R> {
    fn add(&self, index: usize, outcome: Result<Vec<Result<R, TaskError>>, TaskError>) {
        let mut state = crate::segment::locked(&self.state);
        state.chunks[index] = Some(outcome.and_then(|outcomes| outcomes.into_iter().collect()));
        state.missing -= 1;
        if state.missing > 0 {
            return;
        }
        let chunks = std::mem::take(&mut state.chunks);
        drop(state);
        let mut all = Vec::new();
        let mut first_error = None;
        for chunk in chunks.into_iter().flatten() {
            match chunk {
                Ok(mut values) => all.append(&mut values),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        self.promise.fulfil(first_error.map_or(Ok(all), Err));
    }
}

impl std::fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolBuilder").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("workers", &self.workers()).finish_non_exhaustive()
    }
}
