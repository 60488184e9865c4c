//! The bodies of the objects. Each starts with an [`ObjectHeader`]; its payload follows the struct.

use crate::atomic::{AtomicU32, AtomicU64};

constants! { CONSTANTS:
    /// Longest element name in bytes; longer ones are cut, the hash decides.
    ELEMENT_NAME: u32 = 40;
    /// Longest PEP 3118 format in bytes; a longer one is left out.
    ELEMENT_FORMAT: u32 = 48;
    /// Queue flag: what a dead consumer held is dropped, not delivered again.
    QUEUE_AT_MOST_ONCE: u32 = 1;
    /// State of a queue: it takes messages.
    QUEUE_OPEN: u32 = 0;
    /// State of a queue: it takes no more messages; those that are in it are still got.
    QUEUE_CLOSED: u32 = 1;
    /// State of a queue: it takes no more messages, and those that are in it are thrown away.
    QUEUE_SHUT_DOWN: u32 = 2;
    /// Somebody has been a producer and nothing else: when nobody is any more, the queue is at its end.
    QUEUE_HAD_PRODUCER: u32 = 1;
    /// Somebody has been a consumer and nothing else: when nobody is any more, putting is a broken pipe.
    QUEUE_HAD_CONSUMER: u32 = 2;
    /// Message tag: nothing, 0 bytes.
    TAG_NONE: u32 = 0;
    /// Message tag: a truth value, 1 byte.
    TAG_BOOL: u32 = 1;
    /// Message tag: a signed integer, 8 bytes.
    TAG_I64: u32 = 2;
    /// Message tag: a floating-point number, 8 bytes.
    TAG_F64: u32 = 3;
    /// Message tag: text in UTF-8.
    TAG_UTF8: u32 = 4;
    /// Message tag: bytes.
    TAG_BYTES: u32 = 5;
    /// Message tag: one plain-data element.
    TAG_POD: u32 = 6;
    /// Message tag: serialised with postcard.
    TAG_POSTCARD: u32 = 7;
    /// Message flag: the payload names objects.
    MESSAGE_HANDLES: u32 = 1;
    /// Barrier: parties arrive.
    BARRIER_FILLING: u32 = 0;
    /// Barrier: all have arrived, its owner runs the action.
    BARRIER_ACTION: u32 = 1;
    /// Barrier: passed; those who were in the round leave.
    BARRIER_DRAINING: u32 = 2;
    /// Barrier: reset; those who were in the round leave.
    BARRIER_RESETTING: u32 = 3;
    /// Barrier: broken; the owner field is `BROKEN_…`.
    BARRIER_BROKEN: u32 = 4;
    /// Broken by `abort`.
    BROKEN_ABORT: u32 = 0;
    /// Broken by a party that did not wait any longer.
    BROKEN_TIME_OUT: u32 = 1;
    /// Broken by an action that failed.
    BROKEN_ACTION: u32 = 2;
    /// Broken by the death of a party.
    BROKEN_DEATH: u32 = 3;
    /// Role of an ordinary holder.
    ROLE_USER: u32 = 0;
    /// Role of a pipe's sending end, of a connection's first end, and of a queue's producer.
    ROLE_FIRST: u32 = 1;
    /// Role of a pipe's receiving end, of a connection's second end, and of a queue's consumer.
    ROLE_SECOND: u32 = 2;
    /// End of a pipe: nobody has had it yet.
    END_NEW: u32 = 0;
    /// End of a pipe: closed for good.
    END_CLOSED: u32 = 1;
    /// End of a pipe: somebody has it or had it; its reference cells say which.
    END_USED: u32 = 2;
}

