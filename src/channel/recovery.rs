//! What recovery does with queues: one pass over the ring, then one over the blocks.
//!
//! ```text
//! for a dead participant d, under the recovery lock:
//! 1  each slot TAKEN by d, block b:  b in W, or R by d: CAS → RQP;  then CAS slot → {lap+1, FREE}
//! 2  one scan of the ring into a private set of the blocks that slots name;  THEN each block:
//!      RL by d, or W by d and not in the set:  free its extent; → FREE
//!      RQP and not in the set, or R by d:      → RQ   (of an at-most-once queue: as the line above)
//! 3  if any block is in RQ: requeue + 1;  wake everybody
//! ```
//! A block that was published keeps its producer's slot number in its word, and that slot may have a new participant: what
//! counts is whether a ring slot names the block. A consumer writes R before it frees the ring slot, so a block that the scan
//! does not find, and that is still in W afterwards, was never published. Model: `mcq_onepass`.
//!
//! # Crash behaviour
//!
//! | a producer is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | before its claim | a free block | nobody needs to | the message |
//! | holding a loan, or writing a message | a block W that no slot names | recovery frees it | the message: it was not committed |
//! | with a long message's extent, not yet named in the block | an extent HELD by it | recovery's sweep of the heap | the message |
//! | the extent named in the block | the same block W; the extent HELD or COMMITTED | recovery frees the extent, clears its name, frees the block | the message |
//! | after the commit, before the tail moved | READY at the tail | the next producer helps | nothing |
//! | after the tail moved, before the wake | a message and a sleeper | recovery wakes all; a sleeper looks again at the end of its slice | at most 1 s |
//!
//! | a consumer is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | its slot TAKEN, the head not moved | TAKEN at the head | others help the head; recovery frees the slot, the block → RQ | nothing: delivered again, flagged |
//! | the block R, the slot still TAKEN | the same | the same | nothing |
//! | holding the message | a block R | recovery: → RQ | nothing: delivered again, flagged |
//! | releasing a long message | a block RL, its extent there, freed, or cleared | recovery finishes the release | nothing: it was received |
//! | after the release | a free block | nobody needs to | nothing |
//! | having marked the end of a closed queue | END at the head | nobody needs to | nothing |
//! | releasing a message with handles, before their check | objects nobody holds | recovery checks every object | nothing |
//!
//! | the recoverer is killed | others see | who repairs | lost |
//! |---|---|---|---|
//! | between any two steps | blocks and slots already repaired, and others | the next recoverer starts again: done steps find nothing to do | nothing |
//!
//! A consumer that is *stopped* between TAKEN and FREE holds up producers after one lap of the ring, until it goes on or dies.

use super::ring::{Ring, is_in};
use crate::kinds::Kind;
use crate::segment::{Attachment, Dead, Extent, wait};
use shmkit_layouts::objects::{BlockMeta, MESSAGE_HANDLES};
use shmkit_layouts::words::*;
use std::sync::atomic::Ordering;

/// A kind of object that consists of rings.
pub(super) trait Rings {
    /// Its rings, in order; those that are corrupt are left out.
    fn rings(attachment: &Attachment, body: &Extent) -> Vec<Ring>;

    /// The ring and the block in it that a reference cell means by `id`.
    fn block(attachment: &Attachment, body: &Extent, id: u32) -> Option<(Ring, u32)>;
}

/// What recovery does with such a kind.
pub(super) const fn kind<R: Rings>(number: u32) -> Kind {
    Kind {
        recover: |attachment, body, dead| {
            for ring in R::rings(attachment, body) {
                recover(attachment, &ring, dead);
            }
        },
        destroy: |attachment, body| {
            // Counted, since every ring is to be emptied.
            R::rings(attachment, body).iter().filter(|ring| destroy(attachment, ring)).count() > 0
        },
        extents: |attachment, body, visit| {
            for ring in R::rings(attachment, body) {
                let names = (0..ring.blocks()).filter_map(|index| ring.extent(index));
                names.map(|name| name.load(Ordering::Acquire)).filter(|&name| name != 0).for_each(&mut *visit);
                ring.growth().into_iter().flat_map(|growth| growth.names()).for_each(&mut *visit);
            }
        },
        wake: |attachment, body| R::rings(attachment, body).iter().for_each(wake),
        block_generation: |attachment, body, id| {
            let (ring, index) = R::block(attachment, body, id)?;
            let block = Block::unpack(ring.word(index).load(Ordering::Acquire));
            (block.state != BLOCK_FREE).then_some(block.generation)
        },
        ..Kind::plain(number)
    }
}

