//! [`Event`]: a flag that one waits for.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | before the flag is stored | the old state | nobody needs to | nothing |
//! | after the flag is stored, before the wake | a set event with sleepers | recovery wakes all; a sleeper looks again at the end of its slice | at most 1 s |
//! | while waiting | a mark that somebody waits | nobody needs to: one wake without a sleeper | nothing |

use crate::error::Result;
use crate::kinds::Kind;
use crate::segment::object::{BodyId, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::wait::{self, Deadline};
use crate::segment::{At, Segment, atomic, session};
use shmkit_layouts::kinds::KIND_EVENT;
use shmkit_layouts::objects::EventBody;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What recovery does with events: the dead one may have set it and not woken the sleepers.
pub(crate) const KIND: Kind =
    Kind { recover: |attachment, body, _| wake(attachment, body), wake, ..Kind::plain(KIND_EVENT) };

fn wake(attachment: &crate::segment::Attachment, body: &crate::segment::Extent) {
    if let Ok(event) = attachment.pointer::<EventBody>(body.offset + HEADER, "event") {
        wait::wake_everybody(atomic!(event, event));
    }
}

/// A flag that threads and processes can set, clear and wait for.
///
/// Crash behaviour: nobody is hurt by the death of a waiter; if the one who sets it is killed between the store and the
/// wake, sleepers notice within a second.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let ready = shmkit::Event::new()?;
/// assert!(!ready.wait_timeout(std::time::Duration::from_millis(1))?);
/// ready.set();
/// ready.wait()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Event {
    object: Object,
    body: *const EventBody,
}

// SAFETY: the pointer is into the mapping, which `object` keeps; only atomics are reached through it.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

/// An event has nothing to choose.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventOptions {}

impl Shared for Event {
    type Options = EventOptions;

    fn kind() -> u32 {
        KIND_EVENT
    }
    fn size(_: &EventOptions) -> Result<u64> {
        Ok(size_of::<EventBody>() as u64)
    }
    fn build(_: &EventOptions, _: *mut u8, _: BodyId) -> Result<()> {
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body()?;
        Ok(Event { object, body })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Event);

impl Event {
    /// A new one in the session segment, not set.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new() -> Result<Event> {
        Event::new_in(&session()?)
    }

    /// A new one in `segment`, not set.
    ///
    /// # Errors
    /// As [`Event::new`].
    pub fn new_in(segment: &Segment) -> Result<Event> {
        create(segment, None, &EventOptions {}, false)
    }

    pub(super) fn event(&self) -> &AtomicU32 {
        atomic!(self.body, event)
    }

    /// Sets it and wakes everybody who waits. Never blocks.
    pub fn set(&self) {
        failpoint!("event.before_set");
        // Release pairs with the acquire in `is_set`: what was done before `set` is seen after `wait`.
        atomic!(self.body, set).store(1, Ordering::Release);
        failpoint!("event.set");
        wait::publish_all(self.event());
    }

    /// Clears it.
    pub fn clear(&self) {
        // Release: nobody waits for a clear event, but who sees it cleared sees what was done before.
        atomic!(self.body, set).store(0, Ordering::Release);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        atomic!(self.body, set).load(Ordering::Acquire) != 0
    }

    /// Waits until it is set.
    ///
    /// # Errors
    /// When the segment cannot be joined again after a fork.
    pub fn wait(&self) -> Result<()> {
        self.wait_until(Deadline::NEVER).map(drop)
    }

    /// Waits until it is set, at most for `timeout`: false when the time is up.
    ///
    /// # Errors
    /// As [`Event::wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        self.wait_until(Deadline::after(timeout))
    }

    fn wait_until(&self, deadline: Deadline) -> Result<bool> {
        let attempt = || Ok(self.is_set().then_some(()));
        Ok(wait::wait(self.object.attachment(), self.event(), deadline, attempt)?.is_some())
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Event({})", if self.is_set() { "set" } else { "unset" })
    }
}

impl Segment {
    /// The event `name`.
    pub fn event<'a>(&'a self, name: &'a str) -> At<'a, Event> {
        At { segment: self, name, options: EventOptions {} }
    }
}
