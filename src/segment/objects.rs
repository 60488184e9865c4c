//! The table of objects: create-or-open by name, and what keeps an object alive.
//!
//! ```text
//! entry   version:32 | own:12 | st:4 {FREE, BUILD, LIVE, DYING}
//!
//! create   under the directory lock: no LIVE or BUILD entry has the name; take a FREE entry: name, then BUILD by me;
//!          unlock; build the body in an extent HELD by me; add my reference; entry LIVE (the commit); commit the extent
//! open     LIVE, name equal, word unchanged; then add a reference as below          (no lock)
//! ```
//! What keeps an object alive is a set of reference cells, never a count: a cell names its holder's incarnation, so the
//! holder's death invalidates it by one store that happens anyway.
//!
//! ```text
//! add      CAS an invalid cell → mine; THEN CAS entry {LIVE, ver} → {LIVE, ver + 1}; only THEN may the reference it was
//!          copied from go away
//! check    LIVE and no valid cell: CAS → {DYING, me} (fails if anybody added); destroy; → {FREE}
//! drop     cell = 0; check
//! ```
//! Models: `mc_dir`, `mc_refs`.

use super::attachment::{Attachment, atomic, locked_unforked};
use super::heap::Extent;
use super::wait::{self, Deadline};
use crate::error::{Result, SegmentError, corrupt};
use crate::kinds;
use shmkit_layouts::segment::*;
use shmkit_layouts::words::{CELL_BLOCK, CELL_NAME, CELL_NONE, CELL_PROCESS, Cell, Entry};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// State of an entry whose word nobody of ours can have written.
const ENTRY_SCRIBBLED: u32 = u32::MAX;

/// A name of an object: 1 to 63 bytes of UTF-8, padded with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name([u64; 8]);

impl Name {
    const NONE: Name = Name([0; 8]);

    /// No name, or one that is being taken away: a name has no NUL, so its first word is not 0.
    fn is_none(self) -> bool {
        self.0[0] == 0
    }

    pub(crate) fn new(name: &str) -> Result<Name> {
        let invalid = |why| Err(SegmentError::InvalidName { name: name.to_owned(), why }.into());
        if name.is_empty() || name.len() > 63 {
            return invalid("a name has 1 to 63 bytes");
        }
        if name.contains(['\0', '/']) {
            return invalid("a name holds neither '/' nor NUL");
        }
        let mut bytes = [0u8; 64];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let mut words = [0; 8];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().expect("8 bytes"));
        }
        Ok(Name(words))
    }

    fn load(words: &[AtomicU64; 8]) -> Name {
        // Relaxed: the caller holds the directory lock, or fences and looks at the entry again.
        Name(std::array::from_fn(|i| words[i].load(Ordering::Relaxed)))
    }

    /// Word by word, the first one first: half a removal is one.
    fn store(self, words: &[AtomicU64; 8]) {
        for (word, value) in words.iter().zip(self.0) {
            // Release pairs with the acquire fence in `find`: who reads a word of the next name sees that the entry was freed.
            word.store(value, Ordering::Release);
        }
    }

    fn text(self) -> String {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }
}

/// Which object: its entry and the identity of what lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ObjectId {
    pub index: u32,
    pub generation: u32,
}

/// A reference that this process holds to an object. All handles of the process to it in one role share one cell.
#[derive(Debug)]
pub(crate) struct ObjectRef {
    pub(crate) attachment: Arc<Attachment>,
    pub(crate) id: ObjectId,
    pub(crate) role: u32,
    pub(crate) body: Extent,
}

impl Clone for ObjectRef {
    fn clone(&self) -> ObjectRef {
        *locked_unforked(&self.attachment.held).entry((self.id.index, self.id.generation, self.role)).or_insert(0) += 1;
        ObjectRef { attachment: Arc::clone(&self.attachment), ..*self }
    }
}

impl Drop for ObjectRef {
    fn drop(&mut self) {
        self.attachment.let_go(self.id, self.role);
    }
}

