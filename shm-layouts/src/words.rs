//! The words that are changed by one compare-and-swap, and how they are packed.
//!
//! Every claim carries its owner in the word itself; every word that is reused carries a generation or a lap.

constants! { CONSTANTS:
    /// Mutex word: somebody may sleep on it.
    MUTEX_CONTENDED: u32 = 1 << 31;
    /// Mutex word: its last owner died or panicked inside.
    MUTEX_RECOVER: u32 = 1 << 30;
    /// Mutex word: mask of the owner's token.
    MUTEX_OWNER: u32 = (1 << 30) - 1;
    /// Wait word: somebody may sleep on it.
    EVENT_WAITING: u32 = 1 << 31;
    /// Wait word: publishers put a fence between their change and their look at the word.
    EVENT_FENCED: u32 = 1 << 30;
    /// Wait word: every publisher knows that it is fenced.
    EVENT_PROVEN: u32 = 1 << 29;
    /// Ring slot: nothing in it.
    SLOT_FREE: u64 = 0;
    /// Ring slot: a committed message.
    SLOT_READY: u64 = 1;
    /// Ring slot: a consumer is taking it.
    SLOT_TAKEN: u64 = 2;
    /// Ring slot: the end of a closed queue. Nothing comes after it.
    SLOT_END: u64 = 3;
    /// Block: nobody's.
    BLOCK_FREE: u64 = 0;
    /// Block: being written by its owner, or published in the ring.
    BLOCK_WRITE: u64 = 1;
    /// Block: being read by its owner.
    BLOCK_READ: u64 = 2;
    /// Block: its owner is freeing what belongs to it.
    BLOCK_RELEASING: u64 = 3;
    /// Block: will be delivered again once no slot names it.
    BLOCK_REQUEUE_PENDING: u64 = 4;
    /// Block: to be delivered again.
    BLOCK_REQUEUE: u64 = 5;
    /// Heap unit: the head of a free extent, or inside an extent.
    UNIT_FREE: u64 = 0;
    /// Heap unit: the head of an extent held by a participant.
    UNIT_HELD: u64 = 1;
    /// Heap unit: the head of an extent that belongs to an object.
    UNIT_COMMITTED: u64 = 2;
    /// Task: nobody's.
    TASK_FREE: u32 = 0;
    /// Task: waits for a worker.
    TASK_QUEUED: u32 = 1;
    /// Task: a worker runs it.
    TASK_RUNNING: u32 = 2;
    /// Task: its worker died.
    TASK_LOST: u32 = 3;
    /// Task: is not wanted any more. With an owner, which runs it, it is asked to end; without, it is to be passed over.
    TASK_CANCELLED: u32 = 4;
    /// Task: was cancelled and did not end; its worker is being killed and begins nothing else.
    TASK_CONDEMNED: u32 = 5;
    /// Task: its worker has the reply in its hands and can no longer be condemned for it.
    TASK_ENDED: u32 = 6;
    /// Worker: has not said that it is ready.
    WORKER_STARTING: u32 = 0;
    /// Worker: takes tasks.
    WORKER_READY: u32 = 1;
    /// Piece: free.
    PIECE_FREE: u64 = 0;
    /// Piece: held by a process, named by nothing.
    PIECE_HELD: u64 = 1;
    /// Piece: part of the container.
    PIECE_COMMITTED: u64 = 2;
    /// Link of a dict's entry: deleted.
    LINK_DELETED: u64 = 1 << 36;
    /// Worker: asks to be replaced, and takes tasks until it is.
    WORKER_LEAVING: u32 = 2;
    /// Worker: has been replaced and is to end.
    WORKER_RELEASED: u32 = 3;
    /// Waiter record: free.
    WAITER_FREE: u32 = 0;
    /// Waiter record: waits to be notified.
    WAITER_WAITING: u32 = 1;
    /// Waiter record: notified; it does not have the lock again yet.
    WAITER_NOTIFIED: u32 = 2;
    /// Reference cell: free.
    CELL_NONE: u64 = 0;
    /// Reference cell: a process.
    CELL_PROCESS: u64 = 1;
    /// Reference cell: a message block of a queue.
    CELL_BLOCK: u64 = 2;
    /// Reference cell: the object's name.
    CELL_NAME: u64 = 3;
}

