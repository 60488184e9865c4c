//! Every error shmkit can give: one enum per area under [`Error`], each with a stable number.

use crate::sys::SysError;
use std::time::Duration;

/// `Result` with [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error of shmkit.
///
/// [`Error::code`] is a stable number, the same in every language.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A segment or an object in it could not be made, found or used.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A lock or another thing one waits for.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// A queue, pipe or connection.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A task of a pool.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A dict, list or another container.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The operating system refused something it should not refuse.
    #[error(transparent)]
    Os(#[from] SysError),
    /// Whatever the user's own function returned.
    #[error("{0}")]
    Other(String),
}

/// Errors of segments, their directory and their memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// A segment of this name exists.
    #[error("segment {name:?} exists already: open it, or remove it with `shmkit rm {name}`")]
    Exists {
        /// The name.
        name: String,
    },
    /// There is no segment of this name.
    #[error("there is no segment {name:?}: create it first, or look at `shmkit ls`")]
    NotFound {
        /// The name.
        name: String,
    },
    /// A name that cannot be used.
    #[error("{name:?} cannot be a name: {why}")]
    InvalidName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The segment belongs to another user.
    #[error(
        "segment {name:?} belongs to user {found}, not to user {expected}: open it with `trust_owner` if that user is trusted"
    )]
    WrongOwner {
        /// The name.
        name: String,
        /// Its owner's user id.
        found: u32,
        /// The user id that was expected.
        expected: u32,
    },
    /// The segment's file has permissions that let strangers write.
    #[error("segment {name:?} has mode {found:o}: everybody may write to it")]
    WrongMode {
        /// The name.
        name: String,
        /// The file's permission bits.
        found: u32,
    },
    /// The file is something else.
    #[error("{name:?} is not a shmkit segment: {why}")]
    NotASegment {
        /// The name.
        name: String,
        /// What gives it away.
        why: &'static str,
    },
    /// The segment or object was made by a version of shmkit this one does not know.
    #[error("{what} has layout version {found}; this program knows {supported}: update it")]
    NewerLayout {
        /// The segment or object.
        what: String,
        /// Its version.
        found: u32,
        /// The highest this program knows.
        supported: u32,
    },
    /// Something in the segment cannot be.
    #[error("the segment is corrupt: {what} at offset {offset} reads {found:#x}")]
    Corrupt {
        /// What was looked at.
        what: &'static str,
        /// Where, in bytes from the start of the segment.
        offset: u64,
        /// What was found.
        found: u64,
    },
    /// An object of that name is of another kind.
    #[error("object {name:?} is a {found}, not a {wanted}")]
    WrongKind {
        /// The name.
        name: String,
        /// Its kind.
        found: &'static str,
        /// The kind that was asked for.
        wanted: &'static str,
    },
    /// An object of that name holds elements of another type.
    #[error("object {name:?} holds elements of type {found}, not {wanted}")]
    WrongElement {
        /// The name.
        name: String,
        /// Its element type.
        found: String,
        /// The element type that was asked for.
        wanted: String,
    },
    /// An object of that name exists.
    #[error("object {name:?} exists already in the segment: open it, or use `open_or_create`")]
    ObjectExists {
        /// The name.
        name: String,
    },
    /// There is no object of that name.
    #[error("there is no object {name:?} in the segment")]
    ObjectNotFound {
        /// The name.
        name: String,
    },
    /// The object was destroyed: nobody held it any more.
    #[error("the object is gone: its last holder dropped it or died")]
    Gone,
    /// There is not enough memory.
    #[error("out of shared memory: {needed} bytes needed, {free} free: {hint}")]
    OutOfMemory {
        /// Bytes that were needed.
        needed: u64,
        /// Bytes there are.
        free: u64,
        /// What to do.
        hint: &'static str,
    },
    /// The address space cannot be reserved.
    #[error(
        "cannot reserve {needed} bytes of address space: raise the limit (`ulimit -v`) or create the segment with a smaller `max_size`"
    )]
    AddressSpace {
        /// Bytes that were needed.
        needed: u64,
    },
    /// Every slot of the registry is taken by a live process.
    #[error("the segment has {max} participants already: create it with a larger `max_participants`")]
    TooManyParticipants {
        /// How many there can be.
        max: u32,
    },
    /// The table of objects is full.
    #[error("the segment has {max} objects already: drop some, or spread them over several segments")]
    TooManyObjects {
        /// How many there can be.
        max: u32,
    },
    /// A handle was serialised where nobody would keep its object alive.
    #[error("a handle can be serialised only as an argument of a process or in a message of the same segment")]
    HandleOutsideSend,
    /// A size that cannot be.
    #[error("{what} cannot be {found}: {why}")]
    InvalidSize {
        /// What it is the size of.
        what: &'static str,
        /// The size.
        found: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An index or the end of a range lies behind the end.
    #[error("index {index} is out of range: there are {len} elements")]
    OutOfRange {
        /// The index, or the end of the range.
        index: u64,
        /// Elements there are.
        len: u64,
    },
}

