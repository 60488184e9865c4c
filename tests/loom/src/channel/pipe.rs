//! What the ends of a pipe share, as in the library's module of this name.

#[path = "../../../../src/channel/pipe/end.rs"]
pub(crate) mod end;
#[path = "../../../../src/channel/pipe/receiver.rs"]
pub(crate) mod receiver;
#[path = "../../../../src/channel/pipe/sender.rs"]
pub(crate) mod sender;

use crate::element::Element;
use crate::error::Result;
use crate::segment::{atomic, wait};
use crate::sys::atomic::{AtomicU32, Ordering};
use shmkit_layouts::objects::PipeBody;
use shmkit_layouts::words::EVENT_WAITING;

pub(crate) const ELEMENTS: u64 = 0;

pub(crate) struct Pipe(*const PipeBody);

impl Pipe {
    fn wake(&self) {
        atomic!(self.0, receiver_left).store(1, Ordering::SeqCst);
        wait::wake_everybody(atomic!(self.0, not_empty));
        wait::wake_everybody(atomic!(self.0, not_full));
    }
}

impl<T: Element> std::fmt::Debug for receiver::Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receiver")
    }
}

/// An end that is taken when it is opened, not at its first use.
trait Claims: Sized {
    fn claim(&self) -> Result<()>;
}

fn is_waited_on(event: &AtomicU32) -> bool {
    event.load(Ordering::Relaxed) & EVENT_WAITING != 0
}

#[cfg(test)]
#[path = "../tests/pipe.rs"]
mod tests;
