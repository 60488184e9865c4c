//! [`Async`]: waiting for objects in tokio's tasks, without a thread for each.

use super::{Event, Once, PermitSemaphore, Readiness, Semaphore, Waitable, wait_any};
use crate::error::{Error, Result, SyncError};
use crate::sync::{permits::PermitGuard, semaphore::SemaphoreGuard};
use std::ops::Deref;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An object that tokio's tasks wait for (feature `tokio`).
///
/// A task that waits takes no thread; one thread for each process, as for every [`Readiness`], looks after all. Every wait can be
/// dropped at any point, as by `select!` or a time-out: nothing was taken then. Many tasks may wait for one `Async`, and the
/// object's own methods are there too.
///
/// | of | waits by |
/// |---|---|
/// | [`Queue`](crate::Queue), [`JoinableQueue`](crate::JoinableQueue), [`Consumer`](crate::channel::Consumer) | `get`, `recv` |
/// | [`PodQueue`](crate::PodQueue) | `get`, `recv` |
/// | [`Receiver`](crate::channel::Receiver) | `recv` |
/// | [`Connection`](crate::channel::Connection) | `recv`, `recv_bytes` |
/// | [`Semaphore`], [`PermitSemaphore`] | `acquire` |
/// | [`Event`], [`Once`] | `wait` |
/// | [`Process`](crate::Process) | `join` |
/// | all | `ready` |
///
/// # Crash behaviour
/// As for one who waits at the object itself.
///
/// # Examples
/// ```
/// use shmkit::{Queue, sync::Async};
///
/// # fn main() -> shmkit::Result<()> {
/// # tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let jobs = Queue::<String>::bounded(8)?;
/// let waiting = Async::new(jobs.clone())?;
/// jobs.put("hello".to_owned())?;
/// assert_eq!(waiting.recv().await?, "hello");
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug)]
pub struct Async<W> {
    object: W,
    readiness: AsyncFd<Readiness>,
}

impl<W: Waitable> Async<W> {
    /// Lets tokio's tasks wait for `object`. In a runtime whose IO is enabled.
    ///
    /// # Errors
    /// As [`Readiness::new`].
    ///
    /// # Panics
    /// Outside of a runtime, as tokio does.
    pub fn new(object: W) -> Result<Async<W>> {
        let readiness = Readiness::new(&object)?;
        // SAFETY: a `Readiness` owns one open descriptor from its making to its drop, and always gives that one.
        let readiness =
            unsafe { AsyncFd::register_with_interest(readiness, Interest::READABLE) }.map_err(std::io::Error::from)?;
        Ok(Async { object, readiness })
    }

    /// The object.
    pub fn into_inner(self) -> W {
        self.object
    }

    /// Waits until the object is ready. Others may take what there is before this task does.
    ///
    /// # Errors
    /// When the runtime has ended; `NotOwner` in a forked child.
    pub async fn ready(&self) -> Result<()> {
        // Not what the descriptor remembers: that may be taken by now.
        self.take(|object| Ok((!wait_any(&[object], Some(Duration::ZERO))?.is_empty()).then_some(()))).await
    }

    /// Waits until `attempt` gives something. It must not wait itself.
    pub(crate) async fn take<'a, R: 'a>(&'a self, mut attempt: impl FnMut(&'a W) -> Result<Option<R>>) -> Result<R> {
        loop {
            if let Some(taken) = attempt(&self.object)? {
                return Ok(taken);
            }
            let mut readable = self.readiness.readable().await?;
            // First tokio forgets, then it is armed: what comes in between is told again.
            readable.clear_ready();
            self.readiness.get_ref().rearm()?;
        }
    }
}

impl<W> Deref for Async<W> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.object
    }
}

/// `WouldBlock` is not yet.
fn not_yet<R>(attempt: Result<R>) -> Result<Option<R>> {
    match attempt {
        Ok(taken) => Ok(Some(taken)),
        Err(Error::Sync(SyncError::WouldBlock { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Async<Semaphore> {
    /// Waits for a permit. It goes back when the guard is dropped.
    ///
    /// # Errors
    /// As [`Async::ready`].
    pub async fn acquire(&self) -> Result<SemaphoreGuard<'_>> {
        self.take(|permits| not_yet(permits.try_acquire())).await
    }
}

impl Async<PermitSemaphore> {
    /// Waits for a permit. It goes back when the guard is dropped, or this process dies.
    ///
    /// # Errors
    /// As [`Async::ready`].
    pub async fn acquire(&self) -> Result<PermitGuard<'_>> {
        self.take(|permits| not_yet(permits.try_acquire())).await
    }
}

impl Async<Event> {
    /// Waits until it is set.
    ///
    /// # Errors
    /// As [`Async::ready`].
    pub async fn wait(&self) -> Result<()> {
        self.take(|event| Ok(event.is_set().then_some(()))).await
    }
}

impl Async<Once> {
    /// Waits until it is done.
    ///
    /// # Errors
    /// As [`Async::ready`].
    pub async fn wait(&self) -> Result<()> {
        self.take(|once| Ok(once.is_done().then_some(()))).await
    }
}
