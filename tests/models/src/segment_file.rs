//! The life of a segment's file: create or open by name, the last one unlinks, anybody may be killed.
//!
//! ```text
//! name           what the path names: a file, or nothing
//! file           {built, LIFE: the holder of its life lock, slots: the held slot bytes}
//! ```
//!
//! Every step is one system call. The locks are byte locks on the segment's own descriptor; the kernel drops them when
//! the process dies.
//!
//! # Steps
//!
//! ```text
//! open     L: fd = open(name), none: create;  lock LIFE;  does the path name this file still?   else close, goto L
//!          nobody holds a slot byte (all were killed): unlink(name), close, goto L
//!          lock my slot byte;  unlock LIFE                                                      attached
//! create   fd = open(O_TMPFILE);  build completely;  lock my slot byte;  linkat(fd, name), EEXIST: close, goto L
//!                                                                                               attached
//! detach   release my slot byte;  then collect                                          [Detach::ReleaseThenCollect]
//!          or: lock LIFE;  another slot byte is held?  no: unlink(name);  release my slot byte;  unlock LIFE
//!                                                                                       [Detach::UnderLife]
//! collect  lock LIFE;  the path names this file and no slot byte is held: unlink(name);  unlock LIFE
//! ```
//!
//! Without O_TMPFILE ([`Create::Exclusive`]): `open(O_CREAT | O_EXCL)`;  lock LIFE;  does the path name this file
//! still?  else close, goto L;  build; lock my slot byte;  unlock LIFE. An opener that finds an unbuilt file under LIFE
//! unlinks it: its creator is dead or comes back to L.
//!
//! # Crash behaviour
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | creating, before linkat | nothing: the kernel frees the file | nobody has to | nothing |
//! | attached | one slot byte less; the name stays if it was the last | the next opener, or `gc`, unlinks | nothing |
//! | holding LIFE | LIFE free | nobody has to | nothing |
//! | after unlink | no name | nobody has to | nothing |
//!
//! # What is checked
//!
//! Whoever is attached is attached to the file that the path names, and it is built; at rest the name is gone and
//! nobody is stuck.
//!
//! # Size
//!
//! Three processes that attach twice, and a collector, one kill: 1 858 493 states; two processes and two kills 24 401,
//! 64 621 when they release and then collect, 189 249 with O_EXCL: as in the C++ model that this was ported from.

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};

const MAX_PROCESSES: usize = 3;
const MAX_FILES: usize = MAX_PROCESSES + 3;

/// How a file comes to its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// Built without a name, then linked.
    Linked,
    /// Named first (O_EXCL), then built.
    Exclusive,
}

/// How a participant leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detach {
    /// Its slot byte is released under LIFE, after the unlink.
    UnderLife,
    /// Its slot byte is released first; what follows is what `gc` does.
    ReleaseThenCollect,
}

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// An opener does not take LIFE.
    OpenTakesNoLife,
    /// An opener does not look at the path again.
    OpenDoesNotCheckPath,
    /// An opener unlinks a file without slots whatever the path names.
    OpenUnlinksUnchecked,
    /// A participant that released its slot unlinks whatever the path names.
    CollectUnlinksUnchecked,
    /// An opener locks its slot after it released LIFE.
    SlotAfterLife,
    /// A participant that leaves looks for others before it takes LIFE.
    DetachLooksBeforeLife,
    /// A creator with O_EXCL does not look at the path again.
    CreatorDoesNotCheckPath,
    /// An opener accepts a file that is not built.
    UnbuiltAccepted,
    /// The last one releases LIFE before it unlinks.
    LifeReleasedBeforeUnlink,
    /// A creator links the file and locks its slot afterwards.
    LinkedBeforeSlot,
}

