//! The kinds of objects: the number in [`crate::segment::ObjectEntry::kind`] and in each object's header.

constants! { CONSTANTS:
    /// A lock without data.
    KIND_LOCK: u32 = 1;
    /// A re-entrant lock.
    KIND_RLOCK: u32 = 2;
    /// A lock with the data it guards.
    KIND_MUTEX: u32 = 3;
    /// A counting semaphore.
    KIND_SEMAPHORE: u32 = 4;
    /// An event.
    KIND_EVENT: u32 = 5;
    /// A queue of serialised messages.
    KIND_QUEUE: u32 = 6;
    /// A queue of plain-data elements that lie in their blocks.
    KIND_POD_QUEUE: u32 = 7;
    /// A two-ended pipe of plain-data elements.
    KIND_PIPE: u32 = 8;
    /// A connection: messages both ways.
    KIND_CONNECTION: u32 = 9;
    /// A value.
    KIND_VALUE: u32 = 10;
    /// An array.
    KIND_ARRAY: u32 = 11;
    /// What a child process is started with, and what it says at its end.
    KIND_SPAWN: u32 = 12;
    /// The workers of a pool and the tasks they hold.
    KIND_POOL: u32 = 13;
    /// A semaphore whose permits have owners.
    KIND_PERMITS: u32 = 20;
    /// A lock for many readers or one writer, with the data it guards.
    KIND_RWLOCK: u32 = 21;
    /// A condition.
    KIND_CONDITION: u32 = 22;
    /// A barrier.
    KIND_BARRIER: u32 = 23;
    /// Something that is done once.
    KIND_ONCE: u32 = 24;
    /// A dict.
    KIND_DICT: u32 = 32;
    /// A list.
    KIND_LIST: u32 = 33;
    /// A dict in parts, for many writers.
    KIND_SHARDED_DICT: u32 = 34;
    /// Named values of any types: a dict with names as keys.
    KIND_NAMESPACE: u32 = 35;
    /// A counter in stripes.
    KIND_COUNTER: u32 = 36;
    /// Text, bytes or elements that never change.
    KIND_FROZEN: u32 = 37;
    /// Boxes of a user's, and the roots that lead to them.
    KIND_HEAP: u32 = 38;
    /// A queue of serialised messages that are in it until they are done.
    KIND_JOINABLE_QUEUE: u32 = 40;
    /// Where connections are asked for by name.
    KIND_LISTENER: u32 = 41;
}

/// The name of a kind for messages, or `"unknown"`.
pub const fn name(kind: u32) -> &'static str {
    match kind {
        KIND_LOCK => "lock",
        KIND_RLOCK => "rlock",
        KIND_MUTEX => "mutex",
        KIND_SEMAPHORE => "semaphore",
        KIND_EVENT => "event",
        KIND_QUEUE => "queue",
        KIND_POD_QUEUE => "pod queue",
        KIND_PIPE => "pipe",
        KIND_CONNECTION => "connection",
        KIND_VALUE => "value",
        KIND_ARRAY => "array",
        KIND_SPAWN => "spawn record",
        KIND_POOL => "pool",
        KIND_PERMITS => "permit semaphore",
        KIND_RWLOCK => "rwlock",
        KIND_CONDITION => "condition",
        KIND_BARRIER => "barrier",
        KIND_ONCE => "once",
        KIND_DICT => "dict",
        KIND_LIST => "list",
        KIND_SHARDED_DICT => "sharded dict",
        KIND_NAMESPACE => "namespace",
        KIND_COUNTER => "counter",
        KIND_FROZEN => "frozen value",
        KIND_HEAP => "heap",
        KIND_JOINABLE_QUEUE => "joinable queue",
        KIND_LISTENER => "listener",
        _ => "unknown",
    }
}