impl ObjectRef {
    /// The same object in another role.
    pub(crate) fn in_role(&self, role: u32) -> Result<ObjectRef> {
        self.attachment.adopt(self.id, role)
    }

    /// The name, if it has one.
    pub(crate) fn name(&self) -> Option<String> {
        let name = Name::load(atomic!(self.attachment.entry(self.id.index), name));
        (!name.is_none()).then(|| name.text())
    }

    /// Whether anybody holds the object in one of `roles`. One look for all of them: holders change from one to another.
    pub(crate) fn is_held_as(&self, roles: &[u32]) -> bool {
        // A reference may go from a cell not yet looked at to one that was: who hands it on changes the entry's version between
        // adding the one and clearing the other. He may die before that, and his own recovery may have voided the cell he had it
        // from: it counts deaths between voiding a dead one's cells and clearing them. What never rests was scribbled over, and
        // "cannot tell" is yes.
        let recoveries = atomic!(self.attachment.header(), recoveries);
        for _ in 0..1000 {
            // Acquire: before the looks at the cells.
            let before = (recoveries.load(Ordering::Acquire), self.attachment.state(self.id.index));
            let held = self.attachment.any_cell(self.id.index, |cell| {
                let held = roles.contains(&cell.role) && cell.kind != CELL_NAME && self.attachment.may_be_valid(cell);
                failpoint!("reference.looked");
                held
            });
            // The loads of the cells, and of what makes them void, acquire: who sees one void sees what was counted before.
            if held || (recoveries.load(Ordering::Acquire), self.attachment.state(self.id.index)) == before {
                return held;
            }
        }
        true
    }
}

/// A process that holds the other end of something, as it says itself in the registry: whoever may write to the segment can
/// lie there, and the segment's mode says who may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Process id in its own PID namespace.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Name of the process.
    pub name: String,
}

impl ObjectRef {
    /// Who holds the object in `role`.
    pub(crate) fn peers(&self, role: u32) -> Vec<Peer> {
        let mut peers = Vec::new();
        self.attachment.any_cell(self.id.index, |cell| {
            if cell.role == role && cell.kind == CELL_PROCESS && self.attachment.is_valid(cell) {
                let participant = self.attachment.participant(cell.id);
                peers.push(Peer {
                    pid: atomic!(participant, pid).load(Ordering::Relaxed),
                    uid: atomic!(participant, uid).load(Ordering::Relaxed),
                    name: self.attachment.participant_name(cell.id),
                });
            }
            false
        });
        peers
    }
}

/// What a listing shows of an object.
#[derive(Debug, Clone)]
pub struct ObjectInfo {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its kind.
    pub kind: &'static str,
    /// Bytes of the segment's memory it takes, with all that it holds.
    pub size: u64,
    /// Process ids of its holders.
    pub holders: Vec<u32>,
}

impl Attachment {
    pub(crate) fn entry(&self, index: u32) -> *const ObjectEntry {
        debug_assert!(index < self.geometry.objects_capacity);
        let offset = self.geometry.objects + u64::from(index) * size_of::<ObjectEntry>() as u64;
        self.map.base().wrapping_add(offset as usize).cast()
    }

    /// Entries that are backed by memory.
    pub(crate) fn objects_high(&self) -> u32 {
        // Acquire pairs with the release in `free_entry`.
        atomic!(self.header(), objects_high).load(Ordering::Acquire).min(self.geometry.objects_capacity)
    }

    pub(super) fn state(&self, index: u32) -> Entry {
        // Acquire pairs with the release of every change of the word.
        let word = atomic!(self.entry(index), word).load(Ordering::Acquire);
        let entry = Entry::unpack(word);
        // Bits that nobody sets: no state at all, or a compare-and-swap from the packed word would never succeed.
        if entry.pack() == word { entry } else { Entry { state: ENTRY_SCRIBBLED, ..entry } }
    }

