//! Looking whether a segment is sound: every unit of the heap accounted for, every claim a living participant's.
//!
//! What is checked, in a segment where nobody is in the middle of something:
//!
//! * the heads of the heap cover what is backed, without gap or overlap;
//! * a HELD extent belongs to a living participant; a COMMITTED one to exactly one object, or it has leaked;
//! * in containers: every block of a slab is reachable or in its free list, and nothing is reachable twice;
//! * each LIVE object has a body of its kind, and somebody who keeps it alive; BUILD and DYING ones have a living owner.

use super::attachment::{Attachment, atomic};
use crate::error::{Result, corrupt};
use crate::kinds;
use shmkit_layouts::segment::*;
use shmkit_layouts::words::{UNIT_COMMITTED, UNIT_HELD, Unit};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

impl Attachment {
    /// Recovers the dead, then checks everything. The first thing that cannot be is the error.
    pub(crate) fn verify(&self) -> Result<()> {
        // Whether there is all of it.
        self.file()?;
        self.recover_dead_now();
        // The containers first: what the dead ones left in them is repaired now.
        for index in 0..self.objects_high() {
            self.check_contents(index)?;
        }
        let mut committed = self.check_heap()?;
        for index in 0..self.objects_high() {
            self.check_entry(index, &mut committed)?;
        }
        match committed.first_key_value() {
            Some((&unit, word)) => Err(corrupt("leaked extent", self.geometry.units + unit * 8, word.pack())),
            None => Ok(()),
        }
    }

    /// The COMMITTED extents by their first units, after checking that the heads cover the heap.
    fn check_heap(&self) -> Result<BTreeMap<u64, Unit>> {
        let mut found = BTreeMap::new();
        let lock = atomic!(self.header(), heap_lock);
        self.with_lock(lock, "heap", || {
            let backed = self.committed();
            let mut at = 0;
            while at < backed {
                let word = self.unit_word(at).load(Ordering::Acquire);
                let head = Unit::unpack(word);
                let wrong = |what| Err(corrupt(what, self.geometry.units + at * 8, word));
                if head.len == 0 || at + u64::from(head.len) > backed || head.state > UNIT_COMMITTED {
                    return wrong("heap unit");
                }
                if head.state == UNIT_HELD && self.is_vacant(head.owner) {
                    return wrong("extent held by nobody");
                }
                if head.state == UNIT_COMMITTED {
                    found.insert(at, head);
                }
                at += u64::from(head.len);
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn check_contents(&self, index: u32) -> Result<()> {
        let entry = self.entry(index);
        if self.state(index).state != ENTRY_LIVE {
            return Ok(());
        }
        let Some(ops) = kinds::find(atomic!(entry, kind).load(Ordering::Relaxed)) else { return Ok(()) };
        let body = self.find_extent(atomic!(entry, body).load(Ordering::Acquire), "object body")?;
        (ops.verify)(self, &body)
    }

    /// Whether no living participant has the slot.
    fn is_vacant(&self, slot: u32) -> bool {
        slot >= self.geometry.max_participants
            || atomic!(self.participant(slot), state).load(Ordering::Acquire) == STATE_FREE
            || self.is_slot_dead(slot)
    }

    fn check_entry(&self, index: u32, committed: &mut BTreeMap<u64, Unit>) -> Result<()> {
        let seen = self.state(index);
        let entry = self.entry(index);
        let wrong = |what| Err(corrupt(what, self.geometry.objects + u64::from(index) * 128, seen.pack()));
        match seen.state {
            ENTRY_FREE => return Ok(()),
            ENTRY_LIVE => {}
            ENTRY_BUILD | ENTRY_DYING if !self.is_vacant(seen.owner) => return Ok(()),
            ENTRY_BUILD | ENTRY_DYING => return wrong("object left half-made"),
            _ => return wrong("object entry"),
        }
        let kind = atomic!(entry, kind).load(Ordering::Relaxed);
        let Some(ops) = kinds::find(kind) else { return wrong("object's kind") };
        if !self.any_cell(index, |cell| self.is_valid(cell)) {
            return wrong("object nobody holds");
        }
        let reference = atomic!(entry, body).load(Ordering::Acquire);
        let body = self.find_extent(reference, "object body")?;
        let mut twice = committed.remove(&u64::from(body.reference.unit)).is_none();
        let mut claim = |reference: u64, what| -> Result<()> {
            let extent = self.find_extent(reference, what)?;
            twice |= committed.remove(&u64::from(extent.reference.unit)).is_none();
            Ok(())
        };
        let mut outcome = Ok(());
        self.chunks(index, |reference, _| {
            outcome = claim(reference, "reference chunk");
            outcome.is_err()
        });
        outcome?;
        let mut outcome = Ok(());
        (ops.extents)(self, &body, &mut |reference| {
            if outcome.is_ok() {
                outcome = claim(reference, "extent of an object");
            }
        });
        outcome?;
        if twice { wrong("extent that two objects have, or none") } else { Ok(()) }
    }
}
