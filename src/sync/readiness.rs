//! [`Readiness`]: a descriptor that is readable when an object is ready.

use super::bridge::Span;
use super::wait_any::{Source, Waitable};
use crate::error::Result;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The readiness of an object as a descriptor, for `epoll`, `poll`, `select` and event loops: Python's `fileno()`.
///
/// Once the object is ready (see [`Waitable`]) the descriptor is readable and stays so until [`Readiness::rearm`], also if others have
/// taken what there was. So: when it is readable, use the object without waiting, until there is nothing left, and arm it again;
/// if something came in between, it is readable at once. Nobody reads from the descriptor itself.
///
/// One thread for each process, started by the first of them, sleeps on the objects. A `Readiness` keeps its object in use, and
/// belongs to the process that made it, not to its forked children.
///
/// # Crash behaviour
/// As for one who waits at the object: nobody is hurt by its death, and it notices the death of others.
///
/// # Examples
/// ```
/// use shmkit::{Queue, sync::Readiness};
/// use std::os::fd::AsRawFd;
///
/// # fn main() -> shmkit::Result<()> {
/// let jobs = Queue::<u32>::bounded(8)?;
/// let readable = Readiness::new(&jobs)?;
/// jobs.put(1)?;
/// // `readable.as_raw_fd()` goes to epoll or select, which now say that it can be read:
/// # shmkit::sync::wait_any(&[&readable], None)?;
/// while let Ok(job) = jobs.try_get() {
///     println!("{job} of descriptor {}", readable.as_raw_fd());
/// }
/// readable.rearm()?;
/// # Ok(())
/// # }
/// ```
pub struct Readiness {
    by: By,
}

enum By {
    /// The bridge.
    Bridge(Span),
    /// The kernel.
    Itself(OwnedFd),
}

impl Readiness {
    /// The readiness of `object`, armed.
    ///
    /// # Errors
    /// When there are no descriptors left or no thread can be started; what [`super::wait_any`] gives for such an object.
    pub fn new(object: &impl Waitable) -> Result<Readiness> {
        let by = match object.source()? {
            Source::Word(word) => By::Bridge(Span::new(vec![word.0])?),
            Source::Fd(fd) => By::Itself(fd.try_clone_to_owned()?),
        };
        Ok(Readiness { by })
    }

    /// Arms it again: the descriptor is not readable any more, until the object is ready, be it at once.
    ///
    /// # Errors
    /// `NotOwner` in a forked child.
    pub fn rearm(&self) -> Result<()> {
        match &self.by {
            By::Bridge(span) => span.rearm(),
            By::Itself(_) => Ok(()),
        }
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.by {
            By::Bridge(span) => span.as_fd(),
            By::Itself(fd) => fd.as_fd(),
        }
    }
}

impl AsRawFd for Readiness {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl super::wait_any::Waits for Readiness {
    fn source(&self) -> Result<Source<'_>> {
        Ok(Source::Fd(self.as_fd()))
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("fd", &self.as_raw_fd()).finish_non_exhaustive()
    }
}
