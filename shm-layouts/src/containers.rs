//! Dicts, lists and what they are made of: an arena of blocks, and the structs that lie in the blocks.
//!
//! ```text
//! object body    header | container's own struct (128 bytes) | ArenaBody
//! slab extent    SlabHeader | block | block | …                    blocks of one size
//! large extent   SlabHeader | block
//! block          word | contents                                   word: [`crate::words::Piece`]
//! ```

use crate::atomic::{AtomicU32, AtomicU64};

constants! { CONSTANTS:
    /// Arena: classes of blocks there is room for.
    ARENA_CLASSES: u32 = 32;
    /// Arena: class of a block that has an extent of its own.
    ARENA_LARGE: u32 = 63;
    /// Arena: pages of anchors; page k has `ANCHOR_FIRST` << k of them.
    ANCHOR_PAGES: u32 = 13;
    /// Arena: anchors of the first page.
    ANCHOR_FIRST: u32 = 64;
    /// Dict: index slots of one page of a large table.
    DICT_INDEX_PAGE: u64 = 8192;
    /// Dict: entries of one page of a large table.
    DICT_ENTRY_PAGE: u64 = 4096;
    /// Dict: the most index slots of a table without pages.
    DICT_TABLE_INLINE: u64 = 4096;
    /// List: the most slots of a chunk.
    LIST_CHUNK_SLOTS: u64 = 510;
    /// Heap: its roots.
    HEAP_ROOTS: u64 = 16;
}

