//! [`Process`]: the handle of a child, and [`ExitStatus`]: how it ended.

use super::spawner::Joiner;
use crate::error::{ProcessError, Result};
use crate::segment::{interrupt, locked};
use crate::sync::wait_any::{Source, Waits};
use crate::sys::pidfd::{self, Ended};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often who watches a child himself looks whether somebody else has told its end.
const SLICE: Duration = Duration::from_secs(1);

/// How soon a wait that a signal may end notices it.
const NOTICE: Duration = Duration::from_millis(50);

/// What all handles of a child share.
#[derive(Debug)]
pub(super) struct Inner {
    pub name: String,
    pub pid: u32,
    pub daemon: bool,
    /// The process whose child it is.
    pub owner: u32,
    pub pidfd: Arc<OwnedFd>,
    /// What the spawner knows it by.
    pub key: u64,
    end: Mutex<Option<ExitStatus>>,
    ended: Condvar,
}

impl Inner {
    pub(super) fn new(name: String, pid: u32, daemon: bool, pidfd: OwnedFd, key: u64) -> Inner {
        let (end, ended) = (Mutex::new(None), Condvar::new());
        Inner { name, pid, daemon, owner: std::process::id(), pidfd: Arc::new(pidfd), key, end, ended }
    }

    /// Whoever has seen to it: it is reaped, what it left is repaired.
    pub(super) fn set_end(&self, status: ExitStatus) {
        *locked(&self.end) = Some(status);
        self.ended.notify_all();
    }

