//! An object that one test has.

use super::{Attachment, ObjectId};
use crate::error::Result;
use shmkit_layouts::objects::{ObjectHeader, PipeBody};
use std::sync::Arc;

pub(crate) const HEADER: u64 = size_of::<ObjectHeader>() as u64;

/// Handles in what is written: there are none.
pub(crate) fn noting<R>(_: &Attachment, _: &mut Vec<(ObjectId, u32)>, serialize: impl FnOnce() -> R) -> R {
    serialize()
}

pub(crate) fn take_refusal() -> Option<crate::Error> {
    None
}

#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) role: u32,
}

/// One end's handle of a pipe; both ends are held as long as the test lasts.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) reference: Reference,
    pub(crate) attachment: Arc<Attachment>,
    pub(crate) body: *const PipeBody,
    pub(crate) elements: *const u8,
}

// SAFETY: the pointers are to what the test keeps as long as its threads.
unsafe impl Send for Object {}

impl Object {
    pub(crate) fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    pub(crate) fn offset(&self) -> u64 {
        0
    }

    pub(crate) fn body<B>(&self) -> Result<*const B> {
        Ok(self.body.cast())
    }

    pub(crate) fn part<B>(&self, _: u64, _: u64) -> Result<*const B> {
        Ok(self.elements.cast())
    }

    pub(crate) fn is_held_as(&self, _: &[u32]) -> bool {
        true
    }
}
