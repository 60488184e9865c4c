//! Iterating over a dict while it is in use.

use super::core::{Core, Cursor};
use crate::data::node::Copied;
use crate::error::Result;
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

impl<K: DeserializeOwned, V: DeserializeOwned> Iterator for DictIter<'_, K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Result<(K, V)>> {
        if self.is_over {
            return None;
        }
        let mut element = (Copied::none(), Copied::none());
        let next = self.core.next(&mut self.cursor, self.length, &mut element);
        self.is_over = !matches!(next, Ok(true));
        match next {
            Ok(true) => Some(element.0.to_key().and_then(|key| Ok((key, element.1.to_value()?)))),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
