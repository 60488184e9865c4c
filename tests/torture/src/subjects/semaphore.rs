//! The semaphore: one with permits, and an empty one to wait at.

use super::effects;
use crate::operation::{Acts, Check, Deed, Subject, duplicated, lost};
use crate::step::{begin, end};
use shmkit::{BoundedSemaphore, Segment, Semaphore};
use std::time::Duration;

pub struct Permits {
    some: Semaphore,
    none: Semaphore,
    bounded: BoundedSemaphore,
}

const SOME: u32 = 3;

/// Judges a count, and brings it to what it should be.
fn settle(semaphore: &Semaphore, least: u32, most: u32, after: u32) -> Check {
    let value = semaphore.value();
    if value < least {
        return lost(format!("{value} permits of {least}"));
    }
    if value > most {
        return duplicated(format!("{value} permits of {most}"));
    }
    for _ in value..after {
        semaphore.release()?;
    }
    for _ in after..value {
        semaphore.try_acquire()?.forget();
    }
    Ok(())
}

impl Subject for Permits {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Permits {
            some: segment.semaphore("some").initial(SOME).create()?,
            none: segment.semaphore("none").initial(0).create()?,
            bounded: segment.bounded_semaphore("bounded").initial(SOME).create()?,
        })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Permits {
            some: segment.semaphore("some").open()?,
            none: segment.semaphore("none").open()?,
            bounded: segment.bounded_semaphore("bounded").open()?,
        })
    }

    fn release(&self, _: &[Deed]) -> Check<Option<Deed>> {
        self.none.release()?;
        Ok(Some(Deed::of_harness("release", Vec::new())))
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        let taken = effects(deeds, &["acquire"]);
        let passed = effects(deeds, &["acquire and release"]);
        // Permits have no owner: those of the dead are gone.
        let least = SOME - taken.1 as u32 - (passed.1 - passed.0) as u32;
        settle(&self.some, least, SOME - taken.0 as u32, SOME)?;
        let taken = effects(deeds, &["acquire bounded"]);
        let passed = effects(deeds, &["release bounded"]);
        let least = SOME - taken.1 as u32 - (passed.1 - passed.0) as u32;
        settle(&self.bounded, least, SOME - taken.0 as u32, SOME)?;
        if self.bounded.release().is_ok() {
            return duplicated("more permits than there are");
        }
        let given = effects(deeds, &["release"]);
        let waited = effects(deeds, &["waiter"]);
        settle(&self.none, (given.0 - waited.0) as u32, (given.1 - waited.1) as u32, 0)
    }

    fn exercise(&self, _: &Segment) -> Check {
        let all = [(); SOME as usize].map(|()| self.some.try_acquire());
        for permit in all {
            drop(permit?);
        }
        self.none.release()?;
        self.none.acquire_timeout(Duration::from_secs(10))?.forget();
        settle(&self.some, SOME, SOME, SOME)
    }
}

pub fn acts() -> Acts<Permits> {
    Acts::<Permits>::new()
        .act("acquire", |actor| {
            begin();
            actor.some.acquire()?.forget();
            end();
            Ok(())
        })
        .act("acquire and release", |actor| {
            begin();
            drop(actor.some.acquire()?);
            end();
            Ok(())
        })
        .act("release", |actor| {
            begin();
            actor.none.release()?;
            end();
            Ok(())
        })
        .while_waiting(|permits, _| {
            permits.none.acquire()?.forget();
            Ok(())
        })
        .act("acquire bounded", |actor| {
            begin();
            actor.bounded.acquire()?.forget();
            end();
            Ok(())
        })
        .act("release bounded", |actor| {
            actor.bounded.acquire()?.forget();
            begin();
            actor.bounded.release()?;
            end();
            Ok(())
        })
        .act("acquire in vain", |actor| {
            begin();
            let _ = actor.none.acquire_timeout(Duration::from_micros(300));
            end();
            Ok(())
        })
        .alone()
}
