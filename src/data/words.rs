//! Copying elements to and from words that a peer may be changing: each word by one relaxed atomic access.

use crate::element::Element;
use crate::sys::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Whether a `T` can be loaded and stored by one atomic instruction, where it lies at a multiple of its size.
pub(super) const fn is_atomic<T>() -> bool {
    matches!(size_of::<T>(), 1 | 2 | 4 | 8)
}

/// Loads a whole `T`.
///
/// # Safety
/// `is_atomic::<T>()`; `from` is valid for the mapping's life and a multiple of `T`'s size.
#[inline]
pub(super) unsafe fn load<T: Element>(from: *const T, order: Ordering) -> T {
    let mut value = T::zeroed();
    let bytes = bytemuck::bytes_of_mut(&mut value);
    // SAFETY: the caller vouches for the pointer; the references are to atomics only.
    unsafe {
        match bytes.len() {
            1 => bytes.copy_from_slice(&(*from.cast::<AtomicU8>()).load(order).to_ne_bytes()),
            2 => bytes.copy_from_slice(&(*from.cast::<AtomicU16>()).load(order).to_ne_bytes()),
            4 => bytes.copy_from_slice(&(*from.cast::<AtomicU32>()).load(order).to_ne_bytes()),
            8 => bytes.copy_from_slice(&(*from.cast::<AtomicU64>()).load(order).to_ne_bytes()),
            _ => unreachable!("the caller asked"),
        }
    }
    value
}

/// Stores a whole `T`.
///
/// # Safety
/// As [`load`].
#[inline]
pub(super) unsafe fn store<T: Element>(to: *mut T, value: T, order: Ordering) {
    let bytes = bytemuck::bytes_of(&value);
    // SAFETY: the caller vouches for the pointer; the references are to atomics only.
    unsafe {
        match *bytes {
            [a] => (*to.cast::<AtomicU8>()).store(a, order),
            [a, b] => (*to.cast::<AtomicU16>()).store(u16::from_ne_bytes([a, b]), order),
            [a, b, c, d] => (*to.cast::<AtomicU32>()).store(u32::from_ne_bytes([a, b, c, d]), order),
            [a, b, c, d, e, f, g, h] => {
                (*to.cast::<AtomicU64>()).store(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), order);
            }
            _ => unreachable!("the caller asked"),
        }
    }
}

/// Copies a `T` from the words at `from`, which may hold parts of several values: the caller finds out.
///
/// # Safety
/// `from` is valid for `size_of::<T>().div_ceil(8)` words.
#[inline]
pub(super) unsafe fn copy_out<T: Element>(from: *const AtomicU64) -> T {
    let mut value = T::zeroed();
    let mut word = from;
    for chunk in bytemuck::bytes_of_mut(&mut value).chunks_mut(8) {
        // Relaxed: ordered by the fence of the caller. SAFETY: inside what the caller vouches for.
        let bytes = unsafe { (*word).load(Ordering::Relaxed) }.to_ne_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
        word = word.wrapping_add(1);
    }
    value
}

/// Copies a `T` into the words at `to`; the rest of the last word is zero.
///
/// # Safety
/// As [`copy_out`].
#[inline]
pub(super) unsafe fn copy_in<T: Element>(to: *const AtomicU64, value: &T) {
    let mut word = to;
    for chunk in bytemuck::bytes_of(value).chunks(8) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        // Relaxed: ordered by the fence of the caller. SAFETY: inside what the caller vouches for.
        unsafe { (*word).store(u64::from_ne_bytes(bytes), Ordering::Relaxed) };
        word = word.wrapping_add(1);
        failpoint!("value.half");
    }
}
