//! A segment in ordinary memory, and a registry in which everybody lives.

#[path = "../../../../src/segment/claim.rs"]
pub(crate) mod claim;
mod heap;
pub(crate) mod object;
#[path = "../../../../src/segment/wait.rs"]
pub(crate) mod wait;

use crate::error::{Holder, Result, corrupt};
use crate::sys::atomic::AtomicU32;
use shmkit_layouts::words::Token;
use std::sync::Arc;

pub(crate) use heap::{Extent, Heap, Map};

macro_rules! atomic {
    ($pointer:expr, $field:ident) => {
        // SAFETY: the pointer is to a struct that the test keeps; the reference is to an atomic only.
        unsafe { &*(&raw const (*$pointer).$field) }
    };
}
pub(crate) use atomic;

macro_rules! fetch {
    ($pointer:expr, $field:ident) => {
        // SAFETY: as in `atomic`; nobody writes plain fields during a test.
        unsafe { std::ptr::read_volatile(&raw const (*$pointer).$field) }
    };
}
pub(crate) use fetch;

/// Ends of waits by signals: there are none.
pub(crate) mod interrupt {
    pub(crate) fn check() -> crate::error::Result<()> {
        Ok(())
    }
}

/// For waits on several words, which are not tested here.
pub(crate) mod wait_many {
    use super::Attachment;
    use crate::error::Result;
    use crate::sys::atomic::AtomicU32;

    pub(crate) trait Wakeable {
        fn attachment(&self) -> &Attachment;
        fn word(&self) -> &AtomicU32;
        fn is_ready(&self) -> Result<bool>;
    }
}

#[derive(Debug)]
pub(crate) struct Geometry {
    pub(crate) max_participants: u32,
    pub(crate) heap: u64,
}

/// Nobody is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dead {
    pub(crate) slot: u32,
}

impl Dead {
    pub(crate) fn token(self) -> Token {
        Token::new(self.slot, 1)
    }
}

/// An object whose handle is in a value: there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObjectId;

/// A participant: one thread of a test.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) geometry: Geometry,
    token: AtomicU32,
    me: Token,
    /// What lies in the segment: offsets and where they lie in truth.
    parts: Vec<(u64, *const u8)>,
    /// The containers' memory.
    pub(crate) map: Map,
    heap: Option<Arc<Heap>>,
}

// SAFETY: the pointers are to what the test keeps as long as its threads, and are used for atomics.
unsafe impl Send for Attachment {}
// SAFETY: as above.
unsafe impl Sync for Attachment {}

impl Attachment {
    /// The participant in `slot`.
    pub(crate) fn new(slot: u32) -> Attachment {
        Attachment::with(slot, Vec::new())
    }

    pub(crate) fn with(slot: u32, parts: Vec<(u64, *const u8)>) -> Attachment {
        // Nobody sleeps less for spinning: loom has no time.
        wait::set_spin_time(std::time::Duration::ZERO);
        let me = Token::new(slot, 1);
        let geometry = Geometry { max_participants: 8, heap: heap::START };
        Attachment { geometry, token: AtomicU32::new(me.0), me, parts, map: Map::default(), heap: None }
    }

    /// The participant in `slot` of a segment with a heap.
    pub(crate) fn to_heap(slot: u32, heap: &Arc<Heap>) -> Attachment {
        let (parts, map, heap) = (heap.headers(), heap.map(), Some(Arc::clone(heap)));
        Attachment { map, heap, ..Attachment::with(slot, parts) }
    }

    pub(crate) fn token(&self) -> Result<Token> {
        Ok(self.me)
    }

    pub(crate) fn token_word(&self) -> &AtomicU32 {
        &self.token
    }

    pub(crate) fn is_dead(&self, _: Token) -> bool {
        false
    }

    pub(crate) fn holder(&self, _: Token) -> Option<Holder> {
        None
    }

    pub(crate) fn offset_of(&self, _: &AtomicU32) -> u64 {
        0
    }

    pub(crate) fn bury(&self, _: Token) {}

    pub(crate) fn recover_dead(&self) -> usize {
        0
    }

    pub(crate) fn own_slot(&self) -> Option<u32> {
        Some(self.me.slot())
    }

    pub(crate) fn offset_of_pointer(&self, _: *const u8) -> u64 {
        0
    }

    pub(crate) fn add_reference(&self, _: ObjectId, _: shmkit_layouts::words::Cell) -> Result<()> {
        Ok(())
    }

    pub(crate) fn check_all(&self, _: u32) {}

    pub(crate) fn pointer<T>(&self, offset: u64, what: &'static str) -> Result<*const T> {
        let part = self.parts.iter().find(|(at, _)| *at == offset);
        part.map(|(_, part)| part.cast()).ok_or_else(|| corrupt(what, offset, 0))
    }
}
