//! Values that are built once and never change: text, bytes, elements, read in place by everybody.
//!
//! ```text
//! body   header | len | tag | … | the bytes at byte 192
//! ```
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | while building | an object that is being built | recovery frees it | the object |
//! | afterwards, anywhere | the object | nobody needs to | nothing |

use crate::element::Element;
use crate::error::{Result, SegmentError, corrupt};
use crate::kinds::Kind;
use crate::segment::object::{BodyId, ElementType, Object, Shared, create, handle_as_value};
use crate::segment::{At, Segment, fetch, session};
use shmkit_layouts::containers::FrozenBody;
use shmkit_layouts::kinds::KIND_FROZEN;
use shmkit_layouts::objects::{TAG_BYTES, TAG_POD, TAG_UTF8};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

/// What recovery does with frozen values: nothing.
pub(crate) const KIND: Kind = Kind::plain(KIND_FROZEN);

/// Bytes from the start of the own struct to the contents.
const CONTENTS: u64 = size_of::<FrozenBody>() as u64;
/// The largest alignment the elements' place has.
const ALIGNMENT: usize = 64;

/// What a frozen value is made of.
#[derive(Debug, Clone)]
pub struct FrozenOptions {
    bytes: Arc<[u8]>,
}

fn size(options: &FrozenOptions) -> Result<u64> {
    let len = options.bytes.len() as u64;
    let why = "its size in bytes is more than there can be";
    let too_large = || SegmentError::InvalidSize { what: "a frozen value's length", found: len, why };
    Ok(len.checked_add(CONTENTS).ok_or_else(too_large)?)
}

fn build(options: &FrozenOptions, start: *mut u8, tag: u32) {
    let body = start.cast::<FrozenBody>();
    // SAFETY: the body has room for the struct and the bytes, and nobody else reaches it yet.
    unsafe {
        (&raw mut (*body).len).write(options.bytes.len() as u64);
        (&raw mut (*body).tag).write(tag);
        start.add(CONTENTS as usize).copy_from_nonoverlapping(options.bytes.as_ptr(), options.bytes.len());
    }
}

/// Where the contents of `object` lie and how many bytes they are, if they have that tag.
fn contents(object: &Object, tag: u32, what: &'static str) -> Result<(*const u8, usize)> {
    let body = object.body::<FrozenBody>()?;
    let (len, found) = (fetch!(body, len), fetch!(body, tag));
    if found != tag {
        let (name, found) = (object.reference.name().unwrap_or_default(), format!("contents of tag {found}"));
        return Err(SegmentError::WrongElement { name, found, wanted: format!("{what} (tag {tag})") }.into());
    }
    let start = object.part::<u8>(CONTENTS, len)?;
    Ok((start, usize::try_from(len).map_err(|_| corrupt("length of a frozen value", object.offset(), len))?))
}

macro_rules! frozen {
    ($(#[$doc:meta])* $name:ident: $target:ty, $tag:ident, $what:literal, $method:ident;
     $read:expr, $check:expr, $bytes:expr) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            object: Object,
            start: *const u8,
            len: usize,
        }

        // SAFETY: the bytes are in the mapping, which `object` keeps, and never change.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}

        impl Shared for $name {
            type Options = FrozenOptions;

            fn kind() -> u32 {
                KIND_FROZEN
            }
            fn size(options: &FrozenOptions) -> Result<u64> {
                size(options)
            }
            fn zeroed(_: &FrozenOptions) -> u64 {
                CONTENTS
            }
            fn build(options: &FrozenOptions, start: *mut u8, _: BodyId) -> Result<()> {
                build(options, start, $tag);
                Ok(())
            }
            fn attach(object: Object) -> Result<Self> {
                let (start, len) = contents(&object, $tag, $what)?;
                let value = $name { object, start, len };
                // SAFETY: `contents` checked that they are there; from here on they do not change.
                let bytes = unsafe { std::slice::from_raw_parts(value.start, value.len) };
                if $check(bytes) { Ok(value) } else { Err(corrupt($what, value.object.offset(), len as u64)) }
            }
            fn object(&self) -> &Object {
                &self.object
            }
        }

        handle_as_value!($name);

        impl $name {
            /// A new one in the session segment.
            ///
            /// # Errors
            /// `OutOfMemory`, `TooManyObjects`.
            pub fn new(value: &$target) -> Result<$name> {
                $name::new_in(&session()?, value)
            }

            /// A new one in `segment`.
            ///
            /// # Errors
            /// As for the session segment.
            pub fn new_in(segment: &Segment, value: &$target) -> Result<$name> {
                create(segment, None, &FrozenOptions { bytes: $bytes(value).into() }, false)
            }

            /// Its segment.
            pub fn segment(&self) -> Segment {
                self.object.segment()
            }
        }

        impl Deref for $name {
            type Target = $target;

            fn deref(&self) -> &$target {
                // SAFETY: `attach` checked that they are there and what they are; nobody changes them.
                let bytes = unsafe { std::slice::from_raw_parts(self.start, self.len) };
                $read(bytes)
            }
        }

        impl AsRef<$target> for $name {
            fn as_ref(&self) -> &$target {
                self
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }

        impl Segment {
            #[doc = concat!("The ", $what, " `name` that never change, made of `value` if they are created.")]
            pub fn $method<'a>(&'a self, name: &'a str, value: &$target) -> At<'a, $name> {
                At { segment: self, name, options: FrozenOptions { bytes: $bytes(value).into() } }
            }
        }
    };
}

