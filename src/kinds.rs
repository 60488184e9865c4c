//! The kinds of objects and what recovery does with each: the one place that knows them all.

use crate::error::Result;
use crate::segment::{Attachment, Dead, Extent};
pub(crate) use shmkit_layouts::kinds::name;

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
    /// The generation of what reference cells call a block of this object: a message's, a value's in a container.
    pub block_generation: fn(&Attachment, &Extent, u32) -> Option<u32>,
    /// Checks what the object has beside its body, in a segment where nobody is in the middle of something.
    pub verify: fn(&Attachment, &Extent) -> Result<()>,
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
            verify: |_, _| Ok(()),
        }
    }
}

/// Every kind there is.
const ALL: &[&Kind] = &[
    &crate::sync::mutex::LOCK,
    &crate::sync::mutex::KIND,
    &crate::sync::rlock::KIND,
    &crate::sync::semaphore::KIND,
    &crate::sync::event::KIND,
    &crate::sync::permits::KIND,
    &crate::sync::readers::KIND,
    &crate::sync::once::KIND,
    &crate::sync::parties::KIND,
    &crate::sync::waiters::KIND,
    &crate::data::value::KIND,
    &crate::data::array::KIND,
    &crate::data::dict::KIND,
    &crate::data::list::KIND,
    &crate::data::sharded::KIND,
    &crate::data::namespace::KIND,
    &crate::data::counter::KIND,
    &crate::data::frozen::KIND,
    &crate::data::heap::KIND,
    &crate::channel::queue::KIND,
    &crate::channel::joinable::KIND,
    &crate::channel::pod::KIND,
    &crate::channel::pipe::KIND,
    &crate::channel::connection::KIND,
    &crate::channel::listener::KIND,
    &crate::process::KIND,
    &crate::pool::KIND,
];

/// The kind of that number, if this version knows it.
pub(crate) fn find(kind: u32) -> Option<&'static Kind> {
    ALL.iter().find(|known| known.kind == kind).copied()
}
