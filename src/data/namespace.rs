//! [`Namespace`]: named values of any types.
//!
//! The body is a dict's, of another kind; keys are the names. Crash behaviour: [`super::dict`]'s.

use super::arena::Arena;
use super::dict::core::Core;
use super::dict::recovery::{ARENA, Dicts, kind};
use super::dict::{self, ContainerOptions};
use super::node::{Key, Value};
use crate::error::Result;
use crate::kinds::Kind;
use crate::segment::object::{BodyId, Object, Shared, create, handle_as_value};
use crate::segment::{At, Attachment, Extent, Segment, session};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit_layouts::containers::{ArenaBody, DictBody};
use shmkit_layouts::kinds::KIND_NAMESPACE;
use std::fmt;

struct One;

impl Dicts for One {
    const WHAT: &'static str = "namespace";

    fn places(_: &Attachment, _: &Extent) -> Vec<u64> {
        vec![0]
    }
}

/// What recovery does with namespaces.
pub(crate) const KIND: Kind = kind::<One>(KIND_NAMESPACE);

/// Named values of any types, shared by threads and processes: Python's `Manager().Namespace()`.
///
/// Each name has a value of its own type; reading takes no lock. Values may be handles of other shared objects, which live as
/// long as they are there.
///
/// Crash behaviour: as [`crate::Dict`].
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let config = shmkit::Namespace::new()?;
/// config.set("threads", &8)?;
/// config.set("title", "a run")?;
/// config.set("jobs", &shmkit::Queue::<u32>::new()?)?;
/// assert_eq!(config.get::<u32>("threads")?, Some(8));
/// config.get::<shmkit::Queue<u32>>("jobs")?.expect("set above").put(7)?;
/// assert_eq!(config.names()?, ["threads", "title", "jobs"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Namespace {
    object: Object,
    body: *const DictBody,
    arena: *const ArenaBody,
}

// SAFETY: the pointers are into the mapping, which `object` keeps; only atomics and the constant seed are reached through them.
unsafe impl Send for Namespace {}
// SAFETY: as above.
unsafe impl Sync for Namespace {}

impl Shared for Namespace {
    type Options = ContainerOptions;

    fn kind() -> u32 {
        KIND_NAMESPACE
    }
    fn size(_: &ContainerOptions) -> Result<u64> {
        Ok(dict::SIZE)
    }
    fn build(options: &ContainerOptions, start: *mut u8, _: BodyId) -> Result<()> {
        // SAFETY: a body starts 128 bytes after a multiple of 256, has `SIZE` bytes, zero, and nobody else reaches it yet.
        unsafe { dict::build(options, start) };
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let (body, arena) = (object.body()?, object.part(ARENA, 1)?);
        Ok(Namespace { object, body, arena })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(Namespace);

impl Namespace {
    /// A new one in the session segment.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new() -> Result<Namespace> {
        Namespace::new_in(&session()?)
    }

    /// A new one in `segment`.
    ///
    /// # Errors
    /// As [`Namespace::new`].
    pub fn new_in(segment: &Segment) -> Result<Namespace> {
        create(segment, None, &ContainerOptions::default(), false)
    }

    fn core(&self) -> Core<'_> {
        let (attachment, object) = (self.object.attachment(), self.object.reference.id.index);
        let arena = Arena { attachment, body: self.arena, object, part: (0, 1), what: "namespace" };
        Core { arena, body: self.body }
    }

    /// The value of that name, or `None`. Takes no lock.
    ///
    /// # Errors
    /// `Codec` if it is no `T`, and as [`crate::Dict::get`].
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        self.core().get(&Key::of(name)?)
    }

    /// Sets the value of a name. True if there was none.
    ///
    /// # Errors
    /// As [`crate::Dict::insert`].
    pub fn set<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<bool> {
        self.core().insert(&Key::of(name)?, &Value::of(self.object.attachment(), value)?)
    }

    /// Changes the value of a name under the lock: `change` finds it, or `None`, and what it leaves there is set, `None` removed.
    /// Gives what `change` gives.
    ///
    /// # Errors
    /// As [`crate::Dict::update`].
    pub fn update<T: Serialize + DeserializeOwned, R>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Option<T>) -> R,
    ) -> Result<R> {
        self.core().update(&Key::of(name)?, change)
    }

    /// Takes a name away. True if there was a value.
    ///
    /// # Errors
    /// As [`crate::Dict::insert`].
    pub fn remove(&self, name: &str) -> Result<bool> {
        self.core().remove(&Key::of(name)?)
    }

    /// Whether there is a value of that name. Takes no lock.
    ///
    /// # Errors
    /// As [`crate::Dict::get`].
    pub fn contains(&self, name: &str) -> Result<bool> {
        self.core().contains(&Key::of(name)?)
    }

    /// All names at one instant, in the order in which they were set first.
    ///
    /// # Errors
    /// As [`crate::Dict::insert`].
    pub fn names(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        self.core().snapshot(&mut all, |name, _| name.to_key())?;
        Ok(all)
    }

    /// Names at this instant.
    pub fn len(&self) -> usize {
        self.core().arena.length() as usize
    }

    /// Whether there are none at this instant.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes all names away.
    ///
    /// # Errors
    /// As [`crate::Dict::insert`].
    pub fn clear(&self) -> Result<()> {
        self.core().clear()
    }

    /// Bytes of the segment's memory it has, the part included that is free for more values.
    pub fn memory(&self) -> u64 {
        self.core().arena.bytes().saturating_add(dict::SIZE)
    }

    /// The most bytes it may take from now on; 0 for no limit.
    pub fn set_quota(&self, bytes: u64) {
        self.core().arena.set_quota(bytes);
    }

    /// Its segment.
    pub fn segment(&self) -> Segment {
        self.object.segment()
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Segment {
    /// The namespace `name`.
    pub fn namespace<'a>(&'a self, name: &'a str) -> At<'a, Namespace> {
        At { segment: self, name, options: ContainerOptions::default() }
    }
}

impl At<'_, Namespace> {
    /// The most bytes of the segment's memory it may take; no limit unless told otherwise.
    #[must_use]
    pub fn quota(mut self, bytes: u64) -> Self {
        self.options.quota = bytes;
        self
    }
}
