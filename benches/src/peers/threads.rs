//! Channels between threads of one process, as reference.

use super::by_value;
use crate::Result;
use crate::contest::Kind::Reference;
use crate::contest::{Contestant, Run};
use crate::drivers::{Rx, Side, Tx, one_way, round_trip};
use crate::payload::{Payload, capacity};
use crate::rows::{check_pool, next, unpin};
use crate::stage::{Role, Stage};
use std::hint::spin_loop;
use std::time::Instant;

/// A channel's end of one of these crates.
struct End<E>(E);

/// The message number `sequence`, by value: what these channels send.
#[inline]
fn message<P: Payload>(sequence: u64) -> P {
    let mut message = P::zeroed();
    message.fill(sequence);
    message
}

macro_rules! blocking {
    ($($sender:ty, $receiver:ty);*) => {$(
        impl<P: Payload> Tx<P> for End<$sender> {
            #[inline]
            fn send(&mut self, sequence: u64) -> Result {
                Ok(self.0.send(message(sequence))?)
            }
        }
        impl<P: Payload> Rx<P> for End<$receiver> {
            #[inline]
            fn recv(&mut self) -> Result<u64> {
                Ok(self.0.recv()?.digest())
            }
        }
    )*};
}
blocking!(crossbeam_channel::Sender<P>, crossbeam_channel::Receiver<P>);

impl<P: Payload> Tx<P> for End<kanal::Sender<P>> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        Ok(self.0.send(message(sequence)).map_err(|error| error.to_string())?)
    }
}

impl<P: Payload> Rx<P> for End<kanal::Receiver<P>> {
    #[inline]
    fn recv(&mut self) -> Result<u64> {
        Ok(self.0.recv()?.digest())
    }
}

impl<P: Payload> Tx<P> for End<rtrb::Producer<P>> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        let mut message = message(sequence);
        loop {
            match self.0.push(message) {
                Ok(()) => return Ok(()),
                Err(rtrb::PushError::Full(back)) => message = back,
            }
            // A large message is not to be moved to and fro until there is room.
            while self.0.is_full() {
                spin_loop();
            }
        }
    }
}

impl<P: Payload> Rx<P> for End<rtrb::Consumer<P>> {
    #[inline]
    fn recv(&mut self) -> Result<u64> {
        loop {
            if let Ok(message) = self.0.pop() {
                return Ok(message.digest());
            }
            spin_loop();
        }
    }
}

fn both_ways<P, T, R>(stage: &Stage, make: impl Fn() -> (T, R)) -> Result
where
    P: Payload,
    T: Send,
    R: Send,
    End<T>: Tx<P>,
    End<R>: Rx<P>,
{
    let ((there_tx, there_rx), (back_tx, back_rx)) = (make(), make());
    let role = |tx: T, rx: R| -> Role<'_> { Box::new(move |stage| round_trip::<P>(stage, &mut End(tx), &mut End(rx))) };
    stage.threads(vec![role(there_tx, back_rx), role(back_tx, there_rx)])
}

fn in_pairs<P, T, R>(stage: &Stage, ends: Vec<(T, R)>) -> Result
where
    P: Payload,
    T: Send,
    R: Send,
    End<T>: Tx<P>,
    End<R>: Rx<P>,
{
    let mut roles: Vec<Role<'_>> = Vec::new();
    for (tx, rx) in ends {
        roles.push(Box::new(move |stage| one_way::<P, _, End<R>>(stage, Side::Sends(End(tx)))));
        roles.push(Box::new(move |stage| one_way::<P, End<T>, _>(stage, Side::Receives(End(rx)))));
    }
    stage.threads(roles)
}

fn crossbeam_round_trip<P: Payload>(stage: &Stage) -> Result {
    both_ways::<P, _, _>(stage, || crossbeam_channel::bounded(capacity::<P>()))
}

fn kanal_round_trip<P: Payload>(stage: &Stage) -> Result {
    both_ways::<P, _, _>(stage, || kanal::bounded(capacity::<P>()))
}

