//! What users do with a dict, on keys that are serialised already: the common part of [`super::Dict`], sharded dicts and
//! namespaces.

use super::core::{Core, Place};
use crate::Error;
use crate::data::arena::Writing;
use crate::data::arena::link::HANDLE_TRIES;
use crate::data::node::{Contents, Copied, Key, Value};
use crate::error::{Result, SegmentError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Decodes the value at a place, under the lock: no node with handles goes away meanwhile.
fn decoded<V: DeserializeOwned>(writing: &mut Writing<'_>, place: &Place<'_>) -> Result<Option<V>> {
    let mut value = Copied::none();
    if !place.copy_value(&mut value) {
        return Ok(None);
    }
    writing.call(|_| value.to_value()).map(Some)
}

impl<'a> Core<'a> {
    /// The value for a key. Takes no lock.
    #[inline]
    pub(crate) fn get<V: DeserializeOwned>(&self, key: &Key) -> Result<Option<V>> {
        let mut value = Copied::none();
        match self.find(key, |node| node.copy_value(&mut value))? {
            None => Ok(None),
            Some(()) if value.has_handles => self.get_handles(key, value),
            Some(()) => value.to_value().map(Some),
        }
    }

    /// A value with handles: between the copy and the decoding its node, and with it the objects, may have gone.
    #[cold]
    fn get_handles<V: DeserializeOwned>(&self, key: &Key, mut value: Copied) -> Result<Option<V>> {
        for _ in 0..HANDLE_TRIES {
            match value.to_value() {
                Err(Error::Segment(SegmentError::Gone)) => {}
                decoded => return decoded.map(Some),
            }
            if self.find(key, |node| node.copy_value(&mut value))?.is_none() {
                return Ok(None);
            }
        }
        let mut writing = self.lock()?;
        let place = self.place(&writing, key, self.hash(key))?;
        decoded(&mut writing, &place)
    }

    pub(crate) fn contains(&self, key: &Key) -> Result<bool> {
        Ok(self.find(key, |_| ())?.is_some())
    }

    /// Removes a key; false if it is not there.
    pub(crate) fn remove(&self, key: &Key) -> Result<bool> {
        let hash = self.hash(key);
        let mut writing = self.lock()?;
        let place = self.place(&writing, key, hash)?;
        self.delete(&mut writing, &place, hash)
    }

    /// Puts or removes a value, if the present one is `expected`.
    pub(crate) fn compare_and_set(&self, key: &Key, expected: Option<&Value>, new: Option<&Value>) -> Result<bool> {
        let hash = self.hash(key);
        let mut writing = self.lock()?;
        let place = self.place(&writing, key, hash)?;
        let is_expected = match (&place, expected) {
            (Place::Taken { node, .. }, Some(expected)) => node.has_value(expected),
            (Place::Vacant { .. }, None) => true,
            _ => false,
        };
        if is_expected {
            self.leave(&mut writing, place, hash, key, new)?;
        }
        Ok(is_expected)
    }

    /// Puts a value at a place, or removes what is there.
    fn leave(
        &self,
        writing: &mut Writing<'a>,
        place: Place<'a>,
        hash: u32,
        key: &Key,
        value: Option<&Value>,
    ) -> Result<()> {
        match value {
            Some(value) => self.put(writing, place, hash, &Contents { key: Some(key), value }, None)?,
            None => self.delete(writing, &place, hash)?,
        };
        Ok(())
    }

    /// Puts a value and gives what was there.
    pub(crate) fn swap<V: DeserializeOwned>(&self, key: &Key, value: &Value) -> Result<Option<V>> {
        let hash = self.hash(key);
        let contents = Contents { key: Some(key), value };
        let prepared = contents.prepare(&self.arena)?;
        let mut writing = self.lock()?;
        let place = self.place(&writing, key, hash)?;
        let old = decoded(&mut writing, &place)?;
        self.put(&mut writing, place, hash, &contents, prepared)?;
        Ok(old)
    }

    /// Removes a key and gives its value.
    pub(crate) fn pop<V: DeserializeOwned>(&self, key: &Key) -> Result<Option<V>> {
        let hash = self.hash(key);
        let mut writing = self.lock()?;
        let place = self.place(&writing, key, hash)?;
        let old = decoded(&mut writing, &place)?;
        self.delete(&mut writing, &place, hash)?;
        Ok(old)
    }

    /// The value for a key; if there is none, what `make` gives is put.
    pub(crate) fn get_or_insert_with<V: Serialize + DeserializeOwned>(
        &self,
        key: &Key,
        make: impl FnOnce() -> V,
    ) -> Result<V> {
        if let Some(value) = self.get(key)? {
            return Ok(value);
        }
        let hash = self.hash(key);
        let mut writing = self.lock()?;
        let place = self.place(&writing, key, hash)?;
        if let Some(value) = decoded(&mut writing, &place)? {
            return Ok(value);
        }
        let (made, value) = writing.call(|writing| {
            let made = make();
            Value::of(writing.arena.attachment, &made).map(|value| (made, value))
        })?;
        self.put(&mut writing, place, hash, &Contents { key: Some(key), value: &value }, None)?;
        Ok(made)
    }

    /// Changes the value for a key under the lock.
    pub(crate) fn update<V: Serialize + DeserializeOwned, R>(
        &self,
        key: &Key,
        change: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R> {
        let hash = self.hash(key);
        let mut writing = self.lock()?;
        let place = self.place(&writing, key, hash)?;
        let mut value = decoded(&mut writing, &place)?;
        let (result, value) = writing.call(|writing| {
            let result = change(&mut value);
            let written = value.as_ref().map(|value| Value::of(writing.arena.attachment, value)).transpose();
            written.map(|written| (result, written))
        })?;
        self.leave(&mut writing, place, hash, key, value.as_ref())?;
        Ok(result)
    }

    /// Puts elements one after the other, and nobody's between them.
    pub(crate) fn merge<'k>(&self, items: impl IntoIterator<Item = &'k (Key, Value)>) -> Result<()> {
        let mut writing = self.lock()?;
        for (key, value) in items {
            let hash = self.hash(key);
            let place = self.place(&writing, key, hash)?;
            self.put(&mut writing, place, hash, &Contents { key: Some(key), value }, None)?;
        }
        Ok(())
    }

    /// Appends what `element` makes of every key and value, at one instant.
    pub(crate) fn snapshot<R>(
        &self,
        all: &mut Vec<R>,
        mut element: impl FnMut(&Copied, &Copied) -> Result<R>,
    ) -> Result<()> {
        let mut writing = self.lock()?;
        let (mut key, mut value) = (Copied::none(), Copied::none());
        all.reserve((writing.length() as usize).min(1 << 20));
        writing.call(|writing| {
            self.for_each(writing, |_, _, node| {
                node.copy_key(&mut key);
                node.copy_value(&mut value);
                all.push(element(&key, &value)?);
                Ok(())
            })
        })
    }

    /// Removes the last element and gives it.
    pub(crate) fn pop_item<K: DeserializeOwned, V: DeserializeOwned>(&self) -> Result<Option<(K, V)>> {
        let mut writing = self.lock()?;
        let Some((place, hash)) = self.last(&writing)? else { return Ok(None) };
        let (mut key, mut value) = (Copied::none(), Copied::none());
        if let Place::Taken { node, .. } = &place {
            node.copy_key(&mut key);
            node.copy_value(&mut value);
        }
        let item = writing.call(|_| Ok::<_, Error>((key.to_key()?, value.to_value()?)))?;
        self.delete(&mut writing, &place, hash)?;
        Ok(Some(item))
    }
}
