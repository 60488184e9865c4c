//! The ring of queues, the ends of pipes, and how values are written.

#[path = "../../../../src/channel/codec.rs"]
pub(crate) mod codec;
pub(crate) mod growth;
pub(crate) mod pipe;
#[path = "../../../../src/channel/ring.rs"]
pub(crate) mod ring;

/// What the ring asks of the specification of queues.
pub(crate) mod spec {
    pub(crate) const MAX_BLOCKS: u32 = 1 << 18;
    pub(crate) const MIN_RING: u32 = 64;
    pub(crate) const PAYLOAD_ALIGN: u64 = 128;
}
