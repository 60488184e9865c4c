//! Messages as bytes: a tag, and what serde makes of the value.
//!
//! Plain scalars, text and bytes have tags of their own and can be read in every language; everything else travels in
//! postcard's format.

use serde::de::value::{Error as Unreadable, SeqDeserializer};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserializer, Serialize, Serializer};
use shmkit_layouts::objects::*;

/// Where a value is written to: its field `output`.
pub(crate) type Inner<F> = postcard::Serializer<F>;
type Written<T> = Result<T, postcard::Error>;

/// Writes `value` to `output`, which stays where it is; gives the message's tag.
#[inline]
pub(crate) fn encode<T: Serialize + ?Sized, F: postcard::ser_flavors::Flavor>(
    value: &T,
    output: &mut Inner<F>,
) -> Result<u32, String> {
    value.serialize(Top { inner: output }).map_err(|error| error.to_string())
}

/// Reads a value from a message. What is wrong with it, `refuse` makes an error of: at once, since a value is moved whenever its
/// `Result` becomes another one.
#[inline(always)]
pub(crate) fn decode<T: DeserializeOwned, E>(tag: u32, bytes: &[u8], refuse: impl FnOnce(String) -> E) -> Result<T, E> {
    // What a loop over numbers is made of, without a call.
    match bytes.try_into() {
        Ok(number) if tag == TAG_I64 => {
            T::deserialize(Plain::I64(i64::from_ne_bytes(number))).map_err(|error| refuse(text_of(&error)))
        }
        _ => decode_any(tag, bytes, refuse),
    }
}

#[inline(never)]
fn decode_any<T: DeserializeOwned, E>(tag: u32, bytes: &[u8], refuse: impl FnOnce(String) -> E) -> Result<T, E> {
    if tag == TAG_POSTCARD {
        return postcard::from_bytes(bytes).map_err(|error| refuse(error.to_string()));
    }
    match plain(tag, bytes) {
        Ok(plain) => T::deserialize(plain).map_err(|error| refuse(text_of(&error))),
        Err(why) => Err(refuse(why)),
    }
}

#[inline]
fn plain(tag: u32, bytes: &[u8]) -> Result<Plain<'_>, String> {
    let number = || bytes.try_into().map_err(|_| format!("{} bytes are no number of 8", bytes.len()));
    Ok(match tag {
        TAG_NONE => Plain::None,
        TAG_BOOL => Plain::Bool(bytes.first().is_some_and(|&byte| byte != 0)),
        TAG_I64 => Plain::I64(i64::from_ne_bytes(number()?)),
        TAG_F64 => Plain::F64(f64::from_ne_bytes(number()?)),
        TAG_UTF8 => Plain::Text(std::str::from_utf8(bytes).map_err(|error| error.to_string())?),
        TAG_BYTES => Plain::Bytes(bytes),
        _ => return Err(format!("its tag {tag} is unknown")),
    })
}

#[cold]
fn text_of(error: &Unreadable) -> String {
    error.to_string()
}

/// The outermost value: gives the tag. What lies inside it is postcard's.
struct Top<'a, F: postcard::ser_flavors::Flavor> {
    inner: &'a mut Inner<F>,
}

impl<F: postcard::ser_flavors::Flavor> Top<'_, F> {
    fn plain(self, tag: u32, bytes: &[u8]) -> Written<u32> {
        self.inner.output.try_extend(bytes)?;
        Ok(tag)
    }
}

macro_rules! integers {
    ($($method:ident $ty:ty),*) => {$(
        fn $method(self, value: $ty) -> Written<u32> {
            self.plain(TAG_I64, &i64::from(value).to_ne_bytes())
        }
    )*};
}

/// A value made of others: postcard writes the parts, and the tag is its.
struct Compound<S>(S);

