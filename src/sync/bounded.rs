//! [`BoundedSemaphore`]: a [`Semaphore`] that never has more permits than it started with.

use super::semaphore::{MAX_PERMITS, Semaphore, SemaphoreOptions};
use crate::error::{Result, SegmentError};
use crate::segment::object::{BodyId, Object, Shared, create, handle_as_value};
use crate::segment::{At, Segment, session};
use std::ops::Deref;

/// A semaphore that cannot be released above its initial value: Python's `BoundedSemaphore`. One release too many, a mistake
/// in almost every program, is an error at once.
///
/// In the segment it is a [`Semaphore`] with a maximum, and can be opened as one; it has all its methods.
///
/// # Crash behaviour
/// As [`Semaphore`].
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let permits = shmkit::BoundedSemaphore::new(1)?;
/// let permit = permits.acquire()?;
/// drop(permit);
/// assert!(permits.release().is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BoundedSemaphore {
    semaphore: Semaphore,
}

/// What a bounded semaphore starts with.
#[derive(Debug, Clone, Copy)]
pub struct BoundedSemaphoreOptions {
    initial: u32,
}

impl BoundedSemaphoreOptions {
    fn whole(self) -> SemaphoreOptions {
        SemaphoreOptions { initial: self.initial, maximum: self.initial }
    }
}

impl Shared for BoundedSemaphore {
    type Options = BoundedSemaphoreOptions;

    fn kind() -> u32 {
        Semaphore::kind()
    }
    fn size(options: &BoundedSemaphoreOptions) -> Result<u64> {
        if options.initial == MAX_PERMITS {
            let (found, why) = (u64::from(options.initial), "it would have no bound");
            return Err(SegmentError::InvalidSize { what: "a bounded semaphore's value", found, why }.into());
        }
        Semaphore::size(&options.whole())
    }
    fn build(options: &BoundedSemaphoreOptions, start: *mut u8, id: BodyId) -> Result<()> {
        Semaphore::build(&options.whole(), start, id)
    }
    fn attach(object: Object) -> Result<Self> {
        let semaphore = Semaphore::attach(object)?;
        if semaphore.maximum() == MAX_PERMITS {
            let name = semaphore.object().reference.name().unwrap_or_else(|| "(unnamed)".to_owned());
            return Err(SegmentError::WrongKind { name, found: "semaphore", wanted: "bounded semaphore" }.into());
        }
        Ok(BoundedSemaphore { semaphore })
    }
    fn object(&self) -> &Object {
        self.semaphore.object()
    }
}

handle_as_value!(BoundedSemaphore);

impl BoundedSemaphore {
    /// A new one in the session segment, with `initial` permits and never more.
    ///
    /// # Errors
    /// `InvalidSize` from 2^31 - 1 on; `OutOfMemory`; `TooManyObjects`.
    pub fn new(initial: u32) -> Result<BoundedSemaphore> {
        BoundedSemaphore::new_in(&session()?, initial)
    }

    /// A new one in `segment`, with `initial` permits and never more.
    ///
    /// # Errors
    /// As [`BoundedSemaphore::new`].
    pub fn new_in(segment: &Segment, initial: u32) -> Result<BoundedSemaphore> {
        create(segment, None, &BoundedSemaphoreOptions { initial }, false)
    }
}

impl Deref for BoundedSemaphore {
    type Target = Semaphore;

    fn deref(&self) -> &Semaphore {
        &self.semaphore
    }
}

impl std::fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BoundedSemaphore(value={}/{})", self.value(), self.maximum())
    }
}

impl Segment {
    /// The bounded semaphore `name`, with one permit unless told otherwise.
    pub fn bounded_semaphore<'a>(&'a self, name: &'a str) -> At<'a, BoundedSemaphore> {
        At { segment: self, name, options: BoundedSemaphoreOptions { initial: 1 } }
    }
}

impl At<'_, BoundedSemaphore> {
    /// The permits it starts with and may have.
    #[must_use]
    pub fn initial(mut self, permits: u32) -> Self {
        self.options.initial = permits;
        self
    }
}
