//! The ring: a bounded queue of block indices for many producers and consumers, over a pool of owned blocks.
//!
//! ```text
//! slot[N]   u64  lap:32 | st:2 {FREE, READY, TAKEN, END} | own:12 | idx:18      position p: slot s(p mod N), lap p div N
//! block[B]  u64  gen:32 | own:12 | st:4 {FREE, W, R, RL, RQP, RQ} | deliveries:16
//! extent[B] u64  where a long message lies; 0 in a FREE block                  only in queues of serialised messages
//! head, tail, and beside them the wait words not_empty, not_full, block_free
//!
//! claim     CAS block {g,FREE} → {g+1,me,W}: only this counts; where to look first is a private hint
//! enqueue   t=tail, w=slot[t], d = w.lap - lap(t)
//!           d=0, FREE          CAS → {lap,READY,idx}: THE COMMIT; then tail t→t+1, which may fail: somebody helped
//!           d=0, END           closed
//!           d>0 or d=0         help tail, again
//!           d<0                full, if tail is still t
//! dequeue   h=head, w=slot[h]
//!           d=0, READY         CAS → {lap,TAKEN,me,idx}; (1) head h→h+1 (2) block={g,me,R} (3) slot={lap+1,FREE}
//!           d=0, END           the end
//!           d>0 or TAKEN       help head, again
//!           d<0 or FREE        empty, if head is still h; of a closed queue: CAS → {lap,END}, and that is the end
//! release   block={g,FREE}; with an extent: {g,me,RL} first, free it, extent=0
//! ```
//! N is at least 64 and more than the capacity K; a queue is full when tail - head reaches K, exactly. The END mark makes
//! closing exact: a message is committed before it and received, or its producer finds it and is told.
//!
//! s swaps the bits 0 to 2 of a position with the bits 3 to 5: slots are eight to a cache line, and a producer and a consumer who
//! are close behind one another would hand each line over eight times. Blocks are claimed in the same order. (A third more
//! messages a second between two cores.)
//!
//! Model: `mcq_rebirth`, `mcq_onepass` (`tests/models`). Recovery is in [`super::recovery`].

use super::growth::Growth;
use super::spec::{MAX_BLOCKS, MIN_RING, PAYLOAD_ALIGN};
use crate::error::{Result, corrupt};
use crate::segment::wait;
use crate::segment::{Attachment, atomic, fetch};
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering};
use shmkit_layouts::objects::{BlockMeta, QUEUE_AT_MOST_ONCE, QUEUE_CLOSED, QUEUE_OPEN, QUEUE_SHUT_DOWN, QueueBody};
use shmkit_layouts::words::*;
use std::sync::Arc;

/// From this stride on, blocks are reused lowest-first: a small hot set matters more than neighbours that share a line.
const LARGE: u32 = 4096;

/// A block that this process owns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claimed {
    /// Which.
    pub index: u32,
    /// Its word, as this process has written it.
    pub word: u64,
}

impl Claimed {
    pub(crate) fn generation(self) -> u32 {
        Block::unpack(self.word).generation
    }

    /// How often the message was delivered before.
    pub(crate) fn deliveries(self) -> u32 {
        Block::unpack(self.word).deliveries
    }
}

/// What came of an attempt to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Done,
    Full,
    Closed,
    /// A slot's word that cannot be. Not an error yet: those are large, and every attempt would carry one about.
    Corrupt(u64),
}

/// What came of an attempt to take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Taken {
    Block(Claimed),
    Empty,
    End,
    /// What cannot be, and how it reads.
    Corrupt(&'static str, u64),
}

/// Where to look first, for this handle alone. Nothing depends on it. In a line of its own: threads that share a handle read
/// the geometry beside it all the time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Hints {
    /// The next block to try.
    block: AtomicU32,
    /// A value `head` has had: it only grows.
    head: AtomicU64,
    /// `requeue` when no block was waiting to be delivered again.
    requeue: AtomicU32,
}

