//! [`AsyncResult`]: a result that is on its way.

use super::Argument;
use super::shared::Shared;
use super::task::Outcomes;
use super::work::Sink;
use crate::error::{Error, Result, TaskError};
use crate::segment::locked;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

type Callback<R> = Box<dyn FnOnce(&Result<R, TaskError>) + Send>;

struct State<R> {
    result: Option<Result<R, TaskError>>,
    /// Whether it was a success, once it is known.
    success: Option<bool>,
    callbacks: Vec<Callback<R>>,
    waiters: usize,
}

/// Calls one. A panic of its own has been told by the hook, whoever's thread this is, and takes nobody's result away.
fn call<R>(callback: Callback<R>, result: &Result<R, TaskError>) {
    let _ = catch_unwind(AssertUnwindSafe(|| callback(result)));
}

/// The side that is fulfilled.
pub(super) struct Promise<R> {
    state: Mutex<State<R>>,
    ready: Condvar,
    /// A hint that spares those the lock who look often.
    is_ready: AtomicBool,
}

impl<R> Promise<R> {
    pub(super) fn new() -> Arc<Promise<R>> {
        let state = State { result: None, success: None, callbacks: Vec::new(), waiters: 0 };
        Arc::new(Promise { state: Mutex::new(state), ready: Condvar::new(), is_ready: AtomicBool::new(false) })
    }

