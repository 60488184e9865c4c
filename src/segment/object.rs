//! What every shared object has in common: creation, opening by name, and handles that serde can carry.

use super::attachment::{Attachment, Place};
use super::heap::Extent;
use super::objects::{ObjectId, ObjectRef};
use super::{Segment, known};
use crate::element::Element;
use crate::error::{Result, SegmentError, corrupt};
use serde::{Deserialize, Serialize};
use shmkit_layouts::objects::{ELEMENT_FORMAT, ELEMENT_NAME, ObjectHeader, ROLE_USER};
use shmkit_layouts::words::{self, CELL_BLOCK};
use std::cell::Cell;
use std::sync::Arc;

/// Bytes from the start of a body to its own struct.
pub(crate) const HEADER: u64 = size_of::<ObjectHeader>() as u64;

/// A kind of object that can lie in a segment. Sealed: shmkit's own objects implement it.
pub trait SharedObject: Sized + sealed::Shared {}

pub(crate) mod sealed {
    use super::*;

    /// How an object is laid out, built, and opened.
    pub trait Shared: Sized {
        /// What can be chosen at creation.
        type Options;
        /// `KIND_…`.
        fn kind() -> u32;
        /// The element type, if it has one.
        fn element() -> Option<ElementType> {
            None
        }
        /// The role a creator or opener gets.
        fn role() -> u32 {
            ROLE_USER
        }
        /// A name for the element type that users see and that decides nothing; the element type's own comes first.
        fn label() -> Option<&'static str> {
            None
        }
        /// Bytes of the body after the header.
        fn size(options: &Self::Options) -> Result<u64>;
        /// How many bytes of the body must be zero before `build`; the rest is whatever was there. All, unless told otherwise.
        fn zeroed(_options: &Self::Options) -> u64 {
            u64::MAX
        }
        /// Fills the body from `start` on.
        fn build(options: &Self::Options, start: *mut u8, id: BodyId) -> Result<()>;
        /// A handle to an object whose header was checked; checks the rest, once.
        fn attach(object: Object) -> Result<Self>;
        /// The handle's reference.
        fn object(&self) -> &Object;
    }

    /// Identity of a body that is being built.
    #[derive(Debug, Clone, Copy)]
    pub struct BodyId {
        /// Index of its entry.
        pub index: u32,
        /// Generation of its entry.
        pub generation: u32,
    }

    /// An element type as it stands in a header.
    #[derive(Debug, Clone, Copy)]
    pub struct ElementType {
        pub(crate) name: &'static str,
        pub(crate) format: crate::element::Format,
        pub(crate) hash: u64,
        pub(crate) size: u32,
        pub(crate) align: u32,
    }

    impl ElementType {
        pub(crate) fn of<T: Element>() -> ElementType {
            ElementType {
                name: T::NAME,
                format: T::FORMAT,
                hash: T::HASH,
                size: size_of::<T>() as u32,
                align: align_of::<T>() as u32,
            }
        }

        pub(crate) fn describe(&self) -> String {
            format!("{} ({} bytes, {})", self.name, self.size, self.format.as_str())
        }
    }

    /// A reference to an object whose header was checked.
    #[derive(Debug, Clone)]
    pub struct Object {
        pub(crate) reference: Arc<ObjectRef>,
        /// Bytes of the body as its header says, checked against its extent.
        pub(crate) len: u64,
    }
}
pub(crate) use sealed::{BodyId, ElementType, Object, Shared};

impl<T: Shared> SharedObject for T {}

impl Object {
    #[inline]
    pub(crate) fn attachment(&self) -> &Attachment {
        &self.reference.attachment
    }

    /// Offset of the body's own struct from the start of the segment.
    pub(crate) fn offset(&self) -> u64 {
        self.reference.body.offset + HEADER
    }

    /// Offset of the body's end from the start of the segment.
    pub(crate) fn end(&self) -> u64 {
        self.reference.body.offset + self.len
    }

    /// The body's own struct, if the body is long enough for it.
    pub(crate) fn body<B>(&self) -> Result<*const B> {
        self.part(0, 1)
    }

    /// `count` of `B` from `offset` (from the start of the own struct) on, if they lie inside the body.
    pub(crate) fn part<B>(&self, offset: u64, count: u64) -> Result<*const B> {
        let end = count.checked_mul(size_of::<B>() as u64).and_then(|len| len.checked_add(offset));
        if end.is_none_or(|end| end > self.len - HEADER) {
            return Err(corrupt("object body", self.offset(), offset));
        }
        self.attachment().pointer(self.offset() + offset, "object body")
    }