layout! {
    /// The start of every object's body. Written before the object is published and never again.
    struct ObjectHeader: 128 bytes, aligned 64 {
        /// `KIND_…`.
        0 => kind: u32,
        /// Layout version of this kind: major in the high half, minor in the low half.
        4 => layout: u32,
        /// Bytes of the body with this header.
        8 => length: u64,
        /// Structural hash of the element type; 0 where there is none.
        16 => element_hash: u64,
        /// Bytes of an element.
        24 => element_size: u32,
        /// Alignment of an element in bytes.
        28 => element_align: u32,
        /// Name of the element type, UTF-8, padded with zeros.
        32 => element_name: [u8; 40],
        /// Its PEP 3118 format, padded with zeros; empty if it is longer.
        72 => element_format: [u8; 48],
        /// Zero.
        120 => reserved: u64,
    }

    /// Lock, or mutex with its data at byte 192 of the body.
    struct MutexBody: 64 bytes, aligned 64 {
        /// `contended:1 | recover:1 | generation:18 | slot:12`, 0 when free.
        0 => word: AtomicU32,
        /// Zero.
        4 => reserved: [AtomicU32; 15],
    }

    /// Re-entrant lock.
    struct RLockBody: 64 bytes, aligned 64 {
        /// Mutex word: the process that holds it.
        0 => word: AtomicU32,
        /// How often the owner holds it beyond the first time. Written by the owner only.
        4 => depth: AtomicU32,
        /// Which thread of that process: its token in the low half, the thread's ordinal in the high half. Written by the
        /// owner only; void unless the token is the word's.
        8 => thread: AtomicU64,
        /// Zero.
        16 => reserved: [AtomicU32; 12],
    }

    /// Lock for many readers or one writer. Its data are at byte 192 of the body.
    struct RwLockBody: 64 bytes, aligned 64 {
        /// Mutex word of the writers.
        0 => word: AtomicU32,
        /// Wait word of the readers: the writer has left.
        4 => released: AtomicU32,
        /// Wait word of the writer that has the lock word: a reader has left.
        8 => drained: AtomicU32,
        /// Slots from this one on have never had readers. Grows only.
        12 => high: AtomicU32,
        /// Offset of the counts from the start of this struct, behind the data.
        16 => readers_offset: u64,
        /// Counts: one for each slot of the registry.
        24 => readers: u32,
        /// Zero.
        28 => reserved: [u32; 9],
    }

    /// How many readers the process in one slot has. On a line of its own: written by that process and by its recovery only.
    struct ReaderCount: 64 bytes, aligned 64 {
        /// The count in the low half, the process's token in the high half; void unless the token is the slot's present one.
        0 => word: AtomicU64,
        /// Zero.
        8 => reserved: [AtomicU64; 7],
    }

    /// Counting semaphore.
    struct SemaphoreBody: 64 bytes, aligned 64 {
        /// Permits left.
        0 => count: AtomicU32,
        /// Wait word.
        4 => event: AtomicU32,
        /// The most permits there may be.
        8 => maximum: u32,
        /// Zero.
        12 => reserved: [AtomicU32; 13],
    }

    /// Event.
    struct EventBody: 64 bytes, aligned 64 {
        /// 1 when set.
        0 => set: AtomicU32,
        /// Wait word.
        4 => event: AtomicU32,
        /// Zero.
        8 => reserved: [AtomicU32; 14],
    }

    /// Semaphore whose permits have owners. One u32 for each permit, the holder's token or 0, follows: at byte 192 of the body.
    struct PermitsBody: 64 bytes, aligned 64 {
        /// How many permits there are.
        0 => permits: u32,
        /// Wait word.
        4 => event: AtomicU32,
        /// Zero.
        8 => reserved: [AtomicU32; 14],
    }

    /// Something that is done once.
    struct OnceBody: 64 bytes, aligned 64 {
        /// Mutex word of who does it.
        0 => word: AtomicU32,
        /// 1 when it is done.
        4 => done: AtomicU32,
        /// Wait word: it is done.
        8 => event: AtomicU32,
        /// Zero.
        12 => reserved: [AtomicU32; 13],
    }

    /// Condition. It begins as an `RLockBody`: its own lock. Its first waiter records are at byte 256 of the body.
    struct ConditionBody: 128 bytes, aligned 64 {
        /// Mutex word of its own lock.
        0 => word: AtomicU32,
        /// As in `RLockBody`.
        4 => depth: AtomicU32,
        /// As in `RLockBody`.
        8 => thread: AtomicU64,
        /// Zero.
        16 => reserved0: [AtomicU32; 12],
        /// The ticket of the next one who waits. Written by the lock's owner only.
        64 => tickets: AtomicU64,
        /// Further waiter records: [`crate::words::ExtentRef`] of a `ConditionChunk`, or 0.
        72 => more: AtomicU64,
        /// Waiter records that follow this struct.
        80 => waiters: u32,
        /// `KIND_…` of the lock it is used with; 0 for its own.
        84 => lock_kind: u32,
        /// Entry of that lock in the table of objects.
        88 => lock_index: u32,
        /// Generation of that entry.
        92 => lock_generation: u32,
        /// Zero.
        96 => reserved1: [u64; 4],
    }

    /// Further waiter records of a condition: seven follow.
    struct ConditionChunk: 32 bytes, aligned 32 {
        /// The next chunk: [`crate::words::ExtentRef`] or 0.
        0 => more: AtomicU64,
        /// Zero.
        8 => reserved: [u64; 3],
    }

    /// One who waits at a condition.
    struct ConditionWaiter: 32 bytes, aligned 32 {
        /// Who, and whether it was notified: [`crate::words::Waiter`].
        0 => word: AtomicU64,
        /// The lower one is notified first. Written by the waiter only.
        8 => ticket: AtomicU64,
        /// Wait word of this waiter alone.
        16 => event: AtomicU32,
        /// Zero.
        20 => reserved: [AtomicU32; 3],
    }

    /// Barrier. The arrival words ([`crate::words::Arrival`]), one for each party, are at byte 192 of the body.
    struct BarrierBody: 64 bytes, aligned 64 {
        /// Round and phase: [`crate::words::BarrierState`].
        0 => state: AtomicU64,
        /// Wait word: the state changed, or an arrival word is free.
        8 => event: AtomicU32,
        /// How many parties there are.
        12 => parties: u32,
        /// How long a party waits unless it says otherwise, in nanoseconds; 0 for ever.
        16 => timeout_ns: u64,
        /// Zero.
        24 => reserved: [u64; 5],
    }

    /// Bounded queue for many producers and consumers: an index ring over a pool of owned blocks.
    struct QueueBody: 512 bytes, aligned 128 {
        /// Messages it can hold.
        0 => capacity: u32,
        /// Slots of the ring: a power of two, at least 64.
        4 => ring: u32,
        /// Blocks.
        8 => blocks: u32,
        /// Bytes from one block's payload to the next.
        12 => stride: u32,
        /// Offset of the ring's slots from the start of this struct. Position p has slot s(p mod `ring`), where s swaps the bits 0 to 2
        /// with the bits 3 to 5.
        16 => slots_offset: u64,
        /// Offset of the block words.
        24 => words_offset: u64,
        /// Offset of the blocks' extents, one `ExtentRef` or 0 each; 0 where no message can be longer than its block.
        32 => extents_offset: u64,
        /// Offset of the payloads; 0 where they lie in chunks. Where there are extents, each starts with a `BlockMeta`.
        40 => payload_offset: u64,
        /// `QUEUE_…`.
        48 => flags: u32,
        /// Blocks whose payloads lie in one chunk; 0 where there are no chunks.
        52 => chunk_blocks: u32,
        /// Offset of the chunks, one `ExtentRef` or 0 each; 0 where there are none.
        56 => chunks_offset: u64,
        /// Zero.
        64 => reserved0: [u32; 16],
        /// Position of the next message to put.
        128 => tail: AtomicU64,
        /// Zero.
        136 => reserved1: [u64; 15],
        /// Position of the next message to get.
        256 => head: AtomicU64,
        /// Zero.
        264 => reserved2: [u64; 15],
        /// Wait word: not empty.
        384 => not_empty: AtomicU32,
        /// Goes up whenever recovery leaves a block to be delivered again.
        388 => requeue: AtomicU32,
        /// `QUEUE_OPEN`, `QUEUE_CLOSED` or `QUEUE_SHUT_DOWN`; only ever grows.
        392 => closed: AtomicU32,
        /// Wait word: every message is done (joinable queues).
        396 => all_done: AtomicU32,
        /// `QUEUE_HAD_…`.
        400 => roles: AtomicU32,
        /// Zero.
        404 => reserved3: [AtomicU32; 11],
        /// Wait word: not full.
        448 => not_full: AtomicU32,
        /// Wait word: a block is free.
        452 => block_free: AtomicU32,
        /// Zero.
        456 => reserved4: [AtomicU32; 14],
    }

    /// The start of a block's payload in a queue of serialised messages; the message follows if it fits the block.
    /// Written by the block's owner only.
    struct BlockMeta: 16 bytes, aligned 8 {
        /// Bytes of the message: beside this in the block, or in the block's extent if they do not fit.
        0 => len: AtomicU64,
        /// `TAG_…`.
        8 => tag: AtomicU32,
        /// `MESSAGE_…`.
        12 => flags: AtomicU32,
    }

    /// One queue of messages for each direction.
    struct ConnectionBody: 64 bytes, aligned 64 {
        /// Offset from the start of this struct of the `QueueBody` from the first end to the second; 0 if there is none.
        0 => first: u64,
        /// Offset of the `QueueBody` from the second end to the first.
        8 => second: u64,
        /// 1 if messages go both ways; 0 if only from the second end to the first.
        16 => duplex: u32,
        /// Zero.
        20 => reserved: [u32; 11],
    }

    /// Where connections are asked for: a queue of connections' second ends for whoever listens.
    struct ListenerBody: 64 bytes, aligned 64 {
        /// Offset of the `QueueBody` from the start of this struct.
        0 => queue: u64,
        /// Token of whoever listens, or 0.
        8 => owner: AtomicU32,
        /// Zero.
        12 => reserved: [AtomicU32; 13],
    }

    /// Ring between one sender and one receiver.
    struct PipeBody: 512 bytes, aligned 128 {
        /// Elements it can hold: a power of two.
        0 => capacity: u32,
        /// Bytes from one element to the next.
        4 => stride: u32,
        /// Offset of the elements from the start of this struct.
        8 => elements_offset: u64,
        /// Zero.
        16 => reserved0: [u64; 14],
        /// Elements sent.
        128 => tail: AtomicU64,
        /// Token of the process that sends; 0 for none.
        136 => sender: AtomicU32,
        /// `END_…` of the sending end.
        140 => sender_state: AtomicU32,
        /// Zero.
        144 => reserved1: [u64; 14],
        /// Elements received.
        256 => head: AtomicU64,
        /// Token of the process that receives; 0 for none.
        264 => receiver: AtomicU32,
        /// `END_…` of the receiving end.
        268 => receiver_state: AtomicU32,
        /// Zero.
        272 => reserved2: [u64; 14],
        /// Wait word: not empty.
        384 => not_empty: AtomicU32,
        /// Not 0 when a holder of the receiving end has left: the sender looks whether there is any, and clears it. A hint.
        388 => receiver_left: AtomicU32,
        /// Zero.
        392 => reserved3: [AtomicU32; 14],
        /// Wait word: not full.
        448 => not_full: AtomicU32,
        /// Zero.
        452 => reserved4: [AtomicU32; 15],
    }

    /// Value. Up to 8 bytes: the value itself in `word`. Larger: two copies at byte 192 of the body, each rounded up to 8 bytes,
    /// and `word` is twice the sequence plus 1 while somebody writes.
    struct ValueBody: 64 bytes, aligned 64 {
        /// Mutex word of the writers.
        0 => lock: AtomicU32,
        /// Zero.
        4 => reserved0: AtomicU32,
        /// The value, or its sequence.
        8 => word: AtomicU64,
        /// Zero.
        16 => reserved: [u64; 6],
    }

    /// Array. The elements are at byte 192 of the body.
    struct ArrayBody: 64 bytes, aligned 64 {
        /// Mutex word.
        0 => lock: AtomicU32,
        /// 1 while the lock's owner changes elements in a way that shows half done. Written by the owner only.
        4 => dirty: AtomicU32,
        /// Elements.
        8 => len: u64,
        /// Zero.
        16 => reserved: [u64; 6],
    }

    /// What a child is started with and what it says at its end. The arguments follow.
    struct SpawnBody: 1088 bytes, aligned 64 {
        /// 0 before the child has read its arguments, 1 after, 2 when it said how it ended.
        0 => state: AtomicU32,
        /// Bytes of the message.
        4 => message_len: AtomicU32,
        /// Bytes of the arguments.
        8 => args_len: u64,
        /// Wait word: the state changed.
        16 => event: AtomicU32,
        /// Zero.
        20 => reserved: [u32; 11],
        /// Why it ended: a panic's message and place, or an error's text; UTF-8.
        64 => message: [AtomicU64; 128],
    }

    /// A pool's table: the tasks that are under way, and the workers.
    struct PoolBody: 64 bytes, aligned 64 {
        /// Task words.
        0 => tasks: u32,
        /// Workers.
        4 => workers: u32,
        /// Offset of the task words ([`crate::words::Task`]) from the start of this struct.
        8 => tasks_offset: u64,
        /// Offset of the `PoolWorker` rows.
        16 => workers_offset: u64,
        /// 1 once the workers are to end: the pool is closed and everything done.
        24 => stop: AtomicU32,
        /// Zero.
        28 => reserved: u32,
        /// Offset of the shares ([`crate::words::Share`]), one for each task word.
        32 => shares_offset: u64,
        /// Offset of the `PoolRun`s, one for each worker.
        40 => runs_offset: u64,
        /// Zero.
        48 => reserved_2: [u64; 2],
    }

    /// One worker. Written by that worker, and cleared by the pool before it is started.
    struct PoolWorker: 64 bytes, aligned 64 {
        /// Its token, or 0 before it has said.
        0 => token: AtomicU32,
        /// `WORKER_…`.
        4 => state: AtomicU32,
        /// Tasks it has ended.
        8 => done: AtomicU64,
        /// When the task it runs must have ended, on the monotonic clock in nanoseconds.
        16 => deadline: AtomicU64,
        /// The task it runs, if that has a deadline: generation (32 bits) and word plus one (32 bits); else 0.
        24 => current: AtomicU64,
        /// Zero.
        32 => reserved: [AtomicU64; 4],
    }

    /// What came of the tasks of the run that a worker is at, as far as it has not sent that. Written by that worker.
    struct PoolRun: 2048 bytes, aligned 64 {
        /// The run: generation (32 bits) and word plus one (32 bits); 0 if there is none.
        0 => name: AtomicU64,
        /// Which outcomes are there: [`crate::words::Published`].
        8 => published: AtomicU64,
        /// The outcomes, one after the other: of each its length and its bytes, as they are sent.
        16 => outcomes: [AtomicU64; 254],
    }
}
