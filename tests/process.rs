//! Processes: starting, arguments, names, ends, parents.

mod common;

use serde::{Deserialize, Serialize};
use shmkit::{
    Context, Event, Lock, Mutex, Process, ProcessError, RLock, Run, Segment, Semaphore, active_children, cpu_count,
    current_process, parent_process,
};
use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::time::Duration;

roles!(parent_to_be_killed, parent_that_returns, counter_of_descriptors, namer, loud, in_named_session, forgetful);

fn nothing() {}

/// Until it is killed.
fn wait_for_ever() {
    loop {
        std::thread::park();
    }
}

fn code_of(child: &Process) -> Option<i32> {
    child.join().unwrap().exit_code()
}

// ---- arguments -----------------------------------------------------------------------------------------------------

fn raise(flag: Event, status: i32) -> i32 {
    flag.set();
    status
}

#[test]
fn a_child_gets_its_arguments_and_its_exit_code_comes_back() {
    let flag = Event::new().unwrap();
    let child = Process::new(raise).args((flag.clone(), 7)).start().unwrap();
    flag.wait().unwrap();
    assert_eq!(code_of(&child), Some(7));
    assert_eq!(child.exit_code(), Some(7));
    assert!(!child.is_alive());
}

#[test]
fn a_target_takes_up_to_twelve_arguments() {
    let sum = |a: u8, b: u16, c: u32, d: i64, e: i8, f: i16, g: i32, h: u64, i: u8, j: u8, k: u8, l: u8| {
        i32::from(a)
            + i32::from(b)
            + c as i32
            + d as i32
            + i32::from(e)
            + i32::from(f)
            + g
            + h as i32
            + [i, j, k, l].map(i32::from).iter().sum::<i32>()
    };
    let child = Process::new(sum).args((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)).start().unwrap();
    assert_eq!(code_of(&child), Some(78));
    assert_eq!(code_of(&Process::new(|| 5).start().unwrap()), Some(5));
    assert_eq!(code_of(&Process::new(|one: u8| one).args((6,)).start().unwrap()), Some(6));
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
enum Shape {
    Circle { radius: f64 },
    Named(String, Vec<Option<u8>>),
}

fn compare(shapes: Vec<Shape>, table: HashMap<String, (u32, bool)>, text: String) {
    assert_eq!(shapes, [Shape::Circle { radius: 0.5 }, Shape::Named("x".to_owned(), vec![None, Some(3)])]);
    assert_eq!(table["key"], (9, true));
    assert_eq!(text.len(), 3_000_000);
    assert!(text.bytes().all(|byte| byte == b'y'));
}

#[test]
fn any_serde_value_is_an_argument_and_of_any_size() {
    let shapes = vec![Shape::Circle { radius: 0.5 }, Shape::Named("x".to_owned(), vec![None, Some(3)])];
    let table = HashMap::from([("key".to_owned(), (9, true))]);
    let child = Process::new(compare).args((shapes, table, "y".repeat(3_000_000))).start().unwrap();
    assert_eq!(child.join().unwrap().message(), None);
    assert!(child.join().unwrap().success());
}

fn use_all(lock: Lock, rlock: RLock, mutex: Mutex<[u64; 2]>, semaphore: Semaphore, event: Event) -> shmkit::Result<()> {
    let _guard = lock.lock()?;
    rlock.acquire()?;
    rlock.release()?;
    mutex.lock()?[1] += 5;
    semaphore.acquire()?.forget();
    event.set();
    Ok(())
}

#[test]
fn handles_are_arguments_whatever_segment_they_are_from() {
    let named = common::named("handles");
    let context = Context::new().unwrap();
    let lock = Lock::new_in(&context).unwrap();
    let rlock = RLock::new().unwrap();
    let mutex = named.mutex::<[u64; 2]>("pair").initial([1, 2]).create().unwrap();
    let semaphore = Semaphore::new(3).unwrap();
    let event = Event::new_in(&context).unwrap();
    let arguments = (lock.clone(), rlock.clone(), mutex.clone(), semaphore.clone(), event.clone());
    let child = Process::new(use_all).args(arguments).start().unwrap();
    event.wait().unwrap();
    child.join().unwrap().check().unwrap();
    assert_eq!(*mutex.lock().unwrap(), [1, 7]);
    assert_eq!(semaphore.value(), 2);
    assert!(!lock.is_locked());
}

#[test]
fn arguments_live_until_the_child_has_them_and_no_longer() {
    let context = Context::new().unwrap();
    let (go, has) = (Event::new().unwrap(), Event::new().unwrap());
    let check = |lock: Lock, has: Event, go: Event| {
        drop(lock);
        has.set();
        go.wait()
    };
    // The only handle to the lock goes to the child.
    let lock = Lock::new_in(&context).unwrap();
    let child = Process::new(check).args((lock, has.clone(), go.clone())).start().unwrap();
    has.wait().unwrap();
    // The child has dropped its own; the parent's copy goes when the parent hears the bell.
    while !context.objects().is_empty() {
        assert!(child.is_alive());
        std::thread::yield_now();
    }
    go.set();
    child.join().unwrap().check().unwrap();
}

#[derive(Clone)]
struct Stubborn;

impl Serialize for Stubborn {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("I stay here"))
    }
}

