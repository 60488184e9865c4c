//! The bridge: the one thread of this process that sleeps on words for those who wait for descriptors.
//!
//! ```text
//! object's word ──futex_waitv──▶ bridge ──write──▶ eventfd ──epoll, poll, select──▶ event loop
//! ```
//! It is started when it is first needed. A [`Span`] is armed until one of its objects is ready: then its descriptor becomes
//! readable and stays so until it is armed again. Objects are touched under the table's lock only, so that whoever takes a span away
//! knows that the bridge has let go of them.

use crate::error::{Error, Result, SyncError};
use crate::segment::interrupt::shielded;
use crate::segment::wait::{FIRST_SLICE, LONGEST_SLICE};
use crate::segment::wait_many::{Wakeable, recover_dead};
use crate::segment::{locked, locked_unforked};
use crate::sys::futex::{self, Watched};
use crate::sys::watch::Bell;
use crate::sys::{membarrier, spawn};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Slice where the kernel refuses the sleeper's barrier.
const SHORT_SLICE: Duration = Duration::from_millis(1);

static BRIDGE: Mutex<Option<Running>> = Mutex::new(None);

/// The bridge and its thread.
struct Running {
    bridge: Arc<Bridge>,
    thread: JoinHandle<()>,
}

struct Bridge {
    /// The process it runs in: a forked child has its own.
    owner: u32,
    /// Goes up when the table changes: the bridge sleeps on it, too.
    changes: AtomicU32,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    spans: HashMap<u64, Entry>,
    next: u64,
    is_over: bool,
}

struct Entry {
    objects: Vec<Arc<dyn Wakeable>>,
    signal: Arc<Bell>,
    is_armed: bool,
}

impl Entry {
    /// Whether one is ready. One that cannot tell is: whoever uses it gets the error.
    fn is_ready(&self) -> bool {
        self.objects.iter().any(|object| object.is_ready().unwrap_or(true))
    }

    fn fire(&mut self) {
        self.is_armed = false;
        self.signal.ring();
    }

    /// The wake-ups that the bridge may have eaten go on.
    fn pass_on(&self) {
        self.objects.iter().for_each(|object| object.pass_on());
    }
}

/// Whether the bridge runs in this process.
pub(crate) fn has_bridge() -> bool {
    locked_unforked(&BRIDGE).as_ref().is_some_and(|running| running.bridge.owner == std::process::id())
}

/// Ends the bridge: at the end of the process, before it leaves its segments.
pub(crate) fn stop_bridge() {
    let running = locked_unforked(&BRIDGE).take_if(|running| running.bridge.owner == std::process::id());
    if let Some(Running { bridge, thread }) = running {
        locked(&bridge.table).is_over = true;
        bridge.changed();
        let _ = thread.join();
    }
}

fn bridge() -> Result<Arc<Bridge>> {
    let mut running = locked_unforked(&BRIDGE);
    if let Some(running) = running.as_ref().filter(|running| running.bridge.owner == std::process::id()) {
        return Ok(Arc::clone(&running.bridge));
    }
    let bridge =
        Arc::new(Bridge { owner: std::process::id(), changes: AtomicU32::new(0), table: Mutex::new(Table::default()) });
    let builder = std::thread::Builder::new().name("shmkit-bridge".to_owned());
    let runs = Arc::clone(&bridge);
    let thread = spawn::without_signals(|| builder.spawn(move || shielded(|| runs.run())))?;
    // A parent's, of which this forked child has a copy: its thread is not here, and its table may be locked for ever.
    std::mem::forget(running.replace(Running { bridge: Arc::clone(&bridge), thread }));
    Ok(bridge)
}

impl Bridge {
    fn changed(&self) {
        // SeqCst: after the change of the table, which the bridge reads after this word.
        self.changes.fetch_add(1, Ordering::SeqCst);
        futex::wake(&self.changes, 1);
    }

    fn run(&self) {
        let mut longest = FIRST_SLICE;
        let mut looked = Instant::now();
        loop {
            // SeqCst: before the table is read.
            let mut watched = vec![Watched::new(&self.changes, self.changes.load(Ordering::SeqCst))];
            let mut slice = longest;
            let mut is_idle = true;
            {
                let mut table = locked(&self.table);
                if table.is_over {
                    return;
                }
                if looked.elapsed() >= longest {
                    let armed = table.spans.values().filter(|span| span.is_armed);
                    recover_dead(armed.flat_map(|span| span.objects.iter().map(|object| &**object)));
                    looked = Instant::now();
                    longest = (longest * 2).min(LONGEST_SLICE);
                }
                for span in table.spans.values().filter(|span| span.is_armed) {
                    for object in &span.objects {
                        match object.mark() {
                            Some(value) => watched.push(Watched::new(object.word(), value)),
                            None => is_idle = false,
                        }
                    }
                }
                if !membarrier::sleeper() {
                    slice = SHORT_SLICE;
                }
                for span in table.spans.values_mut().filter(|span| span.is_armed) {
                    if span.is_ready() {
                        span.fire();
                        span.pass_on();
                        is_idle = false;
                    }
                }
                if watched.len() == 1 {
                    // Nothing to look after: it sleeps until there is.
                    slice = LONGEST_SLICE * 3600;
                    longest = FIRST_SLICE;
                }
            }
            if is_idle {
                futex::wait_any(&watched, slice);
            }
        }
    }
}

/// Objects whose readiness a descriptor shows.
pub(super) struct Span {
    bridge: Arc<Bridge>,
    id: u64,
    signal: Arc<Bell>,
}

impl Span {
    /// Readable once one of `objects` is ready.
    pub(super) fn new(objects: Vec<Arc<dyn Wakeable>>) -> Result<Span> {
        let bridge = bridge()?;
        let signal = Arc::new(Bell::new()?);
        let mut table = locked(&bridge.table);
        let id = table.next;
        table.next += 1;
        table.spans.insert(id, Entry { objects, signal: Arc::clone(&signal), is_armed: true });
        drop(table);
        bridge.changed();
        Ok(Span { bridge, id, signal })
    }

    fn check_owner(&self) -> Result<()> {
        if self.bridge.owner == std::process::id() {
            return Ok(());
        }
        Err(SyncError::NotOwner { what: "readiness", by: "this process" }.into())
    }

    /// Arms it again: not readable from now on, until one of the objects is ready, be it at once.
    pub(super) fn rearm(&self) -> Result<()> {
        self.check_owner()?;
        let mut table = locked(&self.bridge.table);
        let Some(span) = table.spans.get_mut(&self.id) else { return Err(gone()) };
        span.signal.silence();
        if span.is_ready() {
            span.fire();
            return Ok(());
        }
        let was_armed = std::mem::replace(&mut span.is_armed, true);
        drop(table);
        if !was_armed {
            self.bridge.changed();
        }
        Ok(())
    }
}

fn gone() -> Error {
    Error::Other("the thread that watches objects for descriptors has ended".to_owned())
}

impl AsFd for Span {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.fd()
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.check_owner().is_err() {
            return;
        }
        let span = locked(&self.bridge.table).spans.remove(&self.id);
        self.bridge.changed();
        if let Some(span) = span.filter(|span| span.is_armed) {
            span.pass_on();
        }
    }
}
