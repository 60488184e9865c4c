//! Segments: named (or anonymous) pieces of shared memory that hold objects, and the processes attached to them.
//!
//! * [`Segment`]: its name, its objects. [`SegmentBuilder`]: create and open. `life`: when the name goes away. `known`: those
//!   this process is attached to.
//! * `attachment`: the mapping, the checked header, this process's place in the registry, the proof of life.
//! * `heap`: memory for objects. `objects`: the table of objects and what keeps them alive.
//! * `recovery`: repairing what a dead participant left. `wait`, `claim`: the one way to wait and the one robust lock word.
//!
//! # Crash behaviour
//!
//! | killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | while creating, before the name is given | nothing: the file has no name | the kernel frees it | the segment |
//! | after the name is given | a whole segment with one dead participant | the next who attaches or waits | nothing |
//! | while attaching, slot locked | a slot that is not ACTIVE, its lock free again | the next who takes the slot | nothing |
//! | attached | a slot ACTIVE, its lock free | whoever waits for it, probes, or attaches | what it had not committed |
//! | while detaching | a slot RECOVERING, its lock free | the same | nothing |
//! | last one, policy `OnLastDetach` | a name nobody holds | the next opener, or `gc` | nothing |

mod attachment;
mod builder;
pub(crate) mod claim;
mod heap;
pub(crate) mod interrupt;
pub(crate) mod known;
mod life;
pub(crate) mod object;
mod objects;
mod recovery;
mod session;
mod verify;
pub(crate) mod wait;
pub(crate) mod wait_many;

pub(crate) use attachment::{Attachment, Place, atomic, fetch, floor_char_boundary, locked, locked_unforked};
pub use builder::SegmentBuilder;
pub(crate) use builder::random;
pub(crate) use heap::Extent;
pub use life::{GcReport, SegmentInfo, gc, list};
pub use object::{At, SharedObject};
pub(crate) use objects::ObjectId;
pub use objects::{ObjectInfo, Peer};
pub(crate) use recovery::Dead;
pub(crate) use session::inherit;
pub use session::{Context, session};
pub use wait::set_spin_time;

use crate::error::{Result, SegmentError};
use crate::sys::shm;
use shmkit_layouts::segment::STATE_ACTIVE;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// When a named segment's name goes away. Its memory goes when the last process that uses it is gone, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LifePolicy {
    /// It stays until somebody unlinks it: [`Segment::unlink`], `shmkit rm`.
    #[default]
    Manual,
    /// The last participant that detaches takes it away; if all were killed, the next opener or `gc` does.
    OnLastDetach,
    /// It goes when its creator is gone: at the creator's detach, or at the next detach or `gc` after its death.
    OnOwnerExit,
}

/// A piece of shared memory with objects in it.
///
/// A handle: cloning it is cheap, and the process detaches when the last handle to the segment or an object in it is
/// dropped.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// use shmkit::{Segment, Value};
/// # let name = &format!("doc-segment-{}", std::process::id());
/// let segment = Segment::create(name)?;
/// let hits = segment.value::<u64>("hits").initial(7).create()?;
///
/// // In any other process, in any language:
/// let same = Segment::open(name)?;
/// assert_eq!(same.value::<u64>("hits").open()?.get()?, 7);
/// # let _ = hits;
/// Segment::unlink(name)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Segment {
    attachment: Arc<Attachment>,
}

fn check_name(name: &str) -> Result<()> {
    let invalid = |why| Err(SegmentError::InvalidName { name: name.to_owned(), why }.into());
    if name.is_empty() || name.len() > 63 {
        return invalid("a name has 1 to 63 bytes");
    }
    if name.contains(['/', '\0']) || name.starts_with('.') {
        return invalid("a name holds neither '/' nor NUL and does not start with '.'");
    }
    Ok(())
}

impl Segment {
    /// How to create or open with other than the usual settings.
    pub fn builder() -> SegmentBuilder {
        SegmentBuilder::default()
    }

    /// Creates the segment `name` with the usual settings. See [`SegmentBuilder::create`].
    ///
    /// # Errors
    /// As [`SegmentBuilder::create`].
    pub fn create(name: &str) -> Result<Segment> {
        Segment::builder().create(name)
    }

    /// Opens the segment `name`. See [`SegmentBuilder::open`].
    ///
    /// # Errors
    /// As [`SegmentBuilder::open`].
    pub fn open(name: &str) -> Result<Segment> {
        Segment::builder().open(name)
    }

    /// Opens the segment `name` or creates it. See [`SegmentBuilder::open_or_create`].
    ///
    /// # Errors
    /// As [`SegmentBuilder::open_or_create`].
    pub fn open_or_create(name: &str) -> Result<Segment> {
        Segment::builder().open_or_create(name)
    }

    /// Creates a segment without a name. See [`SegmentBuilder::anonymous`].
    ///
    /// # Errors
    /// As [`SegmentBuilder::anonymous`].
    pub fn anonymous() -> Result<Segment> {
        Segment::builder().anonymous("anonymous")
    }

