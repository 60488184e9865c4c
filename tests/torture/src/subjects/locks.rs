//! The locks without data: what they guard are two values beside them, who is inside and how often somebody was.

use super::{effects, repaired};
use crate::grid::belongings::LOCK;
use crate::operation::{Acts, Check, Deed, Subject, corrupt, duplicated, lost};
use crate::step::{begin, end};
use shmkit::sync::{LockGuard, RLockGuard};
use shmkit::{Lock, RLock, Segment, Value};

pub struct Locks {
    lock: Lock,
    rlock: RLock,
    /// Who is inside each of them.
    inside: [Value<u64>; 2],
    count: Value<u64>,
}

impl Locks {
    fn lock(&self) -> Check<(LockGuard<'_>, bool)> {
        let taken = repaired(self.lock.lock(), |_| self.inside[0].store(0))?;
        self.expect_nobody(0).map(|()| taken)
    }

    fn rlock(&self) -> Check<(RLockGuard<'_>, bool)> {
        let taken = repaired(self.rlock.lock(), |_| self.inside[1].store(0))?;
        self.expect_nobody(1).map(|()| taken)
    }

    fn expect_nobody(&self, which: usize) -> Check {
        match self.inside[which].load() {
            0 => Ok(()),
            id => corrupt(format!("the lock is free although {id} is inside")),
        }
    }

    /// What an owner does.
    fn count(&self, which: usize, id: u64) {
        self.inside[which].store(id);
        self.count.fetch_add(1);
        self.inside[which].store(0);
    }
}

impl Subject for Locks {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Locks {
            lock: segment.lock("lock").create()?,
            rlock: segment.rlock("rlock").create()?,
            inside: [segment.value("inside").create()?, segment.value("inside too").create()?],
            count: segment.value("count").create()?,
        })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Locks {
            lock: segment.lock("lock").open()?,
            rlock: segment.rlock("rlock").open()?,
            inside: [segment.value("inside").open()?, segment.value("inside too").open()?],
            count: segment.value("count").open()?,
        })
    }

    fn glance(&self, stopped: &Deed) -> Check {
        let is_owner = ["lock", "rlock"].map(|name| stopped.belongings.count(name, LOCK) > 0);
        let was_inside = [0, 1].map(|which| is_owner[which] || self.inside[which].load() == stopped.id);
        // What a dead owner left is mended.
        let lock = repaired(self.lock.try_lock(), |_| self.inside[0].store(0));
        let rlock = repaired(self.rlock.try_lock(), |_| self.inside[1].store(0));
        if was_inside[0] && lock.is_ok() || was_inside[1] && rlock.is_ok() {
            return corrupt("a stopped owner was robbed");
        }
        Ok(())
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        drop(self.lock()?);
        drop(self.rlock()?);
        if self.lock.is_locked() || self.rlock.is_locked() {
            return corrupt("it is locked after it was released");
        }
        let (mut least, most) = effects(deeds, &["count", "recount", "release", "release one", "waiter"]);
        let counted = |deed: &&Deed| deed.act.starts_with("release") && deed.has_begun && !deed.is_done;
        least += deeds.iter().filter(counted).count() as u64;
        match self.count.swap(0) {
            count if count < least => lost(format!("{count} counts of {least}")),
            count if count > most => duplicated(format!("{count} counts of {most}")),
            _ => Ok(()),
        }
    }

    fn exercise(&self, _: &Segment) -> Check {
        let (outer, was_told) = self.rlock()?;
        let inner = self.rlock.lock().map_err(shmkit::Error::from)?;
        let (lock, was_told_too) = self.lock()?;
        if was_told || was_told_too {
            return corrupt("the lock says twice that its owner died");
        }
        drop((lock, inner, outer));
        Ok(())
    }
}

pub fn acts() -> Acts<Locks> {
    Acts::<Locks>::new()
        .act("lock", |actor| {
            begin();
            let _guard = actor.lock()?;
            end();
            Ok(())
        })
        .act("count", |actor| {
            begin();
            let guard = actor.lock()?;
            actor.count(0, actor.scene.id());
            drop(guard);
            end();
            Ok(())
        })
        .act("acquire", |actor| {
            begin();
            actor.lock.acquire()?;
            end();
            Ok(())
        })
        .act("release", |actor| {
            actor.lock.acquire()?;
            actor.inside[0].store(0);
            actor.count(0, actor.scene.id());
            begin();
            actor.lock.release()?;
            end();
            Ok(())
        })
        .while_waiting(|locks, scene| {
            let _guard = locks.lock()?;
            locks.count(0, scene.id());
            Ok(())
        })
        .act("rlock", |actor| {
            begin();
            let _guard = actor.rlock()?;
            end();
            Ok(())
        })
        .act("recount", |actor| {
            begin();
            let outer = actor.rlock()?;
            let inner = actor.rlock.lock().map_err(shmkit::Error::from)?;
            actor.count(1, actor.scene.id());
            drop((inner, outer));
            end();
            Ok(())
        })
        .while_waiting(|locks, scene| {
            let _guard = locks.rlock()?;
            locks.count(1, scene.id());
            Ok(())
        })
        .act("release one", |actor| {
            let outer = actor.rlock()?;
            let inner = actor.rlock.lock().map_err(shmkit::Error::from)?;
            actor.count(1, actor.scene.id());
            begin();
            drop(inner);
            end();
            drop(outer);
            Ok(())
        })
}