    fn change(&self, index: u32, from: Entry, to: Entry) -> bool {
        // AcqRel pairs with the acquire in `state`: what was written to the entry or its cells before is seen with the new word.
        atomic!(self.entry(index), word)
            .compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    // ---- create and open ----------------------------------------------------------------------------------------------

    /// Opens the object `name`. No lock is taken.
    pub(crate) fn open_object(self: &Arc<Self>, name: &str, kind: u32, role: u32) -> Result<ObjectRef> {
        let wanted = Name::new(name)?;
        self.file()?;
        self.token()?;
        match self.find(wanted, kind, role)? {
            Some(found) => Ok(found),
            None => Err(SegmentError::ObjectNotFound { name: name.to_owned() }.into()),
        }
    }

    fn find(self: &Arc<Self>, wanted: Name, kind: u32, role: u32) -> Result<Option<ObjectRef>> {
        // Each new try is one destruction by somebody else; an entry that never settles was scribbled over.
        'again: for _ in 0..1000 {
            for index in 0..self.objects_high() {
                // Generation, name, then both again: the name is that generation's.
                let generation = atomic!(self.entry(index), generation).load(Ordering::Acquire);
                if self.state(index).state != ENTRY_LIVE || Name::load(atomic!(self.entry(index), name)) != wanted {
                    continue;
                }
                let id = ObjectId { index, generation };
                let found = atomic!(self.entry(index), kind).load(Ordering::Relaxed);
                // Acquire: the looks below come after the name and the kind.
                std::sync::atomic::fence(Ordering::Acquire);
                if self.state(index).state != ENTRY_LIVE
                    || atomic!(self.entry(index), generation).load(Ordering::Acquire) != id.generation
                {
                    continue 'again;
                }
                if found != kind {
                    let (found, wanted_kind) = (kinds::name(found), kinds::name(kind));
                    return Err(SegmentError::WrongKind { name: wanted.text(), found, wanted: wanted_kind }.into());
                }
                match self.adopt(id, role) {
                    Err(crate::Error::Segment(SegmentError::Gone)) => continue 'again,
                    adopted => return adopted.map(Some),
                }
            }
            return Ok(None);
        }
        Err(corrupt("directory", self.geometry.objects, 0))
    }

    /// Creates an object, named or not, of `len` bytes, which `build` fills; before, they are whatever was there.
    ///
    /// With `or_open`, an object of that name that exists is opened instead.
    pub(crate) fn create_object(
        self: &Arc<Self>,
        name: Option<&str>,
        kind: u32,
        role: u32,
        len: u64,
        or_open: bool,
        build: impl FnOnce(&Extent, ObjectId) -> Result<()>,
    ) -> Result<(ObjectRef, bool)> {
        self.file()?;
        let token = self.token()?;
        let slot = token.slot();
        let wanted = name.map(Name::new).transpose()?;
        let lock = atomic!(self.header(), directory_lock);
        let index = loop {
            if let (true, Some(wanted)) = (or_open, wanted)
                && let Some(found) = self.find(wanted, kind, role)?
            {
                return Ok((found, false));
            }
            let claimed = self.with_lock(lock, "directory", || {
                if let Some(wanted) = wanted {
                    for index in 0..self.objects_high() {
                        let seen = self.state(index);
                        if matches!(seen.state, ENTRY_BUILD | ENTRY_LIVE)
                            && Name::load(atomic!(self.entry(index), name)) == wanted
                        {
                            return Ok(Err((index, seen)));
                        }
                    }
                }
                let index = self.free_entry()?;
                failpoint!("object.entry_found");
                // The name is there before the claim: a scan that sees BUILD sees whose it is.
                wanted.unwrap_or(Name::NONE).store(atomic!(self.entry(index), name));
                let free = self.state(index);
                if !self.change(index, free, free.next(ENTRY_BUILD, slot)) {
                    return Err(corrupt("object entry", self.geometry.objects + u64::from(index) * 128, free.pack()));
                }
                failpoint!("object.claimed");
                Ok(Ok(index))
            })?;
            match claimed {
                Ok(index) => break index,
                Err((_, seen)) if seen.state == ENTRY_LIVE && !or_open => {
                    return Err(SegmentError::ObjectExists { name: name.unwrap_or_default().to_owned() }.into());
                }
                Err((_, seen)) if seen.state == ENTRY_LIVE => {}
                Err((index, seen)) => {
                    // Somebody builds it: wait for him, or for the recovery of his death.
                    let event = atomic!(self.header(), directory_event);
                    wait::wait(self, event, Deadline::NEVER, || Ok((self.state(index) != seen).then_some(())))?;
                }
            }
        };
        let building = self.state(index);
        let (id, body) = match self.build_object(index, wanted.is_some(), kind, role, len, build) {
            Ok(built) => built,
            Err(error) => {
                self.change(index, building, building.next(ENTRY_FREE, 0));
                wait::publish_all(atomic!(self.header(), directory_event));
                return Err(error);
            }
        };
        failpoint!("object.before_live");
        if !self.change(index, building, building.next(ENTRY_LIVE, 0)) {
            return Err(corrupt("object entry", self.geometry.objects + u64::from(index) * 128, building.pack()));
        }
        failpoint!("object.live");
        self.commit_extent(body.reference.pack(), slot);
        failpoint!("object.committed");
        locked_unforked(&self.held).insert((id.index, id.generation, role), 1);
        wait::publish_all(atomic!(self.header(), directory_event));
        Ok((ObjectRef { attachment: Arc::clone(self), id, role, body }, true))
    }

