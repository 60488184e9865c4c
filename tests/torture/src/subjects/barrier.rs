//! The barrier: of two parties, one of which dies; and of one, which anybody can pass.

use crate::operation::{Acts, Check, Deed, Scene, Subject, corrupt, eventually, lost};
use crate::step::{begin, end};
use shmkit::{Barrier, Segment, Value};
use std::time::Duration;

pub struct Barriers {
    two: Barrier,
    one: Barrier,
    /// 1 when whoever waits has come back.
    is_back: Value<u64>,
}

impl Subject for Barriers {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Barriers {
            two: segment.barrier("two").parties(2).create()?,
            one: segment.barrier("one").parties(1).create()?,
            is_back: segment.value("is back").create()?,
        })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Barriers {
            two: segment.barrier("two").open()?,
            one: segment.barrier("one").open()?,
            is_back: segment.value("is back").open()?,
        })
    }

    fn release(&self, deeds: &[Deed]) -> Check<Option<Deed>> {
        // Where one has passed, the other does, too, if nobody breaks it until he has looked.
        if deeds.iter().any(passed) {
            return Ok(None);
        }
        // One who died inside has broken it. Only who waits all alone, for one who died on his way there, needs help.
        let settled = || self.two.is_broken() || self.is_back.load() != 0 || self.two.n_waiting() == 1;
        if eventually(settled) && self.two.n_waiting() == 1 {
            self.two.abort();
        }
        Ok(None)
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        let waiter = deeds.iter().find(|deed| deed.act == "waiter");
        if deeds.iter().any(passed) && waiter.is_some_and(|waiter| waiter.notes != [1]) {
            return lost("one party passed, the other was told that it is broken");
        }
        self.is_back.store(0);
        self.two.reset();
        self.one.reset();
        if self.two.is_broken() || self.two.n_waiting() != 0 {
            return corrupt("it cannot be reset");
        }
        self.exercise_one()
    }

    fn exercise(&self, _: &Segment) -> Check {
        self.exercise_one()
    }
}

/// Waits with the victim, and notes whether it has passed.
fn waits(barriers: &Barriers, scene: &Scene) -> Check {
    scene.note(u64::from(barriers.two.wait().is_ok()));
    barriers.is_back.store(1);
    Ok(())
}

fn passed(deed: &Deed) -> bool {
    ["pass", "pass with an action"].contains(&deed.act) && deed.is_done
}

impl Barriers {
    fn exercise_one(&self) -> Check {
        if self.one.wait()? == 0 { Ok(()) } else { corrupt("another party than the only one") }
    }
}

pub fn acts() -> Acts<Barriers> {
    Acts::<Barriers>::new()
        .act("pass", |actor| {
            begin();
            actor.two.wait()?;
            end();
            Ok(())
        })
        .while_waiting(waits)
        .alone()
        .act("pass with an action", |actor| {
            begin();
            actor.two.wait_with(|| Ok(()))?;
            end();
            Ok(())
        })
        .while_waiting(waits)
        .alone()
        .act("pass alone", |actor| {
            begin();
            actor.one.wait()?;
            end();
            Ok(())
        })
        .alone()
        .act("pass in vain", |actor| {
            begin();
            let _ = actor.two.wait_timeout(Duration::from_micros(300));
            end();
            Ok(())
        })
        .while_waiting(waits)
        .alone()
        .act("abort", |actor| {
            begin();
            actor.two.abort();
            end();
            Ok(())
        })
        .while_waiting(waits)
        .act("reset", |actor| {
            actor.two.abort();
            begin();
            actor.two.reset();
            end();
            Ok(())
        })
}
