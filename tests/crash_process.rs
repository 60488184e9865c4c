//! Children and parents killed at every step between the start of a child and its end.

mod common;

use shmkit::{Event, Lock, Mutex, Process, Segment, active_children, failpoint, session};

roles!(
    parent_of_a_victim,
    parent_killed_at_start,
    parent_killed_at_end,
    parent_of_one_repaired_late,
    parent_of_a_server,
    stops_while_detaching
);

/// Steps of a child, in order, and whether its target has run and its arguments' effects are there.
const CHILD_STEPS: &[(&str, bool)] = &[
    ("child.arrived", false),
    ("child.before_join", false),
    ("attach.before_slot_lock", false),
    ("attach.slot_locked", false),
    ("attach.generation", false),
    ("attach.active", false),
    ("child.joined", false),
    ("child.record", false),
    ("child.before_read", false),
    ("reference.cell", false),
    ("reference.version", false),
    ("child.read", false),
    ("child.said_read", false),
    ("child.rung", false),
    ("event.before_set", false),
    ("event.set", true),
    ("child.message", true),
    ("child.said", true),
    ("end.begun", true),
    ("end.before_detach", true),
    ("detach.before_recovery", true),
    ("recover.started", true),
    ("recover.locks", true),
    ("recover.object", true),
    ("recover.before_generation", true),
    ("recover.generation", true),
    ("recover.before_free", true),
    ("detach.recovered", true),
    ("end.detached", true),
];

fn victim(lock: Lock, count: Mutex<u64>, flag: Event) -> shmkit::Result<()> {
    let _guard = lock.lock()?;
    *count.lock()? += 1;
    flag.set();
    Ok(())
}

/// Starts the victim, which the environment has armed, and looks at what it leaves.
fn parent_of_a_victim(arguments: &[String]) {
    let has_run = arguments[0] == "true";
    let session = session().unwrap();
    let (lock, flag) = (Lock::new().unwrap(), Event::new().unwrap());
    let count = Mutex::new(0u64).unwrap();
    let before = session.objects().len();
    let child = Process::new(victim).args((lock.clone(), count.clone(), flag.clone())).start().unwrap();
    let status = child.join().unwrap();
    assert_eq!(status.exit_code(), Some(-libc::SIGKILL), "the kill point was not reached: {status}");
    assert_eq!(status.message(), None);
    assert!(active_children().is_empty());
    // Repaired before `join` returned: nobody is in, nothing is left, the locks go on.
    assert_eq!(session.participants(), [std::process::id()]);
    assert_eq!(session.objects().len(), before, "the spawn record or something else is left");
    lock.lock().map_or_else(|dead| drop(dead.repair(|_| {}).unwrap()), drop);
    assert_eq!(flag.is_set(), has_run);
    match count.lock() {
        Ok(count) => assert!(*count == 1 || !has_run),
        Err(dead) => drop(dead.repair(|_| {}).unwrap()),
    }
    // The next child has a whole session.
    unsafe_remove("SHMKIT_CHILD_FAILPOINT");
    let child = Process::new(victim).args((lock, count, flag)).start().unwrap();
    child.join().unwrap().check().unwrap();
    common::say("whole");
}

fn unsafe_remove(variable: &str) {
    // SAFETY: only the spawner runs beside this thread, and it does not look at the environment.
    unsafe { std::env::remove_var(variable) };
}

#[test]
fn a_child_killed_at_any_step_leaves_a_whole_session() {
    for (point, has_run) in CHILD_STEPS {
        eprintln!("{point}");
        let armed = format!("{point},1");
        let environment = [("SHMKIT_CHILD_FAILPOINT", armed.as_str())];
        let mut parent = common::start_with("parent_of_a_victim", &[&has_run.to_string()], &environment);
        parent.expect("whole");
        parent.succeeded();
    }
}

// ---- parents ----------------------------------------------------------------------------------------------------------

fn wait_for_ever(_flag: Event) {
    common::say("running");
    loop {
        std::thread::park();
    }
}

/// Says something, but only when told to go on: by the grandparent, through the segment they share.
fn go_on(flag: Event) -> shmkit::Result<()> {
    common::say("running");
    flag.wait()?;
    common::say("went on");
    Ok(())
}

/// Is killed while, or right after, it starts a child.
fn parent_killed_at_start(arguments: &[String]) {
    let [point, kind] = arguments else { panic!("two arguments") };
    let flag = Event::new().unwrap();
    failpoint::arm(point, 1);
    let started = match kind.as_str() {
        "daemon" => Process::new(wait_for_ever).args((flag,)).daemon(true).start(),
        _ => Process::new(go_on).args((session().unwrap().event("flag").create().unwrap(),)).start(),
    };
    panic!("the kill point was not reached: {started:?}");
}

/// A named session, which this process looks into.
struct Session {
    name: String,
    segment: Segment,
}

impl Session {
    fn new(what: &str) -> Session {
        let name = common::unique(what);
        let segment = Segment::builder().policy(shmkit::LifePolicy::OnLastDetach).create(&name).unwrap();
        Session { name, segment }
    }

    fn parent(&self, role: &str, arguments: &[&str]) -> common::Child {
        common::start_with(role, arguments, &[("SHMKIT_SESSION", &self.name)])
    }