/// A participant's token: generation (18 bits) and slot (12 bits), never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u32);

impl Token {
    /// The token of the participant in `slot` with `generation`.
    pub const fn new(slot: u32, generation: u32) -> Token {
        Token(((generation & 0x3FFFF) << 12) | (slot & 0xFFF))
    }
    /// The slot number.
    pub const fn slot(self) -> u32 {
        self.0 & 0xFFF
    }
    /// The low 18 bits of the slot's generation.
    pub const fn generation(self) -> u32 {
        (self.0 >> 12) & 0x3FFFF
    }
}

/// State of an object entry: `version:32 | unused:16 | own:12 | st:4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// `ENTRY_…`.
    pub state: u32,
    /// Slot of who builds or destroys it; 0 otherwise.
    pub owner: u32,
    /// Goes up with every change.
    pub version: u32,
}

impl Entry {
    /// Unpacks a word.
    pub const fn unpack(word: u64) -> Entry {
        Entry { state: (word & 0xF) as u32, owner: ((word >> 4) & 0xFFF) as u32, version: (word >> 32) as u32 }
    }
    /// Packs it.
    pub const fn pack(self) -> u64 {
        (self.version as u64) << 32 | ((self.owner & 0xFFF) as u64) << 4 | (self.state & 0xF) as u64
    }
    /// The same entry one version on, in `state`, owned by `owner`.
    pub const fn next(self, state: u32, owner: u32) -> Entry {
        Entry { state, owner, version: self.version.wrapping_add(1) }
    }
}

/// A task of a pool: `generation:32 | unused:16 | own:12 | st:4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// `TASK_…`.
    pub state: u32,
    /// Slot of the worker that runs it, or ran it; 0 otherwise.
    pub owner: u32,
    /// Goes up with every task that uses the word.
    pub generation: u32,
}

impl Task {
    /// Unpacks a word.
    pub const fn unpack(word: u64) -> Task {
        Task { state: (word & 0xF) as u32, owner: ((word >> 4) & 0xFFF) as u32, generation: (word >> 32) as u32 }
    }
    /// Packs it.
    pub const fn pack(self) -> u64 {
        (self.generation as u64) << 32 | ((self.owner & 0xFFF) as u64) << 4 | (self.state & 0xF) as u64
    }
}

/// What a worker has of a chunk: `generation:32 | end:16 | next:16`. The worker takes the elements from `next` on, one by one; the
/// pool may take those before `end` away from it, from the back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The first element of the chunk that is not begun.
    pub next: u32,
    /// Elements of the chunk that are this worker's.
    pub end: u32,
    /// The generation of the task's word.
    pub generation: u32,
}

impl Share {
    /// Unpacks a word.
    pub const fn unpack(word: u64) -> Share {
        Share { next: (word & 0xFFFF) as u32, end: ((word >> 16) & 0xFFFF) as u32, generation: (word >> 32) as u32 }
    }
    /// Packs it.
    pub const fn pack(self) -> u64 {
        (self.generation as u64) << 32 | ((self.end & 0xFFFF) as u64) << 16 | (self.next & 0xFFFF) as u64
    }
}

/// Which outcomes of a run lie in its worker's `PoolRun`: `bytes:32 | count:16 | first:16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The number in the run of the task whose outcome is the first.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// How many bytes they have.
    pub bytes: u32,
}

impl Published {
    /// Unpacks a word.
    pub const fn unpack(word: u64) -> Published {
        Published { first: (word & 0xFFFF) as u32, count: ((word >> 16) & 0xFFFF) as u32, bytes: (word >> 32) as u32 }
    }
    /// Packs it.
    pub const fn pack(self) -> u64 {
        (self.bytes as u64) << 32 | ((self.count & 0xFFFF) as u64) << 16 | (self.first & 0xFFFF) as u64
    }
}

/// State of a barrier: `round:32 | unused:16 | own:12 | phase:4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarrierState {
    /// `BARRIER_…`.
    pub phase: u32,
    /// Slot of who runs the action, or why it is broken; 0 otherwise.
    pub owner: u32,
    /// Which round it is.
    pub round: u32,
}