    /// Whether anybody, in this process or another, holds the object in one of `roles`.
    pub(crate) fn is_held_as(&self, roles: &[u32]) -> bool {
        self.reference.is_held_as(roles)
    }

    /// The same object in another role.
    pub(crate) fn in_role(&self, role: u32) -> Result<Object> {
        Ok(Object { reference: Arc::new(self.reference.in_role(role)?), len: self.len })
    }

    /// Its segment.
    pub(crate) fn segment(&self) -> Segment {
        Segment::of(Arc::clone(&self.reference.attachment))
    }
}

/// Reads and checks the header of an object of type `S`.
fn check<S: Shared>(reference: ObjectRef) -> Result<Object> {
    let attachment = &reference.attachment;
    let Extent { offset, len, .. } = reference.body;
    let pointer = attachment.pointer::<ObjectHeader>(offset, "object header")?;
    // SAFETY: inside the mapping and aligned; volatile, since a peer may write; the value is checked before use.
    let header = unsafe { std::ptr::read_volatile(pointer) };
    let name = || reference.name().unwrap_or_else(|| "(unnamed)".to_owned());
    if header.kind != S::kind() {
        let (found, wanted) = (crate::kinds::name(header.kind), crate::kinds::name(S::kind()));
        return Err(SegmentError::WrongKind { name: name(), found, wanted }.into());
    }
    let supported = crate::kinds::find(S::kind()).map_or(1 << 16, |kind| kind.layout);
    if header.layout >> 16 != supported >> 16 {
        let (what, found) = (format!("object {:?}", name()), header.layout >> 16);
        return Err(SegmentError::NewerLayout { what, found, supported: supported >> 16 }.into());
    }
    if header.length < HEADER || header.length > len {
        return Err(corrupt("object length", offset, header.length));
    }
    if let Some(wanted) = S::element()
        && (header.element_hash != wanted.hash
            || header.element_size != wanted.size
            || header.element_align != wanted.align)
    {
        let text = |bytes: &[u8]| {
            let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..len]).into_owned()
        };
        let (element, format) = (text(&header.element_name), text(&header.element_format));
        let found = format!("{element} ({} bytes, {format})", header.element_size);
        return Err(SegmentError::WrongElement { name: name(), found, wanted: wanted.describe() }.into());
    }
    Ok(Object { reference: Arc::new(reference), len: header.length })
}

fn header_of<S: Shared>(length: u64) -> ObjectHeader {
    let mut header = ObjectHeader {
        kind: S::kind(),
        layout: crate::kinds::find(S::kind()).map_or(1 << 16, |kind| kind.layout),
        length,
        element_hash: 0,
        element_size: 0,
        element_align: 0,
        element_name: [0; ELEMENT_NAME as usize],
        element_format: [0; ELEMENT_FORMAT as usize],
        reserved: 0,
    };
    let element = S::element();
    if let Some(name) = element.map(|element| element.name).or(S::label()) {
        let len = super::attachment::floor_char_boundary(name, header.element_name.len() - 1);
        header.element_name[..len].copy_from_slice(&name.as_bytes()[..len]);
    }
    if let Some(element) = element {
        header.element_hash = element.hash;
        header.element_size = element.size;
        header.element_align = element.align;
        let format = element.format.as_str().as_bytes();
        if format.len() < header.element_format.len() {
            header.element_format[..format.len()].copy_from_slice(format);
        }
    }
    header
}

/// Creates an object in `segment`; with `or_open`, opens the one of that name that exists.
pub(crate) fn create<S: Shared>(
    segment: &Segment,
    name: Option<&str>,
    options: &S::Options,
    or_open: bool,
) -> Result<S> {
    let size = S::size(options)?;
    let length = HEADER.checked_add(size).filter(|&length| length <= i64::MAX as u64);
    let Some(length) = length else {
        return Err(SegmentError::InvalidSize { what: "an object", found: size, why: "it is too large" }.into());
    };
    let attachment = segment.attachment();
    let (reference, _) = attachment.create_object(name, S::kind(), S::role(), length, or_open, |body, id| {
        let start = attachment.map.base().wrapping_add(body.offset as usize);
        let zero = S::zeroed(options).min(size);
        // SAFETY: the extent has at least `length` bytes, is 256-byte aligned and held by this process alone.
        unsafe {
            start.cast::<ObjectHeader>().write(header_of::<S>(length));
            std::ptr::write_bytes(start.wrapping_add(HEADER as usize), 0, zero as usize);
        }
        let id = BodyId { index: id.index, generation: id.generation };
        S::build(options, start.wrapping_add(HEADER as usize), id)
    })?;
    S::attach(check::<S>(reference)?)
}

