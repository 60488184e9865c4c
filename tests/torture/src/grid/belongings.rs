//! What is somebody's, as the words of the segment say: the locks that name him, his readers, his permits, the ends of pipes he
//! has, the blocks of queues that he reads, what he builds, his references and the memory he holds.
//!
//! Whoever is stopped keeps all of it, whatever others do. A word that others may change by right is none of it: a message that
//! was put is somebody else's soon; a barrier's arrival and a condition's waiter are others' to answer.

use super::image::Image;
use crate::operation::Check;
use shmkit::Segment;
use shmkit_layouts::containers::{ArenaBody, DictBody, HeapBody, ListBody, ShardedBody};
use shmkit_layouts::kinds::*;
use shmkit_layouts::objects::*;
use shmkit_layouts::segment::{
    ENTRY_BUILD, ENTRY_DYING, ENTRY_FREE, ObjectEntry, ReferenceChunk, SLOT_NOBODY, SegmentHeader,
};
use shmkit_layouts::words::*;
use std::collections::BTreeMap;
use std::mem::offset_of;

/// How much of each thing somebody has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Belongings {
    counts: BTreeMap<(String, &'static str), u64>,
}

impl Belongings {
    /// What process `pid` has.
    pub fn of(segment: &Segment, pid: u32) -> Check<Belongings> {
        let image = Image::of(segment)?;
        let mut all = Belongings::default();
        for owner in image.participants().into_iter().filter(|participant| participant.pid == pid) {
            let mut look = Look { image: &image, owner: owner.token, name: String::new(), found: &mut all };
            look.have("its slot", 1);
            look.segment();
            look.objects();
        }
        Ok(all)
    }

    /// How much of `what` of the object `name`.
    pub fn count(&self, name: &str, what: &'static str) -> u64 {
        self.counts.get(&(name.to_owned(), what)).copied().unwrap_or(0)
    }

    /// The first thing of which there was more `before`.
    pub fn missing(&self, before: &Belongings) -> Option<String> {
        before.counts.iter().find_map(|((name, what), &count)| {
            let left = self.count(name, what);
            (left < count).then(|| format!("{left} instead of {count}: {what} {name}"))
        })
    }
}

/// Somebody's things are being looked for.
struct Look<'a> {
    image: &'a Image,
    owner: Token,
    /// Of the object that is looked at.
    name: String,
    found: &'a mut Belongings,
}

/// Offset of a field from a start.
macro_rules! at {
    ($start:expr, $body:ty, $field:ident) => {
        $start + offset_of!($body, $field) as u64
    };
}

