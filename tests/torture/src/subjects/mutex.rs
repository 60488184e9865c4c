//! The mutex. Its data says who is inside, and counts twice: two counts that differ were left by a death.

use super::{dies, effects};
use crate::grid::belongings::LOCK;
use crate::operation::{Acts, Check, Deed, Subject, corrupt, duplicated, lost};
use crate::step::{begin, end};
use shmkit::sync::MutexGuard;
use shmkit::{Error, LockError, Mutex, Segment, SyncError};
use std::hint::black_box;
use std::time::Duration;

/// Who is inside; the two counts.
type Data = [u64; 3];

pub struct Mutexed {
    mutex: Mutex<Data>,
}

/// Takes the lock, repairs what a dead owner left, and says whether there was one.
fn settle<'a>(
    taken: Result<MutexGuard<'a, Data>, LockError<MutexGuard<'a, Data>>>,
) -> Check<(MutexGuard<'a, Data>, bool)> {
    match taken {
        Ok(guard) if guard[0] != 0 => corrupt(format!("the lock is free although {} is inside", guard[0])),
        Ok(guard) if guard[1] != guard[2] => corrupt(format!("nobody said that the owner died: {:?}", *guard)),
        Ok(guard) => Ok((guard, false)),
        Err(dead @ LockError::OwnerDied(_)) => {
            let guard = dead.repair(|data| {
                let count = data[1].max(data[2]);
                **data = [0, count, count];
            })?;
            Ok((guard, true))
        }
        Err(LockError::Failed(error)) => Err(error.into()),
    }
}

impl Mutexed {
    fn take(&self) -> Check<MutexGuard<'_, Data>> {
        Ok(settle(self.mutex.lock())?.0)
    }
}

/// What an owner does. Each store is made, in this order.
fn count(guard: &mut MutexGuard<'_, Data>, id: u64) {
    guard[0] = id;
    black_box(&mut **guard)[1] += 1;
    black_box(&mut **guard)[2] += 1;
    black_box(&mut **guard)[0] = 0;
}

impl Subject for Mutexed {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Mutexed { mutex: segment.mutex("mutex").create()? })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Mutexed { mutex: segment.mutex("mutex").open()? })
    }

    fn glance(&self, stopped: &Deed) -> Check {
        let is_owner = stopped.belongings.count("mutex", LOCK) > 0;
        let robbed = |data: &Data| is_owner || data[0] == stopped.id;
        match self.mutex.try_lock() {
            Ok(guard) if robbed(&guard) => corrupt("a stopped owner was robbed"),
            Err(LockError::OwnerDied(dead)) => {
                let mut is_robbed = false;
                drop(dead.repair(|data| {
                    is_robbed = robbed(data);
                    let count = data[1].max(data[2]);
                    **data = [0, count, count];
                }));
                if is_robbed { corrupt("a stopped owner was taken for dead") } else { Ok(()) }
            }
            Ok(_) | Err(LockError::Failed(Error::Sync(SyncError::WouldBlock { .. }))) => Ok(()),
            Err(LockError::Failed(error)) => Err(error.into()),
        }
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        let (mut guard, was_told) = settle(self.mutex.lock())?;
        let holds = |deed: &Deed| deed.act == "lock" && deed.is_done;
        if deeds.iter().any(holds) && deeds.len() == 1 && !was_told {
            return corrupt("nobody said that the owner died");
        }
        // What `unlock` unlocks was counted before.
        let (mut least, most) = effects(deeds, &["count", "waiter", "unlock", "repair"]);
        least += deeds.iter().filter(|deed| deed.act == "unlock" && deed.has_begun && !deed.is_done).count() as u64;
        if guard[1] < least {
            return lost(format!("{} counts of {least}", guard[1]));
        }
        if guard[1] > most {
            return duplicated(format!("{} counts of {most}", guard[1]));
        }
        *guard = [0; 3];
        Ok(())
    }

    fn exercise(&self, _: &Segment) -> Check {
        for _ in 0..2 {
            let (mut guard, was_told) = settle(self.mutex.lock_timeout(Duration::from_secs(10)))?;
            if was_told {
                return corrupt("the lock says twice that its owner died");
            }
            count(&mut guard, 9);
        }
        self.take()?[..].fill(0);
        Ok(())
    }
}

pub fn acts() -> Acts<Mutexed> {
    fn waits(subject: &Mutexed, scene: &crate::operation::Scene) -> Check {
        count(&mut subject.take()?, scene.id());
        Ok(())
    }
    Acts::<Mutexed>::new()
        .act("lock", |actor| {
            begin();
            let _guard = actor.take()?;
            end();
            Ok(())
        })
        .act("unlock", |actor| {
            let mut guard = actor.take()?;
            count(&mut guard, actor.scene.id());
            begin();
            drop(guard);
            end();
            Ok(())
        })
        .while_waiting(waits)
        .act("count", |actor| {
            begin();
            count(&mut actor.take()?, actor.scene.id());
            end();
            Ok(())
        })
        .while_waiting(waits)
        .act("repair", |actor| {
            let name = actor.scene.name.clone();
            dies(move || {
                std::mem::forget(settle(Mutexed::open(&Segment::open(&name)?)?.mutex.lock())?.0);
                Ok(())
            });
            begin();
            count(&mut actor.take()?, actor.scene.id());
            end();
            Ok(())
        })
        .with_others()
        .alone()
        .act("try lock", |actor| {
            begin();
            let taken = settle(actor.mutex.try_lock());
            end();
            drop(taken);
            Ok(())
        })
}
