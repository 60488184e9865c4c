//! When the receiving sides of channels are ready, and on which word one waits for that.

use super::port::Port;
use super::{Connection, Consumer, JoinableQueue, PodQueue, Queue, Receiver};
use crate::element::Element;
use crate::error::Result;
use crate::segment::Attachment;
use crate::segment::wait_many::Wakeable;
use crate::sync::wait_any::{Source, Waits};
use std::sync::atomic::AtomicU32;

impl Wakeable for Port {
    fn attachment(&self) -> &Attachment {
        self.attachment()
    }
    fn word(&self) -> &AtomicU32 {
        self.ring.not_empty()
    }
    fn is_ready(&self) -> Result<bool> {
        Ok(self.is_readable())
    }
}

macro_rules! queues {
    ($($queue:ident),*) => {
        $(impl<T> Waits for $queue<T> {
            fn source(&self) -> Result<Source<'_>> {
                Ok(Source::word(self.port.clone()))
            }
        })*
    };
}
queues!(Queue, JoinableQueue, Consumer);

impl<T: Element> Waits for PodQueue<T> {
    fn source(&self) -> Result<Source<'_>> {
        Ok(Source::word(self.port.clone()))
    }
}

impl Waits for Connection {
    fn source(&self) -> Result<Source<'_>> {
        Ok(Source::word(self.receiver()?.clone()))
    }
}

impl<T: Element> Waits for Receiver<T> {
    fn source(&self) -> Result<Source<'_>> {
        Ok(Source::word(self.watch()))
    }
}