impl<'de> Deserialize<'de> for Stubborn {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Stubborn, D::Error> {
        Err(serde::de::Error::custom("I never left"))
    }
}

#[test]
fn an_argument_that_cannot_be_written_is_an_error_of_start() {
    let error = Process::new(|_: Stubborn| {}).args((Stubborn,)).name("stubborn").start().unwrap_err();
    assert!(matches!(error, shmkit::Error::Process(ProcessError::Start { .. })), "{error}");
    assert!(error.to_string().contains("stubborn"), "{error}");
}

struct Unreadable;

impl Serialize for Unreadable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(3)
    }
}

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Unreadable, D::Error> {
        Err(serde::de::Error::custom("no"))
    }
}

#[test]
fn an_argument_that_cannot_be_read_is_a_message_of_the_child() {
    let child = Process::new(|_: Unreadable| {}).args((Unreadable,)).start().unwrap();
    let status = child.join().unwrap();
    assert_eq!(status.exit_code(), Some(1));
    assert!(status.message().unwrap().contains("arguments"), "{status}");
}

#[test]
fn a_handle_that_leads_nowhere_says_so() {
    let segment = common::named("gone");
    let event = segment.event("there").create().unwrap();
    Segment::unlink(&segment.name).unwrap();
    let child = Process::new(|_: Event| {}).args((event,)).start().unwrap();
    let status = child.join().unwrap();
    assert!(status.message().unwrap().contains("there is no segment"), "{status}");
}

// ---- ends ----------------------------------------------------------------------------------------------------------

#[test]
fn exit_codes_are_pythons() {
    let err = || -> Result<(), String> { Err("not today".to_owned()) };
    let exit = |code: i32| -> i32 { std::process::exit(code) };
    let children = [
        (Process::new(nothing).start().unwrap(), 0),
        (Process::new(|| 256 + 3).start().unwrap(), 3),
        (Process::new(|| Ok::<i32, String>(4)).start().unwrap(), 4),
        (Process::new(err).start().unwrap(), 1),
        (Process::new(exit).args((17,)).start().unwrap(), 17),
        (Process::new(|| std::process::abort()).start().unwrap(), -libc::SIGABRT),
    ];
    for (child, code) in children {
        assert_eq!(code_of(&child), Some(code), "{child:?}");
    }
}

#[test]
fn a_signal_is_a_negative_exit_code() {
    let signalled = |send: fn(&Process) -> shmkit::Result<()>| {
        let child = Process::new(wait_for_ever).start().unwrap();
        assert!(child.is_alive());
        assert_eq!(child.exit_code(), None);
        send(&child).unwrap();
        let status = child.join().unwrap();
        send(&child).unwrap();
        (status.exit_code(), status.signal(), status.success())
    };
    assert_eq!(signalled(Process::terminate), (Some(-15), Some(15), false));
    assert_eq!(signalled(Process::kill), (Some(-9), Some(9), false));
    assert_eq!(signalled(Process::interrupt), (Some(-2), Some(2), false));
}

#[test]
fn a_panic_reaches_the_parent_with_its_message_and_place() {
    let line = line!() + 1;
    let child = Process::new(|n: u32| assert_eq!(n, 4, "four is the number")).args((3,)).start().unwrap();
    let status = child.join().unwrap();
    assert_eq!(status.exit_code(), Some(1));
    let message = status.message().unwrap();
    assert!(message.starts_with(&format!("panicked at tests/process.rs:{line}:")), "{message}");
    assert!(message.contains("four is the number"), "{message}");
    let error = status.check().unwrap_err();
    assert!(error.to_string().contains("four is the number"), "{error}");
}

