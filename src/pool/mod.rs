//! Pools: worker processes that run functions.
//!
//! ```text
//!            tasks: Queue ──▶ worker ──▶ replies: Queue
//! Pool ────┤                    │ claims the task's word              ├──▶ manager ──▶ AsyncResult, map, imap
//!            table: a word for each task under way, a row for each worker
//! ```
//! Which worker runs which task stands in the table, in a word that the worker changes by one compare-and-swap. So the death
//! of a worker fails just its task, at once, with [`TaskError::WorkerDied`] (or the task is sent again, if that was asked
//! for), and another worker takes its place. Results that a worker had sent before it died count. Short tasks of a map travel
//! together, and are still lost, repeated and told of one by one: see the head of `pool/run.rs`.
//!
//! # Crash behaviour
//!
//! | the worker is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | idle | nothing | the pool starts another one | nothing |
//! | after it took a task's message, before it claimed the task | a message that is delivered again | recovery; another worker runs it | nothing |
//! | after the claim, before it gave the message back | RUNNING by a dead one; the message again | recovery makes it LOST; the message is passed over | the task fails, or is sent again |
//! | while it runs the task | RUNNING by a dead one | recovery makes it LOST | the task fails, or is sent again |
//! | because its task was cancelled and did not end | CONDEMNED by a dead one; the task was told of before | recovery makes it LOST | nothing else |
//! | between two elements of a chunk | a share that says where it was | nobody needs to: only the pool and this worker read it | its chunk as it is now; what was given to others is theirs |
//! | after the task ended, before it sent the reply | ENDED by a dead one | recovery makes it LOST | the task fails, or is sent again |
//! | after it sent the reply | the reply | nobody needs to | nothing |
//! | after it took several tasks of a map, before it began one | as after the claim | the pool sends them again, one by one | nothing; the task, if it was one |
//! | in one of them, or with its outcome not published yet | RUNNING by a dead one; a share that says which was begun | as while it runs the task; those that it had not begun are sent again, one by one | the task that it was in |
//! | with outcomes of them that it had published and not sent | as above, and the outcomes | the pool tells what is published | nothing |
//! | before it is ready, again and again | – | the pool gives up after three: `BrokenPool` with what the last one said | all tasks |
//! | while another one is to take its place, or none is | it is dead | the pool counts anew | as above |
//! | **the pool's process**, wherever | – | the workers are daemons and die with it; recovery frees the queues and the table | all |
//!
//! # The end of the pool's process
//! `std::process::exit`, a return from `main` and a panic that ends the program terminate the workers, as they do all daemons. A
//! signal that kills the process, SIGKILL among them, has the kernel kill them. Workers ignore SIGINT, so that Ctrl-C, which
//! reaches every process of the terminal, prints nothing of them: the pool's process decides. A program that wants to finish what
//! was begun handles SIGINT and calls [`Pool::close`] and [`Pool::join`]; one that wants to give it up asks for that with
//! [`end_on_interrupt`](crate::process::end_on_interrupt).

mod builder;
mod call;
mod ending;
mod gather;
mod imap;
mod manager;
mod parallel;
mod promise;
mod run;
mod shared;
mod sharing;
mod state;
mod table;
mod task;
mod work;
mod worker;

pub use builder::PoolBuilder;
pub use call::{Call, Calls};
pub use imap::Imap;
pub use parallel::{Executor, Here};
pub use promise::AsyncResult;
pub(crate) use table::KIND;
pub use task::{Argument, is_cancelled};

use crate::error::{Result, TaskError};
use crate::process::Target;
use crate::segment::locked;
use shared::Shared;
use state::{Listener, Options};
use std::sync::Arc;
use std::time::Duration;
use task::place;
use work::{Batch, Sink, Typed, Work};

