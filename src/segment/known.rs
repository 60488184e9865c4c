//! The segments this process is attached to: one attachment each, whoever asks for it.

use super::{Attachment, Segment, locked_unforked};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

type ByInode = BTreeMap<(u64, u64), Weak<Attachment>>;

/// Made without a `LazyLock`: a child forked in the middle of one would wait for it for ever.
static KNOWN: Mutex<ByInode> = Mutex::new(ByInode::new());

/// The one of that file.
pub(crate) fn find(inode: (u64, u64)) -> Option<Arc<Attachment>> {
    locked_unforked(&KNOWN).get(&inode).and_then(Weak::upgrade)
}

/// The one that calls itself `id`.
pub(crate) fn find_by_id(id: [u64; 2]) -> Option<Arc<Attachment>> {
    locked_unforked(&KNOWN).values().filter_map(Weak::upgrade).find(|attachment| attachment.geometry.id == id)
}

/// Makes an attachment known, unless another thread attached the same file meanwhile: then that one is given.
pub(crate) fn add(attachment: Attachment) -> Segment {
    let mut known = locked_unforked(&KNOWN);
    known.retain(|_, weak| weak.strong_count() > 0);
    if let Some(first) = known.get(&attachment.inode).and_then(Weak::upgrade) {
        drop(known);
        return Segment::of(first);
    }
    let attachment = Arc::new(attachment);
    known.insert(attachment.inode, Arc::downgrade(&attachment));
    drop(known);
    Segment::of(attachment)
}

/// Every segment this process is attached to.
pub(crate) fn all() -> Vec<Arc<Attachment>> {
    locked_unforked(&KNOWN).values().filter_map(Weak::upgrade).collect()
}
