//! [`PoolBuilder`]: how a pool is to be.

use super::manager::Plan;
use super::shared::Shared;
use super::worker::{Initializer, InitializerEntry};
use super::{Argument, Pool};
use crate::error::{Result, SegmentError};
use crate::process::{Outcome, StartMethod, Target, start_method};
use crate::segment::object::{Carrier, sending};
use std::any::Any;
use std::time::Duration;

/// The most workers a pool can have.
const MOST_WORKERS: usize = 1000;
/// The most workers it can be resized to unless told otherwise.
const USUAL_MOST: usize = 32;
/// How long a cancelled task may go on unless told otherwise.
const GRACE: Duration = Duration::from_secs(1);

/// How a pool is to be: [`Pool::builder`].
#[must_use = "nothing runs before `start`"]
pub struct PoolBuilder {
    workers: usize,
    max_workers: Option<usize>,
    retries: u32,
    limit: u64,
    max_rss: u64,
    max_age: Option<Duration>,
    grace: Duration,
    method: Option<StartMethod>,
    initializer: Option<Initializer>,
    kept: Option<Box<dyn Any + std::marker::Send + Sync>>,
    error: Option<crate::Error>,
}

impl PoolBuilder {
    pub(super) fn new() -> PoolBuilder {
        PoolBuilder {
            workers: crate::process::cpu_count(),
            max_workers: None,
            retries: 0,
            limit: 0,
            max_rss: 0,
            max_age: None,
            grace: GRACE,
            method: None,
            initializer: None,
            kept: None,
            error: None,
        }
    }

    /// How many workers: as many as there are CPUs unless told otherwise.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// The most workers that [`Pool::resize`] may ask for: 32, or as many as there are at the start if those are more, unless told
    /// otherwise.
    pub fn max_workers(mut self, workers: usize) -> Self {
        self.max_workers = Some(workers);
        self
    }

    /// How often a task is sent again whose worker died running it: one that has killed a worker more than that is taken for
    /// poison, and fails with [`TaskError::WorkerDied`](crate::TaskError::WorkerDied). Such a task may have been run in part: it should be one that
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

    /// A worker that has more than so many bytes of memory after a task (its resident set, looked at every 10 ms at most) is replaced.
    /// It goes on until the one that takes its place is ready.
    pub fn max_rss_per_worker(mut self, bytes: u64) -> Self {
        self.max_rss = bytes;
        self
    }

    /// A worker that has run for so long is replaced. It goes on until the one that takes its place is ready, and ends the task it
    /// runs then.
    pub fn max_age_per_worker(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// How long a task may go on that was cancelled, or has passed its deadline, until its worker gets SIGTERM; and after that,
    /// until SIGKILL. One second unless told otherwise.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How the workers come into being; by default as [`start_method`](crate::process::start_method) says when the pool is made.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = Some(method);
        self
    }

    /// Each worker calls `initializer` with these arguments before its first task. If it fails in three workers, one after the
    /// other, with none between them that begins to work, the pool is broken: every task gets
    /// [`TaskError::BrokenPool`](crate::TaskError::BrokenPool) with what it said.
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
        let max_workers = self.max_workers.unwrap_or(self.workers.max(USUAL_MOST));
        for (what, workers, most) in [
            ("a pool's number of workers", self.workers, self.max_workers.unwrap_or(MOST_WORKERS).min(MOST_WORKERS)),
            ("the most workers of a pool", max_workers, MOST_WORKERS),
        ] {
            check_workers(what, workers, most)?;
        }
        let PoolBuilder { workers, retries, limit, max_rss, max_age, grace, method, initializer, kept, .. } = self;
        let method = method.unwrap_or_else(start_method);
        let (workers, max_workers) = (workers as u32, max_workers as u32);
        let plan =
            Plan { workers, max_workers, retries, limit, max_rss, max_age, grace, method, initializer, _kept: kept };
        let (shared, manager) = Shared::start(plan)?;
        Ok(Pool { shared, manager })
    }
}

/// Checks a number of workers.
pub(super) fn check_workers(what: &'static str, workers: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&workers) {
        return Ok(());
    }
    let why = if most == MOST_WORKERS { "it must be 1 to 1000" } else { "it must be 1 to the pool's `max_workers`" };
    Err(SegmentError::InvalidSize { what, found: workers as u64, why }.into())
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

impl std::fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolBuilder").field("workers", &self.workers).finish_non_exhaustive()
    }
}
