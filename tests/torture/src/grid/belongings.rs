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
    /// Of the entries.
    names: BTreeMap<Option<u64>, String>,
    counts: BTreeMap<Thing, u64>,
}

/// Of which object, by its entry, which has the same number when its name is taken away; and what. The segment's own have none.
type Thing = (Option<u64>, &'static str);

impl Belongings {
    /// What process `pid` has.
    pub fn of(segment: &Segment, pid: u32) -> Check<Belongings> {
        let image = Image::of(segment)?;
        let mut all = Belongings::default();
        for owner in image.participants().into_iter().filter(|participant| participant.pid == pid) {
            let mut look = Look { image: &image, owner: owner.token, entry: None, found: &mut all };
            look.have("its slot", 1);
            look.segment();
            look.objects();
        }
        Ok(all)
    }

    /// How much of `what` of the object `name`.
    pub fn count(&self, name: &str, what: &'static str) -> u64 {
        let entry = self.names.iter().find_map(|(&entry, other)| (other == name).then_some(entry));
        entry.and_then(|entry| self.counts.get(&(entry, what))).copied().unwrap_or(0)
    }

    /// The first thing of which there was more `before`.
    pub fn missing(&self, before: &Belongings) -> Option<String> {
        before.counts.iter().find_map(|(thing, &count)| {
            let left = self.counts.get(thing).copied().unwrap_or(0);
            let name = before.names.get(&thing.0).map_or("", String::as_str);
            (left < count).then(|| format!("{left} instead of {count}: {} {name}", thing.1))
        })
    }
}

/// Somebody's things are being looked for.
struct Look<'a> {
    image: &'a Image,
    owner: Token,
    /// Of the object that is looked at.
    entry: Option<u64>,
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
            *self.found.counts.entry((self.entry, what)).or_default() += count;
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
            self.entry = Some(index);
            let name = self.name_of(entry, index);
            self.found.names.insert(self.entry, name);
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

#[cfg(test)]
mod tests {
    use super::*;
    use shmkit::data::{Namespace, ShardedDict};
    use shmkit::heap::Heap;
    use shmkit::{Dict, List, Listener};

    /// Every word is looked for where it is: else nobody would ever be found robbed of it.
    #[test]
    fn whatever_somebody_has_is_found() {
        let name = format!("belongings-{:07}", std::process::id());
        let segment = Segment::builder().max_size(4 << 20).create(&name).expect("a segment");
        let count = |name: &str, what: &'static str| {
            Belongings::of(&segment, std::process::id()).expect("an image").count(name, what)
        };
        let held = |name: &str| count(name, LOCK);

        let lock = segment.lock("lock").create().expect("a lock");
        let rlock = segment.rlock("rlock").create().expect("a lock");
        let mutex = segment.mutex::<u64>("mutex").create().expect("a mutex");
        let rwlock = segment.rwlock::<u64>("rwlock").create().expect("a lock");
        let value = segment.value::<[u64; 4]>("value").create().expect("a value");
        let array = segment.array::<u64>("array").len(4).create().expect("an array");
        let names = ["lock", "rlock", "mutex", "rwlock", "value", "array"];
        assert_eq!(names.map(held), [0; 6]);
        let guards = (lock.lock(), rlock.lock(), mutex.lock(), rwlock.write(), value.lock(), array.lock());
        assert_eq!(names.map(held), [1; 6]);
        drop(guards);
        assert_eq!(names.map(held), [0; 6]);

        let readers = (rwlock.read(), rwlock.read());
        assert_eq!(count("rwlock", READERS), 2);
        drop(readers);
        let permits = segment.permit_semaphore("permits").permits(3).create().expect("permits");
        let two = (permits.acquire(), permits.acquire());
        assert_eq!(count("permits", PERMITS), 2);
        drop(two);
        assert_eq!((count("rwlock", READERS), count("permits", PERMITS)), (0, 0));

        segment.once("once").create().expect("a once").call(|| assert_eq!(held("once"), 1)).expect("a call");
        let dict: Dict<u64, u64> = segment.dict("dict").create().expect("a dict");
        dict.update(&1, |_| assert_eq!(held("dict"), 1)).expect("a change");
        let shards: ShardedDict<u64, u64> = segment.sharded_dict("shards").shards(4).create().expect("a dict");
        (0..16).for_each(|key| shards.update(&key, |_| assert_eq!(held("shards"), 1)).expect("a change"));
        let spaces: Namespace = segment.namespace("names").create().expect("a namespace");
        spaces.update("one", |_: &mut Option<u64>| assert_eq!(held("names"), 1)).expect("a change");
        let list: List<u64> = segment.list("list").create().expect("a list");
        list.push(&1).expect("room");
        list.update(0, |_| assert_eq!(held("list"), 1)).expect("a change");
        let heap: Heap = segment.heap("heap").create().expect("a heap");
        let change = heap.change(|_| {
            assert_eq!(held("heap"), 1);
            Ok(())
        });
        change.expect("a change");

        let ends = segment.channel::<u64>("pipe").create().expect("a pipe");
        ends.0.send(1).expect("room");
        ends.1.recv().expect("an element");
        let ends_held = || [count("pipe", "the sending end of"), count("pipe", "the receiving end of")];
        assert_eq!(ends_held(), [1, 1]);
        drop(ends.0);
        assert_eq!(ends_held(), [0, 1]);
        let pod = segment.pod_queue::<u64>("pod").create().expect("a queue");
        pod.put(1).expect("room");
        let received = pod.recv().expect("a message");
        assert_eq!(count("pod", "messages of"), 1);
        drop(received);
        assert_eq!(count("pod", "messages of"), 0);
        let tasks = segment.joinable_queue::<u64>("tasks").create().expect("a queue");
        tasks.put(1).expect("room");
        let task = tasks.get_task().expect("a task");
        assert_eq!(count("tasks", "messages of"), 1);
        drop(task);
        let before = Belongings::of(&segment, std::process::id()).expect("an image");
        let listener = Listener::builder("meeting").segment(&segment).bind().expect("an address");
        let after = Belongings::of(&segment, std::process::id()).expect("an image");
        let addresses = |all: &Belongings| all.counts.keys().filter(|thing| thing.1 == "the address").count();
        assert_eq!((addresses(&before), addresses(&after)), (0, 1));
        drop(listener);
        let left = Belongings::of(&segment, std::process::id()).expect("an image");
        assert!(left.missing(&after).is_some_and(|what| what.contains("instead of 1")));
        assert_eq!(left.missing(&left), None);
        Segment::unlink(&name).expect("its name");
    }
}