/// Whom one waited for in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Name of the process.
    pub name: String,
    /// `"running"`, `"stopped"`, `"a zombie"`, `"dead"` or `"unknown"`.
    pub state: &'static str,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({:?}, {})", self.pid, self.name, self.state)
    }
}

fn held_by(holder: &Option<Holder>) -> String {
    holder.as_ref().map_or_else(String::new, |holder| format!("; it is held by {holder}"))
}

/// Errors of locks, semaphores and events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The time was up.
    #[error("timed out after {waited:?} waiting for a {what}{}", held_by(.holder))]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        waited: Duration,
        /// Who has it.
        holder: Option<Holder>,
    },
    /// It cannot be had at once.
    #[error("the {what} is taken{}", held_by(.holder))]
    WouldBlock {
        /// What was asked for.
        what: &'static str,
        /// Who has it.
        holder: Option<Holder>,
    },
    /// Its last owner died or panicked inside: the data may be half changed.
    #[error("the lock's last owner died while holding it: repair what it guards with `repair`")]
    OwnerDied,
    /// An owner died and whoever found that did not repair the data.
    #[error("the lock is poisoned: an owner died inside and nobody repaired what it guards")]
    Poisoned,
    /// Released by somebody who does not hold it.
    #[error("the {what} is not held by {by}")]
    NotOwner {
        /// What was released.
        what: &'static str,
        /// Who tried to.
        by: &'static str,
    },
    /// More permits than there may be.
    #[error("a semaphore of at most {maximum} permits cannot have {asked}")]
    TooManyPermits {
        /// Its maximum.
        maximum: u32,
        /// What it would have had.
        asked: u64,
    },
    /// Locked by this thread already.
    #[error("the lock is held by this thread already: waiting for it would never end")]
    Deadlock,
    /// The barrier is broken, or was while this party waited.
    #[error("the barrier is broken: {cause}; `reset` makes it whole")]
    BrokenBarrier {
        /// Why.
        cause: &'static str,
    },
    /// A condition and its lock lie in different segments.
    #[error("the lock lies in another segment than its condition: create the condition in the lock's segment")]
    OtherSegment,
    /// The program has ended the wait: see [`crate::sync::set_interrupt_check`].
    #[error("the wait was interrupted by a signal")]
    Interrupted,
}

