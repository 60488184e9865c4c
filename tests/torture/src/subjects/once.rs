//! Run-once work.

use crate::operation::{Acts, Check, Deed, Subject, corrupt, lost};
use crate::step::{begin, end};
use shmkit::{Error, Once, Segment, Value};

pub struct Work {
    once: Once,
    result: Value<u64>,
}

impl Work {
    fn call(&self) -> Check<bool> {
        Ok(self.once.call(|| self.result.store(7))?)
    }
}

impl Subject for Work {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Work { once: segment.once("once").create()?, result: segment.value("result").create()? })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Work { once: segment.once("once").open()?, result: segment.value("result").open()? })
    }

    fn release(&self, _: &[Deed]) -> Check<Option<Deed>> {
        self.call()?;
        Ok(None)
    }

    fn glance(&self, _: &Deed) -> Check {
        if self.once.is_done() && self.result.load() != 7 { corrupt("it is done, and is not") } else { Ok(()) }
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        let was_done = self.once.is_done();
        if !was_done && deeds.iter().any(|deed| deed.act == "call" && deed.is_done) {
            return lost("it was done");
        }
        if self.call()? == was_done || self.result.load() != 7 || !self.once.is_done() {
            return corrupt("it is done once more, or not at all");
        }
        Ok(())
    }

    fn exercise(&self, _: &Segment) -> Check {
        self.once.wait()?;
        if self.call()? { corrupt("it is done once more") } else { Ok(()) }
    }
}

pub fn acts() -> Acts<Work> {
    Acts::<Work>::new()
        .act("call", |actor| {
            begin();
            actor.call()?;
            end();
            Ok(())
        })
        .while_waiting(|work, _| Ok(work.once.wait()?))
        .act("fail", |actor| {
            begin();
            let failed = actor.once.try_call(|_| Err(Error::Other("it fails".to_owned())));
            end();
            if failed.is_err() || actor.once.is_done() { Ok(()) } else { corrupt("it has not failed") }
        })
}
