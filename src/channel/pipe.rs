//! The pipe: a ring between one sender and one receiver, the fastest way from process to process.
//!
//! ```text
//! body   header | capacity, stride | tail, sender | head, receiver | not_empty, receiver_left | not_full | elements
//!
//! claim   sender (or receiver): CAS free or a dead one's token → mine; then the positions are read from the body
//! send    while tail - head = capacity: look at head, else wait on not_full
//!         element tail = value; tail = tail + 1 (release): the commit; wake who waits on not_empty
//! recv    while head = tail: look at tail, else wait on not_empty
//!         value = element head; head = head + 1 (release): the acknowledgement; wake who waits on not_full
//! ```
//! Each end keeps its own position and the other's as last seen, so that one shared line is touched for each element. An end
//! has gone when its `state` says closed, or when nobody holds a reference in its role any more; `receiver_left` tells the
//! sender to look.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | claiming an end, before the CAS | nothing | nobody needs to | nothing |
//! | having claimed an end | its word names a dead participant | the next who claims it takes it over in one CAS; recovery frees it | nothing |
//! | sending, before `tail` goes up; with a loan | nothing: the next sender writes over it | nobody needs to | what was not committed |
//! | sending, after `tail` has gone up, before the wake | the element; a sleeper does not know yet | recovery wakes all; the sleeper looks again at the end of its slice | at most 1 s |
//! | receiving, before `head` goes up; with a [`RecvRef`] | the element is still there, for the next who claims the end | nobody needs to | nothing |
//! | receiving, after `head` has gone up | the element is gone: it was received | recovery wakes the sender, as above | what the dead one did with it |
//! | closing, after the state is stored | a closed end; a sleeper does not know yet | as above | at most 1 s |
//! | dropping an end, its claim given back | an end held by a dead one | recovery; then it has gone | nothing |

mod end;
mod receiver;
mod sender;

pub use self::receiver::{Elements, IntoElements, Receiver, RecvRef};
pub use self::sender::{SendLoan, Sender};

use self::end::End;
use crate::element::Element;
use crate::error::{Result, SegmentError};
use crate::kinds::Kind;
use crate::segment::object::{self, BodyId, ElementType, HEADER, Object, Shared, create, open};
use crate::segment::wait;
use crate::segment::{Segment, atomic, session};
use shmkit_layouts::kinds::KIND_PIPE;
use shmkit_layouts::objects::{END_USED, PipeBody, ROLE_FIRST, ROLE_SECOND};
use shmkit_layouts::words::EVENT_WAITING;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