impl BarrierState {
    /// Unpacks a word.
    pub const fn unpack(word: u64) -> BarrierState {
        BarrierState { phase: (word & 0xF) as u32, owner: ((word >> 4) & 0xFFF) as u32, round: (word >> 32) as u32 }
    }
    /// Packs it.
    pub const fn pack(self) -> u64 {
        (self.round as u64) << 32 | ((self.owner & 0xFFF) as u64) << 4 | (self.phase & 0xF) as u64
    }
}

/// One party at a barrier: `round:32 | token:32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The participant's token; 0 if it has left, or nobody came.
    pub token: u32,
    /// The round in which it came, or in which the word was used last.
    pub round: u32,
}

impl Arrival {
    /// Unpacks a word.
    pub const fn unpack(word: u64) -> Arrival {
        Arrival { token: word as u32, round: (word >> 32) as u32 }
    }
    /// Packs it.
    pub const fn pack(self) -> u64 {
        (self.round as u64) << 32 | self.token as u64
    }
}

/// One who waits at a condition: `ordinal:32 | st:2 | token:30`, 0 when free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// The participant's token.
    pub token: u32,
    /// `WAITER_…`.
    pub state: u32,
    /// Which thread of it: a number it gives to no second thread.
    pub ordinal: u32,
}

impl Waiter {
    /// Unpacks a word.
    pub const fn unpack(word: u64) -> Waiter {
        Waiter { token: word as u32 & MUTEX_OWNER, state: (word >> 30 & 3) as u32, ordinal: (word >> 32) as u32 }
    }
    /// Packs it.
    pub const fn pack(self) -> u64 {
        (self.token & MUTEX_OWNER) as u64 | ((self.state & 3) as u64) << 30 | (self.ordinal as u64) << 32
    }
}

/// A heap unit's word: `generation:24 | own:12 | st:2 | len:26`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// `UNIT_…`.
    pub state: u64,
    /// Slot of the holder; 0 unless `UNIT_HELD`.
    pub owner: u32,
    /// Units of the extent.
    pub len: u32,
    /// Goes up whenever an extent that starts here is freed.
    pub generation: u32,
}

impl Unit {
    /// The most units an extent can have.
    pub const MAX_LEN: u64 = (1 << 26) - 1;
    /// Unpacks a word.
    pub const fn unpack(word: u64) -> Unit {
        Unit {
            len: (word & 0x3FF_FFFF) as u32,
            state: (word >> 26) & 3,
            owner: ((word >> 28) & 0xFFF) as u32,
            generation: (word >> 40) as u32,
        }
    }
    /// Packs it.
    pub const fn pack(self) -> u64 {
        (self.len & 0x3FF_FFFF) as u64
            | (self.state & 3) << 26
            | ((self.owner & 0xFFF) as u64) << 28
            | ((self.generation & 0xFF_FFFF) as u64) << 40
    }
}

/// Names an extent: `generation:24 | unused:8 | unit + 1:32`, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentRef {
    /// First unit.
    pub unit: u32,
    /// Generation of that unit's word when the extent was allocated.
    pub generation: u32,
}

impl ExtentRef {
    /// Unpacks a reference; `None` for 0.
    pub const fn unpack(word: u64) -> Option<ExtentRef> {
        match (word as u32).checked_sub(1) {
            Some(unit) => Some(ExtentRef { unit, generation: (word >> 40) as u32 }),
            None => None,
        }
    }
    /// Packs it.
    pub const fn pack(self) -> u64 {
        (self.unit as u64 + 1) | ((self.generation & 0xFF_FFFF) as u64) << 40
    }
}

/// A reference cell: `kind:2 | role:4 | object:16 | id:18 | generation:24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// `CELL_…`.
    pub kind: u64,
    /// What the holder may do; each kind of object numbers its own.
    pub role: u32,
    /// For a block: the queue's object index.
    pub object: u32,
    /// The slot, or the block's index.
    pub id: u32,
    /// Generation of the slot or the block.
    pub generation: u32,
}

