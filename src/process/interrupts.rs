//! Ctrl-C: an orderly end instead of a sudden one, for programs that ask for it.
//!
//! ```text
//! SIGINT ──handler──▶ bell ──▶ watcher thread: waits end, pools cancel what they have and take nothing more
//!                                 a second one, or the patience is over: all children are terminated, the process exits
//! ```
//! The handler does nothing but ring. A forked child, which has a copy of it, dies of the signal as if there were none.
//!
//! The terminal sends SIGINT to every process of the group. Children die of it silently, unless they ask for an orderly end
//! themselves; workers of pools ignore it, for their pool decides what becomes of them.

use super::child::Process;
use super::{entry, spawner};
use crate::error::{Error, Result};
use crate::segment::{interrupt, locked};
use crate::sys::watch::{BELL, Bell, Watch};
use crate::sys::{proc, spawn};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long children may take to end once this process cannot wait any longer.
const GRACE: Duration = Duration::from_secs(2);

struct Watcher {
    /// The process it runs in.
    owner: u32,
    bell: Bell,
}

static WATCHER: OnceLock<Watcher> = OnceLock::new();
/// The signal that came last.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// What else is to be done at the first one.
static CANCEL: OnceLock<fn()> = OnceLock::new();
/// Held while that is done. Who has left the segments never gives it back.
static AT_WORK: Mutex<()> = Mutex::new(());

/// From now on SIGINT (Ctrl-C) and SIGTERM end this process in order, as Python's `KeyboardInterrupt` does. Otherwise they kill it
/// at once, which nobody else need mind, but what it was at is not ended.
///
/// At the first signal every thread's wait, the one it is in or else its next one, ends once with
/// [`SyncError::Interrupted`](crate::SyncError::Interrupted), within a second at most; and each [`Pool`](crate::Pool) cancels the
/// tasks it has, whose results are [`TaskError::Cancelled`](crate::TaskError::Cancelled) at once, and takes no more. So `main`
/// comes back, most often by its `?`s, and may still tidy up and wait for others to do so. At a second signal, or after
/// `patience`, all children are terminated, after two seconds killed, and the process exits.
///
/// The exit code is 128 and the signal's number, if [`#[shmkit::main]`](macro@crate::main) returns an error or the process had to
/// be made to exit. Calling this again changes nothing.
///
/// # Errors
/// As the system refuses a thread or a descriptor.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// # fn main() -> shmkit::Result<()> {
/// shmkit::process::end_on_interrupt(Duration::from_secs(5))?;
/// let pool = shmkit::Pool::new(2)?;
/// // Ctrl-C ends this with an error, and the program with it.
/// assert_eq!(pool.map(|x: u64| x + 1, 0..3)?, [1, 2, 3]);
/// # Ok(())
/// # }
/// ```
pub fn end_on_interrupt(patience: Duration) -> Result<()> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = locked(&STARTING);
    if WATCHER.get().is_some() {
        return Ok(());
    }
    let watcher = Watcher { owner: std::process::id(), bell: Bell::new()? };
    let watch = Watch::new(&watcher.bell)?;
    let watcher = WATCHER.get_or_init(|| watcher);
    let builder = std::thread::Builder::new().name("shmkit-signals".to_owned());
    spawn::without_signals(|| builder.spawn(move || watcher.run(&watch, patience)))?;
    interrupt::expect_end();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        proc::handle(signal, heard).map_err(Error::from)?;
    }
    Ok(())
}

/// The signal handler: nothing that a handler may not do.
extern "C" fn heard(signal: i32) {
    match WATCHER.get() {
        Some(watcher) if watcher.owner == std::process::id() => {
            SIGNAL.store(signal, Ordering::Relaxed);
            watcher.bell.ring();
        }
        _ => proc::die_of(signal),
    }
}

/// Has `cancel` called at the first signal.
pub(crate) fn on_interrupt(cancel: fn()) {
    let _ = CANCEL.set(cancel);
}

/// The exit code of a process that was asked to end and failed: 128 and the signal's number; `None` if it was not asked.
pub(super) fn exit_code() -> Option<i32> {
    Some(SIGNAL.load(Ordering::Relaxed)).filter(|&signal| signal != 0).map(|signal| 128 + signal)
}

/// Whether the watcher's thread runs in this process.
pub(super) fn is_watched() -> bool {
    WATCHER.get().is_some_and(|watcher| watcher.owner == std::process::id())
}

/// The watcher touches no segment from now on.
pub(super) fn leave_segments() {
    static HAVE_LEFT: AtomicBool = AtomicBool::new(false);
    // With `#[shmkit::main]` a process ends twice: when `main` has returned, and at exit.
    if is_watched() && !HAVE_LEFT.swap(true, Ordering::Relaxed) {
        std::mem::forget(locked(&AT_WORK));
    }
}

impl Watcher {
    fn run(&self, watch: &Watch, patience: Duration) {
        self.wait(watch, None);
        {
            let _at_work = locked(&AT_WORK);
            interrupt::end_waits();
            if let Some(cancel) = CANCEL.get() {
                cancel();
            }
        }
        self.wait(watch, Some(patience));
        end_children();
        // A process at its end only waited for them.
        if !entry::is_ending() {
            std::process::exit(exit_code().unwrap_or(1));
        }
    }

    /// Waits until the bell rings, or the time is up.
    fn wait(&self, watch: &Watch, timeout: Option<Duration>) {
        let (begin, mut ready) = (Instant::now(), Vec::new());
        loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(begin.elapsed()));
            // Without descriptors nothing will be heard; there is no harm in ending early, then.
            if watch.wait(&self.bell, left, &mut ready).is_err() || ready.contains(&BELL) {
                return;
            }
            if left.is_some_and(|left| left.is_zero()) {
                return;
            }
        }
    }
}

/// Terminates all children; kills those that are there after a while.
fn end_children() {
    let children = spawner::children();
    for child in &children {
        let _ = child.terminate();
    }
    let begin = Instant::now();
    let is_there = |child: &Process| child.inner.wait(Some(GRACE.saturating_sub(begin.elapsed()))).is_none();
    for child in children.iter().filter(|child| is_there(child)) {
        let _ = child.kill();
    }
}
