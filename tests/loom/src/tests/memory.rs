//! The memory of one container: its heap, of so many units, and its arena.

use super::arena::Arena;
use crate::segment::{Attachment, Heap};
use loom::thread::{self, JoinHandle};
use shmkit_layouts::containers::ArenaBody;
use std::sync::Arc;

/// A container's struct, its arena, and the heap that these live in.
pub(crate) struct Memory<B> {
    pub(crate) body: B,
    arena: ArenaBody,
    heap: Arc<Heap>,
}

impl<B> Memory<B> {
    /// With a heap of `units`.
    pub(crate) fn new(body: B, units: usize) -> Arc<Memory<B>> {
        let arena = ArenaBody {
            lock: Default::default(),
            reserved0: Default::default(),
            length: Default::default(),
            generation: Default::default(),
            table: Default::default(),
            fresh: Default::default(),
            cursor: Default::default(),
            registered: Default::default(),
            bytes: Default::default(),
            quota: Default::default(),
            cell: Default::default(),
            value: Default::default(),
            undo: Default::default(),
            next_length: Default::default(),
            added: Default::default(),
            old: Default::default(),
            new_bundle: Default::default(),
            old_bundle: Default::default(),
            record: Default::default(),
            garbage: Default::default(),
            free: Default::default(),
            rest: Default::default(),
            rest_end: Default::default(),
            anchors: Default::default(),
            anchor_hint: Default::default(),
            reserved1: Default::default(),
        };
        Arc::new(Memory { body, arena, heap: Arc::new(Heap::new(units)) })
    }

    /// The participant in `slot`.
    pub(crate) fn attach(&self, slot: u32) -> Attachment {
        Attachment::to_heap(slot, &self.heap)
    }

    /// A thread of the participant in slot 1, who changes something.
    pub(crate) fn writer(self: &Arc<Self>, change: impl FnOnce(&Self, &Attachment) + Send + 'static) -> JoinHandle<()>
    where
        Memory<B>: Send + Sync + 'static,
    {
        let memory = Arc::clone(self);
        thread::spawn(move || change(&memory, &memory.attach(1)))
    }

    pub(crate) fn arena<'a>(&'a self, attachment: &'a Attachment) -> Arena<'a> {
        Arena { attachment, body: &raw const self.arena, object: 0, part: (0, 1), what: "container" }
    }
}
