//! shmem-ipc's ring and ringfire's rings: one producer, polled.

use super::by_value;
use crate::Result;
use crate::contest::Contestant;
use crate::contest::Kind::Peer;
use crate::drivers::{Rx, Side, Tx, one_way, round_trip};
use crate::payload::{Payload, capacity, zeroed};
use crate::stage::Stage;
use ringfire::{BlobConsumer, BlobProducer, FlowControl, RingConsumer, RingProducer, RingProducerBuilder};
use shmem_ipc::ringbuf;
use std::hint::spin_loop;
use std::marker::PhantomData;

// ---- shmem-ipc -------------------------------------------------------------------------------------------------------

/// A ring of words: a message is as many of them as its payload has.
struct Words<E, P>(E, PhantomData<P>);

/// Bytes from one ring in the scratch memory to the next.
const RING: usize = 24 << 20;

/// Words that a message takes.
const fn words<P>() -> usize {
    size_of::<P>().div_ceil(8)
}

fn place<P: Payload>(stage: &Stage, number: usize) -> Result<(*mut u8, usize)> {
    let len = ringbuf::channel_bufsize::<u64>(capacity::<P>() * words::<P>());
    // The ring is as long as so many messages, and so each lies as well aligned as the first one, 64 bytes behind the start.
    if len > RING || align_of::<P>() > 64 {
        return Err("the payload is too large, or aligned too strictly".into());
    }
    Ok((stage.scratch().wrapping_add(number * RING), len))
}

impl<P: Payload> Words<ringbuf::Sender<u64>, P> {
    fn sender(stage: &Stage, number: usize) -> Result<Self> {
        let (start, len) = place::<P>(stage, number)?;
        // SAFETY: scratch memory of that length, zeroed, with one sender and one receiver.
        Ok(Words(unsafe { ringbuf::Sender::attach(start, len) }.map_err(|error| format!("{error:?}"))?, PhantomData))
    }
}

impl<P: Payload> Words<ringbuf::Receiver<u64>, P> {
    fn receiver(stage: &Stage, number: usize) -> Result<Self> {
        let (start, len) = place::<P>(stage, number)?;
        // SAFETY: as above.
        Ok(Words(unsafe { ringbuf::Receiver::attach(start, len) }.map_err(|error| format!("{error:?}"))?, PhantomData))
    }
}

impl<P: Payload> Tx<P> for Words<ringbuf::Sender<u64>, P> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        let words = words::<P>();
        loop {
            let mut sent = false;
            let write = |place: *mut u64, room| {
                if room < words {
                    return 0;
                }
                // SAFETY: room for a payload, which is the sender's until the count goes up.
                unsafe { &mut *place.cast::<P>() }.fill(sequence);
                sent = true;
                words
            };
            self.0.send(write).map_err(|error| format!("{error:?}"))?;
            if sent {
                return Ok(());
            }
            spin_loop();
        }
    }
}

impl<P: Payload> Rx<P> for Words<ringbuf::Receiver<u64>, P> {
    #[inline]
    fn recv(&mut self) -> Result<u64> {
        let words = words::<P>();
        loop {
            let mut digest = None;
            let read = |place: *const u64, found| {
                if found < words {
                    return 0;
                }
                // SAFETY: a payload, which is the receiver's until the count goes down.
                digest = Some(unsafe { &*place.cast::<P>() }.digest());
                words
            };
            self.0.recv(read).map_err(|error| format!("{error:?}"))?;
            if let Some(digest) = digest {
                return Ok(digest);
            }
            spin_loop();
        }
    }
}

fn shmem_round_trip<P: Payload>(stage: &Stage) -> Result {
    let mut tx = Words::<_, P>::sender(stage, stage.role)?;
    let mut rx = Words::<_, P>::receiver(stage, 1 - stage.role)?;
    round_trip::<P>(stage, &mut tx, &mut rx)
}

fn shmem_one_way<P: Payload>(stage: &Stage) -> Result {
    match stage.role {
        0 => one_way::<P, _, Words<ringbuf::Receiver<u64>, P>>(stage, Side::Sends(Words::sender(stage, 0)?)),
        _ => one_way::<P, Words<ringbuf::Sender<u64>, P>, _>(stage, Side::Receives(Words::receiver(stage, 0)?)),
    }
}

// ---- ringfire --------------------------------------------------------------------------------------------------------

/// An end of ringfire's ring of fixed slots, without loss, with room to build a message in.
struct Slots<E, P>(E, Box<P>);

impl<P: Payload> Tx<P> for Slots<RingProducer<P>, P> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        self.1.fill(sequence);
        self.0.push(&self.1);
        Ok(())
    }
}

impl<P: Payload> Rx<P> for Slots<RingConsumer<P>, P> {
    #[inline]
    fn recv(&mut self) -> Result<u64> {
        loop {
            if let Some(message) = self.0.try_recv() {
                return Ok(message.digest());
            }
            spin_loop();
        }
    }
}

/// Where a ring is. No dot: ringfire names the file in which it keeps a reader's place like the ring, without what follows a dot, and
/// the readers of two rings would share one.
fn path(stage: &Stage, name: &str) -> String {
    format!("/dev/shm/{}-{name}", stage.name)
}

fn producer<P: Payload>(path: &str) -> Result<Slots<RingProducer<P>, P>> {
    let room = capacity::<P>().next_power_of_two() as u64;
    let builder = RingProducerBuilder::new(room).flow_control(FlowControl::LosslessBackpressure);
    Ok(Slots(builder.build(path)?, zeroed()))
}

