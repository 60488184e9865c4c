//! Processes that are started: one that is killed anywhere between its first instruction and its end, and one who starts it.

use super::messages::value;
use crate::operation::{Acts, Check, Deed, Scene, Subject, corrupt, duplicated, leaked, lost};
use crate::step::{begin, end};
use shmkit::{ChannelError, Error, Process, Queue, Segment};

pub struct Work {
    results: Queue<u64>,
}

/// Makes a process begin at its first instructions.
const VARIABLE: &str = "SHMKIT_TORTURE_BEGIN";

/// Before everything else of this kind, so that also what enters a child is behind the marker.
#[used]
#[unsafe(link_section = ".init_array.00001")]
static FIRST: extern "C" fn() = {
    extern "C" fn first() {
        if std::env::var_os(VARIABLE).is_some() {
            begin();
        }
    }
    first
};

/// What the started process does.
fn work(results: Queue<u64>, value: u64) -> shmkit::Result<()> {
    results.put(value)
}

impl Subject for Work {
    fn create(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Work { results: segment.queue("results").capacity(4).create()? })
    }

    fn open(segment: &Segment) -> shmkit::Result<Self> {
        Ok(Work { results: segment.queue("results").open()? })
    }

    fn audit(&self, _: &Segment, deeds: &[Deed]) -> Check {
        let mut found = Vec::new();
        loop {
            match self.results.try_get() {
                Ok(value) => found.push(value),
                Err(Error::Channel(ChannelError::Empty { .. })) => break,
                Err(error) => return Err(error.into()),
            }
        }
        for deed in deeds {
            let expected = value(deed.id, 1);
            match found.iter().filter(|&&value| value == expected).count() {
                0 if deed.is_done => return lost(format!("what a process that came to its end has put: {deeds:?}")),
                0 | 1 => {}
                _ => return duplicated("what a process has put once"),
            }
        }
        match found.iter().all(|found| deeds.iter().any(|deed| *found == value(deed.id, 1))) {
            true => Ok(()),
            false => corrupt(format!("{found:?} of nobody")),
        }
    }

    fn may_grow() -> bool {
        // Handles travel: the queue has more cells for those who had it.
        true
    }

    fn exercise(&self, _: &Segment) -> Check {
        self.results.put(7)?;
        if self.results.get()? == 7 { Ok(()) } else { corrupt("another message than what was put") }
    }
}

/// Starts the process and sees it off; its session segment must be as it was.
fn launch(scene: &Scene, is_daemon: bool) -> Check {
    let segment = Segment::open(&scene.name)?;
    let session = shmkit::session()?;
    let before = session.memory()?.0;
    let results = segment.queue::<u64>("results").open()?;
    let value = value(scene.id(), 1);
    begin();
    let process = Process::new(work).args((results, value)).daemon(is_daemon).start()?;
    let status = process.join()?;
    if !matches!(status.exit_code(), Some(0 | -9)) {
        return corrupt(format!("it ended with {status}"));
    }
    drop(process);
    session.verify()?;
    let after = session.memory()?.0;
    if after != before || session.participants().len() != 1 {
        return leaked(format!("{after} bytes of the session, {before} before: {:?}", session.participants()));
    }
    end();
    Ok(())
}

pub fn acts() -> Acts<Work> {
    Acts::<Work>::new()
        .launcher("spawned", |scene| {
            // SAFETY: this process has one thread.
            unsafe { std::env::set_var(VARIABLE, "1") };
            launch(&scene, false)
        })
        .bare("start", |scene| launch(&scene, true))
        .with_threads()
        .alone()
}
