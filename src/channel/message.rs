//! A message in its block: a short header and the bytes, in the block if they fit, else in an extent of the heap.
//!
//! ```text
//! block    len | tag | flags | bytes that fit the stride                  extent[b] = 0
//! or       len | tag | flags | (unused)                                   extent[b] → COMMITTED extent with the bytes
//!
//! write    block W by me; the bytes; if they do not fit: extent HELD by me, filled; extent[b] = its name; commit it; the
//!          header; enqueue
//! read     block R by me; copy the bytes out; release; decode        with handles: decode, then release, then check them
//! ```
//! An extent is at every instant either HELD by its writer, whose death frees it, or named by a block, whose fate it shares.
//! Bytes are copied out before they are decoded, so that nobody can change under the decoder what it has checked.

use super::codec::{self, Inner};
use super::port::{Patience, Port};
use super::ring::Claimed;
use crate::error::{ChannelError, Error, Result};
use crate::segment::object::{Carrier, sending, take_refusal};
use crate::segment::{Attachment, atomic};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmkit_layouts::objects::{BlockMeta, MESSAGE_HANDLES, TAG_BYTES};
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

/// Bytes of a block before the message.
pub(super) const HEAD: usize = size_of::<BlockMeta>();
/// Messages up to this length are copied to the stack.
const SMALL: usize = 512;
/// The most blocks a batch claims at once.
const BATCH: usize = 32;

/// A message that was written to a block and not yet put into the ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) claimed: Claimed,
    is_long: bool,
    has_handles: bool,
}

/// A message that this process has got and not yet said to be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldTask {
    pub(super) claimed: Claimed,
    is_long: bool,
    has_handles: bool,
}

/// Where a received message lies.
struct Found {
    start: *const u8,
    len: usize,
    tag: u32,
    is_long: bool,
    has_handles: bool,
}

/// Takes serialised bytes: into the block as long as they fit, then all of them into a vector; `len` is `room` from there on.
struct BlockWriter {
    start: *mut u8,
    room: usize,
    len: usize,
    spilled: Option<Vec<u8>>,
}

impl BlockWriter {
    #[cold]
    fn spill(&mut self, data: &[u8]) {
        let (start, len) = (self.start, self.len);
        let all = self.spilled.get_or_insert_with(|| {
            let mut all = Vec::with_capacity((len + data.len()).max(2 * len));
            // SAFETY: `len` bytes were written there, by this writer, which owns the block.
            all.extend_from_slice(unsafe { std::slice::from_raw_parts(start, len) });
            all
        });
        all.extend_from_slice(data);
        // Nothing fits any more.
        self.len = self.room;
    }
}

/// Copies `data` to `to`; numbers, which are short, without a call.
///
/// # Safety
/// There is room for `data.len()` bytes at `to`, which do not overlap `data`.
#[inline]
unsafe fn copy_short(data: &[u8], to: *mut u8) {
    let (from, len) = (data.as_ptr(), data.len());
    // SAFETY: the caller's; the two halves overlap so that they cover exactly `len` bytes.
    unsafe {
        match len {
            8..=16 => {
                let (head, tail) = (from.cast::<u64>(), from.add(len - 8).cast::<u64>());
                let (head, tail) = (head.read_unaligned(), tail.read_unaligned());
                to.cast::<u64>().write_unaligned(head);
                to.add(len - 8).cast::<u64>().write_unaligned(tail);
            }
            4..=7 => {
                let (head, tail) = (from.cast::<u32>(), from.add(len - 4).cast::<u32>());
                let (head, tail) = (head.read_unaligned(), tail.read_unaligned());
                to.cast::<u32>().write_unaligned(head);
                to.add(len - 4).cast::<u32>().write_unaligned(tail);
            }
            1..=3 => {
                to.write(*from);
                to.add(len / 2).write(*from.add(len / 2));
                to.add(len - 1).write(*from.add(len - 1));
            }
            _ => std::ptr::copy_nonoverlapping(from, to, len),
        }
    }
}

impl postcard::ser_flavors::Flavor for BlockWriter {
    type Output = Self;

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        if data.len() <= self.room - self.len {
            // SAFETY: the block has `room` bytes, is this process's, and does not overlap what it serialises.
            unsafe { copy_short(data, self.start.add(self.len)) };
            self.len += data.len();
        } else {
            self.spill(data);
        }
        Ok(())
    }
    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        if self.len < self.room {
            // SAFETY: as in `try_extend`.
            unsafe { self.start.add(self.len).write(data) };
            self.len += 1;
        } else {
            self.spill(&[data]);
        }
        Ok(())
    }
    fn finalize(self) -> postcard::Result<Self> {
        Ok(self)
    }
}

