//! The lock of many readers or one writer. Its data says who writes, and counts twice.

use super::{effects, repaired};
use crate::grid::belongings::{LOCK, READERS};
use crate::operation::{Acts, Check, Deed, Subject, corrupt, duplicated, lost};
use crate::step::{begin, end};
use shmkit::sync::{RwLockReadGuard, RwLockWriteGuard};
use shmkit::{LockError, RwLock, Segment};
use std::hint::black_box;

/// Who writes; the two counts.
type Data = [u64; 3];

pub struct Shared {
    lock: RwLock<Data>,
}

fn mend(data: &mut Data) {
    let count = data[1].max(data[2]);
    *data = [0, count, count];
}

fn whole(data: &Data) -> Check {
    match *data {
        [0, left, right] if left == right => Ok(()),
        _ => corrupt(format!("a writer is inside, or died and nobody said so: {data:?}")),
    }
}

impl Shared {
    fn write(&self) -> Check<(RwLockWriteGuard<'_, Data>, bool)> {
        let (guard, was_told) = repaired(self.lock.write(), |guard| mend(guard))?;
        whole(&guard)?;
        Ok((guard, was_told))
    }

    fn read(&self) -> Check<RwLockReadGuard<'_, Data>> {
        let guard = match self.lock.read() {
            Ok(guard) => guard,
            Err(LockError::Failed(error)) => return Err(error.into()),
            Err(dead) => dead.repair(|guard| mend(guard))?.downgrade()?,
        };
        whole(&guard)?;
        Ok(guard)
    }
}

fn count(data: &mut Data, id: u64) {
    data[0] = id;
    black_box(&mut *data)[1] += 1;
    black_box(&mut *data)[2] += 1;
    black_box(&mut *data)[0] = 0;
}

impl Subject for Shared {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Shared { lock: segment.rwlock("rwlock").create()? })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Shared { lock: segment.rwlock("rwlock").open()? })
    }

    fn glance(&self, stopped: &Deed) -> Check {
        let is_inside = [LOCK, READERS].iter().any(|what| stopped.belongings.count("rwlock", what) > 0);
        let robbed = |data: &Data| match is_inside || data[0] == stopped.id {
            true => corrupt("somebody writes while another one is stopped inside"),
            false => Ok(()),
        };
        match self.lock.try_write() {
            Ok(guard) => robbed(&guard),
            Err(LockError::OwnerDied(dead)) => {
                let mut outcome = Ok(());
                drop(dead.repair(|guard| {
                    outcome = robbed(guard);
                    mend(guard);
                }));
                outcome
            }
            Err(LockError::Failed(_)) => Ok(()),
        }
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        drop(self.read()?);
        let (mut guard, _) = self.write()?;
        // Who waits for a reader to leave writes; who waits for a writer only reads.
        let does_waiter_count = deeds.iter().any(|deed| deed.act == "unread");
        let acts = ["count", "unwrite", "downgrade", "waiter"];
        let (mut least, most) = effects(deeds, if does_waiter_count { &acts } else { &acts[..3] });
        let counted = |deed: &&Deed| ["unwrite", "downgrade"].contains(&deed.act) && deed.has_begun && !deed.is_done;
        least += deeds.iter().filter(counted).count() as u64;
        let counted = guard[1];
        guard.fill(0);
        drop(guard);
        if self.lock.readers() != 0 {
            return corrupt("somebody reads after all are gone");
        }
        match counted {
            count if count < least => lost(format!("{count} counts of {least}")),
            count if count > most => duplicated(format!("{count} counts of {most}")),
            _ => Ok(()),
        }
    }

    fn exercise(&self, _: &Segment) -> Check {
        let one = self.read()?;
        drop(one);
        let (mut guard, was_told) = self.write()?;
        count(&mut guard, 9);
        guard.fill(0);
        if was_told { corrupt("the lock says twice that its owner died") } else { Ok(()) }
    }
}

pub fn acts() -> Acts<Shared> {
    fn writes(shared: &Shared, scene: &crate::operation::Scene) -> Check {
        count(&mut shared.write()?.0, scene.id());
        Ok(())
    }
    Acts::<Shared>::new()
        .act("read", |actor| {
            begin();
            let _guard = actor.read()?;
            end();
            Ok(())
        })
        .act("unread", |actor| {
            let guard = actor.read()?;
            begin();
            drop(guard);
            end();
            Ok(())
        })
        .while_waiting(writes)
        .act("write", |actor| {
            begin();
            let _guard = actor.write()?;
            end();
            Ok(())
        })
        .act("unwrite", |actor| {
            let (mut guard, _) = actor.write()?;
            count(&mut guard, actor.scene.id());
            begin();
            drop(guard);
            end();
            Ok(())
        })
        .while_waiting(|shared, _| shared.read().map(drop))
        .act("count", |actor| {
            begin();
            count(&mut actor.write()?.0, actor.scene.id());
            end();
            Ok(())
        })
        .act("downgrade", |actor| {
            let (mut guard, _) = actor.write()?;
            count(&mut guard, actor.scene.id());
            begin();
            let _guard = guard.downgrade()?;
            end();
            Ok(())
        })
}
