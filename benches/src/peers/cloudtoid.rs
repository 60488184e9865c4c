//! cloudtoid-interprocess: queues of byte messages for many publishers and subscribers, into and out of which messages are copied.
//! Polled, but for the figures "blocking", in which its receivers sleep on its semaphore.

use crate::Result;
use crate::contest::Contestant;
use crate::contest::Kind::Peer;
use crate::drivers::{BATCH, Rx, Side, Tx, one_way, round_trip};
use crate::payload::{Bytes8, Payload, capacity, zeroed};
use crate::stage::Stage;
use cloudtoid_interprocess::{Options, Publisher, Subscriber};
use shmkit::bytemuck::{bytes_of, bytes_of_mut, pod_read_unaligned};
use std::hint::spin_loop;
use std::ops::Range;

/// Looks for one message or one place before the CPU is left to others, where there are more processes than CPUs.
const LOOKS: u32 = 100;

/// Waits a moment for the other side.
struct Patience {
    looks: u32,
    yields: bool,
}

impl Patience {
    #[inline]
    fn new(yields: bool) -> Patience {
        Patience { looks: 0, yields }
    }

    #[inline]
    fn wait(&mut self) {
        self.looks += 1;
        if self.yields && self.looks > LOOKS { std::thread::yield_now() } else { spin_loop() }
    }
}

/// A sending end, room to build a message in, and whether it leaves the CPU to others while it waits.
struct Sends<P> {
    publisher: Publisher,
    message: Box<P>,
    yields: bool,
}

impl<P: Payload> Tx<P> for Sends<P> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        self.message.fill(sequence);
        let mut patience = Patience::new(self.yields);
        loop {
            match self.publisher.try_send(bytes_of(&*self.message)) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_full() => patience.wait(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A sending end that sends many at once.
struct SendsMany<P>(Publisher, Vec<P>);

impl<P: Payload> Tx<P> for SendsMany<P> {
    fn send(&mut self, sequence: u64) -> Result {
        self.send_all(sequence..sequence + 1)
    }

    fn send_all(&mut self, mut numbers: Range<u64>) -> Result {
        while !numbers.is_empty() {
            let count = BATCH.min((numbers.end - numbers.start) as usize);
            for (message, sequence) in self.1.iter_mut().zip(numbers.by_ref().take(count)) {
                message.fill(sequence);
            }
            let mut batch = [&[][..]; BATCH];
            for (bytes, message) in batch.iter_mut().zip(&self.1) {
                *bytes = bytes_of(message);
            }
            let mut unsent = &batch[..count];
            while !unsent.is_empty() {
                match self.0.try_send_batch(unsent)? {
                    0 => spin_loop(),
                    sent => unsent = &unsent[sent..],
                }
            }
        }
        Ok(())
    }
}

/// A receiving end with room for a message.
struct Receives<P> {
    subscriber: Subscriber,
    message: Box<P>,
    yields: bool,
}

impl<P: Payload> Rx<P> for Receives<P> {
    #[inline]
    fn recv(&mut self) -> Result<u64> {
        let mut patience = Patience::new(self.yields);
        loop {
            match self.subscriber.try_recv_into(bytes_of_mut(&mut *self.message))? {
                Some(len) if len == size_of::<P>() => return Ok(self.message.digest()),
                Some(len) => return Err(format!("a message of {len} bytes").into()),
                None => patience.wait(),
            }
        }
    }
}

/// A receiving end that sleeps until there is a message.
struct Sleeps(Subscriber);

impl Rx<Bytes8> for Sleeps {
    #[inline]
    fn recv(&mut self) -> Result<u64> {
        let bytes = self.0.recv()?;
        if bytes.len() != size_of::<Bytes8>() {
            return Err(format!("a message of {} bytes", bytes.len()).into());
        }
        Ok(pod_read_unaligned::<Bytes8>(&bytes).digest())
    }
}

/// Queues of one measurement, in a directory of its own.
struct Queues<'a> {
    stage: &'a Stage,
    directory: String,
}

impl Queues<'_> {
    fn options<P: Payload>(&self, name: &str) -> Options {
        // A message has 8 bytes before it and takes a multiple of 8.
        let bytes = capacity::<P>() * (size_of::<P>().next_multiple_of(8) + 8);
        Options::new(format!("{}-{name}", self.stage.name), bytes).with_path(&self.directory)
    }

    fn sends<P: Payload>(&self, name: &str) -> Result<Sends<P>> {
        let publisher = Publisher::open(&self.options::<P>(name))?;
        Ok(Sends { publisher, message: zeroed(), yields: self.stage.roles > 2 })
    }

    fn receives<P: Payload>(&self, name: &str) -> Result<Receives<P>> {
        let subscriber = Subscriber::open(&self.options::<P>(name))?;
        Ok(Receives { subscriber, message: zeroed(), yields: self.stage.roles > 2 })
    }
}