impl Port {
    /// Bytes of a message that fit a block.
    fn room(&self) -> usize {
        self.ring.stride() - HEAD
    }

    #[inline]
    fn writer(&self, claimed: Claimed) -> Inner<BlockWriter> {
        let start = self.ring.payload(claimed.index).wrapping_add(HEAD);
        Inner { output: BlockWriter { start, room: self.room(), len: 0, spilled: None } }
    }

    /// Serialises `value` into a block. Gives the block back if that fails.
    pub(super) fn write<T: Serialize + ?Sized>(&self, claimed: Claimed, value: &T) -> Result<Written> {
        let carrier = Carrier::Block {
            attachment: self.attachment(),
            queue: self.object.reference.id.index,
            block: self.first_id + claimed.index,
            generation: claimed.generation(),
        };
        take_refusal();
        let on_panic = Unwinding { port: self, claimed };
        let mut writer = self.writer(claimed);
        let (encoded, has_handles) = sending(carrier, || codec::encode(value, &mut writer));
        std::mem::forget(on_panic);
        let written = Written { claimed, is_long: false, has_handles };
        match encoded {
            Ok(tag) => self.finish(written, tag, &writer.output),
            Err(why) => {
                self.abandon(written);
                Err(refusal("write", why))
            }
        }
    }

    /// Writes bytes as they are to a block. Gives the block back if that fails.
    pub(super) fn write_bytes(&self, claimed: Claimed, bytes: &[u8]) -> Result<Written> {
        let mut output = self.writer(claimed).output;
        let written = Written { claimed, is_long: false, has_handles: false };
        if bytes.len() <= output.room {
            let _ = postcard::ser_flavors::Flavor::try_extend(&mut output, bytes);
            self.finish(written, TAG_BYTES, &output)
        } else {
            self.finish_long(written, TAG_BYTES, bytes)
        }
    }

    fn finish(&self, written: Written, tag: u32, output: &BlockWriter) -> Result<Written> {
        match &output.spilled {
            None => {
                self.write_head(&written, tag, output.len);
                Ok(written)
            }
            Some(bytes) => self.finish_long(written, tag, bytes),
        }
    }

    #[cold]
    fn finish_long(&self, mut written: Written, tag: u32, bytes: &[u8]) -> Result<Written> {
        match self.name_extent(written.claimed, bytes) {
            Ok(()) => {
                written.is_long = true;
                self.write_head(&written, tag, bytes.len());
                Ok(written)
            }
            Err(error) => {
                self.abandon(written);
                Err(error)
            }
        }
    }

    fn name_extent(&self, claimed: Claimed, bytes: &[u8]) -> Result<()> {
        let attachment = self.attachment();
        let size = bytes.len() as u64;
        if size > attachment.geometry.max_size {
            return Err(ChannelError::TooLarge { size, maximum: attachment.geometry.max_size }.into());
        }
        let Some(name) = self.ring.extent(claimed.index) else {
            return Err(ChannelError::TooLarge { size, maximum: self.room() as u64 }.into());
        };
        let extent = attachment.allocate(size)?;
        failpoint!("queue.extent_allocated");
        let start = attachment.map.base().wrapping_add(extent.offset as usize);
        // SAFETY: the extent is held by this process alone, lies inside the mapping, and has at least `size` bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
        failpoint!("queue.extent_filled");
        let reference = extent.reference.pack();
        // Release pairs with the acquire of whoever frees it in my place.
        name.store(reference, Ordering::Release);
        failpoint!("queue.extent_named");
        attachment.commit_extent(reference, self.me()?);
        failpoint!("queue.extent_committed");
        Ok(())
    }

    fn write_head(&self, written: &Written, tag: u32, len: usize) {
        let meta = self.ring.payload(written.claimed.index).cast::<BlockMeta>().cast_const();
        // Relaxed: the commit publishes them.
        atomic!(meta, len).store(len as u64, Ordering::Relaxed);
        atomic!(meta, tag).store(tag, Ordering::Relaxed);
        atomic!(meta, flags).store(if written.has_handles { MESSAGE_HANDLES } else { 0 }, Ordering::Relaxed);
        failpoint!("queue.filled");
    }

