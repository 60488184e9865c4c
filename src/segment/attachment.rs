//! One process's view of one segment: the mapping, the checked header, and this process's place in the registry.

use super::claim;
use crate::error::{Holder, Result, SegmentError, corrupt};
use crate::sys::{SysError, fork, fork::WipedWords, lock, lock::Anchor, map::Mapping, membarrier, proc, shm};
use shmkit_layouts::segment::*;
use shmkit_layouts::words::Token;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A `&` to one atomic of a shared struct behind a raw pointer; never to the struct.
macro_rules! atomic {
    ($pointer:expr, $field:ident) => {
        // SAFETY: the pointer is to a struct inside the mapping, checked when it was made; the reference is to an atomic only,
        // and the mapping lives as long as the attachment that is borrowed here.
        unsafe { &*(&raw const (*$pointer).$field) }
    };
}
pub(crate) use atomic;

/// A plain field of a shared struct behind a raw pointer, fetched once.
macro_rules! fetch {
    ($pointer:expr, $field:ident) => {
        // SAFETY: the pointer is to a struct inside the mapping, checked when it was made; volatile, since a peer may write.
        unsafe { std::ptr::read_volatile(&raw const (*$pointer).$field) }
    };
}
pub(crate) use fetch;

/// What the header says, checked once and kept privately.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub id: [u64; 2],
    pub max_size: u64,
    pub max_participants: u32,
    pub registry: u64,
    pub objects: u64,
    pub objects_capacity: u32,
    pub units: u64,
    pub heap: u64,
    pub heap_units_max: u64,
    pub policy: u32,
    pub creator: u64,
    pub created_ns: u64,
}

/// Where the segment can be found by another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In `/dev/shm`.
    Named(String),
    /// Nowhere: a memfd, given by its descriptor.
    Anonymous(String),
}

/// A held slot of the registry.
#[derive(Debug)]
struct Seat {
    token: Token,
    _anchor: Anchor,
}

/// One process's view of one segment.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) map: Mapping,
    pub(crate) geometry: Geometry,
    pub(crate) place: Place,
    own: WipedWords,
    seat: Mutex<Option<(u32, Seat)>>,
    /// How many handles of this process hold a reference: by object index, generation and role.
    pub(crate) held: Mutex<HashMap<(u32, u32, u32), usize>>,
    /// Device and inode number: what makes it this segment and no copy of it.
    pub(crate) inode: (u64, u64),
}

/// A mutex of this process's own that is locked, and `fork` with it: a child would find it locked for ever.
#[derive(Debug)]
pub(crate) struct Locked<'a, T> {
    // Dropped in this order.
    guard: MutexGuard<'a, T>,
    _no_fork: fork::NoFork,
}

impl<T> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Locks a mutex of this process's own.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks a mutex that a forked child needs, too.
pub(crate) fn locked_unforked<T>(mutex: &Mutex<T>) -> Locked<'_, T> {
    let no_fork = fork::hold_off();
    Locked { guard: locked(mutex), _no_fork: no_fork }
}

/// The segment's file.
#[derive(Debug)]
pub(crate) enum File<'a> {
    /// By the descriptor it was mapped with.
    First(BorrowedFd<'a>),
    /// By its name, since somebody closed that.
    Again(OwnedFd),
}

impl AsFd for File<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            File::First(fd) => *fd,
            File::Again(fd) => fd.as_fd(),
        }
    }
}

impl Attachment {
    /// Maps and checks a segment. Does not join it: see [`Attachment::join`].
    pub(crate) fn map(fd: OwnedFd, place: Place) -> Result<Attachment> {
        let stat = shm::stat(fd.as_fd())?;
        Attachment::map_known(fd, &stat, place)
    }

