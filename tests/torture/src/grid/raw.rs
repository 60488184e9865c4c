//! A segment as its bytes show it: what no method of the library tells.

use crate::operation::{Check, corrupt};
use shmkit::Segment;
use shmkit_layouts::segment::{ParticipantSlot, STATE_FREE, SegmentHeader};
use std::mem::offset_of;
use std::os::unix::fs::FileExt;

/// Slots of the registry that are not free.
pub fn slots_in_use(segment: &Segment) -> Check<usize> {
    count(segment, |_| true)
}

/// Those of process `pid`.
pub fn slots_of(segment: &Segment, pid: u32) -> Check<usize> {
    count(segment, |found| found == pid)
}

fn count(segment: &Segment, is_meant: impl Fn(u32) -> bool) -> Check<usize> {
    let file = segment.as_fd().try_clone_to_owned().map(std::fs::File::from);
    let Ok(file) = file else { return corrupt("the segment's file is gone") };
    let word = |offset: usize, len: usize| -> u64 {
        let mut bytes = [0; 8];
        let _ = file.read_exact_at(&mut bytes[..len], offset as u64);
        u64::from_le_bytes(bytes)
    };
    let registry = word(offset_of!(SegmentHeader, registry_offset), 8) as usize;
    let slots = word(offset_of!(SegmentHeader, max_participants), 4) as usize;
    let field = |slot: usize, offset: usize| word(registry + slot * size_of::<ParticipantSlot>() + offset, 4);
    let is_in_use = |&slot: &usize| {
        field(slot, offset_of!(ParticipantSlot, state)) != u64::from(STATE_FREE)
            && is_meant(field(slot, offset_of!(ParticipantSlot, pid)) as u32)
    };
    Ok((0..slots).filter(is_in_use).count())
}
