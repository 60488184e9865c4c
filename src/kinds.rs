//! The kinds of objects and what recovery does with each: the one place that knows them all.

use crate::segment::{Attachment, Dead, Extent};
pub(crate) use shmkit_layouts::kinds::name;
use shmkit_layouts::kinds::*;

/// What the segment asks of a kind of object. Every function treats the body as hostile bytes.
pub(crate) struct Kind {
    /// `KIND_…`.
    pub kind: u32,
    /// Layout version of the body: major in the high half.
    pub layout: u32,
    /// Repairs what a dead participant left in the object: idempotent, never waits.
    pub recover: fn(&Attachment, &Extent, Dead),
    /// Frees what the object owns beside its body; true if it held messages that name objects.
    pub destroy: fn(&Attachment, &Extent) -> bool,
    /// Visits every extent the object owns beside its body, by reference.
    pub extents: fn(&Attachment, &Extent, &mut dyn FnMut(u64)),
    /// Wakes everybody who waits on the object.
    pub wake: fn(&Attachment, &Extent),
    /// The generation of a message block, for queues.
    pub block_generation: fn(&Attachment, &Extent, u32) -> Option<u32>,
}

impl Kind {
    /// A kind with nothing to repair, destroy or wake.
    pub(crate) const fn plain(kind: u32) -> Kind {
        Kind {
            kind,
            layout: 1 << 16,
            recover: |_, _, _| {},
            destroy: |_, _| false,
            extents: |_, _, _| {},
            wake: |_, _| {},
            block_generation: |_, _, _| None,
        }
    }
}

/// The kind of that number, if this version knows it.
pub(crate) fn find(kind: u32) -> Option<&'static Kind> {
    match kind {
        KIND_LOCK | KIND_MUTEX => Some(&crate::sync::mutex::KIND),
        KIND_RLOCK => Some(&crate::sync::rlock::KIND),
        KIND_SEMAPHORE => Some(&crate::sync::semaphore::KIND),
        KIND_EVENT => Some(&crate::sync::event::KIND),
        KIND_RWLOCK => Some(&crate::sync::readers::KIND),
        KIND_ONCE => Some(&crate::sync::once::KIND),
        KIND_PERMITS => Some(&crate::sync::permits::KIND),
        KIND_VALUE => Some(&crate::data::value::KIND),
        KIND_ARRAY => Some(&crate::data::array::KIND),
        KIND_POOL => Some(&crate::pool::KIND),
        KIND_SPAWN => Some(&crate::process::KIND),
        KIND_QUEUE => Some(&crate::channel::queue::KIND),
        KIND_POD_QUEUE => Some(&crate::channel::pod::KIND),
        KIND_CONNECTION => Some(&crate::channel::connection::KIND),
        _ => None,
    }
}
