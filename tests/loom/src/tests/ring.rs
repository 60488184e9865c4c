//! The ring of queues: `src/channel/ring.rs`.

use super::explore;
use crate::channel::ring::{Put, Ring, Taken};
use crate::segment::Attachment;
use crate::segment::wait::{self, Deadline};
use crate::sys::atomic::{AtomicU32, AtomicU64};
use loom::cell::UnsafeCell;
use loom::thread;
use shmkit_layouts::objects::{QUEUE_OPEN, QueueBody};
use std::sync::Arc;

const SLOTS: usize = 64;
const BLOCKS: usize = 3;
/// Where the parts seem to lie.
const SLOTS_AT: u64 = 1 << 20;
const WORDS_AT: u64 = 2 << 20;
const PAYLOAD_AT: u64 = 3 << 20;

/// A queue for one message in ordinary memory. The payload is a cell that loom watches.
struct Memory {
    body: QueueBody,
    slots: Vec<AtomicU64>,
    words: Vec<AtomicU64>,
    payload: [u64; BLOCKS * 16],
    watched: [UnsafeCell<u64>; BLOCKS],
}

// SAFETY: what is no atomic is touched by the owner of its block only; loom checks that.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

impl Memory {
    fn new(capacity: u32) -> Arc<Memory> {
        let body = QueueBody {
            capacity,
            ring: SLOTS as u32,
            blocks: BLOCKS as u32,
            stride: 128,
            slots_offset: SLOTS_AT,
            words_offset: WORDS_AT,
            extents_offset: 0,
            payload_offset: PAYLOAD_AT,
            flags: 0,
            chunk_blocks: 0,
            chunks_offset: 0,
            reserved0: [0; 16],
            tail: AtomicU64::new(0),
            reserved1: [0; 15],
            head: AtomicU64::new(0),
            reserved2: [0; 15],
            not_empty: AtomicU32::new(0),
            requeue: AtomicU32::new(0),
            closed: AtomicU32::new(QUEUE_OPEN),
            all_done: AtomicU32::new(0),
            roles: AtomicU32::new(0),
            reserved3: Default::default(),
            not_full: AtomicU32::new(0),
            block_free: AtomicU32::new(0),
            reserved4: Default::default(),
        };
        let words = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        let (payload, watched) = ([0; BLOCKS * 16], std::array::from_fn(|_| UnsafeCell::new(0)));
        Arc::new(Memory { body, slots: words(SLOTS), words: words(BLOCKS), payload, watched })
    }

    /// The queue as the participant in `slot` sees it.
    fn handle(self: &Arc<Memory>, slot: u32) -> Handle {
        let parts = vec![
            (0, (&raw const self.body).cast()),
            (SLOTS_AT, self.slots.as_ptr().cast()),
            (WORDS_AT, self.words.as_ptr().cast()),
            (PAYLOAD_AT, self.payload.as_ptr().cast()),
        ];
        let attachment = Attachment::with(slot, parts);
        let ring = Ring::at(&attachment, 0, 1 << 30).unwrap();
        Handle { memory: Arc::clone(self), attachment, ring, slot }
    }
}

struct Handle {
    memory: Arc<Memory>,
    attachment: Attachment,
    ring: Ring,
    slot: u32,
}

impl Handle {
    fn put(&self, value: u64) {
        let wait = |event: &AtomicU32, look: &mut dyn FnMut() -> Option<()>| {
            wait::wait(&self.attachment, event, Deadline::NEVER, || Ok(look())).unwrap().unwrap();
        };
        let mut claimed = None;
        wait(self.ring.block_free(), &mut || {
            claimed = self.ring.claim(self.slot);
            claimed.map(drop)
        });
        let claimed = claimed.unwrap();
        // SAFETY: the block is this producer's; loom checks that nobody else touches its payload.
        self.memory.watched[claimed.index as usize].with_mut(|payload| unsafe { *payload = value });
        wait(self.ring.not_full(), &mut || match self.ring.enqueue(claimed) {
            Put::Done => Some(()),
            Put::Full => None,
            other => panic!("{other:?}"),
        });
    }

    fn get(&self) -> u64 {
        let take = || match self.ring.dequeue(self.slot) {
            Taken::Block(claimed) => Ok(Some(claimed)),
            Taken::Empty => Ok(None),
            other => panic!("{other:?}"),
        };
        let (event, more) = (self.ring.not_empty(), || self.ring.has_next());
        let claimed = wait::wait_while(&self.attachment, event, Deadline::NEVER, more, take).unwrap().unwrap();
        // SAFETY: the block is this consumer's; loom checks that nobody writes its payload.
        let value = self.memory.watched[claimed.index as usize].with(|payload| unsafe { *payload });
        assert!(self.ring.free(claimed));
        value
    }
}

/// More messages than there is room for: payloads are handed over both ways, and nobody sleeps for ever.
#[test]
fn messages_go_through_a_queue_for_one() {
    explore(2, || {
        let memory = Memory::new(1);
        let producer = memory.handle(1);
        let consumer = memory.handle(2);
        let produces = thread::spawn(move || {
            producer.put(10);
            producer.put(20);
        });
        assert_eq!((consumer.get(), consumer.get()), (10, 20));
        produces.join().unwrap();
    });
}

/// Two producers: both messages come, each once.
#[test]
fn two_producers_lose_nothing() {
    explore(2, || {
        let memory = Memory::new(2);
        let consumer = memory.handle(3);
        let producers = [1, 2].map(|slot| {
            let producer = memory.handle(slot);
            thread::spawn(move || producer.put(u64::from(slot)))
        });
        let mut received = [consumer.get(), consumer.get()];
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
        for producer in producers {
            producer.join().unwrap();
        }
    });
}

/// Two consumers, one message each.
#[test]
fn two_consumers_share_without_a_double() {
    explore(2, || {
        let memory = Memory::new(2);
        let producer = memory.handle(1);
        let consumers = [2, 3].map(|slot| {
            let consumer = memory.handle(slot);
            thread::spawn(move || consumer.get())
        });
        producer.put(1);
        producer.put(2);
        let mut received = consumers.map(|consumer| consumer.join().unwrap());
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
    });
}