impl Look<'_> {
    fn have(&mut self, what: &'static str, count: u64) {
        if count > 0 {
            *self.found.counts.entry((self.name.clone(), what)).or_default() += count;
        }
    }

    /// A word that is a token, marked or not.
    fn token(&mut self, what: &'static str, offset: u64) {
        let is_his = self.image.word(offset) & MUTEX_OWNER == self.owner.0;
        self.have(what, u64::from(is_his));
    }

    /// Of `count` words of 8 bytes from `start` on, those that `is_his`.
    fn words(&mut self, what: &'static str, start: u64, count: u32, is_his: impl Fn(u64) -> bool) {
        let words = (0..u64::from(count)).map(|index| self.image.long(start + 8 * index));
        let count = words.filter(|&word| is_his(word)).count() as u64;
        self.have(what, count);
    }

    /// The segment's own locks and memory.
    fn segment(&mut self) {
        self.token("the lock of the heap", at!(0, SegmentHeader, heap_lock));
        self.token("the lock of names", at!(0, SegmentHeader, directory_lock));
        let units = self.image.long(at!(0, SegmentHeader, units_offset));
        let committed = self.image.long(at!(0, SegmentHeader, committed));
        let (mut unit, mut held) = (0, 0);
        while unit < committed {
            let word = Unit::unpack(self.image.long(units + 8 * unit));
            held += u64::from(word.state == UNIT_HELD && word.owner == self.owner.slot());
            unit += u64::from(word.len.max(1));
        }
        self.have("memory", held);
    }

    fn objects(&mut self) {
        let table = self.image.long(at!(0, SegmentHeader, objects_offset));
        let high = self.image.word(at!(0, SegmentHeader, objects_high));
        for index in 0..u64::from(high) {
            let entry = table + index * size_of::<ObjectEntry>() as u64;
            let word = Entry::unpack(self.image.long(at!(entry, ObjectEntry, word)));
            if word.state == ENTRY_FREE {
                continue;
            }
            self.name = self.name_of(entry, index);
            if word.state == ENTRY_BUILD || word.state == ENTRY_DYING {
                self.have("the entry of", u64::from(word.owner == self.owner.slot()));
                continue;
            }
            self.references(entry);
            if let Some(body) = ExtentRef::unpack(self.image.long(at!(entry, ObjectEntry, body))) {
                let start = self.image.place(body) + size_of::<ObjectHeader>() as u64;
                self.body(self.image.word(at!(entry, ObjectEntry, kind)), start);
            }
        }
    }

    fn name_of(&self, entry: u64, index: u64) -> String {
        let words = (0..8).map(|word| self.image.long(at!(entry, ObjectEntry, name) + 8 * word));
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).take_while(|&byte| byte != 0).collect();
        if bytes.is_empty() { format!("object {index}") } else { String::from_utf8_lossy(&bytes).into_owned() }
    }

    fn references(&mut self, entry: u64) {
        let owner = self.owner;
        let is_his = |word| {
            let cell = Cell::unpack(word);
            cell.kind == CELL_PROCESS && Token::new(cell.id, cell.generation) == owner
        };
        self.words("references to", at!(entry, ObjectEntry, cells), 4, is_his);
        let mut more = self.image.long(at!(entry, ObjectEntry, more));
        while let Some(chunk) = ExtentRef::unpack(more).map(|chunk| self.image.place(chunk)) {
            self.words("references to", at!(chunk, ReferenceChunk, cells), 31, is_his);
            more = self.image.long(at!(chunk, ReferenceChunk, more));
        }
    }

    fn body(&mut self, kind: u32, start: u64) {
        const ARENA: u64 = size_of::<ArenaBody>() as u64;
        match kind {
            KIND_LOCK | KIND_RLOCK | KIND_MUTEX | KIND_ONCE | KIND_CONDITION => self.token(LOCK, start),
            KIND_VALUE | KIND_ARRAY => self.token(LOCK, start),
            KIND_DICT | KIND_NAMESPACE => self.token(LOCK, start + size_of::<DictBody>() as u64),
            KIND_LIST => self.token(LOCK, start + size_of::<ListBody>() as u64),
            KIND_HEAP => self.token(LOCK, start + size_of::<HeapBody>() as u64),
            KIND_SHARDED_DICT => {
                let shards = u64::from(self.image.word(at!(start, ShardedBody, shards)));
                let shard = size_of::<DictBody>() as u64 + ARENA;
                let first = start + size_of::<ShardedBody>() as u64 + size_of::<DictBody>() as u64;
                (0..shards).for_each(|index| self.token(LOCK, first + index * shard));
            }
            KIND_RWLOCK => {
                self.token(LOCK, start);
                self.readers(start);
            }
            KIND_PERMITS => {
                let first = start + size_of::<PermitsBody>() as u64;
                let permits = u64::from(self.image.word(at!(start, PermitsBody, permits)));
                (0..permits).for_each(|index| self.token(PERMITS, first + 4 * index));
            }
            KIND_PIPE => {
                self.token("the sending end of", at!(start, PipeBody, sender));
                self.token("the receiving end of", at!(start, PipeBody, receiver));
            }
            KIND_QUEUE | KIND_POD_QUEUE | KIND_JOINABLE_QUEUE => self.queue(start),
            KIND_CONNECTION => {
                for offset in [at!(start, ConnectionBody, first), at!(start, ConnectionBody, second)] {
                    if let queue @ 1.. = self.image.long(offset) {
                        self.queue(start + queue);
                    }
                }
            }
            KIND_LISTENER => {
                self.token("the address", at!(start, ListenerBody, owner));
                self.queue(start + self.image.long(at!(start, ListenerBody, queue)));
            }
            KIND_POOL => {
                let tasks = start + self.image.long(at!(start, PoolBody, tasks_offset));
                let slot = self.owner.slot();
                let is_his = |word| {
                    let task = Task::unpack(word);
                    task.owner == slot && [TASK_RUNNING, TASK_CANCELLED, TASK_CONDEMNED].contains(&task.state)
                };
                self.words("tasks of", tasks, self.image.word(at!(start, PoolBody, tasks)), is_his);
            }
            _ => {}
        }
    }

    fn readers(&mut self, start: u64) {
        if self.owner.slot() == SLOT_NOBODY || self.owner.slot() >= self.image.word(at!(start, RwLockBody, readers)) {
            return;
        }
        let first = start + self.image.long(at!(start, RwLockBody, readers_offset));
        let word = self.image.long(first + u64::from(self.owner.slot()) * size_of::<ReaderCount>() as u64);
        let is_his = (word >> 32) as u32 == self.owner.0;
        self.have(READERS, if is_his { u64::from(word as u32) } else { 0 });
    }

    /// What he reads, or is done with. A block that he writes is a message as soon as its slot says so, and may be gone.
    fn queue(&mut self, start: u64) {
        let slot = self.owner.slot();
        let is_his = |word| {
            let block = Block::unpack(word);
            block.owner == slot && [BLOCK_READ, BLOCK_RELEASING].contains(&block.state)
        };
        let words = start + self.image.long(at!(start, QueueBody, words_offset));
        self.words("messages of", words, self.image.word(at!(start, QueueBody, blocks)), is_his);
    }
}

/// The lock of whatever has one.
pub const LOCK: &str = "the lock of";
/// Readers inside of a lock.
pub const READERS: &str = "readers of";
/// Permits of a semaphore whose permits have owners.
pub const PERMITS: &str = "permits of";
