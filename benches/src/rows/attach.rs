//! Opening a segment, and the memory that objects take.

use crate::Result;
use crate::contest::Kind::{Limit, Reference, Shmkit};
use crate::contest::{Contestant, Figure, Goal, Unit};
use crate::limits;
use crate::peers;
use crate::stage::{Stage, memory};
use shmkit::{Queue, Segment};
use std::os::fd::AsRawFd;
use std::time::Instant;

/// Role 0: holds a segment with one object while role 1 comes and goes.
fn hold(stage: &Stage) -> Result {
    let segment = Segment::create(&stage.name)?;
    let value = segment.value::<u64>("value").initial(42).create()?;
    stage.barrier()?;
    stage.barrier()?;
    drop(value);
    Ok(())
}

/// Role 1 attaches, opens one object, reads it, and leaves, again and again.
fn attach(stage: &Stage) -> Result {
    if stage.role == 0 {
        return hold(stage);
    }
    stage.barrier()?;
    let once = || -> Result {
        let segment = Segment::open(&stage.name)?;
        let found = segment.value::<u64>("value").open()?.get()?;
        if found == 42 { Ok(()) } else { Err(format!("the value is {found}").into()) }
    };
    once()?;
    let start = Instant::now();
    for _ in 0..stage.n {
        once()?;
    }
    stage.publish(start.elapsed().as_nanos() as f64 / 1e3 / stage.n as f64);
    stage.barrier()
}

/// Role 1 makes the least calls that open and map a file, of the segment's own: what the address space of the default size adds to
/// the price.
fn open_and_map(stage: &Stage) -> Result {
    if stage.role == 0 {
        return hold(stage);
    }
    stage.barrier()?;
    let path = crate::stage::c_string(&format!("/shmkit.{}", stage.name));
    limits::open_and_map(&path, 1)?;
    stage.publish(limits::open_and_map(&path, stage.n)?);
    stage.barrier()
}

/// KiB that the kernel keeps for the file behind a descriptor.
fn resident(fd: i32) -> Result<f64> {
    // SAFETY: the struct is plain data that the call fills.
    let stat = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &mut stat) != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        stat
    };
    Ok(stat.st_blocks as f64 / 2.0)
}

fn empty_segment(stage: &Stage) -> Result {
    let segment = Segment::create(&stage.name)?;
    stage.publish(resident(segment.as_fd().as_raw_fd())?);
    Ok(())
}

fn idle_queue(stage: &Stage) -> Result {
    let segment = Segment::create(&stage.name)?;
    let empty = resident(segment.as_fd().as_raw_fd())?;
    let queue: Queue<u64> = segment.queue("queue").capacity(1024).create()?;
    stage.publish(resident(segment.as_fd().as_raw_fd())? - empty);
    drop(queue);
    Ok(())
}

/// A page of shared memory that holds one word: the least there is.
fn one_page(stage: &Stage) -> Result {
    let memory = memory()?;
    let bytes = 1u64.to_ne_bytes();
    // SAFETY: the descriptor and the buffer are this function's.
    if unsafe { libc::pwrite(memory.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) } != bytes.len() as isize {
        return Err(std::io::Error::last_os_error().into());
    }
    stage.publish(resident(memory.as_raw_fd())?);
    Ok(())
}

pub fn figures() -> Vec<Figure> {
    let small = "shm_open+fstat+mmap+munmap of 256 KiB";
    let own = "shm_open+fstat+mmap+munmap of its own file";
    vec![
        Figure::new("attach and open one object", Unit::Microseconds)
            .about("The segment has the default size, up to 16 GiB of address space: the last limit makes its calls on that file.")
            .goal(Goal::AtMost(6.0, small))
            .with([
                Contestant::pair("shmkit", Shmkit, attach),
                Contestant::single(small, Limit, limits::shm_open),
                Contestant::pair(own, Reference, open_and_map),
            ])
            .with(peers::attach()),
        Figure::new("memory: an idle Queue<u64> of 1024", Unit::Kibibytes).goal(Goal::Below(64.0)).with([
            Contestant::single("shmkit", Shmkit, idle_queue).fixed(1),
            Contestant::single("one page", Limit, one_page).fixed(1),
        ]),
        Figure::new("memory: an empty segment", Unit::Kibibytes).goal(Goal::Below(32.0)).with([
            Contestant::single("shmkit", Shmkit, empty_segment).fixed(1),
            Contestant::single("one page", Limit, one_page).fixed(1),
        ]),
    ]
}