#[test]
fn an_error_reaches_the_parent_with_its_text_of_which_the_first_kilobyte_is_kept() {
    let fail = |n: usize| -> Result<(), String> { Err("ä".repeat(n)) };
    let message = |n| Process::new(fail).args((n,)).start().unwrap().join().unwrap().message().unwrap().to_owned();
    assert_eq!(message(3), "äää");
    assert_eq!(message(512), "ä".repeat(512));
    assert_eq!(message(2_000), "ä".repeat(512));
}

#[test]
fn a_caught_panic_is_no_failure() {
    let careful = || {
        let caught = std::panic::catch_unwind(|| panic!("caught"));
        assert!(caught.is_err());
    };
    let status = Process::new(careful).start().unwrap().join().unwrap();
    assert_eq!((status.exit_code(), status.message()), (Some(0), None));
}

#[test]
fn a_timeout_of_join_names_the_child() {
    let child = Process::new(wait_for_ever).name("sleeper").start().unwrap();
    let error = child.join_timeout(Duration::from_millis(1)).unwrap_err();
    assert!(error.to_string().contains("sleeper"), "{error}");
    assert!(matches!(error, shmkit::Error::Process(ProcessError::TimedOut { pid, .. }) if pid == child.pid()));
    assert!(child.join_timeout(Duration::ZERO).is_err());
    child.kill().unwrap();
    assert_eq!(child.join_timeout(Duration::MAX).unwrap().exit_code(), Some(-9));
    assert_eq!(child.join_timeout(Duration::ZERO).unwrap().exit_code(), Some(-9));
}

#[test]
fn a_closed_handle_refuses_and_a_running_child_cannot_be_closed() {
    let mut child = Process::new(wait_for_ever).name("closed").start().unwrap();
    let other = child.clone();
    assert!(matches!(child.close(), Err(shmkit::Error::Process(ProcessError::Running { .. }))));
    child.kill().unwrap();
    child.join().unwrap();
    child.close().unwrap();
    child.close().unwrap();
    assert!(matches!(child.join(), Err(shmkit::Error::Process(ProcessError::Closed))));
    assert!(matches!(child.sentinel(), Err(shmkit::Error::Process(ProcessError::Closed))));
    assert!(matches!(child.kill(), Err(shmkit::Error::Process(ProcessError::Closed))));
    assert_eq!((child.exit_code(), child.name(), child.is_alive()), (Some(-9), "closed", false));
    assert!(format!("{child:?}").contains("closed"));
    assert!(other.join().is_ok());
}

#[test]
fn the_sentinel_is_readable_once_the_child_has_ended() {
    let child = Process::new(wait_for_ever).start().unwrap();
    let mut fd = libc::pollfd { fd: child.sentinel().unwrap().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, borrowed for the call.
    assert_eq!(unsafe { libc::poll(&mut fd, 1, 0) }, 0);
    child.kill().unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::poll(&mut fd, 1, -1) }, 1);
    // Reaped or not yet: it has ended.
    assert!(!child.is_alive());
    assert_eq!(child.exit_code(), Some(-9));
}

#[test]
fn a_handle_shows_who_it_is() {
    let child = Process::new(wait_for_ever).name("shown").daemon(true).start().unwrap();
    let me = std::process::id();
    assert_eq!(
        format!("{child:?}"),
        format!("<Process name=\"shown\" pid={} parent={me} started daemon>", child.pid())
    );
    child.kill().unwrap();
    child.join().unwrap();
    let text = format!("{child:?}");
    assert!(text.contains("stopped killed by SIGKILL"), "{text}");
}

// ---- locks and deaths -----------------------------------------------------------------------------------------------

fn hold(lock: Lock, held: Event) {
    let _guard = lock.lock().unwrap();
    held.set();
    wait_for_ever();
}

#[test]
fn the_parent_goes_on_when_a_child_dies_with_its_lock() {
    let (lock, held) = (Lock::new().unwrap(), Event::new().unwrap());
    let child = Process::new(hold).args((lock.clone(), held.clone())).name("lock keeper").start().unwrap();
    held.wait().unwrap();
    let Err(shmkit::LockError::Failed(error)) = lock.try_lock() else { panic!("it is not held") };
    assert!(error.to_string().contains("lock keeper"), "{error}");
    let waiter = {
        let lock = lock.clone();
        std::thread::spawn(move || lock.lock().is_err_and(|error| error.is_owner_died()))
    };
    child.kill().unwrap();
    child.join().unwrap();
    assert!(waiter.join().unwrap(), "nobody said that the owner died");
    // What the dead one left was repaired before `join` returned.
    assert!(!session_participants().contains(&child.pid()));
}

