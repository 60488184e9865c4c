//! How messages are timed, the same for every contestant.
//!
//! Before the clock runs, messages are sent and each one is checked; that faults all memory in, too. While it runs the
//! receiver reads every message whole and adds up what it read; the sum is checked when the clock has stopped.

use crate::Result;
use crate::contest::Unit;
use crate::payload::{Payload, capacity};
use crate::stage::Stage;
use hdrhistogram::Histogram;
use std::ops::Range;
use std::time::Instant;

/// The sending end of a contestant's channel.
pub trait Tx<P: Payload> {
    /// Sends the message number `sequence`, waiting for room.
    ///
    /// # Errors
    /// The contestant's own.
    fn send(&mut self, sequence: u64) -> Result;

    /// Sends many; those that can send batches do.
    ///
    /// # Errors
    /// As [`Tx::send`].
    #[inline]
    fn send_all(&mut self, numbers: Range<u64>) -> Result {
        for sequence in numbers {
            self.send(sequence)?;
        }
        Ok(())
    }
}

/// The receiving end of a contestant's channel.
pub trait Rx<P: Payload> {
    /// Receives a message, waiting for it, and gives its digest.
    ///
    /// # Errors
    /// The contestant's own.
    fn recv(&mut self) -> Result<u64>;

    /// Receives so many messages and gives the sum of their digests; those that can receive batches do.
    ///
    /// # Errors
    /// As [`Rx::recv`].
    #[inline]
    fn recv_all(&mut self, count: u64) -> Result<u64> {
        let mut sum = 0u64;
        for _ in 0..count {
            sum = sum.wrapping_add(self.recv()?);
        }
        Ok(sum)
    }
}

/// Messages of a batch, where contestants can send and receive several at once.
pub const BATCH: usize = 64;

/// What one role has of a channel that is used one way.
pub enum Side<T, R> {
    /// It sends.
    Sends(T),
    /// It receives.
    Receives(R),
}

/// Messages that are timed one by one, for percentiles.
const SINGLY: u64 = 20_000;
/// Latencies are kept to two significant digits, up to ten seconds.
const LONGEST: u64 = 10_000_000_000;

/// An empty histogram for latencies in nanoseconds.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 2).expect("valid bounds")
}

fn expected<P: Payload>(numbers: Range<u64>) -> u64 {
    numbers.fold(0, |sum, sequence| sum.wrapping_add(P::expected(sequence)))
}

fn check(found: u64, expected: u64, what: &str) -> Result {
    if found == expected { Ok(()) } else { Err(format!("{what}: read {found:#x}, sent {expected:#x}").into()) }
}

/// Messages back and forth between role 0 and role 1: publishes the mean nanoseconds of a round trip, and latencies.
///
/// # Errors
/// The contestant's, and if a message arrived otherwise than it was sent.
pub fn round_trip<P: Payload>(stage: &Stage, tx: &mut impl Tx<P>, rx: &mut impl Rx<P>) -> Result {
    let checked = 2 * capacity::<P>() as u64 + 16;
    let first = stage.role == 0;
    stage.barrier()?;
    for sequence in 0..checked {
        if first {
            tx.send(sequence)?;
        }
        check(rx.recv()?, P::expected(sequence), "a message")?;
        if !first {
            tx.send(sequence)?;
        }
    }
    let (n, singly) = (stage.n, stage.n.min(SINGLY));
    stage.barrier()?;
    let mut sum = 0u64;
    if first {
        let start = Instant::now();
        for sequence in 0..n {
            tx.send(sequence)?;
            sum = sum.wrapping_add(rx.recv()?);
        }
        let elapsed = start.elapsed();
        let mut histogram = latencies();
        for sequence in 0..singly {
            let start = Instant::now();
            tx.send(sequence)?;
            let digest = rx.recv()?;
            let _ = histogram.record(start.elapsed().as_nanos() as u64);
            sum = sum.wrapping_add(digest);
        }
        stage.publish(elapsed.as_nanos() as f64 / n as f64);
        stage.publish_latencies(&histogram);
    } else {
        for count in [n, singly] {
            for sequence in 0..count {
                sum = sum.wrapping_add(rx.recv()?);
                tx.send(sequence)?;
            }
        }
    }
    check(sum, expected::<P>(0..n).wrapping_add(expected::<P>(0..singly)), "the sum of all messages")?;
    stage.barrier()
}

/// What rates of these messages are in: large ones do not come by the million.
pub const fn rate_unit<P>() -> Unit {
    if size_of::<P>() < 32 << 10 { Unit::Millions } else { Unit::Thousands }
}

/// Messages one way, from half of the roles to the other half: publishes how many a second, in [`rate_unit`].
///
/// Each receiver takes the same number, so that it knows when it is done; which messages it gets is open. The sum over all
/// receivers is checked, before and after.
///
/// # Errors
/// The contestant's, and if a message was lost, came twice, or came otherwise than it was sent.
pub fn one_way<P: Payload, T: Tx<P>, R: Rx<P>>(stage: &Stage, mut side: Side<T, R>) -> Result {
    let pairs = (stage.roles / 2) as u64;
    let number = (stage.role / 2) as u64;
    for (timed, each) in [(false, 2 * capacity::<P>() as u64), (true, stage.n / pairs)] {
        stage.barrier()?;
        let start = Instant::now();
        match &mut side {
            Side::Sends(tx) => tx.send_all(number * each..(number + 1) * each)?,
            Side::Receives(rx) => stage.add(rx.recv_all(each)?),
        }
        stage.barrier()?;
        let elapsed = start.elapsed();
        if stage.role == 0 {
            check(stage.take_sum(), expected::<P>(0..pairs * each), "the sum of all messages")?;
            if timed {
                let unit = if rate_unit::<P>() == Unit::Millions { 1e6 } else { 1e3 };
                stage.publish((pairs * each) as f64 / elapsed.as_secs_f64() / unit);
            }
        }
    }
    stage.barrier()
}
