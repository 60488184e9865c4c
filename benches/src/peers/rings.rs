//! shmem-ipc's ring and ringfire's rings: one producer, polled.

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

fn place<P: Payload>(stage: &Stage, number: usize) -> (*mut u8, usize) {
    const { assert!(size_of::<P>().is_multiple_of(8)) };
    let len = ringbuf::channel_bufsize::<u64>(capacity::<P>() * size_of::<P>() / 8);
    assert!(len <= RING);
    (stage.scratch().wrapping_add(number * RING), len)
}

impl<P: Payload> Words<ringbuf::Sender<u64>, P> {
    fn sender(stage: &Stage, number: usize) -> Result<Self> {
        let (start, len) = place::<P>(stage, number);
        // SAFETY: scratch memory of that length, zeroed, with one sender and one receiver.
        Ok(Words(unsafe { ringbuf::Sender::attach(start, len) }.map_err(|error| format!("{error:?}"))?, PhantomData))
    }
}

impl<P: Payload> Words<ringbuf::Receiver<u64>, P> {
    fn receiver(stage: &Stage, number: usize) -> Result<Self> {
        let (start, len) = place::<P>(stage, number);
        // SAFETY: as above.
        Ok(Words(unsafe { ringbuf::Receiver::attach(start, len) }.map_err(|error| format!("{error:?}"))?, PhantomData))
    }
}

impl<P: Payload> Tx<P> for Words<ringbuf::Sender<u64>, P> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        let words = size_of::<P>() / 8;
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
        let words = size_of::<P>() / 8;
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

fn path(stage: &Stage, name: &str) -> String {
    format!("/dev/shm/{}.{name}", stage.name)
}

fn producer<P: Payload>(path: &str) -> Result<Slots<RingProducer<P>, P>> {
    let builder = RingProducerBuilder::new(capacity::<P>() as u64).flow_control(FlowControl::LosslessBackpressure);
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

/// An end of ringfire's ring of payloads of any size.
struct Blobs<E, P>(E, PhantomData<P>);

impl<P: Payload> Tx<P> for Blobs<BlobProducer<u64>, P> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        let write = |place: &mut [u8]| match shmkit::bytemuck::try_from_bytes_mut::<P>(place) {
            Ok(payload) => payload.fill(sequence),
            // The arena aligns payloads to 8 bytes at most.
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

impl<P: Payload> Rx<P> for Blobs<BlobConsumer<u64>, P> {
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
            spin_loop();
        }
    }
}

fn blob_producer<P: Payload>(path: &str) -> Result<Blobs<BlobProducer<u64>, P>> {
    let room = capacity::<P>();
    Ok(Blobs(
        BlobProducer::create(path, room.next_power_of_two() as u64, (2 * room * size_of::<P>()).max(4096))?,
        PhantomData,
    ))
}

fn blob_consumer<P: Payload>(path: &str) -> Result<Blobs<BlobConsumer<u64>, P>> {
    Ok(Blobs(BlobConsumer::attach_with_name(path, "bench")?, PhantomData))
}

fn blob_round_trip<P: Payload>(stage: &Stage) -> Result {
    let names = [path(stage, "there"), path(stage, "back")];
    let mut tx = blob_producer::<P>(&names[stage.role])?;
    stage.barrier()?;
    let mut rx = blob_consumer::<P>(&names[1 - stage.role])?;
    stage.barrier()?;
    round_trip::<P>(stage, &mut tx, &mut rx)
}

pub fn round_trips<P: Payload>() -> Vec<Contestant> {
    vec![
        Contestant::pair("shmem-ipc", Peer, shmem_round_trip::<P>),
        Contestant::pair("ringfire blobs", Peer, blob_round_trip::<P>),
    ]
}

/// ringfire's blobs are not here: that ring overwrites what a slow reader has not read.
pub fn one_ways<P: Payload>() -> Vec<Contestant> {
    vec![Contestant::pair("shmem-ipc", Peer, shmem_one_way::<P>)]
}

pub fn small_round_trips<P: Payload>() -> Vec<Contestant> {
    vec![Contestant::pair("ringfire SPMC", Peer, ringfire_round_trip::<P>)]
}

pub fn small_one_ways<P: Payload>() -> Vec<Contestant> {
    vec![Contestant::pair("ringfire SPMC", Peer, ringfire_one_way::<P>)]
}