/// One process's view of a ring: its geometry, checked once and kept here.
#[derive(Debug)]
pub(crate) struct Ring {
    body: *const QueueBody,
    slots: *const AtomicU64,
    words: *const AtomicU64,
    /// Null where messages have no extents.
    extents: *const AtomicU64,
    /// Null where they lie in chunks.
    payload: *mut u8,
    growth: Option<Arc<Growth>>,
    stride: usize,
    capacity: u64,
    mask: u64,
    shift: u32,
    blocks: u32,
    /// Whether the search for a free block goes on where the last one ended.
    rotates: bool,
    /// Below this, blocks are tried in the order of [`scattered`].
    scattered: u32,
    pub(super) at_most_once: bool,
    /// Where the body lies in the segment.
    offset: u64,
    hints: Hints,
}

// SAFETY: the pointers are into the mapping, which the handle's object keeps; shared words are reached as atomics, payloads
// by the owner of their block only.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Clone for Ring {
    fn clone(&self) -> Ring {
        let hints = Hints {
            block: AtomicU32::new(self.hints.block.load(Ordering::Relaxed)),
            head: AtomicU64::new(self.hints.head.load(Ordering::Relaxed)),
            requeue: AtomicU32::new(self.hints.requeue.load(Ordering::Relaxed)),
        };
        Ring { hints, growth: self.growth.clone(), ..*self }
    }
}

impl Ring {
    /// The ring whose body lies at `offset` in the segment and ends before `end`. Everything is checked here, once.
    pub(crate) fn at(attachment: &Attachment, offset: u64, end: u64) -> Result<Ring> {
        let body = attachment.pointer::<QueueBody>(offset, "queue")?;
        let wrong = |found: u64| corrupt("queue", offset, found);
        if offset.checked_add(size_of::<QueueBody>() as u64).is_none_or(|first| first > end) {
            return Err(wrong(offset));
        }
        let (capacity, ring, blocks) = (fetch!(body, capacity), fetch!(body, ring), fetch!(body, blocks));
        let (stride, flags) = (fetch!(body, stride), fetch!(body, flags));
        if !ring.is_power_of_two() || !(MIN_RING..=MAX_BLOCKS).contains(&ring) {
            return Err(wrong(u64::from(ring)));
        }
        if capacity == 0 || capacity >= ring {
            return Err(wrong(u64::from(capacity)));
        }
        if blocks <= capacity || blocks > MAX_BLOCKS {
            return Err(wrong(u64::from(blocks)));
        }
        let extents_offset = fetch!(body, extents_offset);
        let least = if extents_offset == 0 { 8 } else { size_of::<BlockMeta>() as u32 };
        if stride < least || !stride.is_multiple_of(8) {
            return Err(wrong(u64::from(stride)));
        }
        let part = |at: u64, count: u32, each: u64, align: u64| {
            let first = offset
                .checked_add(at)
                .filter(|first| at >= size_of::<QueueBody>() as u64 && first.is_multiple_of(align));
            let len = u64::from(count) * each;
            match first.filter(|first| first.checked_add(len).is_some_and(|last| last <= end)) {
                Some(first) => attachment.pointer::<u64>(first, "queue"),
                None => Err(wrong(at)),
            }
        };
        let per = fetch!(body, chunk_blocks);
        let growth = match per {
            0 => None,
            _ if !blocks.is_multiple_of(per) => return Err(wrong(u64::from(per))),
            _ => {
                let table = part(fetch!(body, chunks_offset), blocks / per, 8, 8)?.cast();
                Some(Arc::new(Growth::new(table, blocks / per, per, stride)))
            }
        };
        Ok(Ring {
            body,
            slots: part(fetch!(body, slots_offset), ring, 8, 8)?.cast(),
            words: part(fetch!(body, words_offset), blocks, 8, 8)?.cast(),
            extents: match extents_offset {
                0 => std::ptr::null(),
                at => part(at, blocks, 8, 8)?.cast(),
            },
            payload: match growth {
                Some(_) => std::ptr::null_mut(),
                None => part(fetch!(body, payload_offset), blocks, u64::from(stride), PAYLOAD_ALIGN)?.cast_mut().cast(),
            },
            growth,
            stride: stride as usize,
            capacity: u64::from(capacity),
            mask: u64::from(ring) - 1,
            shift: ring.trailing_zeros(),
            blocks,
            rotates: stride < LARGE,
            scattered: if stride < LARGE { blocks & !63 } else { 0 },
            at_most_once: flags & QUEUE_AT_MOST_ONCE != 0,
            offset,
            hints: Hints::default(),
        })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    pub(crate) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Bytes of a block's payload.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn has_extents(&self) -> bool {
        !self.extents.is_null()
    }

