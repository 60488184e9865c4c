//! Runs: tasks of a map that a worker takes together and ends one by one.
//!
//! ```text
//! message    Header {…, is_run} | arguments, each with its length          one word for all of them: who runs the run
//! share      next+1 before each task: what is not begun can be taken back, and what is begun is known when the worker dies
//! PoolRun    one for each worker: name 0 → (generation, word) when it begins; after each task its outcome behind the others, then
//!            published = {first, count + 1, bytes}; full: a part of the reply is sent, then {first + count, 0, 0}
//! reply      parts: Ticket | Part {first, count, is_last, …} | outcomes, each with its length
//! look       name and published (acquire), copy in relaxed words, acquire fence, both the same but for more outcomes
//! ```
//! A message a task costs a dozen lines that travel between the workers and the pool: half a microsecond, of which the task itself
//! may be a hundredth. So where tasks are short and many wait, several travel together; the unit of everything else stays the task.
//! Its outcome counts from the moment it is published, whatever becomes of the worker afterwards; the pool looks at what is
//! published and not sent when a task turns out to be long ([`super::sharing`]) and when the worker died.
//!
//! A run is as long as tasks are likely to end within [`TIME`], by what those before took, and no longer than a quarter of a
//! worker's share of what waits; tasks with a deadline or a priority, and those of workers that are to be replaced after so many
//! tasks or bytes, are taken singly.

use super::state::Waiting;
use super::table::Table;
use super::task::{Outcome, Part, Reply, Responder, is_cancelled};
use crate::channel::Outbox;
use crate::segment::atomic;
use crate::segment::object::{Carrier, sending, take_refusal};
use serde::{Serialize, Serializer};
use shmkit_layouts::objects::PoolRun;
use shmkit_layouts::words::Published;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

/// The most tasks of a run: what comes of so many small ones fits a message's block.
const LONGEST: u32 = 32;
/// How long a run is likely to take at most.
const TIME: Duration = Duration::from_micros(100);
/// What waits is cut into so many runs for each worker, at least.
const SHARES: u32 = 4;
/// Runs under way while nobody knows yet how long a task takes.
const UNKNOWN: usize = 128;
/// Bytes of outcomes that a worker can publish before it must send them.
const ROOM: usize = 254 * 8;
const _: () = assert!(size_of::<PoolRun>() == 16 + ROOM);