    /// The middle of a creation: everything but the word of the entry, which is BUILD by this process.
    fn build_object(
        &self,
        index: u32,
        named: bool,
        kind: u32,
        role: u32,
        len: u64,
        build: impl FnOnce(&Extent, ObjectId) -> Result<()>,
    ) -> Result<(ObjectId, Extent)> {
        let entry = self.entry(index);
        let generation = atomic!(entry, generation).load(Ordering::Relaxed).wrapping_add(1);
        // Release, twice: who reads one of them for the old object's sees in its second look, after the acquire fence in `find`,
        // that the entry is not the old object's any more.
        atomic!(entry, generation).store(generation, Ordering::Release);
        let id = ObjectId { index, generation };
        atomic!(entry, kind).store(kind, Ordering::Release);
        atomic!(entry, more).store(0, Ordering::Relaxed);
        for cell in atomic!(entry, cells) {
            cell.store(0, Ordering::Relaxed);
        }
        let (me, my_generation) = self.me()?;
        let mine = Cell { kind: CELL_PROCESS, role, object: 0, id: me, generation: my_generation };
        atomic!(entry, cells)[0].store(mine.pack(), Ordering::Relaxed);
        if named {
            let name = Cell { kind: CELL_NAME, role: 0, object: 0, id: 0, generation: 0 };
            atomic!(entry, cells)[1].store(name.pack(), Ordering::Relaxed);
        }
        let body = self.allocate(len)?;
        failpoint!("object.allocated");
        if let Err(error) = build(&body, id) {
            self.free_extent(body.reference.pack());
            return Err(error);
        }
        failpoint!("object.built");
        atomic!(entry, body).store(body.reference.pack(), Ordering::Relaxed);
        Ok((id, body))
    }

    /// A FREE entry, backed by memory. Under the directory lock.
    fn free_entry(&self) -> Result<u32> {
        let high = self.objects_high();
        if let Some(index) = (0..high).find(|&index| self.state(index).state == ENTRY_FREE) {
            return Ok(index);
        }
        if high >= self.geometry.objects_capacity {
            return Err(SegmentError::TooManyObjects { max: self.geometry.objects_capacity }.into());
        }
        let more = 32.min(self.geometry.objects_capacity - high);
        let size = size_of::<ObjectEntry>() as u64;
        self.back(self.geometry.objects + u64::from(high) * size, u64::from(more) * size)?;
        // Release pairs with the acquire in `objects_high`.
        atomic!(self.header(), objects_high).store(high + more, Ordering::Release);
        Ok(high)
    }