/// Worker processes that run functions: Python's `Pool`.
///
/// The functions are function items, or closures that capture nothing; arguments and results are serde values and shmkit's
/// handles. Dropping the pool terminates it; [`Pool::close`] and [`Pool::join`] let it finish first.
///
/// # Crash behaviour
/// A worker that dies, however it dies, fails the one task it ran ([`TaskError::WorkerDied`]) and is replaced; with
/// [`PoolBuilder::retries`] the task is run again by another one. See the table in [`crate::pool`].
///
/// # Copies of the process
/// A pool is its process's. In a copy of that ([`Process::fork`](crate::Process::fork)) tasks are refused with
/// [`TaskError::PoolClosed`], those that were under way have no result, and dropping or terminating it does nothing to the workers.
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
    manager: ending::Manager,
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
        PoolBuilder::new()
    }

    /// Number of workers there are to be.
    pub fn workers(&self) -> usize {
        self.shared.workers()
    }

    /// Changes how many workers there are, up to [`PoolBuilder::max_workers`]. New ones are started; those that are too many end
    /// after the task they run.
    ///
    /// # Errors
    /// `InvalidSize` for no workers, or too many; `PoolClosed` in a copy of the pool's process.
    pub fn resize(&self, workers: usize) -> Result<()> {
        self.check_own()?;
        builder::check_workers("a pool's number of workers", workers, self.shared.plan.max_workers as usize)?;
        self.shared.resize(workers as u32);
        Ok(())
    }

    /// Process ids of the workers.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.shared.pids()
    }

    /// Tasks (a chunk is one) that the workers have ended since the pool was made.
    pub fn tasks_done(&self) -> u64 {
        self.shared.done()
    }

    fn check_own(&self) -> Result<()> {
        if self.shared.is_own() { Ok(()) } else { Err(Shared::not_own().into()) }
    }

    fn options(&self) -> Options {
        Options { retries: self.shared.plan.retries, limit: None, priority: 0 }
    }

    /// Sends a batch of at least one call; gives its number.
    fn submit<F, A, S>(&self, batch: Batch<A, S>, options: Options, listener: Listener) -> u64
    where
        F: Target<A, Outcome: Argument>,
        A: Argument,
        S: Sink<F::Outcome> + 'static,
    {
        let chunks = batch.len();
        let work: Arc<dyn Work> = Arc::new(Typed::<A, F::Outcome, S>(batch, std::marker::PhantomData));
        match place::<F, A>() {
            Ok(entry) => self.shared.submit(entry, work, chunks, options, listener),
            Err(error) => {
                let why = error.to_string();
                for chunk in 0..chunks {
                    work.complete(chunk, Err(TaskError::BrokenPool { why: why.clone() }), 0);
                }
                u64::MAX
            }
        }
    }

    /// A call, whose settings come next: [`Call::deadline`], [`Call::retries`], then [`Call::run`] or [`Call::submit`].
    pub fn task<F, A>(&self, function: F, arguments: A) -> Call<'_, F, A>
    where
        F: Target<A, Outcome: Argument>,
        A: Argument,
    {
        Call::new(self, function, arguments)
    }

    /// A call for each of the tuples, whose settings come next: [`Calls::chunk`], [`Calls::deadline`], [`Calls::retries`],
    /// [`Calls::on_progress`], then [`Calls::run`] or [`Calls::submit`].
    pub fn tasks<F, A, I>(&self, function: F, items: I) -> Calls<'_, F, A>
    where
        F: Target<A, Outcome: Argument>,
        A: Argument,
        I: IntoIterator<Item = A>,
    {
        Calls::new(self, function, items.into_iter().map(Some).collect())
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
        self.task(function, arguments).run()
    }

    /// Calls `function` in a worker; the result comes later.
    pub fn apply_async<F, A>(&self, function: F, arguments: A) -> AsyncResult<F::Outcome>
    where
        F: Target<A, Outcome: Argument>,
        A: Argument,
    {
        self.task(function, arguments).submit()
    }

    /// Calls `function` with each of the items, in chunks that become smaller towards the end, and gives the results in order.
    ///
    /// # Errors
    /// The [`TaskError`] of the first item that failed, when all have ended.
    pub fn map<F, T, I>(&self, function: F, items: I) -> Result<Vec<F::Outcome>>
    where
        F: Target<(T,), Outcome: Argument>,
        (T,): Argument,
        I: IntoIterator<Item = T>,
    {
        self.starmap(function, items.into_iter().map(|item| (item,)))
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
        self.tasks(function, items).run()
    }

    /// As [`Pool::starmap`]; the results come later.
    pub fn starmap_async<F, A, I>(&self, function: F, items: I) -> AsyncResult<Vec<F::Outcome>>
    where
        F: Target<A, Outcome: Argument>,
        A: Argument,
        I: IntoIterator<Item = A>,
    {
        self.tasks(function, items).submit()
    }

    /// As [`Pool::map_async`], with so many items in a chunk: a chunk is what a worker takes at once.
    pub fn map_chunked<F, T, I>(&self, function: F, items: I, chunk: usize) -> AsyncResult<Vec<F::Outcome>>
    where
        F: Target<(T,), Outcome: Argument>,
        (T,): Argument,
        I: IntoIterator<Item = T>,
    {
        self.tasks(function, items.into_iter().map(|item| (item,))).chunk(chunk).submit()
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
    /// `PoolOpen` if the pool was neither closed nor terminated: it would wait for ever. `PoolClosed` in a copy of the pool's
    /// process.
    pub fn join(&self) -> Result<()> {
        self.check_own()?;
        if self.shared.is_open() {
            return Err(TaskError::PoolOpen.into());
        }
        self.shared.join(None);
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.shared.is_own() {
            return;
        }
        self.shared.terminate();
        // Killed processes end; but nobody should hang on one that the kernel cannot end.
        if self.shared.join(Some(Duration::from_secs(5))) {
            ending::join(&self.manager);
            // Nor is the last death still being told: the queues and the table end here, not a little later in another thread.
            drop(locked(&self.shared.telling));
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("workers", &self.workers()).finish_non_exhaustive()
    }
}