/// How long a task of a batch takes, in nanoseconds: 0 while nobody knows.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    // Relaxed: a statistic.

    /// What a worker says of a run: it may have been stopped in the middle, so the short ones are believed.
    pub(super) fn note(&self, nanos: u64) {
        let (known, nanos) = (self.0.load(Ordering::Relaxed), nanos.max(1));
        let now = if known == 0 || nanos < known { nanos } else { known.midpoint(nanos) };
        self.0.store(now, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Waiting {
    /// How many tasks the next run is to have, if `workers` take from what waits; `None` if it is too early to say, with so many
    /// messages under way.
    pub(super) fn next_run(&self, workers: u32, under_way: usize) -> Option<u32> {
        let pace = self.work.pace().map_or(0, Pace::get);
        if pace == 0 && under_way >= UNKNOWN {
            return None;
        }
        let in_time = (TIME.as_nanos() as u64).checked_div(pace).unwrap_or(1).min(u64::from(LONGEST)) as u32;
        let share = (self.end - self.next) / (SHARES * workers.max(1));
        Some(in_time.min(share).max(1))
    }
}

/// What a worker has published of a run and may not have sent.
pub(super) struct Unsent {
    pub(super) word: u32,
    pub(super) generation: u32,
    /// The task whose outcome is the first, and how many there are.
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) records: Vec<u8>,
}

impl Table {
    // ---- a worker ------------------------------------------------------------------------------------------------

    /// Publishes nothing any more.
    pub(super) fn end_run(&self, worker: u32) {
        if let Some(run) = self.run(worker) {
            atomic!(run, name).store(0, Ordering::Relaxed);
            atomic!(run, published).store(0, Ordering::Relaxed);
        }
    }

    fn begin_run(&self, worker: u32, index: u32, generation: u32) {
        self.end_run(worker);
        if let Some(run) = self.run(worker) {
            // Pairs with the fence in `unsent`: who sees an outcome of this run does not see the last one's name.
            fence(Ordering::Release);
            let name = u64::from(generation) << 32 | u64::from(index + 1);
            atomic!(run, name).store(name, Ordering::Release);
        }
    }

    /// Publishes the outcomes in `records`, of which the last one, from `at` on, is new.
    fn publish(&self, worker: u32, published: Published, records: &[u8], at: usize) {
        let Some(run) = self.run(worker) else { return };
        for index in at / 8..records.len().div_ceil(8) {
            let rest = &records[index * 8..];
            let word = rest.first_chunk().copied().unwrap_or_else(|| {
                // Byte by byte, for there are few: a call to copy them takes longer.
                std::array::from_fn(|place| rest.get(place).copied().unwrap_or(0))
            });
            // Relaxed: published below. What is published already is written again as it is.
            atomic!(run, outcomes)[index].store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
        failpoint!("worker.unpublished");
        // SYNC POINT: pairs with the acquire in `unsent`.
        atomic!(run, published).store(published.pack(), Ordering::Release);
    }

    /// Begins again: all outcomes before `first` are sent.
    fn restart(&self, worker: u32, first: u32) {
        if let Some(run) = self.run(worker) {
            atomic!(run, published).store(Published { first, count: 0, bytes: 0 }.pack(), Ordering::Relaxed);
            // Pairs with the fence in `unsent`: who sees a later outcome sees this.
            fence(Ordering::Release);
        }
    }

    // ---- the pool ------------------------------------------------------------------------------------------------

    /// What a worker has published of its run; `None` if there is nothing, or it is just being changed.
    pub(super) fn unsent(&self, worker: u32) -> Option<Unsent> {
        let run = self.run(worker)?;
        // SYNC POINT: acquire pairs with the releases in `begin_run` and `publish`.
        let name = atomic!(run, name).load(Ordering::Acquire);
        let published = Published::unpack(atomic!(run, published).load(Ordering::Acquire));
        let len = published.bytes as usize;
        if name as u32 == 0 || published.count == 0 || len > ROOM {
            return None;
        }
        let mut records = Vec::with_capacity(len.next_multiple_of(8));
        for index in 0..len.div_ceil(8) {
            // Relaxed: ordered by the fence below.
            let word = atomic!(run, outcomes)[index].load(Ordering::Relaxed);
            records.extend_from_slice(&word.to_ne_bytes());
        }
        records.truncate(len);
        // Pairs with the fences of the worker.
        fence(Ordering::Acquire);
        let now = Published::unpack(atomic!(run, published).load(Ordering::Relaxed));
        // More of them may have come, behind those that were copied.
        let is_same = now.first == published.first && now.count >= published.count;
        if !is_same || atomic!(run, name).load(Ordering::Relaxed) != name {
            return None;
        }
        let (word, generation) = ((name as u32).wrapping_sub(1), (name >> 32) as u32);
        Some(Unsent { word, generation, first: published.first, count: published.count, records })
    }
}

/// Bytes as they are.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Writes behind what a vector holds.
struct Behind<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Behind<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        // A number: a call to copy it takes longer.
        if data.len() < 8 {
            self.0.extend(data.iter().copied())
        } else {
            self.0.extend_from_slice(data)
        }
        Ok(())
    }
    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }
    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Writes `value` behind what `bytes` hold, with its length before it, as postcard writes a slice of bytes.
pub(super) fn write_with_length<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) -> postcard::Result<()> {
    let at = bytes.len();
    bytes.push(0);
    postcard::serialize_with_flavor(value, Behind(bytes))?;
    let mut len = bytes.len() - at - 1;
    let mut place = at;
    while len >= 0x80 {
        bytes[place] = len as u8 | 0x80;
        place += 1;
        len >>= 7;
        bytes.insert(place, 0);
    }
    bytes[place] = len as u8;
    Ok(())
}

/// A run that this worker is at.
pub(super) struct Run<'a> {
    responder: &'a Responder,
    /// Outcomes that are published and not sent; the first one, and how many there are.
    records: Vec<u8>,
    first: u32,
    count: u32,
    start: Instant,
}

