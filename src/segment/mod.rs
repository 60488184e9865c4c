//! Segments: named (or anonymous) pieces of shared memory that hold objects, and the processes attached to them.
//!
//! * [`Segment`]: create, open, name, life; its objects by name.
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
pub(crate) mod claim;
mod heap;
pub(crate) mod interrupt;
pub(crate) mod object;
mod objects;
mod recovery;
mod session;
mod verify;
pub(crate) mod wait;

pub(crate) use attachment::{Attachment, Place, atomic, fetch, floor_char_boundary, locked};
pub(crate) use heap::Extent;
pub use object::{At, SharedObject};
pub use objects::{ObjectInfo, Peer};
pub(crate) use recovery::Dead;
pub(crate) use session::inherit;
pub use session::{Context, session};

use crate::error::{Result, SegmentError};
use crate::sys::{SysError, lock, lock::Anchor, shm};
use rustix::fs::Mode;
use shmkit_layouts::segment::*;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// How a segment is to be created.
///
/// # Examples
/// ```
/// # fn main() -> shmkit::Result<()> {
/// let small = shmkit::Segment::builder().max_size(1 << 20).max_participants(8).anonymous("scratch")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SegmentBuilder {
    max_size: Option<u64>,
    max_participants: u32,
    mode: u32,
    policy: LifePolicy,
    trust_owner: bool,
}

/// Address space a segment reserves unless told otherwise: 16 GiB, or what the limits allow.
const DEFAULT_MAX_SIZE: u64 = 16 << 30;
const SMALLEST: u64 = 256 << 10;
const OBJECTS: u64 = 1 << 16;

impl Default for SegmentBuilder {
    fn default() -> SegmentBuilder {
        SegmentBuilder {
            max_size: None,
            max_participants: 128,
            mode: 0o600,
            policy: LifePolicy::Manual,
            trust_owner: false,
        }
    }
}

