//! What is true of messages, however they travel: judged by their values.
//!
//! Every producer numbers its messages, so that each value says whose it is. A consumer writes down what it has received, as
//! its last step before its act ends.

use crate::operation::{Actor, Acts, Check, Deed, HARNESS, Subject, corrupt, duplicated, lost};
use crate::step::{begin, end};
use shmkit::{Event, Segment};
use std::collections::BTreeMap;
use std::time::Duration;

/// A channel of numbers.
pub trait Channel: Sized + 'static {
    /// A new one.
    fn create(segment: &Segment, name: &str, capacity: usize) -> shmkit::Result<Self>;
    /// One that is there.
    fn open(segment: &Segment, name: &str) -> shmkit::Result<Self>;
    /// Waits for room.
    fn put(&self, value: u64) -> shmkit::Result<()>;
    /// Waits for a message.
    fn get(&self) -> shmkit::Result<u64>;
    /// The next message and, where that can be known, how often it was delivered before.
    fn try_get(&self) -> Check<Option<(u64, Option<u32>)>>;
    /// Waits in vain.
    fn get_timeout(&self, timeout: Duration) -> shmkit::Result<u64>;
    /// Whether it keeps memory for those who have held it.
    fn may_grow() -> bool {
        false
    }
    /// Looks whether something has not come back, of an empty one.
    fn check(&self) -> Check {
        Ok(())
    }
}

/// Three of them: with some messages, without one, and full; and something to wait for in vain.
pub struct Channels<C> {
    idle: Event,
    pub some: C,
    pub empty: C,
    pub full: C,
}

/// What is in `some` at first.
const SOME: [u64; 3] = [1, 2, 3];
/// What is in `full` at first: as much as there is room for.
const FULL: [u64; 2] = [11, 12];

/// The value of the `k`th message of somebody.
pub fn value(id: u64, k: u64) -> u64 {
    id * 100 + k
}

/// What an act does to messages.
struct Effect {
    puts: u64,
    takes: usize,
    /// It has them still when it ends.
    holds: bool,
    /// It had them before it began.
    had: bool,
    /// It lets others see that somebody had one.
    returns: bool,
}

fn effect(act: &str) -> Effect {
    let nothing = Effect { puts: 0, takes: 0, holds: false, had: false, returns: false };
    match act {
        "put" | "commit" | "put to a waiter" | "wait for room" => Effect { puts: 1, ..nothing },
        "put many" => Effect { puts: 3, ..nothing },
        "get" | "get into" | "get at most" | "get from full" | "waiter gets" => Effect { takes: 1, ..nothing },
        "get many" => Effect { takes: 2, ..nothing },
        "receive" => Effect { takes: 1, holds: true, ..nothing },
        "give back" => Effect { returns: true, ..nothing },
        "finish" => Effect { puts: 1, takes: 1, had: true, ..nothing },
        "release" | "task done" => Effect { takes: 1, had: true, ..nothing },
        _ => nothing,
    }
}

/// Judges what is left against what was done.
fn judge(got: &[(u64, Option<u32>)], deeds: &[Deed]) -> Check {
    let mut sure: Vec<u64> = SOME.into_iter().chain(FULL).collect();
    let mut possible = sure.clone();
    let (mut consumed, mut held, mut slack) = (Vec::new(), Vec::new(), 0);
    let mut has_takers = false;
    for deed in deeds {
        let effect = effect(deed.act);
        let puts = (1..=effect.puts).map(|k| value(deed.id, k));
        possible.extend(puts.clone());
        if deed.is_done {
            sure.extend(puts);
        }
        has_takers |= effect.takes > 0 || effect.returns;
        if deed.is_done && !effect.holds {
            consumed.extend(&deed.notes);
        } else if effect.holds || effect.had {
            held.extend(deed.notes.iter().map(|&note| (note, effect.had)));
        } else {
            consumed.extend(&deed.notes);
            slack += effect.takes.saturating_sub(deed.notes.len());
        }
        if !deed.is_done && deed.notes.is_empty() && (effect.holds || !deed.has_begun) {
            slack += if effect.holds { 0 } else { effect.takes };
        }
    }
    let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for &(value, redelivered) in got {
        if !possible.contains(&value) {
            return corrupt(format!("message {value}, which nobody has committed"));
        }
        *counts.entry(value).or_default() += 1;
        if counts[&value] > 1 {
            return duplicated(format!("message {value} comes twice"));
        }
        if consumed.contains(&value) {
            return duplicated(format!("message {value} was received before"));
        }
        let was_held = held.iter().any(|&(held, _)| held == value);
        match redelivered {
            Some(0) if was_held => return corrupt(format!("message {value} comes again and does not say so")),
            Some(1..) if !has_takers => return corrupt(format!("message {value} says that somebody had it")),
            Some(0) => {
                // Of one producer and channel they come in order.
                let producer = value / 10;
                if last.insert(producer, value).is_some_and(|before| before > value) {
                    return corrupt(format!("message {value} comes too late"));
                }
            }
            _ => {}
        }
    }
    for &value in sure.iter().filter(|value| !counts.contains_key(value) && !consumed.contains(value)) {
        match held.iter().find(|&&(held, _)| held == value) {
            // It was being given back.
            Some(&(_, true)) => {}
            _ if slack > 0 && held.iter().all(|&(held, _)| held != value) => slack -= 1,
            _ => return lost(format!("message {value}; there are {got:?} after {deeds:?}")),
        }
    }
    Ok(())
}

