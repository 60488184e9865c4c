//! raw_sync's locks, shared_memory's mappings, procspawn's processes and pools.

use crate::Result;
use crate::contest::Kind::Peer;
use crate::contest::{Contestant, Run};
use crate::limits::{Locks, contended, uncontended};
use crate::rows::{check_pool, next, unpin};
use crate::stage::Stage;
use raw_sync::locks::{LockImpl, LockInit, Mutex};
use shared_memory::ShmemConf;
use std::time::Instant;

/// Turns a process that procspawn started into what it is to be; the others go on.
pub fn enter() {
    procspawn::init();
}

// ---- raw_sync --------------------------------------------------------------------------------------------------------

struct RawSync(Box<dyn LockImpl>);

impl Locks for RawSync {
    #[inline]
    fn with(&self, inside: impl FnOnce()) -> Result {
        let guard = self.0.lock().map_err(|error| error.to_string())?;
        inside();
        drop(guard);
        Ok(())
    }
}

fn raw_sync_mutex(stage: &Stage) -> Result<RawSync> {
    let (lock, data) = (stage.scratch(), stage.scratch().wrapping_add(1024));
    // SAFETY: scratch memory; role 0 makes the lock before the others use it.
    let made = stage.in_turn(
        || unsafe { Mutex::new(lock, data) }.map_err(|error| error.to_string().into()),
        || unsafe { Mutex::from_existing(lock, data) }.map_err(|error| error.to_string().into()),
    )?;
    Ok(RawSync(made.0))
}

fn raw_sync_alone(stage: &Stage) -> Result {
    uncontended(stage, &raw_sync_mutex(stage)?)
}

fn raw_sync_contended(stage: &Stage) -> Result {
    contended(stage, &raw_sync_mutex(stage)?)
}

pub fn locks(processes: usize) -> Vec<Contestant> {
    let run: Run = if processes == 1 { raw_sync_alone } else { raw_sync_contended };
    vec![Contestant::single("raw_sync", Peer, run).of(processes)]
}

// ---- shared_memory ---------------------------------------------------------------------------------------------------

fn shared_memory_open(stage: &Stage) -> Result {
    let made = ShmemConf::new().size(256 << 10).os_id(&stage.name).create()?;
    let start = Instant::now();
    for _ in 0..stage.n {
        let opened = ShmemConf::new().os_id(&stage.name).open()?;
        // SAFETY: the mapping is longer than a word.
        std::hint::black_box(unsafe { opened.as_ptr().cast::<u64>().read_volatile() });
    }
    stage.publish(start.elapsed().as_nanos() as f64 / 1e3 / stage.n as f64);
    drop(made);
    Ok(())
}

pub fn attach() -> Vec<Contestant> {
    vec![Contestant::single("shared_memory", Peer, shared_memory_open)]
}

// ---- procspawn -------------------------------------------------------------------------------------------------------

fn procspawn_start(stage: &Stage) -> Result {
    let start = Instant::now();
    for _ in 0..stage.n {
        procspawn::spawn((), |()| ()).join()?;
    }
    stage.publish(start.elapsed().as_nanos() as f64 / 1e3 / stage.n as f64);
    Ok(())
}

pub fn processes() -> Vec<Contestant> {
    vec![Contestant::single("procspawn", Peer, procspawn_start)]
}

fn procspawn_pool(stage: &Stage) -> Result {
    unpin()?;
    let pool = procspawn::Pool::new(2)?;
    for handle in [pool.spawn(0, next), pool.spawn(1, next)] {
        handle.join()?;
    }
    let start = Instant::now();
    let handles: Vec<_> = (0..stage.n).map(|number| pool.spawn(number, next)).collect();
    let results: std::result::Result<Vec<u64>, _> = handles.into_iter().map(procspawn::JoinHandle::join).collect();
    check_pool(stage, &results?, start)
}

fn procspawn_apply(stage: &Stage) -> Result {
    unpin()?;
    let pool = procspawn::Pool::new(2)?;
    pool.spawn(0, next).join()?;
    let start = Instant::now();
    for number in 0..stage.n {
        if pool.spawn(number, next).join()? != number + 1 {
            return Err("the result is wrong".into());
        }
    }
    stage.publish(start.elapsed().as_nanos() as f64 / 1e3 / stage.n as f64);
    Ok(())
}

pub fn pools() -> Vec<Contestant> {
    vec![Contestant::single("procspawn's Pool", Peer, procspawn_pool).fixed(5_000)]
}

pub fn pool_apply() -> Vec<Contestant> {
    vec![Contestant::single("procspawn's Pool", Peer, procspawn_apply)]
}