    /// Calls the callbacks, then lets those go on who wait.
    pub(super) fn fulfil(&self, result: Result<R, TaskError>) {
        loop {
            let callbacks = std::mem::take(&mut locked(&self.state).callbacks);
            callbacks.into_iter().for_each(|callback| call(callback, &result));
            let mut state = locked(&self.state);
            // One that came meanwhile has its turn, too.
            if state.callbacks.is_empty() {
                state.success = Some(result.is_ok());
                state.result = Some(result);
                // Release pairs with the acquire in `is_ready`.
                self.is_ready.store(true, Ordering::Release);
                if state.waiters > 0 {
                    self.ready.notify_all();
                }
                return;
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    /// Waits at most for `timeout`: false when the time is up.
    fn wait(&self, timeout: Option<Duration>) -> bool {
        let start = Instant::now();
        let mut state = locked(&self.state);
        state.waiters += 1;
        while state.success.is_none() {
            state = match timeout {
                None => self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(timeout) => {
                    let left = timeout.saturating_sub(start.elapsed());
                    if left.is_zero() {
                        break;
                    }
                    self.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.waiters -= 1;
        state.success.is_some()
    }
}

impl<R: Argument> Sink<R> for Arc<Promise<R>> {
    fn take(&self, _: usize, mut outcomes: Outcomes<'_, R>) {
        self.fulfil(outcomes.next().unwrap_or(Err(TaskError::Taken)));
    }
}

/// The result of a task that may not have been run yet: Python's `AsyncResult`.
///
/// Dropping it does not stop the task.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let pool = shmkit::Pool::new(2)?;
/// let mut sum = pool.apply_async(|a: u64, b: u64| a + b, (2, 3));
/// sum.wait();
/// assert_eq!(sum.is_successful(), Some(true));
/// assert_eq!(sum.get()?, 5);
/// # Ok(())
/// # }
/// ```
#[must_use = "the result comes through it"]
pub struct AsyncResult<R> {
    promise: Arc<Promise<R>>,
    /// Where the tasks are, and which they are; `None` if there are none.
    call: Option<(Arc<Shared>, u64)>,
}

impl<R> AsyncResult<R> {
    pub(super) fn of(promise: Arc<Promise<R>>, call: Option<(Arc<Shared>, u64)>) -> AsyncResult<R> {
        AsyncResult { promise, call }
    }

    /// Cancels it, as far as it has not ended: what waits for a worker is not run, what runs is asked to end. It can ask with
    /// [`is_cancelled`](super::is_cancelled); if it does not end within [`PoolBuilder::grace`](super::PoolBuilder::grace), its
    /// worker gets SIGTERM, and SIGKILL after the same time again, and is replaced. The result is [`TaskError::Cancelled`] at
    /// once; other tasks are not affected.
    pub fn cancel(&self) {
        if let Some((shared, call)) = &self.call {
            shared.cancel(Some(*call));
        }
    }

    /// Waits for the result and gives it. It is given once.
    ///
    /// # Errors
    /// A [`TaskError`]: why there is no result; `Taken` if it was given before.
    pub fn get(&mut self) -> Result<R> {
        self.wait();
        self.take()
    }

    /// As [`AsyncResult::get`], waiting at most for `timeout`.
    ///
    /// # Errors
    /// `TimedOut`, and as [`AsyncResult::get`]. After a time-out it can be asked again.
    pub fn get_timeout(&mut self, timeout: Duration) -> Result<R> {
        if !self.wait_timeout(timeout) {
            return Err(TaskError::TimedOut { waited: timeout }.into());
        }
        self.take()
    }

    fn take(&mut self) -> Result<R> {
        if !self.promise.is_ready() && self.is_lost() {
            return Err(Shared::not_own().into());
        }
        locked(&self.promise.state).result.take().unwrap_or(Err(TaskError::Taken)).map_err(Error::from)
    }

    /// Waits until there is a result, whatever it is.
    pub fn wait(&self) {
        self.wait_at_most(None);
    }

    /// Waits at most for `timeout`: false when the time is up.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_at_most(Some(timeout))
    }

    /// Whether it is on its way to another process: this one is a copy of the pool's.
    fn is_lost(&self) -> bool {
        self.call.as_ref().is_some_and(|(shared, _)| !shared.is_own())
    }

    /// Whether there is a result, or none will come.
    fn wait_at_most(&self, timeout: Option<Duration>) -> bool {
        if self.promise.is_ready() || self.is_lost() {
            return true;
        }
        let start = Instant::now();
        if let Some((shared, _)) = &self.call {
            shared.help(timeout, || self.promise.is_ready());
        }
        self.promise.is_ready() || self.promise.wait(timeout.map(|timeout| timeout.saturating_sub(start.elapsed())))
    }

    /// Whether there is a result.
    pub fn is_ready(&self) -> bool {
        locked(&self.promise.state).success.is_some()
    }

    /// Whether the task succeeded; `None` while that is not known.
    pub fn is_successful(&self) -> Option<bool> {
        locked(&self.promise.state).success
    }

    /// Has `callback` called with the value, if the task succeeds. It runs in the pool's own thread, or in that of
    /// somebody who waits for a result of this pool, before anybody who waits for this one goes on: it must be quick, and must not wait for
    /// another task. If it panics, the panic's message is printed and nothing else is changed.
    pub fn callback(self, callback: impl FnOnce(&R) + Send + 'static) -> Self {
        self.attach(Box::new(|result| {
            if let Ok(value) = result {
                callback(value);
            }
        }))
    }

    /// Has `callback` called with the error, if the task fails; otherwise as [`AsyncResult::callback`].
    pub fn error_callback(self, callback: impl FnOnce(&TaskError) + Send + 'static) -> Self {
        self.attach(Box::new(|result| {
            if let Err(error) = result {
                callback(error);
            }
        }))
    }

    fn attach(self, callback: Callback<R>) -> Self {
        let there_already = {
            let mut state = locked(&self.promise.state);
            match state.result.take() {
                Some(result) => Some((result, callback)),
                None => {
                    state.callbacks.push(callback);
                    None
                }
            }
        };
        // Nobody else can have taken it meanwhile: this handle is the only one.
        if let Some((result, callback)) = there_already {
            call(callback, &result);
            locked(&self.promise.state).result = Some(result);
        }
        self
    }
}

impl<R> fmt::Debug for AsyncResult<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncResult").field("is_successful", &self.is_successful()).finish_non_exhaustive()
    }
}
