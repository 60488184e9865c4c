//! When the objects of `sync` are ready, and on which word one waits for that.

use super::wait_any::{Source, Waits};
use super::{BoundedSemaphore, Event, Lock, Mutex, Once, PermitSemaphore, RLock, Semaphore};
use crate::element::Element;
use crate::error::Result;
use crate::segment::object::Shared;
use crate::segment::wait_many::Wakeable;
use crate::segment::{Attachment, claim};
use std::sync::atomic::{AtomicU32, Ordering};

macro_rules! waits {
    ($($kind:ty $([$($generics:tt)*])?),* $(,)?) => {
        $(impl $(<$($generics)*>)? Waits for $kind {
            fn source(&self) -> Result<Source<'_>> {
                Ok(Source::word(self.clone()))
            }
        })*
    };
}
waits!(Event, Lock, Mutex<T> [T: Element + Send + 'static], Once, PermitSemaphore, RLock, Semaphore);

impl Waits for BoundedSemaphore {
    fn source(&self) -> Result<Source<'_>> {
        (**self).source()
    }
}

macro_rules! wakeable {
    ($($kind:ty: $word:ident, |$object:ident| $ready:expr;)*) => {
        $(impl Wakeable for $kind {
            fn attachment(&self) -> &Attachment {
                self.object().attachment()
            }
            fn word(&self) -> &AtomicU32 {
                self.$word()
            }
            fn is_ready(&self) -> Result<bool> {
                let $object = self;
                Ok($ready)
            }
        })*
    };
}
wakeable! {
    Event: event, |event| event.is_set();
    Once: event, |once| once.is_done();
    Semaphore: event, |permits| permits.has_permit();
    PermitSemaphore: event, |permits| permits.has_free();
}

/// A lock's word is both its state and what one sleeps on.
macro_rules! lock {
    ($($kind:ty $([$($generics:tt)*])?: |$lock:ident| $mine:expr;)*) => {
        $(impl $(<$($generics)*>)? Wakeable for $kind {
            fn attachment(&self) -> &Attachment {
                self.object().attachment()
            }
            fn word(&self) -> &AtomicU32 {
                self.lock_word()
            }
            fn is_ready(&self) -> Result<bool> {
                let $lock = self;
                let seen = self.lock_word().load(Ordering::Acquire);
                Ok(claim::is_free(seen) || claim::is_poisoned(seen) || $mine)
            }
            fn mark(&self) -> Option<u32> {
                claim::mark(self.lock_word())
            }
        })*
    };
}
lock! {
    Lock: |_lock| false;
    Mutex<T> [T: Element + Send + 'static]: |_lock| false;
    RLock: |lock| lock.is_mine()?;
}