    /// Opens a segment by a descriptor, as of a memfd that a peer has passed.
    ///
    /// # Errors
    /// As [`SegmentBuilder::open`].
    pub fn from_fd(fd: OwnedFd) -> Result<Segment> {
        // A copy of a fork server has the session mapped already: a second mapping of it costs more than the rest of its arrival.
        let stat = crate::sys::shm::stat(fd.as_fd())?;
        if let Some(known) = known::find((stat.st_dev, stat.st_ino)) {
            return Ok(Segment::of(known));
        }
        let attachment = Attachment::map_known(fd, &stat, Place::Anonymous("passed".to_owned()))?;
        attachment.join()?;
        Ok(known::add(attachment))
    }

    pub(crate) fn open_descriptor_of(pid: u32, fd: i32) -> Result<Segment> {
        let path = format!("/proc/{pid}/fd/{fd}");
        // Whoever wrote the ticket may have named any file of that process: only our own kind is opened at all.
        let target = std::fs::read_link(&path).map_err(|_| SegmentError::Gone)?;
        if !target.as_os_str().as_encoded_bytes().starts_with(b"/memfd:shmkit:") {
            return Err(SegmentError::Gone.into());
        }
        let file = std::fs::File::options().read(true).write(true).open(path).map_err(|_| SegmentError::Gone)?;
        Segment::from_fd(file.into())
    }

    /// Takes the name of a segment away. Whoever is attached goes on; its memory goes with the last of them. False if there was
    /// none of that name.
    ///
    /// # Errors
    /// `InvalidName`, or what the system says.
    pub fn unlink(name: &str) -> Result<bool> {
        check_name(name)?;
        Ok(shm::unlink(&shm::path_of(name))?)
    }

    pub(crate) fn of(attachment: Arc<Attachment>) -> Segment {
        Segment { attachment }
    }

    pub(crate) fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }

    pub(crate) fn into_attachment(self) -> Arc<Attachment> {
        self.attachment
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        match &self.attachment.place {
            Place::Named(name) => Some(name),
            Place::Anonymous(_) => None,
        }
    }

    /// Its file: to pass an anonymous segment on to a process that has no handle to it.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.attachment.map.fd()
    }

    /// Takes the name of an object away; the object lives on while somebody has a handle. False if there was none.
    ///
    /// # Errors
    /// `InvalidName`.
    pub fn remove(&self, name: &str) -> Result<bool> {
        self.attachment.remove_name(name)
    }

    /// Its live objects.
    pub fn objects(&self) -> Vec<ObjectInfo> {
        self.attachment.list_objects()
    }

    /// Recovers every participant that has died, at once instead of when somebody waits for it. Gives how many there were.
    /// Where somebody else is recovering, it waits for him; one who is stopped in that is waited for like any owner of a lock.
    pub fn recover(&self) -> usize {
        self.attachment.recover_dead_now()
    }

    /// Recovers the dead and checks that the segment is sound: the heap is covered without gap, every claim is a living
    /// participant's, and no memory has leaked. Exact only while nobody else is in the middle of something.
    ///
    /// # Errors
    /// `Corrupt`, which says what cannot be and where.
    pub fn verify(&self) -> Result<()> {
        self.attachment.token()?;
        self.attachment.verify()
    }

    /// How many participants have been recovered or have left since the segment was made.
    pub fn recoveries(&self) -> u64 {
        atomic!(self.attachment.header(), recoveries).load(Ordering::Relaxed)
    }

    /// Bytes of its heap in use and bytes backed by memory, counted now.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn memory(&self) -> Result<(u64, u64)> {
        self.attachment.heap_usage()
    }

    /// Gives the memory of free parts of its heap back to the system, page by page; how many bytes have none now. They are backed
    /// again when they are needed, or what needs them fails with `OutOfMemory`.
    ///
    /// Nobody waits for it but who allocates memory meanwhile. Memory that a container keeps for more elements stays its own until
    /// it is cleared or dropped.
    ///
    /// Call it when nobody reads a dict or list that has just shrunk: a reader that looks at memory which is being given back makes
    /// the system back that page once more, or gets SIGBUS if there is no memory left at that very moment.
    ///
    /// # Crash behaviour
    /// A death on the way leaves some free pages with memory and some without.
    ///
    /// # Errors
    /// `Corrupt`; `System`.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> shmkit::Result<()> {
    /// let segment = shmkit::Segment::anonymous()?;
    /// drop(shmkit::Array::<u8>::new_in(&segment, 4 << 20)?);
    /// assert!(segment.trim()? > 3 << 20);
    /// # Ok(())
    /// # }
    /// ```
    pub fn trim(&self) -> Result<u64> {
        self.attachment.trim()
    }

    /// Process ids of its live participants.
    pub fn participants(&self) -> Vec<u32> {
        let attachment = &self.attachment;
        (0..attachment.geometry.max_participants)
            .filter(|&slot| {
                let state = atomic!(attachment.participant(slot), state).load(Ordering::Acquire);
                state == STATE_ACTIVE && !attachment.is_slot_dead(slot)
            })
            .map(|slot| atomic!(attachment.participant(slot), pid).load(Ordering::Relaxed))
            .collect()
    }
}
