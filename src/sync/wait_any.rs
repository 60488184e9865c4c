//! [`wait_any`]: waiting for one of several things, of whatever kind.
//!
//! Objects are waited for by their wait words (`futex_waitv`), descriptors by `poll`; a mix of both by `poll`, with a descriptor that
//! the [`super::bridge`] makes readable.

use super::bridge::Span;
use crate::error::Result;
use crate::segment::interrupt;
use crate::segment::wait::{self, Deadline, LONGEST_SLICE};
use crate::segment::wait_many::{self, Wakeable};
use crate::sys::poll;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Something that [`wait_any`] can wait for, and whose state a [`crate::sync::Readiness`] shows. Sealed: implemented for shmkit's objects and
/// processes, and for descriptors.
///
/// | | is ready when |
/// |---|---|
/// | [`Event`](crate::Event), [`Once`](crate::Once) | it is set; it is done |
/// | [`Semaphore`](crate::Semaphore), [`PermitSemaphore`](crate::PermitSemaphore) | there is a permit |
/// | [`Lock`](crate::Lock), [`RLock`](crate::RLock), [`Mutex`](crate::Mutex) | it can be taken, be it from a dead owner |
/// | queues, and what receives: [`Queue`](crate::Queue), [`JoinableQueue`](crate::JoinableQueue), [`Consumer`](crate::channel::Consumer), [`PodQueue`](crate::PodQueue), [`Receiver`](crate::channel::Receiver), [`Connection`](crate::channel::Connection) | there is a message, or the end of the file |
/// | [`Listener`](crate::channel::Listener) | a client waits to be accepted, or it is closed |
/// | [`Process`](crate::Process) | it has ended |
/// | descriptors | they can be read without waiting |
///
/// Others may take it first: what is ready now need not be so when one uses it.
///
/// Not among them are the sending sides of channels, and what a thread waits *in*: a [`RwLock`](crate::RwLock), which is free
/// for some and not for others, a [`Condition`](crate::Condition), a [`Barrier`](crate::Barrier).
pub trait Waitable: sealed::Waits {}

impl<W: sealed::Waits + ?Sized> Waitable for W {}

pub(crate) mod sealed {
    use super::*;

    /// How a kind of thing is waited for.
    pub trait Waits {
        /// What to look at.
        fn source(&self) -> Result<Source<'_>>;
    }

    /// What to look at.
    pub enum Source<'a> {
        /// An object's state and wait word.
        #[doc(hidden)]
        Word(Word),
        /// A descriptor that becomes readable.
        Fd(BorrowedFd<'a>),
    }

    /// An object.
    pub struct Word(pub(crate) Arc<dyn Wakeable>);
}
pub(crate) use sealed::{Source, Waits};

impl Source<'_> {
    /// An object.
    pub(crate) fn word(object: impl Wakeable + 'static) -> Self {
        Source::Word(sealed::Word(Arc::new(object)))
    }
}

impl Waits for BorrowedFd<'_> {
    fn source(&self) -> Result<Source<'_>> {
        Ok(Source::Fd(*self))
    }
}

macro_rules! descriptors {
    ($($kind:ty),* $(,)?) => {
        $(impl Waits for $kind {
            fn source(&self) -> Result<Source<'_>> {
                Ok(Source::Fd(self.as_fd()))
            }
        })*
    };
}
descriptors!(
    OwnedFd,
    std::fs::File,
    std::io::PipeReader,
    std::net::TcpListener,
    std::net::TcpStream,
    std::net::UdpSocket,
    std::os::unix::net::UnixDatagram,
    std::os::unix::net::UnixListener,
    std::os::unix::net::UnixStream,
    std::process::ChildStdout,
    std::process::ChildStderr,
);

/// What is waited for, and which of it is ready.
struct Wait<'a> {
    words: Vec<(usize, Arc<dyn Wakeable>)>,
    fds: Vec<BorrowedFd<'a>>,
    places: Vec<usize>,
    ready: Vec<usize>,
}