/// What recovery does with pipes: frees the ends of the dead one and wakes the others, whom it may not have woken.
pub(crate) const KIND: Kind = Kind {
    recover: |attachment, body, dead| {
        if let Ok(pipe) = attachment.pointer::<PipeBody>(body.offset + HEADER, "pipe") {
            for owner in [atomic!(pipe, sender), atomic!(pipe, receiver)] {
                // AcqRel: the dead one's positions go on to who claims the end next.
                let _ = owner.compare_exchange(dead.token().0, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
            Pipe(pipe).wake();
        }
    },
    wake: |attachment, body| {
        if let Ok(pipe) = attachment.pointer::<PipeBody>(body.offset + HEADER, "pipe") {
            Pipe(pipe).wake();
        }
    },
    ..Kind::plain(KIND_PIPE)
};

/// A checked pipe's body.
struct Pipe(*const PipeBody);

impl Pipe {
    /// Makes both ends look whether the other one is there.
    fn wake(&self) {
        // SeqCst pairs with the swap in `look`: who finds it set sees who has left. Before the wake, which has the barrier.
        atomic!(self.0, receiver_left).store(1, Ordering::SeqCst);
        wait::wake_everybody(atomic!(self.0, not_empty));
        wait::wake_everybody(atomic!(self.0, not_full));
    }
}

/// The most elements a pipe can hold.
pub const MAX_CAPACITY: usize = 1 << 31;

/// The largest alignment of an element: that of the body.
const ALIGNMENT: usize = align_of::<PipeBody>();

/// Bytes from the start of a pipe's own struct to its elements.
const ELEMENTS: u64 = size_of::<PipeBody>() as u64;

/// How a pipe is to be created.
#[derive(Debug, Clone, Copy)]
pub struct PipeOptions {
    capacity: usize,
    /// Both ends are handed out at once: there is no waiting for a first holder.
    both: bool,
}

impl PipeOptions {
    /// The capacity, rounded up to a power of two.
    fn ring<T: Element>(&self) -> Result<u64> {
        let invalid = |what, found, why| Err(SegmentError::InvalidSize { what, found, why }.into());
        if self.capacity == 0 || self.capacity > MAX_CAPACITY {
            return invalid("a pipe's capacity", self.capacity as u64, "it must be 1 to 2^31 elements");
        }
        if align_of::<T>() > ALIGNMENT {
            return invalid("an element's alignment", align_of::<T>() as u64, "it must be 128 bytes at most");
        }
        Ok(self.capacity.next_power_of_two() as u64)
    }
}

fn body_size<T: Element>(options: &PipeOptions) -> Result<u64> {
    let elements = options.ring::<T>()?.checked_mul(size_of::<T>() as u64);
    let size = elements.and_then(|size| size.checked_add(ELEMENTS));
    let (found, why) = (options.capacity as u64, "its size in bytes is more than there can be");
    size.ok_or_else(|| SegmentError::InvalidSize { what: "a pipe's capacity", found, why }.into())
}

fn build<T: Element>(options: &PipeOptions, start: *mut u8) -> Result<()> {
    let (body, capacity) = (start.cast::<PipeBody>(), options.ring::<T>()?);
    // SAFETY: the body has room for the struct, is 128-byte aligned, and nobody else reaches it yet.
    unsafe {
        (&raw mut (*body).capacity).write(capacity as u32);
        (&raw mut (*body).stride).write(size_of::<T>() as u32);
        (&raw mut (*body).elements_offset).write(ELEMENTS);
    }
    if options.both {
        atomic!(body, sender_state).store(END_USED, Ordering::Relaxed);
        atomic!(body, receiver_state).store(END_USED, Ordering::Relaxed);
    }
    Ok(())
}

macro_rules! end_as_object {
    ($name:ident, $role:expr) => {
        impl<T: Element> Shared for $name<T> {
            type Options = PipeOptions;

            fn kind() -> u32 {
                KIND_PIPE
            }
            fn element() -> Option<ElementType> {
                Some(ElementType::of::<T>())
            }
            fn role() -> u32 {
                $role
            }
            fn size(options: &PipeOptions) -> Result<u64> {
                body_size::<T>(options)
            }
            fn zeroed(_: &PipeOptions) -> u64 {
                ELEMENTS
            }
            fn build(options: &PipeOptions, start: *mut u8, _: BodyId) -> Result<()> {
                build::<T>(options, start)
            }
            fn attach(object: Object) -> Result<Self> {
                Ok($name { end: End::attach(object)? })
            }
            fn object(&self) -> &Object {
                &self.end.object
            }
        }

        // SAFETY: the pointers are into the mapping, which the object keeps; one thread at a time uses them.
        unsafe impl<T: Element + Send> Send for $name<T> {}

        impl<T: Element> serde::Serialize for $name<T> {
            /// Only as an argument of a process or inside a message: something must keep the pipe alive on the way. The end's
            /// role is given back: whoever uses the end first, there or here, has it then.
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                let ticket = object::serialize(&self.end.object, serializer)?;
                self.end.release();
                Ok(ticket)
            }
        }

        impl<'de, T: Element> serde::Deserialize<'de> for $name<T> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                object::deserialize(deserializer)
            }
        }

        impl<T: Element> $name<T> {
            /// Elements the pipe can hold.
            pub fn capacity(&self) -> usize {
                self.end.capacity() as usize
            }

            /// Its segment.
            pub fn segment(&self) -> Segment {
                self.end.object.segment()
            }
        }

        impl<T: Element> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut shown = f.debug_struct(stringify!($name));
                shown.field("element", &T::NAME).field("capacity", &self.capacity()).finish_non_exhaustive()
            }
        }
    };
}
end_as_object!(Sender, ROLE_FIRST);
end_as_object!(Receiver, ROLE_SECOND);

/// A pipe for at least `capacity` elements in the session segment.
///
/// The capacity is rounded up to a power of two.
///
/// # Errors
/// `InvalidSize`, `OutOfMemory`, `TooManyObjects`.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let (sender, receiver) = shmkit::channel::<u64>(64)?;
/// let squares = std::thread::spawn(move || -> shmkit::Result<()> {
///     for i in 0..1000 {
///         sender.send(i * i)?;
///     }
///     Ok(())
/// });
/// let sum = receiver.iter().sum::<shmkit::Result<u64>>()?;
/// assert_eq!(sum, 332_833_500);
/// squares.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
pub fn channel<T: Element>(capacity: usize) -> Result<(Sender<T>, Receiver<T>)> {
    channel_in(&session()?, capacity)
}