impl<'a> Run<'a> {
    pub(super) fn begin(responder: &'a Responder) -> Run<'a> {
        let ticket = responder.ticket;
        responder.table.begin_run(responder.row, ticket.word, ticket.generation);
        Run { responder, records: Vec::with_capacity(256), first: 0, count: 0, start: Instant::now() }
    }

    /// Publishes what came of the next task; false if no other is to be begun.
    pub(super) fn publish<R: Serialize>(&mut self, outcome: &Outcome<R>) -> bool {
        let Responder { table, row, .. } = self.responder;
        let mut at = self.records.len();
        // A user's `Serialize` may panic.
        let mut write = || catch_unwind(AssertUnwindSafe(|| write_with_length(&mut self.records, outcome)));
        let (written, has_handles) = sending(Carrier::Sender, &mut write);
        if !matches!(written, Ok(Ok(()))) || has_handles || self.records.len() - at > ROOM {
            // It needs a message of its own: its handles are kept by that, its bytes lie in the heap, or there is a reason why not.
            self.records.truncate(at);
            take_refusal();
            self.flush();
            self.send_alone(outcome);
            self.restart_behind(1);
        } else {
            if self.records.len() > ROOM {
                let last = self.records.split_off(at);
                self.flush();
                (self.records, at) = (last, 0);
            }
            self.count += 1;
            let published = Published { first: self.first, count: self.count, bytes: self.records.len() as u32 };
            table.publish(*row, published, &self.records, at);
            failpoint!("worker.published");
        }
        table.count(*row);
        !is_cancelled()
    }

    fn restart_behind(&mut self, sent: u32) {
        self.records.clear();
        self.first += sent;
        self.count = 0;
        self.responder.table.restart(self.responder.row, self.first);
    }

    fn part(&self) -> Part {
        Part { first: self.first, count: self.count, is_last: false, is_alone: false, pace: 0 }
    }

    /// Sends what is published.
    fn flush(&mut self) {
        if self.count == 0 {
            return;
        }
        let part = Reply::<()>::Part(self.part());
        let message = (&self.responder.ticket, &part, Bytes(&self.records));
        let mut outbox = Outbox::default();
        // If even that fails, the pool is gone.
        let _ = self.responder.replies.write(&mut outbox, &message);
        self.responder.deliver(&mut outbox);
        failpoint!("worker.flushed");
        self.restart_behind(self.count);
    }

    fn send_alone<R: Serialize>(&self, outcome: &Outcome<R>) {
        let part = Reply::<()>::Part(Part { count: 1, is_alone: true, ..self.part() });
        let mut outbox = Outbox::default();
        if let Err(why) = self.responder.write(&mut outbox, &(&self.responder.ticket, &part, outcome)) {
            let outcome = Outcome::<()>::Unwritable(why);
            let _ = self.responder.replies.write(&mut outbox, &(&self.responder.ticket, &part, &outcome));
        }
        self.responder.deliver(&mut outbox);
        failpoint!("worker.flushed");
    }

    /// Sends the rest; false if this worker was condemned and must end.
    pub(super) fn end(self) -> bool {
        let done = u64::from(self.first + self.count).max(1);
        let pace = self.start.elapsed().as_nanos() as u64 / done;
        let part = Reply::<()>::Part(Part { is_last: true, pace: pace.max(1), ..self.part() });
        self.responder.conclude(&(&self.responder.ticket, &part, Bytes(&self.records)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_written_as_postcard_writes_it() {
        for len in [0, 1, 127, 128, 129, 16_383, 16_384, 3_000_000] {
            let (mut bytes, text) = (vec![7], vec![9u8; len]);
            write_with_length(&mut bytes, &Bytes(&text)).unwrap();
            assert_eq!(bytes[0], 7);
            let (read, rest) = postcard::take_from_bytes::<&[u8]>(&bytes[1..]).unwrap();
            assert_eq!((postcard::from_bytes::<&[u8]>(read).unwrap(), rest), (&text[..], &[][..]), "{len}");
        }
    }

    #[test]
    fn the_pace_is_that_of_short_runs() {
        let pace = Pace::default();
        for (said, known) in [(1000, 1000), (100, 100), (300, 200), (0, 1)] {
            pace.note(said);
            assert_eq!(pace.get(), known);
        }
    }
}
