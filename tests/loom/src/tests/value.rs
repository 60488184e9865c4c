//! Values of more than 8 bytes: `src/data/copies.rs`.

use super::copies::Copies;
use crate::tests::explore;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;

/// Two words that belong together.
type Pair = [u64; 2];

#[derive(Default)]
struct Shared {
    word: AtomicU64,
    copies: [AtomicU64; 4],
}

impl Shared {
    fn pair(&self) -> Copies<'_> {
        // SAFETY: two copies of two words each, which live as long as the word.
        unsafe { Copies::new(&self.word, self.copies.as_ptr()) }
    }

    fn read(&self) -> Option<u64> {
        let pair: Option<Pair> = self.pair().read();
        pair.map(|[left, right]| {
            assert_eq!(left, right, "parts of two values");
            left
        })
    }
}

/// A reader accepts one value, never parts of two, however far the writer gets meanwhile.
#[test]
fn a_read_is_whole_or_refused() {
    explore(3, || {
        let shared = Arc::new(Shared::default());
        let writer = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for value in 1..=3u64 {
                    shared.pair().write(&[value; 2]);
                }
            }
        });
        let first = shared.read();
        let second = shared.read();
        if let (Some(first), Some(second)) = (first, second) {
            assert!(first <= second, "values go back");
        }
        writer.join().unwrap();
        assert_eq!(shared.read(), Some(3));
        assert_eq!(shared.pair().current::<Pair>(), [3; 2]);
    });
}

/// A writer that was killed half way left an odd word: the next one writes the same copy, and readers never see it.
#[test]
fn the_write_of_a_dead_one_is_done_over() {
    explore(3, || {
        let shared = Arc::new(Shared::default());
        shared.pair().write(&[1u64; 2]);
        // Killed after its mark and one word of its copy.
        let sequence = shared.word.load(loom::sync::atomic::Ordering::Relaxed);
        shared.word.store(sequence + 1, loom::sync::atomic::Ordering::Relaxed);
        shared.copies[0].store(2, loom::sync::atomic::Ordering::Relaxed);
        let writer = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.pair().write(&[3u64; 2])
        });
        if let Some(value) = shared.read() {
            assert!(value == 1 || value == 3);
        }
        writer.join().unwrap();
        assert_eq!(shared.read(), Some(3));
    });
}