/// The model and its size, besides one collector.
#[derive(Clone, Copy, Debug)]
pub struct SegmentFile {
    /// How files are created.
    pub create: Create,
    /// How participants leave.
    pub detach: Detach,
    /// Processes, at most 3.
    pub processes: usize,
    /// How often each attaches, over all processes that follow each other in its place.
    pub rounds: u8,
    /// Kills in one history.
    pub kills: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct File {
    built: u8,
    life: u8,
    slots: u8,
}

const NEW_FILE: File = File { built: 0, life: 0, slots: 0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum At {
    Outside,
    Open,
    LockLife,
    CheckPath,
    Close,
    CheckSlots,
    LockSlot,
    UnlinkStale,
    UnlockLife,
    Attached,
    DetachLockLife,
    DetachLook,
    /// Of [`Bug::LifeReleasedBeforeUnlink`].
    DetachUnlockLife,
    DetachUnlink,
    DetachReleaseSlot,
    DetachClose,
    CreateFile,
    CreateLockSlot,
    CreateLink,
    ExclusiveLockLife,
    ExclusiveCheckPath,
    ExclusiveBuild,
    ExclusiveLockSlot,
    CollectLockLife,
    CollectLook,
    CollectUnlink,
    CollectEnd,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Process {
    at: At,
    rounds: u8,
    gone: u8,
    /// The file that it has open, from 1.
    file: u8,
    others: u8,
}

/// All files and processes, the collector last.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    files: [File; MAX_FILES],
    /// The file that the path names, from 1; 0 for none.
    name: u8,
    kills: u8,
    processes: [Process; MAX_PROCESSES + 1],
}

impl State {
    fn is_used(&self, file: u8) -> bool {
        self.name == file || self.processes.iter().any(|process| process.file == file)
    }

    /// The kernel frees files that have neither a name nor a descriptor.
    fn free_files(&mut self) {
        for file in 1..=MAX_FILES as u8 {
            if !self.is_used(file) {
                self.files[file as usize - 1] = NEW_FILE;
            }
        }
    }

    fn new_file(&mut self) -> Result<u8, Broken> {
        let unused = (1..=MAX_FILES as u8).find(|&file| !self.is_used(file));
        unused.ok_or("the model has too few files")
    }
}

impl SegmentFile {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn collects(&self) -> bool {
        self.detach == Detach::ReleaseThenCollect
    }

    fn act(&self, state: &mut State, who: usize) -> Result<bool, Broken> {
        let id = who as u8 + 1;
        let bit = 1 << who;
        let mut me = state.processes[who];
        let name = state.name;
        // Before a file is open, a word that nobody looks at.
        let mut unopened = NEW_FILE;
        let file = state.files.get_mut((me.file as usize).wrapping_sub(1)).unwrap_or(&mut unopened);
        let others = file.slots & !bit != 0;
        let exclusive = self.create == Create::Exclusive;
        match me.at {
            At::Outside if me.gone != 0 => return Ok(false),
            At::Outside if who == self.processes => {
                if name == 0 || state.files[name as usize - 1].slots != 0 {
                    return Ok(false);
                }
                me.file = name;
                me.at = At::CollectLockLife;
            }
            At::Outside if me.rounds >= self.rounds => return Ok(false),
            At::Outside | At::Open if name == 0 => me.at = At::CreateFile,
            At::Outside | At::Open => {
                me.file = name;
                me.at = if self.has(Bug::OpenTakesNoLife) { At::LockSlot } else { At::LockLife };
            }
            At::LockLife | At::DetachLockLife | At::ExclusiveLockLife | At::CollectLockLife if file.life != 0 => {
                return Ok(false);
            }
            At::LockLife => {
                file.life = id;
                me.at = if self.has(Bug::OpenDoesNotCheckPath) { At::CheckSlots } else { At::CheckPath };
            }
            At::CheckPath => {
                let unbuilt = exclusive && file.built == 0 && !self.has(Bug::UnbuiltAccepted);
                me.at = if name != me.file && !self.has(Bug::OpenUnlinksUnchecked) {
                    At::Close
                } else if unbuilt {
                    At::UnlinkStale
                } else {
                    At::CheckSlots
                };
            }
            At::Close => {
                file.life = if file.life == id { 0 } else { file.life };
                me.file = 0;
                me.at = At::Open;
            }
            At::CheckSlots => {
                me.at = if others && self.has(Bug::SlotAfterLife) {
                    At::UnlockLife
                } else if others || self.has(Bug::UnbuiltAccepted) && file.built == 0 {
                    At::LockSlot
                } else {
                    At::UnlinkStale
                };
            }
            At::LockSlot => {
                file.slots |= bit;
                let without_life = self.has(Bug::OpenTakesNoLife) || self.has(Bug::SlotAfterLife);
                me.at = if without_life { At::Attached } else { At::UnlockLife };
            }
            At::UnlinkStale => {
                state.name = 0;
                me.at = At::Close;
            }
            At::UnlockLife => {
                file.life = 0;
                me.at = if self.has(Bug::SlotAfterLife) { At::LockSlot } else { At::Attached };
            }
            At::Attached => {
                me.at = if self.collects() {
                    At::DetachReleaseSlot
                } else if self.has(Bug::DetachLooksBeforeLife) {
                    At::DetachLook
                } else {
                    At::DetachLockLife
                };
            }
            At::DetachLockLife => {
                file.life = id;
                me.at = if !self.has(Bug::DetachLooksBeforeLife) {
                    At::DetachLook
                } else if me.others != 0 {
                    At::DetachReleaseSlot
                } else {
                    At::DetachUnlink
                };
            }
            At::DetachLook => {
                me.others = others.into();
                me.at = if self.has(Bug::DetachLooksBeforeLife) {
                    At::DetachLockLife
                } else if others && self.collects() {
                    At::DetachClose
                } else if others {
                    At::DetachReleaseSlot
                } else if self.has(Bug::LifeReleasedBeforeUnlink) {
                    At::DetachUnlockLife
                } else {
                    At::DetachUnlink
                };
            }
            At::DetachUnlockLife => {
                file.life = 0;
                me.at = At::DetachUnlink;
            }
            At::DetachUnlink => {
                let unchecked = self.has(Bug::LifeReleasedBeforeUnlink) || self.has(Bug::CollectUnlinksUnchecked);
                if name == me.file || unchecked {
                    state.name = 0;
                }
                me.at = if self.collects() { At::DetachClose } else { At::DetachReleaseSlot };
            }
            At::DetachReleaseSlot => {
                file.slots &= !bit;
                me.at = if self.collects() { At::DetachLockLife } else { At::DetachClose };
            }
            At::DetachClose => {
                file.life = if file.life == id { 0 } else { file.life };
                me = Process { at: At::Outside, rounds: me.rounds + 1, file: 0, others: 0, ..me };
            }
            At::CreateFile if exclusive && name != 0 => me.at = At::Open,
            At::CreateFile => {
                me.file = state.new_file()?;
                state.files[me.file as usize - 1] = File { built: u8::from(!exclusive), ..NEW_FILE };
                if exclusive {
                    state.name = me.file;
                }
                me.at = match self.create {
                    Create::Exclusive => At::ExclusiveLockLife,
                    Create::Linked if self.has(Bug::LinkedBeforeSlot) => At::CreateLink,
                    Create::Linked => At::CreateLockSlot,
                };
            }
            At::CreateLockSlot => {
                file.slots |= bit;
                me.at = if self.has(Bug::LinkedBeforeSlot) { At::Attached } else { At::CreateLink };
            }
            At::CreateLink if name != 0 => {
                me.file = 0;
                me.at = At::Open;
            }
            At::CreateLink => {
                state.name = me.file;
                me.at = if self.has(Bug::LinkedBeforeSlot) { At::CreateLockSlot } else { At::Attached };
            }
            At::ExclusiveLockLife => {
                file.life = id;
                let blind = self.has(Bug::CreatorDoesNotCheckPath);
                me.at = if blind { At::ExclusiveBuild } else { At::ExclusiveCheckPath };
            }
            At::ExclusiveCheckPath => me.at = if name == me.file { At::ExclusiveBuild } else { At::Close },
            At::ExclusiveBuild => {
                file.built = 1;
                me.at = At::ExclusiveLockSlot;
            }
            At::ExclusiveLockSlot => {
                file.slots |= bit;
                me.at = At::UnlockLife;
            }
            At::CollectLockLife => {
                file.life = id;
                me.at = At::CollectLook;
            }
            At::CollectLook => {
                let stale = name == me.file && file.slots == 0;
                me.at = if stale { At::CollectUnlink } else { At::CollectEnd };
            }
            At::CollectUnlink => {
                state.name = 0;
                me.at = At::CollectEnd;
            }
            At::CollectEnd => {
                file.life = 0;
                me.file = 0;
                me.at = At::Outside;
            }
        }
        state.processes[who] = me;
        if me.file == 0 {
            state.free_files();
        }
        Ok(true)
    }

    /// A kill: the kernel drops the locks. A new process may come in its place.
    fn kill(&self, state: &mut State, who: usize) -> bool {
        let me = &mut state.processes[who];
        if state.kills >= self.kills || me.gone != 0 || me.at == At::Outside {
            return false;
        }
        let rounds = me.rounds + 1;
        *me = Process { at: At::Outside, rounds, gone: u8::from(rounds >= self.rounds), file: 0, others: 0 };
        for file in &mut state.files {
            file.slots &= !(1 << who);
            if file.life == who as u8 + 1 {
                file.life = 0;
            }
        }
        state.free_files();
        state.kills += 1;
        true
    }
}

impl Model for SegmentFile {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let process = Process { at: At::Outside, rounds: 0, gone: 0, file: 0, others: 0 };
        vec![State { files: [NEW_FILE; MAX_FILES], name: 0, kills: 0, processes: [process; MAX_PROCESSES + 1] }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        for who in 0..=self.processes {
            next.step(who, state, |state| self.act(state, who));
        }
        for who in 0..self.processes {
            next.event("is killed", who, state, |state| Ok(self.kill(state, who)));
        }
    }

    fn invariant(&self, state: &State) -> Result<(), Broken> {
        for process in &state.processes[..self.processes] {
            let holds_its_slot = match process.at {
                At::Attached => true,
                At::DetachLockLife | At::DetachLook => !self.collects(),
                _ => false,
            };
            if holds_its_slot && state.name != process.file {
                return Err("a process is attached to a file that the path does not name");
            }
            if holds_its_slot && state.files[process.file as usize - 1].built == 0 {
                return Err("a process is attached to a half-built file");
            }
        }
        Ok(())
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        if state.name != 0 {
            return Err("a file is left behind");
        }
        let stuck = |process: &Process| process.gone == 0 && process.rounds < self.rounds;
        if state.processes[..self.processes].iter().any(stuck) {
            return Err("a live process is stuck");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const UNDER_LIFE: SegmentFile =
        SegmentFile { create: Create::Linked, detach: Detach::UnderLife, processes: 2, rounds: 2, kills: 2, bug: None };
    const COLLECT: SegmentFile = SegmentFile { detach: Detach::ReleaseThenCollect, ..UNDER_LIFE };
    const EXCLUSIVE: SegmentFile = SegmentFile { create: Create::Exclusive, ..UNDER_LIFE };
    const OTHER_FILE: Broken = "a process is attached to a file that the path does not name";

    fn catches(model: SegmentFile, bug: Bug, expected: Broken) {
        is_caught(Explorer::default(), &SegmentFile { bug: Some(bug), ..model }, expected);
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default().no_livelock(), &COLLECT);
        assert_eq!((report.states, report.at_rest), (64_621, 8));
    }

    #[test]
    fn the_algorithm_has_no_violation_when_the_slot_is_released_under_life() {
        let report = holds(Explorer::default().no_livelock(), &UNDER_LIFE);
        assert_eq!((report.states, report.at_rest), (24_401, 8));
    }

    #[test]
    fn the_algorithm_has_no_violation_without_o_tmpfile() {
        let report = holds(Explorer::default().no_livelock(), &EXCLUSIVE);
        assert_eq!((report.states, report.at_rest), (189_249, 8));
    }

    #[test]
    fn the_algorithm_has_no_violation_with_three_processes() {
        let report = holds(Explorer::default(), &SegmentFile { processes: 3, kills: 1, ..UNDER_LIFE });
        assert_eq!((report.states, report.at_rest), (1_858_493, 5));
    }

    #[test]
    fn an_open_without_life_is_caught() {
        catches(COLLECT, Bug::OpenTakesNoLife, OTHER_FILE);
    }

    #[test]
    fn an_open_that_does_not_check_the_path_is_caught() {
        catches(COLLECT, Bug::OpenDoesNotCheckPath, OTHER_FILE);
    }

    #[test]
    fn an_open_that_unlinks_unchecked_is_caught() {
        catches(COLLECT, Bug::OpenUnlinksUnchecked, OTHER_FILE);
    }

    #[test]
    fn a_collection_that_unlinks_unchecked_is_caught() {
        catches(COLLECT, Bug::CollectUnlinksUnchecked, OTHER_FILE);
    }

    #[test]
    fn a_slot_locked_after_life_is_caught() {
        catches(COLLECT, Bug::SlotAfterLife, OTHER_FILE);
    }

    #[test]
    fn a_detach_that_looks_before_life_is_caught() {
        catches(UNDER_LIFE, Bug::DetachLooksBeforeLife, OTHER_FILE);
    }

    #[test]
    fn a_creator_that_does_not_check_the_path_is_caught() {
        catches(EXCLUSIVE, Bug::CreatorDoesNotCheckPath, OTHER_FILE);
    }

    #[test]
    fn an_unbuilt_file_that_is_accepted_is_caught() {
        catches(EXCLUSIVE, Bug::UnbuiltAccepted, "a process is attached to a half-built file");
    }

    #[test]
    fn a_life_released_before_the_unlink_is_caught() {
        catches(UNDER_LIFE, Bug::LifeReleasedBeforeUnlink, OTHER_FILE);
    }

    #[test]
    fn a_file_linked_before_its_slot_is_caught() {
        catches(COLLECT, Bug::LinkedBeforeSlot, OTHER_FILE);
    }
}