/// Errors of queues, pipes and connections.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// There is no room, at once or in time.
    #[error("the {what} is full")]
    Full {
        /// Which channel.
        what: &'static str,
    },
    /// There is nothing in it, at once or in time.
    #[error("the {what} is empty")]
    Empty {
        /// Which channel.
        what: &'static str,
    },
    /// Somebody closed it.
    #[error("the {what} is closed")]
    Closed {
        /// Which channel.
        what: &'static str,
    },
    /// Nothing is left and nobody can send any more.
    #[error("end of file: nothing is left and every sender is closed or dead")]
    EndOfFile,
    /// Nobody is left who could receive it.
    #[error("broken pipe: every receiver is closed or dead")]
    BrokenPipe,
    /// The message is longer than the receiver takes. It is in `message`.
    #[error("the message has {} bytes, more than the {maximum} asked for", .message.len())]
    TooLong {
        /// The message, whole.
        message: Vec<u8>,
        /// The most bytes the receiver takes.
        maximum: usize,
    },
    /// The message can never fit.
    #[error("a message of {size} bytes does not fit: the segment can hold {maximum}")]
    TooLarge {
        /// Bytes of the message.
        size: u64,
        /// The most there can be.
        maximum: u64,
    },
    /// Sending or receiving is another process's role.
    #[error("the {end} end is in use by process {pid}: an end of a pipe belongs to one process at a time")]
    EndTaken {
        /// Which end.
        end: &'static str,
        /// By whom.
        pid: u32,
    },
    /// Receiving from a send-only end, or the reverse.
    #[error("this end can only {can}")]
    WrongDirection {
        /// What it can do.
        can: &'static str,
    },
    /// A value that serde could not write, or bytes it could not read.
    #[error("cannot {action} the message: {why}")]
    Codec {
        /// `"write"` or `"read"`.
        action: &'static str,
        /// What serde said.
        why: String,
    },
    /// Somebody shut it down at once: what was in it is gone.
    #[error("the {what} is shut down")]
    ShutDown {
        /// Which channel.
        what: &'static str,
    },
    /// More messages were said to be done than this process has got.
    #[error("task_done was called more often than this process got messages")]
    TooManyDone,
    /// The other side does not know the same key.
    #[error("authentication failed: {why}")]
    Authentication {
        /// What was wrong.
        why: &'static str,
    },
    /// Somebody listens under that name already.
    #[error("process {pid} listens as {name:?} already: close its listener, or use another name")]
    NameInUse {
        /// The name.
        name: String,
        /// Who listens.
        pid: u32,
    },
    /// Nobody listens under that name.
    #[error("nobody listens as {name:?}")]
    Refused {
        /// The name.
        name: String,
    },
}

/// Errors of processes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The process could not be started.
    #[error("cannot start process {name:?}: {why}")]
    Start {
        /// Its name.
        name: String,
        /// What went wrong.
        why: String,
    },
    /// It runs still.
    #[error("process {name:?} (pid {pid}) is still running: join or kill it first")]
    Running {
        /// Its name.
        name: String,
        /// Its process id.
        pid: u32,
    },
    /// The handle was closed.
    #[error("the process handle is closed")]
    Closed,
    /// The time was up.
    #[error("process {name:?} (pid {pid}) had not ended after {waited:?}")]
    TimedOut {
        /// Its name.
        name: String,
        /// Its process id.
        pid: u32,
        /// For how long one waited.
        waited: Duration,
    },
    /// Only the process that started it can wait for it.
    #[error(
        "process {name:?} (pid {pid}) is a child of process {parent}, not of this one: only its parent can join it"
    )]
    NotChild {
        /// Its name.
        name: String,
        /// Its process id.
        pid: u32,
        /// The process that started it.
        parent: u32,
    },
    /// The start method was chosen before.
    #[error(
        "the start method is {method} already: it is chosen once for the program; a builder's `start_method` is free"
    )]
    MethodFixed {
        /// The chosen one.
        method: crate::process::StartMethod,
    },
    /// It ended, but not with a success.
    #[error("process {name:?} failed: {how}")]
    Failed {
        /// Its name.
        name: String,
        /// Exit code or signal, and what it said.
        how: String,
    },
}