impl Cell {
    /// Unpacks a word.
    pub const fn unpack(word: u64) -> Cell {
        Cell {
            generation: (word & 0xFF_FFFF) as u32,
            id: ((word >> 24) & 0x3_FFFF) as u32,
            object: ((word >> 42) & 0xFFFF) as u32,
            role: ((word >> 58) & 0xF) as u32,
            kind: word >> 62,
        }
    }
    /// Packs it.
    pub const fn pack(self) -> u64 {
        (self.generation & 0xFF_FFFF) as u64
            | ((self.id & 0x3_FFFF) as u64) << 24
            | ((self.object & 0xFFFF) as u64) << 42
            | ((self.role & 0xF) as u64) << 58
            | (self.kind & 3) << 62
    }
}

/// A ring slot: `lap:32 | st:2 | own:12 | idx:18`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Which round of the ring this is.
    pub lap: u32,
    /// `SLOT_…`.
    pub state: u64,
    /// Slot of the consumer; 0 unless `SLOT_TAKEN`.
    pub owner: u32,
    /// Index of the block.
    pub index: u32,
}

impl Slot {
    /// Unpacks a word.
    pub const fn unpack(word: u64) -> Slot {
        Slot {
            index: (word & 0x3_FFFF) as u32,
            owner: ((word >> 18) & 0xFFF) as u32,
            state: (word >> 30) & 3,
            lap: (word >> 32) as u32,
        }
    }
    /// Packs it.
    pub const fn pack(self) -> u64 {
        (self.index & 0x3_FFFF) as u64
            | ((self.owner & 0xFFF) as u64) << 18
            | (self.state & 3) << 30
            | (self.lap as u64) << 32
    }
}

/// A block's word: `gen:32 | own:12 | st:4 | deliveries:16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Goes up with every loan.
    pub generation: u32,
    /// Slot of the owner; 0 unless somebody writes, reads or releases it.
    pub owner: u32,
    /// `BLOCK_…`.
    pub state: u64,
    /// How often its message was delivered again.
    pub deliveries: u32,
}

impl Block {
    /// Unpacks a word.
    pub const fn unpack(word: u64) -> Block {
        Block {
            generation: (word >> 32) as u32,
            owner: ((word >> 20) & 0xFFF) as u32,
            state: (word >> 16) & 0xF,
            deliveries: (word & 0xFFFF) as u32,
        }
    }
    /// Packs it.
    pub const fn pack(self) -> u64 {
        (self.generation as u64) << 32
            | ((self.owner & 0xFFF) as u64) << 20
            | (self.state & 0xF) << 16
            | (self.deliveries & 0xFFFF) as u64
    }
}

/// The first word of an arena's block: `generation:40 | own:12 | unused:2 | class:6 | unused:1 | anchored:1 | st:2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// A new one whenever the block is freed.
    pub generation: u64,
    /// Slot of the holder; 0 unless `PIECE_HELD`.
    pub owner: u32,
    /// Class of its size, or `ARENA_LARGE`.
    pub class: u32,
    /// 1 if the block keeps objects alive through an anchor.
    pub anchored: u64,
    /// `PIECE_…`.
    pub state: u64,
}

impl Piece {
    /// Unpacks a word.
    #[inline]
    pub const fn unpack(word: u64) -> Piece {
        Piece {
            state: word & 3,
            anchored: (word >> 2) & 1,
            class: ((word >> 4) & 0x3F) as u32,
            owner: ((word >> 12) & 0xFFF) as u32,
            generation: word >> 24,
        }
    }
    /// Packs it.
    #[inline]
    pub const fn pack(self) -> u64 {
        (self.state & 3)
            | (self.anchored & 1) << 2
            | ((self.class & 0x3F) as u64) << 4
            | ((self.owner & 0xFFF) as u64) << 12
            | (self.generation & 0xFF_FFFF_FFFF) << 24
    }
}

/// Names a block of an arena: `0:1 | generation:27 | place:36`, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Bytes from the start of the segment, divided by 16.
    pub place: u64,
    /// Low bits of the block's generation.
    pub generation: u64,
}