    /// Gives a block back, with all that its message has.
    pub(super) fn abandon(&self, written: Written) {
        self.release(written.claimed, written.is_long, written.has_handles);
    }

    fn release(&self, claimed: Claimed, is_long: bool, has_handles: bool) {
        let attachment = self.attachment();
        if is_long {
            self.ring.free_with_extent(attachment, claimed);
        } else {
            self.ring.free(claimed);
        }
        if has_handles {
            check_referents(attachment);
        }
    }

    /// Throws away a message that this process has taken.
    pub(super) fn discard(&self, claimed: Claimed) {
        if !self.ring.has_extents() {
            self.ring.free(claimed);
        } else if let Ok(found) = self.found(claimed) {
            self.release(claimed, found.is_long, found.has_handles);
        }
    }

    /// Puts a value, or gives its block back.
    pub(super) fn put<T: Serialize + ?Sized>(&self, value: &T, patience: Patience) -> Result<()> {
        self.expect_room(patience)?;
        let claimed = self.claim(patience)?;
        self.ring.fetch_next();
        let written = self.write(claimed, value)?;
        self.enqueue(written.claimed, patience).inspect_err(|_| self.abandon(written))
    }

    /// Puts values in order, many at once.
    pub(super) fn put_many<T: Serialize>(&self, values: impl IntoIterator<Item = T>) -> Result<()> {
        let me = self.me()?;
        let mut pending: Vec<Written> = Vec::with_capacity(BATCH);
        for value in values {
            // Nobody waits for a block with others in his hands.
            let at_once = if pending.len() < BATCH { self.ring.claim(me) } else { None };
            let claimed = match at_once {
                Some(claimed) => claimed,
                None => {
                    self.flush(&mut pending)?;
                    self.claim(Patience::ENDLESS)?
                }
            };
            match self.write(claimed, &value) {
                Ok(written) => pending.push(written),
                Err(error) => {
                    self.flush(&mut pending)?;
                    return Err(error);
                }
            }
        }
        self.flush(&mut pending)
    }