    /// Recovers until only this process is in it and nothing lies there. A dying process may hold the recovery lock for a
    /// moment longer than its output.
    fn settle(&self) {
        while self.segment.participants() != [std::process::id()] || !self.segment.objects().is_empty() {
            self.segment.recover();
            std::thread::yield_now();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = Segment::unlink(&self.name);
    }
}

#[test]
fn a_parent_killed_while_it_starts_a_daemon_leaves_neither_daemon_nor_record() {
    for point in ["spawn.recorded", "spawn.started"] {
        let session = Session::new("killed-parent");
        let mut parent = session.parent("parent_killed_at_start", &[point, "daemon"]);
        // Nobody is left who could write.
        let said = parent.rest();
        assert!(said.is_empty() || said == "running\n", "{said}");
        parent.was_killed();
        session.settle();
    }
}

#[test]
fn a_child_of_a_parent_killed_after_its_start_runs_on() {
    let session = Session::new("orphan");
    let mut parent = session.parent("parent_killed_at_start", &["spawn.started", "other"]);
    parent.expect("running");
    parent.was_killed();
    session.segment.recover();
    // Its argument lives: by its own reference and by its name.
    session.segment.event("flag").open().unwrap().set();
    parent.expect("went on");
    assert_eq!(parent.rest(), "");
    session.segment.remove("flag").unwrap();
    session.settle();
}

/// Holds the recovery lock, stopped.
fn stops_while_detaching(arguments: &[String]) {
    let segment = Segment::open(&arguments[0]).unwrap();
    failpoint::stop("recover.locks", 1);
    drop(segment);
    common::say("detached");
    common::listen();
}

/// Has a child killed that cannot be repaired yet, and sees its end nevertheless.
fn parent_of_one_repaired_late(_: &[String]) {
    let child = Process::new(wait_for_ever).args((Event::new().unwrap(),)).start().unwrap();
    common::listen();
    child.kill().unwrap();
    assert_eq!(child.join().unwrap().exit_code(), Some(-libc::SIGKILL));
    common::say("joined");
    common::listen();
}

#[test]
fn a_child_that_could_not_be_repaired_at_its_end_is_repaired_later() {
    let session = Session::new("late");
    let mut parent = session.parent("parent_of_one_repaired_late", &[]);
    parent.expect("running");
    let mut stopped = common::start("stops_while_detaching", &[&session.name]);
    let mut status = 0;
    // SAFETY: waitpid with a child of this process and a place for its status; it is not reaped by WUNTRACED.
    unsafe { libc::waitpid(stopped.pid() as i32, &raw mut status, libc::WUNTRACED) };
    assert!(libc::WIFSTOPPED(status), "it ended: {status}");
    let before = session.segment.recoveries();
    parent.tell("kill");
    parent.expect("joined");
    assert_eq!(session.segment.recoveries(), before, "somebody else has the recovery lock");
    stopped.signal(libc::SIGCONT);
    stopped.expect("detached");
    // Its own is one. Nobody asks for the other: the parent has not forgotten.
    common::until(|| session.segment.recoveries() > before + 1);
    stopped.tell("end");
    stopped.succeeded();
    parent.tell("end");
    parent.succeeded();
    session.settle();
}

/// Is killed at its end, while it waits for its daemon.
fn parent_killed_at_end(arguments: &[String]) {
    let flag = Event::new().unwrap();
    let _daemon = Process::new(wait_for_ever).args((flag,)).daemon(true).start().unwrap();
    common::listen();
    failpoint::arm(&arguments[0], 1);
}

#[test]
fn a_parent_killed_at_its_end_leaves_nothing() {
    for point in ["end.begun", "end.before_detach", "detach.before_recovery", "recover.generation", "end.detached"] {
        let session = Session::new("killed-at-end");
        let mut parent = session.parent("parent_killed_at_end", &[point]);
        parent.expect("running");
        parent.tell("end");
        assert_eq!(parent.rest(), "");
        parent.was_killed();
        session.settle();
    }
}

/// Has children started by a server that the environment has armed: it dies at some request, and so does the next one, at the same.
fn parent_of_a_server(_: &[String]) {
    use shmkit::process::StartMethod::ForkServer;
    let session = session().unwrap();
    let count = Mutex::new(0u64).unwrap();
    let before = session.objects().len();
    let add = |count: Mutex<u64>, code: i32| -> shmkit::Result<i32> {
        *count.lock()? += 1;
        Ok(code)
    };
    for code in 0..12 {
        let child = Process::new(add).args((count.clone(), code)).start_method(ForkServer).start().unwrap();
        assert_eq!(child.join().unwrap().exit_code(), Some(code), "each has a handle, and is started once");
    }
    assert_eq!((*count.lock().unwrap(), session.objects().len()), (12, before));
    let tasks = || std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = || tasks().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<String> =
        lists().flat_map(|list| list.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    assert!(children.iter().filter(|pid| !pid.is_empty()).count() <= 1, "a zombie beside the server: {children:?}");
    session.verify().unwrap();
    common::say("all of them");
}

#[test]
fn a_server_killed_at_every_step_costs_no_start() {
    for (point, nth) in [("server.asked", 2), ("server.asked", 3), ("server.copied", 1), ("server.copied", 3)] {
        let armed = format!("{point},{nth}");
        let mut parent = common::start_with("parent_of_a_server", &[], &[("SHMKIT_SERVER_FAILPOINT", &armed)]);
        parent.expect("all of them");
        parent.succeeded();
    }
}
