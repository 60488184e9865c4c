//! Reads without a lock: one link to a block that is replaced while it is read.
//!
//! ```text
//! link          the number of the block that holds the current value
//! block[2]      {FREE | HELD | COMMITTED, generation}, and a value of two words
//! ```
//!
//! # Steps
//!
//! ```text
//! write   CAS a FREE block {g} to {g+1, HELD};  first word;  second word
//!         link = block;  block COMMITTED;  old block FREE                            blocks are reused most-recent-first
//! read    b = link;  g = word of b: is it in use?                                   else again
//!         b = link still?                                                           else again
//!         copy the first word;  copy the second word
//!         the word of b still in use, and {g}?                                      else again; the copy counts
//! ```
//!
//! The link is the commit point, so a block that it names counts even while it is HELD: a reader does not wait for a
//! writer that was killed before it could say COMMITTED. That is why the second look at the link is not a luxury:
//! between the first look and the word, the block may have begun its next life, and the generation would be that of a
//! block being filled. A reader that insists on COMMITTED ([`Accepts::Committed`]) is right too, and waits.
//!
//! # Crash behaviour
//!
//! The writer holds the mutex of its container, which recovery takes over from the dead. Recovery looks at the link:
//! the block that it names becomes COMMITTED, any other is FREE again. A reader registers nowhere and leaves nothing.
//!
//! | killed | what others see | who repairs | what is lost |
//! |---|---|---|---|
//! | writer, before the link | a HELD block that nobody names | recovery frees it | the new value |
//! | writer, after the link | the new value in a HELD block: it counts | recovery commits it and frees the old one | nothing |
//! | reader | nothing | nobody has to | nothing |
//!
//! # What is checked
//!
//! An accepted copy is not torn, and was the current value at some time during the read; at rest the reader has read
//! and all blocks but the linked one are free.
//!
//! # Size
//!
//! Four writes, two kills of the writer: 35 469 states, 35 089 with a reader that insists on COMMITTED. The C++ model
//! that this was ported from has neither kills nor a commit of its own for the new block ([`ReadLink::commits`] is
//! false): 2 035 states. Its reader remembers a generation of the link too, which only another variant looks at;
//! without that it has 1 703, as this one.

use zerocopy::{Immutable, IntoBytes};

use crate::explorer::{Broken, Model, Successors};

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The second look at the link comes after the copy.
    LinkCheckedAfterCopy,
    /// There is no second look at the link.
    LinkNotChecked,
    /// There is no second look at the word of the block.
    BlockNotChecked,
    /// A claim leaves the generation.
    NoNewGeneration,
    /// The writer links the block before it is filled.
    LinkedBeforeFilled,
    /// Recovery frees the block of the dead though the link names it.
    RecoveryFreesLinked,
}

/// Which blocks a reader takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// Every block in use that the link names.
    Linked,
    /// Only a COMMITTED one.
    Committed,
}

