//! Iterating over a dict while it is in use.

use super::core::{Core, Cursor};
use crate::Error;
use crate::data::arena::link::HANDLE_TRIES;
use crate::data::node::Copied;
use crate::error::{Result, SegmentError};
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// The elements of a [`super::Dict`] as they are when one gets to them.
pub struct DictIter<'a, K, V> {
    core: Core<'a>,
    cursor: Cursor,
    length: u64,
    is_over: bool,
    _elements: PhantomData<fn() -> (K, V)>,
}

impl<'a, K, V> DictIter<'a, K, V> {
    pub(super) fn new(core: Core<'a>) -> Self {
        let length = core.arena.length();
        DictIter { core, cursor: Cursor::default(), length, is_over: false, _elements: PhantomData }
    }
}

impl<K: DeserializeOwned, V: DeserializeOwned> DictIter<'_, K, V> {
    /// The next element, decoded; `None` at the end.
    fn step(&mut self) -> Result<Option<(K, V)>> {
        let mut element = (Copied::none(), Copied::none());
        match self.core.next(&mut self.cursor, self.length, &mut element) {
            Ok(true) => {}
            Ok(false) => {
                self.is_over = true;
                return Ok(None);
            }
            Err(error) => {
                self.is_over = true;
                return Err(error);
            }
        }
        Ok(Some((element.0.to_key()?, element.1.to_value()?)))
    }

    /// The same, of a value whose handles named objects that had gone: it was replaced, and is read again.
    fn step_again(&mut self, cursor: Cursor) -> Result<Option<(K, V)>> {
        for _ in 0..HANDLE_TRIES {
            self.cursor = cursor;
            match self.step() {
                Err(Error::Segment(SegmentError::Gone)) => {}
                step => return step,
            }
        }
        // No value goes away under the lock.
        self.cursor = cursor;
        let mut writing = self.core.lock()?;
        writing.call(|_| self.step())
    }
}

impl<K: DeserializeOwned, V: DeserializeOwned> Iterator for DictIter<'_, K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Result<(K, V)>> {
        if self.is_over {
            return None;
        }
        let cursor = self.cursor;
        let step = match self.step() {
            Err(Error::Segment(SegmentError::Gone)) => self.step_again(cursor),
            step => step,
        };
        step.transpose()
    }
}
