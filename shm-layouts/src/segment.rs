//! The segment itself: header, registry of participants, table of objects.
//!
//! ```text
//! 0          header (256 bytes)
//! 256        registry: max_participants × ParticipantSlot (64 bytes)
//! objects    object table: objects_capacity × ObjectEntry (128 bytes), backed up to objects_high
//! units      one word for each heap unit, backed up to committed
//! heap       units of 256 bytes, backed up to committed
//! ```
//! The file has its full size from the start; the pages that are not backed are holes nobody may touch.

use crate::atomic::{AtomicU32, AtomicU64};

constants! { CONSTANTS:
    /// Major layout version: an opener of another major version must refuse.
    LAYOUT_MAJOR: u16 = 1;
    /// Minor layout version: a higher one may only append.
    LAYOUT_MINOR: u16 = 0;
    /// Value of `byte_order`: reads differently on the other endianness.
    BYTE_ORDER: u32 = 0x0102_0304;
    /// Bytes of a heap unit.
    UNIT_SIZE: u64 = 256;
    /// The most participants a segment can be created for.
    MAX_PARTICIPANTS: u32 = 4093;
    /// Slot number that means nobody.
    SLOT_NOBODY: u32 = 0xFFF;
    /// Slot number that means poisoned.
    SLOT_POISON: u32 = 0xFFE;
    /// Offset of the lock byte of participant slot 0; slot n has the byte n further on.
    LOCK_SLOTS: u64 = 1 << 62;
    /// Offset of the lock byte LIFE: opening, detaching and unlinking.
    LOCK_LIFE: u64 = (1 << 62) + 8192;
    /// Offset of the lock byte RECOVERY.
    LOCK_RECOVERY: u64 = (1 << 62) + 8193;
    /// Offset of the lock byte GROWTH.
    LOCK_GROWTH: u64 = (1 << 62) + 8194;
    /// Slot state: nobody.
    STATE_FREE: u32 = 0;
    /// Slot state: a participant.
    STATE_ACTIVE: u32 = 1;
    /// Slot state: dead, being recovered, or waiting for an object that could not be recovered yet.
    STATE_RECOVERING: u32 = 2;
    /// Life policy: the name stays until it is unlinked.
    POLICY_MANUAL: u32 = 0;
    /// Life policy: the last participant that leaves unlinks the name.
    POLICY_ON_LAST_DETACH: u32 = 1;
    /// Life policy: the name goes when its creator is gone.
    POLICY_ON_OWNER_EXIT: u32 = 2;
    /// Publishers use a full fence.
    BARRIER_FULL: u32 = 0;
    /// Publishers use a compiler fence and sleepers pay for `membarrier(GLOBAL_EXPEDITED)`.
    BARRIER_ASYMMETRIC: u32 = 1;
    /// Object entry: free.
    ENTRY_FREE: u32 = 0;
    /// Object entry: being built by its owner.
    ENTRY_BUILD: u32 = 1;
    /// Object entry: usable.
    ENTRY_LIVE: u32 = 2;
    /// Object entry: being destroyed by its owner.
    ENTRY_DYING: u32 = 3;
}

/// First eight bytes of a segment.
pub const MAGIC: [u8; 8] = *b"SHMKIT\x1a\n";