impl Link {
    /// The bits of a place.
    pub const PLACE: u64 = (1 << 36) - 1;
    /// The bits of a generation that a link has.
    pub const GENERATION: u64 = (1 << 27) - 1;
    /// Unpacks a word.
    #[inline]
    pub const fn unpack(word: u64) -> Link {
        Link { place: word & 0xF_FFFF_FFFF, generation: (word >> 36) & Link::GENERATION }
    }
    /// Packs it.
    #[inline]
    pub const fn pack(self) -> u64 {
        (self.place & 0xF_FFFF_FFFF) | (self.generation & Link::GENERATION) << 36
    }
}

/// An element of a list in the slot itself, where a [`Link`] would be: `1:1 | tag:4 | len:3 | data:56`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Small {
    /// The value's bytes, the first of them lowest. Of a `TAG_I64` the lower seven, the last being its sign's; of a `TAG_F64` the
    /// upper seven, the lowest being 0.
    pub data: u64,
    /// How many bytes.
    pub len: u32,
    /// `TAG_…`.
    pub tag: u32,
}

impl Small {
    /// The bit that a link does not have.
    pub const BIT: u64 = 1 << 63;
    /// Unpacks a word.
    #[inline]
    pub const fn unpack(word: u64) -> Small {
        Small { data: word & ((1 << 56) - 1), len: (word >> 56) as u32 & 7, tag: (word >> 59) as u32 & 0xF }
    }
    /// Packs it.
    #[inline]
    pub const fn pack(self) -> u64 {
        Small::BIT | (self.tag as u64 & 0xF) << 59 | (self.len as u64 & 7) << 56 | (self.data & ((1 << 56) - 1))
    }
}

/// What a node holds: `value_tag:4 | key_tag:4 | key_len:24 | value_len:32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeInfo {
    /// Bytes of the value.
    pub value_len: u32,
    /// Bytes of the key; 0 in a list.
    pub key_len: u32,
    /// `TAG_…` of the key.
    pub key_tag: u32,
    /// `TAG_…` of the value.
    pub value_tag: u32,
}

impl NodeInfo {
    /// The longest key in bytes.
    pub const MAX_KEY: u64 = (1 << 24) - 1;
    /// Unpacks a word.
    #[inline]
    pub const fn unpack(word: u64) -> NodeInfo {
        NodeInfo {
            value_len: word as u32,
            key_len: ((word >> 32) & 0xFF_FFFF) as u32,
            key_tag: ((word >> 56) & 0xF) as u32,
            value_tag: (word >> 60) as u32,
        }
    }
    /// Packs it.
    #[inline]
    pub const fn pack(self) -> u64 {
        (self.value_len as u64)
            | ((self.key_len & 0xFF_FFFF) as u64) << 32
            | ((self.key_tag & 0xF) as u64) << 56
            | ((self.value_tag & 0xF) as u64) << 60
    }
}

/// A slot of a dict's index: `hash:32 | entry + 1:32`, 0 while it is empty. Written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexSlot {
    /// Number of the entry.
    pub entry: u32,
    /// Hash of its key.
    pub hash: u32,
}

impl IndexSlot {
    /// Unpacks a word; `None` for an empty slot.
    #[inline]
    pub const fn unpack(word: u64) -> Option<IndexSlot> {
        match (word as u32).checked_sub(1) {
            Some(entry) => Some(IndexSlot { entry, hash: (word >> 32) as u32 }),
            None => None,
        }
    }
    /// Packs it.
    #[inline]
    pub const fn pack(self) -> u64 {
        (self.entry as u64 + 1) | (self.hash as u64) << 32
    }
}

/// An anchor: what a block that keeps objects alive is known by in their reference cells: `generation:24 | unused:4 | place:36`,
/// 0 while it is free. Its number is the cell's `id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The block's place, as in its links.
    pub place: u64,
    /// Low bits of the block's generation.
    pub generation: u32,
}

impl Anchor {
    /// Unpacks a word.
    pub const fn unpack(word: u64) -> Anchor {
        Anchor { place: word & 0xF_FFFF_FFFF, generation: (word >> 40) as u32 }
    }
    /// Packs it.
    pub const fn pack(self) -> u64 {
        (self.place & 0xF_FFFF_FFFF) | ((self.generation & 0xFF_FFFF) as u64) << 40
    }
}