    // ---- references -------------------------------------------------------------------------------------------------

    /// Whether the holder a cell names is still that incarnation.
    pub(super) fn is_valid(&self, cell: Cell) -> bool {
        match cell.kind {
            CELL_NONE => false,
            CELL_PROCESS => {
                cell.id < self.geometry.max_participants && {
                    let holder = self.participant(cell.id);
                    atomic!(holder, state).load(Ordering::Acquire) != STATE_FREE
                        && atomic!(holder, generation).load(Ordering::Acquire) & 0xFF_FFFF == cell.generation
                }
            }
            CELL_BLOCK => self.block_generation(cell.object, cell.id) == Some(cell.generation),
            _ => true,
        }
    }

    /// Whether the holder a cell names is still that incarnation, or may have been a moment ago: its slot is being recovered.
    fn may_be_valid(&self, cell: Cell) -> bool {
        // In this order: who sees that the generation went up sees that the slot is RECOVERING, or that it is free again.
        self.is_valid(cell)
            || cell.kind == CELL_PROCESS
                && cell.id < self.geometry.max_participants
                && atomic!(self.participant(cell.id), state).load(Ordering::Acquire) == STATE_RECOVERING
    }

    fn block_generation(&self, index: u32, block: u32) -> Option<u32> {
        if index >= self.objects_high() || self.state(index).state != ENTRY_LIVE {
            return None;
        }
        let kind = atomic!(self.entry(index), kind).load(Ordering::Relaxed);
        let body = self.find_extent(atomic!(self.entry(index), body).load(Ordering::Relaxed), "body").ok()?;
        Some((kinds::find(kind)?.block_generation)(self, &body, block)? & 0xFF_FFFF)
    }

    /// The cells of an entry: the four in it, then those of its chunks. Stops when `visit` says so.
    fn cells<'a>(&'a self, index: u32, mut visit: impl FnMut(&'a AtomicU64) -> bool) -> bool {
        let entry = self.entry(index);
        if atomic!(entry, cells).iter().any(&mut visit) {
            return true;
        }
        self.chunks(index, |_, chunk| atomic!(chunk, cells).iter().any(&mut visit))
    }

    /// The chunks of further cells of an entry, by reference. Stops when `visit` says so.
    pub(super) fn chunks(&self, index: u32, mut visit: impl FnMut(u64, *const ReferenceChunk) -> bool) -> bool {
        let mut more = atomic!(self.entry(index), more).load(Ordering::Acquire);
        // A chain of more chunks than there are participants and messages is a loop somebody scribbled.
        for _ in 0..65_536 {
            let Ok(extent) = self.find_extent(more, "reference chunk") else { return false };
            let Ok(chunk) = self.pointer::<ReferenceChunk>(extent.offset, "reference chunk") else { return false };
            if visit(more, chunk) {
                return true;
            }
            more = atomic!(chunk, more).load(Ordering::Acquire);
        }
        false
    }

    pub(super) fn any_cell(&self, index: u32, mut matches: impl FnMut(Cell) -> bool) -> bool {
        self.cells(index, |cell| matches(Cell::unpack(cell.load(Ordering::Acquire))))
    }