layout! {
    /// The blocks of one container and the lock of its writers. Everything but `lock` is written by the lock's owner only.
    struct ArenaBody: 1088 bytes, aligned 64 {
        /// Mutex word of the writers.
        0 => lock: AtomicU32,
        /// Zero.
        4 => reserved0: AtomicU32,
        /// Elements of the container.
        8 => length: AtomicU64,
        /// Last generation given to a block. Starts anywhere.
        16 => generation: AtomicU64,
        /// The list of extents ([`crate::words::ExtentRef`]): an extent of one `ExtentRef` or 0 each.
        24 => table: AtomicU64,
        /// The extent that is being added as a slab, or 0.
        32 => fresh: AtomicU64,
        /// Where a free place in the list of extents is looked for. A hint.
        40 => cursor: AtomicU32,
        /// Extents in the list. A repair counts them again.
        44 => registered: AtomicU32,
        /// Bytes of the extents in the list and of the list itself. A repair adds them up again.
        48 => bytes: AtomicU64,
        /// The most bytes there may be; 0 for no limit.
        56 => quota: AtomicU64,
        /// Journal: offset of the word that is the commit point, from the start of the segment; 0 while there is none.
        64 => cell: AtomicU64,
        /// Journal: what that word becomes.
        72 => value: AtomicU64,
        /// Journal: offset of a word that is made zero again if there is no commit, or 0.
        80 => undo: AtomicU64,
        /// Journal: `length` after the commit.
        88 => next_length: AtomicU64,
        /// Journal: new blocks ([`crate::words::Link`]), freed if there is no commit.
        96 => added: [AtomicU64; 4],
        /// Journal: blocks that are freed after the commit.
        128 => old: [AtomicU64; 4],
        /// Journal: a new bundle, freed with its members if there is no commit.
        160 => new_bundle: AtomicU64,
        /// Journal: a bundle that is freed with its members after the commit.
        168 => old_bundle: AtomicU64,
        /// Journal: a bundle that lists new blocks: they are freed if there is no commit, the bundle in any case.
        176 => record: AtomicU64,
        /// Journal: a bundle that lists old blocks: they are freed after the commit, the bundle in any case.
        184 => garbage: AtomicU64,
        /// For each class the first free block: its offset / 16, or 0. The next one stands in the block's second word.
        192 => free: [AtomicU64; 32],
        /// For each class where the unused rest of its newest slab starts: offset / 16.
        448 => rest: [AtomicU64; 32],
        /// For each class where that rest ends.
        704 => rest_end: [AtomicU64; 32],
        /// Pages of anchors ([`crate::words::Link`]), or 0.
        960 => anchors: [AtomicU64; 13],
        /// Where a free anchor is looked for. A hint.
        1064 => anchor_hint: AtomicU32,
        /// Zero.
        1068 => reserved1: [AtomicU32; 5],
    }

    /// The start of an extent of an arena.
    struct SlabHeader: 64 bytes, aligned 64 {
        /// Class of the blocks, `ARENA_LARGE` for a single block.
        0 => size_class: AtomicU32,
        /// Place in the arena's list of extents.
        4 => slot: AtomicU32,
        /// Zero.
        8 => reserved: [AtomicU64; 7],
    }

    /// A block that has others. Their links follow at byte 64.
    struct BundleHeader: 64 bytes, aligned 8 {
        /// [`crate::words::Piece`].
        0 => word: AtomicU64,
        /// Links there is room for; 0 in a link means none.
        8 => count: AtomicU64,
        /// Links whose blocks are freed already, while the bundle is being freed.
        16 => freed: AtomicU64,
        /// Zero, or what the kind of bundle says.
        24 => reserved: [AtomicU64; 5],
    }

    /// A value in a list, or a key and a value in a dict. After the header: the anchor's number if the block has one; the key,
    /// padded with zeros to a multiple of 8; the value, padded likewise. Never changed while it is reachable.
    struct NodeHeader: 16 bytes, aligned 8 {
        /// [`crate::words::Piece`].
        0 => word: AtomicU64,
        /// [`crate::words::NodeInfo`].
        8 => info: AtomicU64,
    }

    /// A dict's own struct. `seed` never changes, `root` seldom; the second half is the lock owner's.
    struct DictBody: 128 bytes, aligned 64 {
        /// The table ([`crate::words::Link`]), or 0 before the first insertion.
        0 => root: AtomicU64,
        /// Seed of the hash.
        8 => seed: u64,
        /// Zero.
        16 => reserved0: [AtomicU64; 6],
        /// Entries of the table in use, deleted ones included.
        64 => used: AtomicU64,
        /// No entry from here on is in use. A hint, at most `used`.
        72 => tail: AtomicU64,
        /// The table that is being built, or 0.
        80 => next: AtomicU64,
        /// Entries of the table that were copied to the next one.
        88 => copied: AtomicU64,
        /// Entries of the next table in use.
        96 => next_used: AtomicU64,
        /// Pages of the next table that are there.
        104 => next_pages: AtomicU64,
        /// Zero.
        112 => reserved1: [AtomicU64; 2],
    }

    /// A dict's table: a bundle of its pages. A small table has none: `slots` index slots ([`crate::words::IndexSlot`])
    /// follow at byte 64, then `capacity` entries. Otherwise pages of `DICT_INDEX_PAGE` index slots, then pages of `DICT_ENTRY_PAGE` entries;
    /// what is in a page starts at its byte 16.
    struct TableHeader: 64 bytes, aligned 8 {
        /// [`crate::words::Piece`].
        0 => word: AtomicU64,
        /// Pages.
        8 => count: AtomicU64,
        /// As in a bundle.
        16 => freed: AtomicU64,
        /// Index slots: a power of two.
        24 => slots: AtomicU64,
        /// Entries.
        32 => capacity: AtomicU64,
        /// Zero.
        40 => reserved: [AtomicU64; 3],
    }

    /// An entry of a dict's table.
    struct DictEntry: 16 bytes, aligned 8 {
        /// The node ([`crate::words::Link`]); 0 before the entry is used; `LINK_DELETED`.
        0 => link: AtomicU64,
        /// Hash of the key, 32 bits.
        8 => hash: AtomicU64,
    }

    /// A list's own struct. The second half is the lock owner's.
    struct ListBody: 128 bytes, aligned 64 {
        /// The directory ([`crate::words::Link`]), or 0 before the first insertion.
        0 => root: AtomicU64,
        /// Zero.
        8 => reserved0: [AtomicU64; 7],
        /// Where the next element goes if the list has `tail_length` elements and this is not `tail_end`: offset of a slot from the
        /// start of the segment.
        64 => tail: AtomicU64,
        /// Offset of the end of that slot's chunk.
        72 => tail_end: AtomicU64,
        /// See `tail`. 2^64 - 1 for never.
        80 => tail_length: AtomicU64,
        /// Zero.
        88 => reserved1: [AtomicU64; 5],
    }

    /// A list's directory: a bundle of its chunks, in order. After the `count` links: for each chunk the index of its first
    /// element.
    struct DirectoryHeader: 64 bytes, aligned 8 {
        /// [`crate::words::Piece`].
        0 => word: AtomicU64,
        /// Chunks there is room for.
        8 => count: AtomicU64,
        /// As in a bundle.
        16 => freed: AtomicU64,
        /// Zero.
        24 => reserved: [AtomicU64; 5],
    }

    /// A chunk of a list: slots follow, each the link of a node or 0.
    struct ChunkHeader: 16 bytes, aligned 8 {
        /// [`crate::words::Piece`].
        0 => word: AtomicU64,
        /// Slots.
        8 => capacity: AtomicU64,
    }

    /// A dict in parts: `shards` times a `DictBody` and an `ArenaBody`, at byte 64, 1216 bytes each.
    struct ShardedBody: 64 bytes, aligned 64 {
        /// Parts: a power of two, at most 256.
        0 => shards: u32,
        /// Zero.
        4 => reserved0: u32,
        /// Seed of the hash that chooses the part.
        8 => seed: u64,
        /// Zero.
        16 => reserved: [u64; 6],
    }

    /// A heap of a user's boxes: its roots.
    struct HeapBody: 128 bytes, aligned 64 {
        /// Each a box ([`crate::words::Link`]), or 0.
        0 => roots: [AtomicU64; 16],
    }

    /// A box of a heap: its links follow at byte 16, then its value, padded with zeros to a multiple of 8.
    struct BoxHeader: 16 bytes, aligned 8 {
        /// [`crate::words::Piece`].
        0 => word: AtomicU64,
        /// Links.
        8 => links: AtomicU32,
        /// Bytes of the value.
        12 => len: AtomicU32,
    }

    /// A counter: the sum of its stripes, modulo 2^64. Stripes of 64 bytes follow.
    struct CounterBody: 64 bytes, aligned 64 {
        /// Stripes: a power of two.
        0 => stripes: u32,
        /// Zero.
        4 => reserved: [u32; 15],
    }

    /// A part of a counter.
    struct CounterStripe: 64 bytes, aligned 64 {
        /// What was added here.
        0 => sum: AtomicU64,
        /// Zero.
        8 => reserved: [AtomicU64; 7],
    }

    /// Bytes that never change: text, bytes, elements. They follow.
    struct FrozenBody: 64 bytes, aligned 64 {
        /// Bytes.
        0 => len: u64,
        /// `TAG_UTF8`, `TAG_BYTES`, or `TAG_POD` for elements as the object's header describes them.
        8 => tag: u32,
        /// Zero.
        12 => reserved: [u32; 13],
    }
}