impl SegmentBuilder {
    /// Bytes of address space it reserves, and so the most it can ever hold. Memory is taken only as it is needed.
    #[must_use]
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.max_size = Some(bytes);
        self
    }

    /// How many processes can be attached at once: 1 to 4093, 128 by default.
    #[must_use]
    pub fn max_participants(mut self, participants: u32) -> Self {
        self.max_participants = participants;
        self
    }

    /// Permission bits of the file: 0o600 by default. The umask does not matter.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// When the name goes away.
    #[must_use]
    pub fn policy(mut self, policy: LifePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Opens a segment although another user owns it or others may write to it.
    #[must_use]
    pub fn trust_owner(mut self, trust: bool) -> Self {
        self.trust_owner = trust;
        self
    }

    /// Creates the segment `name`. It is never seen half-made.
    ///
    /// # Errors
    /// `Exists`, `InvalidName`, `InvalidSize`, `OutOfMemory`, `AddressSpace`.
    pub fn create(&self, name: &str) -> Result<Segment> {
        check_name(name)?;
        match self.create_or_else(name)? {
            Some(segment) => Ok(segment),
            None => Err(SegmentError::Exists { name: name.to_owned() }.into()),
        }
    }

    /// Opens the segment `name`.
    ///
    /// # Errors
    /// `NotFound`, `InvalidName`, `NotASegment`, `NewerLayout`, `Corrupt`, `WrongOwner`, `WrongMode`,
    /// `TooManyParticipants`, `AddressSpace`.
    pub fn open(&self, name: &str) -> Result<Segment> {
        check_name(name)?;
        match self.open_or_else(name)? {
            Some(segment) => Ok(segment),
            None => Err(SegmentError::NotFound { name: name.to_owned() }.into()),
        }
    }

    /// Opens the segment `name`, or creates it if there is none. Of several that do so at once, one creates.
    ///
    /// # Errors
    /// As [`SegmentBuilder::create`] and [`SegmentBuilder::open`], but neither `Exists` nor `NotFound`.
    pub fn open_or_create(&self, name: &str) -> Result<Segment> {
        check_name(name)?;
        loop {
            if let Some(segment) = self.open_or_else(name)? {
                return Ok(segment);
            }
            if let Some(segment) = self.create_or_else(name)? {
                return Ok(segment);
            }
        }
    }

    /// Creates a segment without a name, in a memfd that nobody can shrink. It is found through handles that are passed on,
    /// and freed by the kernel with its last user.
    ///
    /// # Errors
    /// `InvalidSize`, `OutOfMemory`, `AddressSpace`.
    pub fn anonymous(&self, label: &str) -> Result<Segment> {
        let size = self.size()?;
        let fd = shm::create_memfd(&format!("shmkit:{label}"), size)?;
        let attachment = self.build(fd, Place::Anonymous(label.to_owned()), label, size)?;
        Ok(known::add(attachment))
    }

    fn create_or_else(&self, name: &str) -> Result<Option<Segment>> {
        let path = shm::path_of(name);
        let size = self.size()?;
        let fd = shm::create_unnamed(self.mode)?;
        shm::set_len(fd.as_fd(), size)?;
        failpoint!("create.sized");
        let attachment = self.build(fd, Place::Named(name.to_owned()), name, size)?;
        failpoint!("create.built");
        if !shm::link(attachment.map.fd(), &path)? {
            return Ok(None);
        }
        failpoint!("create.linked");
        Ok(Some(known::add(attachment)))
    }

    /// The size to reserve: what was asked for, or the largest up to the default that can be mapped.
    fn size(&self) -> Result<u64> {
        let invalid = |what, found, why| Err(SegmentError::InvalidSize { what, found, why }.into());
        if !(1..=MAX_PARTICIPANTS).contains(&self.max_participants) {
            return invalid("max_participants", u64::from(self.max_participants), "it must be 1 to 4093");
        }
        let smallest = SMALLEST + u64::from(self.max_participants) * 64;
        if let Some(size) = self.max_size {
            if size < smallest || size > 1 << 39 {
                return invalid("max_size", size, "it must be 256 KiB (and 64 bytes a participant) to 512 GiB");
            }
            return Ok(size.next_multiple_of(4096));
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::As).current.unwrap_or(u64::MAX);
        let limit = limit.min(rustix::process::getrlimit(rustix::process::Resource::Fsize).current.unwrap_or(u64::MAX));
        Ok((limit / 4).clamp(smallest, DEFAULT_MAX_SIZE) & !4095)
    }

    fn build(&self, fd: OwnedFd, place: Place, label: &str, size: u64) -> Result<Attachment> {
        let registry = size_of::<SegmentHeader>() as u64;
        let registry_end = registry + u64::from(self.max_participants) * size_of::<ParticipantSlot>() as u64;
        let objects = registry_end.next_multiple_of(4096);
        // A sixteenth of the room is the most the table of objects may reserve.
        let capacity = OBJECTS.min((size / 16 / size_of::<ObjectEntry>() as u64).max(32));
        let units = (objects + capacity * size_of::<ObjectEntry>() as u64).next_multiple_of(4096);
        let heap_units_max = ((size - units).saturating_sub(4096) / (UNIT_SIZE + 8)) & !15;
        let heap = (units + heap_units_max * 8).next_multiple_of(4096);
        let mut id = [0u8; 16];
        random(&mut id);
        let mut label_bytes = [0u8; 64];
        let len = attachment::floor_char_boundary(label, 63);
        label_bytes[..len].copy_from_slice(&label.as_bytes()[..len]);
        let mut header = SegmentHeader {
            magic: MAGIC,
            byte_order: BYTE_ORDER,
            layout_major: LAYOUT_MAJOR,
            layout_minor: LAYOUT_MINOR,
            header_size: size_of::<SegmentHeader>() as u32,
            max_participants: self.max_participants,
            max_size: size,
            page_size: crate::sys::memory::page_size(),
            unit_size: UNIT_SIZE as u32,
            segment_id: [
                u64::from_le_bytes(id[..8].try_into().expect("8 bytes")),
                u64::from_le_bytes(id[8..].try_into().expect("8 bytes")),
            ],
            registry_offset: registry,
            objects_offset: objects,
            objects_capacity: capacity as u32,
            barrier: BARRIER_ASYMMETRIC,
            units_offset: units,
            heap_offset: heap,
            heap_units_max,
            policy: match self.policy {
                LifePolicy::Manual => POLICY_MANUAL,
                LifePolicy::OnLastDetach => POLICY_ON_LAST_DETACH,
                LifePolicy::OnOwnerExit => POLICY_ON_OWNER_EXIT,
            },
            creator_uid: rustix::process::geteuid().as_raw(),
            created_ns: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos() as u64,
            // The creator takes the first slot; its first generation is 1.
            creator: 1 << 32,
            label: label_bytes,
            committed: AtomicU64::new(0),
            objects_high: AtomicU32::new(0),
            next_slot: AtomicU32::new(0),
            recoveries: AtomicU64::new(0),
            heap_lock: AtomicU32::new(0),
            directory_lock: AtomicU32::new(0),
            heap_hint: AtomicU32::new(0),
            directory_event: AtomicU32::new(0),
            units_used: AtomicU64::new(0),
            reserved: [0; 2],
        };
        if !shm::back(fd.as_fd(), 0, registry_end)? {
            let free = shm::free_space(fd.as_fd()).unwrap_or(0);
            let hint = "/dev/shm is full: remove segments (`shmkit ls`, `shmkit gc`) or enlarge it";
            return Err(SegmentError::OutOfMemory { needed: registry_end, free, hint }.into());
        }
        let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut header);
        match rustix::io::pwrite(&fd, &*bytes, 0) {
            Ok(n) if n == bytes.len() => {}
            Ok(_) => return Err(SysError { call: "pwrite", errno: libc::EIO }.into()),
            Err(errno) => return Err(SysError::new("pwrite", errno).into()),
        }
        let attachment = Attachment::map(fd, place)?;
        attachment.join()?;
        Ok(attachment)
    }

    /// The open half of the life protocol (`mc_life`): LIFE, is it still that file, does anybody live, my slot.
    fn open_or_else(&self, name: &str) -> Result<Option<Segment>> {
        let path = shm::path_of(name);
        loop {
            let Some(fd) = shm::open(&path).map_err(|error| refused(name, error))? else { return Ok(None) };
            let stat = shm::stat(fd.as_fd())?;
            if !self.trust_owner {
                let me = rustix::process::geteuid().as_raw();
                if stat.st_uid != me {
                    let (name, found, expected) = (name.to_owned(), stat.st_uid, me);
                    return Err(SegmentError::WrongOwner { name, found, expected }.into());
                }
                if Mode::from_raw_mode(stat.st_mode).contains(Mode::WOTH) {
                    return Err(SegmentError::WrongMode { name: name.to_owned(), found: stat.st_mode & 0o7777 }.into());
                }
            }
            let attachment = Attachment::map(fd, Place::Named(name.to_owned()))?;
            if let Some(known) = known::find(attachment.inode) {
                return Ok(Some(Segment::of(known)));
            }
            let life = lock_life(attachment.map.fd())?;
            failpoint!("open.life");
            if !shm::names_inode(&path, &stat) {
                continue;
            }
            if attachment.geometry.policy == POLICY_ON_LAST_DETACH && !anybody_lives(&attachment)? {
                shm::unlink(&path)?;
                continue;
            }
            attachment.join()?;
            failpoint!("open.joined");
            drop(life);
            return Ok(Some(known::add(attachment)));
        }
    }
}