/// Errors of dicts, lists and other containers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A key or value that serde could not write, or bytes it could not read as the type that was asked for.
    #[error("cannot {action}: {why}")]
    Codec {
        /// `"write the key"`, `"write the value"`, `"read the key"` or `"read the value"`.
        action: &'static str,
        /// What serde said.
        why: String,
    },
    /// Somebody added or removed elements while one iterated.
    #[error("the {what} changed its size while it was iterated: iterate over a snapshot instead")]
    SizeChanged {
        /// Which container.
        what: &'static str,
    },
    /// A key or value that is too long.
    #[error("a {what} of {size} bytes is too long: {maximum} is the most")]
    TooLarge {
        /// `"key"` or `"value"`.
        what: &'static str,
        /// Bytes of it.
        size: u64,
        /// The most there can be.
        maximum: u64,
    },
    /// More values with handles in them than a container can keep track of.
    #[error("a container can hold {maximum} values with handles: use several containers")]
    TooManyHandles {
        /// The most there can be.
        maximum: u32,
    },
}

/// Why a task of a pool has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The worker that ran it died.
    #[error("worker process {pid} died running task {task} ({}{})", describe_death(*.signal, *.exit_code),
        if *.out_of_memory { ": the system ran out of memory" } else { "" })]
    WorkerDied {
        /// Process id of the worker; 0 if it died before it could say.
        pid: u32,
        /// The signal that killed it.
        signal: Option<i32>,
        /// The exit code it ended with.
        exit_code: Option<i32>,
        /// The task.
        task: u64,
        /// The most memory it had, in bytes, if the system said so; what the pool's process had when it started the worker counts,
        /// too, unless a fork server started it.
        peak_rss: Option<u64>,
        /// Whether the kernel killed it because memory ran out, as far as its control group, or else the system, says so.
        out_of_memory: bool,
    },
    /// The task panicked.
    #[error("task {task} panicked: {message}")]
    Panicked {
        /// The panic's message and place.
        message: String,
        /// The task.
        task: u64,
    },
    /// The arguments or the result could not be serialised, or there was no room for them.
    #[error("cannot {action} of task {task}: {why}")]
    Codec {
        /// `"write the arguments"`, `"read the arguments"`, `"write the result"` or `"read the result"`.
        action: &'static str,
        /// What serde, or the channel, said.
        why: String,
        /// The task.
        task: u64,
    },
    /// The pool was closed or terminated.
    #[error("the pool is {state}: it takes no more tasks")]
    PoolClosed {
        /// `"closed"` or `"terminated"`; `"another process's"` in a copy of the pool's process.
        state: &'static str,
    },
    /// The time was up.
    #[error("the result was not there after {waited:?}")]
    TimedOut {
        /// For how long one waited.
        waited: Duration,
    },
    /// The pool was neither closed nor terminated.
    #[error("the pool is open: close or terminate it before joining it")]
    PoolOpen,
    /// The task was cancelled.
    #[error("task {task} was cancelled")]
    Cancelled {
        /// The task.
        task: u64,
    },
    /// The task ran for longer than it was allowed.
    #[error("task {task} did not end within {limit:?}")]
    DeadlineExceeded {
        /// The task.
        task: u64,
        /// How long it may run.
        limit: Duration,
    },
    /// The result was taken before.
    #[error("the result was taken already: it is given once")]
    Taken,
    /// Workers keep dying before they take a task.
    #[error("the pool is broken: its workers do not start: {why}")]
    BrokenPool {
        /// What the last one said.
        why: String,
    },
}

fn describe_death(signal: Option<i32>, exit_code: Option<i32>) -> String {
    match (signal, exit_code) {
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "cause unknown".to_owned(),
    }
}

