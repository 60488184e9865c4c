//! Whose lock it is that a thread waits for: nobody here waits for himself.

use crate::error::Result;
use crate::segment::Attachment;
use crate::sys::atomic::AtomicU32;

pub(super) fn refuse_deadlock(_: &Attachment, _: &AtomicU32) -> Result<()> {
    Ok(())
}

pub(super) struct Listed;

impl Listed {
    pub(super) fn new(_: &AtomicU32) -> Listed {
        Listed
    }
}
