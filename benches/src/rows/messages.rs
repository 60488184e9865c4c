//! Messages: round trips and one way, over pipes and queues.

use crate::Result;
use crate::contest::Kind::{Limit, Reference, Shmkit};
use crate::contest::{Contestant, Figure, Goal, Unit};
use crate::drivers::{Rx, Side, Tx, one_way, rate_unit, round_trip};
use crate::limits;
use crate::payload::{Bytes1K, Bytes1M, Bytes8, Bytes64, Bytes64K, Payload, Untouched1M, Untouched64K, capacity};
use crate::peers;
use crate::rows::pipes;
use crate::stage::Stage;
use serde::{Deserialize, Serialize};
use shmkit::{Error, PodQueue, Queue, Segment};
use std::hint::spin_loop;

/// The segment of a measurement, made by role 0 and opened by the others.
pub(super) fn segment(stage: &Stage) -> Result<Segment> {
    let builder = Segment::builder().max_size(256 << 20);
    stage.in_turn(|| Ok(builder.create(&stage.name)?), || Ok(builder.open(&stage.name)?))
}

// ---- queues of plain data --------------------------------------------------------------------------------------------

/// A queue, and how one waits at it.
struct Pods<P: Payload, const SPIN: bool>(PodQueue<P>);

impl<P: Payload, const SPIN: bool> Pods<P, SPIN> {
    fn open(segment: &Segment, name: &str) -> Result<Self> {
        Ok(Pods(segment.pod_queue::<P>(name).capacity(capacity::<P>()).open_or_create()?))
    }
}

pub(super) fn is_full(error: &Error) -> bool {
    matches!(error, Error::Channel(shmkit::ChannelError::Full { .. }))
}

pub(super) fn is_empty(error: &Error) -> bool {
    matches!(error, Error::Channel(shmkit::ChannelError::Empty { .. }))
}

impl<P: Payload, const SPIN: bool> Tx<P> for Pods<P, SPIN> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        let mut loan = self.0.loan()?;
        loan.fill(sequence);
        if !SPIN {
            return Ok(loan.commit()?);
        }
        let mut unsent = loan;
        loop {
            match unsent.try_commit() {
                Ok(()) => return Ok(()),
                Err((loan, error)) if is_full(&error) => unsent = loan,
                Err((_, error)) => return Err(error.into()),
            }
            spin_loop();
        }
    }
}