    /// As [`Attachment::map`], for a file that was just looked at.
    pub(crate) fn map_known(fd: OwnedFd, stat: &rustix::fs::Stat, place: Place) -> Result<Attachment> {
        let name = match &place {
            Place::Named(name) | Place::Anonymous(name) => name.clone(),
        };
        let not = |why| SegmentError::NotASegment { name: name.clone(), why };
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(not("it is not a regular file").into());
        }
        let size = stat.st_size as u64;
        if size < 4096 {
            return Err(not("it is too short for a header").into());
        }
        // The header is read before the rest is mapped: the length it asks for is not trusted yet.
        let mut header = [0u8; size_of::<SegmentHeader>()];
        let mut got = 0;
        while got < header.len() {
            match rustix::io::pread(&fd, &mut header[got..], got as u64) {
                Ok(0) => return Err(not("it is too short for a header").into()),
                Ok(n) => got += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(crate::sys::SysError::new("pread", errno).into()),
            }
        }
        let geometry = check_header(&header, size, &name)?;
        let inode = (stat.st_dev, stat.st_ino);
        let map = Mapping::new(fd, geometry.max_size, inode).map_err(|error| match error.errno {
            libc::ENOMEM => SegmentError::AddressSpace { needed: geometry.max_size }.into(),
            _ => crate::Error::from(error),
        })?;
        Ok(Attachment {
            map,
            geometry,
            place,
            own: WipedWords::new()?,
            seat: Mutex::new(None),
            held: Mutex::new(HashMap::new()),
            inode,
        })
    }

    /// Its name or label.
    #[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "only events name it"))]
    pub(crate) fn label(&self) -> &str {
        match &self.place {
            Place::Named(name) | Place::Anonymous(name) => name,
        }
    }

    /// The file in `/dev/shm`, for a named segment.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match &self.place {
            Place::Named(name) => Some(shm::path_of(name)),
            Place::Anonymous(_) => None,
        }
    }

    /// Its file, found again if the program has closed the descriptor, or opened another file under its number.
    ///
    /// # Errors
    /// `Corrupt` if somebody has truncated it: to touch what is missing would be SIGBUS. EBADF if it cannot be found again.
    pub(crate) fn file(&self) -> Result<File<'_>> {
        let (file, len) = match self.map.file() {
            Some((fd, len)) => (File::First(fd), len),
            None => self.reopen().ok_or(SysError { call: "fstat", errno: libc::EBADF })?,
        };
        if len < self.geometry.max_size {
            return Err(corrupt("length of the truncated file", len, len));
        }
        Ok(file)
    }

    /// The file by its name, and its length; `None` if the name leads elsewhere by now.
    fn reopen(&self) -> Option<(File<'static>, u64)> {
        let fd = shm::open(&self.path()?).ok()??;
        let stat = shm::stat(fd.as_fd()).ok()?;
        ((stat.st_dev, stat.st_ino) == self.inode).then(|| (File::Again(fd), stat.st_size as u64))
    }

    pub(crate) fn header(&self) -> *const SegmentHeader {
        self.map.base().cast()
    }

    /// A pointer to a `T` at `offset`, if it lies inside the mapping and is aligned.
    pub(crate) fn pointer<T>(&self, offset: u64, what: &'static str) -> Result<*const T> {
        let end = offset.checked_add(size_of::<T>() as u64);
        if end.is_none_or(|end| end > self.geometry.max_size) || !offset.is_multiple_of(align_of::<T>() as u64) {
            return Err(corrupt(what, offset, offset));
        }
        Ok(self.map.base().wrapping_add(offset as usize).cast())
    }

    /// How far a word lies from the start of the segment, for messages.
    pub(crate) fn offset_of(&self, word: &AtomicU32) -> u64 {
        self.offset_of_pointer(std::ptr::from_ref(word).cast())
    }

    /// How far a place in the mapping lies from the start of the segment.
    #[inline]
    pub(crate) fn offset_of_pointer(&self, place: *const u8) -> u64 {
        (place as usize).wrapping_sub(self.map.base() as usize) as u64
    }

    /// The registry's slot `slot`, which is below `max_participants`.
    pub(crate) fn participant(&self, slot: u32) -> *const ParticipantSlot {
        debug_assert!(slot < self.geometry.max_participants);
        let offset = self.geometry.registry + u64::from(slot) * size_of::<ParticipantSlot>() as u64;
        self.map.base().wrapping_add(offset as usize).cast()
    }

    // ---- who am I ------------------------------------------------------------------------------------------------

    /// This process's token; joins the segment first if it has none, as after a fork.
    #[inline]
    pub(crate) fn token(&self) -> Result<Token> {
        match self.own.token().load(Ordering::Relaxed) {
            0 => self.join(),
            token => Ok(Token(token)),
        }
    }

    /// The word that [`Attachment::token`] reads: 0 in a forked child that has not joined yet.
    #[inline]
    pub(crate) fn token_word(&self) -> &AtomicU32 {
        self.own.token()
    }

    /// This process's slot, if it has joined.
    #[inline]
    pub(crate) fn own_slot(&self) -> Option<u32> {
        match self.own.token().load(Ordering::Relaxed) {
            0 => None,
            token => Some(Token(token).slot()),
        }
    }

    /// This process's slot and that slot's whole generation.
    pub(crate) fn me(&self) -> Result<(u32, u32)> {
        let slot = self.token()?.slot();
        Ok((slot, atomic!(self.participant(slot), generation).load(Ordering::Relaxed)))
    }

    /// Takes a slot of the registry.
    #[cold]
    pub(crate) fn join(&self) -> Result<Token> {
        membarrier::register();
        let mut seat = locked_unforked(&self.seat);
        let pid = std::process::id();
        match seat.take() {
            Some((owner, held)) if owner == pid && self.own.token().load(Ordering::Relaxed) != 0 => {
                let token = held.token;
                *seat = Some((owner, held));
                return Ok(token);
            }
            // A forked child: the parent's seat is not ours, its page was never mapped here.
            Some((_, held)) => held._anchor.forget(),
            None => {}
        }
        let file = self.file()?;
        let max = self.geometry.max_participants;
        // A look before the first write: the kernel then maps what lies around, too, the registry above all.
        let _ = fetch!(self.header(), magic);
        let first = atomic!(self.header(), next_slot).fetch_add(1, Ordering::Relaxed);
        let mut slots = (0..max).map(|step| first.wrapping_add(step) % max);
        loop {
            failpoint!("attach.before_slot_lock");
            let bytes = slots.by_ref().map(|slot| LOCK_SLOTS + u64::from(slot));
            let Some((anchor, byte)) = Anchor::try_first(file.as_fd(), bytes)? else {
                return Err(SegmentError::TooManyParticipants { max }.into());
            };
            let slot = (byte - LOCK_SLOTS) as u32;
            failpoint!("attach.slot_locked");
            let participant = self.participant(slot);
            // A slot that is FREE when its lock is ours is nobody else's business: recovery passes it by. Acquire pairs with the
            // release of whoever freed it.
            let recovery = if atomic!(participant, state).load(Ordering::Acquire) != STATE_FREE {
                let recovery = self.lock_recovery()?;
                if atomic!(participant, state).load(Ordering::Acquire) != STATE_FREE && !self.recover_locked(slot) {
                    // An object that this version cannot repair waits for the slot: leave it alone.
                    continue;
                }
                Some(recovery)
            } else {
                None
            };
            let generation = self.next_generation(slot);
            failpoint!("attach.generation");
            self.introduce(participant, pid);
            // Release pairs with the acquire of whoever looks at the slot: he sees who it is.
            atomic!(participant, state).store(STATE_ACTIVE, Ordering::Release);
            failpoint!("attach.active");
            drop(recovery);
            let token = Token::new(slot, generation);
            *seat = Some((pid, Seat { token, _anchor: anchor }));
            drop(seat);
            event!(DEBUG, "attached", segment = self.label(), slot = slot, generation = generation);
            self.own.token().store(token.0, Ordering::Release);
            self.hold_again();
            return Ok(token);
        }
    }

    /// Bumps a slot's generation; never to one whose token would be 0.
    pub(crate) fn next_generation(&self, slot: u32) -> u32 {
        let word = atomic!(self.participant(slot), generation);
        let mut next = word.load(Ordering::Relaxed).wrapping_add(1);
        if next & 0x3FFFF == 0 {
            next = next.wrapping_add(1);
        }
        // Release: whoever sees the new generation sees everything that was repaired before it.
        word.store(next, Ordering::Release);
        next
    }

    fn introduce(&self, participant: *const ParticipantSlot, pid: u32) {
        atomic!(participant, pid).store(pid, Ordering::Relaxed);
        atomic!(participant, uid).store(rustix::process::geteuid().as_raw(), Ordering::Relaxed);
        let (pid_namespace, start_time) = proc::own_origin();
        atomic!(participant, pid_namespace).store(pid_namespace, Ordering::Relaxed);
        atomic!(participant, start_time).store(start_time, Ordering::Relaxed);
        let name = crate::process::own_name();
        let mut bytes = [0u8; 32];
        let len = floor_char_boundary(&name, 31);
        bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
        for (word, chunk) in atomic!(participant, name).iter().zip(bytes.chunks_exact(8)) {
            word.store(u64::from_le_bytes(chunk.try_into().expect("8 bytes")), Ordering::Relaxed);
        }
    }

    /// Leaves the segment: recovers whatever this process still has in it, frees the slot, lets go of the lock.
    pub(crate) fn leave(&self) {
        let Some((owner, seat)) = locked_unforked(&self.seat).take() else { return };
        if owner != std::process::id() {
            seat._anchor.forget();
            return;
        }
        failpoint!("detach.before_recovery");
        if let Ok(_recovery) = self.lock_recovery() {
            self.recover_locked(seat.token.slot());
        }
        failpoint!("detach.recovered");
        self.own.token().store(0, Ordering::Release);
        drop(seat);
    }

    // ---- who lives -------------------------------------------------------------------------------------------------

    /// Whether the participant in `slot` is proven dead. "Cannot tell" is no.
    pub(crate) fn is_slot_dead(&self, slot: u32) -> bool {
        if slot >= self.geometry.max_participants || self.own.token().load(Ordering::Relaxed) & 0xFFF == slot {
            return false;
        }
        self.probe(slot)
    }

    fn probe(&self, slot: u32) -> bool {
        let mine = self.own.token().load(Ordering::Relaxed);
        if mine == 0 {
            return false;
        }
        let own = LOCK_SLOTS + u64::from(mine & 0xFFF);
        let other = LOCK_SLOTS + u64::from(slot);
        // A descriptor that does not see my own slot locked is not the segment's: somebody closed it behind our back.
        match lock::is_held(self.map.fd(), own, 1) {
            Ok(true) => lock::is_held(self.map.fd(), other, 1) == Ok(false),
            _ => self.reopen().is_some_and(|(file, _)| {
                lock::is_held(file.as_fd(), own, 1) == Ok(true) && lock::is_held(file.as_fd(), other, 1) == Ok(false)
            }),
        }
    }

    /// Whether the participant that `token` names is dead: its slot was given on, or its lock is gone.
    pub(crate) fn is_dead(&self, token: Token) -> bool {
        let slot = token.slot();
        if slot >= self.geometry.max_participants {
            return false;
        }
        let generation = atomic!(self.participant(slot), generation).load(Ordering::Acquire);
        Token::new(slot, generation) != token || self.is_slot_dead(slot)
    }

    /// Whether the participant that `token` names is gone and what it left is repaired.
    pub(crate) fn is_recovered(&self, token: Token) -> bool {
        let slot = token.slot();
        slot >= self.geometry.max_participants || {
            let participant = self.participant(slot);
            // Acquire pairs with the release of recovery's last stores.
            let generation = atomic!(participant, generation).load(Ordering::Acquire);
            Token::new(slot, generation) != token
        }
    }

    /// Who a token is, for messages.
    pub(crate) fn holder(&self, token: Token) -> Option<Holder> {
        let slot = token.slot();
        if token.0 == 0 || slot >= self.geometry.max_participants {
            return None;
        }
        let participant = self.participant(slot);
        let pid = atomic!(participant, pid).load(Ordering::Relaxed);
        let state = if self.is_dead(token) {
            "dead"
        } else if atomic!(participant, pid_namespace).load(Ordering::Relaxed) != proc::own_origin().0 {
            "unknown"
        } else {
            match proc::state(pid) {
                Some('T' | 't') => "stopped",
                Some('Z') => "a zombie",
                Some(_) => "running",
                None => "unknown",
            }
        };
        Some(Holder { pid, name: self.participant_name(slot), state })
    }

    /// The name a participant gave itself.
    pub(crate) fn participant_name(&self, slot: u32) -> String {
        let mut bytes = Vec::with_capacity(32);
        for word in atomic!(self.participant(slot), name) {
            bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    // ---- kernel locks and shared words ------------------------------------------------------------------------------

    /// The recovery lock, when nobody else has it.
    pub(crate) fn try_lock_recovery(&self) -> Result<Option<Anchor>> {
        Ok(Anchor::try_new(self.file()?.as_fd(), LOCK_RECOVERY)?)
    }

    /// The recovery lock. Its holder may be stopped: then this waits until it goes on or dies.
    pub(crate) fn lock_recovery(&self) -> Result<Anchor> {
        let mut pause = Duration::from_micros(50);
        loop {
            if let Some(anchor) = self.try_lock_recovery()? {
                return Ok(anchor);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }

    /// The segment's own lock `word`, for `work`. Nothing it guards needs a repair.
    ///
    /// # Errors
    /// `Corrupt` if the word names this process and none of its threads has the lock: it would never be free.
    pub(crate) fn with_lock<R>(
        &self,
        word: &AtomicU32,
        what: &'static str,
        work: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        const INSIDE: u32 = 1 << 16;
        let threads = self.own.threads();
        // SeqCst on the counter throughout: who sees that all threads wait sees what each did before.
        threads.fetch_add(INSIDE, Ordering::SeqCst);
        let mut slept = false;
        let locked = loop {
            match claim::lock_once(self, word, slept) {
                Ok(Some(how)) => break Ok(how),
                Ok(None) => {}
                Err(error) => break Err(error),
            }
            let waiting = threads.fetch_add(1, Ordering::SeqCst) + 1;
            if waiting >> 16 == waiting & 0xFFFF && claim::is_mine(self, word).unwrap_or(false) {
                threads.fetch_sub(1, Ordering::SeqCst);
                let seen = word.load(Ordering::Relaxed);
                break Err(corrupt(what, self.offset_of(word), u64::from(seen)));
            }
            slept |= claim::await_release(self, word, super::wait::FIRST_SLICE);
            threads.fetch_sub(1, Ordering::SeqCst);
        };
        let result = locked.and_then(|_| {
            let result = work();
            claim::unlock(self, word, what)?;
            result
        });
        threads.fetch_sub(INSIDE, Ordering::SeqCst);
        result
    }

    /// Heap units that are backed, never more than there is room for.
    #[inline]
    pub(crate) fn committed(&self) -> u64 {
        // Acquire pairs with the release in `Attachment::grow`: the words of the new units are there.
        atomic!(self.header(), committed).load(Ordering::Acquire).min(self.geometry.heap_units_max)
    }

    /// The word of heap unit `unit`, which is below [`Attachment::committed`].
    pub(crate) fn unit_word(&self, unit: u64) -> &AtomicU64 {
        debug_assert!(unit < self.geometry.heap_units_max);
        let pointer = self.map.base().wrapping_add((self.geometry.units + unit * 8) as usize).cast::<AtomicU64>();
        // SAFETY: units and heap_units_max were checked against the mapping; the reference is to an atomic.
        unsafe { &*pointer }
    }
}

/// The largest length up to `max` at which `text` can be cut.
pub(crate) fn floor_char_boundary(text: &str, max: usize) -> usize {
    let mut len = text.len().min(max);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    len
}

fn check_header(bytes: &[u8; size_of::<SegmentHeader>()], size: u64, name: &str) -> Result<Geometry> {
    let not = |why| crate::Error::from(SegmentError::NotASegment { name: name.to_owned(), why });
    let header: SegmentHeader = zerocopy::FromBytes::read_from_bytes(&bytes[..]).expect("as long as a header");
    if header.magic != MAGIC {
        return Err(not("its first bytes are others"));
    }
    if header.byte_order != BYTE_ORDER {
        return Err(not("it was made on a machine of the other byte order"));
    }
    if header.layout_major != LAYOUT_MAJOR {
        return Err(SegmentError::NewerLayout {
            what: format!("segment {name:?}"),
            found: u32::from(header.layout_major),
            supported: u32::from(LAYOUT_MAJOR),
        }
        .into());
    }
    let check =
        |ok: bool, what, field: usize, found: u64| if ok { Ok(()) } else { Err(corrupt(what, field as u64, found)) };
    macro_rules! require {
        ($condition:expr, $field:ident) => {
            check($condition, stringify!($field), std::mem::offset_of!(SegmentHeader, $field), header.$field as u64)?
        };
    }
    require!(header.header_size as usize >= size_of::<SegmentHeader>() && header.header_size <= 4096, header_size);
    require!(header.max_size == size && size <= i64::MAX as u64 / 2, max_size);
    require!(header.unit_size == UNIT_SIZE as u32, unit_size);
    require!((1..=MAX_PARTICIPANTS).contains(&header.max_participants), max_participants);
    require!(header.objects_capacity <= 1 << 16, objects_capacity);
    require!(header.heap_units_max < u64::from(u32::MAX), heap_units_max);
    let fits = |offset: u64, count: u64, each: usize, align: u64| {
        offset.is_multiple_of(align)
            && offset >= u64::from(header.header_size)
            && count.checked_mul(each as u64).and_then(|len| offset.checked_add(len)).is_some_and(|end| end <= size)
    };
    let participants = u64::from(header.max_participants);
    require!(fits(header.registry_offset, participants, size_of::<ParticipantSlot>(), 64), registry_offset);
    require!(
        fits(header.objects_offset, u64::from(header.objects_capacity), size_of::<ObjectEntry>(), 64),
        objects_offset
    );
    require!(fits(header.units_offset, header.heap_units_max, 8, 64), units_offset);
    require!(fits(header.heap_offset, header.heap_units_max, UNIT_SIZE as usize, 256), heap_offset);
    require!(header.policy <= POLICY_ON_OWNER_EXIT, policy);
    Ok(Geometry {
        id: header.segment_id,
        max_size: header.max_size,
        max_participants: header.max_participants,
        registry: header.registry_offset,
        objects: header.objects_offset,
        objects_capacity: header.objects_capacity,
        units: header.units_offset,
        heap: header.heap_offset,
        heap_units_max: header.heap_units_max,
        policy: header.policy,
        creator: header.creator,
        created_ns: header.created_ns,
    })
}
