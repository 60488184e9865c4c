//! The session segment: what a program that names nothing gets, shared with all the processes it starts.

use super::{Segment, locked_unforked};
use crate::error::Result;
use std::ops::Deref;
use std::sync::Mutex;

static SESSION: Mutex<Option<Segment>> = Mutex::new(None);

/// The session segment: made by the root process at its first use and inherited by all its children.
///
/// It is a memfd, freed by the kernel when the whole tree of processes is gone. With `SHMKIT_SESSION=name` in the environment it
/// is the named segment `name`, opened or created; with `SHMKIT_SESSION_FD=number`, which
/// [`Process::command`](crate::Process::command) sets, the one behind that descriptor.
///
/// # Errors
/// As [`super::SegmentBuilder::anonymous`].
pub fn session() -> Result<Segment> {
    let mut session = locked_unforked(&SESSION);
    if let Some(segment) = &*session {
        return Ok(segment.clone());
    }
    let builder = Segment::builder().max_participants(1024);
    let number = crate::process::environment("SHMKIT_SESSION_FD").and_then(|number| number.parse().ok());
    let made = match (crate::process::environment("SHMKIT_SESSION"), number) {
        (Some(name), _) => builder.policy(super::LifePolicy::OnLastDetach).open_or_create(&name)?,
        (None, Some(number)) => Segment::open_descriptor_of(std::process::id(), number)?,
        (None, None) => builder.anonymous("session")?,
    };
    *session = Some(made.clone());
    Ok(made)
}

/// The session of a child is its parent's.
pub(crate) fn inherit(segment: Segment) {
    *locked_unforked(&SESSION) = Some(segment);
}

/// A separate place for objects: an anonymous segment of its own, instead of the session's.
///
/// It is a [`Segment`] and has all its methods; every object type has a `new_in(&segment)` too.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let context = shmkit::Context::new()?;
/// let lock = shmkit::Lock::new_in(&context)?;
/// # drop(lock);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Context {
    segment: Segment,
}

impl Context {
    /// A new one.
    ///
    /// # Errors
    /// As [`super::SegmentBuilder::anonymous`].
    pub fn new() -> Result<Context> {
        Ok(Context { segment: Segment::builder().anonymous("context")? })
    }
}

impl Deref for Context {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.segment
    }
}