fn session_participants() -> Vec<u32> {
    shmkit::session().unwrap().participants()
}

#[test]
fn an_exit_with_a_lock_held_is_a_death_of_the_owner() {
    let lock = Lock::new().unwrap();
    let exit = |lock: Lock| -> i32 {
        let _guard = lock.lock().unwrap();
        std::process::exit(5)
    };
    assert_eq!(code_of(&Process::new(exit).args((lock.clone(),)).start().unwrap()), Some(5));
    assert!(lock.lock().is_err_and(|error| error.is_owner_died()));
}

#[test]
fn a_child_that_ends_leaves_the_segments() {
    let segment = common::named("left");
    let event = segment.event("there").create().unwrap();
    let recoveries = segment.recoveries();
    let child = Process::new(|event: Event| event.set()).args((event,)).start().unwrap();
    child.join().unwrap().check().unwrap();
    assert_eq!(segment.participants(), [std::process::id()]);
    assert_eq!(segment.recoveries(), recoveries + 1, "it left by itself, once");
}

// ---- many ------------------------------------------------------------------------------------------------------------

#[test]
fn a_hundred_children_at_once() {
    let gate = Event::new().unwrap();
    let pass = |gate: Event, code: u8| -> shmkit::Result<u8> {
        gate.wait()?;
        Ok(code)
    };
    let children: Vec<_> =
        (0..100).map(|code| Process::new(pass).args((gate.clone(), code)).start().unwrap()).collect();
    let alive = active_children();
    for child in &children {
        assert!(alive.iter().any(|other| other.pid() == child.pid()));
    }
    gate.set();
    for (code, child) in children.iter().enumerate() {
        assert_eq!(code_of(child), Some(code as i32));
    }
    let alive = active_children();
    for child in &children {
        assert!(!alive.iter().any(|other| other.pid() == child.pid()));
    }
}

#[test]
fn a_hundred_children_are_terminated_at_once() {
    let children: Vec<_> = (0..100).map(|_| Process::new(wait_for_ever).start().unwrap()).collect();
    for child in &children {
        child.terminate().unwrap();
    }
    for child in &children {
        assert_eq!(code_of(child), Some(-15));
    }
}

#[test]
fn threads_start_children_at_once_and_may_end_before_them() {
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                let flag = Event::new().unwrap();
                let wait = |flag: Event| flag.wait();
                let child = Process::new(wait).args((flag.clone(),)).daemon(true).start().unwrap();
                (child, flag)
            })
        })
        .collect();
    for thread in threads {
        let (child, flag) = thread.join().unwrap();
        // The thread that asked for it is gone; the daemon is not.
        assert!(child.is_alive());
        flag.set();
        child.join().unwrap().check().unwrap();
    }
}

// ---- who is who -------------------------------------------------------------------------------------------------------

#[test]
fn the_main_process_has_no_parent() {
    assert_eq!(current_process().name(), "MainProcess");
    assert_eq!(current_process().pid(), std::process::id());
    assert!(!current_process().is_daemon());
    assert!(parent_process().is_none());
    assert!(cpu_count() >= std::thread::available_parallelism().unwrap().get());
}

fn check_family(parent: u32, parent_name: String, name: String, daemon: bool) -> shmkit::Result<()> {
    let me = current_process();
    assert_eq!(me.name(), name);
    assert_eq!(me.is_daemon(), daemon);
    let father = parent_process().expect("a parent");
    assert_eq!((father.pid(), father.name()), (parent, parent_name.as_str()));
    assert!(father.is_alive());
    assert!(father.join_timeout(Duration::from_millis(1)).is_err());
    assert!(father.sentinel().is_ok());
    let short = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(short.trim_end(), name.chars().take(15).collect::<String>());
    assert!(std::env::var_os("SHMKIT_SPAWN").is_none());
    Ok(())
}

#[test]
fn a_child_knows_itself_and_its_parent() {
    let me = std::process::id();
    for (name, daemon) in [("gräfin", false), ("a name/with slashes and more than fifteen bytes", true)] {
        let arguments = (me, "MainProcess".to_owned(), name.to_owned(), daemon);
        let child = Process::new(check_family).args(arguments).name(name).daemon(daemon).start().unwrap();
        assert_eq!((child.name(), child.is_daemon()), (name, daemon));
        child.join().unwrap().check().unwrap();
    }
}

