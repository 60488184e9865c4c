//! This process, its parent, its children.

use super::child::Process;
use super::{Identity, own_name, spawner};
use crate::error::{ProcessError, Result};
use crate::sync::wait_any::{Source, Waits};
use crate::sys::watch::Bell;
use crate::sys::{SysError, pidfd, proc};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What a child was told of itself.
#[derive(Debug)]
pub(super) struct Child {
    pub name: String,
    pub identity: Identity,
    pub daemon: bool,
}

/// What is known of this process. Set once, and once more in a copy of it; what was known before is never freed.
#[derive(Debug)]
pub(super) struct Known<T>(AtomicPtr<T>);

impl<T> Known<T> {
    pub(super) const fn nothing() -> Known<T> {
        Known(AtomicPtr::new(std::ptr::null_mut()))
    }

    pub(super) fn set(&self, value: T) -> &'static T {
        let value = Box::leak(Box::new(value));
        // Release pairs with the acquire in `get`.
        self.0.store(value, Ordering::Release);
        value
    }

    pub(super) fn get(&self) -> Option<&'static T> {
        // SAFETY: null, or leaked by `set`.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }
}

static CHILD: Known<Child> = Known::nothing();
static PARENT: Known<Parent> = Known::nothing();

/// Numbers of this process's children.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// The entry: this process is a child.
pub(super) fn set_child(child: Child) {
    CHILD.set(child);
    // Relaxed: the first child of a copy is its first.
    NEXT.store(1, Ordering::Relaxed);
}

/// The entry: this is its parent.
pub(super) fn set_parent(pid: u32, name: String) {
    PARENT.set(Parent { pid, name, pidfd: Known::nothing() });
}

/// The name it was started with.
pub(super) fn given_name() -> Option<&'static str> {
    CHILD.get().map(|child| child.name.as_str())
}

/// The identity of the next child.
pub(super) fn next_child() -> Identity {
    // Relaxed: only the number matters.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    CHILD.get().map_or_else(Identity::default, |child| child.identity.clone()).child(number)
}

/// This process: [`current_process`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CurrentProcess {}

impl CurrentProcess {
    /// The name it was started with; `MainProcess` if no shmkit process started it.
    pub fn name(&self) -> &'static str {
        given_name().unwrap_or("MainProcess")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Whether it is terminated when its parent ends.
    pub fn is_daemon(&self) -> bool {
        CHILD.get().is_some_and(|child| child.daemon)
    }

    /// The name that other processes see in messages and tools: as [`CurrentProcess::name`], but the executable's instead of
    /// `MainProcess`.
    pub fn shown_name(&self) -> String {
        own_name()
    }
}

/// This process.
///
/// # Examples
/// ```
/// assert_eq!(shmkit::current_process().name(), "MainProcess");
/// assert!(!shmkit::current_process().is_daemon());
/// ```
pub fn current_process() -> CurrentProcess {
    CurrentProcess {}
}

/// What is known of the parent.
#[derive(Debug)]
struct Parent {
    pid: u32,
    name: String,
    /// Opened when it is asked for.
    pidfd: Known<OwnedFd>,
}

impl Parent {
    /// Its process descriptor, or one that is as readable if it has ended before anybody asked for it.
    fn pidfd(&self) -> Result<BorrowedFd<'static>, SysError> {
        if let Some(known) = self.pidfd.get() {
            return Ok(known.as_fd());
        }
        let opened = pidfd::open(self.pid);
        // Looked at behind the opening: if that is still its number, the descriptor is its.
        let fd = if proc::parent() == self.pid { opened? } else { Bell::rung()? };
        // Of two threads that open one at once, one has done so in vain.
        Ok(self.pidfd.set(fd).as_fd())
    }
}

/// The process that started this one: [`parent_process`].
#[derive(Debug, Clone)]
pub struct ParentProcess {
    parent: &'static Parent,
}

impl ParentProcess {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.parent.name
    }

    /// Its process id. Once it has ended, the number may be another process's.
    pub fn pid(&self) -> u32 {
        self.parent.pid
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        proc::parent() == self.parent.pid
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// What the system says.
    pub fn join(&self) -> Result<()> {
        self.join_until(None)
    }

    /// As [`ParentProcess::join`], at most for `timeout`.
    ///
    /// # Errors
    /// `TimedOut`.
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        self.join_until(Some(timeout))
    }

    fn join_until(&self, timeout: Option<Duration>) -> Result<()> {
        let pidfd = self.parent.pidfd()?;
        let start = Instant::now();
        loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            if pidfd::has_ended(pidfd, left)? {
                return Ok(());
            }
            if left == Some(Duration::ZERO) {
                let waited = timeout.unwrap_or_default();
                return Err(ProcessError::TimedOut { name: self.name().to_owned(), pid: self.pid(), waited }.into());
            }
        }
    }

    /// Its process descriptor, readable once it has ended: for `poll`, `epoll` and event loops.
    ///
    /// # Errors
    /// What the system says.
    pub fn sentinel(&self) -> Result<BorrowedFd<'_>> {
        Ok(self.parent.pidfd()?)
    }
}

impl Waits for ParentProcess {
    fn source(&self) -> Result<Source<'_>> {
        self.sentinel().map(Source::Fd)
    }
}

/// The process that started this one with [`Process`]; `None` in the main process.
///
/// # Examples
/// ```
/// assert!(shmkit::parent_process().is_none());
/// ```
pub fn parent_process() -> Option<ParentProcess> {
    PARENT.get().map(|parent| ParentProcess { parent })
}

/// The children of this process that have not ended. Those that have are reaped.
pub fn active_children() -> Vec<Process> {
    spawner::children().into_iter().filter(Process::is_alive).collect()
}

/// Number of CPUs of the system. The ones this process may use can be fewer: see [`std::thread::available_parallelism`].
///
/// # Examples
/// ```
/// assert!(shmkit::cpu_count() >= 1);
/// ```
pub fn cpu_count() -> usize {
    proc::cpus().unwrap_or(1)
}
