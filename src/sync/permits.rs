//! [`PermitSemaphore`]: permits that have owners, so that those of the dead come back.
//!
//! ```text
//! body   permits | event | owners[permits]: u32, the token of who holds that permit; 0 = free
//!
//! acquire   CAS owners[i] 0→me, where to look first is a private hint; none free: wait on event
//! release   CAS owners[i] me→0; publish to one
//! death     every word that names the dead: CAS → 0; wake everybody
//! ```
//! There is no count: a scan of the words is the truth.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | before the CAS of acquire | a free permit | nobody needs to | nothing |
//! | holding permits | words that name a dead participant | recovery, or a waiter at the end of its slice, frees them | nothing: the permits come back |
//! | in release, after the CAS, before the wake | a free permit and a sleeper | recovery wakes all; the sleeper looks again at the end of its slice | at most 1 s |
//! | asleep in acquire | a mark that somebody waits | nobody needs to: one wake without a sleeper | nothing |

use crate::error::{Result, SegmentError, SyncError, corrupt};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::wait::{self, Deadline};
use crate::segment::{At, Attachment, Dead, Extent, Segment, atomic, fetch, session};
use shmkit_layouts::kinds::KIND_PERMITS;
use shmkit_layouts::objects::PermitsBody;
use shmkit_layouts::words::Token;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What recovery does with permits.
pub(crate) const KIND: Kind = Kind { recover, wake, ..Kind::plain(KIND_PERMITS) };

fn recover(attachment: &Attachment, body: &Extent, dead: Dead) {
    let Ok(permits) = attachment.pointer::<PermitsBody>(body.offset + HEADER, "permits") else { return };
    let room = (body.len - HEADER).saturating_sub(size_of::<PermitsBody>() as u64) / 4;
    let count = u64::from(fetch!(permits, permits)).min(room) as usize;
    // SAFETY: `count` words follow the struct inside the extent, which lies inside the mapping; they are atomics.
    let owners = unsafe { std::slice::from_raw_parts(permits.wrapping_add(1).cast::<AtomicU32>(), count) };
    for owner in owners {
        let _ = owner.compare_exchange(dead.token().0, 0, Ordering::AcqRel, Ordering::Relaxed);
        failpoint!("permits.recovered");
    }
    wait::wake_everybody(atomic!(permits, event));
}

fn wake(attachment: &Attachment, body: &Extent) {
    if let Ok(permits) = attachment.pointer::<PermitsBody>(body.offset + HEADER, "permits") {
        wait::wake_everybody(atomic!(permits, event));
    }
}

/// The most permits there can be.
const MOST: u32 = 1 << 20;

/// A semaphore whose permits belong to the process that took them. When it dies, they come back.
///
/// Unlike a [`crate::Semaphore`], only who took a permit can give it back, and the number of permits is fixed. Taking one looks at
/// the permits one after the other: it is meant for tens or hundreds, not for millions.
///
/// # Crash behaviour
/// Permits of a killed process come back at once if its parent started it with [`crate::Process`], else when a waiter's slice
/// ends (50 ms at first). A stopped process keeps its permits.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let licences = shmkit::PermitSemaphore::new(2)?;
/// let mine = licences.acquire()?;
/// assert_eq!(licences.value(), 1);
/// drop(mine);
/// assert_eq!(licences.value(), 2);
/// assert!(licences.release().is_err(), "this process holds none");
/// # Ok(())
/// # }
/// ```
pub struct PermitSemaphore {
    object: Object,
    body: *const PermitsBody,
    owners: *const AtomicU32,
    permits: u32,
    /// Where to look first. Nothing depends on it.
    hint: AtomicU32,
}

// SAFETY: the pointers are into the mapping, which `object` keeps; only atomics are reached through them.
unsafe impl Send for PermitSemaphore {}
// SAFETY: as above.
unsafe impl Sync for PermitSemaphore {}

