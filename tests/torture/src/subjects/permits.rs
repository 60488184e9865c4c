//! The semaphore whose permits have owners: whoever dies, all of them are there.

use crate::grid::belongings::PERMITS;
use crate::operation::{Acts, Check, Deed, Subject, corrupt, leaked};
use crate::step::{begin, end};
use shmkit::{PermitSemaphore, Segment};
use std::time::Duration;

pub struct Owned {
    some: PermitSemaphore,
    one: PermitSemaphore,
}

const SOME: u32 = 3;

impl Owned {
    /// Takes all there are, each within the time in which a death must have been noticed.
    fn take_all(&self) -> Check {
        let all = [(); SOME as usize].map(|()| self.some.acquire_timeout(Duration::from_secs(10)));
        let count = all.iter().filter(|permit| permit.is_ok()).count();
        if count < SOME as usize || self.some.try_acquire().is_ok() {
            return leaked(format!("{count} permits of {SOME}"));
        }
        drop(self.one.acquire_timeout(Duration::from_secs(10))?);
        Ok(())
    }
}

impl Subject for Owned {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Owned {
            some: segment.permit_semaphore("some").permits(SOME).create()?,
            one: segment.permit_semaphore("one").permits(1).create()?,
        })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Owned { some: segment.permit_semaphore("some").open()?, one: segment.permit_semaphore("one").open()? })
    }

    fn glance(&self, stopped: &Deed) -> Check {
        for (name, semaphore) in [("some", &self.some), ("one", &self.one)] {
            let held = stopped.belongings.count(name, PERMITS) as u32;
            let taken: Vec<_> = std::iter::from_fn(|| semaphore.try_acquire().ok()).collect();
            let count = taken.len() as u32;
            taken.into_iter().for_each(drop);
            if count + held > semaphore.permits() {
                return corrupt(format!(
                    "{count} permits of {name} are free, and {held} are of somebody who is stopped"
                ));
            }
        }
        Ok(())
    }

    fn audit(&self, _: &Segment, _: &[Deed]) -> Check {
        self.take_all()?;
        match (self.some.value(), self.one.value()) {
            (SOME, 1) => Ok(()),
            values => leaked(format!("{values:?} permits")),
        }
    }

    fn exercise(&self, _: &Segment) -> Check {
        self.take_all()
    }
}

pub fn acts() -> Acts<Owned> {
    Acts::<Owned>::new()
        .act("acquire", |actor| {
            begin();
            let _permit = actor.some.acquire()?;
            end();
            Ok(())
        })
        .act("release", |actor| {
            let permit = actor.one.acquire()?;
            begin();
            drop(permit);
            end();
            Ok(())
        })
        .while_waiting(|owned, _| Ok(owned.one.acquire().map(drop)?))
        .act("acquire and release", |actor| {
            begin();
            drop(actor.some.acquire()?);
            end();
            Ok(())
        })
        .act("release forgotten", |actor| {
            actor.some.acquire()?.forget();
            begin();
            actor.some.release()?;
            end();
            Ok(())
        })
        .act("hold on", |actor| {
            let permit = actor.one.acquire()?;
            begin();
            let _ = actor.one.acquire_timeout(Duration::from_micros(300));
            end();
            drop(permit);
            Ok(())
        })
        .while_waiting(|owned, _| Ok(owned.one.acquire().map(drop)?))
        .alone()
}
