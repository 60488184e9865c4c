//! The block heap: extents of 256-byte units, one word a unit, no intent record.
//!
//! ```text
//! unit word   generation:24 | own:12 | st:2 {FREE, HELD, COMMITTED} | len:26       only heads count; words inside an
//!                                                                                  extent are stale and always FREE
//! alloc   under the heap lock: walk the heads; two FREE neighbours → one store joins them; a fit → the remainder's head
//!         first, then HELD by me (the commit)
//! grow    fallocate; write the new head; then publish `committed`
//! free    one CAS {generation, …} → {generation + 1, FREE}; no lock
//! trim    under the heap lock: trimmed = 1; the whole pages of each FREE extent lose their memory. From then on, who
//!         allocates an extent that has such pages backs them first
//! ```
//! A HELD extent belongs to a participant and is freed at its death; a COMMITTED one belongs to an object. Whoever wants
//! to keep what a dead one held commits it before the sweep. Model: `mc_extent`.

use super::attachment::{Attachment, atomic};
use crate::error::{Result, SegmentError, corrupt};
use crate::sys::{memory, shm};
use shmkit_layouts::segment::UNIT_SIZE;
use shmkit_layouts::words::{ExtentRef, UNIT_COMMITTED, UNIT_FREE, UNIT_HELD, Unit};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

/// What memory is given and taken in.
const PAGE: u64 = 4096;

