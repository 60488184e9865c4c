//! [`AsyncResult`]: a result that is on its way.

use crate::error::{Error, Result, TaskError};
use crate::segment::locked;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

type Callback<R> = Box<dyn FnOnce(&Result<R, TaskError>) + Send>;

struct State<R> {
    result: Option<Result<R, TaskError>>,
    /// Whether it was a success, once it is known.
    success: Option<bool>,
    callbacks: Vec<Callback<R>>,
}

/// The side that is fulfilled.
pub(super) struct Promise<R> {
    state: Mutex<State<R>>,
    ready: Condvar,
}

impl<R> Promise<R> {
    pub(super) fn new() -> Arc<Promise<R>> {
        let state = State { result: None, success: None, callbacks: Vec::new() };
        Arc::new(Promise { state: Mutex::new(state), ready: Condvar::new() })
    }

    /// Calls the callbacks, then lets those go on who wait.
    pub(super) fn fulfil(&self, result: Result<R, TaskError>) {
        loop {
            let callbacks = std::mem::take(&mut locked(&self.state).callbacks);
            callbacks.into_iter().for_each(|callback| callback(&result));
            let mut state = locked(&self.state);
            // One that came meanwhile has its turn, too.
            if state.callbacks.is_empty() {
                state.success = Some(result.is_ok());
                state.result = Some(result);
                self.ready.notify_all();
                return;
            }
        }
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
}

impl<R> AsyncResult<R> {
    pub(super) fn of(promise: &Arc<Promise<R>>) -> AsyncResult<R> {
        AsyncResult { promise: Arc::clone(promise) }
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
        locked(&self.promise.state).result.take().unwrap_or(Err(TaskError::Taken)).map_err(Error::from)
    }

    /// Waits until there is a result, whatever it is.
    pub fn wait(&self) {
        let mut state = locked(&self.promise.state);
        while state.success.is_none() {
            state = self.promise.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits at most for `timeout`: false when the time is up.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let start = Instant::now();
        let mut state = locked(&self.promise.state);
        while state.success.is_none() {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return false;
            }
            state = self.promise.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Whether there is a result.
    pub fn is_ready(&self) -> bool {
        locked(&self.promise.state).success.is_some()
    }

    /// Whether the task succeeded; `None` while that is not known.
    pub fn is_successful(&self) -> Option<bool> {
        locked(&self.promise.state).success
    }

    /// Has `callback` called with the value, if the task succeeds. It runs in the pool's own thread before anybody who waits goes
    /// on: it must be quick, and must not wait for another task.
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
            callback(&result);
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
