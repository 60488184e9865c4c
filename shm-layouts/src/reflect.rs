//! The layouts as data: what the generators of the C header, the JSON and the tables of SPEC.md read.

/// One field of a [`Struct`].
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Bytes from the start of the struct.
    pub offset: usize,
    /// Bytes it takes.
    pub size: usize,
    /// Its Rust type as written.
    pub ty: &'static str,
    /// Its documentation.
    pub doc: &'static str,
}

/// One struct that lies in shared memory.
#[derive(Debug, Clone, Copy)]
pub struct Struct {
    /// Its name.
    pub name: &'static str,
    /// Its documentation.
    pub doc: &'static str,
    /// Bytes it takes.
    pub size: usize,
    /// Its alignment in bytes.
    pub align: usize,
    /// Its fields in order.
    pub fields: &'static [Field],
}

/// One constant of the format.
#[derive(Debug, Clone, Copy)]
pub struct Constant {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// Its documentation.
    pub doc: &'static str,
}

/// Every struct, in the order of SPEC.md.
pub const STRUCTS: &[Struct] = &[
    crate::segment::SegmentHeader::REFLECT,
    crate::segment::ParticipantSlot::REFLECT,
    crate::segment::ObjectEntry::REFLECT,
    crate::segment::ReferenceChunk::REFLECT,
    crate::objects::ObjectHeader::REFLECT,
    crate::objects::MutexBody::REFLECT,
    crate::objects::RLockBody::REFLECT,
    crate::objects::SemaphoreBody::REFLECT,
    crate::objects::EventBody::REFLECT,
    crate::objects::QueueBody::REFLECT,
    crate::objects::BlockMeta::REFLECT,
    crate::objects::ConnectionBody::REFLECT,
    crate::objects::PipeBody::REFLECT,
    crate::objects::ValueBody::REFLECT,
    crate::objects::ArrayBody::REFLECT,
    crate::objects::SpawnBody::REFLECT,
    crate::objects::PoolBody::REFLECT,
    crate::objects::PoolWorker::REFLECT,
];

/// Every group of constants, in the order of SPEC.md.
pub const CONSTANTS: &[&[Constant]] =
    &[crate::segment::CONSTANTS, crate::kinds::CONSTANTS, crate::words::CONSTANTS, crate::objects::CONSTANTS];
