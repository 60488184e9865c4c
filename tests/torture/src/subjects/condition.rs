//! The condition: somebody waits for a flag, whoever sets it may die on the way.

use super::repaired;
use crate::operation::{Acts, Check, Deed, Scene, Subject, corrupt};
use crate::step::{begin, end, forked, state};
use nix::unistd::Pid;
use shmkit::sync::ConditionGuard;
use shmkit::{Condition, Error, Event, Segment, SyncError, Value};
use std::time::Duration;

pub struct Flag {
    condition: Condition,
    /// Never set.
    idle: Event,
    flag: Value<u64>,
}

impl Flag {
    fn lock(&self) -> Check<(ConditionGuard<'_>, bool)> {
        repaired(self.condition.lock(), |_| ())
    }
}

impl Subject for Flag {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Flag {
            condition: segment.condition("condition").create()?,
            idle: segment.event("idle").create()?,
            flag: segment.value("flag").create()?,
        })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Flag {
            condition: segment.condition("condition").open()?,
            idle: segment.event("idle").open()?,
            flag: segment.value("flag").open()?,
        })
    }

    fn release(&self, _: &[Deed]) -> Check<Option<Deed>> {
        let (_guard, was_told) = self.lock()?;
        // Who died with the lock may have had to notify; who released it has done so.
        if was_told || self.flag.load() == 0 {
            self.flag.store(1);
            self.condition.notify_all()?;
        }
        Ok(None)
    }

    fn notice(&self) -> Check {
        self.idle.wait_timeout(Duration::from_millis(60))?;
        Ok(())
    }

    fn audit(&self, _: &Segment, _: &[Deed]) -> Check {
        let _guard = self.lock()?;
        self.flag.store(0);
        match self.condition.waiting() {
            0 => Ok(()),
            waiting => corrupt(format!("{waiting} wait, and nobody lives who could")),
        }
    }

    fn exercise(&self, _: &Segment) -> Check {
        let _guard = self.lock()?;
        if self.condition.notify_all()? != 0 || self.condition.wait_timeout(Duration::from_micros(1))? {
            return corrupt("somebody waits, or notifies");
        }
        Ok(())
    }
}

/// Waits for the flag, whatever becomes of the others.
fn waits(flag: &Flag, _: &Scene) -> Check {
    waited(flag).map(drop)
}

/// The same, and tells the next one.
fn waits_and_tells(flag: &Flag) -> Check {
    let _guard = waited(flag)?;
    flag.condition.notify(1)?;
    Ok(())
}

fn waited(flag: &Flag) -> Check<ConditionGuard<'_>> {
    let (guard, _) = flag.lock()?;
    while flag.flag.load() == 0 {
        match flag.condition.wait() {
            // The lock is held again in both cases.
            Ok(()) | Err(Error::Sync(SyncError::OwnerDied)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(guard)
}

/// Notifies one when two wait and the parent, stepped or not, sleeps, so that it is always in the same place. Not if
/// the parent is gone before that: it is not killed with it, since with the lock in its hands it would have everybody notified.
fn notifies_two(name: &str, parent: Pid) -> Check {
    let is_orphan = || nix::unistd::getppid() != parent;
    if is_orphan() {
        return Ok(());
    }
    let flag = Flag::open(&Segment::open(name)?)?;
    loop {
        let guard = flag.lock()?;
        if is_orphan() {
            return Ok(());
        }
        if flag.condition.waiting() >= 2 && state(parent) == Some('S') {
            flag.flag.store(1);
            flag.condition.notify(1)?;
            return Ok(());
        }
        drop(guard);
        flag.idle.wait_timeout(Duration::from_millis(1))?;
    }
}

pub fn acts() -> Acts<Flag> {
    Acts::<Flag>::new()
        .act("notify", |actor| {
            let _guard = actor.lock()?;
            actor.flag.store(1);
            begin();
            actor.condition.notify(1)?;
            end();
            Ok(())
        })
        .while_waiting(waits)
        .act("set and notify", |actor| {
            begin();
            let guard = actor.lock()?;
            actor.flag.store(1);
            actor.condition.notify(1)?;
            drop(guard);
            end();
            Ok(())
        })
        .while_waiting(waits)
        .act("notify all", |actor| {
            let _guard = actor.lock()?;
            actor.flag.store(1);
            begin();
            actor.condition.notify_all()?;
            end();
            Ok(())
        })
        .while_waiting(waits)
        // One of two who wait is notified. If that one dies, the other is.
        .act("be notified", |actor| {
            let name = actor.scene.name.clone();
            let parent = nix::unistd::getpid();
            forked(move || notifies_two(&name, parent).map_or(1, |()| 0));
            begin();
            waits_and_tells(&actor)?;
            end();
            Ok(())
        })
        .while_waiting(|flag, _| {
            // Behind the victim, if that comes so far.
            for _ in 0..100 {
                if flag.condition.waiting() > 0 {
                    break;
                }
                flag.idle.wait_timeout(Duration::from_millis(1))?;
            }
            waits_and_tells(flag)
        })
        .with_others()
        .alone()
        .act("wait in vain", |actor| {
            let _guard = actor.lock()?;
            begin();
            actor.condition.wait_timeout(Duration::from_micros(300))?;
            end();
            Ok(())
        })
        .alone()
}