impl<'a> Wait<'a> {
    fn new(objects: &[&'a dyn Waitable]) -> Result<Wait<'a>> {
        let mut wait = Wait { words: Vec::new(), fds: Vec::new(), places: Vec::new(), ready: Vec::new() };
        for (place, object) in objects.iter().enumerate() {
            match object.source()? {
                Source::Word(word) => wait.words.push((place, word.0)),
                Source::Fd(fd) => {
                    wait.fds.push(fd);
                    wait.places.push(place);
                }
            }
        }
        Ok(wait)
    }

    /// Looks at the objects.
    fn look_at_words(&mut self) -> Result<bool> {
        self.ready.clear();
        for (place, object) in &self.words {
            if object.is_ready()? {
                self.ready.push(*place);
            }
        }
        Ok(!self.ready.is_empty())
    }

    /// Looks at everything; waits for descriptors at most for `timeout`. `bell` wakes it, too.
    fn look(&mut self, timeout: Duration, bell: Option<BorrowedFd<'_>>) -> Result<bool> {
        // In this order: what rings the bell is seen.
        let seen = match bell {
            Some(bell) => {
                let mut all: Vec<BorrowedFd<'_>> = self.fds.clone();
                all.push(bell);
                poll::readable(&all, timeout)?
            }
            None if self.fds.is_empty() => Vec::new(),
            None => poll::readable(&self.fds, timeout)?,
        };
        self.look_at_words()?;
        self.ready.extend(self.places.iter().zip(seen).filter_map(|(place, is_ready)| is_ready.then_some(*place)));
        self.ready.sort_unstable();
        Ok(!self.ready.is_empty())
    }

    fn run(&mut self, deadline: Deadline) -> Result<()> {
        if self.look(Duration::ZERO, None)? || deadline.is_over() {
            return Ok(());
        }
        if self.fds.is_empty() {
            if wait::watch(&deadline, || Ok(self.look_at_words()?.then_some(())))?.is_none() {
                let words: Vec<Arc<dyn Wakeable>> = self.words.iter().map(|(_, object)| Arc::clone(object)).collect();
                let words: Vec<&dyn Wakeable> = words.iter().map(|object| &**object).collect();
                wait_many::wait(&words, deadline, || self.look_at_words())?;
            }
            return Ok(());
        }
        let objects: Vec<_> = self.words.iter().map(|(_, object)| Arc::clone(object)).collect();
        let span = if objects.is_empty() { None } else { Some(Span::new(objects)?) };
        loop {
            interrupt::check()?;
            let longest = wait_many::slice(LONGEST_SLICE);
            let left = deadline.left().unwrap_or(longest);
            let bell = span.as_ref().map(AsFd::as_fd);
            if self.look(left.min(longest), bell)? || left.is_zero() {
                return Ok(());
            }
            if let Some(span) = &span {
                // It was rung for nothing if others were quicker.
                span.rearm()?;
            }
        }
    }
}

/// Waits until one or more of `objects` are ready, at most for `timeout`; for ever with `None`. Gives the indices of those that are, in
/// order; none when the time is up.
///
/// Nothing is taken: try what is ready, and wait again if others were quicker.
///
/// # Errors
/// `Interrupted`; `Corrupt`; what an object gives that cannot be waited for: a closed process handle, the sending end of a
/// connection.
///
/// # Examples
/// ```
/// use shmkit::{Event, Queue, sync::wait_any};
/// use std::time::Duration;
///
/// # fn main() -> shmkit::Result<()> {
/// let (stop, jobs) = (Event::new()?, Queue::<u32>::bounded(8)?);
/// let (reader, _writer) = std::io::pipe()?;
/// assert!(wait_any(&[&stop, &jobs, &reader], Some(Duration::from_millis(1)))?.is_empty());
/// jobs.put(7)?;
/// assert_eq!(wait_any(&[&stop, &jobs, &reader], None)?, [1]);
/// # Ok(())
/// # }
/// ```
pub fn wait_any(objects: &[&dyn Waitable], timeout: Option<Duration>) -> Result<Vec<usize>> {
    let mut wait = Wait::new(objects)?;
    wait.run(timeout.map_or(Deadline::NEVER, Deadline::after))?;
    Ok(wait.ready)
}
