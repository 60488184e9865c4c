//! The event: one that is not set, to set and to wait for, and one that is, to clear.

use super::effects;
use crate::operation::{Acts, Check, Deed, Subject, corrupt, lost};
use crate::step::{begin, end};
use shmkit::{Event, Segment};
use std::time::Duration;

pub struct Events {
    unset: Event,
    set: Event,
}

impl Subject for Events {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        let events = Events { unset: segment.event("unset").create()?, set: segment.event("set").create()? };
        events.set.set();
        Ok(events)
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Events { unset: segment.event("unset").open()?, set: segment.event("set").open()? })
    }

    fn release(&self, deeds: &[Deed]) -> Check<Option<Deed>> {
        // A waiter has to notice what is set without being told again.
        if !self.unset.is_set() {
            if deeds.iter().any(|deed| deed.act == "set" && deed.is_done) {
                return lost("it was set");
            }
            self.unset.set();
        }
        Ok(None)
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        let waited = deeds.iter().any(|deed| deed.act == "waiter");
        let (least, most) = effects(deeds, &["set"]);
        match self.unset.is_set() {
            false if least > 0 => return lost("it was set"),
            true if most == 0 && !waited => return corrupt("nobody has set it"),
            _ => self.unset.clear(),
        }
        let (least, most) = effects(deeds, &["clear"]);
        match self.set.is_set() {
            true if least > 0 => lost("it was cleared"),
            false if most == 0 => corrupt("nobody has cleared it"),
            _ => {
                self.set.set();
                Ok(())
            }
        }
    }

    fn exercise(&self, _: &Segment) -> Check {
        self.set.wait()?;
        self.set.clear();
        if self.set.wait_timeout(Duration::from_micros(1))? || self.unset.is_set() {
            return corrupt("it is set");
        }
        self.set.set();
        Ok(())
    }
}

pub fn acts() -> Acts<Events> {
    Acts::<Events>::new()
        .act("set", |actor| {
            begin();
            actor.unset.set();
            end();
            Ok(())
        })
        .while_waiting(|events, _| Ok(events.unset.wait()?))
        .act("clear", |actor| {
            begin();
            actor.set.clear();
            end();
            Ok(())
        })
        .act("wait for any", |actor| {
            begin();
            let ready = shmkit::sync::wait_any(&[&actor.unset, &actor.set], None)?;
            end();
            if ready.contains(&1) { Ok(()) } else { corrupt("what is set is not ready") }
        })
        .alone()
        .act("wait", |actor| {
            begin();
            actor.set.wait()?;
            end();
            Ok(())
        })
        .alone()
        .act("wait in vain", |actor| {
            begin();
            actor.unset.wait_timeout(Duration::from_micros(300))?;
            end();
            Ok(())
        })
        .alone()
}