impl<P: Payload, const SPIN: bool> Rx<P> for Pods<P, SPIN> {
    #[inline]
    fn recv(&mut self) -> Result<u64> {
        if !SPIN {
            return Ok(self.0.recv()?.digest());
        }
        loop {
            match self.0.try_recv() {
                Ok(received) => return Ok(received.digest()),
                Err(error) if is_empty(&error) => spin_loop(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn queue_round_trip<P: Payload, const SPIN: bool>(stage: &Stage) -> Result {
    let segment = segment(stage)?;
    let names = ["there", "back"];
    let mut tx = Pods::<P, SPIN>::open(&segment, names[stage.role])?;
    let mut rx = Pods::<P, SPIN>::open(&segment, names[1 - stage.role])?;
    round_trip::<P>(stage, &mut tx, &mut rx)
}

fn queue_one_way<P: Payload>(stage: &Stage) -> Result {
    let queue = Pods::<P, false>::open(&segment(stage)?, "queue")?;
    let sends = stage.role.is_multiple_of(2);
    one_way::<P, _, _>(stage, if sends { Side::Sends(queue) } else { Side::Receives(queue) })
}

// ---- queues of serde values ------------------------------------------------------------------------------------------

/// About 100 bytes when it is serialised: a record as programs send them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The message's number.
    pub id: u64,
    /// Some text.
    pub name: String,
    /// Some numbers.
    pub samples: [u32; 8],
    /// Some more.
    pub weight: f64,
    /// And more.
    pub place: (u32, u64),
}

/// As long as it takes to make a record of 100 bytes.
const NAME: &str = "the name of a record, as long as sixty characters can be made";

impl Record {
    /// The record of a number.
    pub fn new(id: u64) -> Record {
        let samples = [70_000 + (id & 0xFF) as u32; 8];
        Record { id, name: NAME.to_owned(), samples, weight: 1.5, place: (5, id) }
    }

    /// What a reader adds up.
    pub fn digest(&self) -> u64 {
        self.id
            + self.place.1
            + self.name.len() as u64
            + self.samples.iter().map(|&sample| u64::from(sample)).sum::<u64>()
    }
}

/// Stands for a record where the drivers want plain data: the number it is made from.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Numbered(u64);

// SAFETY: a number.
unsafe impl shmkit::bytemuck::Zeroable for Numbered {}
// SAFETY: a number.
unsafe impl shmkit::bytemuck::Pod for Numbered {}
// SAFETY: the format and the hash are those of the number.
unsafe impl shmkit::Element for Numbered {
    const NAME: &'static str = "record";
    const FORMAT: shmkit::element::Format = <u64 as shmkit::Element>::FORMAT;
    const HASH: u64 = <u64 as shmkit::Element>::HASH;
}

impl Payload for Numbered {
    fn fill(&mut self, sequence: u64) {
        self.0 = sequence;
    }
    fn digest(&self) -> u64 {
        Record::new(self.0).digest()
    }
    fn expected(sequence: u64) -> u64 {
        Record::new(0).digest() + 2 * sequence + 8 * (sequence & 0xFF)
    }
}

struct Records(Queue<Record>);

impl Tx<Numbered> for Records {
    fn send(&mut self, sequence: u64) -> Result {
        Ok(self.0.put(Record::new(sequence))?)
    }
}

impl Rx<Numbered> for Records {
    fn recv(&mut self) -> Result<u64> {
        Ok(self.0.get()?.digest())
    }
}

fn records_one_way(stage: &Stage) -> Result {
    let segment = segment(stage)?;
    let queue = Records(segment.queue::<Record>("records").capacity(1024).open_or_create()?);
    one_way::<Numbered, _, _>(stage, if stage.role == 0 { Side::Sends(queue) } else { Side::Receives(queue) })
}

// ---- figures ---------------------------------------------------------------------------------------------------------

/// Round trips of any size.
fn round_trips<P: Payload>() -> Vec<Contestant> {
    let mut contestants = pipes::round_trips::<P>();
    // Runs right after the pipe, which is judged by it.
    contestants.insert(1, Contestant::pair(RING, Limit, limits::ring_round_trip::<P>));
    contestants.extend([
        Contestant::pair("PodQueue, spinning", Reference, queue_round_trip::<P, true>),
        Contestant::pair("PodQueue", Reference, queue_round_trip::<P, false>),
    ]);
    contestants.extend(peers::round_trips::<P>());
    contestants
}

/// Hand-overs of a loan that nobody writes or reads but its first word.
fn untouched<P: Payload>(name: &str) -> Figure {
    Figure::new(name, Unit::Nanoseconds)
        .goal(Goal::AtMost(3.0, LINE))
        .with([
            pipes::in_place::<P>(),
            Contestant::pair(LINE, Limit, limits::line),
            Contestant::pair("PodQueue", Reference, queue_round_trip::<P, true>),
        ])
        .with(peers::in_place::<P>())
}

fn one_ways<P: Payload>() -> Vec<Contestant> {
    let mut contestants = vec![pipes::one_ways::<P>(), Contestant::pair(RING, Limit, limits::ring_one_way::<P>)];
    contestants.extend(peers::one_ways::<P>());
    contestants
}

fn queues<P: Payload>(processes: usize) -> Vec<Contestant> {
    let mut contestants = vec![Contestant::pair("shmkit", Shmkit, queue_one_way::<P>).of(processes)];
    if processes == 2 {
        contestants.push(Contestant::pair("minimal ring", Limit, limits::ring_one_way::<P>));
    }
    contestants.extend(peers::queues::<P>(processes));
    contestants
}

const RING: &str = "minimal ring";
const LINE: &str = "cache line";
const CROSSBEAM: &str = "crossbeam-channel (threads)";

/// What the machine can do, by itself.
fn machine() -> Vec<Figure> {
    vec![
        Figure::new("machine: cache line round trip", Unit::Nanoseconds).with([Contestant::pair(
            LINE,
            Limit,
            limits::line,
        )]),
        Figure::new("machine: futex round trip", Unit::Nanoseconds).with([
            Contestant::pair("two CPUs", Limit, limits::futex),
            Contestant::pair("one CPU", Limit, limits::futex).on_one_cpu(),
        ]),
        Figure::new("machine: memcpy", Unit::Gigabytes).with([
            Contestant::single("64 B", Limit, limits::memcpy::<Bytes64>).fixed(1_000_000),
            Contestant::single("1 KiB", Limit, limits::memcpy::<Bytes1K>).fixed(500_000),
            Contestant::single("64 KiB", Limit, limits::memcpy::<Bytes64K>).fixed(5_000),
            Contestant::single("1 MiB", Limit, limits::memcpy::<Bytes1M>).fixed(200),
        ]),
    ]
}

fn round_trip_figures() -> Vec<Figure> {
    let figure = |name| Figure::new(name, Unit::Nanoseconds);
    let like_the_ring = |name| figure(name).goal(Goal::AtMost(1.15, RING));
    vec![
        figure("pipe round trip 8 B, spinning")
            .goal(Goal::AtMost(1.2, RING))
            .goal(Goal::AtMost(1.4, LINE))
            // The line runs right before the pipe, and the ring right after it.
            .with([Contestant::pair(LINE, Limit, limits::line)])
            .with(round_trips::<Bytes8>()),
        figure("pipe round trip 8 B, default waiting").goal(Goal::AtMost(1.1, pipes::SPINNING)).with(pipes::waiting()),
        like_the_ring("pipe round trip 64 B").with(round_trips::<Bytes64>()),
        like_the_ring("pipe round trip 1 KiB").with(round_trips::<Bytes1K>()),
        like_the_ring("pipe round trip 64 KiB").with(round_trips::<Bytes64K>()),
        figure("pipe round trip 1 MiB").with(round_trips::<Bytes1M>()),
        untouched::<Untouched64K>("pipe round trip 64 KiB loan, untouched"),
        untouched::<Untouched1M>("pipe round trip 1 MiB loan, untouched"),
        figure("pipe round trip 8 B, blocking")
            .goal(Goal::AtMost(1.1, FUTEX))
            .with([pipes::blocked(), Contestant::pair(FUTEX, Limit, limits::futex)])
            .with(peers::blocking()),
        figure("pipe round trip 8 B, blocking, one CPU")
            .goal(Goal::AtMost(1.1, FUTEX))
            .with([
                pipes::blocked().on_one_cpu(),
                pipes::default_waiting().on_one_cpu(),
                Contestant::pair(FUTEX, Limit, limits::futex).on_one_cpu(),
                Contestant::pair("raw futex, slices of 50 ms", Reference, limits::futex_in_slices).on_one_cpu(),
            ])
            .with(peers::blocking().into_iter().map(Contestant::on_one_cpu)),
    ]
}

const PODS: &str = "PodQueue, the queue of plain data, not Queue<T>, whose figure is that of serde records. Python's rows are not pinned.";
const FUTEX: &str = "raw futex";

fn one_way_figures() -> Vec<Figure> {
    let figure = |name| Figure::new(name, Unit::Millions);
    let large = |name| Figure::new(name, Unit::Thousands);
    let like_the_ring = |name| figure(name).goal(Goal::AtLeast(0.85, RING));
    vec![
        like_the_ring("pipe one way 8 B").with(one_ways::<Bytes8>()),
        like_the_ring("pipe one way 64 B").with(one_ways::<Bytes64>()),
        pipes::batches::<Bytes8>("pipe one way 8 B, batches").with(peers::batches::<Bytes8>()),
        pipes::batches::<Bytes64>("pipe one way 64 B, batches").with(peers::batches::<Bytes64>()),
        figure("pipe one way 1 KiB").with(one_ways::<Bytes1K>()),
        large("pipe one way 64 KiB").with(one_ways::<Bytes64K>()),
        large("pipe one way 1 MiB").with(one_ways::<Bytes1M>()),
    ]
}

fn queue_figures() -> Vec<Figure> {
    let figure = |name| Figure::new(name, Unit::Millions);
    vec![
        figure("queue 1P1C 64 B (PodQueue)").about(PODS).goal(Goal::AtLeast(1.0, CROSSBEAM)).with(queues::<Bytes64>(2)),
        figure("queue 2P2C 64 B (PodQueue)").about(PODS).goal(Goal::AtLeast(1.0, CROSSBEAM)).with(queues::<Bytes64>(4)),
        figure("queue of serde records")
            .about("Queue<T>: a struct of about 100 bytes, serialised and read back.")
            .goal(Goal::AtLeast(10.0, "ipc-channel"))
            .with([Contestant::pair("shmkit", Shmkit, records_one_way)])
            .with(peers::records()),
    ]
}

/// All figures for messages.
pub fn figures() -> Vec<Figure> {
    [machine(), round_trip_figures(), one_way_figures(), queue_figures()].into_iter().flatten().collect()
}

/// Round trips and one way with a user's own payload.
pub fn of_payload<P: Payload>() -> Vec<Figure> {
    vec![
        Figure::new(format!("round trip {}", P::NAME), Unit::Nanoseconds).with(round_trips::<P>()),
        Figure::new(format!("one way {}", P::NAME), rate_unit::<P>()).with(one_ways::<P>()),
        Figure::new(format!("queue 1P1C {}", P::NAME), rate_unit::<P>()).with(queues::<P>(2)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_about_a_hundred_bytes() {
        for id in [0, 1_000, 1_000_000] {
            let len = postcard::to_stdvec(&Record::new(id)).unwrap().len();
            assert!((95..=105).contains(&len), "{len} bytes");
        }
    }
}