/// Runs a measurement; when all have left its queues, takes the directory away. A queue is gone with the last of its ends, so the
/// stage's first barrier comes after all of them are opened.
fn with_queues(stage: &Stage, run: impl FnOnce(&Queues<'_>) -> Result) -> Result {
    let directory = format!("/dev/shm/{}", stage.name);
    std::fs::create_dir_all(&directory)?;
    let queues = Queues { stage, directory };
    let outcome = run(&queues).and_then(|()| stage.barrier());
    if stage.role == 0 {
        std::fs::remove_dir_all(&queues.directory)?;
    }
    outcome
}

/// What each role sends through.
const NAMES: [&str; 2] = ["there", "back"];

fn polled_round_trip<P: Payload>(stage: &Stage) -> Result {
    with_queues(stage, |queues| {
        let (mut tx, mut rx) = (queues.sends::<P>(NAMES[stage.role])?, queues.receives::<P>(NAMES[1 - stage.role])?);
        round_trip::<P>(stage, &mut tx, &mut rx)
    })
}

fn blocking_round_trip(stage: &Stage) -> Result {
    with_queues(stage, |queues| {
        let mut tx = queues.sends::<Bytes8>(NAMES[stage.role])?;
        let mut rx = Sleeps(Subscriber::open(&queues.options::<Bytes8>(NAMES[1 - stage.role]))?);
        round_trip::<Bytes8>(stage, &mut tx, &mut rx)
    })
}

fn polled_one_way<P: Payload>(stage: &Stage) -> Result {
    with_queues(stage, |queues| {
        let side = match stage.role.is_multiple_of(2) {
            true => Side::Sends(queues.sends::<P>("queue")?),
            false => Side::Receives(queues.receives::<P>("queue")?),
        };
        one_way::<P, Sends<P>, Receives<P>>(stage, side)
    })
}

fn batches_one_way<P: Payload>(stage: &Stage) -> Result {
    with_queues(stage, |queues| {
        let side = match stage.role {
            0 => Side::Sends(SendsMany(Publisher::open(&queues.options::<P>("queue"))?, vec![P::zeroed(); BATCH])),
            _ => Side::Receives(queues.receives("queue")?),
        };
        one_way::<P, SendsMany<P>, Receives<P>>(stage, side)
    })
}

const NAME: &str = "cloudtoid-interprocess";

pub fn round_trips<P: Payload>() -> Vec<Contestant> {
    vec![Contestant::pair(NAME, Peer, polled_round_trip::<P>)]
}

/// Its receivers asleep.
pub fn blocking() -> Vec<Contestant> {
    vec![Contestant::pair(NAME, Peer, blocking_round_trip)]
}

pub fn one_ways<P: Payload>() -> Vec<Contestant> {
    vec![Contestant::pair(NAME, Peer, polled_one_way::<P>)]
}

/// It can send many at once, and takes them out one by one.
pub fn batches<P: Payload>() -> Vec<Contestant> {
    vec![Contestant::pair(NAME, Peer, batches_one_way::<P>)]
}

pub fn queues<P: Payload>(processes: usize) -> Vec<Contestant> {
    vec![Contestant::pair(NAME, Peer, polled_one_way::<P>).of(processes)]
}
