//! Unix sockets, pipes, and pthread mutexes in shared memory.

use crate::Result;
use crate::contest::Kind::{Peer, Reference};
use crate::contest::{Contestant, Run};
use crate::drivers::{Rx, Side, Tx, one_way, round_trip};
use crate::limits::{Locks, contended, uncontended};
use crate::payload::{Bytes8, Payload, zeroed};
use crate::stage::{Stage, c_string};
use std::fs::File;
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::os::unix::net::{UnixListener, UnixStream};

/// A payload written to a stream of bytes as it is.
pub struct Stream<P, S> {
    stream: S,
    buffer: Box<P>,
}

impl<P: Payload, S> Stream<P, S> {
    /// Over a stream.
    pub fn new(stream: S) -> Stream<P, S> {
        Stream { stream, buffer: zeroed() }
    }
}

impl<P: Payload, S: Write> Tx<P> for Stream<P, S> {
    #[inline]
    fn send(&mut self, sequence: u64) -> Result {
        self.buffer.fill(sequence);
        Ok(self.stream.write_all(shmkit::bytemuck::bytes_of(&*self.buffer))?)
    }
}

impl<P: Payload, S: Read> Rx<P> for Stream<P, S> {
    #[inline]
    fn recv(&mut self) -> Result<u64> {
        self.stream.read_exact(shmkit::bytemuck::bytes_of_mut(&mut *self.buffer))?;
        Ok(self.buffer.digest())
    }
}

fn socket(stage: &Stage) -> Result<UnixStream> {
    let path = format!("/tmp/{}.socket", stage.name);
    let listener = std::cell::Cell::new(None);
    let stream = stage.in_turn(
        || {
            listener.set(Some(UnixListener::bind(&path)?));
            Ok(None)
        },
        || Ok(Some(UnixStream::connect(&path)?)),
    )?;
    let stream = match (stream, listener.take()) {
        (Some(stream), _) => stream,
        (None, Some(listener)) => listener.accept()?.0,
        (None, None) => return Err("there is no listener".into()),
    };
    if stage.role == 0 {
        std::fs::remove_file(path)?;
    }
    Ok(stream)
}

fn socket_round_trip<P: Payload>(stage: &Stage) -> Result {
    let stream = socket(stage)?;
    let mut tx = Stream::<P, _>::new(stream.try_clone()?);
    round_trip::<P>(stage, &mut tx, &mut Stream::new(stream))
}

fn socket_one_way<P: Payload>(stage: &Stage) -> Result {
    let stream = Stream::<P, _>::new(socket(stage)?);
    one_way::<P, _, _>(stage, if stage.role == 0 { Side::Sends(stream) } else { Side::Receives(stream) })
}

/// Both ends of a named pipe; the caller uses the one that is its.
fn pipe(stage: &Stage, name: &str) -> Result<File> {
    let path = format!("/tmp/{}.{name}", stage.name);
    let open = || Ok(File::options().read(true).write(true).open(&path)?);
    stage.in_turn(
        || {
            let c_path = c_string(&path);
            // SAFETY: a string of this function.
            if unsafe { libc::mkfifo(c_path.as_ptr(), 0o600) } != 0 {
                return Err(std::io::Error::last_os_error().into());
            }
            open()
        },
        open,
    )
}

fn pipe_round_trip<P: Payload>(stage: &Stage) -> Result {
    let (there, back) = (pipe(stage, "there")?, pipe(stage, "back")?);
    let (tx, rx) = if stage.role == 0 { (there, back) } else { (back, there) };
    round_trip::<P>(stage, &mut Stream::new(tx), &mut Stream::new(rx))
}

fn pipe_one_way<P: Payload>(stage: &Stage) -> Result {
    let stream = Stream::<P, _>::new(pipe(stage, "pipe")?);
    one_way::<P, _, _>(stage, if stage.role == 0 { Side::Sends(stream) } else { Side::Receives(stream) })
}

pub fn round_trips<P: Payload>() -> Vec<Contestant> {
    vec![
        Contestant::pair("Unix socket", Peer, socket_round_trip::<P>),
        Contestant::pair("pipe(2)", Peer, pipe_round_trip::<P>),
    ]
}

pub fn one_ways<P: Payload>() -> Vec<Contestant> {
    vec![
        Contestant::pair("Unix socket", Peer, socket_one_way::<P>),
        Contestant::pair("pipe(2)", Peer, pipe_one_way::<P>),
    ]
}

/// What a pool's call is compared with: a round trip over a Unix socket between two processes that block.
fn socket_call(stage: &Stage) -> Result {
    socket_round_trip::<Bytes8>(stage)?;
    if let (0, Ok((nanoseconds, _))) = (stage.role, stage.outcome()) {
        stage.publish(nanoseconds / 1e3);
    }
    Ok(())
}

pub fn pool_apply() -> Vec<Contestant> {
    vec![Contestant::pair("round trip, Unix socket", Reference, socket_call)]
}

// ---- pthread mutexes -------------------------------------------------------------------------------------------------

struct Pthread<'a> {
    mutex: *mut libc::pthread_mutex_t,
    _memory: PhantomData<&'a Stage>,
}

impl Pthread<'_> {
    fn new(stage: &Stage, robust: bool) -> Result<Pthread<'_>> {
        let mutex = stage.scratch().cast();
        stage.in_turn(
            || {
                // SAFETY: the memory is zeroed, aligned, and nobody else's until the barrier; the attributes are initialised first.
                let failed = unsafe {
                    let mut attributes = std::mem::MaybeUninit::uninit();
                    let mut failed = libc::pthread_mutexattr_init(attributes.as_mut_ptr());
                    failed |= libc::pthread_mutexattr_setpshared(attributes.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED);
                    if robust {
                        failed |=
                            libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST);
                    }
                    failed |= libc::pthread_mutex_init(mutex, attributes.as_ptr());
                    failed
                };
                if failed == 0 { Ok(()) } else { Err("the mutex could not be made".into()) }
            },
            || Ok(()),
        )?;
        Ok(Pthread { mutex, _memory: PhantomData })
    }
}

impl Locks for Pthread<'_> {
    #[inline]
    fn with(&self, inside: impl FnOnce()) -> Result {
        // SAFETY: initialised by role 0.
        let mut failed = unsafe { libc::pthread_mutex_lock(self.mutex) };
        inside();
        // SAFETY: as above, and held.
        failed |= unsafe { libc::pthread_mutex_unlock(self.mutex) };
        if failed == 0 { Ok(()) } else { Err("the mutex failed".into()) }
    }
}

fn pthread<const ROBUST: bool, const ALONE: bool>(stage: &Stage) -> Result {
    let mutex = Pthread::new(stage, ROBUST)?;
    if ALONE { uncontended(stage, &mutex) } else { contended(stage, &mutex) }
}

pub fn locks(processes: usize) -> Vec<Contestant> {
    let (plain, robust): (Run, Run) = match processes {
        1 => (pthread::<false, true>, pthread::<true, true>),
        _ => (pthread::<false, false>, pthread::<true, false>),
    };
    vec![
        Contestant::single("pthread mutex", Peer, plain).of(processes),
        Contestant::single("pthread mutex, robust", Peer, robust).of(processes),
    ]
}
