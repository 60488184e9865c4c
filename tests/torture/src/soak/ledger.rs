//! What all processes of a soak know of each other: who works, where, and what became of every message. It outlives each of
//! them, and is found under the director's descriptor by whoever executes a program anew.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The most processes at work.
pub const SEATS: usize = 64;
/// The most messages.
const MESSAGES: usize = 1 << 25;
const FAULTS: usize = 16;
const TEXT: usize = 300;

/// Everything.
#[derive(Debug)]
pub struct Ledger {
    /// Whoever works ends.
    pub quit: AtomicU32,
    /// When the director was seen last.
    pub director: AtomicU64,
    /// Operations that were done.
    pub operations: AtomicU64,
    /// Processes that were forked, and programs executed anew, by those who work.
    pub forks: AtomicU64,
    pub execs: AtomicU64,
    /// Segments that were left and attached again.
    pub attaches: AtomicU64,
    next: AtomicU64,
    faults: AtomicU32,
    texts: [Text; FAULTS],
    /// Who works.
    pub seats: [Seat; SEATS],
    messages: [AtomicU8; MESSAGES],
}

#[derive(Debug)]
struct Text {
    len: AtomicU32,
    bytes: [AtomicU8; TEXT],
}

/// One who works.
#[derive(Debug)]
pub struct Seat {
    /// Whose it is; 0 if it is nobody's.
    pub pid: AtomicU32,
    /// When it was seen last.
    pub beat: AtomicU64,
    /// What it is doing.
    pub operation: AtomicU32,
    /// Messages it may have received without having said so.
    pub receiving: AtomicU32,
}

/// Its sender has begun.
const SENDING: u8 = 1;
/// Its sender knows that it is sent.
const SENT: u8 = 2;
/// One receipt.
const RECEIVED: u8 = 4;

/// Milliseconds of the clock that all processes share.
pub fn now() -> u64 {
    nanoseconds() / 1_000_000
}

/// Nanoseconds of the clock that all processes share.
pub fn nanoseconds() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    Duration::from(time).as_nanos() as u64
}

impl Ledger {
    /// A new one, and the path under which others find it while this process lives.
    pub fn create() -> (&'static Ledger, String) {
        let fd = nix::sys::memfd::memfd_create(c"torture", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).expect("a memfd");
        let file = File::from(fd);
        file.set_len(size_of::<Ledger>() as u64).expect("room for the ledger");
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let ledger = Ledger::map(&file);
        std::mem::forget(file);
        (ledger, path)
    }

    /// The one of that path.
    pub fn open(path: &str) -> &'static Ledger {
        Ledger::map(&File::options().read(true).write(true).open(path).expect("the director's ledger"))
    }

    fn map(file: &File) -> &'static Ledger {
        // SAFETY: a mapping at an address of the kernel's choice, of a file of this size that nobody shrinks; any bytes are a
        // value of every atomic; never unmapped.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let fd = file.as_raw_fd();
            let page = libc::mmap(std::ptr::null_mut(), size_of::<Ledger>(), protection, libc::MAP_SHARED, fd, 0);
            assert_ne!(page, libc::MAP_FAILED, "no memory for the ledger");
            &*page.cast::<Ledger>()
        }
    }

    /// Writes down what is wrong.
    pub fn fault(&self, text: &str) {
        let index = self.faults.fetch_add(1, Ordering::SeqCst) as usize;
        if let Some(slot) = self.texts.get(index) {
            for (to, &from) in slot.bytes.iter().zip(text.as_bytes()) {
                to.store(from, Ordering::SeqCst);
            }
            slot.len.store(text.len().min(TEXT) as u32, Ordering::SeqCst);
        }
    }

    /// How much is wrong, and the first of it.
    pub fn faults(&self) -> (u32, Vec<String>) {
        let text = |slot: &Text| {
            let len = slot.len.load(Ordering::SeqCst) as usize;
            let bytes: Vec<u8> = slot.bytes[..len].iter().map(|byte| byte.load(Ordering::SeqCst)).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let count = self.faults.load(Ordering::SeqCst);
        (count, self.texts.iter().take(count as usize).map(text).collect())
    }

    /// A seat for process `pid`.
    pub fn sit(&self, pid: u32) -> Option<usize> {
        let taken = |seat: &Seat| seat.pid.compare_exchange(0, pid, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let index = self.seats.iter().position(taken)?;
        self.seats[index].receiving.store(0, Ordering::SeqCst);
        self.seats[index].beat.store(now(), Ordering::SeqCst);
        Some(index)
    }

    /// The number of the next message, which is about to be sent; none when there were enough.
    pub fn send(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        self.messages.get(number as usize)?.store(SENDING, Ordering::SeqCst);
        Some(number)
    }

    /// It is sent.
    pub fn sent(&self, number: u64) {
        self.messages[number as usize].fetch_or(SENT, Ordering::SeqCst);
    }

    /// It was received by somebody who was told that it was delivered so often before. Whoever says so has acknowledged it: it
    /// does not come again, not even if he dies now.
    pub fn received(&self, number: u64, redelivered: u32, by: &str) {
        let Some(message) = self.messages.get(number as usize) else {
            return self.fault(&format!("corrupt: {by} receives message {number}, which nobody has sent"));
        };
        let before = message.fetch_add(RECEIVED, Ordering::SeqCst);
        if before & SENDING == 0 {
            self.fault(&format!("corrupt: {by} receives message {number}, which nobody has sent"));
        }
        if before >= RECEIVED {
            self.fault(&format!("duplicated: {by} receives message {number} again, redelivered {redelivered} times"));
        }
    }

    /// Messages that were sent, those received, and those sent that nobody has received.
    pub fn messages(&self) -> (u64, u64, Vec<u64>) {
        let count = self.next.load(Ordering::SeqCst).min(MESSAGES as u64);
        let (mut sent, mut received, mut missing) = (0, 0, Vec::new());
        for number in 0..count {
            let state = self.messages[number as usize].load(Ordering::SeqCst);
            sent += u64::from(state & SENT != 0);
            received += u64::from(state >= RECEIVED);
            if state & SENT != 0 && state < RECEIVED {
                missing.push(number);
            }
        }
        (sent, received, missing)
    }
}
