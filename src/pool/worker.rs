//! What a worker process does: initialise, take tasks, run them, until the pool is closed or enough were done.

use super::table::Table;
use super::task::{Call, Entry, Header, Reply, Responder};
use crate::channel::Queue;
use crate::error::Result;
use crate::sys::module::{self, Place};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a worker is given at its start.
#[derive(Serialize, Deserialize)]
pub(super) struct Orders {
    pub table: Table,
    pub tasks: Queue<()>,
    pub replies: Queue<()>,
    pub row: u32,
    /// Tasks after which it ends; 0 for no limit.
    pub limit: u64,
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

/// A worker's life.
pub(super) fn work(orders: Orders) -> Result<(), String> {
    let Orders { table, tasks, replies, row, limit, initializer } = orders;
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
    let mut done = 0;
    let mut responder = Responder { replies, ticket: super::task::Ticket { word: 0, generation: 0 }, last_panic };
    loop {
        let taken = tasks.read_with(|| table.is_stopped(), |bytes| take(&table, &mut entries, bytes));
        failpoint!("worker.took");
        let Some(taken) = taken.map_err(text)? else { return Ok(()) };
        // A task that somebody else has claimed, or that is not wanted any more, is passed over.
        let Some((ticket, call)) = taken.map_err(text)? else { continue };
        responder.ticket = ticket;
        match call {
            Ok(call) => call(&responder),
            Err(why) => responder.send(&Reply::<()>::Unreadable(why)),
        }
        failpoint!("worker.replied");
        table.count(row);
        done += 1;
        if done == limit {
            return Ok(());
        }
    }
}

type Taken = Option<(super::task::Ticket, Result<Call, String>)>;

/// Claims the task in a message and reads its arguments, while the message is still this worker's.
fn take(table: &Table, entries: &mut Entries, bytes: &[u8]) -> Result<Taken> {
    let Ok((header, arguments)) = postcard::take_from_bytes::<Header>(bytes) else { return Ok(None) };
    failpoint!("worker.before_claim");
    if !table.claim(header.ticket.word, header.ticket.generation)? {
        return Ok(None);
    }
    failpoint!("worker.claimed");
    let call = entries.find(header.entry).and_then(|address| {
        // SAFETY: the pool took the place of a function of this type; the module's hash says that the same code lies there.
        let entry = unsafe { std::mem::transmute::<*const (), Entry>(address as *const ()) };
        entry(arguments)
    });
    Ok(Some((header.ticket, call)))
}
