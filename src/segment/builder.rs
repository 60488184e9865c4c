//! [`SegmentBuilder`]: creating a segment so that it is never seen half-made, and opening it.

use super::attachment::{self, Attachment, Place};
use super::known;
use super::life::{anybody_lives, lock_life};
use super::{LifePolicy, Segment, check_name};
use crate::error::{Error, Result, SegmentError};
use crate::sys::{SysError, shm};
use rustix::fs::Mode;
use shmkit_layouts::segment::*;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
/// Entries of the table of objects that a new segment has, a page.
const FIRST_OBJECTS: u32 = 32;
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
        let attachment = self.unlinked(name)?;
        if !shm::link(attachment.map.fd(), &shm::path_of(name))? {
            return Ok(None);
        }
        failpoint!("create.linked");
        Ok(Some(known::add(attachment)))
    }

    /// As [`SegmentBuilder::create`], with what `fill` makes in it before anybody can see it.
    ///
    /// # Errors
    /// As `create`, and what `fill` gives.
    pub(crate) fn create_filled<R>(
        &self,
        name: &str,
        fill: impl FnOnce(&Segment) -> Result<R>,
    ) -> Result<(Segment, R)> {
        check_name(name)?;
        let exists = || Error::from(SegmentError::Exists { name: name.to_owned() });
        // Not for nothing: what is made may be large.
        if shm::path_of(name).symlink_metadata().is_ok() {
            return Err(exists());
        }
        let segment = known::add(self.unlinked(name)?);
        let filled = fill(&segment)?;
        failpoint!("create.filled");
        match shm::link(segment.attachment().map.fd(), &shm::path_of(name))? {
            true => Ok((segment, filled)),
            false => Err(exists()),
        }
    }

    /// A whole segment whose name does not lead to it yet.
    fn unlinked(&self, name: &str) -> Result<Attachment> {
        let size = self.size()?;
        let fd = shm::create_unnamed(self.mode)?;
        shm::set_len(fd.as_fd(), size)?;
        failpoint!("create.sized");
        let attachment = self.build(fd, Place::Named(name.to_owned()), name, size)?;
        failpoint!("create.built");
        Ok(attachment)
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
        let capacity = OBJECTS.min((size / 16 / size_of::<ObjectEntry>() as u64).max(u64::from(FIRST_OBJECTS)));
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
            objects_high: AtomicU32::new(FIRST_OBJECTS),
            next_slot: AtomicU32::new(0),
            recoveries: AtomicU64::new(0),
            heap_lock: AtomicU32::new(0),
            directory_lock: AtomicU32::new(0),
            heap_hint: AtomicU32::new(0),
            directory_event: AtomicU32::new(0),
            units_used: AtomicU64::new(0),
            trimmed: 0.into(),
            reserved0: 0,
            reserved: 0,
        };
        // The table's first page, too: there is no use for a segment without objects.
        let first = objects + u64::from(FIRST_OBJECTS) * size_of::<ObjectEntry>() as u64;
        if !shm::back(fd.as_fd(), 0, first)? {
            let free = shm::free_space(fd.as_fd()).unwrap_or(0);
            let hint = "/dev/shm is full: remove segments (`shmkit ls`, `shmkit gc`) or enlarge it";
            return Err(SegmentError::OutOfMemory { needed: first, free, hint }.into());
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
            let attachment = Attachment::map_known(fd, &stat, Place::Named(name.to_owned()))?;
            if let Some(known) = known::find(attachment.inode) {
                return Ok(Some(Segment::of(known)));
            }
            // Nobody takes the name of such a one away but a user, whom LIFE does not hold up.
            if attachment.geometry.policy == POLICY_MANUAL {
                attachment.join()?;
                failpoint!("open.joined");
                return Ok(Some(known::add(attachment)));
            }
            let life = lock_life(attachment.file()?.as_fd())?;
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