frozen! {
    /// Bytes that never change, read in place by any number of processes.
    ///
    /// They are trusted not to change: a process that writes to them breaks the rules of the layout.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> shmkit::Result<()> {
    /// let table = shmkit::FrozenBytes::new(&[7; 1 << 20])?;
    /// assert_eq!(table.iter().map(|&byte| u64::from(byte)).sum::<u64>(), 7 << 20);
    /// # Ok(())
    /// # }
    /// ```
    FrozenBytes: [u8], TAG_BYTES, "bytes", frozen_bytes;
    |bytes| bytes, |_: &[u8]| true, |value: &[u8]| -> Arc<[u8]> { value.into() }
}

frozen! {
    /// Text that never changes, read in place by any number of processes.
    ///
    /// It is trusted not to change: a process that writes to it breaks the rules of the layout.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> shmkit::Result<()> {
    /// let motto = shmkit::FrozenStr::new("old or new, never torn")?;
    /// assert!(motto.contains("never"));
    /// # Ok(())
    /// # }
    /// ```
    FrozenStr: str, TAG_UTF8, "text", frozen_str;
    // SAFETY: `attach` has checked that it is UTF-8, and it does not change.
    |bytes| unsafe { std::str::from_utf8_unchecked(bytes) },
    |bytes: &[u8]| std::str::from_utf8(bytes).is_ok(),
    |value: &str| -> Arc<[u8]> { value.as_bytes().into() }
}

/// Elements that never change, read in place by any number of processes.
///
/// They are trusted not to change: a process that writes to them breaks the rules of the layout.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let primes = shmkit::FrozenArray::<u32>::new(&[2, 3, 5, 7])?;
/// assert!(primes.binary_search(&5).is_ok());
/// # Ok(())
/// # }
/// ```
pub struct FrozenArray<T: Element> {
    object: Object,
    start: *const T,
    len: usize,
    _elements: PhantomData<T>,
}

// SAFETY: the elements are in the mapping, which `object` keeps, and never change.
unsafe impl<T: Element + Send> Send for FrozenArray<T> {}
// SAFETY: as above.
unsafe impl<T: Element + Sync> Sync for FrozenArray<T> {}

impl<T: Element> Shared for FrozenArray<T> {
    type Options = FrozenOptions;

    fn kind() -> u32 {
        KIND_FROZEN
    }
    fn element() -> Option<ElementType> {
        Some(ElementType::of::<T>())
    }
    fn size(options: &FrozenOptions) -> Result<u64> {
        if align_of::<T>() > ALIGNMENT {
            let (what, found) = ("an element's alignment", align_of::<T>() as u64);
            return Err(
                SegmentError::InvalidSize { what, found, why: "elements are aligned to 64 bytes at most" }.into()
            );
        }
        size(options)
    }
    fn zeroed(_: &FrozenOptions) -> u64 {
        CONTENTS
    }
    fn build(options: &FrozenOptions, start: *mut u8, _: BodyId) -> Result<()> {
        build(options, start, TAG_POD);
        Ok(())
    }
    fn attach(object: Object) -> Result<Self> {
        let (start, len) = contents(&object, TAG_POD, "elements")?;
        let size = size_of::<T>().max(1);
        if len % size != 0 || align_of::<T>() > ALIGNMENT {
            return Err(corrupt("length of a frozen array", object.offset(), len as u64));
        }
        Ok(FrozenArray { object, start: start.cast(), len: len / size, _elements: PhantomData })
    }
    fn object(&self) -> &Object {
        &self.object
    }
}

handle_as_value!(FrozenArray<T: Element>);

impl<T: Element> FrozenArray<T> {
    /// A new one in the session segment.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new(elements: &[T]) -> Result<FrozenArray<T>> {
        FrozenArray::new_in(&session()?, elements)
    }

    /// A new one in `segment`.
    ///
    /// # Errors
    /// As [`FrozenArray::new`].
    pub fn new_in(segment: &Segment, elements: &[T]) -> Result<FrozenArray<T>> {
        create(segment, None, &FrozenOptions { bytes: bytemuck::cast_slice(elements).into() }, false)
    }

    /// Its segment.
    pub fn segment(&self) -> Segment {
        self.object.segment()
    }
}

impl<T: Element> Deref for FrozenArray<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `attach` checked that they are there and aligned; any bytes are a T (`Pod`); nobody changes them.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T: Element> Clone for FrozenArray<T> {
    fn clone(&self) -> Self {
        FrozenArray { object: self.object.clone(), ..*self }
    }
}

impl<T: Element + fmt::Debug> fmt::Debug for FrozenArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl Segment {
    /// The elements `name` that never change, made of `elements` if they are created.
    pub fn frozen_array<'a, T: Element>(&'a self, name: &'a str, elements: &[T]) -> At<'a, FrozenArray<T>> {
        At { segment: self, name, options: FrozenOptions { bytes: bytemuck::cast_slice(elements).into() } }
    }
}
