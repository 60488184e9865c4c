//! The spawn record: what a child is started with, and what it says at its end.
//!
//! ```text
//! state     0 → 1 the child has its own references to what the arguments name → 2 the message is written
//! message   written before state 2, by the child only
//! bytes     Task and arguments, written before the child is started and never again
//! ```
//! The parent holds the record until it has reaped the child, so that nobody else needs to read it; the child holds it,
//! too, so that it does not vanish under the child's hands when the parent dies.

use super::options::Options;
use crate::error::Result;
use crate::kinds::Kind;
use crate::segment::object::{BodyId, Object, Shared, create, open_by_id};
use crate::segment::{Segment, atomic, fetch, floor_char_boundary};
use crate::sys::module::Place;
use serde::{Deserialize, Serialize};
use shmkit_layouts::kinds::KIND_SPAWN;
use shmkit_layouts::objects::SpawnBody;
use std::ffi::OsString;
use std::sync::atomic::{AtomicU64, Ordering};

/// Nothing to repair: the parent reads whatever state the child died in.
pub(crate) const KIND: Kind = Kind::plain(KIND_SPAWN);

/// The child has its own references to what the arguments name.
const HAS_READ: u32 = 1;
/// The child has said why it ends.
const HAS_SPOKEN: u32 = 2;

/// What the child does.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Work {
    /// Calls the function that reads the arguments and calls the target.
    Call(Place),
    /// What only the parent, and so its copy, knows.
    Copied,
    /// Becomes another program.
    Execute { program: OsString, arguments: Vec<OsString> },
}

/// What the child does, what it is to be like, and whose child it is; the arguments follow.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub work: Work,
    pub options: Options,
    /// The parent's name.
    pub parent: String,
    /// The parent keeps arguments until the child has read its own, and wants to be told by the bell.
    pub is_awaited: bool,
}

/// A spawn record.
#[derive(Debug, Clone)]
pub(super) struct Record {
    object: Object,
    body: *const SpawnBody,
}

// SAFETY: the pointer is into the mapping, which `object` keeps; only atomics are reached through it.
unsafe impl Send for Record {}
// SAFETY: as above.
unsafe impl Sync for Record {}

impl Shared for Record {
    type Options = Vec<u8>;

    fn kind() -> u32 {
        KIND_SPAWN
    }
    fn size(bytes: &Vec<u8>) -> Result<u64> {
        Ok((size_of::<SpawnBody>() + bytes.len()) as u64)
    }
    fn build(bytes: &Vec<u8>, start: *mut u8, _: BodyId) -> Result<()> {
        let body = start.cast::<SpawnBody>();
        // SAFETY: the body is held by this process alone and has room for the struct and the bytes (`size`).
        unsafe {
            (&raw mut (*body).args_len).write(bytes.len() as u64);
            start.add(size_of::<SpawnBody>()).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let body = object.body()?;
        Ok(Record { object, body })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

impl Record {
    /// A new one in `segment`.
    pub(super) fn new(segment: &Segment, task: &Task, arguments: &[u8]) -> Result<Record> {
        let mut bytes = postcard::to_stdvec(task).map_err(|error| crate::Error::Other(error.to_string()))?;
        bytes.extend_from_slice(arguments);
        create(segment, None, &bytes, false)
    }

    /// The one that the parent has told this process of.
    pub(super) fn open(segment: &Segment, index: u32, generation: u32) -> Result<Record> {
        open_by_id(segment, index, generation)
    }

    /// Index and generation of its entry: what [`Record::open`] wants.
    pub(super) fn id(&self) -> (u32, u32) {
        let id = self.object.reference.id;
        (id.index, id.generation)
    }

    /// A private copy of the task and the arguments.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        let len = fetch!(self.body, args_len);
        let start = self.object.part::<u8>(size_of::<SpawnBody>() as u64, len)?;
        let mut bytes: Vec<u8> = Vec::with_capacity(len as usize);
        // SAFETY: `part` checked that `len` bytes lie inside the body; nobody writes them once the record is published.
        unsafe {
            bytes.as_mut_ptr().copy_from_nonoverlapping(start, len as usize);
            bytes.set_len(len as usize);
        }
        Ok(bytes)
    }

    /// The child: the arguments are read.
    pub(super) fn say_read(&self) {
        // Release pairs with the acquire in `has_read`: the child's own references are there.
        atomic!(self.body, state).store(HAS_READ, Ordering::Release);
    }

    /// Whether the child has its own references to what the arguments name.
    pub(super) fn has_read(&self) -> bool {
        atomic!(self.body, state).load(Ordering::Acquire) >= HAS_READ
    }

    /// The child: why it ends; `None` takes back what it said.
    pub(super) fn say(&self, message: Option<&str>) {
        let message = message.unwrap_or_default();
        let words = atomic!(self.body, message);
        let len = floor_char_boundary(message, size_of_val(words));
        let mut bytes = [0; size_of::<[AtomicU64; 128]>()];
        bytes[..len].copy_from_slice(&message.as_bytes()[..len]);
        for (word, chunk) in words.iter().zip(bytes.chunks_exact(8)) {
            word.store(u64::from_le_bytes(chunk.try_into().expect("8 bytes")), Ordering::Relaxed);
        }
        atomic!(self.body, message_len).store(len as u32, Ordering::Relaxed);
        failpoint!("child.message");
        // Release pairs with the acquire in `message`: it is whole.
        atomic!(self.body, state).store(HAS_SPOKEN, Ordering::Release);
        failpoint!("child.said");
    }

    /// Why the child ended, if it said so.
    pub(super) fn message(&self) -> Option<String> {
        if atomic!(self.body, state).load(Ordering::Acquire) != HAS_SPOKEN {
            return None;
        }
        let words = atomic!(self.body, message);
        let len = atomic!(self.body, message_len).load(Ordering::Relaxed) as usize;
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        bytes.truncate(len);
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}
