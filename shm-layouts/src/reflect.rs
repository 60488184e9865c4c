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
    /// Its Rust type as written.
    pub ty: &'static str,
    /// Its value.
    pub value: u64,
    /// Its documentation.
    pub doc: &'static str,
}

/// One word that several fields are packed into.
#[derive(Debug, Clone, Copy)]
pub struct Word {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Bits of the word: 32 or 64.
    pub bits: u32,
    /// Its fields, from the lowest bit up. Bits that no field takes are zero.
    pub fields: &'static [BitField],
}

/// One field of a [`Word`].
#[derive(Debug, Clone, Copy)]
pub struct BitField {
    /// Its name.
    pub name: &'static str,
    /// Its lowest bit.
    pub shift: u32,
    /// Its width in bits.
    pub bits: u32,
    /// What it is.
    pub doc: &'static str,
}

impl BitField {
    /// The field's bits where they lie in the word.
    pub const fn mask(&self) -> u64 {
        (u64::MAX >> (64 - self.bits)) << self.shift
    }
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
    crate::objects::RwLockBody::REFLECT,
    crate::objects::ReaderCount::REFLECT,
    crate::objects::SemaphoreBody::REFLECT,
    crate::objects::EventBody::REFLECT,
    crate::objects::PermitsBody::REFLECT,
    crate::objects::OnceBody::REFLECT,
    crate::objects::ConditionBody::REFLECT,
    crate::objects::ConditionChunk::REFLECT,
    crate::objects::ConditionWaiter::REFLECT,
    crate::objects::BarrierBody::REFLECT,
    crate::objects::QueueBody::REFLECT,
    crate::objects::BlockMeta::REFLECT,
    crate::objects::ConnectionBody::REFLECT,
    crate::objects::ListenerBody::REFLECT,
    crate::objects::PipeBody::REFLECT,
    crate::objects::ValueBody::REFLECT,
    crate::objects::ArrayBody::REFLECT,
    crate::containers::ArenaBody::REFLECT,
    crate::containers::SlabHeader::REFLECT,
    crate::containers::BundleHeader::REFLECT,
    crate::containers::NodeHeader::REFLECT,
    crate::containers::DictBody::REFLECT,
    crate::containers::TableHeader::REFLECT,
    crate::containers::DictEntry::REFLECT,
    crate::containers::ListBody::REFLECT,
    crate::containers::DirectoryHeader::REFLECT,
    crate::containers::ChunkHeader::REFLECT,
    crate::containers::ShardedBody::REFLECT,
    crate::containers::HeapBody::REFLECT,
    crate::containers::BoxHeader::REFLECT,
    crate::containers::CounterBody::REFLECT,
    crate::containers::CounterStripe::REFLECT,
    crate::containers::FrozenBody::REFLECT,
    crate::objects::SpawnBody::REFLECT,
    crate::objects::PoolBody::REFLECT,
    crate::objects::PoolWorker::REFLECT,
    crate::objects::PoolRun::REFLECT,
];

/// Every group of constants, in the order of SPEC.md.
pub const CONSTANTS: &[&[Constant]] = &[
    crate::segment::CONSTANTS,
    crate::kinds::CONSTANTS,
    crate::words::CONSTANTS,
    crate::objects::CONSTANTS,
    crate::containers::CONSTANTS,
];

/// Every packed word, in the order of SPEC.md.
pub const WORDS: &[Word] = crate::bits::WORDS;
