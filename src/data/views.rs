//! The elements of an [`Array`] without its lock, for those who can do without: [`RawRange`] and [`Atomics`].

use super::array::Array;
use super::number::{Integer, Number};
use super::words;
use crate::element::Element;
use crate::error::Result;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, RangeBounds};
use std::sync::atomic::Ordering;

impl<T: Element> Array<T> {
    /// A part of the array without its lock, for workers that each own a range and write it in place.
    ///
    /// # Errors
    /// `OutOfRange`.
    ///
    /// # Safety
    /// While the view lives, nobody else, in this process or another, may touch these elements: by a view of an overlapping
    /// range, by a guard, or by an operation that reaches them. If the owner of a range is killed, nobody is told: its elements
    /// may be half written.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> shmkit::Result<()> {
    /// let squares = shmkit::Array::<u64>::new(1000)?;
    /// std::thread::scope(|scope| {
    ///     for worker in 0..4 {
    ///         let squares = squares.clone();
    ///         scope.spawn(move || {
    ///             let first = worker * 250;
    ///             // SAFETY: each worker has its own quarter, and the array is read after all have ended.
    ///             let mut mine = unsafe { squares.range(first..first + 250) }.unwrap();
    ///             for (i, square) in mine.iter_mut().enumerate() {
    ///                 *square = ((first + i) as u64).pow(2);
    ///             }
    ///         });
    ///     }
    /// });
    /// assert_eq!(squares.get(999)?, 998_001);
    /// # Ok(())
    /// # }
    /// ```
    pub unsafe fn range(&self, range: impl RangeBounds<usize>) -> Result<RawRange<'_, T>> {
        let range = self.bounds(range)?;
        Ok(RawRange { start: self.elements.wrapping_add(range.start), len: range.len(), _array: PhantomData })
    }
}

impl<T: Number> Array<T> {
    /// The elements without the lock, each changed by atomic instructions.
    ///
    /// # Safety
    /// While the view lives, nobody, in this process or another, may reach the elements in another way than by such views: by a
    /// guard, a range, or an operation of [`Array`] other than `len`.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> shmkit::Result<()> {
    /// let histogram = shmkit::Array::<u64>::new(256)?;
    /// {
    ///     // SAFETY: everybody counts in this way, and the array is read when all are done.
    ///     let counts = unsafe { histogram.atomics() };
    ///     for byte in b"every byte" {
    ///         counts.fetch_add(usize::from(*byte), 1)?;
    ///     }
    /// }
    /// assert_eq!(histogram.get(usize::from(b'e'))?, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub unsafe fn atomics(&self) -> Atomics<'_, T> {
        Atomics { array: self }
    }
}

/// Part of an [`Array`] without its lock: [`Array::range`].
pub struct RawRange<'a, T: Element> {
    start: *mut T,
    len: usize,
    _array: PhantomData<&'a Array<T>>,
}

// SAFETY: a slice that its owner answers for.
unsafe impl<T: Element + Send> Send for RawRange<'_, T> {}

impl<T: Element> Deref for RawRange<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: inside the array; any bytes are a T (`Pod`); whoever made the view vouched that nobody else writes.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T: Element> DerefMut for RawRange<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl<T: Element + fmt::Debug> fmt::Debug for RawRange<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// The elements of an [`Array`] without its lock, changed by atomic instructions: [`Array::atomics`].
#[derive(Clone, Copy)]
pub struct Atomics<'a, T: Number> {
    array: &'a Array<T>,
}

macro_rules! by_one_instruction {
    ($($(#[$doc:meta])* $name:ident $method:ident;)*) => {$(
        $(#[$doc])* #[doc = " Gives the element before.\n\n# Errors\n`OutOfRange`."]
        #[inline]
        pub fn $name(&self, index: usize, other: T) -> Result<T> {
            let element = self.array.index(index)?;
            // SAFETY: inside the array; at a multiple of its size; whoever made the view vouched for the others.
            Ok(unsafe { T::$method(element, other) })
        }
    )*};
}

impl<T: Number> Atomics<'_, T> {
    /// Element `index`.
    ///
    /// # Errors
    /// `OutOfRange`.
    #[inline]
    pub fn get(&self, index: usize) -> Result<T> {
        let element = self.array.index(index)?;
        // Acquire pairs with the release in `set`. SAFETY: inside the array; at a multiple of its size.
        Ok(unsafe { words::load(element, Ordering::Acquire) })
    }

    /// Stores an element.
    ///
    /// # Errors
    /// `OutOfRange`.
    #[inline]
    pub fn set(&self, index: usize, value: T) -> Result<()> {
        let element = self.array.index(index)?;
        // Release pairs with the acquire in `get`. SAFETY: inside the array; at a multiple of its size.
        unsafe { words::store(element, value, Ordering::Release) };
        Ok(())
    }

    by_one_instruction! {
        /// Stores an element.
        swap swap;
        /// Adds to an element. Integers wrap around.
        fetch_add add;
        /// Subtracts from an element. Integers wrap around.
        fetch_sub sub;
        /// Stores the greater of the two.
        fetch_max max;
        /// Stores the lesser of the two.
        fetch_min min;
    }
}

impl<T: Integer> Atomics<'_, T> {
    by_one_instruction! {
        /// Bitwise "and" of an element.
        fetch_and and;
        /// Bitwise "or" of an element.
        fetch_or or;
        /// Bitwise "exclusive or" of an element.
        fetch_xor xor;
    }
}

impl<T: Number> fmt::Debug for Atomics<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Atomics").field("array", self.array).finish()
    }
}
