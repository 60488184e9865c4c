//! The lock word: `src/segment/claim.rs`.

use super::explore;
use crate::segment::Attachment;
use crate::segment::claim::{self, Acquired};
use crate::segment::wait::Deadline;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU32;
use loom::thread;
use shmkit_layouts::words::Token;

/// A counter that only the lock's owner may touch: loom finds two who do.
struct Guarded {
    word: AtomicU32,
    count: UnsafeCell<u32>,
}

// SAFETY: `count` is touched with the lock only; loom checks that.
unsafe impl Sync for Guarded {}
// SAFETY: as above.
unsafe impl Send for Guarded {}

impl Guarded {
    fn new() -> Arc<Guarded> {
        Arc::new(Guarded { word: AtomicU32::new(0), count: UnsafeCell::new(0) })
    }

    fn add(&self) {
        // SAFETY: the caller has the lock; loom checks that nobody else is here.
        self.count.with_mut(|count| unsafe { *count += 1 });
    }

    fn count(&self, slot: u32) {
        let attachment = Attachment::new(slot);
        assert_eq!(claim::lock(&attachment, &self.word, Deadline::NEVER, "lock").unwrap(), Acquired::Clean);
        self.add();
        claim::unlock(&attachment, &self.word, "lock").unwrap();
    }

    /// As `count`, by the short way where it is open: that of dicts and lists.
    fn count_shortly(&self, slot: u32) {
        let attachment = Attachment::new(slot);
        if !claim::lock_free(&attachment, &self.word) {
            claim::lock(&attachment, &self.word, Deadline::NEVER, "lock").unwrap();
        }
        self.add();
        if !claim::unlock_unwaited(&attachment, &self.word) {
            claim::unlock(&attachment, &self.word, "lock").unwrap();
        }
    }

    fn total(&self) -> u32 {
        // SAFETY: all others have ended.
        self.count.with(|count| unsafe { *count })
    }
}

/// What one owner wrote is seen by the next, and nobody sleeps beside a free lock.
#[test]
fn owners_exclude_each_other_and_hand_over() {
    explore(3, || {
        let guarded = Guarded::new();
        let other = thread::spawn({
            let guarded = Arc::clone(&guarded);
            move || guarded.count(1)
        });
        guarded.count(0);
        other.join().unwrap();
        assert_eq!(guarded.total(), 2);
    });
}

/// The short way in and out hands over, too, and wakes who sleeps.
#[test]
fn the_short_way_hands_over() {
    explore(3, || {
        let guarded = Guarded::new();
        let other = thread::spawn({
            let guarded = Arc::clone(&guarded);
            move || guarded.count_shortly(1)
        });
        guarded.count_shortly(0);
        other.join().unwrap();
        assert_eq!(guarded.total(), 2);
    });
}

/// A sleeper that acquires leaves the mark for others who may sleep beside it.
#[test]
fn three_owners_wake_each_other() {
    explore(2, || {
        let guarded = Guarded::new();
        let others = [1, 2].map(|slot| {
            let guarded = Arc::clone(&guarded);
            thread::spawn(move || guarded.count(slot))
        });
        guarded.count(0);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(guarded.total(), 3);
    });
}

/// The proof of a death acquires, the word that recovery makes of the dead one's releases: the next owner is told, and sees what
/// the dead one did.
#[test]
fn the_next_owner_of_a_dead_ones_lock_is_told() {
    explore(3, || {
        let guarded = Guarded::new();
        let (dead, dead_attachment) = (Token::new(3, 1), Attachment::new(3));
        let dies = thread::spawn({
            let guarded = Arc::clone(&guarded);
            move || {
                claim::lock(&dead_attachment, &guarded.word, Deadline::NEVER, "lock").unwrap();
                guarded.add();
            }
        });
        let next = thread::spawn({
            let guarded = Arc::clone(&guarded);
            move || {
                let attachment = Attachment::new(1);
                let how = claim::lock(&attachment, &guarded.word, Deadline::NEVER, "lock").unwrap();
                guarded.add();
                claim::unlock(&attachment, &guarded.word, "lock").unwrap();
                how
            }
        });
        // The end of the thread stands for the kernel's word that it is dead.
        dies.join().unwrap();
        claim::recover_word(&guarded.word, |owner| owner == dead);
        let told = next.join().unwrap() == Acquired::OwnerDied;
        let died_first = guarded.total() == 2 && told;
        let died_last = guarded.total() == 2 && !told;
        assert!(died_first || died_last);
    });
}
