//! What recovery, destruction and verification do with everything that is made of dicts.

use super::core::Core;
use crate::data::arena::recovery::{arena_at, block_generation, destroy, named, recover};
use crate::error::Result;
use crate::kinds::Kind;
use crate::segment::object::HEADER;
use crate::segment::{Attachment, Extent};
use shmkit_layouts::containers::DictBody;

/// An object that consists of dicts.
pub(crate) trait Dicts {
    /// What it is called in messages.
    const WHAT: &'static str;

    /// Where its dicts are, in bytes from the start of its own struct.
    fn places(attachment: &Attachment, body: &Extent) -> Vec<u64>;
}

/// Bytes from the start of a dict's own struct to its arena.
pub(crate) const ARENA: u64 = size_of::<DictBody>() as u64;

fn cores<'a, D: Dicts>(attachment: &'a Attachment, body: &Extent) -> Result<Vec<Core<'a>>> {
    let places = D::places(attachment, body);
    let parts = places.len() as u32;
    let core = |(part, place): (usize, &u64)| {
        let arena = arena_at(attachment, body, place + ARENA, (part as u32, parts), D::WHAT)?;
        // It lies before the arena, which was checked.
        let body = attachment.pointer(body.offset + HEADER + place, D::WHAT)?;
        Ok(Core { arena, body })
    };
    places.iter().enumerate().map(core).collect()
}

/// Those that are sound enough to be looked at.
fn sound<'a, D: Dicts>(attachment: &'a Attachment, body: &Extent) -> Vec<Core<'a>> {
    cores::<D>(attachment, body).unwrap_or_default()
}

/// What recovery does with such a kind.
pub(crate) const fn kind<D: Dicts>(number: u32) -> Kind {
    Kind {
        recover: |attachment, body, dead| {
            for core in sound::<D>(attachment, body) {
                // A corrupt one stays as it is: whoever uses it is told.
                let _ = recover(core.arena, dead, |writing| core.repair(writing));
            }
        },
        destroy: |attachment, body| {
            sound::<D>(attachment, body).iter().fold(false, |handles, core| destroy(&core.arena) | handles)
        },
        extents: |attachment, body, visit| {
            for core in sound::<D>(attachment, body) {
                named(&core.arena, visit);
            }
        },
        block_generation: |attachment, body, id| {
            let arenas: Vec<_> = sound::<D>(attachment, body).iter().map(|core| core.arena).collect();
            block_generation(&arenas, id)
        },
        verify: |attachment, body| cores::<D>(attachment, body)?.iter().try_for_each(Core::verify),
        ..Kind::plain(number)
    }
}
