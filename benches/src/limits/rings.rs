//! The minimal ring: two positions and places for elements, one by one and in batches.

use crate::Result;
use crate::drivers::{BATCH, Rx, Side, Tx, one_way, round_trip};
use crate::payload::{Payload, capacity};
use crate::stage::{Line, Stage};
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

#[repr(C)]
struct Ring {
    tail: Line<AtomicU64>,
    head: Line<AtomicU64>,
}

/// One end of a ring of one sender and one receiver, which spin: a position of its own, and the other's as last seen.
pub struct RingEnd<P> {
    ring: *const Ring,
    payloads: *mut P,
    mask: u64,
    position: u64,
    seen: u64,
    _payload: PhantomData<P>,
}

/// Bytes from one ring in the scratch memory to the next.
const RING: usize = 24 << 20;

impl<P: Payload> RingEnd<P> {
    /// One end of the ring number `number` in the scratch memory.
    pub fn new(stage: &Stage, number: usize) -> RingEnd<P> {
        let room = capacity::<P>().next_power_of_two();
        assert!(size_of::<Ring>() + room * size_of::<P>() <= RING);
        let start = stage.scratch().wrapping_add(number * RING);
        let payloads = start.wrapping_add(size_of::<Ring>()).cast();
        RingEnd { ring: start.cast(), payloads, mask: room as u64 - 1, position: 0, seen: 0, _payload: PhantomData }
    }

    #[inline]
    fn ring(&self) -> &Ring {
        // SAFETY: scratch memory, zeroed, aligned, mapped while the stage lives, which is longer than its drivers run.
        unsafe { &*self.ring }
    }

    #[inline]
    fn payload(&self) -> *mut P {
        self.payloads.wrapping_add((self.position & self.mask) as usize)
    }
}

impl<P: Payload> Tx<P> for RingEnd<P> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        while self.position - self.seen > self.mask {
            self.seen = self.ring().head.0.load(Ordering::Acquire);
            if self.position - self.seen > self.mask {
                spin_loop();
            }
        }
        // SAFETY: the place is the sender's until the tail goes up.
        unsafe { &mut *self.payload() }.fill(sequence);
        self.position += 1;
        self.ring().tail.0.store(self.position, Ordering::Release);
        Ok(())
    }
}

impl<P: Payload> Rx<P> for RingEnd<P> {
    #[inline]
    fn recv(&mut self) -> Result<u64> {
        while self.position == self.seen {
            self.seen = self.ring().tail.0.load(Ordering::Acquire);
            if self.position == self.seen {
                spin_loop();
            }
        }
        // SAFETY: the place is the receiver's until the head goes up.
        let digest = unsafe { &*self.payload() }.digest();
        self.position += 1;
        self.ring().head.0.store(self.position, Ordering::Release);
        Ok(digest)
    }
}

/// Round trips over two minimal rings.
///
/// # Errors
/// If a message arrives otherwise than it was sent.
pub fn ring_round_trip<P: Payload>(stage: &Stage) -> Result {
    let (mut tx, mut rx) = (RingEnd::<P>::new(stage, stage.role), RingEnd::<P>::new(stage, 1 - stage.role));
    round_trip::<P>(stage, &mut tx, &mut rx)
}

/// One way over a minimal ring.
///
/// # Errors
/// If a message arrives otherwise than it was sent.
pub fn ring_one_way<P: Payload>(stage: &Stage) -> Result {
    let end = RingEnd::<P>::new(stage, 0);
    one_way::<P, _, _>(stage, if stage.role == 0 { Side::Sends(end) } else { Side::Receives(end) })
}

/// An end of a minimal ring that moves its position once a batch, which is copied to or from a buffer of its own: a copy of many
/// elements writes whole cache lines, and has several of them under way.
struct RingBatches<P> {
    end: RingEnd<P>,
    batch: Vec<P>,
}

impl<P: Payload> RingBatches<P> {
    fn new(end: RingEnd<P>) -> RingBatches<P> {
        RingBatches { end, batch: vec![P::zeroed(); BATCH] }
    }

    /// Places in a row of the ring from its position on, of `count` that are wanted.
    fn in_a_row(&self, count: usize) -> usize {
        count.min((self.end.mask + 1 - (self.end.position & self.end.mask)) as usize)
    }
}

impl<P: Payload> Tx<P> for RingBatches<P> {
    fn send(&mut self, sequence: u64) -> Result {
        self.send_all(sequence..sequence + 1)
    }

    fn send_all(&mut self, mut numbers: Range<u64>) -> Result {
        while !numbers.is_empty() {
            let count = BATCH.min((numbers.end - numbers.start) as usize);
            for (element, sequence) in self.batch.iter_mut().zip(numbers.by_ref().take(count)) {
                element.fill(sequence);
            }
            let mut sent = 0;
            while sent < count {
                let run = self.in_a_row(count - sent);
                while self.end.position + run as u64 - self.end.seen > self.end.mask + 1 {
                    spin_loop();
                    self.end.seen = self.end.ring().head.0.load(Ordering::Acquire);
                }
                // SAFETY: these places are in a row, and the sender's until the tail goes up.
                unsafe { self.end.payload().copy_from_nonoverlapping(self.batch[sent..].as_ptr(), run) };
                self.end.position += run as u64;
                self.end.ring().tail.0.store(self.end.position, Ordering::Release);
                sent += run;
            }
        }
        Ok(())
    }
}

impl<P: Payload> Rx<P> for RingBatches<P> {
    fn recv(&mut self) -> Result<u64> {
        self.recv_all(1)
    }

    fn recv_all(&mut self, mut count: u64) -> Result<u64> {
        let mut sum = 0u64;
        while count > 0 {
            while self.end.position == self.end.seen {
                spin_loop();
                self.end.seen = self.end.ring().tail.0.load(Ordering::Acquire);
            }
            let ready = (self.end.seen - self.end.position).min(BATCH as u64).min(count);
            let got = self.in_a_row(ready as usize);
            // SAFETY: these places are in a row, and the receiver's until the head goes up.
            unsafe { self.end.payload().copy_to_nonoverlapping(self.batch.as_mut_ptr(), got) };
            self.end.position += got as u64;
            self.end.ring().head.0.store(self.end.position, Ordering::Release);
            sum = self.batch[..got].iter().fold(sum, |sum, element| sum.wrapping_add(element.digest()));
            count -= got as u64;
        }
        Ok(sum)
    }
}

/// One way over a minimal ring, in batches.
///
/// # Errors
/// If a message arrives otherwise than it was sent.
pub fn ring_one_way_in_batches<P: Payload>(stage: &Stage) -> Result {
    let end = RingBatches::new(RingEnd::<P>::new(stage, 0));
    one_way::<P, _, _>(stage, if stage.role == 0 { Side::Sends(end) } else { Side::Receives(end) })
}