/// Opens the object `name` of `segment`.
pub(crate) fn open<S: Shared>(segment: &Segment, name: &str) -> Result<S> {
    S::attach(check::<S>(segment.attachment().open_object(name, S::kind(), S::role())?)?)
}

/// Opens the object that lies in entry `index` of `segment` with that generation: of whoever was told of it by its creator.
pub(crate) fn open_by_id<S: Shared>(segment: &Segment, index: u32, generation: u32) -> Result<S> {
    let id = ObjectId { index, generation };
    S::attach(check::<S>(segment.attachment().adopt(id, S::role())?)?)
}

/// An object to be created in, or opened from, a segment under a name.
///
/// Got from a segment's methods, as `segment.queue::<Frame>("frames")`.
///
/// # Crash behaviour
/// | the creator is killed | others see | who repairs | lost |
/// |---|---|---|---|
/// | holding the directory lock | the lock's owner is dead | the next who wants it | nothing |
/// | while building | an entry in BUILD; who wants the name waits | recovery frees the entry and its memory | the object |
/// | after the object is LIVE | a whole object, alive by its name | recovery commits its memory | nothing |
#[derive(Debug)]
pub struct At<'a, S: SharedObject> {
    pub(crate) segment: &'a Segment,
    pub(crate) name: &'a str,
    pub(crate) options: S::Options,
}

impl<S: SharedObject> At<'_, S> {
    /// Creates it.
    ///
    /// # Errors
    /// `ObjectExists` if there is an object of that name; `OutOfMemory`; `TooManyObjects`; `InvalidName`.
    pub fn create(self) -> Result<S> {
        create(self.segment, Some(self.name), &self.options, false)
    }

    /// Opens it. Options are ignored: the object is as it was created.
    ///
    /// # Errors
    /// `ObjectNotFound`; `WrongKind` and `WrongElement`, which show what there is and what was asked for; `Corrupt`.
    pub fn open(self) -> Result<S> {
        open(self.segment, self.name)
    }

    /// Opens it, or creates it if there is none. Of several that do so at once, one creates.
    ///
    /// # Errors
    /// As [`At::create`] and [`At::open`], but neither `ObjectExists` nor `ObjectNotFound`.
    pub fn open_or_create(self) -> Result<S> {
        create(self.segment, Some(self.name), &self.options, true)
    }
}

// ---- handles as values ---------------------------------------------------------------------------------------------

/// How a handle travels: where its segment is, and which object it is.
#[derive(Serialize, Deserialize)]
struct Ticket {
    segment: [u64; 2],
    place: TicketPlace,
    index: u32,
    generation: u32,
    role: u32,
}

#[derive(Serialize, Deserialize)]
enum TicketPlace {
    Named(String),
    /// Process id and descriptor of somebody who has it.
    Anonymous(u32, i32),
}

/// Who keeps a sent handle's object alive until the receiver has his own reference.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Carrier {
    /// The sender, until the receiver has started.
    Sender,
    /// A message block of a queue in the segment of `attachment`, which is only compared.
    Block { attachment: *const Attachment, queue: u32, block: u32, generation: u32 },
    /// Nobody yet: the handles are noted for a container in the segment of `attachment`, which is only compared.
    Noted { attachment: *const Attachment, handles: *mut Vec<(ObjectId, u32)> },
}

/// A carrier, and whether it has carried anything.
struct Carrying {
    carrier: Carrier,
    carried: Cell<bool>,
}

thread_local! {
    /// Who carries handles at this moment; null where nobody does.
    static CARRIER: Cell<*const Carrying> = const { Cell::new(std::ptr::null()) };
    static HAS_REFUSED: Cell<bool> = const { Cell::new(false) };
    static REFUSED: Cell<Option<crate::Error>> = const { Cell::new(None) };
}

/// Why a handle could not be written or read, since the last time this was asked: serde formats drop the reason.
#[inline]
pub(crate) fn take_refusal() -> Option<crate::Error> {
    if HAS_REFUSED.replace(false) { REFUSED.take() } else { None }
}

/// Keeps the reason for [`take_refusal`] and gives its text.
fn refuse(error: crate::Error) -> String {
    let text = error.to_string();
    REFUSED.set(Some(error));
    HAS_REFUSED.set(true);
    text
}

/// Runs `serialize` with handles allowed, carried by `carrier`. Tells whether there were any.
#[inline]
pub(crate) fn sending<R>(carrier: Carrier, serialize: impl FnOnce() -> R) -> (R, bool) {
    struct Restore(*const Carrying);
    impl Drop for Restore {
        fn drop(&mut self) {
            CARRIER.set(self.0);
        }
    }
    let carrying = Carrying { carrier, carried: Cell::new(false) };
    let _restore = Restore(CARRIER.replace(&raw const carrying));
    let result = serialize();
    (result, carrying.carried.get())
}

