//! A segment as its bytes show it, looked at again and again.

use super::image::Image;
use crate::operation::Check;
use shmkit::Segment;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// Slots of the registry that are not free.
pub fn slots_in_use(segment: &Segment) -> Check<usize> {
    Ok(Image::of_registry(segment)?.participants().len())
}

/// Those of process `pid`.
pub fn slots_of(segment: &Segment, pid: u32) -> Check<usize> {
    Ok(Image::of_registry(segment)?.participants().iter().filter(|participant| participant.pid == pid).count())
}

/// Sees, step by step, whether somebody did what others can see: a store to a segment, or a system call.
pub struct Watch {
    seen: Vec<Seen>,
    /// Where a second segment is, once there is one.
    other: Option<PathBuf>,
    code: Vec<Range<u64>>,
}

/// A segment as it was seen last.
struct Seen {
    file: File,
    map: *const u8,
    copy: Vec<u8>,
}

impl Watch {
    /// As the segment is now, and the one that may come to be under the other name: until then nobody sees it. Who is watched was
    /// forked by this process, so that its code lies where this one's does.
    pub fn new(segment: &Segment, other_name: &str) -> Option<Watch> {
        let file = File::from(segment.as_fd().try_clone_to_owned().ok()?);
        let other = Some(PathBuf::from(format!("/dev/shm/shmkit.{other_name}")));
        let mut watch = Watch { seen: vec![Seen::new(file)], other, code: crate::step::all_code() };
        watch.look_for_other();
        Some(watch)
    }

    /// Whether the instruction at `place`, which was just done, has changed what others can see.
    pub fn is_new(&mut self, place: u64) -> bool {
        let is_call = self.is_call(place);
        if is_call {
            self.look_for_other();
        }
        // All of them, so that none is found changed at the next step.
        self.seen.iter_mut().fold(is_call, |is_new, seen| seen.has_changed() | is_new)
    }

    fn look_for_other(&mut self) {
        if let Some(file) = self.other.as_ref().and_then(|path| File::open(path).ok()) {
            self.seen.push(Seen::new(file));
            self.other = None;
        }
    }

    /// Whether the instruction at `place` is a system call, or cannot be told not to be one.
    fn is_call(&self, place: u64) -> bool {
        const SYSCALL: [u8; 2] = [0x0F, 0x05];
        if !self.code.iter().any(|range| range.contains(&place) && range.contains(&(place + 1))) {
            return true;
        }
        // SAFETY: mapped, readable code of this process.
        cfg!(not(target_arch = "x86_64")) || unsafe { (place as *const [u8; 2]).read() } == SYSCALL
    }
}

impl Seen {
    fn new(file: File) -> Seen {
        let mut seen = Seen { file, map: std::ptr::null(), copy: Vec::new() };
        seen.has_changed();
        seen
    }

    /// Whether the bytes have changed since this was last asked.
    fn has_changed(&mut self) -> bool {
        let len = self.file.metadata().map_or(0, |file| file.len() as usize);
        if len != self.copy.len() {
            self.unmap();
            self.copy = vec![0; len];
            // SAFETY: a new mapping at an address of the kernel's choice.
            let map = unsafe {
                let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
                libc::mmap(std::ptr::null_mut(), len, read, shared, self.file.as_raw_fd(), 0)
            };
            if len == 0 || map == libc::MAP_FAILED {
                self.copy.clear();
                return true;
            }
            self.map = map.cast();
            self.take();
            return true;
        }
        // SAFETY: both have `len` bytes; others may write to the mapping, any bytes are as good.
        let is_same = unsafe { libc::memcmp(self.map.cast(), self.copy.as_ptr().cast(), len) } == 0;
        if !is_same {
            self.take();
        }
        !is_same
    }

    fn take(&mut self) {
        // SAFETY: as in `has_changed`.
        unsafe { std::ptr::copy_nonoverlapping(self.map, self.copy.as_mut_ptr(), self.copy.len()) };
    }

    fn unmap(&mut self) {
        if !self.copy.is_empty() {
            // SAFETY: mapped with this length, and nobody else has the address.
            unsafe { libc::munmap(self.map.cast_mut().cast(), self.copy.len()) };
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.unmap();
    }
}