/// A pipe for at least `capacity` elements in `segment`.
///
/// # Errors
/// As [`channel`].
pub fn channel_in<T: Element>(segment: &Segment, capacity: usize) -> Result<(Sender<T>, Receiver<T>)> {
    both(create(segment, None, &PipeOptions { capacity, both: true }, false)?)
}

fn both<T: Element>(sender: Sender<T>) -> Result<(Sender<T>, Receiver<T>)> {
    let receiver = Receiver::attach(sender.end.object.in_role(ROLE_SECOND)?)?;
    Ok((sender, receiver))
}

/// A pipe to be created in, or opened from, a segment under a name: [`Segment::channel`].
#[derive(Debug)]
pub struct ChannelAt<'a, T: Element> {
    segment: &'a Segment,
    name: &'a str,
    capacity: usize,
    _type: PhantomData<T>,
}

impl Segment {
    /// The pipe `name`, for 256 elements unless told otherwise.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> shmkit::Result<()> {
    /// # let segment = shmkit::Segment::anonymous()?;
    /// let sender = segment.channel::<f32>("wire").capacity(1024).create_sender()?;
    /// sender.send(0.5)?;
    ///
    /// // In another process, or in this one:
    /// let receiver = segment.channel::<f32>("wire").open_receiver()?;
    /// assert_eq!(receiver.recv()?, 0.5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn channel<'a, T: Element>(&'a self, name: &'a str) -> ChannelAt<'a, T> {
        ChannelAt { segment: self, name, capacity: 256, _type: PhantomData }
    }
}

impl<T: Element> ChannelAt<'_, T> {
    /// How many elements it can hold at least; rounded up to a power of two.
    #[must_use]
    pub fn capacity(mut self, elements: usize) -> Self {
        self.capacity = elements;
        self
    }

    fn options(&self, both: bool) -> PipeOptions {
        PipeOptions { capacity: self.capacity, both }
    }

    /// Creates the pipe and gives both ends.
    ///
    /// # Errors
    /// `ObjectExists`; as [`channel`].
    pub fn create(self) -> Result<(Sender<T>, Receiver<T>)> {
        both(create(self.segment, Some(self.name), &self.options(true), false)?)
    }

    /// Creates the pipe and takes its sending end. Elements wait in the pipe for the first receiver to come.
    ///
    /// # Errors
    /// `ObjectExists`; as [`channel`].
    pub fn create_sender(self) -> Result<Sender<T>> {
        claimed(create(self.segment, Some(self.name), &self.options(false), false)?)
    }

    /// Creates the pipe and takes its receiving end, which waits for the first sender to come.
    ///
    /// # Errors
    /// `ObjectExists`; as [`channel`].
    pub fn create_receiver(self) -> Result<Receiver<T>> {
        claimed(create(self.segment, Some(self.name), &self.options(false), false)?)
    }

    /// Opens the pipe and takes its sending end: one that nobody has, or one whose owner is dead.
    ///
    /// # Errors
    /// `EndTaken`, which names the process that has it; `Closed`; `ObjectNotFound`, `WrongKind`, `WrongElement`, `Corrupt`.
    pub fn open_sender(self) -> Result<Sender<T>> {
        claimed(open(self.segment, self.name)?)
    }

    /// Opens the pipe and takes its receiving end: one that nobody has, or one whose owner is dead. What that one had not
    /// acknowledged is received again.
    ///
    /// # Errors
    /// As [`ChannelAt::open_sender`].
    pub fn open_receiver(self) -> Result<Receiver<T>> {
        claimed(open(self.segment, self.name)?)
    }

    /// As [`ChannelAt::open_sender`], creating the pipe if there is none.
    ///
    /// # Errors
    /// As [`ChannelAt::open_sender`] and [`channel`].
    pub fn open_or_create_sender(self) -> Result<Sender<T>> {
        claimed(create(self.segment, Some(self.name), &self.options(false), true)?)
    }

    /// As [`ChannelAt::open_receiver`], creating the pipe if there is none.
    ///
    /// # Errors
    /// As [`ChannelAt::open_receiver`] and [`channel`].
    pub fn open_or_create_receiver(self) -> Result<Receiver<T>> {
        claimed(create(self.segment, Some(self.name), &self.options(false), true)?)
    }
}

/// An end that is taken when it is opened, not at its first use.
trait Claims: Sized {
    fn claim(&self) -> Result<()>;
}

fn claimed<E: Claims>(end: E) -> Result<E> {
    end.claim()?;
    Ok(end)
}

/// Whether somebody sleeps on the word or is about to: the time to look whether the other end is there at all.
fn is_waited_on(event: &AtomicU32) -> bool {
    event.load(Ordering::Relaxed) & EVENT_WAITING != 0
}
