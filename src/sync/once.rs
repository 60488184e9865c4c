//! [`Once`]: something that is done once, by one of many processes.
//!
//! ```text
//! body   word: the runner's lock word | done | event
//!
//! call   done = 1: over. Else lock word; done = 1 meanwhile: over; run; done = 1 (the commit); unlock; publish event to all
//! ```
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | waiting for the runner | nothing | nobody needs to | nothing |
//! | running | a word that names a dead participant | recovery, or a caller within one slice (50 ms), hands it on: that caller runs it again | what was half done: the next runner is told |
//! | `done`, the word not unlocked | the same | the same; the next caller finds that it is done | nothing |
//! | the word unlocked, before the wake | those who only wait, asleep | recovery wakes all; they look again at the end of their slice | at most 1 s |

use super::mutex::Held;
use crate::error::{Error, Result};
use crate::kinds::Kind;
use crate::segment::claim::{self, Acquired};
use crate::segment::object::{BodyId, HEADER, Object, Shared, create, handle_as_value};
use crate::segment::wait::{self, Deadline};
use crate::segment::{At, Segment, atomic, session};
use shmkit_layouts::kinds::KIND_ONCE;
use shmkit_layouts::objects::OnceBody;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What recovery does: it hands the runner's word on.
pub(crate) const KIND: Kind = Kind {
    recover: |attachment, body, dead| {
        if let Ok(once) = attachment.pointer::<OnceBody>(body.offset + HEADER, "once") {
            claim::recover_word(atomic!(once, word), |owner| owner == dead.token());
            wait::wake_everybody(atomic!(once, event));
        }
    },
    wake: |attachment, body| {
        if let Ok(once) = attachment.pointer::<OnceBody>(body.offset + HEADER, "once") {
            wait::wake_everybody(atomic!(once, event));
        }
    },
    ..Kind::plain(KIND_ONCE)
};

/// Runs something once, whichever process comes first; the others wait until it is done.
///
/// # Crash behaviour
/// If the process that runs it is killed or panics, one of those who wait, or the next who comes, runs it again, and
/// [`Once::try_call`] tells it so. Nobody waits for the dead.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let loaded = shmkit::Once::new()?;
/// let table = shmkit::Value::new(0u64)?;
/// assert!(loaded.call(|| table.set(42).unwrap())?, "run by this call");
/// assert!(!loaded.call(|| unreachable!())?, "done already");
/// assert_eq!(table.get()?, 42);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Once {
    object: Object,
    body: *const OnceBody,
}

// SAFETY: the pointer is into the mapping, which `object` keeps; only atomics are reached through it.
unsafe impl Send for Once {}
// SAFETY: as above.
unsafe impl Sync for Once {}

/// There is nothing to choose.
#[derive(Debug, Clone, Copy, Default)]
pub struct OnceOptions {}

impl Shared for Once {
    type Options = OnceOptions;

    fn kind() -> u32 {
        KIND_ONCE
    }
    fn size(_: &OnceOptions) -> Result<u64> {
        Ok(size_of::<OnceBody>() as u64)
    }
    fn build(_: &OnceOptions, _: *mut u8, _: BodyId) -> Result<()> {
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body()?;
        Ok(Once { object, body })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Once);

impl Once {
    /// A new one in the session segment, not done.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new() -> Result<Once> {
        Once::new_in(&session()?)
    }

    /// A new one in `segment`, not done.
    ///
    /// # Errors
    /// As [`Once::new`].
    pub fn new_in(segment: &Segment) -> Result<Once> {
        create(segment, None, &OnceOptions {}, false)
    }

    fn word(&self) -> &AtomicU32 {
        atomic!(self.body, word)
    }

    pub(super) fn event(&self) -> &AtomicU32 {
        atomic!(self.body, event)
    }

    /// Whether it is done.
    pub fn is_done(&self) -> bool {
        // Acquire pairs with the release in `try_call`: what was done is seen.
        atomic!(self.body, done).load(Ordering::Acquire) != 0
    }

    /// Whether somebody runs it at this instant; the dead do until they are recovered.
    pub fn is_running(&self) -> bool {
        !self.is_done() && claim::is_locked(self.word())
    }

    /// Runs `run` if it is not done, or waits until whoever runs it has done so. True if this call ran it.
    ///
    /// `run` must not call the same `Once` again: it would wait for itself.
    ///
    /// # Errors
    /// `Interrupted`; `Corrupt`. It is not done then.
    pub fn call(&self, run: impl FnOnce()) -> Result<bool> {
        self.try_call(|_| {
            run();
            Ok::<_, Error>(())
        })
    }

    /// As [`Once::call`], for what can fail: then it is not done, and the next caller runs his. `run` is told whether somebody died
    /// or panicked running it before, and may have left something half done.
    ///
    /// # Errors
    /// What `run` gives, and as [`Once::call`].
    pub fn try_call<E: From<Error>>(&self, run: impl FnOnce(bool) -> Result<(), E>) -> Result<bool, E> {
        if self.is_done() {
            return Ok(false);
        }
        let (mut held, how) = Held::lock(&self.object, self.word(), "once", Deadline::NEVER)?;
        if self.is_done() {
            return Ok(false);
        }
        failpoint!("once.claimed");
        // Should this run fail, too, the next one is told as this one was.
        held.abandon = how == Acquired::OwnerDied;
        run(held.abandon)?;
        held.abandon = false;
        failpoint!("once.run");
        atomic!(self.body, done).store(1, Ordering::Release);
        failpoint!("once.done");
        drop(held);
        failpoint!("once.unlocked");
        wait::publish_all(self.event());
        Ok(true)
    }

    /// Waits until it is done, without doing it.
    ///
    /// # Errors
    /// `Interrupted`; when the segment cannot be joined again after a fork.
    pub fn wait(&self) -> Result<()> {
        self.wait_until(Deadline::NEVER).map(drop)
    }

    /// As [`Once::wait`], at most for `timeout`: false when the time is up.
    ///
    /// # Errors
    /// As [`Once::wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        self.wait_until(Deadline::after(timeout))
    }

    fn wait_until(&self, deadline: Deadline) -> Result<bool> {
        let attempt = || Ok(self.is_done().then_some(()));
        Ok(wait::wait(self.object.attachment(), self.event(), deadline, attempt)?.is_some())
    }
}

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match (self.is_done(), self.is_running()) {
            (true, _) => "done",
            (false, true) => "running",
            (false, false) => "new",
        };
        write!(f, "Once({state})")
    }
}

impl Segment {
    /// The `Once` called `name`.
    pub fn once<'a>(&'a self, name: &'a str) -> At<'a, Once> {
        At { segment: self, name, options: OnceOptions {} }
    }
}