fn rtrb_round_trip<P: Payload>(stage: &Stage) -> Result {
    both_ways::<P, _, _>(stage, || rtrb::RingBuffer::new(capacity::<P>()))
}

fn crossbeam_one_way<P: Payload, const PAIRS: usize>(stage: &Stage) -> Result {
    let ends = crossbeam_channel::bounded(capacity::<P>());
    in_pairs::<P, _, _>(stage, vec![ends; PAIRS])
}

fn kanal_one_way<P: Payload, const PAIRS: usize>(stage: &Stage) -> Result {
    let ends = kanal::bounded(capacity::<P>());
    in_pairs::<P, _, _>(stage, vec![ends; PAIRS])
}

fn rtrb_one_way<P: Payload>(stage: &Stage) -> Result {
    in_pairs::<P, _, _>(stage, vec![rtrb::RingBuffer::new(capacity::<P>())])
}

const CROSSBEAM: &str = "crossbeam-channel (threads)";
const KANAL: &str = "kanal (threads)";
const RTRB: &str = "rtrb (threads)";

pub fn round_trips<P: Payload>() -> Vec<Contestant> {
    if const { !by_value::<P>() } {
        return Vec::new();
    }
    vec![
        Contestant::single(CROSSBEAM, Reference, crossbeam_round_trip::<P>),
        Contestant::single(KANAL, Reference, kanal_round_trip::<P>),
        Contestant::single(RTRB, Reference, rtrb_round_trip::<P>),
    ]
}

pub fn one_ways<P: Payload>() -> Vec<Contestant> {
    if const { !by_value::<P>() } {
        return Vec::new();
    }
    vec![
        Contestant::single(CROSSBEAM, Reference, crossbeam_one_way::<P, 1>),
        Contestant::single(KANAL, Reference, kanal_one_way::<P, 1>),
        Contestant::single(RTRB, Reference, rtrb_one_way::<P>),
    ]
}

pub fn queues<P: Payload>(processes: usize) -> Vec<Contestant> {
    if const { !by_value::<P>() } {
        return Vec::new();
    }
    let (crossbeam, kanal): (Run, Run) = match processes {
        2 => (crossbeam_one_way::<P, 1>, kanal_one_way::<P, 1>),
        _ => (crossbeam_one_way::<P, 2>, kanal_one_way::<P, 2>),
    };
    vec![Contestant::single(CROSSBEAM, Reference, crossbeam), Contestant::single(KANAL, Reference, kanal)]
}

// ---- pools -----------------------------------------------------------------------------------------------------------

/// Two threads that take tasks from one bounded channel and put results into another: the least a pool can be.
fn two_threads(stage: &Stage) -> Result {
    unpin()?;
    let (task_tx, task_rx) = crossbeam_channel::bounded::<(u64, u64)>(1024);
    let (reply_tx, reply_rx) = crossbeam_channel::bounded::<(u64, u64)>(1024);
    let mut results = vec![0; stage.n as usize];
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (task_rx, reply_tx) = (task_rx.clone(), reply_tx.clone());
            scope.spawn(move || task_rx.iter().try_for_each(|(place, task)| reply_tx.send((place, next(task)))));
        }
        let start = Instant::now();
        let n = stage.n;
        scope.spawn(move || (0..n).try_for_each(|task| task_tx.send((task, task))));
        for (place, result) in reply_rx.iter().take(n as usize) {
            results[place as usize] = result;
        }
        check_pool(stage, &results, start)
    })
}

fn rayon_tasks(stage: &Stage) -> Result {
    use rayon::prelude::*;
    unpin()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    let start = Instant::now();
    let n = stage.n as usize;
    let results: Vec<u64> =
        pool.install(|| (0..n).into_par_iter().with_max_len(1).map(|task| next(task as u64)).collect());
    check_pool(stage, &results, start)
}

pub fn pools() -> Vec<Contestant> {
    vec![
        Contestant::single("two threads over crossbeam-channel", Reference, two_threads).fixed(100_000),
        Contestant::single("rayon (threads)", Reference, rayon_tasks).fixed(100_000),
    ]
}