impl Error {
    /// A stable number for this error: the area in the hundreds, the same in every language.
    pub fn code(&self) -> u32 {
        match self {
            Error::Segment(error) => {
                100 + match error {
                    SegmentError::Exists { .. } => 1,
                    SegmentError::NotFound { .. } => 2,
                    SegmentError::InvalidName { .. } => 3,
                    SegmentError::WrongOwner { .. } => 4,
                    SegmentError::WrongMode { .. } => 5,
                    SegmentError::NotASegment { .. } => 6,
                    SegmentError::NewerLayout { .. } => 7,
                    SegmentError::Corrupt { .. } => 8,
                    SegmentError::WrongKind { .. } => 9,
                    SegmentError::WrongElement { .. } => 10,
                    SegmentError::ObjectExists { .. } => 11,
                    SegmentError::ObjectNotFound { .. } => 12,
                    SegmentError::Gone => 13,
                    SegmentError::OutOfMemory { .. } => 14,
                    SegmentError::AddressSpace { .. } => 15,
                    SegmentError::TooManyParticipants { .. } => 16,
                    SegmentError::TooManyObjects { .. } => 17,
                    SegmentError::HandleOutsideSend => 18,
                    SegmentError::InvalidSize { .. } => 19,
                    SegmentError::OutOfRange { .. } => 20,
                }
            }
            Error::Sync(error) => {
                200 + match error {
                    SyncError::TimedOut { .. } => 1,
                    SyncError::WouldBlock { .. } => 2,
                    SyncError::OwnerDied => 3,
                    SyncError::Poisoned => 4,
                    SyncError::NotOwner { .. } => 5,
                    SyncError::TooManyPermits { .. } => 6,
                    SyncError::Deadlock => 7,
                    SyncError::Interrupted => 8,
                    SyncError::BrokenBarrier { .. } => 9,
                    SyncError::OtherSegment => 10,
                }
            }
            Error::Channel(error) => {
                300 + match error {
                    ChannelError::Full { .. } => 1,
                    ChannelError::Empty { .. } => 2,
                    ChannelError::Closed { .. } => 3,
                    ChannelError::EndOfFile => 4,
                    ChannelError::BrokenPipe => 5,
                    ChannelError::TooLong { .. } => 6,
                    ChannelError::TooLarge { .. } => 7,
                    ChannelError::EndTaken { .. } => 8,
                    ChannelError::WrongDirection { .. } => 9,
                    ChannelError::Codec { .. } => 10,
                    ChannelError::ShutDown { .. } => 11,
                    ChannelError::TooManyDone => 12,
                    ChannelError::Authentication { .. } => 13,
                    ChannelError::NameInUse { .. } => 14,
                    ChannelError::Refused { .. } => 15,
                }
            }
            Error::Process(error) => {
                400 + match error {
                    ProcessError::Start { .. } => 1,
                    ProcessError::Running { .. } => 2,
                    ProcessError::Closed => 3,
                    ProcessError::TimedOut { .. } => 4,
                    ProcessError::NotChild { .. } => 5,
                    ProcessError::Failed { .. } => 6,
                    ProcessError::MethodFixed { .. } => 7,
                }
            }
            Error::Task(error) => {
                500 + match error {
                    TaskError::WorkerDied { .. } => 1,
                    TaskError::Panicked { .. } => 2,
                    TaskError::Codec { .. } => 3,
                    TaskError::PoolClosed { .. } => 4,
                    TaskError::TimedOut { .. } => 5,
                    TaskError::Taken => 6,
                    TaskError::BrokenPool { .. } => 7,
                    TaskError::PoolOpen => 8,
                    TaskError::Cancelled { .. } => 9,
                    TaskError::DeadlineExceeded { .. } => 10,
                }
            }
            Error::Data(error) => {
                800 + match error {
                    DataError::Codec { .. } => 1,
                    DataError::SizeChanged { .. } => 2,
                    DataError::TooLarge { .. } => 3,
                    DataError::TooManyHandles { .. } => 4,
                }
            }
            Error::Os(_) => 600,
            Error::Other(_) => 700,
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        match error.raw_os_error() {
            Some(errno) => Error::Os(SysError { call: "input or output", errno }),
            None => Error::Other(error.to_string()),
        }
    }
}

/// `SegmentError::Corrupt` in one line.
pub(crate) fn corrupt(what: &'static str, offset: u64, found: u64) -> Error {
    SegmentError::Corrupt { what, offset, found }.into()
}