/// Runs `serialize` with handles allowed, and notes those it meets: object and role. Whoever calls keeps their objects alive until
/// something else does.
#[inline]
pub(crate) fn noting<R>(
    attachment: &Attachment,
    handles: &mut Vec<(ObjectId, u32)>,
    serialize: impl FnOnce() -> R,
) -> R {
    sending(Carrier::Noted { attachment, handles }, serialize).0
}

/// Has the carrier of this moment keep an object alive.
fn carry(reference: &ObjectRef) -> Result<()> {
    let attachment = &reference.attachment;
    // SAFETY: null, or what `sending`, which set it for this thread and has not returned, has on its stack.
    let Some(carrying) = (unsafe { CARRIER.get().as_ref() }) else {
        return Err(SegmentError::HandleOutsideSend.into());
    };
    carrying.carried.set(true);
    match carrying.carrier {
        Carrier::Sender => Ok(()),
        Carrier::Block { attachment: own, queue, block, generation } if own == Arc::as_ptr(attachment) => {
            let cell = words::Cell { kind: CELL_BLOCK, role: reference.role, object: queue, id: block, generation };
            attachment.add_reference(reference.id, cell)
        }
        Carrier::Noted { attachment: own, handles } if own == Arc::as_ptr(attachment) => {
            // SAFETY: `noting`, which set this carrier for this thread and has not returned, has the vector and leaves it alone.
            unsafe { (*handles).push((reference.id, reference.role)) };
            Ok(())
        }
        // Of another segment: its name keeps it alive, or nothing does.
        Carrier::Block { .. } | Carrier::Noted { .. } if reference.name().is_some() => Ok(()),
        Carrier::Block { .. } | Carrier::Noted { .. } => Err(SegmentError::HandleOutsideSend.into()),
    }
}

/// A handle as a serde value.
pub(crate) fn serialize<S: serde::Serializer>(object: &Object, serializer: S) -> Result<S::Ok, S::Error> {
    let reference = &object.reference;
    let attachment = &reference.attachment;
    let id = reference.id;
    carry(reference).map_err(|error| serde::ser::Error::custom(refuse(error)))?;
    let place = match &attachment.place {
        Place::Named(name) => TicketPlace::Named(name.clone()),
        Place::Anonymous(_) => {
            use std::os::fd::AsRawFd;
            TicketPlace::Anonymous(std::process::id(), attachment.map.fd().as_raw_fd())
        }
    };
    Ticket { segment: attachment.geometry.id, place, index: id.index, generation: id.generation, role: reference.role }
        .serialize(serializer)
}

/// A handle from a serde value: attaches the segment if this process has not yet.
pub(crate) fn deserialize<'de, S: Shared, D: serde::Deserializer<'de>>(deserializer: D) -> Result<S, D::Error> {
    let ticket = Ticket::deserialize(deserializer)?;
    redeem(&ticket).map_err(|error| serde::de::Error::custom(refuse(error)))
}

fn redeem<S: Shared>(ticket: &Ticket) -> Result<S> {
    let attachment = match known::find_by_id(ticket.segment) {
        Some(attachment) => attachment,
        None => match &ticket.place {
            TicketPlace::Named(name) => Segment::open(name)?.into_attachment(),
            TicketPlace::Anonymous(pid, fd) => Segment::open_descriptor_of(*pid, *fd)?.into_attachment(),
        },
    };
    if attachment.geometry.id != ticket.segment {
        return Err(SegmentError::Gone.into());
    }
    let id = ObjectId { index: ticket.index, generation: ticket.generation };
    S::attach(check::<S>(attachment.adopt(id, ticket.role)?)?)
}

/// Gives a handle type `Serialize` and `Deserialize`.
macro_rules! handle_as_value {
    ($name:ident $(<$($param:ident $(: $bound:path)?),+>)?) => {
        impl $(<$($param $(: $bound)?),+>)? serde::Serialize for $name $(<$($param),+>)? {
            /// Only as an argument of a process or inside a message: something must keep the object alive on the way.
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                $crate::segment::object::serialize($crate::segment::object::Shared::object(self), serializer)
            }
        }
        impl<'de, $($($param $(: $bound)?),+)?> serde::Deserialize<'de> for $name $(<$($param),+>)? {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                $crate::segment::object::deserialize(deserializer)
            }
        }
    };
}
pub(crate) use handle_as_value;