    fn flush(&self, pending: &mut Vec<Written>) -> Result<()> {
        while !pending.is_empty() {
            let claimed: Vec<_> = pending.iter().map(|written| written.claimed).collect();
            match self.enqueue_many(&claimed, Patience::ENDLESS) {
                Ok(done) => drop(pending.drain(..done)),
                Err(error) => {
                    pending.drain(..).for_each(|written| self.abandon(written));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn find(&self, claimed: Claimed) -> Result<Found> {
        self.ring.look(self.attachment(), claimed.index)?;
        let block = self.ring.payload(claimed.index);
        let meta = block.cast::<BlockMeta>().cast_const();
        // Relaxed: the acquire of the ring's slot came first.
        let len = atomic!(meta, len).load(Ordering::Relaxed);
        let tag = atomic!(meta, tag).load(Ordering::Relaxed);
        let has_handles = atomic!(meta, flags).load(Ordering::Relaxed) & MESSAGE_HANDLES != 0;
        let is_long = len > self.room() as u64;
        let start = match self.ring.extent(claimed.index) {
            _ if !is_long => block.wrapping_add(HEAD).cast_const(),
            Some(name) => {
                let extent = self.attachment().find_extent(name.load(Ordering::Acquire), "extent of a message")?;
                if len > extent.len {
                    return Err(self.ring.corrupt("length of a message", len));
                }
                self.attachment().map.base().wrapping_add(extent.offset as usize).cast_const()
            }
            None => return Err(self.ring.corrupt("length of a message", len)),
        };
        Ok(Found { start, len: len as usize, tag, is_long, has_handles })
    }

    fn found(&self, claimed: Claimed) -> Result<Found> {
        // A message that cannot be is thrown away; what its block names goes with it.
        self.find(claimed).inspect_err(|_| self.release(claimed, true, true))
    }

    /// Decodes the message in a taken block and releases the block.
    #[inline]
    pub(super) fn receive<T: DeserializeOwned>(&self, claimed: Claimed) -> Result<T> {
        take_refusal();
        self.receive_with(claimed, false, decode)
    }

    /// Decodes the message in a taken block, which stays this process's until [`Port::finish_task`].
    pub(super) fn receive_task<T: DeserializeOwned>(&self, claimed: Claimed) -> Result<(T, HeldTask)> {
        take_refusal();
        let found = self.found(claimed)?;
        let task = HeldTask { claimed, is_long: found.is_long, has_handles: found.has_handles };
        let bytes = found.copy();
        failpoint!("queue.copied");
        let on_panic = Unwinding { port: self, claimed };
        let value = decode(found.tag, &bytes);
        std::mem::forget(on_panic);
        match value {
            Ok(value) => Ok((value, task)),
            Err(error) => {
                self.finish_task(task);
                Err(error)
            }
        }
    }

    /// Releases the block of a message that is done.
    pub(super) fn finish_task(&self, task: HeldTask) {
        self.release(task.claimed, task.is_long, task.has_handles);
        // The last one sees that nothing else is in the queue: only he need tell.
        if self.ring.len() == 0 {
            crate::segment::wait::publish_all(self.ring.all_done());
        }
    }

    /// Gives tag and bytes of the message in a taken block to `read`, and releases the block: afterwards if it is to be held,
    /// or holds handles that `read` adopts.
    #[inline]
    pub(super) fn receive_with<R>(
        &self,
        claimed: Claimed,
        hold: bool,
        read: impl FnOnce(u32, &[u8]) -> Result<R>,
    ) -> Result<R> {
        let found = self.found(claimed)?;
        let hold = hold || found.has_handles;
        let mut small = [const { MaybeUninit::<u8>::uninit() }; SMALL];
        let large: Vec<u8>;
        let bytes = if found.len <= SMALL {
            // SAFETY: `find` checked that `len` bytes are there, and there is room for them; after the copy they are written.
            unsafe {
                std::ptr::copy_nonoverlapping(found.start, small.as_mut_ptr().cast(), found.len);
                std::slice::from_raw_parts(small.as_ptr().cast(), found.len)
            }
        } else {
            large = found.copy();
            &large[..]
        };
        failpoint!("queue.copied");
        if !hold {
            self.release(claimed, found.is_long, false);
        }
        let value = if hold {
            let on_panic = Unwinding { port: self, claimed };
            let value = read(found.tag, bytes);
            std::mem::forget(on_panic);
            value
        } else {
            read(found.tag, bytes)
        };
        if hold {
            failpoint!("queue.decoded");
            self.release(claimed, found.is_long, found.has_handles);
        }
        value
    }

    /// The bytes of the message in a taken block, which is released.
    pub(super) fn receive_bytes(&self, claimed: Claimed) -> Result<Vec<u8>> {
        let found = self.found(claimed)?;
        let bytes = found.copy();
        failpoint!("queue.copied");
        self.release(claimed, found.is_long, found.has_handles);
        Ok(bytes)
    }

    /// The bytes of the message in a taken block, into `buffer` if they fit. Gives how many there are. The block is released.
    pub(super) fn receive_bytes_into(&self, claimed: Claimed, buffer: &mut [u8]) -> Result<usize> {
        let found = self.found(claimed)?;
        let fits = found.len <= buffer.len();
        let outcome = if fits {
            // SAFETY: `find` checked that `len` bytes are there; `buffer` has room for them and is no shared memory.
            unsafe { std::ptr::copy_nonoverlapping(found.start, buffer.as_mut_ptr(), found.len) };
            Ok(found.len)
        } else {
            Err(ChannelError::TooLong { message: found.copy(), maximum: buffer.len() }.into())
        };
        failpoint!("queue.copied");
        self.release(claimed, found.is_long, found.has_handles);
        outcome
    }
}

impl Found {
    fn copy(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len);
        // SAFETY: `find` checked that `len` bytes are there; as many are reserved and then written.
        unsafe {
            std::ptr::copy_nonoverlapping(self.start, bytes.as_mut_ptr(), self.len);
            bytes.set_len(self.len);
        }
        bytes
    }
}

/// Gives the block back, with all that its message has, when the user's own code panics.
struct Unwinding<'a> {
    port: &'a Port,
    claimed: Claimed,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        self.port.release(self.claimed, true, true);
    }
}

/// Reads a value that was sent.
#[inline]
fn decode<T: DeserializeOwned>(tag: u32, bytes: &[u8]) -> Result<T> {
    codec::decode(tag, bytes, |why| refusal("read", why))
}

/// What serde said; or, since postcard drops the words of others, what a handle had against it.
#[cold]
fn refusal(action: &'static str, why: String) -> Error {
    take_refusal().unwrap_or(ChannelError::Codec { action, why }.into())
}

/// Destroys what only a message kept alive that is gone now.
#[cold]
fn check_referents(attachment: &Attachment) {
    failpoint!("queue.before_check");
    if let Some(me) = attachment.own_slot() {
        attachment.check_all(me);
    }
}