fn have_child(daemon: bool) -> shmkit::Result<()> {
    let me = current_process();
    let arguments = (me.pid(), me.name().to_owned(), format!("{}:1", me.name()), daemon);
    let child = Process::new(check_family).args(arguments).start()?;
    assert_eq!(active_children().len(), 1);
    child.join()?.check()?;
    assert!(active_children().is_empty());
    Ok(())
}

#[test]
fn a_grandchild_knows_its_own_parent_and_is_a_daemon_if_that_is_one() {
    for daemon in [false, true] {
        let child = Process::new(have_child).args((daemon,)).daemon(daemon).start().unwrap();
        assert!(child.name().starts_with("Process-"));
        child.join().unwrap().check().unwrap();
    }
}

#[test]
fn a_name_with_a_nul_is_refused() {
    assert!(Process::new(nothing).name("a\0b").start().is_err());
}

#[derive(Serialize, Deserialize)]
struct Adder {
    left: u8,
    right: u8,
}

impl Run for Adder {
    type Outcome = u8;

    fn run(self) -> u8 {
        self.left + self.right
    }
}

#[test]
fn a_struct_with_a_run_is_a_process_named_after_it() {
    let child = Process::of(Adder { left: 4, right: 5 }).start().unwrap();
    assert!(child.name().starts_with("Adder-"), "{child:?}");
    assert_eq!(code_of(&child), Some(9));
}

/// Says the names of its children, which are numbered.
fn namer(_: &[String]) {
    for _ in 0..2 {
        let child = Process::new(nothing).start().unwrap();
        common::say(child.name());
        child.join().unwrap().check().unwrap();
    }
}

#[test]
fn default_names_are_numbered() {
    let mut namer = common::start("namer", &[]);
    namer.expect("Process-1");
    namer.expect("Process-2");
    namer.succeeded();
}

// ---- descriptors, zombies, output -------------------------------------------------------------------------------------

/// How many there are when nothing is opened or closed at the moment: the thread that watches the children keeps one a little
/// longer than the child is joined, and has some of its own for an instant.
fn count_descriptors() -> usize {
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    (0..200)
        .map(|_| {
            std::thread::yield_now();
            count()
        })
        .min()
        .unwrap()
}

fn is_open(number: i32) -> bool {
    // SAFETY: F_GETFD has no preconditions.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Its descriptors do not become more with its children, and a child has only its own.
fn counter_of_descriptors(_: &[String]) {
    // SAFETY: a copy of standard output; not closed on exec.
    let inheritable = unsafe { libc::fcntl(1, libc::F_DUPFD, 50) };
    assert!(inheritable >= 50);
    let run = || {
        let child = Process::new(|number: i32| assert!(!is_open(number))).args((inheritable,)).start().unwrap();
        child.join().unwrap().check().unwrap();
    };
    run();
    let before = count_descriptors();
    (0..20).for_each(|_| run());
    assert_eq!(count_descriptors(), before);
    let empty = || -> i32 { std::io::stdin().lines().count() as i32 };
    assert_eq!(code_of(&Process::new(empty).start().unwrap()), Some(0));
    common::say("counted");
}

#[test]
fn no_descriptor_leaks_on_either_side() {
    let mut counter = common::start("counter_of_descriptors", &[]);
    counter.expect("counted");
    counter.succeeded();
}

/// Drops all its handles and is left without a zombie.
fn forgetful(_: &[String]) {
    (0..10).for_each(|_| drop(Process::new(nothing).start().unwrap()));
    while !active_children().is_empty() {
        std::thread::yield_now();
    }
    let mut status = 0;
    // SAFETY: the status is a local.
    let left = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    assert_eq!((left, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ECHILD)));
    common::say("clean");
}

#[test]
fn children_are_reaped_without_a_handle() {
    let mut forgetful = common::start("forgetful", &[]);
    forgetful.expect("clean");
    forgetful.succeeded();
}

/// Has its children's complaints on its standard output.
fn loud(_: &[String]) {
    // SAFETY: both are open.
    unsafe { libc::dup2(1, 2) };
    let fail = || -> Result<(), String> { Err("no luck".to_owned()) };
    Process::new(fail).name("unlucky").start().unwrap().join().unwrap();
    Process::new(|| panic!("oh")).name("panicky").start().unwrap().join().unwrap();
}

#[test]
fn a_child_complains_on_standard_error() {
    let mut loud = common::start("loud", &[]);
    let line = loud.hear();
    assert!(line.contains("unlucky") && line.contains("no luck"), "{line}");
    let line = loud.hear();
    assert!(line.contains("panicky"), "{line}");
    let mut rest = loud.hear();
    while !rest.contains("oh") {
        rest = loud.hear();
    }
    loud.succeeded();
}

