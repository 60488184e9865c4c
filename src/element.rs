//! Element types: plain data that may lie in a segment and be seen by other programs and languages.

use bytemuck::Pod;

/// A type whose values may lie in shared memory as they are.
///
/// Implemented for fixed-width integers, floats and arrays of elements; derive it for structs of those with
/// `#[derive(shmkit::Element)]`. Not for `usize`, `bool`, `char` and enums: their size or their valid bit patterns are not the
/// same for everybody.
///
/// # Safety
/// `HASH` must differ for types of different structure; `FORMAT` must describe the bytes.
///
/// # Examples
/// ```
/// use shmkit::bytemuck::{Pod, Zeroable};
///
/// #[derive(Clone, Copy, Pod, Zeroable, shmkit::Element)]
/// #[bytemuck(crate = "shmkit::bytemuck")]
/// #[repr(C)]
/// struct Point {
///     x: f64,
///     y: f64,
/// }
/// assert_eq!(<Point as shmkit::Element>::FORMAT.as_str(), "T{<d:x:<d:y:}");
/// ```
pub unsafe trait Element: Pod {
    /// Name shown to users.
    const NAME: &'static str;
    /// PEP 3118 format: what NumPy makes a dtype of.
    const FORMAT: Format;
    /// Structural hash: equal in every program that means the same type.
    const HASH: u64;
}

/// A format string built at compile time, at most 256 bytes.
#[derive(Clone, Copy)]
pub struct Format {
    bytes: [u8; 256],
    len: usize,
}

impl Format {
    /// The empty format.
    pub const fn new() -> Format {
        Format { bytes: [0; 256], len: 0 }
    }

    /// With `text` appended.
    ///
    /// # Panics
    /// At compile time, if it gets longer than 256 bytes.
    #[must_use]
    pub const fn push_str(mut self, text: &str) -> Format {
        let text = text.as_bytes();
        let mut i = 0;
        while i < text.len() {
            assert!(self.len < 256, "the element's format is longer than 256 bytes");
            self.bytes[self.len] = text[i];
            self.len += 1;
            i += 1;
        }
        self
    }

    /// With another format appended.
    #[must_use]
    pub const fn push(self, other: Format) -> Format {
        self.push_str(other.as_str())
    }

    /// With a decimal number appended.
    #[must_use]
    pub const fn push_number(self, number: usize) -> Format {
        let shorter = if number >= 10 { self.push_number(number / 10) } else { self };
        let digit = [b'0' + (number % 10) as u8];
        match core::str::from_utf8(&digit) {
            Ok(digit) => shorter.push_str(digit),
            Err(_) => shorter,
        }
    }

    /// As text.
    pub const fn as_str(&self) -> &str {
        let (text, _) = self.bytes.split_at(self.len);
        match core::str::from_utf8(text) {
            Ok(text) => text,
            Err(_) => "",
        }
    }
}

impl Default for Format {
    fn default() -> Format {
        Format::new()
    }
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Start value of the structural hash (FNV-1a, 64 bits).
pub const fn fnv_start() -> u64 {
    0xcbf2_9ce4_8422_2325
}

/// The hash with the bytes of `text` and a terminator.
pub const fn fnv_str(mut hash: u64, text: &str) -> u64 {
    let text = text.as_bytes();
    let mut i = 0;
    while i < text.len() {
        hash = (hash ^ text[i] as u64).wrapping_mul(0x100_0000_01b3);
        i += 1;
    }
    (hash ^ 0xFF).wrapping_mul(0x100_0000_01b3)
}

/// The hash with the eight bytes of `number`, least significant first.
pub const fn fnv_u64(mut hash: u64, number: u64) -> u64 {
    let mut i = 0;
    while i < 8 {
        hash = (hash ^ ((number >> (8 * i)) & 0xFF)).wrapping_mul(0x100_0000_01b3);
        i += 1;
    }
    hash
}

macro_rules! primitive {
    ($($ty:ident $format:literal),*) => {$(
        // SAFETY: a fixed-width number; the hash is that of its name, the format its PEP 3118 code.
        unsafe impl Element for $ty {
            const NAME: &'static str = stringify!($ty);
            const FORMAT: Format = Format::new().push_str($format);
            const HASH: u64 = fnv_str(fnv_start(), stringify!($ty));
        }
    )*};
}
primitive!(u8 "B", i8 "b", u16 "<H", i16 "<h", u32 "<I", i32 "<i", u64 "<Q", i64 "<q", f32 "<f", f64 "<d");

// SAFETY: `N` elements in a row; the hash covers the element's and the number.
unsafe impl<T: Element, const N: usize> Element for [T; N] {
    const NAME: &'static str = "array";
    const FORMAT: Format = Format::new().push_str("(").push_number(N).push_str(")").push(T::FORMAT);
    const HASH: u64 = fnv_u64(fnv_u64(fnv_str(fnv_start(), "array"), T::HASH), N as u64);
}
