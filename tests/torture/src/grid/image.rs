//! A segment's bytes at one instant: what no method of the library tells.

use crate::operation::{Check, corrupt};
use shmkit::Segment;
use shmkit_layouts::segment::{ParticipantSlot, STATE_FREE, SegmentHeader};
use shmkit_layouts::words::{ExtentRef, Token};
use std::fs::File;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;

/// The bytes. What lies behind them is zeros.
pub struct Image {
    bytes: Vec<u8>,
}

/// A slot of the registry that is not free.
pub struct Participant {
    /// Its process.
    pub pid: u32,
    /// What the words name it by.
    pub token: Token,
}

impl Image {
    /// A segment as it is now.
    pub fn of(segment: &Segment) -> Check<Image> {
        Image::up_to(segment, u64::MAX)
    }

    /// Its header and its registry.
    pub fn of_registry(segment: &Segment) -> Check<Image> {
        let header = Image::up_to(segment, size_of::<SegmentHeader>() as u64)?;
        Image::up_to(segment, header.registry(header.slots()))
    }

    fn up_to(segment: &Segment, most: u64) -> Check<Image> {
        let file = segment.as_fd().try_clone_to_owned().map(File::from);
        let Ok(file) = file else { return corrupt("the segment's file is gone") };
        let len = file.metadata().map_or(0, |file| file.len()).min(most);
        let mut bytes = vec![0; len as usize];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(Image { bytes }),
            Err(error) => corrupt(format!("the segment's file cannot be read: {error}")),
        }
    }

    fn slots(&self) -> u32 {
        self.word(offset_of!(SegmentHeader, max_participants) as u64)
    }

    /// Where a slot is.
    fn registry(&self, slot: u32) -> u64 {
        let first = self.long(offset_of!(SegmentHeader, registry_offset) as u64);
        first + u64::from(slot) * size_of::<ParticipantSlot>() as u64
    }

    /// The word of 4 bytes at `offset`.
    pub fn word(&self, offset: u64) -> u32 {
        self.long(offset) as u32
    }

    /// The word of 8 bytes at `offset`.
    pub fn long(&self, offset: u64) -> u64 {
        let mut word = [0; 8];
        let from = self.bytes.get(offset as usize..).unwrap_or_default();
        word.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
        u64::from_le_bytes(word)
    }

    /// Where an extent begins.
    pub fn place(&self, extent: ExtentRef) -> u64 {
        let (heap, unit) = (offset_of!(SegmentHeader, heap_offset), offset_of!(SegmentHeader, unit_size));
        self.long(heap as u64) + u64::from(extent.unit) * u64::from(self.word(unit as u64))
    }

    /// The slots that are not free.
    pub fn participants(&self) -> Vec<Participant> {
        let participant = |slot: u32| {
            let field = |offset: usize| self.word(self.registry(slot) + offset as u64);
            (field(offset_of!(ParticipantSlot, state)) != STATE_FREE).then(|| Participant {
                pid: field(offset_of!(ParticipantSlot, pid)),
                token: Token::new(slot, field(offset_of!(ParticipantSlot, generation))),
            })
        };
        (0..self.slots()).filter_map(participant).collect()
    }
}
