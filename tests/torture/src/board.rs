//! Memory that all processes of a run share and that outlives each of them: what was done, by whom, how far.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// The most operations there can be.
pub const OPERATIONS: usize = 1024;
/// The most families.
pub const FAMILIES: usize = 64;
/// The most shards.
pub const SHARDS: usize = 16;

/// Everything.
pub struct Board {
    /// The shard that has a family, counted from 1: it has its traces.
    pub owners: [AtomicU32; FAMILIES],
    /// The passes that were begun.
    pub passes: AtomicU32,
    /// What became of each operation.
    pub tallies: [Tally; OPERATIONS],
    /// What each shard is doing.
    pub shards: [Progress; SHARDS],
}

/// What became of an operation.
pub struct Tally {
    /// The passes in which a shard has taken it.
    pub taken: AtomicU32,
    /// Instructions of the whole operation.
    pub instructions: AtomicU32,
    /// Those behind which others can see something new.
    pub news: AtomicU32,
    /// Processes killed in it.
    pub kills: AtomicU64,
    /// The longest that a survivor took for anything, in milliseconds.
    pub longest: AtomicU64,
    /// Faults, by kind.
    pub wrongs: [AtomicU32; 5],
    /// Its line was printed.
    pub is_printed: AtomicU32,
}

/// Where a shard is.
pub struct Progress {
    /// What it has: operations and passes, counted through.
    pub task: AtomicU32,
    /// Which of its runs.
    pub run: AtomicU32,
    /// The victim's instruction in that run.
    pub count: AtomicU32,
    /// The run's seed.
    pub seed: AtomicU64,
    /// Goes up with every run.
    pub beat: AtomicU64,
    /// What the processes of the run say: by [`crate::operation::Role`].
    pub ledgers: [Ledger; 5],
}

const NOTES: usize = 30;
const TEXT: usize = 256;

/// What one process of a run says to whoever judges.
#[derive(Debug)]
pub struct Ledger {
    count: AtomicU32,
    notes: [AtomicU64; NOTES],
    len: AtomicU32,
    text: [AtomicU8; TEXT],
}

impl Ledger {
    /// Nothing was said.
    pub fn clear(&self) {
        self.count.store(0, Ordering::SeqCst);
        self.len.store(0, Ordering::SeqCst);
    }

    /// Says a number. Killed in here, it has said it or not.
    pub fn note(&self, value: u64) {
        let count = self.count.load(Ordering::SeqCst);
        self.notes[count as usize].store(value, Ordering::SeqCst);
        self.count.store(count + 1, Ordering::SeqCst);
    }

    /// The numbers.
    pub fn notes(&self) -> Vec<u64> {
        let count = self.count.load(Ordering::SeqCst) as usize;
        self.notes[..count].iter().map(|note| note.load(Ordering::SeqCst)).collect()
    }

    /// Says why it ends.
    pub fn say(&self, text: &str) {
        for (to, &from) in self.text.iter().zip(text.as_bytes()) {
            to.store(from, Ordering::SeqCst);
        }
        self.len.store(text.len().min(TEXT) as u32, Ordering::SeqCst);
    }

    /// Why it ended.
    pub fn said(&self) -> String {
        let len = self.len.load(Ordering::SeqCst) as usize;
        let bytes: Vec<u8> = self.text[..len].iter().map(|byte| byte.load(Ordering::SeqCst)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A new one, all zeros, that lasts as long as this process and those it forks.
pub fn board() -> &'static Board {
    // SAFETY: a fresh shared mapping at an address of the kernel's choice; zeros are a value of every atomic; never unmapped.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            size_of::<Board>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(page, libc::MAP_FAILED, "no memory for the board");
        &*page.cast::<Board>()
    }
}