/// A piece of the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// How it is named in shared words.
    pub reference: ExtentRef,
    /// Bytes from the start of the segment.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Attachment {
    /// Allocates at least `len` bytes, HELD by this process. The bytes are whatever was there.
    pub(crate) fn allocate(&self, len: u64) -> Result<Extent> {
        let slot = self.token()?.slot();
        let units = len.div_ceil(UNIT_SIZE).max(1);
        if units > self.geometry.heap_units_max.min(Unit::MAX_LEN) {
            let free = self.geometry.heap_units_max.saturating_mul(UNIT_SIZE);
            let hint = "it is larger than the segment can grow: create it with a larger `max_size`";
            return Err(SegmentError::OutOfMemory { needed: len, free, hint }.into());
        }
        let lock = atomic!(self.header(), heap_lock);
        let found = self.with_lock(lock, "heap", || {
            let hint = u64::from(atomic!(self.header(), heap_hint).load(Ordering::Relaxed));
            if hint != 0
                && let Some(extent) = self.walk(hint, units as u32, slot)?
            {
                return Ok(extent);
            }
            loop {
                if let Some(extent) = self.walk(0, units as u32, slot)? {
                    return Ok(extent);
                }
                self.grow(units)?;
            }
        })?;
        // Relaxed: what was trimmed before the extent was found was trimmed under the same lock.
        if atomic!(self.header(), trimmed).load(Ordering::Relaxed) != 0
            && let Err(error) = self.back_again(&found)
        {
            self.free_extent(found.reference.pack());
            return Err(error);
        }
        Ok(found)
    }

    /// Backs what a trim took away from an extent.
    #[cold]
    fn back_again(&self, extent: &Extent) -> Result<()> {
        let start = extent.offset & !(PAGE - 1);
        let end = (extent.offset + extent.len).next_multiple_of(PAGE);
        if shm::has_hole(self.map.fd(), start, end)? { self.back(start, end - start) } else { Ok(()) }
    }

    /// Gives the memory of free extents back to the system; bytes of whole pages that have none any more.
    pub(crate) fn trim(&self) -> Result<u64> {
        let lock = atomic!(self.header(), heap_lock);
        self.with_lock(lock, "heap", || {
            let committed = self.committed();
            // Before the first page goes, and for good: a death on the way leaves pages that are backed again when they are needed.
            atomic!(self.header(), trimmed).store(1, Ordering::Release);
            failpoint!("heap.trimming");
            let (mut at, mut run, mut given) = (0, 0, 0);
            while at < committed {
                let seen = self.unit_word(at).load(Ordering::Acquire);
                let head = Unit::unpack(seen);
                let next = at + u64::from(head.len);
                if head.len == 0 || next > committed || head.state > UNIT_COMMITTED {
                    return Err(corrupt("heap unit", self.geometry.units + at * 8, seen));
                }
                // Free neighbours are one run: nobody else allocates under the lock.
                if head.state != UNIT_FREE {
                    given += self.punch(run, at)?;
                    run = next;
                }
                at = next;
            }
            Ok(given + self.punch(run, committed)?)
        })
    }

    /// Takes the memory of the whole pages between two units away.
    fn punch(&self, from: u64, to: u64) -> Result<u64> {
        let start = (self.geometry.heap + from * UNIT_SIZE).next_multiple_of(PAGE);
        let end = (self.geometry.heap + to * UNIT_SIZE) & !(PAGE - 1);
        if start >= end {
            return Ok(0);
        }
        shm::punch(self.map.fd(), start, end - start)?;
        failpoint!("heap.trimmed");
        Ok(end - start)
    }

    /// First fit from the head `from` on. Under the heap lock.
    fn walk(&self, from: u64, units: u32, slot: u32) -> Result<Option<Extent>> {
        let committed = self.committed();
        let hint = atomic!(self.header(), heap_hint);
        let mut at = from;
        while at < committed {
            let word = self.unit_word(at);
            // Acquire pairs with the release of a free: what its last owner wrote is done.
            let seen = word.load(Ordering::Acquire);
            let mut head = Unit::unpack(seen);
            let next = at + u64::from(head.len);
            if head.len == 0 || next > committed || head.state > UNIT_COMMITTED {
                return Err(corrupt("heap unit", self.geometry.units + at * 8, seen));
            }
            if head.state != UNIT_FREE {
                at = next;
                continue;
            }
            if next < committed {
                let after = Unit::unpack(self.unit_word(next).load(Ordering::Acquire));
                let joined = u64::from(head.len) + u64::from(after.len);
                if after.state == UNIT_FREE
                    && after.len > 0
                    && joined <= Unit::MAX_LEN
                    && next + u64::from(after.len) <= committed
                {
                    if u64::from(hint.load(Ordering::Relaxed)) == next {
                        hint.store(at as u32, Ordering::Relaxed);
                    }
                    head.len = joined as u32;
                    word.store(head.pack(), Ordering::Release);
                    failpoint!("heap.joined");
                    continue;
                }
            }
            if head.len < units {
                at = next;
                continue;
            }
            if head.len > units {
                let rest = at + u64::from(units);
                let rest_word = self.unit_word(rest);
                // Generations belong to the unit, not to the extent: they never go back.
                let generation = Unit::unpack(rest_word.load(Ordering::Relaxed)).generation;
                let rest_head = Unit { state: UNIT_FREE, owner: 0, len: head.len - units, generation };
                rest_word.store(rest_head.pack(), Ordering::Release);
                failpoint!("heap.split");
            }
            let mine = Unit { state: UNIT_HELD, owner: slot, len: units, generation: head.generation };
            word.store(mine.pack(), Ordering::Release);
            failpoint!("heap.held");
            if head.len > units {
                // Release: not before the store above. Until that, the rest is no head, and whoever starts there after my death
                // would give out what lies inside a free extent.
                hint.store((at + u64::from(units)) as u32, Ordering::Release);
                failpoint!("heap.hinted");
            }
            atomic!(self.header(), units_used).fetch_add(u64::from(units), Ordering::Relaxed);
            return Ok(Some(self.extent(at, mine)));
        }
        Ok(None)
    }

    fn extent(&self, unit: u64, word: Unit) -> Extent {
        Extent {
            reference: ExtentRef { unit: unit as u32, generation: word.generation },
            offset: self.geometry.heap + unit * UNIT_SIZE,
            len: u64::from(word.len) * UNIT_SIZE,
        }
    }

    /// Backs more units with memory. Under the heap lock; idempotent until `committed` is published.
    fn grow(&self, units: u64) -> Result<()> {
        // What one allocation may have to wait for: the kernel clears a MiB in half a millisecond or more.
        const STEP: u64 = (512 << 10) / UNIT_SIZE;
        let committed = self.committed();
        let room = self.geometry.heap_units_max - committed;
        if room < units {
            let hint =
                "the segment cannot grow further: create it with a larger `max_size`, or drop what is not needed";
            return Err(SegmentError::OutOfMemory { needed: units * UNIT_SIZE, free: room * UNIT_SIZE, hint }.into());
        }
        // Page by page at first, then in ever larger steps: a small segment stays small.
        let page = 4096 / UNIT_SIZE;
        let step = units.max(committed.clamp(page, STEP)).next_multiple_of(page).min(room);
        let first = self.geometry.heap + committed * UNIT_SIZE;
        let backed =
            self.back(first, step * UNIT_SIZE).and_then(|()| self.back(self.geometry.units + committed * 8, step * 8));
        let step = match backed {
            Ok(()) => step,
            Err(error) if step == units => return Err(error),
            Err(_) => {
                self.back(first, units * UNIT_SIZE)?;
                self.back(self.geometry.units + committed * 8, units * 8)?;
                units
            }
        };
        failpoint!("heap.backed");
        let mut at = committed;
        while at < committed + step {
            let len = (committed + step - at).min(Unit::MAX_LEN);
            let word = self.unit_word(at);
            let generation = Unit::unpack(word.load(Ordering::Relaxed)).generation;
            let head = Unit { state: UNIT_FREE, owner: 0, len: len as u32, generation };
            word.store(head.pack(), Ordering::Relaxed);
            at += len;
        }
        failpoint!("heap.grown");
        // Release pairs with the acquire in `committed`: the new heads are written.
        atomic!(self.header(), committed).store(committed + step, Ordering::Release);
        Ok(())
    }

    /// Backs bytes of the file with memory, or says how much there is.
    pub(crate) fn back(&self, offset: u64, len: u64) -> Result<()> {
        let file = self.file()?;
        let here = shm::free_space(file.as_fd());
        let cgroup = memory::cgroup_free();
        let out = |free, hint| Err(SegmentError::OutOfMemory { needed: len, free, hint }.into());
        if let Some(free) = here.filter(|&free| free < len) {
            return out(
                free,
                "/dev/shm is full: remove segments (`shmkit ls`, `shmkit gc`) or enlarge it (`mount -o remount,size=…`, `docker run --shm-size=…`)",
            );
        }
        if let Some(free) = cgroup.filter(|&free| free < len) {
            return out(free, "the memory limit of the control group is reached: raise `memory.max` or use less");
        }
        if shm::back(file.as_fd(), offset, len)? {
            return Ok(());
        }
        out(here.unwrap_or(0), "the system has no memory left for it")
    }

    /// The extent a shared word names, if it is still the one that was meant.
    pub(crate) fn find_extent(&self, reference: u64, what: &'static str) -> Result<Extent> {
        let Some(found) = ExtentRef::unpack(reference) else { return Err(SegmentError::Gone.into()) };
        let unit = u64::from(found.unit);
        let committed = self.committed();
        if unit >= committed {
            return Err(corrupt(what, self.geometry.units + unit * 8, reference));
        }
        let word = self.unit_word(unit).load(Ordering::Acquire);
        let head = Unit::unpack(word);
        if head.generation != found.generation || head.state == UNIT_FREE {
            return Err(SegmentError::Gone.into());
        }
        if head.len == 0 || unit + u64::from(head.len) > committed {
            return Err(corrupt(what, self.geometry.units + unit * 8, word));
        }
        Ok(self.extent(unit, head))
    }

    /// Gives an extent that this process (or the dead owner in `slot`) holds to an object. Idempotent.
    pub(crate) fn commit_extent(&self, reference: u64, slot: u32) {
        self.change_extent(reference, |head| {
            (head.state == UNIT_HELD && head.owner == slot).then_some(Unit { state: UNIT_COMMITTED, owner: 0, ..head })
        });
    }

    /// Gives an extent that a dead owner held to the object that names it: for those who know that no living one can hold it.
    /// Idempotent.
    pub(crate) fn keep_extent(&self, reference: u64) {
        self.change_extent(reference, |head| {
            (head.state == UNIT_HELD).then_some(Unit { state: UNIT_COMMITTED, owner: 0, ..head })
        });
    }

    /// Takes an extent of an object that is being destroyed for the participant in `slot`: freed at its death. Idempotent.
    pub(crate) fn hold_extent(&self, reference: u64, slot: u32) {
        self.change_extent(reference, |head| {
            (head.state != UNIT_FREE).then_some(Unit { state: UNIT_HELD, owner: slot, ..head })
        });
    }

    /// Takes back an extent of an object that only this process can reach: the reverse of [`Attachment::commit_extent`].
    pub(crate) fn free_extent(&self, reference: u64) {
        self.change_extent(reference, |head| (head.state != UNIT_FREE).then_some(freed(head)));
    }

    fn change_extent(&self, reference: u64, change: impl Fn(Unit) -> Option<Unit>) {
        let Some(found) = ExtentRef::unpack(reference) else { return };
        if u64::from(found.unit) >= self.committed() {
            return;
        }
        let word = self.unit_word(u64::from(found.unit));
        let mut seen = word.load(Ordering::Acquire);
        loop {
            let head = Unit::unpack(seen);
            if head.generation != found.generation {
                return;
            }
            let Some(next) = change(head) else { return };
            // AcqRel: what was written to the extent is done before it is somebody else's.
            match word.compare_exchange(seen, next.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    if next.state == UNIT_FREE {
                        atomic!(self.header(), units_used).fetch_sub(u64::from(head.len), Ordering::Relaxed);
                    }
                    return;
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Recovery: frees every extent that the dead participant in `slot` held.
    ///
    /// From head to head, without the lock: what the dead one held stays a head until it is freed here, so others' joining and
    /// splitting of free extents on the way cannot hide it. A position that is reached was a head at that moment, and the
    /// length in its word was true then or later.
    pub(crate) fn sweep(&self, slot: u32) {
        let committed = self.committed();
        let mut unit = 0;
        while unit < committed {
            let word = self.unit_word(unit);
            let seen = word.load(Ordering::Acquire);
            let head = Unit::unpack(seen);
            if head.state == UNIT_HELD
                && head.owner == slot
                && word.compare_exchange(seen, freed(head).pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                atomic!(self.header(), units_used).fetch_sub(u64::from(head.len), Ordering::Relaxed);
                failpoint!("recover.swept");
            }
            // A length of 0 was scribbled: then every unit may be a head.
            unit += u64::from(head.len).max(1);
        }
    }

    /// Bytes in use and bytes backed, by a scan of the heads; for tools and tests. Not exact while others allocate.
    pub(crate) fn heap_usage(&self) -> Result<(u64, u64)> {
        let committed = self.committed();
        let lock = atomic!(self.header(), heap_lock);
        self.with_lock(lock, "heap", || {
            let (mut at, mut used) = (0, 0);
            while at < committed {
                let word = self.unit_word(at).load(Ordering::Acquire);
                let head = Unit::unpack(word);
                if head.len == 0 || at + u64::from(head.len) > committed {
                    return Err(corrupt("heap unit", self.geometry.units + at * 8, word));
                }
                if head.state != UNIT_FREE {
                    used += u64::from(head.len);
                }
                at += u64::from(head.len);
            }
            Ok((used * UNIT_SIZE, committed * UNIT_SIZE))
        })
    }
}

fn freed(head: Unit) -> Unit {
    Unit { state: UNIT_FREE, owner: 0, len: head.len, generation: head.generation.wrapping_add(1) & 0xFF_FFFF }
}