/// How many permits there are.
#[derive(Debug, Clone, Copy)]
pub struct PermitSemaphoreOptions {
    permits: u32,
}

impl Shared for PermitSemaphore {
    type Options = PermitSemaphoreOptions;

    fn kind() -> u32 {
        KIND_PERMITS
    }
    fn size(options: &PermitSemaphoreOptions) -> Result<u64> {
        if !(1..=MOST).contains(&options.permits) {
            let (found, why) = (u64::from(options.permits), "it must be 1 to 2^20");
            return Err(SegmentError::InvalidSize { what: "the number of permits", found, why }.into());
        }
        Ok(size_of::<PermitsBody>() as u64 + u64::from(options.permits) * 4)
    }
    fn build(options: &PermitSemaphoreOptions, start: *mut u8, _: BodyId) -> Result<()> {
        // SAFETY: the body has room for it, is 64-byte aligned, and nobody else reaches it yet.
        unsafe { (&raw mut (*start.cast::<PermitsBody>()).permits).write(options.permits) };
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body::<PermitsBody>()?;
        let permits = fetch!(body, permits);
        if !(1..=MOST).contains(&permits) {
            return Err(corrupt("number of permits", object.offset(), u64::from(permits)));
        }
        let owners = object.part::<AtomicU32>(size_of::<PermitsBody>() as u64, u64::from(permits))?;
        Ok(PermitSemaphore { object, body, owners, permits, hint: AtomicU32::new(0) })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(PermitSemaphore);

impl PermitSemaphore {
    /// A new one in the session segment, with `permits` permits.
    ///
    /// # Errors
    /// `InvalidSize` for 0 and above 2^20; `OutOfMemory`; `TooManyObjects`.
    pub fn new(permits: u32) -> Result<PermitSemaphore> {
        PermitSemaphore::new_in(&session()?, permits)
    }

    /// A new one in `segment`, with `permits` permits.
    ///
    /// # Errors
    /// As [`PermitSemaphore::new`].
    pub fn new_in(segment: &Segment, permits: u32) -> Result<PermitSemaphore> {
        create(segment, None, &PermitSemaphoreOptions { permits }, false)
    }

    fn owners(&self) -> &[AtomicU32] {
        // SAFETY: `attach` checked that so many words lie inside the body; they are atomics.
        unsafe { std::slice::from_raw_parts(self.owners, self.permits as usize) }
    }

    /// How many permits there are, free or not.
    pub fn permits(&self) -> u32 {
        self.permits
    }

    /// How many are free at this instant. Those of the dead are not until they are recovered.
    pub fn value(&self) -> u32 {
        self.owners().iter().filter(|owner| owner.load(Ordering::Relaxed) == 0).count() as u32
    }

    /// Whether one is free.
    pub(super) fn has_free(&self) -> bool {
        self.owners().iter().any(|owner| owner.load(Ordering::Acquire) == 0)
    }

    pub(super) fn event(&self) -> &AtomicU32 {
        atomic!(self.body, event)
    }

    /// Takes a free permit and gives its index.
    fn take(&self) -> Result<Option<u32>> {
        let token = self.object.attachment().token()?;
        let first = self.hint.load(Ordering::Relaxed) % self.permits;
        let (before, after) = self.owners().split_at(first as usize);
        for (step, owner) in (0..).zip(after.iter().chain(before)) {
            // SeqCst pairs with the release's: acquire what the last holder did.
            if owner.load(Ordering::Acquire) == 0
                && owner.compare_exchange(0, token.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            {
                let index = (first + step) % self.permits;
                self.hint.store(index + 1, Ordering::Relaxed);
                failpoint!("permits.taken");
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    fn acquire_until(&self, deadline: Deadline) -> Result<PermitGuard<'_>> {
        failpoint!("permits.before_take");
        match wait::wait(self.object.attachment(), self.event(), deadline, || self.take())? {
            Some(index) => Ok(PermitGuard { semaphore: self, index }),
            None => {
                let (waited, holder) = (deadline.waited(), self.holder());
                Err(SyncError::TimedOut { what: "permit", waited, holder }.into())
            }
        }
    }

    /// Somebody who has a permit, for messages.
    fn holder(&self) -> Option<crate::error::Holder> {
        self.owners().iter().find_map(|owner| self.object.attachment().holder(Token(owner.load(Ordering::Relaxed))))
    }

    /// Waits for a permit. It goes back when the guard is dropped, or this process dies.
    ///
    /// # Errors
    /// `Interrupted`; when the segment cannot be joined again after a fork.
    pub fn acquire(&self) -> Result<PermitGuard<'_>> {
        self.acquire_until(Deadline::NEVER)
    }

    /// Waits for a permit, at most for `timeout`.
    ///
    /// # Errors
    /// `TimedOut`, which names one of the holders, and as [`PermitSemaphore::acquire`].
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<PermitGuard<'_>> {
        self.acquire_until(Deadline::after(timeout))
    }

    /// Takes a permit if there is one.
    ///
    /// # Errors
    /// `WouldBlock`, which names one of the holders.
    pub fn try_acquire(&self) -> Result<PermitGuard<'_>> {
        match self.take()? {
            Some(index) => Ok(PermitGuard { semaphore: self, index }),
            None => Err(SyncError::WouldBlock { what: "permit", holder: self.holder() }.into()),
        }
    }

    /// Gives back one of the permits of this process, for those who keep no guards.
    ///
    /// # Errors
    /// `NotOwner` if it holds none.
    pub fn release(&self) -> Result<()> {
        self.give_back(0)
    }

    /// Gives back the permit `index`, or another one of this process if somebody has given that back already.
    fn give_back(&self, index: u32) -> Result<()> {
        let token = self.object.attachment().token()?;
        let (before, after) = self.owners().split_at(index as usize);
        failpoint!("permits.before_release");
        // SeqCst: the permit is free before the look at the wait word; pairs with the CAS in `take`.
        let freed = after.iter().chain(before).any(|owner| {
            owner.load(Ordering::Relaxed) == token.0
                && owner.compare_exchange(token.0, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        });
        if !freed {
            return Err(SyncError::NotOwner { what: "permit", by: "this process" }.into());
        }
        failpoint!("permits.released");
        wait::publish_one(self.event());
        Ok(())
    }
}

impl Clone for PermitSemaphore {
    fn clone(&self) -> Self {
        let hint = AtomicU32::new(self.hint.load(Ordering::Relaxed));
        PermitSemaphore { object: self.object.clone(), hint, ..*self }
    }
}

impl std::fmt::Debug for PermitSemaphore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PermitSemaphore({} of {})", self.value(), self.permits)
    }
}

/// A permit of this process. Given back when dropped; [`PermitGuard::forget`] keeps it.
#[must_use = "the permit goes back at once when the guard is dropped"]
pub struct PermitGuard<'a> {
    semaphore: &'a PermitSemaphore,
    index: u32,
}

impl PermitGuard<'_> {
    /// Keeps the permit until this process calls [`PermitSemaphore::release`], leaves the segment, or dies.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for PermitGuard<'_> {
    fn drop(&mut self) {
        // In a forked child the permit is the parent's, and stays so.
        let _ = self.semaphore.give_back(self.index);
    }
}

impl std::fmt::Debug for PermitGuard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PermitGuard({})", self.index)
    }
}

impl Segment {
    /// The permit semaphore `name`, with one permit unless told otherwise.
    pub fn permit_semaphore<'a>(&'a self, name: &'a str) -> At<'a, PermitSemaphore> {
        At { segment: self, name, options: PermitSemaphoreOptions { permits: 1 } }
    }
}

impl At<'_, PermitSemaphore> {
    /// How many permits there are.
    #[must_use]
    pub fn permits(mut self, permits: u32) -> Self {
        self.options.permits = permits;
        self
    }
}
