//! How the words of [`crate::words`] are packed, as data: for the generators and for ports.
//!
//! The tests of this module hold it against `pack` and `unpack`, so that neither can drift from the other.

use crate::reflect::{BitField, Word};

const fn field(name: &'static str, shift: u32, bits: u32, doc: &'static str) -> BitField {
    BitField { name, shift, bits, doc }
}

/// Every packed word.
pub const WORDS: &[Word] = &[
    Word {
        name: "Token",
        doc: "A participant's token; never 0.",
        bits: 32,
        fields: &[
            field("slot", 0, 12, "Slot of the registry."),
            field("generation", 12, 18, "Low bits of the slot's generation."),
        ],
    },
    Word {
        name: "Mutex",
        doc: "A lock word; 0 when free.",
        bits: 32,
        fields: &[
            field("slot", 0, 12, "The owner's slot, `SLOT_NOBODY` or `SLOT_POISON`."),
            field("generation", 12, 18, "The owner's generation, as in its token."),
            field("recover", 30, 1, "The last owner died or panicked inside."),
            field("contended", 31, 1, "Somebody may sleep on the word."),
        ],
    },
    Word {
        name: "Event",
        doc: "A wait word.",
        bits: 32,
        fields: &[
            field("sequence", 0, 29, "Goes up with every wake-up."),
            field("proven", 29, 1, "Every publisher knows that it is fenced."),
            field("fenced", 30, 1, "Publishers put a fence between their change and their look at the word."),
            field("waiting", 31, 1, "Somebody may sleep on the word."),
        ],
    },
    Word {
        name: "Entry",
        doc: "State of an object entry.",
        bits: 64,
        fields: &[
            field("state", 0, 4, "`ENTRY_…`."),
            field("owner", 4, 12, "Slot of who builds or destroys it; 0 otherwise."),
            field("version", 32, 32, "Goes up with every change."),
        ],
    },
    Word {
        name: "Task",
        doc: "A task of a pool.",
        bits: 64,
        fields: &[
            field("state", 0, 4, "`TASK_…`."),
            field("owner", 4, 12, "Slot of the worker that runs it, or ran it; 0 otherwise."),
            field("generation", 32, 32, "Goes up with every task that uses the word."),
        ],
    },
    Word {
        name: "Share",
        doc: "What a worker has of a chunk of a pool's tasks.",
        bits: 64,
        fields: &[
            field("next", 0, 16, "The first element that is not begun."),
            field("end", 16, 16, "Elements that are this worker's."),
            field("generation", 32, 32, "The generation of the task's word."),
        ],
    },
    Word {
        name: "Published",
        doc: "Which outcomes of a run lie in its worker's `PoolRun`.",
        bits: 64,
        fields: &[
            field("first", 0, 16, "The number in the run of the task whose outcome is the first."),
            field("count", 16, 16, "How many there are."),
            field("bytes", 32, 32, "How many bytes they have."),
        ],
    },
    Word {
        name: "BarrierState",
        doc: "State of a barrier.",
        bits: 64,
        fields: &[
            field("phase", 0, 4, "`BARRIER_…`."),
            field("owner", 4, 12, "Slot of who runs the action; `BROKEN_…` of a broken one; 0 otherwise."),
            field("round", 32, 32, "Goes up with every round, passed or reset."),
        ],
    },
    Word {
        name: "Arrival",
        doc: "One party at a barrier.",
        bits: 64,
        fields: &[
            field("token", 0, 32, "The participant's token; 0 if it has left, or nobody came."),
            field("round", 32, 32, "The round in which it came, or in which the word was used last."),
        ],
    },
    Word {
        name: "Waiter",
        doc: "One who waits at a condition; 0 when free.",
        bits: 64,
        fields: &[
            field("token", 0, 30, "The participant's token."),
            field("state", 30, 2, "`WAITER_…`."),
            field("ordinal", 32, 32, "Which thread of it: a number it gives to no second thread."),
        ],
    },
    Word {
        name: "Unit",
        doc: "A heap unit's word.",
        bits: 64,
        fields: &[
            field("len", 0, 26, "Units of the extent."),
            field("state", 26, 2, "`UNIT_…`."),
            field("owner", 28, 12, "Slot of the holder; 0 unless `UNIT_HELD`."),
            field("generation", 40, 24, "Goes up whenever an extent that starts here is freed."),
        ],
    },
    Word {
        name: "ExtentRef",
        doc: "Names an extent; 0 for none.",
        bits: 64,
        fields: &[
            field("unit_plus_1", 0, 32, "First unit, plus 1."),
            field("generation", 40, 24, "Generation of that unit's word when the extent was allocated."),
        ],
    },
    Word {
        name: "Cell",
        doc: "A reference cell; 0 when free.",
        bits: 64,
        fields: &[
            field("generation", 0, 24, "Low bits of the generation of the slot or the block."),
            field("id", 24, 18, "The slot, or the block's index."),
            field("object", 42, 16, "For a block: the index of the queue's entry."),
            field("role", 58, 4, "What the holder may do: `ROLE_…`."),
            field("kind", 62, 2, "`CELL_…`."),
        ],
    },
    Word {
        name: "Slot",
        doc: "A slot of a queue's ring.",
        bits: 64,
        fields: &[
            field("index", 0, 18, "The block."),
            field("owner", 18, 12, "Slot of the consumer; 0 unless `SLOT_TAKEN`."),
            field("state", 30, 2, "`SLOT_FREE`, `SLOT_READY`, `SLOT_TAKEN` or `SLOT_END`."),
            field("lap", 32, 32, "Which round of the ring this is."),
        ],
    },
    Word {
        name: "Block",
        doc: "A queue block's word.",
        bits: 64,
        fields: &[
            field("deliveries", 0, 16, "How often its message was delivered again."),
            field("state", 16, 4, "`BLOCK_…`."),
            field("owner", 20, 12, "Slot of the owner; 0 unless somebody writes, reads or releases it."),
            field("generation", 32, 32, "Goes up with every loan."),
        ],
    },
    Word {
        name: "Piece",
        doc: "The first word of an arena's block.",
        bits: 64,
        fields: &[
            field("state", 0, 2, "`PIECE_…`."),
            field("anchored", 2, 1, "1 if the block keeps objects alive through an anchor."),
            field("class", 4, 6, "Class of its size, or `ARENA_LARGE`."),
            field("owner", 12, 12, "Slot of the holder; 0 unless `PIECE_HELD`."),
            field("generation", 24, 40, "A new one whenever the block is freed."),
        ],
    },
    Word {
        name: "Link",
        doc: "Names a block of an arena; 0 for none.",
        bits: 64,
        fields: &[
            field("place", 0, 36, "Bytes from the start of the segment, divided by 16."),
            field("generation", 36, 27, "Low bits of the block's generation."),
            field("is_small", 63, 1, "0. A slot of a list with 1 is a `Small`."),
        ],
    },
    Word {
        name: "Small",
        doc: "An element of a list in the slot itself, where a `Link` would be.",
        bits: 64,
        fields: &[
            field(
                "data",
                0,
                56,
                "The value's bytes, the first of them lowest. Of a `TAG_I64` the lower seven, the last being its sign's; of a \
                 `TAG_F64` the upper seven, the lowest being 0.",
            ),
            field("len", 56, 3, "How many bytes; 7 for a `TAG_I64` and a `TAG_F64`."),
            field("tag", 59, 4, "`TAG_…`."),
            field("is_small", 63, 1, "1."),
        ],
    },
    Word {
        name: "NodeInfo",
        doc: "What a node holds.",
        bits: 64,
        fields: &[
            field("value_len", 0, 32, "Bytes of the value."),
            field("key_len", 32, 24, "Bytes of the key; 0 in a list."),
            field("key_tag", 56, 4, "`TAG_…` of the key."),
            field("value_tag", 60, 4, "`TAG_…` of the value."),
        ],
    },
    Word {
        name: "IndexSlot",
        doc: "A slot of a dict's index; 0 while it is empty. Written once.",
        bits: 64,
        fields: &[
            field("entry_plus_1", 0, 32, "Number of the entry, plus 1."),
            field("hash", 32, 32, "Hash of the entry's key."),
        ],
    },
    Word {
        name: "Anchor",
        doc: "What a block is known by in the reference cells of the objects it keeps alive; 0 while it is free.",
        bits: 64,
        fields: &[
            field("place", 0, 36, "The block's place, as in its links."),
            field("generation", 40, 24, "Low bits of the block's generation."),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{
        Anchor, Arrival, BarrierState, Block, Cell, Entry, ExtentRef, IndexSlot, Link, MUTEX_CONTENDED, MUTEX_OWNER,
        MUTEX_RECOVER, NodeInfo, Piece, Published, Share, Slot, Small, Task, Token, Unit, Waiter,
    };

    fn mask(word: &str, field: &str) -> u64 {
        let word = WORDS.iter().find(|found| found.name == word).expect("a word of that name");
        word.fields.iter().find(|found| found.name == field).expect("a field of that name").mask()
    }

    #[test]
    fn fields_do_not_overlap_and_fit_their_word() {
        for word in WORDS {
            let mut seen = 0;
            for field in word.fields {
                assert_eq!(seen & field.mask(), 0, "{}.{} overlaps", word.name, field.name);
                assert!(field.shift + field.bits <= word.bits, "{}.{} sticks out", word.name, field.name);
                seen |= field.mask();
            }
        }
    }

    /// A field full of ones, all others zero, packs to the mask of the table; a word full of ones unpacks to full fields.
    #[test]
    fn the_table_says_what_pack_does() {
        const ONES: u32 = u32::MAX;
        assert_eq!(u64::from(Token::new(ONES, 0).0), mask("Token", "slot"));
        assert_eq!(u64::from(Token::new(0, ONES).0), mask("Token", "generation"));
        assert_eq!(u64::from(MUTEX_OWNER), mask("Mutex", "slot") | mask("Mutex", "generation"));
        assert_eq!(u64::from(MUTEX_RECOVER), mask("Mutex", "recover"));
        assert_eq!(u64::from(MUTEX_CONTENDED), mask("Mutex", "contended"));
        assert_eq!(u64::from(crate::words::EVENT_WAITING), mask("Event", "waiting"));
        assert_eq!(u64::from(crate::words::EVENT_FENCED), mask("Event", "fenced"));
        assert_eq!(u64::from(crate::words::EVENT_PROVEN), mask("Event", "proven"));

        let entry = Entry::unpack(0);
        assert_eq!(Entry { state: ONES, ..entry }.pack(), mask("Entry", "state"));
        assert_eq!(Entry { owner: ONES, ..entry }.pack(), mask("Entry", "owner"));
        assert_eq!(Entry { version: ONES, ..entry }.pack(), mask("Entry", "version"));

        let task = Task::unpack(0);
        assert_eq!(Task { state: ONES, ..task }.pack(), mask("Task", "state"));
        assert_eq!(Task { owner: ONES, ..task }.pack(), mask("Task", "owner"));
        assert_eq!(Task { generation: ONES, ..task }.pack(), mask("Task", "generation"));

        let share = Share::unpack(0);
        assert_eq!(Share { next: ONES, ..share }.pack(), mask("Share", "next"));
        assert_eq!(Share { end: ONES, ..share }.pack(), mask("Share", "end"));
        assert_eq!(Share { generation: ONES, ..share }.pack(), mask("Share", "generation"));

        let published = Published::unpack(0);
        assert_eq!(Published { first: ONES, ..published }.pack(), mask("Published", "first"));
        assert_eq!(Published { count: ONES, ..published }.pack(), mask("Published", "count"));
        assert_eq!(Published { bytes: ONES, ..published }.pack(), mask("Published", "bytes"));

        let state = BarrierState::unpack(0);
        assert_eq!(BarrierState { phase: ONES, ..state }.pack(), mask("BarrierState", "phase"));
        assert_eq!(BarrierState { owner: ONES, ..state }.pack(), mask("BarrierState", "owner"));
        assert_eq!(BarrierState { round: ONES, ..state }.pack(), mask("BarrierState", "round"));

        let arrival = Arrival::unpack(0);
        assert_eq!(Arrival { token: ONES, ..arrival }.pack(), mask("Arrival", "token"));
        assert_eq!(Arrival { round: ONES, ..arrival }.pack(), mask("Arrival", "round"));

        let waiter = Waiter::unpack(0);
        assert_eq!(Waiter { token: ONES, ..waiter }.pack(), mask("Waiter", "token"));
        assert_eq!(Waiter { state: ONES, ..waiter }.pack(), mask("Waiter", "state"));
        assert_eq!(Waiter { ordinal: ONES, ..waiter }.pack(), mask("Waiter", "ordinal"));

        let unit = Unit::unpack(0);
        assert_eq!(Unit { len: ONES, ..unit }.pack(), mask("Unit", "len"));
        assert_eq!(Unit { state: u64::MAX, ..unit }.pack(), mask("Unit", "state"));
        assert_eq!(Unit { owner: ONES, ..unit }.pack(), mask("Unit", "owner"));
        assert_eq!(Unit { generation: ONES, ..unit }.pack(), mask("Unit", "generation"));

        let all = ExtentRef::unpack(u64::MAX).expect("not 0");
        assert_eq!(u64::from(all.unit) + 1, mask("ExtentRef", "unit_plus_1"));
        assert_eq!(u64::from(all.generation) << 40, mask("ExtentRef", "generation"));
        assert_eq!(all.pack(), mask("ExtentRef", "unit_plus_1") | mask("ExtentRef", "generation"));

        let cell = Cell::unpack(0);
        assert_eq!(Cell { generation: ONES, ..cell }.pack(), mask("Cell", "generation"));
        assert_eq!(Cell { id: ONES, ..cell }.pack(), mask("Cell", "id"));
        assert_eq!(Cell { object: ONES, ..cell }.pack(), mask("Cell", "object"));
        assert_eq!(Cell { role: ONES, ..cell }.pack(), mask("Cell", "role"));
        assert_eq!(Cell { kind: u64::MAX, ..cell }.pack(), mask("Cell", "kind"));

        let slot = Slot::unpack(0);
        assert_eq!(Slot { index: ONES, ..slot }.pack(), mask("Slot", "index"));
        assert_eq!(Slot { owner: ONES, ..slot }.pack(), mask("Slot", "owner"));
        assert_eq!(Slot { state: u64::MAX, ..slot }.pack(), mask("Slot", "state"));
        assert_eq!(Slot { lap: ONES, ..slot }.pack(), mask("Slot", "lap"));

        let block = Block::unpack(0);
        assert_eq!(Block { deliveries: ONES, ..block }.pack(), mask("Block", "deliveries"));
        assert_eq!(Block { state: u64::MAX, ..block }.pack(), mask("Block", "state"));
        assert_eq!(Block { owner: ONES, ..block }.pack(), mask("Block", "owner"));
        assert_eq!(Block { generation: ONES, ..block }.pack(), mask("Block", "generation"));

        let piece = Piece::unpack(0);
        assert_eq!(Piece { state: u64::MAX, ..piece }.pack(), mask("Piece", "state"));
        assert_eq!(Piece { anchored: u64::MAX, ..piece }.pack(), mask("Piece", "anchored"));
        assert_eq!(Piece { class: ONES, ..piece }.pack(), mask("Piece", "class"));
        assert_eq!(Piece { owner: ONES, ..piece }.pack(), mask("Piece", "owner"));
        assert_eq!(Piece { generation: u64::MAX, ..piece }.pack(), mask("Piece", "generation"));

        let link = Link::unpack(0);
        assert_eq!(Link { place: u64::MAX, ..link }.pack(), mask("Link", "place"));
        assert_eq!(Link { generation: u64::MAX, ..link }.pack(), mask("Link", "generation"));

        let small = Small::unpack(0);
        assert_eq!(small.pack(), mask("Small", "is_small"));
        assert_eq!(Small { data: u64::MAX, ..small }.pack() & !Small::BIT, mask("Small", "data"));
        assert_eq!(Small { len: ONES, ..small }.pack() & !Small::BIT, mask("Small", "len"));
        assert_eq!(Small { tag: ONES, ..small }.pack() & !Small::BIT, mask("Small", "tag"));

        let info = NodeInfo::unpack(0);
        assert_eq!(NodeInfo { value_len: ONES, ..info }.pack(), mask("NodeInfo", "value_len"));
        assert_eq!(NodeInfo { key_len: ONES, ..info }.pack(), mask("NodeInfo", "key_len"));
        assert_eq!(NodeInfo { key_tag: ONES, ..info }.pack(), mask("NodeInfo", "key_tag"));
        assert_eq!(NodeInfo { value_tag: ONES, ..info }.pack(), mask("NodeInfo", "value_tag"));

        let all = IndexSlot::unpack(u64::MAX).expect("not 0");
        assert_eq!(u64::from(all.entry) + 1, mask("IndexSlot", "entry_plus_1"));
        assert_eq!(u64::from(all.hash) << 32, mask("IndexSlot", "hash"));

        let anchor = Anchor::unpack(0);
        assert_eq!(Anchor { place: u64::MAX, ..anchor }.pack(), mask("Anchor", "place"));
        assert_eq!(Anchor { generation: ONES, ..anchor }.pack(), mask("Anchor", "generation"));
    }

    /// No field of a word is missing in the table.
    #[test]
    fn the_table_is_complete() {
        let all = |name| {
            let word = WORDS.iter().find(|found| found.name == name).expect("a word of that name");
            word.fields.iter().fold(0, |mask, field| mask | field.mask())
        };
        assert_eq!(Entry::unpack(u64::MAX).pack(), all("Entry"));
        assert_eq!(Task::unpack(u64::MAX).pack(), all("Task"));
        assert_eq!(BarrierState::unpack(u64::MAX).pack(), all("BarrierState"));
        assert_eq!(Arrival::unpack(u64::MAX).pack(), all("Arrival"));
        assert_eq!(Waiter::unpack(u64::MAX).pack(), all("Waiter"));
        assert_eq!(Unit::unpack(u64::MAX).pack(), all("Unit"));
        assert_eq!(Cell::unpack(u64::MAX).pack(), all("Cell"));
        assert_eq!(Slot::unpack(u64::MAX).pack(), all("Slot"));
        assert_eq!(Block::unpack(u64::MAX).pack(), all("Block"));
        assert_eq!(Piece::unpack(u64::MAX).pack(), all("Piece"));
        assert_eq!(Link::unpack(u64::MAX).pack() | Small::BIT, all("Link"));
        assert_eq!(Small::unpack(u64::MAX).pack(), all("Small"));
        assert_eq!(NodeInfo::unpack(u64::MAX).pack(), all("NodeInfo"));
        assert_eq!(Anchor::unpack(u64::MAX).pack(), all("Anchor"));
    }

    #[test]
    fn what_is_packed_unpacks_to_the_same() {
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..10_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            assert_eq!(Entry::unpack(Entry::unpack(seed).pack()), Entry::unpack(seed));
            assert_eq!(Task::unpack(Task::unpack(seed).pack()), Task::unpack(seed));
            assert_eq!(BarrierState::unpack(BarrierState::unpack(seed).pack()), BarrierState::unpack(seed));
            assert_eq!(Arrival::unpack(seed).pack(), seed);
            assert_eq!(Waiter::unpack(seed).pack(), seed);
            assert_eq!(Unit::unpack(Unit::unpack(seed).pack()), Unit::unpack(seed));
            assert_eq!(Cell::unpack(Cell::unpack(seed).pack()), Cell::unpack(seed));
            assert_eq!(Slot::unpack(Slot::unpack(seed).pack()), Slot::unpack(seed));
            assert_eq!(Block::unpack(Block::unpack(seed).pack()), Block::unpack(seed));
            assert_eq!(Piece::unpack(Piece::unpack(seed).pack()), Piece::unpack(seed));
            assert_eq!(Anchor::unpack(Anchor::unpack(seed).pack()), Anchor::unpack(seed));
            // These leave no bit out.
            assert_eq!(Unit::unpack(seed).pack(), seed);
            assert_eq!(Cell::unpack(seed).pack(), seed);
            assert_eq!(Slot::unpack(seed).pack(), seed);
            assert_eq!(Block::unpack(seed).pack(), seed);
            assert_eq!(Link::unpack(seed).pack(), seed & !Small::BIT);
            assert_eq!(Small::unpack(seed).pack(), seed | Small::BIT);
            assert_eq!(NodeInfo::unpack(seed).pack(), seed);
            assert_eq!(IndexSlot::unpack(seed).map_or(seed, IndexSlot::pack), seed);
            if let Some(extent) = ExtentRef::unpack(seed) {
                assert_eq!(ExtentRef::unpack(extent.pack()), Some(extent));
            }
        }
    }
}