    pub(crate) fn corrupt(&self, what: &'static str, found: u64) -> crate::Error {
        corrupt(what, self.offset, found)
    }

    pub(crate) fn not_empty(&self) -> &AtomicU32 {
        atomic!(self.body, not_empty)
    }

    pub(crate) fn not_full(&self) -> &AtomicU32 {
        atomic!(self.body, not_full)
    }

    pub(crate) fn block_free(&self) -> &AtomicU32 {
        atomic!(self.body, block_free)
    }

    pub(super) fn all_done(&self) -> &AtomicU32 {
        atomic!(self.body, all_done)
    }

    pub(super) fn roles(&self) -> &AtomicU32 {
        atomic!(self.body, roles)
    }

    pub(super) fn head(&self) -> &AtomicU64 {
        atomic!(self.body, head)
    }

    pub(super) fn tail(&self) -> &AtomicU64 {
        atomic!(self.body, tail)
    }

    pub(super) fn requeue(&self) -> &AtomicU32 {
        atomic!(self.body, requeue)
    }

    /// The slot of a position.
    #[inline]
    pub(super) fn slot(&self, position: u64) -> &AtomicU64 {
        self.slot_at(scattered((position & self.mask) as u32))
    }

    /// The slot of an index up to the mask.
    #[inline]
    pub(super) fn slot_at(&self, index: u32) -> &AtomicU64 {
        // SAFETY: the index is below the number of slots, which `at` checked; the reference is to an atomic.
        unsafe { &*self.slots.add(index as usize) }
    }

    pub(super) fn slots(&self) -> u32 {
        (self.mask + 1) as u32
    }

    pub(super) fn lap(&self, position: u64) -> u32 {
        (position >> self.shift) as u32
    }

    /// The word of a block, whose index is below `blocks`.
    #[inline]
    pub(super) fn word(&self, index: u32) -> &AtomicU64 {
        debug_assert!(index < self.blocks);
        // SAFETY: the index is below the number of blocks, which `at` checked; the reference is to an atomic.
        unsafe { &*self.words.add(index as usize) }
    }

    /// The word that names a block's extent, in a queue that has them.
    pub(super) fn extent(&self, index: u32) -> Option<&AtomicU64> {
        debug_assert!(index < self.blocks);
        // SAFETY: as in `word`.
        (!self.extents.is_null()).then(|| unsafe { &*self.extents.add(index as usize) })
    }

    /// The payload of a block. To be touched by the block's owner only. Where payloads lie in chunks, of a block that this
    /// process has claimed, or [`looked for`](Ring::look).
    #[inline]
    pub(crate) fn payload(&self, index: u32) -> *mut u8 {
        debug_assert!(index < self.blocks);
        match &self.growth {
            None => self.payload.wrapping_add(index as usize * self.stride),
            Some(growth) => growth.payload(index, self.stride),
        }
    }

    /// Finds out where the payload of a block lies that somebody else has claimed.
    #[inline]
    pub(super) fn look(&self, attachment: &Attachment, index: u32) -> Result<()> {
        match &self.growth {
            None => Ok(()),
            Some(growth) => growth.look(attachment, index),
        }
    }

    /// What there is of a ring that grows.
    pub(super) fn growth(&self) -> Option<&Growth> {
        self.growth.as_deref()
    }

    // ---- blocks -----------------------------------------------------------------------------------------------------

    /// The block that is tried as number `cursor`.
    #[inline]
    fn in_turn(&self, cursor: u32) -> u32 {
        if cursor < self.scattered { scattered(cursor) } else { cursor }
    }

