//! [`Semaphore`]: a count of permits that anybody may give back.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | before the CAS of acquire or release | the old count | nobody needs to | nothing |
//! | holding a permit | a count that is one less | nobody: as in Python, permits have no owner | the permit |
//! | in release, after the CAS, before the wake | a permit and a sleeper | recovery wakes all; the sleeper looks again at the end of its slice | at most 1 s |

use crate::error::{Result, SegmentError, SyncError};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::wait::{self, Deadline};
use crate::segment::{At, Segment, atomic, fetch, session};
use shmkit_layouts::kinds::KIND_SEMAPHORE;
use shmkit_layouts::objects::SemaphoreBody;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What recovery does with semaphores: the dead one may have released and not woken a sleeper.
pub(crate) const KIND: Kind =
    Kind { recover: |attachment, body, _| wake(attachment, body), wake, ..Kind::plain(KIND_SEMAPHORE) };

fn wake(attachment: &crate::segment::Attachment, body: &crate::segment::Extent) {
    if let Ok(semaphore) = attachment.pointer::<SemaphoreBody>(body.offset + HEADER, "semaphore") {
        wait::wake_everybody(atomic!(semaphore, event));
    }
}

/// The most permits a semaphore can have, as in Python.
pub const MAX_PERMITS: u32 = i32::MAX as u32;

/// A counting semaphore: Python's `Semaphore`. See [`crate::BoundedSemaphore`] for one with a limit, and
/// [`crate::PermitSemaphore`] for one whose permits come back when their holder dies.
///
/// Permits have no owner: those of a killed process are lost.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let permits = shmkit::Semaphore::new(2)?;
/// let one = permits.acquire()?;
/// assert_eq!(permits.value(), 1);
/// drop(one);
/// permits.release()?;
/// assert_eq!(permits.value(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Semaphore {
    object: Object,
    body: *const SemaphoreBody,
    maximum: u32,
}

// SAFETY: the pointer is into the mapping, which `object` keeps; only atomics are reached through it.
unsafe impl Send for Semaphore {}
// SAFETY: as above.
unsafe impl Sync for Semaphore {}

/// What a semaphore starts with.
#[derive(Debug, Clone, Copy)]
pub struct SemaphoreOptions {
    pub(super) initial: u32,
    pub(super) maximum: u32,
}

impl Shared for Semaphore {
    type Options = SemaphoreOptions;

    fn kind() -> u32 {
        KIND_SEMAPHORE
    }
    fn size(options: &SemaphoreOptions) -> Result<u64> {
        if options.maximum > MAX_PERMITS || options.initial > options.maximum {
            let why = "it is more than the maximum, or that is more than 2^31 - 1";
            let found = u64::from(options.initial.max(options.maximum));
            return Err(SegmentError::InvalidSize { what: "a semaphore's value", found, why }.into());
        }
        Ok(size_of::<SemaphoreBody>() as u64)
    }
    fn build(options: &SemaphoreOptions, start: *mut u8, _: BodyId) -> Result<()> {
        let body = start.cast::<SemaphoreBody>();
        atomic!(body, count).store(options.initial, Ordering::Relaxed);
        // SAFETY: the body has room for it, is 64-byte aligned, and nobody else reaches it yet.
        unsafe { (&raw mut (*body).maximum).write(options.maximum) };
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body::<SemaphoreBody>()?;
        let maximum = fetch!(body, maximum);
        if maximum > MAX_PERMITS {
            return Err(crate::error::corrupt("semaphore's maximum", object.offset(), u64::from(maximum)));
        }
        Ok(Semaphore { object, body, maximum })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Semaphore);

impl Semaphore {
    /// A new one in the session segment, with `initial` permits.
    ///
    /// # Errors
    /// `InvalidSize` above 2^31 - 1; `OutOfMemory`; `TooManyObjects`.
    pub fn new(initial: u32) -> Result<Semaphore> {
        Semaphore::new_in(&session()?, initial)
    }

    /// A new one in `segment`, with `initial` permits.
    ///
    /// # Errors
    /// As [`Semaphore::new`].
    pub fn new_in(segment: &Segment, initial: u32) -> Result<Semaphore> {
        create(segment, None, &SemaphoreOptions { initial, maximum: MAX_PERMITS }, false)
    }

    /// A new one in the session segment that never has more than its `initial` permits: a [`crate::BoundedSemaphore`] by
    /// another name.
    ///
    /// # Errors
    /// As [`Semaphore::new`].
    pub fn bounded(initial: u32) -> Result<Semaphore> {
        create(&session()?, None, &SemaphoreOptions { initial, maximum: initial }, false)
    }