/// The model and its size: one writer, one reader, two blocks.
#[derive(Clone, Copy, Debug)]
pub struct ReadLink {
    /// Writes, one after the other.
    pub writes: u8,
    /// Whether a new block is COMMITTED in a step of its own, after it was linked, as in the heap. Only then is the age
    /// of an accepted value checked.
    pub commits: bool,
    /// Which blocks the reader takes.
    pub accepts: Accepts,
    /// Kills of the writer in one history.
    pub kills: u8,
    /// The seeded bug.
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum BlockState {
    Free,
    Held,
    Committed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Block {
    state: BlockState,
    generation: u8,
    value: [u8; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum WriterAt {
    Claim,
    FillFirst,
    FillSecond,
    Link,
    Commit,
    FreeOld,
    /// Killed: recovery has the lock.
    Dead,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Writer {
    at: WriterAt,
    written: u8,
    new: u8,
    old: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
enum ReaderAt {
    LoadLink,
    LoadBlock,
    CheckLink,
    CopyFirst,
    CopySecond,
    CheckBlock,
    /// Of [`Bug::LinkCheckedAfterCopy`].
    CheckLinkLate,
    Done,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Reader {
    at: ReaderAt,
    block: u8,
    generation: u8,
    copy: [u8; 2],
    /// One bit for each value that was current since this try began.
    current: u8,
}

/// All words, the writer and the reader.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    link: u8,
    blocks: [Block; 2],
    writer: Writer,
    reader: Reader,
    kills: u8,
}

impl ReadLink {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn write(&self, state: &mut State) -> bool {
        let State { link, blocks, writer: me, reader, .. } = state;
        let value = me.written + 1;
        let links_first = self.has(Bug::LinkedBeforeFilled);
        match me.at {
            WriterAt::Claim => {
                let free = blocks.iter().position(|block| block.state == BlockState::Free);
                let Some(free) = free.filter(|_| me.written < self.writes) else { return false };
                blocks[free].state = if self.commits { BlockState::Held } else { BlockState::Committed };
                blocks[free].generation += u8::from(!self.has(Bug::NoNewGeneration));
                me.new = free as u8;
                me.at = if links_first { WriterAt::Link } else { WriterAt::FillFirst };
            }
            WriterAt::FillFirst => {
                blocks[me.new as usize].value[0] = value;
                me.at = WriterAt::FillSecond;
            }
            WriterAt::FillSecond => {
                blocks[me.new as usize].value[1] = value;
                me.at = if links_first { WriterAt::FreeOld } else { WriterAt::Link };
            }
            WriterAt::Link => {
                me.old = *link;
                *link = me.new;
                reader.current |= u8::from(self.commits) << value;
                me.at = if self.commits { WriterAt::Commit } else { WriterAt::FreeOld };
            }
            WriterAt::Commit => {
                blocks[me.new as usize].state = BlockState::Committed;
                me.at = if links_first { WriterAt::FillFirst } else { WriterAt::FreeOld };
            }
            WriterAt::FreeOld => {
                blocks[me.old as usize].state = BlockState::Free;
                *me = Writer { at: WriterAt::Claim, written: value, new: 0, old: 0 };
            }
            WriterAt::Dead => return false,
        }
        true
    }

    /// One step of recovery after the writer was killed: one block, or the end of it.
    fn recover(&self, state: &mut State) -> bool {
        let State { link, blocks, writer, .. } = state;
        if writer.at != WriterAt::Dead {
            return false;
        }
        for (block, number) in blocks.iter_mut().zip(0..) {
            let named = *link == number && !self.has(Bug::RecoveryFreesLinked);
            let due = if named { BlockState::Committed } else { BlockState::Free };
            if block.state != due {
                block.state = due;
                return true;
            }
        }
        *writer = Writer { at: WriterAt::Claim, written: writer.written + 1, new: 0, old: 0 };
        true
    }

    fn kill(&self, state: &mut State) -> bool {
        let me = &mut state.writer;
        if state.kills >= self.kills || matches!(me.at, WriterAt::Claim | WriterAt::Dead) {
            return false;
        }
        *me = Writer { at: WriterAt::Dead, written: me.written, new: 0, old: 0 };
        state.kills += 1;
        true
    }

    fn read(&self, state: &mut State) -> Result<bool, Broken> {
        let State { link, blocks, reader: me, .. } = state;
        let block = blocks[me.block as usize];
        let acceptable = match self.accepts {
            Accepts::Linked => block.state != BlockState::Free,
            Accepts::Committed => block.state == BlockState::Committed,
        };
        match me.at {
            ReaderAt::LoadLink => {
                me.block = *link;
                me.current = if self.commits { 1 << blocks[*link as usize].value[0] } else { 0 };
                me.at = ReaderAt::LoadBlock;
            }
            ReaderAt::LoadBlock => {
                me.generation = block.generation;
                me.at = match self.bug {
                    _ if !acceptable => ReaderAt::LoadLink,
                    Some(Bug::LinkCheckedAfterCopy | Bug::LinkNotChecked) => ReaderAt::CopyFirst,
                    _ => ReaderAt::CheckLink,
                };
            }
            ReaderAt::CheckLink => {
                me.at = if *link == me.block { ReaderAt::CopyFirst } else { ReaderAt::LoadLink };
            }
            ReaderAt::CopyFirst => {
                me.copy[0] = block.value[0];
                me.at = ReaderAt::CopySecond;
            }
            ReaderAt::CopySecond => {
                me.copy[1] = block.value[1];
                me.at = ReaderAt::CheckBlock;
            }
            ReaderAt::CheckBlock => {
                let unchanged = block.generation == me.generation && acceptable || self.has(Bug::BlockNotChecked);
                if !unchanged {
                    me.at = ReaderAt::LoadLink;
                } else if self.has(Bug::LinkCheckedAfterCopy) {
                    me.at = ReaderAt::CheckLinkLate;
                } else {
                    self.accept(me)?;
                }
            }
            ReaderAt::CheckLinkLate if *link != me.block => me.at = ReaderAt::LoadLink,
            ReaderAt::CheckLinkLate => self.accept(me)?,
            ReaderAt::Done => return Ok(false),
        }
        Ok(true)
    }

    fn accept(&self, reader: &mut Reader) -> Result<(), Broken> {
        let [first, second] = reader.copy;
        if first != second {
            return Err("a torn value is accepted");
        }
        if self.commits && reader.current >> first & 1 == 0 {
            return Err("a value is accepted that was not current during the read");
        }
        reader.at = ReaderAt::Done;
        Ok(())
    }
}

impl Model for ReadLink {
    type State = State;

    fn initial(&self) -> Vec<State> {
        let linked = Block { state: BlockState::Committed, generation: 1, value: [0; 2] };
        let free = Block { state: BlockState::Free, generation: 0, value: [0; 2] };
        let reader = Reader { at: ReaderAt::LoadLink, block: 0, generation: 0, copy: [0; 2], current: 0 };
        vec![State {
            link: 0,
            blocks: [linked, free],
            writer: Writer { at: WriterAt::Claim, written: 0, new: 0, old: 0 },
            reader,
            kills: 0,
        }]
    }

    fn successors(&self, state: &State, next: &mut Successors<State>) {
        next.step(0, state, |state| Ok(self.write(state)));
        next.step(1, state, |state| self.read(state));
        next.step(2, state, |state| Ok(self.recover(state)));
        next.event("is killed", 0, state, |state| Ok(self.kill(state)));
    }

    fn invariant(&self, _: &State) -> Result<(), Broken> {
        Ok(())
    }

    fn at_rest(&self, state: &State) -> Result<(), Broken> {
        if state.reader.at != ReaderAt::Done || state.writer.written < self.writes {
            return Err("a process is stuck");
        }
        for (block, number) in state.blocks.iter().zip(0..) {
            let due = if number == state.link { BlockState::Committed } else { BlockState::Free };
            if block.state != due {
                return Err("a block leaks, or the linked one is not committed");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explorer::{Explorer, holds, is_caught};

    const PLAIN: ReadLink = ReadLink { writes: 4, commits: true, accepts: Accepts::Linked, kills: 2, bug: None };

    fn catches(bug: Bug) {
        is_caught(Explorer::default(), &ReadLink { bug: Some(bug), ..PLAIN }, "a torn value is accepted");
    }

    #[test]
    fn the_algorithm_has_no_violation() {
        let report = holds(Explorer::default().no_livelock(), &PLAIN);
        assert_eq!((report.states, report.at_rest), (35_469, 159));
    }

    #[test]
    fn the_algorithm_has_no_violation_when_the_reader_insists_on_committed() {
        let report = holds(Explorer::default().no_livelock(), &ReadLink { accepts: Accepts::Committed, ..PLAIN });
        assert_eq!((report.states, report.at_rest), (35_089, 159));
    }

    #[test]
    fn the_algorithm_has_no_violation_where_blocks_are_never_held() {
        let report = holds(Explorer::default().no_livelock(), &ReadLink { commits: false, kills: 0, ..PLAIN });
        assert_eq!(report.states, 1_703);
    }

    #[test]
    fn a_link_checked_after_the_copy_is_caught() {
        catches(Bug::LinkCheckedAfterCopy);
    }

    #[test]
    fn a_link_that_is_not_checked_is_caught() {
        catches(Bug::LinkNotChecked);
    }

    #[test]
    fn a_block_that_is_not_checked_is_caught() {
        catches(Bug::BlockNotChecked);
    }

    #[test]
    fn a_generation_that_never_changes_is_caught() {
        catches(Bug::NoNewGeneration);
    }

    #[test]
    fn a_block_linked_before_it_is_filled_is_caught() {
        catches(Bug::LinkedBeforeFilled);
    }

    #[test]
    fn a_recovery_that_frees_the_linked_block_is_caught() {
        catches(Bug::RecoveryFreesLinked);
    }
}
