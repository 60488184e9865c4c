//! The eventcount: `src/segment/wait.rs`.

use super::explore;
use crate::segment::Attachment;
use crate::segment::wait::{self, Deadline};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

/// Items that are counted, and the wait word.
#[derive(Default)]
struct Shop {
    items: AtomicU32,
    event: AtomicU32,
}

impl Shop {
    fn put(&self) {
        // Release, no more: the barrier before the look at the wait word is the publisher's.
        self.items.fetch_add(1, Ordering::Release);
        wait::publish_one(&self.event);
    }

    fn take(&self) -> Option<()> {
        let less = |items: u32| items.checked_sub(1);
        self.items.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).ok().map(drop)
    }

    fn get(&self, slot: u32) {
        let attachment = Attachment::new(slot);
        let more = || self.items.load(Ordering::Acquire) > 0;
        let taken = wait::wait_while(&attachment, &self.event, Deadline::NEVER, more, || Ok(self.take()));
        taken.unwrap().expect("there is no end of time");
    }
}

/// A publisher's store and its look at the mark, a sleeper's mark and its look at the state: one of both sees the other.
#[test]
fn a_sleeper_does_not_miss_what_is_published() {
    explore(3, || {
        let shop = Arc::new(Shop::default());
        let consumer = thread::spawn({
            let shop = Arc::clone(&shop);
            move || shop.get(1)
        });
        shop.put();
        consumer.join().unwrap();
    });
}

/// Who publishes by a plain release store of its own word needs the barrier, too.
#[test]
fn a_flag_that_is_stored_is_seen() {
    explore(3, || {
        let shop = Arc::new(Shop::default());
        let sleeper = thread::spawn({
            let shop = Arc::clone(&shop);
            move || {
                let attachment = Attachment::new(1);
                let look = || Ok((shop.items.load(Ordering::Acquire) == 1).then_some(()));
                wait::wait(&attachment, &shop.event, Deadline::NEVER, look).unwrap().unwrap();
            }
        });
        shop.items.store(1, Ordering::Release);
        wait::publish_all(&shop.event);
        sleeper.join().unwrap();
    });
}

/// Two units, put one after the other, of which the second may find the mark cleared for the first: the re-arm and the relay.
#[test]
fn two_sleepers_get_two_units() {
    explore(2, || {
        let shop = Arc::new(Shop::default());
        let consumers = [1, 2].map(|slot| {
            let shop = Arc::clone(&shop);
            thread::spawn(move || shop.get(slot))
        });
        shop.put();
        shop.put();
        for consumer in consumers {
            consumer.join().unwrap();
        }
    });
}

/// The same units, put by two.
#[test]
fn two_publishers_wake_one_who_wants_both() {
    explore(2, || {
        let shop = Arc::new(Shop::default());
        let producer = thread::spawn({
            let shop = Arc::clone(&shop);
            move || shop.put()
        });
        let consumer = thread::spawn({
            let shop = Arc::clone(&shop);
            move || {
                shop.get(1);
                shop.get(1);
            }
        });
        shop.put();
        producer.join().unwrap();
        consumer.join().unwrap();
    });
}