    /// Permits there are at this instant.
    pub fn value(&self) -> u32 {
        atomic!(self.body, count).load(Ordering::Relaxed).min(self.maximum)
    }

    pub(super) fn event(&self) -> &AtomicU32 {
        atomic!(self.body, event)
    }

    /// Whether there is a permit.
    pub(super) fn has_permit(&self) -> bool {
        // Acquire: as in `take`, for those who look only.
        atomic!(self.body, count).load(Ordering::Acquire) > 0
    }

    /// The most permits it may have.
    pub fn maximum(&self) -> u32 {
        self.maximum
    }

    fn take(&self) -> bool {
        let count = atomic!(self.body, count);
        let mut seen = count.load(Ordering::Relaxed);
        while seen > 0 {
            // Acquire pairs with the release in `release`.
            match count.compare_exchange_weak(seen, seen - 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    fn acquire_until(&self, deadline: Deadline) -> Result<bool> {
        let attempt = || Ok(self.take().then_some(()));
        let taken = wait::wait(self.object.attachment(), self.event(), deadline, attempt)?.is_some();
        failpoint!("semaphore.acquired");
        Ok(taken)
    }

    fn guard(&self) -> SemaphoreGuard<'_> {
        SemaphoreGuard { semaphore: self }
    }

    /// Waits for a permit. It goes back when the guard is dropped.
    ///
    /// # Errors
    /// When the segment cannot be joined again after a fork.
    pub fn acquire(&self) -> Result<SemaphoreGuard<'_>> {
        self.acquire_until(Deadline::NEVER)?;
        Ok(self.guard())
    }

    /// Waits for a permit, at most for `timeout`.
    ///
    /// # Errors
    /// `TimedOut`.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<SemaphoreGuard<'_>> {
        if self.acquire_until(Deadline::after(timeout))? {
            return Ok(self.guard());
        }
        Err(SyncError::TimedOut { what: "semaphore", waited: timeout, holder: None }.into())
    }

    /// Takes a permit if there is one.
    ///
    /// # Errors
    /// `WouldBlock`.
    pub fn try_acquire(&self) -> Result<SemaphoreGuard<'_>> {
        if self.take() {
            return Ok(self.guard());
        }
        Err(SyncError::WouldBlock { what: "semaphore", holder: None }.into())
    }

    /// Gives a permit back, or a new one: anybody may.
    ///
    /// # Errors
    /// `TooManyPermits` above its maximum.
    pub fn release(&self) -> Result<()> {
        let count = atomic!(self.body, count);
        let mut seen = count.load(Ordering::Relaxed);
        loop {
            if seen >= self.maximum {
                return Err(SyncError::TooManyPermits { maximum: self.maximum, asked: u64::from(seen) + 1 }.into());
            }
            failpoint!("semaphore.before_release");
            // SeqCst: the permit is there before the look at the wait word; pairs with the CAS in `take`.
            match count.compare_exchange_weak(seen, seen + 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        failpoint!("semaphore.released");
        wait::publish_one(self.event());
        Ok(())
    }
}

/// A permit. Given back when dropped; [`SemaphoreGuard::forget`] keeps it.
#[must_use = "the permit goes back at once when the guard is dropped"]
pub struct SemaphoreGuard<'a> {
    semaphore: &'a Semaphore,
}

impl SemaphoreGuard<'_> {
    /// Keeps the permit: somebody calls [`Semaphore::release`].
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for SemaphoreGuard<'_> {
    fn drop(&mut self) {
        // Above the maximum there is nothing to give back to: somebody released more than was taken.
        let _ = self.semaphore.release();
    }
}

impl std::fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Semaphore(value={})", self.value())
    }
}

impl Segment {
    /// The semaphore `name`, with one permit unless told otherwise.
    pub fn semaphore<'a>(&'a self, name: &'a str) -> At<'a, Semaphore> {
        At { segment: self, name, options: SemaphoreOptions { initial: 1, maximum: MAX_PERMITS } }
    }
}

impl At<'_, Semaphore> {
    /// The permits it starts with.
    #[must_use]
    pub fn initial(mut self, permits: u32) -> Self {
        self.options.initial = permits;
        self
    }

    /// The most permits it may have.
    #[must_use]
    pub fn maximum(mut self, permits: u32) -> Self {
        self.options.maximum = permits;
        self
    }
}
