//! Pools: a worker that is killed, whose pool goes on; and a pool whose process is killed, with which its workers end.

use super::messages::value;
use crate::operation::{Acts, Check, Deed, Scene, Starts, Subject, corrupt, duplicated, leaked, lost};
use crate::step::{begin, end, is_traced, until_traced, without_random_addresses};
use shmkit::{ChannelError, Error, Event, Pool, Queue, Segment, TaskError};

pub struct Tasks {
    results: Queue<u64>,
}

const CAPACITY: usize = 16;

/// What a task does.
fn work(results: Queue<u64>, value: u64) -> u64 {
    let _ = results.put(value);
    value
}

/// The same, and from then on every instruction of the worker counts.
fn work_from_here(is_here: Event, results: Queue<u64>, value: u64) -> u64 {
    is_here.set();
    until_traced();
    begin();
    work(results, value)
}

/// A worker that was traced has come to its end.
fn work_to_here(results: Queue<u64>, value: u64) -> u64 {
    if is_traced(std::process::id()) {
        end();
    }
    work(results, value)
}

fn drain(results: &Queue<u64>) -> Check<Vec<u64>> {
    let mut found = Vec::new();
    loop {
        match results.try_get() {
            Ok(value) => found.push(value),
            Err(Error::Channel(ChannelError::Empty { .. })) => return Ok(found),
            Err(error) => return Err(error.into()),
        }
    }
}

impl Subject for Tasks {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Tasks { results: segment.queue("results").capacity(CAPACITY).create()? })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Tasks { results: segment.queue("results").open()? })
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        let found = drain(&self.results)?;
        for deed in deeds {
            for k in 1..=3 {
                let expected = value(deed.id, k);
                match found.iter().filter(|&&value| value == expected).count() {
                    0 if deed.is_done && deed.act == "submit and wait" && k == 1 => {
                        return lost("a task that was done");
                    }
                    0 if deed.is_done && deed.act == "map" => return lost("a task that was done"),
                    0 | 1 => {}
                    _ => return duplicated(format!("a task was run twice: {found:?}")),
                }
            }
        }
        let of_deeds = |found: &u64| deeds.iter().any(|deed| (1..=3).any(|k| *found == value(deed.id, k)));
        if found.iter().all(of_deeds) { Ok(()) } else { corrupt(format!("{found:?} of nobody")) }
    }

    fn may_grow() -> bool {
        true
    }

    fn exercise(&self, _: &Segment) -> Check {
        self.results.put(7)?;
        if self.results.get()? == 7 { Ok(()) } else { corrupt("another message than what was put") }
    }
}

/// What a pool's process has, and what its session had in use.
struct Owner {
    session: Segment,
    before: u64,
    results: Queue<u64>,
    id: u64,
}

impl Owner {
    fn new(scene: &Scene) -> Check<Owner> {
        without_random_addresses();
        let segment = Segment::open(&scene.name)?;
        let session = shmkit::session()?;
        let before = session.memory()?.0;
        Ok(Owner { session, before, results: segment.queue("results").open()?, id: scene.id() })
    }

    fn pool(&self) -> shmkit::Result<Pool> {
        Pool::builder().workers(1).max_workers(2).start()
    }

    fn task(&self, k: u64) -> (Queue<u64>, u64) {
        (self.results.clone(), value(self.id, k))
    }

    /// A pool whose worker works.
    fn warm(&self) -> Check<Pool> {
        let pool = self.pool()?;
        pool.apply(|| (), ())?;
        Ok(pool)
    }

    fn check(&self) -> Check {
        self.session.verify()?;
        let after = self.session.memory()?.0;
        if after != self.before || self.session.participants().len() != 1 {
            let (before, participants) = (self.before, self.session.participants());
            return leaked(format!("{after} bytes of the session, {before} before: {participants:?}"));
        }
        Ok(())
    }
}

/// Whether a task was done; its worker may have died.
fn was_done(outcome: shmkit::Result<u64>) -> Check<bool> {
    match outcome {
        Ok(_) => Ok(true),
        Err(Error::Task(TaskError::WorkerDied { .. })) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Owns a pool whose worker is killed between two of its tasks, in either of them, or nowhere.
fn employ(scene: &Scene) -> Check {
    let owner = Owner::new(scene)?;
    begin();
    let (pool, is_here) = (owner.pool()?, Event::new()?);
    let mut tasks = [
        pool.apply_async(work_from_here, (is_here.clone(), owner.results.clone(), value(owner.id, 1))),
        pool.apply_async(work_to_here, owner.task(2)),
    ];
    is_here.wait()?;
    pool.worker_pids().iter().for_each(|&worker| scene.note(u64::from(worker)));
    let [first, second] = &mut tasks;
    let done = [was_done(first.get())?, was_done(second.get())?];
    // The next worker has its place.
    pool.apply(work, owner.task(3))?;
    drop((tasks, pool, is_here));
    let found = drain(&owner.results)?;
    for (k, done) in (1..).zip([done[0], done[1], true]) {
        match found.iter().filter(|&&found| found == value(owner.id, k)).count() {
            0 if done => return lost(format!("task {k} was done: {found:?}")),
            0 | 1 => {}
            _ => return duplicated(format!("task {k} was run twice: {found:?}")),
        }
    }
    owner.check()?;
    end();
    Ok(())
}

pub fn acts() -> Acts<Tasks> {
    Acts::<Tasks>::new()
        .launcher("worker", Starts::Named, |scene| employ(&scene))
        .bare("start a pool", |scene| {
            let owner = Owner::new(&scene)?;
            begin();
            let pool = owner.pool()?;
            end();
            drop(pool);
            Ok(())
        })
        .with_children()
        .alone()
        .bare("submit and wait", |scene| {
            let owner = Owner::new(&scene)?;
            let (pool, task) = (owner.warm()?, owner.task(1));
            begin();
            pool.apply(work, task)?;
            end();
            Ok(())
        })
        .with_children()
        .alone()
        .bare("map", |scene| {
            let owner = Owner::new(&scene)?;
            let (pool, tasks) = (owner.warm()?, [1, 2, 3].map(|k| owner.task(k)));
            begin();
            pool.starmap(work, tasks)?;
            end();
            Ok(())
        })
        .with_children()
        .alone()
        .bare("map lazily", |scene| {
            let owner = Owner::new(&scene)?;
            let pool = owner.warm()?;
            begin();
            let mut sum = 0;
            for result in pool.imap(|n: u64| n, [1u64, 2, 3]) {
                sum += result?;
            }
            end();
            if sum == 6 { Ok(()) } else { corrupt(format!("a sum of {sum}")) }
        })
        .with_children()
        .alone()
        .bare("resize", |scene| {
            let owner = Owner::new(&scene)?;
            let pool = owner.warm()?;
            begin();
            pool.resize(2)?;
            pool.resize(1)?;
            end();
            Ok(())
        })
        .with_children()
        .alone()
        .bare("close and join", |scene| {
            let owner = Owner::new(&scene)?;
            let pool = owner.warm()?;
            begin();
            pool.close();
            pool.join()?;
            drop(pool);
            owner.check()?;
            end();
            Ok(())
        })
        .with_children()
        .alone()
        .bare("terminate", |scene| {
            let owner = Owner::new(&scene)?;
            let pool = owner.warm()?;
            begin();
            pool.terminate();
            drop(pool);
            owner.check()?;
            end();
            Ok(())
        })
        .with_children()
        .alone()
}