// ---- parents that end ---------------------------------------------------------------------------------------------------

/// A daemon that says hello and waits; its end closes standard output.
fn hello(what: String) {
    common::say(&what);
    wait_for_ever();
}

/// Says when its parent is gone.
fn survive() {
    let parent = parent_process().unwrap();
    common::say("here");
    parent.join().unwrap();
    assert!(!parent.is_alive());
    common::say("orphaned");
}

fn parent_to_be_killed(arguments: &[String]) {
    let _child = match arguments[0].as_str() {
        "daemon" => Process::new(hello).args(("here".to_owned(),)).daemon(true).start().unwrap(),
        _ => Process::new(survive).start().unwrap(),
    };
    wait_for_ever();
}

#[test]
fn a_daemon_dies_with_its_killed_parent() {
    let mut parent = common::start("parent_to_be_killed", &["daemon"]);
    parent.expect("here");
    parent.signal(libc::SIGKILL);
    // The last writer is gone: the daemon, too.
    assert_eq!(parent.rest(), "");
    assert!(!parent.end().success());
}

#[test]
fn another_child_survives_its_killed_parent_and_learns_of_it() {
    let mut parent = common::start("parent_to_be_killed", &["other"]);
    parent.expect("here");
    parent.signal(libc::SIGKILL);
    parent.expect("orphaned");
    assert_eq!(parent.rest(), "");
    assert!(!parent.end().success());
}

/// Waits for its parent to be at its end, and says so.
fn late(go: Event) -> shmkit::Result<()> {
    go.wait()?;
    common::say("late");
    Ok(())
}

/// Ends with a daemon and another child still running.
fn parent_that_returns(arguments: &[String]) {
    let go = Event::new().unwrap();
    let _daemon = Process::new(hello).args(("daemon".to_owned(),)).daemon(true).start().unwrap();
    let _child = Process::new(late).args((go.clone(),)).start().unwrap();
    if arguments[0] == "stubborn" {
        let ignore = || {
            // SAFETY: ignoring a signal has no preconditions.
            unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
            hello("stubborn".to_owned());
        };
        let _stubborn = Process::new(ignore).daemon(true).start().unwrap();
    }
    common::listen();
    go.set();
}

#[test]
fn at_the_end_daemons_are_terminated_and_others_joined() {
    let mut parent = common::start("parent_that_returns", &["plain"]);
    parent.expect("daemon");
    parent.tell("end");
    parent.expect("late");
    assert_eq!(parent.rest(), "");
    parent.succeeded();
}

#[test]
fn a_daemon_that_ignores_its_termination_is_killed_at_the_end() {
    let mut parent = common::start("parent_that_returns", &["stubborn"]);
    let mut said = [parent.hear(), parent.hear()];
    said.sort();
    assert_eq!(said, ["daemon", "stubborn"]);
    parent.tell("end");
    parent.expect("late");
    assert_eq!(parent.rest(), "");
    parent.succeeded();
}

/// Its session has a name.
fn in_named_session(arguments: &[String]) {
    assert_eq!(shmkit::session().unwrap().name(), Some(arguments[0].as_str()));
    let flag = Event::new().unwrap();
    let check = |flag: Event, name: String| {
        flag.set();
        shmkit::session().unwrap().name() == Some(name.as_str())
    };
    let code = move |flag: Event, name: String| -> i32 { i32::from(check(flag, name)) };
    let child = Process::new(code).args((flag.clone(), arguments[0].clone())).start().unwrap();
    assert_eq!(code_of(&child), Some(1));
    assert!(flag.is_set());
    common::say("done");
}

#[test]
fn a_named_session_is_shared_and_gone_at_the_end() {
    let name = common::unique("session");
    let mut parent = common::start_with("in_named_session", &[&name], &[("SHMKIT_SESSION", &name)]);
    parent.expect("done");
    parent.succeeded();
    assert!(matches!(Segment::open(&name), Err(shmkit::Error::Segment(shmkit::SegmentError::NotFound { .. }))));
}

#[test]
fn a_greeting_that_no_parent_wrote_is_a_clear_failure() {
    let output =
        std::process::Command::new(std::env::current_exe().unwrap()).env("SHMKIT_SPAWN", "nonsense").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("SHMKIT_SPAWN"), "{said}");
}