impl<C: Channel> Channels<C> {
    /// Takes all there is out of all three.
    fn drain(&self) -> Check<Vec<(u64, Option<u32>)>> {
        let mut got = Vec::new();
        for channel in [&self.some, &self.empty, &self.full] {
            while let Some(message) = channel.try_get()? {
                got.push(message);
            }
            channel.check()?;
        }
        Ok(got)
    }

    fn fill(&self) -> shmkit::Result<()> {
        SOME.into_iter().try_for_each(|value| self.some.put(value))?;
        FULL.into_iter().try_for_each(|value| self.full.put(value))
    }
}

impl<C: Channel> Subject for Channels<C> {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        let channels = Channels {
            idle: segment.event("idle").create()?,
            some: C::create(segment, "some", 12)?,
            empty: C::create(segment, "empty", 4)?,
            full: C::create(segment, "full", FULL.len())?,
        };
        channels.fill()?;
        Ok(channels)
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        let open = |name| C::open(segment, name);
        let idle = segment.event("idle").open()?;
        Ok(Channels { idle, some: open("some")?, empty: open("empty")?, full: open("full")? })
    }

    fn release(&self, deeds: &[Deed]) -> Check<Option<Deed>> {
        if deeds.iter().any(|deed| deed.act == "finish") {
            // Whoever waits until all is done goes on once what the dead one had is done.
            let got = self.empty.try_get()?.map(|(value, _)| value);
            return Ok(Some(Deed::of_harness("get", got.into_iter().collect())));
        }
        if deeds.iter().any(|deed| deed.act == "get from full") {
            let got = self.full.try_get()?.map(|(value, _)| value);
            return Ok(Some(Deed::of_harness("get", got.into_iter().collect())));
        }
        self.empty.put(value(HARNESS, 1))?;
        Ok(Some(Deed::of_harness("put", Vec::new())))
    }

    fn notice(&self) -> Check {
        // Longer than the first slice of a sleep, at whose end one looks for the dead.
        self.idle.wait_timeout(Duration::from_millis(60))?;
        Ok(())
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        // What the waiter does is the other half of the victim's act.
        let waiter =
            match deeds.iter().find_map(|deed| ["put to a waiter", "finish"].iter().position(|act| deed.act == *act)) {
                Some(0) => "waiter gets",
                Some(_) => "waiter joins",
                None => "wait for room",
            };
        let renamed = |deed: &Deed| Deed { act: if deed.act == "waiter" { waiter } else { deed.act }, ..deed.clone() };
        judge(&self.drain()?, &deeds.iter().map(renamed).collect::<Vec<_>>())?;
        Ok(self.fill()?)
    }

    fn may_grow() -> bool {
        C::may_grow()
    }

    fn exercise(&self, _: &Segment) -> Check {
        judge(&self.drain()?, &[])?;
        self.fill()?;
        self.empty.put(77)?;
        if self.empty.get()? != 77 {
            return corrupt("another message than the one that was put");
        }
        Ok(())
    }
}

/// What can be done with every channel.
pub fn acts<C: Channel>() -> Acts<Channels<C>> {
    Acts::<Channels<C>>::new()
        .act("put", |actor| {
            let value = value(actor.scene.id(), 1);
            begin();
            actor.some.put(value)?;
            end();
            Ok(())
        })
        .act("get", |actor: Actor<Channels<C>>| {
            begin();
            let value = actor.some.get()?;
            actor.scene.note(value);
            end();
            Ok(())
        })
        .act("put to a waiter", |actor| {
            let value = value(actor.scene.id(), 1);
            begin();
            actor.empty.put(value)?;
            end();
            Ok(())
        })
        .while_waiting(|channels, scene| {
            scene.note(channels.empty.get()?);
            Ok(())
        })
        .act("get from full", |actor| {
            begin();
            let value = actor.full.get()?;
            actor.scene.note(value);
            end();
            Ok(())
        })
        .while_waiting(|channels, scene| Ok(channels.full.put(value(scene.id(), 1))?))
        .alone()
        .act("get in vain", |actor| {
            begin();
            let nothing = actor.empty.get_timeout(Duration::from_micros(300));
            end();
            if nothing.is_ok() { corrupt("a message of nobody") } else { Ok(()) }
        })
        .alone()
}
