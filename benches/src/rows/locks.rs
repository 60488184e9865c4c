//! Locks: alone, and against another process.

use crate::Result;
use crate::contest::Kind::{Limit, Shmkit};
use crate::contest::{Contestant, Figure, Goal, Unit};
use crate::limits::{self, Locks, contended, uncontended};
use crate::peers;
use crate::stage::Stage;
use shmkit::Mutex;

struct Robust(Mutex<u64>);

impl Locks for Robust {
    #[inline]
    fn with(&self, inside: impl FnOnce()) -> Result {
        let guard = self.0.lock().map_err(|error| error.to_string())?;
        inside();
        drop(guard);
        Ok(())
    }
}

fn mutex(stage: &Stage) -> Result<Robust> {
    let segment = super::messages::segment(stage)?;
    Ok(Robust(segment.mutex::<u64>("mutex").open_or_create()?))
}

fn mutex_uncontended(stage: &Stage) -> Result {
    uncontended(stage, &mutex(stage)?)
}

fn mutex_contended(stage: &Stage) -> Result {
    contended(stage, &mutex(stage)?)
}

pub fn figures() -> Vec<Figure> {
    let limit = "minimal futex mutex";
    vec![
        Figure::new("mutex, no rival", Unit::Nanoseconds)
            .about("Python's row is not pinned.")
            .goal(Goal::AtMost(1.3, limit))
            .with([
                Contestant::single("shmkit", Shmkit, mutex_uncontended),
                Contestant::single(limit, Limit, limits::futex_mutex_uncontended),
            ])
            .with(peers::locks(1)),
        Figure::new("mutex, two processes", Unit::Millions)
            .about("Each process does 100 ns of something else between two uses.")
            .goal(Goal::AtLeast(1.0, limit))
            .with([
                Contestant::pair("shmkit", Shmkit, mutex_contended),
                Contestant::pair(limit, Limit, limits::futex_mutex_contended),
            ])
            .with(peers::locks(2)),
    ]
}
