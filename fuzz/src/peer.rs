//! A peer that writes random words over a segment, as fast as it can or now and then, while threads of another process use
//! everything there is in it.
//!
//! Nothing is promised about what they get, but that they get something: no crash, no panic, no endless loop. One that waits without
//! a deadline for a lock whose word was scribbled over may wait as long as the word stays; the peer comes by again.

use crate::{SIZE, chosen, image, template, work};
use shmkit::Segment;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Threads that use the segment.
const WORKERS: u64 = 3;
/// How often each uses everything.
const ROUNDS: u32 = 6;
/// Operations chosen by chance before that.
const STEPS: u32 = 20;
/// After this long the peer is as fast as it can be, so that nobody waits for long.
const SLOW: Duration = Duration::from_millis(200);

/// Xorshift: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..4 {
            random.next();
        }
        random
    }

    /// Any number.
    #[expect(clippy::should_implement_trait, reason = "there is no end to them")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A word that is likely to be taken for something, instead of `old`.
    pub fn word(&mut self, old: u64, other: u64) -> u64 {
        match self.below(9) {
            0 => 0,
            1 => u64::MAX,
            2 => old ^ 1 << self.below(64),
            3 => old.wrapping_add(self.below(3)).wrapping_sub(1),
            4 => 1 << self.below(64),
            5 => self.next(),
            6 => old & 0xFFFF_FFFF | self.next() << 32,
            7 => old & !0xFFFF_FFFF | self.next() & 0xFFFF_FFFF,
            _ => other,
        }
    }
}

/// Ends the peer however the case ends.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs one case, with this program's `peer` command as the peer.
///
/// # Panics
/// When an object gives what it must not give, or a system call fails that has nothing to do with it.
pub fn case(seed: u64) {
    let file = image();
    let segment = Segment::from_fd(file.as_fd().try_clone_to_owned().expect("a descriptor")).expect("a sound segment");
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let program = std::env::current_exe().expect("this program");
    let peer = Command::new(program).arg("peer").arg(path).arg(seed.to_string()).stdin(Stdio::null()).spawn();
    let peer = Peer(peer.expect("a peer"));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let segment = &segment;
                scope.spawn(move || {
                    let mut random = Random::new(seed.wrapping_add(worker + 1));
                    for _ in 0..ROUNDS {
                        let opened = work::open(segment);
                        (0..STEPS)
                            .for_each(|_| chosen::step(segment, &opened, random.next() as u8, random.next() as u8));
                        work::exercise(segment, &opened, false);
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    drop(peer);
    let _ = segment.verify();
}

/// What the peer does: writes until it is killed, or its parent is.
///
/// # Panics
/// When the file cannot be opened or written.
pub fn scribble(path: &str, seed: u64) {
    let parent = std::os::unix::process::parent_id();
    let file = File::options().read(true).write(true).open(path).expect("the segment's file");
    let mut random = Random::new(seed);
    // Offsets of the pages that hold something at first; the heap grows into those behind them.
    let mut pages: Vec<u64> = template().pages.iter().map(|(offset, _)| *offset).collect();
    let last = pages.last().copied().unwrap_or(0);
    pages.extend((last + 4096..SIZE).step_by(4096).take(8));
    let pause = Duration::from_micros([0, 0, 5, 50, 500][random.below(5) as usize]);
    let start = Instant::now();
    let place = |random: &mut Random| pages[random.below(pages.len() as u64) as usize] + random.below(512) * 8;
    while std::os::unix::process::parent_id() == parent {
        for _ in 0..64 {
            let (to, from) = (place(&mut random), place(&mut random));
            let (mut old, mut other) = ([0; 8], [0; 8]);
            file.read_exact_at(&mut old, to).expect("inside the file");
            file.read_exact_at(&mut other, from).expect("inside the file");
            let word = random.word(u64::from_le_bytes(old), u64::from_le_bytes(other));
            // Not in one piece, for all one knows: another process may tear its words, too.
            file.write_all_at(&word.to_le_bytes(), to).expect("inside the file");
            if !pause.is_zero() && start.elapsed() < SLOW {
                std::thread::sleep(pause);
            }
        }
    }
}
