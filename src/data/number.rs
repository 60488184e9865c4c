//! Numbers that one atomic instruction can change.

use crate::element::Element;
use std::sync::atomic::Ordering;

/// A fixed-width integer or float of up to 8 bytes. Sealed.
///
/// Sums of integers wrap around; those of floats are the floats' own.
pub trait Number: Element + PartialOrd + sealed::Atomic {}

/// A fixed-width integer. Sealed.
pub trait Integer: Number + sealed::Bits {}

pub(super) mod sealed {
    use super::*;
    use std::sync::atomic::*;

    /// Atomic access to a number behind a pointer.
    ///
    /// Every function asks that the pointer is valid for the mapping's life and aligned to the number's size. All are SeqCst:
    /// they are the points where processes meet, and on x86 it costs nothing.
    #[doc(hidden)]
    #[allow(clippy::missing_safety_doc, reason = "said above, once for all")]
    pub trait Atomic: Copy {
        unsafe fn swap(at: *mut Self, new: Self) -> Self;
        unsafe fn compare_exchange(at: *mut Self, current: Self, new: Self) -> Result<Self, Self>;
        unsafe fn add(at: *mut Self, other: Self) -> Self;
        unsafe fn sub(at: *mut Self, other: Self) -> Self;
        unsafe fn max(at: *mut Self, other: Self) -> Self;
        unsafe fn min(at: *mut Self, other: Self) -> Self;
    }

    /// Bitwise operations; as [`Atomic`].
    #[doc(hidden)]
    #[allow(clippy::missing_safety_doc, reason = "said above, once for all")]
    pub trait Bits: Atomic {
        unsafe fn and(at: *mut Self, other: Self) -> Self;
        unsafe fn or(at: *mut Self, other: Self) -> Self;
        unsafe fn xor(at: *mut Self, other: Self) -> Self;
    }

    macro_rules! forward {
        ($ty:ident $atomic:ident: $($name:ident $method:ident),*) => {$(
            #[inline]
            unsafe fn $name(at: *mut $ty, other: $ty) -> $ty {
                // SAFETY: valid and aligned, says the caller; the reference is to an atomic.
                unsafe { $atomic::from_ptr(at) }.$method(other, Ordering::SeqCst)
            }
        )*};
    }

    macro_rules! integer {
        ($($ty:ident $atomic:ident),*) => {$(
            impl Atomic for $ty {
                forward!($ty $atomic: swap swap, add fetch_add, sub fetch_sub, max fetch_max, min fetch_min);
                #[inline]
                unsafe fn compare_exchange(at: *mut $ty, current: $ty, new: $ty) -> Result<$ty, $ty> {
                    // SAFETY: valid and aligned, says the caller; the reference is to an atomic.
                    unsafe { $atomic::from_ptr(at) }.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
                }
            }
            impl Bits for $ty {
                forward!($ty $atomic: and fetch_and, or fetch_or, xor fetch_xor);
            }
            impl Number for $ty {}
            impl Integer for $ty {}
        )*};
    }
    integer!(u8 AtomicU8, i8 AtomicI8, u16 AtomicU16, i16 AtomicI16, u32 AtomicU32, i32 AtomicI32, u64 AtomicU64, i64 AtomicI64);

    macro_rules! float {
        ($($ty:ident $bits:ident $atomic:ident),*) => {$(
            impl Atomic for $ty {
                #[inline]
                unsafe fn swap(at: *mut $ty, new: $ty) -> $ty {
                    // SAFETY: valid and aligned, says the caller; the reference is to an atomic.
                    let word = unsafe { $atomic::from_ptr(at.cast()) };
                    $ty::from_bits(word.swap(new.to_bits(), Ordering::SeqCst))
                }
                #[inline]
                unsafe fn compare_exchange(at: *mut $ty, current: $ty, new: $ty) -> Result<$ty, $ty> {
                    // SAFETY: valid and aligned, says the caller; the reference is to an atomic.
                    let word = unsafe { $atomic::from_ptr(at.cast()) };
                    word.compare_exchange(current.to_bits(), new.to_bits(), Ordering::SeqCst, Ordering::SeqCst)
                        .map($ty::from_bits)
                        .map_err($ty::from_bits)
                }
                float!(change $ty $bits $atomic: add |a, b| a + b, sub |a, b| a - b, max $ty::max, min $ty::min);
            }
            impl Number for $ty {}
        )*};
        (change $ty:ident $bits:ident $atomic:ident: $($name:ident $change:expr),*) => {$(
            #[inline]
            unsafe fn $name(at: *mut $ty, other: $ty) -> $ty {
                // SAFETY: valid and aligned, says the caller; the reference is to an atomic.
                let word = unsafe { $atomic::from_ptr(at.cast()) };
                let change: fn($ty, $ty) -> $ty = $change;
                let mut seen = word.load(Ordering::Relaxed);
                loop {
                    let next = change($ty::from_bits(seen), other).to_bits();
                    match word.compare_exchange_weak(seen, next, Ordering::SeqCst, Ordering::Relaxed) {
                        Ok(before) => return $ty::from_bits(before),
                        Err(now) => seen = now,
                    }
                }
            }
        )*};
    }
    float!(f32 u32 AtomicU32, f64 u64 AtomicU64);
}