layout! {
    /// The first bytes of a segment. Everything before `committed` is written before the segment has a name and never again.
    struct SegmentHeader: 256 bytes, aligned 64 {
        /// `SHMKIT\x1a\n`.
        0 => magic: [u8; 8],
        /// `BYTE_ORDER` in the creator's byte order.
        8 => byte_order: u32,
        /// Major layout version.
        12 => layout_major: u16,
        /// Minor layout version.
        14 => layout_minor: u16,
        /// Bytes of this header.
        16 => header_size: u32,
        /// Slots of the registry.
        20 => max_participants: u32,
        /// Bytes of address space the segment needs; the length of the file.
        24 => max_size: u64,
        /// Page size of the creator in bytes.
        32 => page_size: u32,
        /// Bytes of a heap unit.
        36 => unit_size: u32,
        /// 128 random bits that identify the segment.
        40 => segment_id: [u64; 2],
        /// Offset of the registry.
        56 => registry_offset: u64,
        /// Offset of the object table.
        64 => objects_offset: u64,
        /// Entries of the object table.
        72 => objects_capacity: u32,
        /// How sleepers and publishers are ordered: `BARRIER_…`.
        76 => barrier: u32,
        /// Offset of the unit words.
        80 => units_offset: u64,
        /// Offset of the heap.
        88 => heap_offset: u64,
        /// Units the heap can grow to.
        96 => heap_units_max: u64,
        /// When the name goes: `POLICY_…`.
        104 => policy: u32,
        /// User id of the creator.
        108 => creator_uid: u32,
        /// When it was created: nanoseconds since 1970.
        112 => created_ns: u64,
        /// Slot (low half) and generation (high half) of the creator.
        120 => creator: u64,
        /// Name or label, UTF-8, padded with zeros.
        128 => label: [u8; 64],
        /// Heap units that are backed by memory. Grows only.
        192 => committed: AtomicU64,
        /// Entries of the object table that are backed by memory. Grows only.
        200 => objects_high: AtomicU32,
        /// Where the next participant looks for a free slot. A hint.
        204 => next_slot: AtomicU32,
        /// Participants recovered after their death.
        208 => recoveries: AtomicU64,
        /// Mutex of the heap's walk.
        216 => heap_lock: AtomicU32,
        /// Mutex of names.
        220 => directory_lock: AtomicU32,
        /// Unit where the next walk starts: an extent's head, or 0.
        224 => heap_hint: AtomicU32,
        /// Wait word: an object became usable or free.
        228 => directory_event: AtomicU32,
        /// Heap units in use. A hint.
        232 => units_used: AtomicU64,
        /// 1 once free memory was given back to the system: free extents may have pages without memory from then on.
        240 => trimmed: AtomicU32,
        /// Zero.
        244 => reserved0: u32,
        /// Zero.
        248 => reserved: u64,
    }

    /// One participant. The slot is his while the lock byte `LOCK_SLOTS` + slot number is held.
    struct ParticipantSlot: 64 bytes, aligned 64 {
        /// `STATE_…`.
        0 => state: AtomicU32,
        /// Goes up by one at each attach and each recovery.
        4 => generation: AtomicU32,
        /// Process id in its own PID namespace.
        8 => pid: AtomicU32,
        /// Effective user id.
        12 => uid: AtomicU32,
        /// Inode number of its PID namespace.
        16 => pid_namespace: AtomicU64,
        /// Start time of the process in clock ticks since boot.
        24 => start_time: AtomicU64,
        /// Name of the process, UTF-8, padded with zeros.
        32 => name: [AtomicU64; 4],
    }

    /// One object: its state, its place in the heap, who keeps it alive, its name.
    struct ObjectEntry: 128 bytes, aligned 64 {
        /// State, owner and version: [`crate::words::Entry`].
        0 => word: AtomicU64,
        /// `KIND_…`.
        8 => kind: AtomicU32,
        /// Identity of what lies here: goes up with each object built in this entry.
        12 => generation: AtomicU32,
        /// The body's extent: [`crate::words::ExtentRef`].
        16 => body: AtomicU64,
        /// First further chunk of reference cells: [`crate::words::ExtentRef`] or 0.
        24 => more: AtomicU64,
        /// Reference cells: [`crate::words::Cell`].
        32 => cells: [AtomicU64; 4],
        /// Name, UTF-8, padded with zeros; all zeros for an object without a name.
        64 => name: [AtomicU64; 8],
    }

    /// Further reference cells of an object that has many holders.
    struct ReferenceChunk: 256 bytes, aligned 64 {
        /// The next chunk: [`crate::words::ExtentRef`] or 0.
        0 => more: AtomicU64,
        /// Reference cells.
        8 => cells: [AtomicU64; 31],
    }
}
