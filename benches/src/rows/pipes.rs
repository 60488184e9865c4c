//! Pipes: `channel<T>`, the fastest path, in its ways to wait; and `Connection`.

use super::messages::{is_empty, is_full, segment};
use crate::Result;
use crate::contest::Kind::{Limit, Reference, Shmkit};
use crate::contest::{Contestant, Figure, Goal, Unit};
use crate::drivers::{BATCH, Rx, Side, Tx, one_way, round_trip};
use crate::limits;
use crate::payload::{Bytes8, Payload, capacity, zeroed};
use crate::stage::Stage;
use shmkit::bytemuck::bytes_of;
use shmkit::{Connection, Receiver, Segment, Sender};
use std::hint::spin_loop;
use std::ops::Range;
use std::time::Duration;

/// How an end waits.
const SPIN: u8 = 0;
const DEFAULT: u8 = 1;

/// From this size on elements are written and read where they lie; smaller ones are passed by value.
const IN_PLACE: usize = 256;

/// An end of a pipe.
struct End<E, const WAIT: u8>(E);

impl<P: Payload, const WAIT: u8> Tx<P> for End<Sender<P>, WAIT> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        if size_of::<P>() >= IN_PLACE {
            if WAIT == SPIN {
                while let Err(error) = self.0.try_loan().map(drop) {
                    if !is_full(&error) {
                        return Err(error.into());
                    }
                    spin_loop();
                }
            }
            let mut loan = self.0.loan()?;
            loan.fill(sequence);
            return Ok(loan.commit()?);
        }
        let mut value = P::zeroed();
        value.fill(sequence);
        if WAIT != SPIN {
            return Ok(self.0.send(value)?);
        }
        loop {
            match self.0.try_send(value) {
                Ok(()) => return Ok(()),
                Err(error) if is_full(&error) => spin_loop(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<P: Payload, const WAIT: u8> Rx<P> for End<Receiver<P>, WAIT> {
    #[inline]
    fn recv(&mut self) -> Result<u64> {
        if size_of::<P>() >= IN_PLACE {
            if WAIT != SPIN {
                return Ok(self.0.recv_ref()?.digest());
            }
            loop {
                match self.0.try_recv_ref() {
                    Ok(received) => return Ok(received.digest()),
                    Err(error) if is_empty(&error) => spin_loop(),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if WAIT != SPIN {
            return Ok(self.0.recv()?.digest());
        }
        loop {
            match self.0.try_recv() {
                Ok(value) => return Ok(value.digest()),
                Err(error) if is_empty(&error) => spin_loop(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Both ends' names: what role 0 sends through, and what role 1 does.
const NAMES: [&str; 2] = ["there", "back"];

fn ends<P: Payload>(stage: &Stage, segment: &Segment) -> Result<(Sender<P>, Receiver<P>)> {
    let (own, other) = (NAMES[stage.role], NAMES[1 - stage.role]);
    let sender = segment.channel::<P>(own).capacity(capacity::<P>()).open_or_create_sender()?;
    stage.barrier()?;
    Ok((sender, segment.channel::<P>(other).open_receiver()?))
}

fn round_trip_over<P: Payload, const WAIT: u8>(stage: &Stage) -> Result {
    let segment = segment(stage)?;
    let (sender, receiver) = ends::<P>(stage, &segment)?;
    round_trip::<P>(stage, &mut End::<_, WAIT>(sender), &mut End::<_, WAIT>(receiver))
}

/// Sleeps at once where the other end has nothing to give.
fn blocking(stage: &Stage) -> Result {
    shmkit::set_spin_time(Duration::ZERO);
    round_trip_over::<Bytes8, DEFAULT>(stage)
}

fn one_way_over<P: Payload>(stage: &Stage) -> Result {
    let segment = segment(stage)?;
    let at = segment.channel::<P>("pipe").capacity(capacity::<P>());
    let side = match stage.role {
        0 => Side::Sends(End(at.open_or_create_sender()?)),
        _ => Side::Receives(End(at.open_or_create_receiver()?)),
    };
    one_way::<P, End<Sender<P>, DEFAULT>, End<Receiver<P>, DEFAULT>>(stage, side)
}

// ---- batches ---------------------------------------------------------------------------------------------------------

/// An end that sends or receives many at once.
struct Batches<E, P>(E, Vec<P>);

impl<P: Payload> Tx<P> for Batches<Sender<P>, P> {
    fn send(&mut self, sequence: u64) -> Result {
        self.send_all(sequence..sequence + 1)
    }

    fn send_all(&mut self, mut numbers: Range<u64>) -> Result {
        while !numbers.is_empty() {
            let count = BATCH.min((numbers.end - numbers.start) as usize);
            for (element, sequence) in self.1.iter_mut().zip(numbers.by_ref().take(count)) {
                element.fill(sequence);
            }
            self.0.send_many(&self.1[..count])?;
        }
        Ok(())
    }
}

impl<P: Payload> Rx<P> for Batches<Receiver<P>, P> {
    fn recv(&mut self) -> Result<u64> {
        self.recv_all(1)
    }

    fn recv_all(&mut self, mut count: u64) -> Result<u64> {
        let mut sum = 0u64;
        while count > 0 {
            let most = BATCH.min(count as usize);
            let got = self.0.recv_many(&mut self.1[..most])?;
            sum = self.1[..got].iter().fold(sum, |sum, element| sum.wrapping_add(element.digest()));
            count -= got as u64;
        }
        Ok(sum)
    }
}

fn one_way_in_batches<P: Payload>(stage: &Stage) -> Result {
    let segment = segment(stage)?;
    let at = segment.channel::<P>("pipe").capacity(capacity::<P>());
    let room = || vec![P::zeroed(); BATCH];
    let side = match stage.role {
        0 => Side::Sends(Batches(at.open_or_create_sender()?, room())),
        _ => Side::Receives(Batches(at.open_or_create_receiver()?, room())),
    };
    one_way::<P, Batches<Sender<P>, P>, Batches<Receiver<P>, P>>(stage, side)
}

// ---- connections -----------------------------------------------------------------------------------------------------

/// An end of Python's pipe, which carries bytes.
struct Bytes<'a, P>(&'a Connection, Box<P>);

impl<P: Payload> Tx<P> for Bytes<'_, P> {
    fn send(&mut self, sequence: u64) -> Result {
        self.1.fill(sequence);
        Ok(self.0.send_bytes(bytes_of(&*self.1))?)
    }
}

impl<P: Payload> Rx<P> for Bytes<'_, P> {
    fn recv(&mut self) -> Result<u64> {
        let len = self.0.recv_bytes_into(shmkit::bytemuck::bytes_of_mut(&mut *self.1))?;
        if len == size_of::<P>() { Ok(self.1.digest()) } else { Err(format!("a message of {len} bytes").into()) }
    }
}

/// Role 0 makes a pair and hands one end over through a queue.
fn connection(stage: &Stage, segment: &Segment) -> Result<Connection> {
    let queue = segment.queue::<Connection>("hand-over").capacity(1).open_or_create()?;
    stage.in_turn(
        || {
            let (mine, other) = shmkit::channel::pipe_in(segment, true)?;
            queue.put(other)?;
            Ok(mine)
        },
        || Ok(queue.get()?),
    )
}

fn connection_round_trip<P: Payload>(stage: &Stage) -> Result {
    let segment = segment(stage)?;
    let end = connection(stage, &segment)?;
    round_trip::<P>(stage, &mut Bytes(&end, zeroed()), &mut Bytes(&end, zeroed()))
}

// ---- contestants -----------------------------------------------------------------------------------------------------

/// What the pipe is called where it is judged against itself.
pub const SPINNING: &str = "shmkit, spinning";

/// Round trips in which the pipe spins; the others wait in their own ways.
pub fn round_trips<P: Payload>() -> Vec<Contestant> {
    vec![
        Contestant::pair("shmkit", Shmkit, round_trip_over::<P, SPIN>),
        Contestant::pair("Connection", Reference, connection_round_trip::<P>),
    ]
}

/// The pipe as it waits unless told otherwise, and spinning.
pub fn waiting() -> Vec<Contestant> {
    vec![
        Contestant::pair("shmkit", Shmkit, round_trip_over::<Bytes8, DEFAULT>),
        Contestant::pair(SPINNING, Reference, round_trip_over::<Bytes8, SPIN>),
    ]
}

/// The pipe's hand-over of a payload where it lies.
pub fn in_place<P: Payload>() -> Contestant {
    Contestant::pair("shmkit", Shmkit, round_trip_over::<P, SPIN>)
}

/// The pipe without spinning.
pub fn blocked() -> Contestant {
    Contestant::pair("shmkit", Shmkit, blocking)
}

/// The pipe as it waits unless told otherwise, to compare with.
pub fn default_waiting() -> Contestant {
    Contestant::pair("default waiting", Reference, round_trip_over::<Bytes8, DEFAULT>)
}

/// The pipe without spinning, in microseconds: what a pool's call is compared with.
pub fn blocked_in_microseconds() -> Contestant {
    fn run(stage: &Stage) -> Result {
        blocking(stage)?;
        if let (0, Ok((nanoseconds, _))) = (stage.role, stage.outcome()) {
            stage.publish(nanoseconds / 1e3);
        }
        Ok(())
    }
    Contestant::pair("blocking pipe round trip", Reference, run)
}

/// The pipe one way.
pub fn one_ways<P: Payload>() -> Contestant {
    Contestant::pair("shmkit", Shmkit, one_way_over::<P>)
}

/// The pipe one way in batches, and one by one.
pub fn batches<P: Payload>(name: &str) -> Figure {
    let single = "one by one";
    Figure::new(name, Unit::Millions).about("Batches of 64 elements.").goal(Goal::AtLeast(3.0, single)).with([
        Contestant::pair("shmkit", Shmkit, one_way_in_batches::<P>),
        Contestant::pair(single, Reference, one_way_over::<P>),
        Contestant::pair("minimal ring, batches", Limit, limits::ring_one_way_in_batches::<P>),
        Contestant::pair("minimal ring, one by one", Reference, limits::ring_one_way::<P>),
    ])
}