    /// Adds a reference: the cell first, then the version. `Gone` if the object is not that one, or not alive.
    pub(crate) fn add_reference(&self, id: ObjectId, cell: Cell) -> Result<()> {
        if id.index >= self.objects_high() {
            return Err(SegmentError::Gone.into());
        }
        let packed = cell.pack();
        loop {
            let added = self.cells(id.index, |word| {
                let seen = word.load(Ordering::Acquire);
                !self.is_valid(Cell::unpack(seen))
                    && word.compare_exchange(seen, packed, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            });
            if added {
                break;
            }
            self.add_chunk(id.index)?;
        }
        failpoint!("reference.cell");
        loop {
            let seen = self.state(id.index);
            let generation = atomic!(self.entry(id.index), generation).load(Ordering::Acquire);
            if seen.state != ENTRY_LIVE || generation != id.generation {
                self.clear_cell(id.index, packed);
                self.check(id.index, self.token()?.slot());
                return Err(SegmentError::Gone.into());
            }
            if self.change(id.index, seen, seen.next(ENTRY_LIVE, 0)) {
                failpoint!("reference.version");
                return Ok(());
            }
        }
    }

    fn add_chunk(&self, index: u32) -> Result<()> {
        let slot = self.token()?.slot();
        let extent = self.allocate(size_of::<ReferenceChunk>() as u64)?;
        let start = self.map.base().wrapping_add(extent.offset as usize);
        // SAFETY: the extent is held by this process alone and lies inside the mapping.
        unsafe { std::ptr::write_bytes(start, 0, extent.len as usize) };
        let chunk = self.pointer::<ReferenceChunk>(extent.offset, "reference chunk")?;
        let first = atomic!(self.entry(index), more);
        loop {
            let next = first.load(Ordering::Acquire);
            atomic!(chunk, more).store(next, Ordering::Relaxed);
            // Release: the chunk's cells are zero before anybody finds it.
            if first.compare_exchange(next, extent.reference.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                failpoint!("reference.chunk");
                self.commit_extent(extent.reference.pack(), slot);
                return Ok(());
            }
        }
    }

    fn clear_cell(&self, index: u32, packed: u64) {
        self.cells(index, |word| word.compare_exchange(packed, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok());
    }

    /// Takes a reference for this process to an object it knows by its identity.
    pub(crate) fn adopt(self: &Arc<Self>, id: ObjectId, role: u32) -> Result<ObjectRef> {
        self.token()?;
        let mut held = locked_unforked(&self.held);
        let count = held.entry((id.index, id.generation, role)).or_insert(0);
        if *count == 0 {
            let (me, generation) = self.me()?;
            if let Err(error) = self.add_reference(id, Cell { kind: CELL_PROCESS, role, object: 0, id: me, generation })
            {
                held.remove(&(id.index, id.generation, role));
                return Err(error);
            }
        }
        *held.get_mut(&(id.index, id.generation, role)).expect("just there") += 1;
        drop(held);
        let body = atomic!(self.entry(id.index), body).load(Ordering::Acquire);
        match self.find_extent(body, "body") {
            Ok(body) => Ok(ObjectRef { attachment: Arc::clone(self), id, role, body }),
            Err(error) => {
                self.let_go(id, role);
                Err(error)
            }
        }
    }

    /// One handle less.
    fn let_go(&self, id: ObjectId, role: u32) {
        let key = (id.index, id.generation, role);
        // Before the local lock: after a fork this joins the segment, which takes that lock too.
        let Ok((me, generation)) = self.me() else { return };
        let mut held = locked_unforked(&self.held);
        let Some(count) = held.get_mut(&key) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        held.remove(&key);
        // Still under the local lock: a new handle of this process adds its cell afterwards.
        failpoint!("drop.before_cell");
        self.clear_cell(id.index, Cell { kind: CELL_PROCESS, role, object: 0, id: me, generation }.pack());
        failpoint!("drop.cell");
        drop(held);
        self.wake_object(id.index);
        self.check(id.index, me);
    }

    /// After a fork: the child's own references to what its handles name.
    pub(crate) fn hold_again(&self) {
        let Ok((me, generation)) = self.me() else { return };
        let keys: Vec<_> = locked_unforked(&self.held).keys().copied().collect();
        for (index, object_generation, role) in keys {
            let id = ObjectId { index, generation: object_generation };
            let _ = self.add_reference(id, Cell { kind: CELL_PROCESS, role, object: 0, id: me, generation });
        }
    }

    fn wake_object(&self, index: u32) {
        if self.state(index).state != ENTRY_LIVE {
            return;
        }
        let kind = atomic!(self.entry(index), kind).load(Ordering::Relaxed);
        let body = atomic!(self.entry(index), body).load(Ordering::Relaxed);
        if let (Some(ops), Ok(body)) = (kinds::find(kind), self.find_extent(body, "body")) {
            (ops.wake)(self, &body);
        }
    }

    /// Destroys the object if nobody holds it, and then what only its messages held; `by` is the slot that does it.
    pub(crate) fn check(&self, index: u32, by: u32) {
        if self.check_one(index, by) {
            self.check_all(by);
        }
    }

    /// Destroys every object nobody holds: after messages with handles were thrown away.
    pub(crate) fn check_all(&self, by: u32) {
        let mut more = true;
        while more {
            more = false;
            for index in 0..self.objects_high() {
                more |= self.check_one(index, by);
            }
        }
    }

    /// Destroys the object if nobody holds it; true if others may have lost their last holder with it.
    fn check_one(&self, index: u32, by: u32) -> bool {
        loop {
            let seen = self.state(index);
            if seen.state != ENTRY_LIVE || self.any_cell(index, |cell| self.is_valid(cell)) {
                return false;
            }
            let dying = seen.next(ENTRY_DYING, by);
            if self.change(index, seen, dying) {
                failpoint!("destroy.dying");
                return self.destroy(index, dying, by);
            }
        }
    }

    /// Finishes a destruction. Idempotent: every step names the generation it means. True if the object held messages with
    /// handles.
    fn destroy(&self, index: u32, dying: Entry, by: u32) -> bool {
        let entry = self.entry(index);
        let body = atomic!(entry, body).load(Ordering::Acquire);
        let mut handles = false;
        if let Ok(extent) = self.find_extent(body, "body") {
            if let Some(ops) = kinds::find(atomic!(entry, kind).load(Ordering::Relaxed)) {
                handles = (ops.destroy)(self, &extent);
            }
            failpoint!("destroy.contents");
        }
        let mut more = atomic!(entry, more).load(Ordering::Acquire);
        for _ in 0..65_536 {
            let Ok(extent) = self.find_extent(more, "reference chunk") else { break };
            let Ok(chunk) = self.pointer::<ReferenceChunk>(extent.offset, "reference chunk") else { break };
            let next = atomic!(chunk, more).load(Ordering::Acquire);
            // The first link is mine, then the chain is cut, then the link is freed: who goes on after my death finds the rest
            // in the chain, and the sweep finds the link.
            self.hold_extent(more, by);
            failpoint!("destroy.chunk_held");
            atomic!(entry, more).store(next, Ordering::Release);
            failpoint!("destroy.chunk_cut");
            self.free_extent(more);
            more = next;
        }
        self.free_extent(body);
        failpoint!("destroy.freed");
        self.change(index, dying, dying.next(ENTRY_FREE, 0));
        wait::publish_all(atomic!(self.header(), directory_event));
        handles
    }

    /// Takes an object's name away: it lives on while somebody holds it.
    pub(crate) fn remove_name(&self, name: &str) -> Result<bool> {
        let wanted = Name::new(name)?;
        self.token()?;
        let lock = atomic!(self.header(), directory_lock);
        let removed = self.with_lock(lock, "directory", || {
            for index in 0..self.objects_high() {
                if self.state(index).state == ENTRY_LIVE && Name::load(atomic!(self.entry(index), name)) == wanted {
                    Name::NONE.store(atomic!(self.entry(index), name));
                    failpoint!("remove.name");
                    self.drop_name_cell(index);
                    return Ok(Some(index));
                }
            }
            Ok(None)
        })?;
        if let Some(index) = removed {
            self.check(index, self.token()?.slot());
        }
        Ok(removed.is_some())
    }

    fn drop_name_cell(&self, index: u32) {
        self.clear_cell(index, Cell { kind: CELL_NAME, role: 0, object: 0, id: 0, generation: 0 }.pack());
    }

    /// Every live object.
    pub(crate) fn list_objects(&self) -> Vec<ObjectInfo> {
        let mut all = Vec::new();
        for index in 0..self.objects_high() {
            if self.state(index).state != ENTRY_LIVE {
                continue;
            }
            let entry = self.entry(index);
            let name = Name::load(atomic!(entry, name));
            let mut holders = Vec::new();
            self.any_cell(index, |cell| {
                if cell.kind == CELL_PROCESS && self.is_valid(cell) {
                    holders.push(atomic!(self.participant(cell.id), pid).load(Ordering::Relaxed));
                }
                false
            });
            holders.sort_unstable();
            holders.dedup();
            let kind = atomic!(entry, kind).load(Ordering::Relaxed);
            let body = self.find_extent(atomic!(entry, body).load(Ordering::Acquire), "body");
            let mut size = body.as_ref().map_or(0, |body| body.len);
            if let (Ok(body), Some(ops)) = (&body, kinds::find(kind)) {
                (ops.extents)(self, body, &mut |reference| {
                    size += self.find_extent(reference, "extent of an object").map_or(0, |extent| extent.len);
                });
            }
            all.push(ObjectInfo {
                name: (!name.is_none()).then(|| name.text()),
                kind: kinds::name(kind),
                size,
                holders,
            });
        }
        all
    }

    // ---- recovery -----------------------------------------------------------------------------------------------------

    /// Recovers the participant in `slot` from every object. Under the recovery lock. False if one cannot be recovered.
    pub(crate) fn recover_objects(&self, slot: u32, generation: u32, by: u32) -> bool {
        let mut complete = true;
        for index in 0..self.objects_high() {
            let seen = self.state(index);
            let entry = self.entry(index);
            match seen.state {
                ENTRY_LIVE => {
                    // What hangs on a live entry is committed before the sweep takes what the dead one held.
                    let body = atomic!(entry, body).load(Ordering::Acquire);
                    self.commit_extent(body, slot);
                    self.chunks(index, |chunk, _| {
                        self.commit_extent(chunk, slot);
                        false
                    });
                    failpoint!("recover.committed");
                    // A name that was taken away half: the cell goes too.
                    if Name::load(atomic!(entry, name)).is_none() {
                        self.drop_name_cell(index);
                    }
                    let Ok(body) = self.find_extent(body, "body") else { continue };
                    match kinds::find(atomic!(entry, kind).load(Ordering::Relaxed)) {
                        Some(ops) => (ops.recover)(self, &body, super::Dead { slot, generation }),
                        None => complete = false,
                    }
                    failpoint!("recover.object");
                }
                ENTRY_BUILD if seen.owner == slot => {
                    atomic!(entry, body).store(0, Ordering::Relaxed);
                    self.change(index, seen, seen.next(ENTRY_FREE, 0));
                    failpoint!("recover.build");
                }
                ENTRY_DYING if seen.owner == slot => {
                    // What its messages held is found by the look at every object that follows.
                    self.destroy(index, seen, by);
                    failpoint!("recover.dying");
                }
                _ => {}
            }
        }
        complete
    }

    /// After the generation of `slot` went up: destroys what nobody holds any more, and wakes who waits on what its earlier
    /// holders held. Every object is looked at, since the dead one may have cleared its cell and not got further.
    pub(crate) fn check_holdings(&self, slot: u32, by: u32) {
        for index in 0..self.objects_high() {
            if self.state(index).state != ENTRY_LIVE {
                continue;
            }
            self.check(index, by);
            let held = self.cells(index, |word| {
                let seen = word.load(Ordering::Acquire);
                let cell = Cell::unpack(seen);
                // Void, and of this slot. Cleared, so that it wakes nobody the next time.
                cell.kind == CELL_PROCESS
                    && cell.id == slot
                    && !self.is_valid(cell)
                    && word.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            });
            if held {
                self.wake_object(index);
            }
        }
    }
}