    /// Claims a free block for the participant in slot `me`.
    #[inline]
    pub(crate) fn claim(&self, me: u32) -> Option<Claimed> {
        let mut cursor = if self.rotates { self.hints.block.load(Ordering::Relaxed) } else { 0 };
        let blocks = self.growth.as_ref().map_or(self.blocks, |growth| growth.blocks());
        for _ in 0..blocks {
            if cursor >= blocks {
                cursor = 0;
            }
            let index = self.in_turn(cursor);
            cursor += 1;
            let word = self.word(index);
            let seen = word.load(Ordering::Relaxed);
            let block = Block::unpack(seen);
            if block.state != BLOCK_FREE {
                continue;
            }
            let generation = block.generation.wrapping_add(1);
            let mine = Block { generation, owner: me, state: BLOCK_WRITE, deliveries: 0 }.pack();
            failpoint!("queue.before_claim");
            // Acquire pairs with the release in `free`: the last owner is done with the payload.
            if word.compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                self.hints.block.store(cursor, Ordering::Relaxed);
                failpoint!("queue.claimed");
                return Some(Claimed { index, word: mine });
            }
        }
        None
    }

    /// Has the lines of the block that is to be claimed next fetched, while something else is done that takes as long: its last
    /// owner has them. (8 % more records a second; messages that are put without serialising leave no time for it.)
    #[inline]
    pub(super) fn fetch_next(&self) {
        let cursor = self.hints.block.load(Ordering::Relaxed);
        if self.rotates && cursor < self.blocks && self.growth.is_none() {
            let index = self.in_turn(cursor);
            fetch_to_write(self.words.wrapping_add(index as usize).cast());
            fetch_to_write(self.payload(index));
            fetch_to_write(self.payload(index).wrapping_add(64));
        }
    }

    /// Gives a block back whose message, if any, lies in it. False if the block is not this process's.
    #[inline]
    pub(crate) fn free(&self, claimed: Claimed) -> bool {
        let word = self.word(claimed.index);
        // Nobody else changes it while I live; a scribble is not built upon.
        if word.load(Ordering::Relaxed) != claimed.word {
            return false;
        }
        let free = Block { generation: claimed.generation(), owner: 0, state: BLOCK_FREE, deliveries: 0 };
        failpoint!("queue.before_free");
        // Release pairs with the acquire in `claim`.
        word.store(free.pack(), Ordering::Release);
        failpoint!("queue.freed");
        wait::publish_one(self.block_free());
        true
    }

    /// Gives a block back and frees what its message has in the heap.
    pub(crate) fn free_with_extent(&self, attachment: &Attachment, claimed: Claimed) -> bool {
        let word = self.word(claimed.index);
        if word.load(Ordering::Relaxed) != claimed.word {
            return false;
        }
        // From here on the message cannot be delivered again.
        let releasing = Block { state: BLOCK_RELEASING, ..Block::unpack(claimed.word) }.pack();
        // Release: whoever finishes this sees the extent's name.
        word.store(releasing, Ordering::Release);
        failpoint!("queue.releasing");
        self.free_extent(attachment, claimed.index);
        self.free(Claimed { word: releasing, ..claimed })
    }

    /// Frees the extent of a block. Idempotent.
    pub(super) fn free_extent(&self, attachment: &Attachment, index: u32) {
        if let Some(extent) = self.extent(index) {
            attachment.free_extent(extent.load(Ordering::Acquire));
            failpoint!("queue.extent_freed");
            extent.store(0, Ordering::Release);
            failpoint!("queue.extent_cleared");
        }
    }

    // ---- producers ----------------------------------------------------------------------------------------------------

    /// Whether a message may be put at position `t`.
    #[inline]
    pub(super) fn has_room_at(&self, t: u64) -> bool {
        let used = |head: u64| t.wrapping_sub(head) as i64;
        // An old head makes the queue look fuller than it is, never emptier.
        used(self.hints.head.load(Ordering::Relaxed)) < self.capacity as i64 || {
            let head = self.settled_head();
            self.hints.head.store(head, Ordering::Relaxed);
            used(head) < self.capacity as i64
        }
    }

    /// `head`, moved past what was taken by consumers that have not said so yet.
    #[cold]
    fn settled_head(&self) -> u64 {
        let mut head = self.head().load(Ordering::Acquire);
        for _ in 0..=self.mask {
            let slot = Slot::unpack(self.slot(head).load(Ordering::Acquire));
            let ahead = slot.lap.wrapping_sub(self.lap(head)) as i32;
            if !(ahead == 1 || ahead == 0 && slot.state == SLOT_TAKEN) {
                break;
            }
            let next = head.wrapping_add(1);
            head = match self.head().compare_exchange(head, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => next,
                Err(now) => now,
            };
        }
        head
    }

    /// Whether there is room for a message at this instant.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.has_room_at(self.tail().load(Ordering::Relaxed))
    }

    /// Puts the message in `claimed` at the end of the queue: commits it.
    #[inline]
    pub(crate) fn enqueue(&self, claimed: Claimed) -> Put {
        loop {
            let t = self.tail().load(Ordering::Acquire);
            if !self.has_room_at(t) {
                if self.tail().load(Ordering::Acquire) == t {
                    return Put::Full;
                }
                continue;
            }
            let slot = self.slot(t);
            let seen = slot.load(Ordering::Acquire);
            let lap = self.lap(t);
            if seen == (Slot { lap, ..FREE }).pack() {
                let ready = Slot { lap, state: SLOT_READY, owner: 0, index: claimed.index };
                failpoint!("queue.before_ready");
                // SYNC POINT: release pairs with the acquire in `dequeue`: the consumer sees the payload and the block's word.
                if slot.compare_exchange(seen, ready.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    failpoint!("queue.ready");
                    let _ = self.tail().compare_exchange(t, t.wrapping_add(1), Ordering::Release, Ordering::Relaxed);
                    failpoint!("queue.tail");
                    wait::publish_one(self.not_empty());
                    return Put::Done;
                }
            } else if let Some(put) = self.help_tail(t, lap, seen) {
                return put;
            }
        }
    }

    /// The tail's slot is in use: by a message whose producer has not moved the tail yet, or by one of the lap before.
    #[cold]
    fn help_tail(&self, t: u64, lap: u32, seen: u64) -> Option<Put> {
        let (tail, found) = (self.tail(), Slot::unpack(seen));
        match (found.lap.wrapping_sub(lap) as i32, found.state) {
            (0, SLOT_END) => Some(Put::Closed),
            (0, SLOT_READY | SLOT_TAKEN) | (1, _) => {
                let _ = tail.compare_exchange(t, t.wrapping_add(1), Ordering::Release, Ordering::Relaxed);
                None
            }
            _ if tail.load(Ordering::Acquire) != t => None,
            (-1, _) => Some(Put::Full),
            _ => Some(Put::Corrupt(seen)),
        }
    }

    // ---- consumers ----------------------------------------------------------------------------------------------------

    /// Takes the oldest message, or one that is to be delivered again, for the participant in slot `me`.
    #[inline]
    pub(crate) fn dequeue(&self, me: u32) -> Taken {
        if self.has_left_over()
            && let Some(again) = self.adopt(me)
        {
            return Taken::Block(again);
        }
        loop {
            let h = self.head().load(Ordering::Acquire);
            let slot = self.slot(h);
            // SYNC POINT: acquire pairs with the release in `enqueue`.
            let seen = slot.load(Ordering::Acquire);
            let (lap, found) = (self.lap(h), Slot::unpack(seen));
            if found.lap == lap && found.state == SLOT_READY {
                let taken = Slot { state: SLOT_TAKEN, owner: me, ..found };
                failpoint!("queue.before_taken");
                if slot.compare_exchange(seen, taken.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    failpoint!("queue.taken");
                    let _ = self.head().compare_exchange(h, h.wrapping_add(1), Ordering::Release, Ordering::Relaxed);
                    failpoint!("queue.head");
                    let outcome = self.read(found.index, me);
                    failpoint!("queue.read");
                    // Release: who sees the slot free sees the block in R. Recovery relies on that order.
                    slot.store(Slot { lap: lap.wrapping_add(1), ..FREE }.pack(), Ordering::Release);
                    failpoint!("queue.slot_free");
                    wait::publish_one(self.not_full());
                    return outcome;
                }
            } else if let Some(outcome) = self.help_head(h, lap, seen) {
                return outcome;
            }
        }
    }

    /// The block of a slot that this process has TAKEN becomes its own to read.
    #[inline]
    pub(super) fn read(&self, index: u32, me: u32) -> Taken {
        if index >= self.blocks {
            return Taken::Corrupt("index in a queue slot", u64::from(index));
        }
        let word = self.word(index);
        let block = Block::unpack(word.load(Ordering::Relaxed));
        if block.state != BLOCK_WRITE {
            return Taken::Corrupt("queue block", block.pack());
        }
        let mine = Block { owner: me, state: BLOCK_READ, ..block }.pack();
        word.store(mine, Ordering::Release);
        Taken::Block(Claimed { index, word: mine })
    }

    /// The head's slot holds no message: it was taken already, or there is none.
    #[cold]
    fn help_head(&self, h: u64, lap: u32, seen: u64) -> Option<Taken> {
        let (head, found) = (self.head(), Slot::unpack(seen));
        let ahead = found.lap.wrapping_sub(lap) as i32;
        match (ahead, found.state) {
            (0, SLOT_END) => return Some(Taken::End),
            (1, _) | (0, SLOT_TAKEN) => {
                let _ = head.compare_exchange(h, h.wrapping_add(1), Ordering::Release, Ordering::Relaxed);
                return None;
            }
            _ => {}
        }
        // Acquire pairs with the release of whoever moved it.
        if head.load(Ordering::Acquire) != h {
            return None;
        }
        match (ahead, found.state) {
            (0, SLOT_FREE) if self.is_closed() => {
                let end = Slot { state: SLOT_END, ..found };
                let ended =
                    self.slot(h).compare_exchange(seen, end.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok();
                failpoint!("queue.ended");
                ended.then_some(Taken::End)
            }
            (0, SLOT_FREE) | (-1, _) => Some(Taken::Empty),
            _ => Some(Taken::Corrupt("queue slot", seen)),
        }
    }

    /// Whether recovery has left a block to be delivered again since this handle last found none.
    #[inline]
    pub(super) fn has_left_over(&self) -> bool {
        self.requeue().load(Ordering::Relaxed) != self.hints.requeue.load(Ordering::Relaxed)
    }

    /// Takes a block whose consumer died.
    #[cold]
    fn adopt(&self, me: u32) -> Option<Claimed> {
        // Acquire pairs with recovery's release: the blocks it left are seen.
        let round = self.requeue().load(Ordering::Acquire);
        for index in 0..self.blocks {
            let word = self.word(index);
            let seen = word.load(Ordering::Acquire);
            let block = Block::unpack(seen);
            if block.state == BLOCK_REQUEUE {
                let deliveries = (block.deliveries + 1).min(0xFFFF);
                let mine = Block { owner: me, state: BLOCK_READ, deliveries, ..block }.pack();
                if word.compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    failpoint!("queue.adopted");
                    return Some(Claimed { index, word: mine });
                }
            }
        }
        self.hints.requeue.store(round, Ordering::Relaxed);
        None
    }

    /// Whether another message may be there to be taken: not, if there certainly is none.
    pub(crate) fn has_next(&self) -> bool {
        let h = self.head().load(Ordering::Acquire);
        // Acquire pairs with the release in `enqueue`.
        let slot = Slot::unpack(self.slot(h).load(Ordering::Acquire));
        self.has_left_over() || slot.lap != self.lap(h) || slot.state != SLOT_FREE
    }

    // ---- state ----------------------------------------------------------------------------------------------------------

    /// Whether it is to take no more messages.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        // Acquire pairs with the store in `close`; the END mark makes it exact.
        atomic!(self.body, closed).load(Ordering::Acquire) != QUEUE_OPEN
    }

    /// Whether what is in it is to be thrown away, too.
    #[inline]
    pub(super) fn is_shut_down(&self) -> bool {
        // Acquire pairs with the release in `shut_down`.
        atomic!(self.body, closed).load(Ordering::Acquire) > QUEUE_CLOSED
    }

    /// Lets nobody begin to put a message any more.
    pub(crate) fn close(&self) {
        self.end(QUEUE_CLOSED);
    }

    /// Lets nobody begin to put or get a message any more.
    pub(super) fn shut_down(&self) {
        self.end(QUEUE_SHUT_DOWN);
    }

    fn end(&self, state: u32) {
        // Only ever up: who closes it later does not open it for those who get.
        atomic!(self.body, closed).fetch_max(state, Ordering::SeqCst);
        failpoint!("queue.closed");
        wait::publish_all(self.not_empty());
        wait::publish_all(self.not_full());
        wait::publish_all(self.block_free());
        wait::publish_all(self.all_done());
    }

    /// The first position at which nothing was put: `tail`, past what producers have not said yet.
    fn settled_tail(&self) -> u64 {
        let mut tail = self.tail().load(Ordering::Acquire);
        for _ in 0..=self.mask {
            let slot = Slot::unpack(self.slot(tail).load(Ordering::Acquire));
            let ahead = slot.lap.wrapping_sub(self.lap(tail)) as i32;
            // What was taken in the meantime was put, too.
            if !(ahead == 1 || ahead == 0 && matches!(slot.state, SLOT_READY | SLOT_TAKEN)) {
                break;
            }
            tail = tail.wrapping_add(1);
        }
        tail
    }

    /// Messages in it at this instant, those that wait to be delivered again included.
    pub(crate) fn len(&self) -> usize {
        let mut head = self.settled_head();
        let mut tail = self.settled_tail();
        for _ in 0..LOOKS {
            let now = self.settled_head();
            if now == head {
                // Both at the same instant: the one at which the tail was read.
                break;
            }
            head = now;
            tail = self.settled_tail();
        }
        let in_ring = (tail.wrapping_sub(head) as i64).clamp(0, self.capacity as i64) as usize;
        if self.requeue().load(Ordering::Acquire) == self.hints.requeue.load(Ordering::Relaxed) {
            return in_ring;
        }
        let again = |&index: &u32| Block::unpack(self.word(index).load(Ordering::Relaxed)).state == BLOCK_REQUEUE;
        in_ring + (0..self.blocks).filter(again).count()
    }

    /// Messages that were put and not released, whoever has them, and whether that is exact: then there was an instant at which
    /// so many, or if it is zero, none of all that had ever been put, were not released.
    ///
    /// A message moves from a slot to its block and never back, so who looks at the slots first misses none; and those that are
    /// put by whoever has another one show in the tail.
    pub(super) fn unreleased(&self) -> (usize, bool) {
        let mut count = 0;
        for _ in 0..LOOKS {
            let first = self.settled_tail();
            let named = self.named();
            count = named.iter().map(|bits| bits.count_ones() as usize).sum();
            for index in 0..self.blocks {
                // Acquire pairs with the release of whoever released or took it.
                let block = Block::unpack(self.word(index).load(Ordering::Acquire));
                let is_out = matches!(block.state, BLOCK_READ | BLOCK_REQUEUE_PENDING | BLOCK_REQUEUE);
                count += usize::from(is_out && !is_in(&named, index));
            }
            if self.settled_tail() == first {
                return (count, true);
            }
        }
        (count, false)
    }

    /// Which blocks are named by a slot, one bit each.
    pub(super) fn named(&self) -> Vec<u64> {
        let mut named = vec![0u64; (self.blocks as usize).div_ceil(64)];
        for index in 0..self.slots() {
            let found = Slot::unpack(self.slot_at(index).load(Ordering::Acquire));
            if matches!(found.state, SLOT_READY | SLOT_TAKEN) && found.index < self.blocks {
                named[found.index as usize / 64] |= 1 << (found.index % 64);
            }
        }
        named
    }

    /// Puts a message that this process has taken back, to be delivered again. False if the block is not this process's.
    pub(super) fn put_back(&self, claimed: Claimed) -> bool {
        let back = Block { owner: 0, state: BLOCK_REQUEUE, ..Block::unpack(claimed.word) };
        let word = self.word(claimed.index);
        // Release pairs with the acquire in `adopt`.
        if word.compare_exchange(claimed.word, back.pack(), Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        failpoint!("queue.put_back");
        self.requeue().fetch_add(1, Ordering::Release);
        wait::publish_one(self.not_empty());
        true
    }

    /// A block that somebody is reading, and the slot of its reader.
    pub(super) fn any_reader(&self) -> Option<u32> {
        let block = |index| Block::unpack(self.word(index).load(Ordering::Relaxed));
        (0..self.blocks).map(block).find(|block| block.state == BLOCK_READ).map(|block| block.owner)
    }
}

/// Whether `index` is in a set of [`Ring::named`].
pub(super) fn is_in(named: &[u64], index: u32) -> bool {
    named[index as usize / 64] & 1 << (index % 64) != 0
}

/// Looks at a length that changes all the time.
const LOOKS: u32 = 16;

/// A slot's word without its lap.
pub(super) const FREE: Slot = Slot { lap: 0, state: SLOT_FREE, owner: 0, index: 0 };

/// A hint that the cache line at `at` is to be written soon. It may be any address.
#[inline(always)]
fn fetch_to_write(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint faults at no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(at.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// Where number `index` of a row of words lies, so that eight in succession are in eight cache lines. Its own inverse; keeps
/// each group of 64 in its place.
#[inline]
fn scattered(index: u32) -> u32 {
    index & !63 | (index & 7) << 3 | index >> 3 & 7
}
