//! [`Call`] and [`Calls`]: what may be asked for a task, or for many.

use super::gather::{Gather, Progress};
use super::promise::Promise;
use super::state::{Listener, Options};
use super::work::{Batch, Chunks};
use super::{Argument, AsyncResult, Pool, Target};
use crate::error::Result;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A call that a worker will make: [`Pool::task`].
///
/// # Examples
/// ```
/// use shmkit::{Error, Pool, TaskError};
/// use std::time::Duration;
///
/// # fn main() -> shmkit::Result<()> {
/// let pool = Pool::builder().workers(1).grace(Duration::from_millis(10)).start()?;
/// let asleep = || std::thread::sleep(Duration::from_secs(3600));
/// let late = pool.task(asleep, ()).deadline(Duration::from_millis(20)).run();
/// assert!(matches!(late, Err(Error::Task(TaskError::DeadlineExceeded { .. }))));
/// assert_eq!(pool.task(|x: u64| x + 1, (1,)).retries(3).run()?, 2);
/// # Ok(())
/// # }
/// ```
#[must_use = "it is made by `run` or `submit`"]
pub struct Call<'p, F, A> {
    pool: &'p Pool,
    _function: F,
    arguments: A,
    options: Options,
}

impl<'p, F, A> Call<'p, F, A>
where
    F: Target<A, Outcome: Argument>,
    A: Argument,
{
    pub(super) fn new(pool: &'p Pool, function: F, arguments: A) -> Self {
        Call { pool, _function: function, arguments, options: pool.options() }
    }

    /// How long it may run, from when a worker begins it. After that the result is
    /// [`DeadlineExceeded`](crate::TaskError::DeadlineExceeded), at once, and its worker is asked to end it as by
    /// [`AsyncResult::cancel`]. Time in which it waits for a worker does not count.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.options.limit = Some(limit);
        self
    }

    /// What has a higher number comes first, whenever it was submitted; 0 unless told otherwise. A task that a worker has begun is
    /// not interrupted.
    pub fn priority(mut self, priority: i32) -> Self {
        self.options.priority = priority;
        self
    }

    /// How often it is sent again if its worker dies: as [`PoolBuilder::retries`](super::PoolBuilder::retries), for this call.
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    fn send(self, listener: Listener) -> AsyncResult<F::Outcome> {
        let Call { pool, arguments, options, .. } = self;
        let promise = Promise::new();
        let batch = Batch::new(vec![Some(arguments)], Chunks::Of(1), Arc::clone(&promise));
        let call = pool.submit::<F, A, _>(batch, options, listener);
        AsyncResult::of(promise, Some((Arc::clone(&pool.shared), call)))
    }

    /// Sends it; the result comes later.
    pub fn submit(self) -> AsyncResult<F::Outcome> {
        self.send(Listener::Pool)
    }

    /// Sends it and waits for the result.
    ///
    /// # Errors
    /// As [`Pool::apply`], and `DeadlineExceeded`.
    pub fn run(self) -> Result<F::Outcome> {
        self.send(Listener::Caller).get()
    }
}

/// Calls that workers will make: [`Pool::tasks`].
///
/// # Examples
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use std::sync::Arc;
///
/// # fn main() -> shmkit::Result<()> {
/// let pool = shmkit::Pool::new(2)?;
/// let seen = Arc::new(AtomicUsize::new(0));
/// let see = Arc::clone(&seen);
/// let sums = pool
///     .tasks(|a: u32, b: u32| a + b, (0..100).map(|x| (x, 1)))
///     .on_progress(move |done, all| {
///         assert!(done <= all);
///         see.store(done, Ordering::Relaxed);
///     })
///     .run()?;
/// assert_eq!(sums[99], 100);
/// assert_eq!(seen.load(Ordering::Relaxed), 100);
/// # Ok(())
/// # }
/// ```
#[must_use = "they are made by `run` or `submit`"]
pub struct Calls<'p, F, A> {
    pool: &'p Pool,
    _function: F,
    items: Vec<Option<A>>,
    chunk: Option<usize>,
    options: Options,
    progress: Option<Progress>,
}

impl<'p, F, A> Calls<'p, F, A>
where
    F: Target<A, Outcome: Argument>,
    A: Argument,
{
    pub(super) fn new(pool: &'p Pool, function: F, items: Vec<Option<A>>) -> Self {
        Calls { pool, _function: function, items, chunk: None, options: pool.options(), progress: None }
    }

    /// So many items in each chunk: what a worker takes at once. Unless told otherwise a chunk is an eighth of what is left for
    /// each worker, so that they become smaller towards the end. A chunk may have 65,535 items; what a worker has not begun of one is
    /// given to those that have nothing to do. With 1 each is a task of its own: it fails, is repeated and told of alone, also where
    /// a worker takes several short ones at once.
    pub fn chunk(mut self, items: usize) -> Self {
        self.chunk = Some(items.max(1));
        self
    }

    /// How long each call may run: as [`Call::deadline`]. A chunk has that time for each of its items.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.options.limit = Some(limit);
        self
    }

    /// As [`Call::priority`]: what has a higher number comes first, whenever it was submitted; 0 unless told otherwise.
    pub fn priority(mut self, priority: i32) -> Self {
        self.options.priority = priority;
        self
    }

    /// How often a chunk is sent again whose worker died: as [`Call::retries`].
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Has `progress` called after each chunk: how many items are done, successes or not, and how many there are. It runs where
    /// callbacks do: see [`AsyncResult::callback`].
    pub fn on_progress(mut self, progress: impl Fn(usize, usize) + Send + Sync + 'static) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Has `bar` show how many items are done. It is finished when all are.
    #[cfg(feature = "indicatif")]
    #[cfg_attr(docsrs, doc(cfg(feature = "indicatif")))]
    pub fn bar(self, bar: indicatif::ProgressBar) -> Self {
        bar.set_length(self.items.len() as u64);
        self.on_progress(move |done, all| {
            // Chunks are told by several threads: the bar does not go back.
            if done as u64 > bar.position() {
                bar.set_position(done as u64);
            }
            if done == all {
                bar.finish();
            }
        })
    }

    fn send(self, listener: Listener) -> AsyncResult<Vec<F::Outcome>> {
        let Calls { pool, items, chunk, options, progress, .. } = self;
        let promise = Promise::new();
        if items.is_empty() {
            promise.fulfil(Ok(Vec::new()));
            return AsyncResult::of(promise, None);
        }
        let chunks = chunk.map_or_else(|| Chunks::guided(items.len(), pool.workers()), Chunks::of);
        let sink = Gather::new(Arc::clone(&promise), items.len(), progress);
        let call = pool.submit::<F, A, _>(Batch::new(items, chunks, sink), options, listener);
        AsyncResult::of(promise, Some((Arc::clone(&pool.shared), call)))
    }

    /// Sends them; the results come later.
    pub fn submit(self) -> AsyncResult<Vec<F::Outcome>> {
        self.send(Listener::Pool)
    }

    /// Sends them and waits for the results, which are in order.
    ///
    /// # Errors
    /// The [`TaskError`](crate::TaskError) of the first item that failed, when all have ended.
    pub fn run(self) -> Result<Vec<F::Outcome>> {
        self.send(Listener::Caller).get()
    }
}

impl<F, A> fmt::Debug for Call<'_, F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<F, A> fmt::Debug for Calls<'_, F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, options) = (self.items.len(), &self.options);
        f.debug_struct("Calls").field("len", &len).field("options", options).finish_non_exhaustive()
    }
}