    /// Waits for the end; `None` when the time is up.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Option<ExitStatus> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if self.owner == std::process::id() {
            self.watch(deadline);
        }
        let mut end = locked(&self.end);
        loop {
            if let Some(status) = &*end {
                return Some(status.clone());
            }
            end = match deadline {
                None => self.ended.wait(end).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.ended.wait_timeout(end, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Watches the descriptor instead of the spawner's thread, as long as that is of use: until the child has ended, and is being
    /// seen to by this thread or another one, or until the deadline.
    fn watch(&self, deadline: Option<Instant>) {
        if locked(&self.end).is_some() {
            return;
        }
        let Some(joiner) = Joiner::new(self) else { return };
        loop {
            let left = deadline.map_or(SLICE, |deadline| deadline.saturating_duration_since(Instant::now()));
            match pidfd::has_ended(self.pidfd.as_fd(), Some(left.min(SLICE))) {
                Ok(true) => return joiner.settle(),
                Ok(false) if left.is_zero() || locked(&self.end).is_some() => return,
                Ok(false) => {}
                Err(_) => return,
            }
        }
    }

    /// As [`Inner::wait`]; a signal may end it, if the program wants that.
    fn wait_interruptibly(&self, timeout: Option<Duration>) -> Result<Option<ExitStatus>> {
        let begin = Instant::now();
        while interrupt::is_asked() {
            let left = timeout.map_or(NOTICE, |timeout| timeout.saturating_sub(begin.elapsed()));
            if let Some(status) = self.wait(Some(left.min(NOTICE))) {
                return Ok(Some(status));
            }
            if left <= NOTICE && timeout.is_some() {
                return Ok(None);
            }
            interrupt::check()?;
        }
        Ok(self.wait(timeout.map(|timeout| timeout.saturating_sub(begin.elapsed()))))
    }

    /// How it ended, if it has: a process that the kernel calls ended is reaped within moments, and that is waited for.
    pub(super) fn settled(&self) -> Option<ExitStatus> {
        if let Some(status) = &*locked(&self.end) {
            return Some(status.clone());
        }
        if self.owner == std::process::id() && pidfd::has_ended(self.pidfd.as_fd(), Some(Duration::ZERO)) == Ok(true) {
            return self.wait(None);
        }
        None
    }

    pub(super) fn signal(&self, signal: i32) -> Result<()> {
        if locked(&self.end).is_some() {
            return Ok(());
        }
        Ok(pidfd::signal(self.pidfd.as_fd(), signal)?)
    }
}

/// A child process.
///
/// Cloning the handle gives another one to the same child. Dropping it does nothing to the child, which is reaped whenever it
/// ends.
///
/// # Crash behaviour
/// See [the module](crate::process#crash-behaviour).
///
/// # Examples
/// ```
/// use shmkit::{Event, Process};
///
/// fn raise(flag: Event, status: i32) -> i32 {
///     flag.set();
///     status
/// }
///
/// # fn main() -> shmkit::Result<()> {
/// let flag = Event::new()?;
/// let child = Process::new(raise).args((flag.clone(), 7)).name("raiser").start()?;
/// flag.wait()?;
/// assert_eq!(child.join()?.exit_code(), Some(7));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Process {
    pub(super) inner: Arc<Inner>,
    /// `None` once closed.
    sentinel: Option<Arc<OwnedFd>>,
}

impl Process {
    pub(super) fn of_inner(inner: Arc<Inner>) -> Process {
        let sentinel = Some(Arc::clone(&inner.pidfd));
        Process { inner, sentinel }
    }

    fn open(&self) -> Result<&Inner> {
        if self.sentinel.is_some() { Ok(&self.inner) } else { Err(ProcessError::Closed.into()) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its process id. Once it has ended, the number may be another process's.
    pub fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// Whether it is terminated when this process ends, instead of waited for.
    pub fn is_daemon(&self) -> bool {
        self.inner.daemon
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        self.exit_code().is_none() && self.inner.settled().is_none()
    }

    /// How it ended, `None` while it runs: 0 for a normal return, 1 for a panic or an error, N for `exit(N)`, −N for signal N.
    pub fn exit_code(&self) -> Option<i32> {
        self.inner.settled().and_then(|status| status.exit_code())
    }

    /// Waits until it has ended. When this returns, what it left in the segments is repaired. May be called again.
    ///
    /// # Errors
    /// `Closed`; `NotChild` in a forked process, whose child it is not; `Interrupted`, if the program asks for that.
    pub fn join(&self) -> Result<ExitStatus> {
        self.join_until(None)
    }

    /// As [`Process::join`], at most for `timeout`.
    ///
    /// # Errors
    /// As [`Process::join`], and `TimedOut`.
    pub fn join_timeout(&self, timeout: Duration) -> Result<ExitStatus> {
        self.join_until(Some(timeout))
    }

    fn join_until(&self, timeout: Option<Duration>) -> Result<ExitStatus> {
        let inner = self.open()?;
        let (name, pid) = (|| inner.name.clone(), inner.pid);
        if inner.owner != std::process::id() {
            return Err(ProcessError::NotChild { name: name(), pid, parent: inner.owner }.into());
        }
        match inner.wait_interruptibly(timeout)? {
            Some(status) => Ok(status),
            None => match inner.settled() {
                Some(status) => Ok(status),
                None => Err(ProcessError::TimedOut { name: name(), pid, waited: timeout.unwrap_or_default() }.into()),
            },
        }
    }

    /// Asks it to end: SIGTERM. Nothing happens to a process that has ended.
    ///
    /// # Errors
    /// `Closed`.
    pub fn terminate(&self) -> Result<()> {
        self.open()?.signal(libc::SIGTERM)
    }

    /// Kills it: SIGKILL. Nothing happens to a process that has ended.
    ///
    /// # Errors
    /// `Closed`.
    pub fn kill(&self) -> Result<()> {
        self.open()?.signal(libc::SIGKILL)
    }

    /// Interrupts it as Ctrl-C does: SIGINT. Nothing happens to a process that has ended.
    ///
    /// # Errors
    /// `Closed`.
    pub fn interrupt(&self) -> Result<()> {
        self.open()?.signal(libc::SIGINT)
    }

    /// Its process descriptor, readable once it has ended: for `poll`, `epoll` and event loops.
    ///
    /// # Errors
    /// `Closed`.
    pub fn sentinel(&self) -> Result<BorrowedFd<'_>> {
        self.sentinel.as_ref().map(|fd| fd.as_fd()).ok_or_else(|| ProcessError::Closed.into())
    }

    /// Frees what this handle holds. Afterwards one can still ask what it was called and how it ended. Closing twice is
    /// allowed.
    ///
    /// # Errors
    /// `Running`: the child must have ended.
    pub fn close(&mut self) -> Result<()> {
        if self.sentinel.is_some() && self.is_alive() {
            return Err(ProcessError::Running { name: self.inner.name.clone(), pid: self.inner.pid }.into());
        }
        self.sentinel = None;
        Ok(())
    }
}

impl Waits for Process {
    fn source(&self) -> Result<Source<'_>> {
        self.sentinel().map(Source::Fd)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { name, pid, owner, daemon, .. } = &*self.inner;
        write!(f, "<Process name={name:?} pid={pid} parent={owner} ")?;
        match (&self.sentinel, self.inner.settled()) {
            (None, _) => f.write_str("closed")?,
            (_, None) => f.write_str("started")?,
            (_, Some(status)) => write!(f, "stopped {status}")?,
        }
        f.write_str(if *daemon { " daemon>" } else { ">" })
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitStatus {
    name: String,
    ended: Ended,
    message: Option<String>,
    peak_rss: Option<u64>,
}

impl ExitStatus {
    /// `said` is what the child wrote into its record.
    pub(super) fn new(name: String, ended: Ended, said: Option<String>) -> ExitStatus {
        // A panic that was caught leaves its message behind.
        let message = if matches!(ended, Ended::Exit(0)) { None } else { said };
        ExitStatus { name, ended, message, peak_rss: None }
    }

    /// With what the system said of its memory.
    pub(super) fn with_peak_rss(self, peak_rss: Option<u64>) -> ExitStatus {
        ExitStatus { peak_rss, ..self }
    }

    /// The most memory it had, in bytes, if the system said so. What its parent had when it started it counts, too, for a child
    /// begins as a picture of its parent; not with [`StartMethod::ForkServer`](super::StartMethod::ForkServer), whose parent is small.
    pub fn peak_rss(&self) -> Option<u64> {
        self.peak_rss
    }

    /// 0 for a normal return, 1 for a panic or an error, N for `exit(N)`, −N for signal N; `None` if another part of the
    /// program has reaped it.
    pub fn exit_code(&self) -> Option<i32> {
        match self.ended {
            Ended::Exit(code) => Some(code),
            Ended::Signal(signal) => Some(-signal),
            Ended::Unknown => None,
        }
    }

    /// The signal that killed it.
    pub fn signal(&self) -> Option<i32> {
        if let Ended::Signal(signal) = self.ended { Some(signal) } else { None }
    }

    /// Whether it returned normally.
    pub fn success(&self) -> bool {
        self.ended == Ended::Exit(0)
    }

    /// Why it failed, in the child's own words: a panic's message and place, or the text of the error it returned. The first
    /// 1024 bytes.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// An error that tells how the process ended, unless it was a success.
    ///
    /// # Errors
    /// `Failed`, with the exit code and the message.
    pub fn check(&self) -> Result<()> {
        if self.success() {
            return Ok(());
        }
        Err(ProcessError::Failed { name: self.name.clone(), how: self.to_string() }.into())
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ended {
            Ended::Exit(code) => write!(f, "exit code {code}")?,
            Ended::Signal(signal) => match pidfd::signal_name(signal) {
                Some(name) => write!(f, "killed by {name}")?,
                None => write!(f, "killed by signal {signal}")?,
            },
            Ended::Unknown => f.write_str("reaped by another part of the program")?,
        }
        self.message.as_ref().map_or(Ok(()), |message| write!(f, ": {message}"))
    }
}
