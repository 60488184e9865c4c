//! [`ShareableList`]: a list of fixed length of plain values, as Python's `multiprocessing.shared_memory.ShareableList`, and
//! [`Scalar`], such a value.
//!
//! It is a [`List`] whose length does not change: lengths are stored, so text and bytes come back as they were put, and a new
//! value may be longer than the old one. Crash behaviour: the list's.

use crate::data::List;
use crate::error::Result;
use crate::segment::Segment;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};
use std::fmt;

/// A value that every language can read.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Nothing.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Scalar::None => serializer.serialize_none(),
            Scalar::Bool(value) => serializer.serialize_bool(*value),
            Scalar::Int(value) => serializer.serialize_i64(*value),
            Scalar::Float(value) => serializer.serialize_f64(*value),
            Scalar::Text(value) => serializer.serialize_str(value),
            Scalar::Bytes(value) => serializer.serialize_bytes(value),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Scalar, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a plain value")
            }
            fn visit_none<E>(self) -> std::result::Result<Scalar, E> {
                Ok(Scalar::None)
            }
            fn visit_unit<E>(self) -> std::result::Result<Scalar, E> {
                Ok(Scalar::None)
            }
            fn visit_bool<E>(self, value: bool) -> std::result::Result<Scalar, E> {
                Ok(Scalar::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> std::result::Result<Scalar, E> {
                Ok(Scalar::Int(value))
            }
            fn visit_f64<E>(self, value: f64) -> std::result::Result<Scalar, E> {
                Ok(Scalar::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> std::result::Result<Scalar, E> {
                Ok(Scalar::Text(value.to_owned()))
            }
            fn visit_bytes<E>(self, value: &[u8]) -> std::result::Result<Scalar, E> {
                Ok(Scalar::Bytes(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

macro_rules! from {
    ($($ty:ty => $variant:ident),*) => {$(
        impl From<$ty> for Scalar {
            fn from(value: $ty) -> Scalar {
                Scalar::$variant(value.into())
            }
        }
    )*};
}
from! {
    bool => Bool, i64 => Int, i32 => Int, u32 => Int, u8 => Int, f64 => Float, f32 => Float,
    &str => Text, String => Text, &[u8] => Bytes, Vec<u8> => Bytes
}

/// A list of fixed length of [`Scalar`]s, each of which can become one of another type.
///
/// A handle: cloning it is cheap. Crash behaviour: as [`List`].
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// use shmkit::{Scalar, ShareableList};
///
/// let list = ShareableList::new(["howdy".into(), 273.154.into(), 100.into(), Scalar::None, true.into()])?;
/// list.set(0, "a longer text than before")?;
/// list.set(2, b"bytes\0\0".as_slice())?;
/// assert_eq!(list.get(2)?, Some(Scalar::Bytes(b"bytes\0\0".to_vec())), "trailing NULs stay");
/// assert_eq!(list.position(&true.into())?, Some(4));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ShareableList {
    list: List<Scalar>,
}

impl ShareableList {
    /// A new one in the session segment.
    ///
    /// # Errors
    /// `OutOfMemory`, `TooManyObjects`.
    pub fn new(values: impl IntoIterator<Item = Scalar>) -> Result<ShareableList> {
        ShareableList::new_in(&crate::session()?, values)
    }

    /// A new one in `segment`.
    ///
    /// # Errors
    /// As [`ShareableList::new`].
    pub fn new_in(segment: &Segment, values: impl IntoIterator<Item = Scalar>) -> Result<ShareableList> {
        let list = List::new_in(segment)?;
        list.splice(.., values)?;
        Ok(ShareableList { list })
    }

    /// A new one of that name in `segment`. Who opens it meanwhile finds it empty, or with all its values: they come by one change.
    ///
    /// # Errors
    /// As [`ShareableList::new`], and `ObjectExists`.
    pub fn create(segment: &Segment, name: &str, values: impl IntoIterator<Item = Scalar>) -> Result<ShareableList> {
        let list = segment.list(name).create()?;
        if let Err(error) = list.splice(.., values) {
            // Its name would keep it.
            segment.remove(name)?;
            return Err(error);
        }
        Ok(ShareableList { list })
    }

    /// The one of that name in `segment`.
    ///
    /// # Errors
    /// `ObjectNotFound`, `WrongKind`, `Corrupt`.
    pub fn open(segment: &Segment, name: &str) -> Result<ShareableList> {
        Ok(ShareableList { list: segment.list(name).open()? })
    }

    /// Elements: always the same.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The element of that index, or `None`. Takes no lock.
    ///
    /// # Errors
    /// As [`List::get`].
    pub fn get(&self, index: usize) -> Result<Option<Scalar>> {
        self.list.get(index)
    }

    /// Replaces an element, by one of any type and length.
    ///
    /// # Errors
    /// `OutOfRange`, and as [`List::set`].
    pub fn set(&self, index: usize, value: impl Into<Scalar>) -> Result<()> {
        self.list.set(index, &value.into())
    }

    /// The index of the first element that is `value`: Python's `index`.
    ///
    /// # Errors
    /// As [`List::position`].
    pub fn position(&self, value: &Scalar) -> Result<Option<usize>> {
        self.list.position(value)
    }

    /// How many elements are `value`.
    ///
    /// # Errors
    /// As [`List::count`].
    pub fn count(&self, value: &Scalar) -> Result<usize> {
        self.list.count(value)
    }

    /// All elements at one instant.
    ///
    /// # Errors
    /// As [`List::to_vec`].
    pub fn to_vec(&self) -> Result<Vec<Scalar>> {
        self.list.to_vec()
    }

    /// The elements as they are when one gets to them.
    pub fn iter(&self) -> impl Iterator<Item = Result<Scalar>> + '_ {
        self.list.iter()
    }
}
