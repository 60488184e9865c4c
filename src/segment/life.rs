//! The life of a segment's name: who takes it away and when; listing and collecting them.
//!
//! ```text
//! open     open the name; policy MANUAL: lock my slot, and that is all
//!          lock LIFE; does the path still name this file?  nobody holds a slot and the policy says that they
//!          are needed: unlink, start again;  lock my slot; unlock LIFE
//! detach   release my slot; collect
//! collect  lock LIFE; the path names this file and the policy's time has come: unlink; unlock
//! ```
//! Model: `segment_file` (`tests/models`).

use super::attachment::{Attachment, Place, atomic};
use super::{LifePolicy, ObjectInfo};
use crate::error::Result;
use crate::sys::{lock, lock::Anchor, shm};
use shmkit_layouts::segment::*;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) fn lock_life(fd: BorrowedFd<'_>) -> Result<Anchor> {
    let mut pause = Duration::from_micros(50);
    loop {
        if let Some(anchor) = Anchor::try_new(fd, LOCK_LIFE)? {
            return Ok(anchor);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

pub(super) fn anybody_lives(attachment: &Attachment) -> Result<bool> {
    Ok(lock::is_held(attachment.file()?.as_fd(), LOCK_SLOTS, u64::from(attachment.geometry.max_participants))?)
}

/// Takes the name away if the policy says that its time has come. True if it did.
fn collect(attachment: &Attachment, path: &Path) -> Result<bool> {
    if attachment.geometry.policy == POLICY_MANUAL {
        return Ok(false);
    }
    let file = attachment.file()?;
    let _life = lock_life(file.as_fd())?;
    failpoint!("gc.life");
    let stat = shm::stat(file.as_fd())?;
    if !shm::names_inode(path, &stat) {
        return Ok(false);
    }
    let over = match attachment.geometry.policy {
        POLICY_ON_LAST_DETACH => !anybody_lives(attachment)?,
        _ => {
            let creator = attachment.geometry.creator;
            let slot = (creator & 0xFFF) as u32 % attachment.geometry.max_participants;
            let generation = atomic!(attachment.participant(slot), generation).load(Ordering::Acquire);
            u64::from(generation) != creator >> 32 || !lock::is_held(file.as_fd(), LOCK_SLOTS + u64::from(slot), 1)?
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

/// Opens the file of the segment `name` if it is this user's: whoever owns another could keep its locks for ever.
fn open_own(name: &str) -> Option<OwnedFd> {
    let fd = shm::open(&shm::path_of(name)).ok()??;
    let stat = shm::stat(fd.as_fd()).ok()?;
    (stat.st_uid == rustix::process::geteuid().as_raw()).then_some(fd)
}

/// Every named segment of this user.
///
/// # Errors
/// When `/dev/shm` cannot be read. Files that are no sound segments are left out.
pub fn list() -> Result<Vec<SegmentInfo>> {
    let mut all = Vec::new();
    for name in shm::names()? {
        let Some(fd) = open_own(&name) else { continue };
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

/// Takes away the names of this user's segments whose time has come: all participants or the owner were killed. Touches nothing that is
/// in use, and nothing with the policy [`LifePolicy::Manual`].
///
/// # Errors
/// When `/dev/shm` cannot be read.
pub fn gc() -> Result<GcReport> {
    let mut report = GcReport::default();
    for name in shm::names()? {
        let Some(fd) = open_own(&name) else { continue };
        let collected = Attachment::map(fd, Place::Named(name.clone()))
            .and_then(|attachment| collect(&attachment, &shm::path_of(&name)));
        match collected {
            Ok(true) => report.removed.push(name),
            _ => report.kept.push(name),
        }
    }
    Ok(report)
}
