//! Children that are copies of this process: `fork`.
//!
//! The thread that starts all children makes the copy, so that the copy has just that thread, at a place where it holds nothing;
//! the thread that asked waits meanwhile. The parent waits, too, until the copy has its own references to all objects that its
//! handles name.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | the copy, before it has its own references | end of file on the pipe between the two; exit code −9 | nobody needs to | the child |
//! | the copy, later | exit code −9 | the parent, at once | what it had not committed |
//! | the parent, while it waits | the copy goes on, or dies with it if it is a daemon | recovery | objects only it held, if the copy had no reference yet |

use super::builder::{Launch, launch};
use super::child::Process;
use super::current::{self, Child};
use super::options::{Options, option_methods};
use super::record::{Record, Work};
use super::spawner::Origin;
use super::target::{Outcome, Report};
use super::{entry, spawner};
use crate::error::{ProcessError, Result};
use crate::segment::{known, locked};
use crate::sys::{SysError, proc, spawn};
use std::fmt;
use std::io::{Read, Write, pipe};
use std::sync::{Arc, Mutex};

/// What a copy does. The copy takes it; in the parent the thread that asked drops it, for it may have an end of its own that
/// starts processes, or waits for some.
pub(super) type Body = Arc<Mutex<Option<Box<dyn FnOnce() -> Report + Send>>>>;

/// A copy of this process that is not made yet: [`Process::fork`].
#[must_use = "nothing runs before `start`"]
pub struct Fork<F> {
    body: F,
    threads: bool,
    name: Option<String>,
    daemon: Option<bool>,
    options: Options,
}

impl Process {
    /// A copy of this process that calls `body`, any closure: it has a copy of everything, at the cost of a page table.
    ///
    /// # Examples
    /// ```
    /// use shmkit::{Process, Value};
    ///
    /// # fn main() -> shmkit::Result<()> {
    /// let (found, table) = (Value::new(0u32)?, vec![3, 5, 8]);
    /// let theirs = found.clone();
    /// // SAFETY: the example's process has one thread, and the closure only adds numbers.
    /// let child = unsafe { Process::fork(move || theirs.set(table.iter().sum())).allow_threads().start()? };
    /// child.join()?.check()?;
    /// assert_eq!(found.get()?, 16);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fork<F, R>(body: F) -> Fork<F>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Outcome,
    {
        Fork { body, threads: false, name: None, daemon: None, options: Options::default() }
    }
}

impl<F> Fork<F> {
    option_methods!();

    /// Makes the copy although this process has several threads. Whatever a thread that is not copied has locked at that
    /// moment, a mutex of the program or of a library, stays locked in the copy for ever.
    pub fn allow_threads(mut self) -> Self {
        self.threads = true;
        self
    }

    /// Makes the copy.
    ///
    /// # Safety
    /// No other thread may be in the middle of something that the closure needs whole: a lock, or memory that is being changed.
    /// With one thread that is always so.
    ///
    /// # Errors
    /// `Start` if this process has several threads and that was not allowed, and as [`Builder::start`](super::Builder::start).
    pub unsafe fn start<R>(self) -> Result<Process>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Outcome,
    {
        let Fork { body, threads, name, daemon, options } = self;
        if !threads && proc::threads() > 1 + spawner::own_threads() {
            let why = "this process has several threads: a copy has one, and what the others had locked stays locked; \
                       see `allow_threads`";
            return Err(ProcessError::Start { name: name.unwrap_or_default(), why: why.to_owned() }.into());
        }
        let body: Body = Arc::new(Mutex::new(Some(Box::new(move || body().report()))));
        launch(Launch {
            prefix: "Process",
            name,
            daemon,
            origin: Origin::Fork(Arc::clone(&body)),
            options,
            work: Work::Copied,
            serialised: Vec::new(),
            kept: None,
            stdio: [const { None }; 3],
            on_end: None,
        })
    }
}

/// The spawner's thread: makes the copy, and waits until it stands on its own.
pub(super) fn copy(
    body: &Body,
    record: &Record,
    child: Child,
    options: &Options,
) -> std::result::Result<u32, SysError> {
    let failed = |error: std::io::Error| SysError { call: "pipe", errno: error.raw_os_error().unwrap_or(0) };
    let (mut stands, standing) = pipe().map_err(failed)?;
    let parent = std::process::id();
    let parent_name = current::current_process().name().to_owned();
    // SAFETY: whoever asked has vouched for the other threads; this one holds no lock here.
    match unsafe { libc::fork() } {
        -1 => Err(SysError::last("fork")),
        0 => {
            drop(stands);
            let body = locked(body).take().expect("nobody else takes it");
            be_the_copy(body, record, child, options, (parent, parent_name), standing)
        }
        pid => {
            drop(standing);
            // End of file: it stands, or it is dead.
            let _ = stands.read(&mut [0]);
            Ok(pid as u32)
        }
    }
}

fn be_the_copy(
    body: Box<dyn FnOnce() -> Report + Send>,
    record: &Record,
    child: Child,
    options: &Options,
    (parent, parent_name): (u32, String),
    mut standing: impl Write,
) -> ! {
    spawn::unblock_signals();
    let daemon = child.daemon;
    if let Ok(name) = std::ffi::CString::new(child.name.as_str()) {
        proc::set_short_name(&name);
    }
    current::set_child(child);
    if daemon && (proc::die_with_parent().is_err() || proc::parent() != parent) {
        proc::exit_at_once(1);
    }
    current::set_parent(parent, parent_name);
    // A place of its own in every segment, with references to all that its handles name.
    for attachment in known::all() {
        let _ = attachment.token();
    }
    failpoint!("fork.standing");
    let _ = standing.write(&[1]);
    drop(standing);
    entry::run_copied(record, || options.apply().map_or_else(|why| Report { code: 1, message: Some(why) }, |()| body()))
}

impl<F> fmt::Debug for Fork<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fork").field("name", &self.name).finish_non_exhaustive()
    }
}
