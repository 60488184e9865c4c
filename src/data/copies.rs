//! A value in two copies, read without a lock: what a [`super::Value`] of more than 8 bytes is made of.
//!
//! ```text
//! word     2·seq + writing; the current copy is seq & 1
//! write    s = word / 2; word = 2s + 1 (release); release fence; copy (s + 1) & 1 = value; word = 2s + 2 (release)
//! read     w1 = word (acquire); value = copy (w1 / 2) & 1; acquire fence; w2 = word; accepted iff w2 - (w1 & !1) ≤ 2
//! ```

use super::words;
use crate::element::Element;
use crate::sys::atomic::{AtomicU64, Ordering, fence};

/// The two copies of a `T` and their word.
#[derive(Clone, Copy)]
pub(super) struct Copies<'a> {
    word: &'a AtomicU64,
    copies: *const AtomicU64,
}

impl<'a> Copies<'a> {
    /// Words of a copy of a `T`.
    pub(super) const fn words<T>() -> usize {
        size_of::<T>().div_ceil(8)
    }

    /// # Safety
    /// `copies` is valid for twice [`Copies::words`] words of the type that is read and written, as long as `word` is.
    #[inline]
    pub(super) unsafe fn new(word: &'a AtomicU64, copies: *const AtomicU64) -> Copies<'a> {
        Copies { word, copies }
    }

    #[inline]
    fn copy<T>(self, sequence: u64) -> *const AtomicU64 {
        self.copies.wrapping_add((sequence & 1) as usize * Copies::words::<T>())
    }

    /// The value, or `None` if writers have spoilt the read.
    #[inline]
    pub(super) fn read<T: Element>(self) -> Option<T> {
        // Acquire pairs with both releases in `write`: the copy it names is whole.
        let before = self.word.load(Ordering::Acquire);
        // SAFETY: the caller of `new` has vouched for both copies.
        let value = unsafe { words::copy_out(self.copy::<T>(before >> 1)) };
        // Pairs with the release fence in `write`: if a word of a later write was read, its mark is seen, too.
        fence(Ordering::Acquire);
        let after = self.word.load(Ordering::Relaxed);
        (after.wrapping_sub(before & !1) <= 2).then_some(value)
    }

    /// The current copy, for who has the writers' lock.
    pub(super) fn current<T: Element>(self) -> T {
        // Relaxed: the lock has ordered it behind the last writer. SAFETY: as in `read`.
        unsafe { words::copy_out(self.copy::<T>(self.word.load(Ordering::Relaxed) >> 1)) }
    }

    /// Publishes a value, by who has the writers' lock.
    #[inline]
    pub(super) fn write<T: Element>(self, value: &T) {
        // What is odd was left by a dead writer: this one does the same write over.
        let sequence = self.word.load(Ordering::Relaxed) >> 1;
        let marked = (sequence << 1) | 1;
        // Release: who reads this, and not the word that the last writer left, sees that writer's copy whole, too.
        self.word.store(marked, Ordering::Release);
        // Pairs with the acquire fence in `read`: who reads a word of this copy sees the mark.
        fence(Ordering::Release);
        failpoint!("value.marked");
        // SAFETY: as in `read`.
        unsafe { words::copy_in(self.copy::<T>(sequence.wrapping_add(1)), value) };
        failpoint!("value.copied");
        // Release pairs with the acquire in `read`.
        self.word.store(marked.wrapping_add(1), Ordering::Release);
    }
}
