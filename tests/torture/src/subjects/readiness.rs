//! Waiting by descriptors and in tokio's tasks. A thread of the victim's looks after the objects for it and dies with it.

use super::messages::value;
use crate::operation::{Acts, Check, Deed, HARNESS, Subject, corrupt, duplicated, leaked, lost};
use crate::step::{begin, end};
use shmkit::sync::{Async, Readiness, wait_any};
use shmkit::{ChannelError, Error, Event, PermitSemaphore, Queue, Segment};
use std::future::Future;
use std::time::Duration;

pub struct Watched {
    unset: Event,
    set: Event,
    permits: PermitSemaphore,
    some: Queue<u64>,
    empty: Queue<u64>,
}

const SOME: u64 = 1;

fn runtime() -> Check<tokio::runtime::Runtime> {
    match tokio::runtime::Builder::new_current_thread().enable_io().build() {
        Ok(runtime) => Ok(runtime),
        Err(error) => corrupt(error.to_string()),
    }
}

fn done<R>(runtime: &tokio::runtime::Runtime, task: impl Future<Output = shmkit::Result<R>>) -> Check<R> {
    Ok(runtime.block_on(task)?)
}

impl Watched {
    fn drain(&self) -> Check<Vec<u64>> {
        let mut all = Vec::new();
        for queue in [&self.some, &self.empty] {
            loop {
                match queue.try_get() {
                    Ok(value) => all.push(value),
                    Err(Error::Channel(ChannelError::Empty { .. })) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(all)
    }
}

impl Subject for Watched {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        let watched = Watched {
            unset: segment.event("unset").create()?,
            set: segment.event("set").create()?,
            permits: segment.permit_semaphore("permits").permits(1).create()?,
            some: segment.queue("some").capacity(4).create()?,
            empty: segment.queue("empty").capacity(4).create()?,
        };
        watched.set.set();
        watched.some.put(SOME)?;
        Ok(watched)
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Watched {
            unset: segment.event("unset").open()?,
            set: segment.event("set").open()?,
            permits: segment.permit_semaphore("permits").open()?,
            some: segment.queue("some").open()?,
            empty: segment.queue("empty").open()?,
        })
    }

    fn notice(&self) -> Check {
        self.unset.wait_timeout(Duration::from_millis(60))?;
        Ok(())
    }

    fn release(&self, _: &[Deed]) -> Check<Option<Deed>> {
        // The wake that the dead one's thread may have eaten must come to who waits beside it.
        self.empty.put(value(HARNESS, 1))?;
        Ok(Some(Deed::of_harness("put", Vec::new())))
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        if self.permits.acquire_timeout(Duration::from_secs(10)).is_err() || self.permits.value() != 1 {
            return leaked("the permit of a dead one");
        }
        let received: Vec<u64> = deeds.iter().flat_map(|deed| deed.notes.iter().copied()).collect();
        let there: Vec<u64> = received.iter().copied().chain(self.drain()?).collect();
        let mut sure = vec![SOME];
        sure.extend(deeds.iter().any(|deed| deed.act == "put").then(|| value(HARNESS, 1)));
        let slack = deeds.iter().filter(|deed| deed.act == "await message" && !deed.is_done).count();
        if let Some(value) = there.iter().find(|value| there.iter().filter(|other| other == value).count() > 1) {
            return duplicated(format!("message {value}: {there:?}"));
        }
        if sure.iter().filter(|value| !there.contains(value)).count() > slack {
            return lost(format!("{there:?} of {sure:?}"));
        }
        if there.iter().any(|value| !sure.contains(value)) || self.unset.is_set() || !self.set.is_set() {
            return corrupt(format!("{there:?} of {sure:?}"));
        }
        Ok(self.some.put(SOME)?)
    }

    fn may_grow() -> bool {
        true
    }

    fn exercise(&self, _: &Segment) -> Check {
        if wait_any(&[&self.unset, &self.empty, &self.some, &self.set], None)? != [2, 3] {
            return corrupt("another object is ready");
        }
        Ok(())
    }
}

/// Waits for the only message beside the victim, who wants it, too, or only looks.
fn gets(watched: &Watched, scene: &crate::operation::Scene) -> Check {
    scene.note(watched.empty.get()?);
    Ok(())
}

pub fn acts() -> Acts<Watched> {
    Acts::<Watched>::new()
        .act("watch", |actor| {
            begin();
            let readiness = Readiness::new(&actor.set)?;
            readiness.rearm()?;
            drop(readiness);
            end();
            Ok(())
        })
        .with_threads()
        .alone()
        .act("watch in vain", |actor| {
            begin();
            let readiness = Readiness::new(&actor.empty)?;
            readiness.rearm()?;
            end();
            drop(readiness);
            Ok(())
        })
        .while_waiting(gets)
        .with_threads()
        .alone()
        .act("wait for a descriptor and objects", |actor| {
            let Ok((reader, _writer)) = std::io::pipe() else { return corrupt("no pipe") };
            begin();
            let ready = wait_any(&[&reader, &actor.unset, &actor.empty], Some(Duration::from_micros(300)))?;
            end();
            if ready.is_empty() { Ok(()) } else { corrupt(format!("{ready:?} is ready")) }
        })
        .while_waiting(gets)
        .with_threads()
        .alone()
        .act("await permit", |actor| {
            let (runtime, permits) = (runtime()?, actor.permits.clone());
            begin();
            let waiting = {
                let _inside = runtime.enter();
                Async::new(permits)?
            };
            let permit = done(&runtime, waiting.acquire())?;
            end();
            drop(permit);
            Ok(())
        })
        .with_threads()
        .alone()
        .act("await message", |actor| {
            let (runtime, some) = (runtime()?, actor.some.clone());
            begin();
            let waiting = {
                let _inside = runtime.enter();
                Async::new(some)?
            };
            let value = done(&runtime, waiting.get())?;
            actor.scene.note(value);
            end();
            Ok(())
        })
        .with_threads()
        .alone()
        .act("await event", |actor| {
            let (runtime, set) = (runtime()?, actor.set.clone());
            begin();
            let waiting = {
                let _inside = runtime.enter();
                Async::new(set)?
            };
            done(&runtime, waiting.wait())?;
            end();
            Ok(())
        })
        .with_threads()
        .alone()
}
