//! [`Counter`]: a number that many count up at once.
//!
//! ```text
//! body   header | stripes | … | sum | … | sum | …                each on a cache line of its own
//!
//! add    the stripe of this process and thread += n               get   the sum of all stripes, modulo 2^64
//! ```
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | in `add` | the number before it, or after it | nobody needs to | nothing |
//! | in `take`, between two stripes | what was taken from the stripes so far is gone | nobody can | that, with the dead one's result |

use crate::error::{Result, corrupt};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, Object, Shared, create, handle_as_value};
use crate::segment::{At, Segment, atomic, fetch, session};
use shmkit_layouts::containers::{CounterBody, CounterStripe};
use shmkit_layouts::kinds::KIND_COUNTER;
use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What recovery does with counters: nothing.
pub(crate) const KIND: Kind = Kind::plain(KIND_COUNTER);

/// Bytes from the start of the own struct to the stripes.
const STRIPES: u64 = size_of::<CounterBody>() as u64;
const MOST_STRIPES: u32 = 1024;

thread_local! {
    /// This thread's number in the process, plus 1.
    static THREAD: Cell<u32> = const { Cell::new(0) };
}

/// A number of this thread: not those of others, as long as there are few.
fn thread() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    THREAD.with(|own| {
        if own.get() == 0 {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        own.get() - 1
    })
}

/// A number that any threads and processes count up and down, without a lock and mostly without sharing a cache line.
///
/// What was added before a [`Counter::get`] began is in what it gives; what is added meanwhile may be.
///
/// Crash behaviour: see the table at the head of the module `data::counter` in the sources and in `docs/reliability.md`.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let served = shmkit::Counter::new()?;
/// served.add(3)?;
/// served.subtract(1)?;
/// assert_eq!(served.get(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Counter {
    object: Object,
    stripes: *const CounterStripe,
    /// Stripes, less 1.
    mask: u32,
}

// SAFETY: the pointer is into the mapping, which `object` keeps; only atomics are reached through it.
unsafe impl Send for Counter {}
// SAFETY: as above.
unsafe impl Sync for Counter {}

/// What can be chosen of a counter at its creation.
#[derive(Debug, Clone, Copy)]
pub struct CounterOptions {
    stripes: u32,
}

impl Default for CounterOptions {
    fn default() -> CounterOptions {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        CounterOptions { stripes: (cpus as u32).clamp(1, MOST_STRIPES).next_power_of_two() }
    }
}

impl Shared for Counter {
    type Options = CounterOptions;

    fn kind() -> u32 {
        KIND_COUNTER
    }
    fn size(options: &CounterOptions) -> Result<u64> {
        Ok(STRIPES + u64::from(options.stripes) * size_of::<CounterStripe>() as u64)
    }
    fn build(options: &CounterOptions, start: *mut u8, _: BodyId) -> Result<()> {
        // SAFETY: the body has room for the struct and nobody else reaches it yet.
        unsafe { (&raw mut (*start.cast::<CounterBody>()).stripes).write(options.stripes) };
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let stripes = fetch!(object.body::<CounterBody>()?, stripes);
        if !stripes.is_power_of_two() {
            return Err(corrupt("stripes of a counter", object.offset(), u64::from(stripes)));
        }
        let first = object.part::<CounterStripe>(STRIPES, u64::from(stripes))?;
        Ok(Counter { object, stripes: first, mask: stripes - 1 })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Counter);

impl Counter {
    /// A new one in the session segment: 0.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new() -> Result<Counter> {
        Counter::new_in(&session()?)
    }

    /// A new one in `segment`: 0.
    ///
    /// # Errors
    /// As [`Counter::new`].
    pub fn new_in(segment: &Segment) -> Result<Counter> {
        create(segment, None, &CounterOptions::default(), false)
    }

    fn stripe(&self, number: u32) -> &AtomicU64 {
        let stripe = self.stripes.wrapping_add((number & self.mask) as usize);
        atomic!(stripe, sum)
    }

    fn own(&self) -> Result<&AtomicU64> {
        Ok(self.stripe(self.object.attachment().token()?.slot().wrapping_add(thread())))
    }

    /// Adds.
    ///
    /// # Errors
    /// `TooManyParticipants`, after a fork into a segment that is full.
    #[inline]
    pub fn add(&self, n: u64) -> Result<()> {
        // Relaxed: the number alone is shared.
        self.own()?.fetch_add(n, Ordering::Relaxed);
        Ok(())
    }

    /// Subtracts.
    ///
    /// # Errors
    /// As [`Counter::add`].
    #[inline]
    pub fn subtract(&self, n: u64) -> Result<()> {
        self.own()?.fetch_sub(n, Ordering::Relaxed);
        Ok(())
    }

    /// The number, modulo 2^64: one below 0 reads so as an `i64`.
    pub fn get(&self) -> u64 {
        (0..=self.mask).fold(0, |sum, number| sum.wrapping_add(self.stripe(number).load(Ordering::Relaxed)))
    }

    /// Takes what was counted and leaves 0: of several takers each gets a part, and nothing is lost or taken twice.
    pub fn take(&self) -> u64 {
        (0..=self.mask).fold(0, |sum, number| sum.wrapping_add(self.stripe(number).swap(0, Ordering::Relaxed)))
    }

    /// Its segment.
    pub fn segment(&self) -> Segment {
        self.object.segment()
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counter({})", self.get())
    }
}

impl Segment {
    /// The counter `name`.
    pub fn counter<'a>(&'a self, name: &'a str) -> At<'a, Counter> {
        At { segment: self, name, options: CounterOptions::default() }
    }
}
