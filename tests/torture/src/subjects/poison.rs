//! Locks of which somebody died inside and nobody repaired what they guard: poisoned, until somebody says that they are not.

use super::{dies, repaired};
use crate::operation::{Acts, Check, Deed, Subject, corrupt, lost};
use crate::step::{begin, end};
use shmkit::{Array, Error, LockError, Mutex, RwLock, Segment, SyncError};

pub struct Poisonable {
    mutex: Mutex<u64>,
    rwlock: RwLock<u64>,
    array: Array<u64>,
}

/// Whether it is poisoned; who died meanwhile is repaired.
fn is_poisoned<G: shmkit::sync::Unlocked>(taken: Result<G, LockError<G>>) -> Check<bool> {
    match repaired(taken, |_| {}) {
        Ok(_) => Ok(false),
        Err(fault) if fault.what == Error::from(SyncError::Poisoned).to_string() => Ok(true),
        Err(fault) => Err(fault),
    }
}

impl Poisonable {
    /// Which of them are.
    fn poisoned(&self) -> Check<[bool; 3]> {
        Ok([is_poisoned(self.mutex.lock())?, is_poisoned(self.rwlock.write())?, is_poisoned(self.array.lock())?])
    }

    fn clear(&self) {
        self.mutex.clear_poison();
        self.rwlock.clear_poison();
        self.array.clear_poison();
    }
}

/// Somebody dies in all of the locks.
fn died_inside(name: &str) -> Check {
    let name = name.to_owned();
    dies(move || {
        let locks = Poisonable::open(&Segment::open(&name)?)?;
        let array = repaired(locks.array.lock(), |_| {})?.0;
        let mut array = array;
        array[0] = 7;
        std::mem::forget((repaired(locks.mutex.lock(), |_| {})?.0, repaired(locks.rwlock.write(), |_| {})?.0, array));
        Ok(())
    });
    Ok(())
}

impl Subject for Poisonable {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Poisonable {
            mutex: segment.mutex("mutex").create()?,
            rwlock: segment.rwlock("rwlock").create()?,
            array: segment.array("array").len(2).create()?,
        })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Poisonable {
            mutex: segment.mutex("mutex").open()?,
            rwlock: segment.rwlock("rwlock").open()?,
            array: segment.array("array").open()?,
        })
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        let found = self.poisoned()?;
        let done = |act: &str| deeds.iter().any(|deed| deed.act == act && deed.is_done);
        if done("poison") && found != [true; 3] {
            return lost(format!("nobody has repaired them, and they are not poisoned: {found:?}"));
        }
        if done("clear poison") && found != [false; 3] {
            return lost(format!("they are not poisoned any more: {found:?}"));
        }
        self.clear();
        match self.poisoned()? {
            [false, false, false] => Ok(()),
            found => corrupt(format!("still poisoned: {found:?}")),
        }
    }

    fn exercise(&self, _: &Segment) -> Check {
        match self.poisoned()? {
            [false, false, false] => Ok(()),
            found => corrupt(format!("poisoned by nobody: {found:?}")),
        }
    }
}

pub fn acts() -> Acts<Poisonable> {
    Acts::<Poisonable>::new()
        .act("poison", |actor| {
            died_inside(&actor.scene.name)?;
            let (mutex, rwlock, array) = (actor.mutex.lock(), actor.rwlock.write(), actor.array.lock());
            let told = [
                mutex.as_ref().is_err_and(LockError::is_owner_died),
                rwlock.as_ref().is_err_and(LockError::is_owner_died),
                array.as_ref().is_err_and(LockError::is_owner_died),
            ];
            if told != [true; 3] {
                return corrupt(format!("the next owner is not told: {told:?}"));
            }
            begin();
            drop((mutex, rwlock, array));
            end();
            Ok(())
        })
        .with_others()
        .alone()
        .act("clear poison", |actor| {
            died_inside(&actor.scene.name)?;
            drop((actor.mutex.lock(), actor.rwlock.write(), actor.array.lock()));
            begin();
            actor.clear();
            end();
            Ok(())
        })
        .with_others()
        .alone()
}
