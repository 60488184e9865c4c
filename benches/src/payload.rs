//! What is sent: every byte is written by the sender and read by the receiver.

use shmkit::Element;
use shmkit::bytemuck::Zeroable;

/// A message. Implement it for a type of your own to bench that: see the crate's `own_payload` example.
pub trait Payload: Element + Send + Sync {
    /// Writes the message number `sequence`.
    fn fill(&mut self, sequence: u64);

    /// Reads the message: a number that depends on every part of it.
    fn digest(&self) -> u64;

    /// What [`Payload::digest`] gives for a message number `sequence` that arrived whole.
    fn expected(sequence: u64) -> u64 {
        let mut payload = zeroed::<Self>();
        payload.fill(sequence);
        payload.digest()
    }
}

/// A zeroed payload, never on the stack.
pub fn zeroed<P: Payload>() -> Box<P> {
    let layout = std::alloc::Layout::new::<P>();
    assert!(layout.size() > 0, "a payload has a size");
    // SAFETY: the layout has a size; all-zero bytes are a valid value of plain data.
    unsafe {
        let start = std::alloc::alloc_zeroed(layout);
        if start.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        Box::from_raw(start.cast())
    }
}

/// A type of numbers in a row.
macro_rules! array {
    ($name:ident $count:literal $text:literal, $about:expr) => {
        #[doc = $about]
        #[derive(Clone, Copy)]
        #[repr(C)]
        pub struct $name(pub [u64; $count]);

        // SAFETY: an array of numbers.
        unsafe impl Zeroable for $name {}
        // SAFETY: an array of numbers.
        unsafe impl shmkit::bytemuck::Pod for $name {}
        // SAFETY: the format and the hash are those of the array.
        unsafe impl Element for $name {
            const NAME: &'static str = $text;
            const FORMAT: shmkit::element::Format = <[u64; $count] as Element>::FORMAT;
            const HASH: u64 = <[u64; $count] as Element>::HASH;
        }
    };
}

macro_rules! words {
    ($($name:ident $count:literal $text:literal),*) => {$(
        array!($name $count $text, concat!($text, " of numbers."));

        impl Payload for $name {
            #[inline]
            fn fill(&mut self, sequence: u64) {
                for (word, index) in self.0.iter_mut().zip(0u64..) {
                    *word = sequence.wrapping_add(index);
                }
            }
            #[inline]
            fn digest(&self) -> u64 {
                self.0.iter().fold(0, |sum, &word| sum.wrapping_add(word))
            }
            fn expected(sequence: u64) -> u64 {
                const COUNT: u64 = $count;
                COUNT.wrapping_mul(sequence).wrapping_add(COUNT * (COUNT - 1) / 2)
            }
        }
    )*};
}
words!(Bytes8 1 "8 B", Bytes64 8 "64 B", Bytes1K 128 "1 KiB", Bytes64K 8192 "64 KiB", Bytes1M 131_072 "1 MiB");

macro_rules! untouched {
    ($($name:ident $count:literal $text:literal),*) => {$(
        array!($name $count $text, concat!($text, ": the sender writes and the receiver reads the first word only. What a hand-over costs without the payload."));

        impl Payload for $name {
            #[inline]
            fn fill(&mut self, sequence: u64) {
                self.0[0] = sequence;
            }
            #[inline]
            fn digest(&self) -> u64 {
                self.0[0]
            }
            fn expected(sequence: u64) -> u64 {
                sequence
            }
        }
    )*};
}
untouched!(Untouched64K 8192 "64 KiB untouched", Untouched1M 131_072 "1 MiB untouched");

/// How many messages every bounded channel holds: up to a thousand, up to a MiB in all, at least four.
pub fn capacity<P>() -> usize {
    ((1 << 20) / size_of::<P>()).clamp(4, 1024)
}
