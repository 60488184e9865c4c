//! Processes that are started: one that is killed anywhere between its first instruction and its end, and one who starts it.

use super::messages::value;
use crate::operation::{Acts, Check, Deed, Scene, Starts, Subject, corrupt, duplicated, leaked, lost};
use crate::step::{begin, end, is_traced, without_random_addresses};
use shmkit::process::StartMethod;
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
            let puts = !["start a program", "kill and join", "recover"].contains(&deed.act);
            match found.iter().filter(|&&value| value == expected).count() {
                0 if deed.is_done && puts => {
                    return lost(format!("what a process that came to its end has put: {deeds:?}"));
                }
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

/// How the process is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Spawn,
    Daemon,
    ForkServer,
    Copy,
    Command,
}

/// Starts the process.
fn start(how: How, results: &Queue<u64>, value: u64) -> shmkit::Result<Process> {
    let process = || Process::new(work).args((results.clone(), value));
    match how {
        How::Spawn => process().start(),
        How::Daemon => process().daemon(true).start(),
        How::ForkServer => process().daemon(true).start_method(StartMethod::ForkServer).start(),
        How::Copy => {
            let results = results.clone();
            // SAFETY: the other threads are the library's own, which are not in the middle of anything.
            unsafe { Process::fork(move || work(results, value)).allow_threads().daemon(true).start() }
        }
        How::Command => Process::command("true").daemon(true).start(),
    }
}

/// What a launcher has: its segment and the queue, and the bytes its session has in use.
struct Launcher {
    session: Segment,
    before: u64,
    results: Queue<u64>,
    value: u64,
}

impl Launcher {
    fn new(scene: &Scene) -> Check<Launcher> {
        without_random_addresses();
        let segment = Segment::open(&scene.name)?;
        let session = shmkit::session()?;
        let before = session.memory()?.0;
        let results = segment.queue::<u64>("results").open()?;
        Ok(Launcher { session, before, results, value: value(scene.id(), 1) })
    }

    /// Its session is as it was; with a fork server there is one more in it.
    fn check(&self, others: usize) -> Check {
        self.session.verify()?;
        let after = self.session.memory()?.0;
        if after != self.before || self.session.participants().len() != 1 + others {
            let (before, participants) = (self.before, self.session.participants());
            return leaked(format!("{after} bytes of the session, {before} before: {participants:?}"));
        }
        Ok(())
    }
}

fn expect_killed_or_done(process: &Process) -> Check {
    let status = process.join()?;
    if matches!(status.exit_code(), Some(0 | -9)) { Ok(()) } else { corrupt(format!("it ended with {status}")) }
}

/// Starts the process and sees it off; its session segment must be as it was.
fn launch(scene: &Scene, how: How) -> Check {
    let launcher = Launcher::new(scene)?;
    begin();
    let process = start(how, &launcher.results, launcher.value)?;
    expect_killed_or_done(&process)?;
    drop(process);
    launcher.check(usize::from(how == How::ForkServer))?;
    end();
    Ok(())
}

/// The fork server of this process.
fn server() -> Option<u32> {
    let children = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).ok();
    let all: Vec<String> = std::fs::read_dir("/proc/self/task").ok()?.flatten().filter_map(children).collect();
    let is_server = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "shmkit-forks")
    };
    all.iter().flat_map(|pids| pids.split_whitespace()).filter_map(|pid| pid.parse().ok()).find(is_server)
}

/// The same, with a fork server that is there before and is watched while it copies itself.
fn launch_served(scene: &Scene) -> Check {
    let launcher = Launcher::new(scene)?;
    expect_killed_or_done(&start(How::ForkServer, &launcher.results, launcher.value)?)?;
    if launcher.results.get()? != launcher.value {
        return corrupt("another message than what was put");
    }
    begin();
    let Some(server) = server() else { return corrupt("there is no fork server") };
    scene.note(u64::from(server));
    while !is_traced(server) {
        std::thread::yield_now();
    }
    let process = start(How::ForkServer, &launcher.results, launcher.value)?;
    expect_killed_or_done(&process)?;
    drop(process);
    launcher.check(1)?;
    end();
    Ok(())
}

pub fn acts() -> Acts<Work> {
    Acts::<Work>::new()
        .launcher("spawned", Starts::Program, |scene| {
            // SAFETY: this process has one thread.
            unsafe { std::env::set_var(VARIABLE, "1") };
            launch(&scene, How::Spawn)
        })
        .launcher("copied", Starts::Copy, |scene| launch(&scene, How::Copy))
        .launcher("served", Starts::CopyOf, |scene| launch_served(&scene))
        .bare("start", |scene| launch(&scene, How::Daemon))
        .with_children()
        .alone()
        .bare("start a copy", |scene| launch(&scene, How::Copy))
        .with_children()
        .alone()
        .bare("start by a server", |scene| launch(&scene, How::ForkServer))
        .with_children()
        .alone()
        .bare("start a program", |scene| launch(&scene, How::Command))
        .with_children()
        .alone()
        .bare("kill and join", |scene| {
            let launcher = Launcher::new(&scene)?;
            let process = Process::new(|| -> () {
                loop {
                    std::thread::park();
                }
            });
            let mut process = process.daemon(true).start()?;
            begin();
            process.kill()?;
            process.join()?;
            process.close()?;
            end();
            launcher.check(0)
        })
        .with_children()
        .alone()
}