fn consumer<P: Payload>(path: &str) -> Result<Slots<RingConsumer<P>, P>> {
    Ok(Slots(RingConsumer::builder().start_from_oldest().consumer_name("bench").attach(path)?, zeroed()))
}

/// Each role makes the ring it sends through; then each attaches to the other's.
fn ringfire_round_trip<P: Payload>(stage: &Stage) -> Result {
    let names = [path(stage, "there"), path(stage, "back")];
    let mut tx = producer::<P>(&names[stage.role])?;
    stage.barrier()?;
    let mut rx = consumer::<P>(&names[1 - stage.role])?;
    stage.barrier()?;
    round_trip::<P>(stage, &mut tx, &mut rx)
}

fn ringfire_one_way<P: Payload>(stage: &Stage) -> Result {
    type Tx<P> = Slots<RingProducer<P>, P>;
    type Rx<P> = Slots<RingConsumer<P>, P>;
    let name = path(stage, "ring");
    let side = stage.in_turn(|| Ok(Side::Sends(producer(&name)?)), || Ok(Side::Receives(consumer(&name)?)))?;
    one_way::<P, Tx<P>, Rx<P>>(stage, side)
}

/// The sending end of ringfire's ring of payloads of any size, and how many may be sent before the reader's place must be looked at
/// again: the ring itself overwrites what has not been read.
struct BlobsTx<P>(BlobProducer<u64>, u64, PhantomData<P>);
/// The receiving end.
struct BlobsRx<P>(BlobConsumer<u64>, PhantomData<P>);

impl<P: Payload> Tx<P> for BlobsTx<P> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        while self.1 == 0 {
            self.1 = self.0.headroom();
            spin_loop();
        }
        self.1 -= 1;
        let write = |place: &mut [u8]| match shmkit::bytemuck::try_from_bytes_mut::<P>(place) {
            Ok(payload) => payload.fill(sequence),
            // The arena aligns payloads to 64 bytes at most.
            Err(_) => {
                let mut payload = zeroed::<P>();
                payload.fill(sequence);
                place.copy_from_slice(shmkit::bytemuck::bytes_of(&*payload));
            }
        };
        self.0.push_with(&sequence, size_of::<P>(), write)?;
        Ok(())
    }
}

impl<P: Payload> Rx<P> for BlobsRx<P> {
    #[inline]
    fn recv(&mut self) -> Result<u64> {
        loop {
            let read = |_: &u64, bytes: &[u8]| match shmkit::bytemuck::try_from_bytes::<P>(bytes) {
                Ok(payload) => payload.digest(),
                Err(_) => shmkit::bytemuck::pod_read_unaligned::<P>(bytes).digest(),
            };
            if let Some(digest) = self.0.view(read)? {
                return Ok(digest);
            }
            if self.0.lapped_count() > 0 {
                return Err("a message was overwritten before it was read".into());
            }
            spin_loop();
        }
    }
}

fn blob_producer<P: Payload>(path: &str) -> Result<BlobsTx<P>> {
    let room = capacity::<P>().next_power_of_two();
    // Each payload begins on a cache line and lies in one piece; with twice the room none is overwritten that is in the ring.
    let arena = (2 * room * size_of::<P>().next_multiple_of(64)).next_power_of_two();
    Ok(BlobsTx(BlobProducer::create(path, room as u64, arena)?, 0, PhantomData))
}

fn blob_consumer<P: Payload>(path: &str) -> Result<BlobsRx<P>> {
    Ok(BlobsRx(BlobConsumer::attach_with_name(path, "bench")?, PhantomData))
}

fn blob_round_trip<P: Payload>(stage: &Stage) -> Result {
    let names = [path(stage, "there"), path(stage, "back")];
    let mut tx = blob_producer::<P>(&names[stage.role])?;
    stage.barrier()?;
    let mut rx = blob_consumer::<P>(&names[1 - stage.role])?;
    stage.barrier()?;
    round_trip::<P>(stage, &mut tx, &mut rx)
}

fn blob_one_way<P: Payload>(stage: &Stage) -> Result {
    let name = path(stage, "ring");
    let side =
        stage.in_turn(|| Ok(Side::Sends(blob_producer(&name)?)), || Ok(Side::Receives(blob_consumer(&name)?)))?;
    one_way::<P, BlobsTx<P>, BlobsRx<P>>(stage, side)
}

const SHMEM: &str = "shmem-ipc";
const SLOTS: &str = "ringfire SPMC";
const BLOBS: &str = "ringfire blobs";

/// Those that write and read a message where it lies.
pub fn in_place_round_trips<P: Payload>() -> Vec<Contestant> {
    vec![Contestant::pair(SHMEM, Peer, shmem_round_trip::<P>), Contestant::pair(BLOBS, Peer, blob_round_trip::<P>)]
}

pub fn round_trips<P: Payload>() -> Vec<Contestant> {
    let mut contestants = in_place_round_trips::<P>();
    if const { by_value::<P>() } {
        contestants.push(Contestant::pair(SLOTS, Peer, ringfire_round_trip::<P>));
    }
    contestants
}

pub fn one_ways<P: Payload>() -> Vec<Contestant> {
    let mut contestants =
        vec![Contestant::pair(SHMEM, Peer, shmem_one_way::<P>), Contestant::pair(BLOBS, Peer, blob_one_way::<P>)];
    if const { by_value::<P>() } {
        contestants.push(Contestant::pair(SLOTS, Peer, ringfire_one_way::<P>));
    }
    contestants
}