macro_rules! compound {
    ($($trait:ident $method:ident($($name:ident: $ty:ty),*);)*) => {$(
        impl<S: serde::ser::$trait<Ok = (), Error = postcard::Error>> serde::ser::$trait for Compound<S> {
            type Ok = u32;
            type Error = postcard::Error;
            fn $method<T: Serialize + ?Sized>(&mut self, $($name: $ty,)* value: &T) -> Written<()> {
                self.0.$method($($name,)* value)
            }
            fn end(self) -> Written<u32> {
                self.0.end().map(|()| TAG_POSTCARD)
            }
        }
    )*};
}
compound! {
    SerializeSeq serialize_element();
    SerializeTuple serialize_element();
    SerializeTupleStruct serialize_field();
    SerializeTupleVariant serialize_field();
    SerializeStruct serialize_field(name: &'static str);
    SerializeStructVariant serialize_field(name: &'static str);
}

impl<S: serde::ser::SerializeMap<Ok = (), Error = postcard::Error>> serde::ser::SerializeMap for Compound<S> {
    type Ok = u32;
    type Error = postcard::Error;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written<()> {
        self.0.serialize_key(key)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written<()> {
        self.0.serialize_value(value)
    }
    fn end(self) -> Written<u32> {
        self.0.end().map(|()| TAG_POSTCARD)
    }
}

impl<'a, F: postcard::ser_flavors::Flavor> Serializer for Top<'a, F> {
    type Ok = u32;
    type Error = postcard::Error;
    type SerializeSeq = Compound<&'a mut Inner<F>>;
    type SerializeTuple = Compound<&'a mut Inner<F>>;
    type SerializeTupleStruct = Compound<&'a mut Inner<F>>;
    type SerializeTupleVariant = Compound<&'a mut Inner<F>>;
    type SerializeMap = Compound<&'a mut Inner<F>>;
    type SerializeStruct = Compound<&'a mut Inner<F>>;
    type SerializeStructVariant = Compound<&'a mut Inner<F>>;

    integers!(serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64);
    integers!(serialize_u8 u8, serialize_u16 u16, serialize_u32 u32);

    fn is_human_readable(&self) -> bool {
        false
    }
    fn serialize_u64(self, value: u64) -> Written<u32> {
        match i64::try_from(value) {
            Ok(value) => self.serialize_i64(value),
            Err(_) => self.inner.serialize_u64(value).map(|()| TAG_POSTCARD),
        }
    }
    fn serialize_i128(self, value: i128) -> Written<u32> {
        self.inner.serialize_i128(value).map(|()| TAG_POSTCARD)
    }
    fn serialize_u128(self, value: u128) -> Written<u32> {
        self.inner.serialize_u128(value).map(|()| TAG_POSTCARD)
    }
    fn serialize_bool(self, value: bool) -> Written<u32> {
        self.plain(TAG_BOOL, &[u8::from(value)])
    }
    fn serialize_f32(self, value: f32) -> Written<u32> {
        self.plain(TAG_F64, &f64::from(value).to_ne_bytes())
    }
    fn serialize_f64(self, value: f64) -> Written<u32> {
        self.plain(TAG_F64, &value.to_ne_bytes())
    }
    fn serialize_char(self, value: char) -> Written<u32> {
        self.plain(TAG_UTF8, value.encode_utf8(&mut [0; 4]).as_bytes())
    }
    fn serialize_str(self, value: &str) -> Written<u32> {
        self.plain(TAG_UTF8, value.as_bytes())
    }
    fn serialize_bytes(self, value: &[u8]) -> Written<u32> {
        self.plain(TAG_BYTES, value)
    }
    fn serialize_none(self) -> Written<u32> {
        Ok(TAG_NONE)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written<u32> {
        // Not the inner value's tag: some(nothing) is not nothing.
        self.inner.serialize_some(value).map(|()| TAG_POSTCARD)
    }
    fn serialize_unit(self) -> Written<u32> {
        Ok(TAG_NONE)
    }
    fn serialize_unit_struct(self, _: &'static str) -> Written<u32> {
        Ok(TAG_NONE)
    }
    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Written<u32> {
        self.inner.serialize_unit_variant(name, index, variant).map(|()| TAG_POSTCARD)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written<u32> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Written<u32> {
        self.inner.serialize_newtype_variant(name, index, variant, value).map(|()| TAG_POSTCARD)
    }
    fn serialize_seq(self, len: Option<usize>) -> Written<Self::SerializeSeq> {
        self.inner.serialize_seq(len).map(Compound)
    }
    fn serialize_tuple(self, len: usize) -> Written<Self::SerializeTuple> {
        self.inner.serialize_tuple(len).map(Compound)
    }
    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Written<Self::SerializeTupleStruct> {
        self.inner.serialize_tuple_struct(name, len).map(Compound)
    }
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Written<Self::SerializeTupleVariant> {
        self.inner.serialize_tuple_variant(name, index, variant, len).map(Compound)
    }
    fn serialize_map(self, len: Option<usize>) -> Written<Self::SerializeMap> {
        self.inner.serialize_map(len).map(Compound)
    }
    fn serialize_struct(self, name: &'static str, len: usize) -> Written<Self::SerializeStruct> {
        self.inner.serialize_struct(name, len).map(Compound)
    }
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Written<Self::SerializeStructVariant> {
        self.inner.serialize_struct_variant(name, index, variant, len).map(Compound)
    }
    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Written<u32> {
        self.serialize_str(&value.to_string())
    }
}

/// A message of a plain tag, as serde sees it.
enum Plain<'a> {
    None,
    Bool(bool),
    I64(i64),
    F64(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl<'de> Deserializer<'de> for Plain<'_> {
    type Error = Unreadable;

    fn is_human_readable(&self) -> bool {
        false
    }
    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self {
            Plain::None => visitor.visit_unit(),
            Plain::Bool(value) => visitor.visit_bool(value),
            Plain::I64(value) => visitor.visit_i64(value),
            Plain::F64(value) => visitor.visit_f64(value),
            Plain::Text(text) => visitor.visit_str(text),
            Plain::Bytes(bytes) => visitor.visit_bytes(bytes),
        }
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self {
            Plain::None => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self {
            Plain::Bytes(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.iter().copied())),
            other => other.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    fn round<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T, tag: u32) {
        let mut written = Inner { output: postcard::ser_flavors::StdVec::new() };
        assert_eq!(encode(&value, &mut written), Ok(tag), "{value:?}");
        let bytes = postcard::ser_flavors::Flavor::finalize(written.output).unwrap();
        assert_eq!(decode::<T>(tag, &bytes).unwrap(), value);
    }

    fn decode<T: DeserializeOwned>(tag: u32, bytes: &[u8]) -> Result<T, String> {
        super::decode(tag, bytes, |why| why)
    }

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Meters(f64);

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    enum Shape {
        Point,
        Circle(f64),
        Box { sides: (u8, u16) },
    }

    #[test]
    fn plain_values_have_plain_tags() {
        round((), TAG_NONE);
        round(None::<u8>, TAG_NONE);
        round(true, TAG_BOOL);
        round(-7i8, TAG_I64);
        round(u64::MAX / 2, TAG_I64);
        round(1.5f32, TAG_F64);
        round(Meters(2.5), TAG_F64);
        round('ß', TAG_UTF8);
        round("text".to_owned(), TAG_UTF8);
    }

    #[test]
    fn everything_else_is_postcards() {
        round(u64::MAX, TAG_POSTCARD);
        round(i128::MIN, TAG_POSTCARD);
        round(Some(()), TAG_POSTCARD);
        round(Some(None::<i64>), TAG_POSTCARD);
        round(Some(3), TAG_POSTCARD);
        round(vec![1u8, 2], TAG_POSTCARD);
        round((1u8, "two".to_owned()), TAG_POSTCARD);
        round(BTreeMap::from([(1, Shape::Point), (2, Shape::Circle(0.5))]), TAG_POSTCARD);
        round(Shape::Box { sides: (1, 2) }, TAG_POSTCARD);
    }

    #[test]
    fn what_others_send_is_read_where_it_makes_sense() {
        assert_eq!(decode::<Vec<u8>>(TAG_BYTES, b"abc").unwrap(), b"abc");
        assert_eq!(decode::<Option<i32>>(TAG_I64, &7i64.to_ne_bytes()).unwrap(), Some(7));
        assert_eq!(decode::<f64>(TAG_I64, &7i64.to_ne_bytes()).unwrap(), 7.0);
        assert!(decode::<u8>(TAG_I64, &256i64.to_ne_bytes()).is_err());
        assert!(decode::<u64>(TAG_I64, &(-1i64).to_ne_bytes()).is_err());
        assert!(decode::<i64>(TAG_I64, b"short").is_err());
        assert!(decode::<String>(TAG_UTF8, b"\xff").is_err());
        assert!(decode::<String>(99, b"").is_err());
    }
}
