//! What a worker process does: initialise, take tasks, run them, until the pool is closed or enough were done.

use super::table::{Claim, Table};
use super::task::{Call, Entry, Header, Reply, Responder, Ticket};
use crate::channel::Queue;
use crate::error::Result;
use crate::sys::module::{self, Place};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// What a worker is given at its start.
#[derive(Serialize, Deserialize)]
pub(super) struct Orders {
    pub table: Table,
    pub tasks: Queue<()>,
    pub replies: Queue<()>,
    pub row: u32,
    /// Tasks after which it ends; 0 for no limit.
    pub limit: u64,
    /// Bytes of memory from which on it is replaced; 0 for no limit.
    pub max_rss: u64,
    /// It takes the place of another one, which waits for it to be ready.
    pub is_awaited: bool,
    pub initializer: Option<Initializer>,
}

/// A function that each worker calls before its first task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Initializer {
    pub entry: Place,
    pub arguments: Vec<u8>,
}

/// The function an initializer's place leads to.
pub(super) type InitializerEntry = fn(&[u8]) -> Result<(), String>;

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn last_panic() -> Option<String> {
    LAST_PANIC.take()
}

/// A panic of a task is the pool's to tell, not the screen's.
fn hear_panics() {
    std::panic::set_hook(Box::new(|info| LAST_PANIC.set(Some(crate::process::describe_panic(info)))));
}

/// Finds functions by their places, most often the same one again.
#[derive(Default)]
struct Entries {
    known: Vec<(Place, usize)>,
}

impl Entries {
    fn find(&mut self, place: Place) -> Result<usize, String> {
        if let Some((_, address)) = self.known.iter().find(|(known, _)| *known == place) {
            return Ok(*address);
        }
        let address = module::address_of(place).map_err(|_| "the function is not in this program".to_owned())?;
        self.known.push((place, address));
        Ok(address)
    }
}

/// The shortest time between two looks at this worker's memory.
const LOOKS: Duration = Duration::from_millis(10);

/// Has this worker replaced if it has more memory than it may, before the reply is sent: then somebody reads.
fn look_at_memory(responder: &Responder) {
    thread_local! {
        static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    if responder.max_rss == 0 || LAST.get().is_some_and(|last| last.elapsed() < LOOKS) {
        return;
    }
    LAST.set(Some(Instant::now()));
    if crate::sys::memory::resident() > responder.max_rss && responder.table.leave(responder.row) {
        responder.call_attention();
    }
}

/// A worker's life.
pub(super) fn work(orders: Orders) -> Result<(), String> {
    let Orders { table, tasks, replies, row, limit, max_rss, is_awaited, initializer } = orders;
    // Ctrl-C reaches the whole terminal: the pool's process decides what becomes of the workers.
    crate::sys::proc::ignore_interrupts();
    hear_panics();
    let mut entries = Entries::default();
    let text = |error: crate::Error| error.to_string();
    if let Some(Initializer { entry, arguments }) = initializer {
        let address = entries.find(entry)?;
        // SAFETY: the pool took the place of a function of this type; the module's hash says that the same code lies there.
        let entry = unsafe { std::mem::transmute::<*const (), InitializerEntry>(address as *const ()) };
        match catch_unwind(AssertUnwindSafe(|| entry(&arguments))) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(format!("the initializer failed: {why}")),
            Err(_) => return Err(format!("the initializer {}", last_panic().unwrap_or_default())),
        }
    }
    table.announce(row).map_err(text)?;
    failpoint!("worker.ready");
    let ticket = Ticket { word: 0, generation: 0 };
    let on_end = look_at_memory;
    let mut responder = Responder { table: table.clone(), replies, ticket, last_panic, on_end, row, max_rss };
    if is_awaited {
        responder.call_attention();
    }
    let mut done = 0;
    while !table.is_released(row) {
        let is_over = || table.is_stopped() || table.is_released(row);
        let taken = tasks.read_with(is_over, |bytes| take(&table, &mut entries, bytes));
        failpoint!("worker.took");
        let Some(taken) = taken.map_err(text)? else {
            failpoint!("worker.released");
            return Ok(());
        };
        // A task that somebody else has claimed, or that is not wanted any more, is passed over.
        let Some(Taken { header, what }) = taken.map_err(text)? else { continue };
        responder.ticket = header.ticket;
        // Whoever takes its place is started while it runs its last task.
        if limit > 0 && done + 1 == limit && table.leave(row) {
            failpoint!("worker.leaving");
            responder.call_attention();
        }
        responder.begin();
        if header.limit > 0 {
            let deadline = crate::sys::proc::monotonic().saturating_add(header.limit);
            table.begin(row, header.ticket.word, header.ticket.generation, deadline);
        }
        let goes_on = match what {
            What::Call(call) => call(&responder),
            What::Unreadable(why) => responder.send(&Reply::<()>::Unreadable(why)),
            What::Cancelled => responder.send(&Reply::<()>::Cancelled),
        };
        if header.limit > 0 {
            table.finish(row);
        }
        failpoint!("worker.replied");
        // A run counts each of its tasks.
        if !header.is_run {
            table.count(row);
        }
        done += 1;
        if done == limit || !goes_on {
            return Ok(());
        }
    }
    failpoint!("worker.released");
    Ok(())
}

/// A task that this worker has claimed.
struct Taken {
    header: Header,
    what: What,
}

/// What there is to do with it.
enum What {
    Call(Call),
    Unreadable(String),
    Cancelled,
}

/// Claims the task in a message and reads its arguments, while the message is still this worker's.
fn take(table: &Table, entries: &mut Entries, bytes: &[u8]) -> Result<Option<Taken>> {
    let Ok((header, arguments)) = postcard::take_from_bytes::<Header>(bytes) else { return Ok(None) };
    failpoint!("worker.before_claim");
    match table.claim(header.ticket.word, header.ticket.generation)? {
        Claim::Nothing => return Ok(None),
        Claim::PassOver => return Ok(Some(Taken { header, what: What::Cancelled })),
        Claim::Run => {}
    }
    failpoint!("worker.claimed");
    let call = entries.find(header.entry).and_then(|address| {
        // SAFETY: the pool took the place of a function of this type; the module's hash says that the same code lies there.
        let entry = unsafe { std::mem::transmute::<*const (), Entry>(address as *const ()) };
        // A user's `Deserialize` may panic.
        let panicked = |_| Err(last_panic().unwrap_or_else(|| "panicked".to_owned()));
        catch_unwind(AssertUnwindSafe(|| entry(arguments, header.is_run))).unwrap_or_else(panicked)
    });
    Ok(Some(Taken { header, what: call.map_or_else(What::Unreadable, What::Call) }))
}