fn refused(name: &str, error: SysError) -> crate::Error {
    let name = name.to_owned();
    match error.errno {
        libc::ELOOP => SegmentError::NotASegment { name, why: "it is a symbolic link" }.into(),
        libc::EISDIR | libc::ENXIO => SegmentError::NotASegment { name, why: "it is not a regular file" }.into(),
        _ => error.into(),
    }
}

fn lock_life(fd: BorrowedFd<'_>) -> Result<Anchor> {
    let mut pause = Duration::from_micros(50);
    loop {
        if let Some(anchor) = Anchor::try_new(fd, LOCK_LIFE)? {
            return Ok(anchor);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

fn anybody_lives(attachment: &Attachment) -> Result<bool> {
    Ok(lock::is_held(attachment.map.fd(), LOCK_SLOTS, u64::from(attachment.geometry.max_participants))?)
}

/// Takes the name away if the policy says that its time has come. True if it did.
fn collect(attachment: &Attachment, path: &Path) -> Result<bool> {
    if attachment.geometry.policy == POLICY_MANUAL {
        return Ok(false);
    }
    let _life = lock_life(attachment.map.fd())?;
    failpoint!("gc.life");
    let stat = shm::stat(attachment.map.fd())?;
    if !shm::names_inode(path, &stat) {
        return Ok(false);
    }
    let over = match attachment.geometry.policy {
        POLICY_ON_LAST_DETACH => !anybody_lives(attachment)?,
        _ => {
            let creator = attachment.geometry.creator;
            let slot = (creator & 0xFFF) as u32 % attachment.geometry.max_participants;
            let generation = atomic!(attachment.participant(slot), generation).load(Ordering::Acquire);
            u64::from(generation) != creator >> 32
                || !lock::is_held(attachment.map.fd(), LOCK_SLOTS + u64::from(slot), 1)?
        }
    };
    if over {
        shm::unlink(path)?;
        failpoint!("gc.unlinked");
    }
    Ok(over)
}

impl Attachment {
    /// Leaves the segment, and takes its name away if the time for that has come.
    pub(crate) fn detach(&self) {
        let was_in = self.own_slot().is_some();
        self.leave();
        if let (true, Some(path)) = (was_in, self.path()) {
            let _ = collect(self, &path);
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.detach();
    }
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

pub(crate) fn random(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => {
                // Before the kernel has entropy: the time and the process are unique enough to tell segments apart.
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
                let mixed = now ^ u64::from(std::process::id()).rotate_left(32);
                for (byte, value) in bytes[filled..].iter_mut().zip(mixed.to_le_bytes().iter().cycle()) {
                    *byte = *value;
                }
                return;
            }
        }
    }
}

/// What a listing shows of a segment.
#[derive(Debug, Clone)]
pub struct SegmentInfo {
    /// Its name.
    pub name: String,
    /// Bytes of address space it reserves.
    pub size_reserved: u64,
    /// Bytes of memory its file takes.
    pub committed: u64,
    /// Process ids of its live participants.
    pub participants: Vec<u32>,
    /// Its objects.
    pub objects: Vec<ObjectInfo>,
    /// When its name goes.
    pub policy: LifePolicy,
    /// When it was created.
    pub created: SystemTime,
}

/// What [`gc`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Segments whose names were taken away.
    pub removed: Vec<String>,
    /// Segments that stay: in use, or kept until somebody removes them by hand.
    pub kept: Vec<String>,
}

/// Every named segment of this user.
///
/// # Errors
/// When `/dev/shm` cannot be read. Files that are no sound segments are left out.
pub fn list() -> Result<Vec<SegmentInfo>> {
    let mut all = Vec::new();
    for name in shm::names()? {
        let Ok(Some(fd)) = shm::open(&shm::path_of(&name)) else { continue };
        let Ok(stat) = shm::stat(fd.as_fd()) else { continue };
        let Ok(attachment) = Attachment::map(fd, Place::Named(name.clone())) else { continue };
        let geometry = attachment.geometry;
        let mut participants = Vec::new();
        for slot in 0..geometry.max_participants {
            if lock::is_held(attachment.map.fd(), LOCK_SLOTS + u64::from(slot), 1)? {
                participants.push(atomic!(attachment.participant(slot), pid).load(Ordering::Relaxed));
            }
        }
        all.push(SegmentInfo {
            size_reserved: geometry.max_size,
            committed: stat.st_blocks as u64 * 512,
            participants,
            objects: attachment.list_objects(),
            policy: policy_of(geometry.policy),
            created: UNIX_EPOCH + Duration::from_nanos(geometry.created_ns),
            name,
        });
    }
    Ok(all)
}

fn policy_of(policy: u32) -> LifePolicy {
    match policy {
        POLICY_ON_LAST_DETACH => LifePolicy::OnLastDetach,
        POLICY_ON_OWNER_EXIT => LifePolicy::OnOwnerExit,
        _ => LifePolicy::Manual,
    }
}

/// Takes away the names of segments whose time has come: all participants or the owner were killed. Touches nothing that is
/// in use, and nothing with the policy [`LifePolicy::Manual`].
///
/// # Errors
/// When `/dev/shm` cannot be read.
pub fn gc() -> Result<GcReport> {
    let mut report = GcReport::default();
    for name in shm::names()? {
        let path = shm::path_of(&name);
        let collected = (|| {
            let Some(fd) = shm::open(&path)? else { return Ok(false) };
            collect(&Attachment::map(fd, Place::Named(name.clone()))?, &path)
        })();
        match collected {
            Ok::<bool, crate::Error>(true) => report.removed.push(name),
            _ => report.kept.push(name),
        }
    }
    Ok(report)
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
        let attachment = Attachment::map(fd, Place::Anonymous("passed".to_owned()))?;
        if let Some(known) = known::find(attachment.inode) {
            return Ok(Segment::of(known));
        }
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
    pub fn recover(&self) -> usize {
        self.attachment.recover_dead()
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

/// The segments this process is attached to: one attachment each, whoever asks for it.
pub(crate) mod known {
    use super::*;
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex, Weak};

    type ByInode = HashMap<(u64, u64), Weak<Attachment>>;

    static KNOWN: LazyLock<Mutex<ByInode>> = LazyLock::new(Default::default);

    /// The one of that file.
    pub(crate) fn find(inode: (u64, u64)) -> Option<Arc<Attachment>> {
        locked(&KNOWN).get(&inode).and_then(Weak::upgrade)
    }

    /// The one that calls itself `id`.
    pub(crate) fn find_by_id(id: [u64; 2]) -> Option<Arc<Attachment>> {
        locked(&KNOWN).values().filter_map(Weak::upgrade).find(|attachment| attachment.geometry.id == id)
    }

    /// Makes an attachment known, unless another thread attached the same file meanwhile: then that one is given.
    pub(crate) fn add(attachment: Attachment) -> Segment {
        let mut known = locked(&KNOWN);
        known.retain(|_, weak| weak.strong_count() > 0);
        if let Some(first) = known.get(&attachment.inode).and_then(Weak::upgrade) {
            drop(known);
            return Segment::of(first);
        }
        let attachment = Arc::new(attachment);
        known.insert(attachment.inode, Arc::downgrade(&attachment));
        drop(known);
        Segment::of(attachment)
    }

    /// Every segment this process is attached to.
    pub(crate) fn all() -> Vec<Arc<Attachment>> {
        locked(&KNOWN).values().filter_map(Weak::upgrade).collect()
    }
}