fn wake(ring: &Ring) {
    wait::wake_everybody(ring.not_empty());
    wait::wake_everybody(ring.not_full());
    wait::wake_everybody(ring.block_free());
    wait::wake_everybody(ring.all_done());
}

fn recover(attachment: &Attachment, ring: &Ring, dead: Dead) {
    if let Some(growth) = ring.growth() {
        growth.recover(attachment, dead.slot);
    }
    for index in 0..ring.slots() {
        let slot = ring.slot_at(index);
        // Acquire pairs with the consumer's release: its block is in R if the slot is free again.
        let seen = slot.load(Ordering::Acquire);
        let found = Slot::unpack(seen);
        if found.state != SLOT_TAKEN || found.owner != dead.slot {
            continue;
        }
        if found.index < ring.blocks() {
            change(ring, found.index, |block| {
                let is_his = block.state == BLOCK_READ && block.owner == dead.slot;
                (block.state == BLOCK_WRITE || is_his).then_some(BLOCK_REQUEUE_PENDING)
            });
        }
        failpoint!("queue.recover_pending");
        let free = Slot { lap: found.lap.wrapping_add(1), state: SLOT_FREE, owner: 0, index: 0 };
        let _ = slot.compare_exchange(seen, free.pack(), Ordering::AcqRel, Ordering::Relaxed);
        failpoint!("queue.recover_slot");
    }
    let named = ring.named();
    failpoint!("queue.recover_scanned");
    let mut again = false;
    for index in 0..ring.blocks() {
        let block = Block::unpack(ring.word(index).load(Ordering::Acquire));
        let is_named = is_in(&named, index);
        let is_his = block.owner == dead.slot;
        let (free, requeue) = match block.state {
            BLOCK_WRITE => (is_his && !is_named, false),
            BLOCK_RELEASING => (is_his, false),
            BLOCK_READ => (is_his && ring.at_most_once, is_his),
            BLOCK_REQUEUE_PENDING => (!is_named && ring.at_most_once, !is_named),
            BLOCK_REQUEUE => (false, true),
            _ => (false, false),
        };
        if free {
            // In this order: who goes on after my death finds the block as it was.
            ring.free_extent(attachment, index);
            change(ring, index, |now| (now == block).then_some(BLOCK_FREE));
            failpoint!("queue.recover_freed");
        } else if requeue {
            change(ring, index, |now| (now == block).then_some(BLOCK_REQUEUE));
            again = true;
            failpoint!("queue.recover_requeued");
        }
    }
    if again {
        // Release pairs with the acquire in `adopt`.
        ring.requeue().fetch_add(1, Ordering::Release);
    }
    failpoint!("queue.recover_hint");
    wake(ring);
}

/// Brings a block into another state, owned by nobody.
fn change(ring: &Ring, index: u32, to: impl Fn(Block) -> Option<u64>) {
    let word = ring.word(index);
    let seen = word.load(Ordering::Acquire);
    let block = Block::unpack(seen);
    if let Some(state) = to(block) {
        let deliveries = if state == BLOCK_FREE { 0 } else { block.deliveries };
        let next = Block { state, owner: 0, deliveries, ..block }.pack();
        let _ = word.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Frees what the messages have in the heap; true if one named objects.
fn destroy(attachment: &Attachment, ring: &Ring) -> bool {
    let mut handles = false;
    for index in 0..ring.blocks() {
        let block = Block::unpack(ring.word(index).load(Ordering::Acquire));
        if block.state != BLOCK_FREE {
            // Where it cannot be known there may be some.
            let may_have = ring.look(attachment, index).is_err() || flags(ring, index) & MESSAGE_HANDLES != 0;
            handles |= ring.has_extents() && may_have;
        }
        ring.free_extent(attachment, index);
    }
    for name in ring.growth().into_iter().flat_map(|growth| growth.names()) {
        attachment.free_extent(name);
        failpoint!("queue.chunk_freed");
    }
    handles
}

/// The message flags of a block, stale if it holds none.
fn flags(ring: &Ring, index: u32) -> u32 {
    let meta = ring.payload(index).cast::<BlockMeta>();
    crate::segment::atomic!(meta, flags).load(Ordering::Relaxed)
}
