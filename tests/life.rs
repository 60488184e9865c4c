//! The life of processes beside the tests of `process`: inheritance, exit handlers, signals, event loops, whole families.

mod common;

use shmkit::process::{StartMethod, all_start_methods};
use shmkit::sync::wait_any;
use shmkit::{Event, Process, Queue, active_children};
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::os::unix::thread::JoinHandleExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

roles!(
    root,
    inherits,
    idle_for_a_while,
    prints,
    sets_a_method,
    copies,
    ignores_its_childrens_ends,
    waits_for_any_child
);

fn wait_for_ever(never: Event) -> shmkit::Result<()> {
    never.wait()
}

fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

// ---- what a child has ---------------------------------------------------------------------------------------------------

/// Compares what it has with what its parent has.
fn compare(arguments: Vec<String>, directory: String, colour: String) -> Result<(), String> {
    let same = |what: &str, is: String, wanted: String| {
        if is == wanted { Ok(()) } else { Err(format!("{what} is {is}, not {wanted}")) }
    };
    same("the command line", format!("{:?}", std::env::args().collect::<Vec<_>>()), format!("{arguments:?}"))?;
    same("the directory", std::env::current_dir().unwrap().display().to_string(), directory)?;
    same("COLOUR", std::env::var("COLOUR").unwrap_or_default(), colour)?;
    let mut pipes = std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| fd.path().read_link().ok());
    same("a socket", pipes.any(|to| to.to_string_lossy().starts_with("socket:")).to_string(), "false".to_owned())
}

fn inherits(_: &[String]) {
    std::env::set_current_dir("/usr").unwrap();
    for method in all_start_methods() {
        let arguments = (std::env::args().collect(), "/usr".to_owned(), "red".to_owned());
        let child = Process::new(compare).args(arguments).start_method(method).start().unwrap();
        let status = child.join().unwrap();
        assert!(status.success(), "{method}: {status}");
    }
    common::say("the same");
}

#[test]
fn a_child_has_its_parents_command_line_directory_and_environment_and_no_socket() {
    let mut parent = common::start_with("inherits", &[], &[("COLOUR", "red")]);
    parent.expect("the same");
    parent.succeeded();
}

static TOLD: OnceLock<Event> = OnceLock::new();

extern "C" fn tell() {
    TOLD.get().unwrap().set();
}

#[test]
fn exit_handlers_of_a_child_run_at_its_end() {
    for method in all_start_methods() {
        let told = Event::new().unwrap();
        let register = |told: Event| {
            TOLD.set(told).unwrap();
            // SAFETY: a function of this program that does not unwind.
            unsafe { libc::atexit(tell) };
        };
        let child = Process::new(register).args((told.clone(),)).start_method(method).start().unwrap();
        child.join().unwrap().check().unwrap();
        assert!(told.is_set(), "{method}");
    }
}

#[test]
fn a_child_ends_with_its_function_whatever_its_threads_do() {
    for method in all_start_methods() {
        let child = Process::new(|never: Event| {
            let (begin, begun) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                begin.send(()).unwrap();
                never.wait()
            });
            begun.recv().unwrap();
            5
        });
        let child = child.args((Event::new().unwrap(),)).start_method(method).start().unwrap();
        assert_eq!(child.join().unwrap().exit_code(), Some(5), "{method}");
    }
}

/// Its children end in the middle of a line, and panic with nowhere to say so.
fn prints(_: &[String]) {
    for method in all_start_methods() {
        let unfinished = |what: String| print!("{what}");
        Process::new(unfinished).args((format!("{method};"),)).start_method(method).start().unwrap().join().unwrap();
    }
    // SAFETY: nobody here writes to standard error any more.
    unsafe { libc::close(2) };
    let status = Process::new(|| panic!("unheard")).start().unwrap().join().unwrap();
    assert_eq!(status.exit_code(), Some(1));
    assert!(status.message().unwrap().contains("unheard"));
}

#[test]
fn what_a_child_has_printed_is_there_and_a_closed_standard_error_is_no_matter() {
    let mut parent = common::start("prints", &[]);
    assert_eq!(parent.rest(), "spawn;forkserver;");
    parent.succeeded();
}

#[test]
fn a_child_may_ignore_an_interrupt() {
    let (ready, gate) = (Event::new().unwrap(), Event::new().unwrap());
    let ignore = |ready: Event, gate: Event| {
        // SAFETY: SIG_IGN is a valid disposition.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
        ready.set();
        gate.wait()
    };
    let child = Process::new(ignore).args((ready.clone(), gate.clone())).start().unwrap();
    ready.wait().unwrap();
    child.interrupt().unwrap();
    assert!(child.is_alive());
    gate.set();
    child.join().unwrap().check().unwrap();
}

/// Chooses the method for all children, once.
fn sets_a_method(_: &[String]) {
    use shmkit::process::{set_start_method, start_method};
    assert_eq!(start_method(), StartMethod::Spawn);
    set_start_method(StartMethod::ForkServer).unwrap();
    set_start_method(StartMethod::ForkServer).unwrap();
    let refused = set_start_method(StartMethod::Spawn).unwrap_err();
    assert!(refused.to_string().contains("forkserver"), "{refused}");
    assert_eq!(start_method(), StartMethod::ForkServer);
    Process::new(|| ()).start().unwrap().join().unwrap().check().unwrap();
    assert_eq!("forkserver".parse(), Ok(StartMethod::ForkServer));
    assert!("thread".parse::<StartMethod>().is_err());
    common::say("set");
}

#[test]
fn the_start_method_is_set_once_for_the_program() {
    let mut child = common::start("sets_a_method", &[]);
    child.expect("set");
    child.succeeded();
}

// ---- waiting for children -------------------------------------------------------------------------------------------------

#[test]
fn sentinels_of_all_methods_work_in_epoll() {
    // SAFETY: the descriptor is closed below.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    let gate = Event::new().unwrap();
    let start = |index: usize| {
        let method = all_start_methods()[index % 2];
        Process::new(wait_for_ever).args((gate.clone(),)).start_method(method).start().unwrap()
    };
    let children: Vec<Process> = (0..6).map(start).collect();
    for (index, child) in children.iter().enumerate() {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: index as u64 };
        let fd = child.sentinel().unwrap().as_raw_fd();
        // SAFETY: both descriptors are open.
        assert_eq!(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) }, 0);
    }
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: room for one event.
    assert_eq!(unsafe { libc::epoll_wait(epoll, &mut event, 1, 0) }, 0, "all of them run");
    children[4].kill().unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::epoll_wait(epoll, &mut event, 1, -1) }, 1);
    assert_eq!({ event.u64 }, 4);
    gate.set();
    let mut ended = BTreeSet::new();
    while ended.len() < children.len() {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 6];
        // SAFETY: room for six events.
        let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 6, -1) };
        ended.extend(events[..count as usize].iter().map(|event| event.u64));
    }
    for (index, child) in children.iter().enumerate() {
        assert_eq!(child.join().unwrap().exit_code(), Some(if index == 4 { -libc::SIGKILL } else { 0 }));
    }
    // SAFETY: opened above, and used by nobody else.
    unsafe { libc::close(epoll) };
}

#[test]
fn children_are_waited_for_with_objects() {
    let (queue, gate) = (Queue::<u32>::bounded(1).unwrap(), Event::new().unwrap());
    let start = || Process::new(wait_for_ever).args((gate.clone(),)).start().unwrap();
    let (first, second) = (start(), start());
    let now = Some(Duration::ZERO);
    assert!(wait_any(&[&queue, &first, &second], now).unwrap().is_empty());
    second.kill().unwrap();
    assert_eq!(wait_any(&[&queue, &first, &second], None).unwrap(), [2]);
    queue.put(1).unwrap();
    assert_eq!(wait_any(&[&queue, &first], None).unwrap(), [0]);
    gate.set();
    assert_eq!(wait_any(&[&first], None).unwrap(), [0]);
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn a_join_goes_on_after_a_signal_was_handled() {
    // SAFETY: plain data; the handler does what a handler may do. Without SA_RESTART, so that sleeps are interrupted.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as usize;
        libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut());
    }
    let gate = Event::new().unwrap();
    let child = Process::new(wait_for_ever).args((gate.clone(),)).start().unwrap();
    let joins = std::thread::spawn(move || child.join().unwrap().exit_code());
    for number in 1..=5 {
        // SAFETY: the thread is not joined yet.
        unsafe { libc::pthread_kill(joins.as_pthread_t(), libc::SIGUSR2) };
        common::until(|| SIGNALS.load(Ordering::SeqCst) >= number);
    }
    assert!(!joins.is_finished());
    gate.set();
    assert_eq!(joins.join().unwrap(), Some(0));
}

/// A copy has its parent's handles of other children, which are none of its own.
fn copies(_: &[String]) {
    let gate = Event::new().unwrap();
    let sibling = Process::new(wait_for_ever).args((gate.clone(),)).start().unwrap();
    let theirs = sibling.clone();
    let look = move || {
        let joined = theirs.join();
        let refused = matches!(joined, Err(shmkit::Error::Process(shmkit::ProcessError::NotChild { .. })));
        i32::from(refused && active_children().is_empty())
    };
    // SAFETY: this process has one thread beside shmkit's own.
    let copy = unsafe { Process::fork(look).start().unwrap() };
    assert_eq!(copy.join().unwrap().exit_code(), Some(1));
    gate.set();
    sibling.join().unwrap().check().unwrap();
    common::say("refused");
}

#[test]
fn children_of_others_are_not_joined() {
    let mut child = common::start("copies", &[]);
    child.expect("refused");
    child.succeeded();
}

#[test]
fn what_a_child_has_put_is_there_when_it_was_joined_before_anybody_drained() {
    let queue = Queue::<String>::bounded(200).unwrap();
    let put = |queue: Queue<String>| (0..200).try_for_each(|number| queue.put("x".repeat(1000 * number)));
    let child = Process::new(put).args((queue.clone(),)).start().unwrap();
    // Two megabytes, and nobody reads.
    child.join().unwrap().check().unwrap();
    for number in 0..200 {
        assert_eq!(queue.get().unwrap().len(), 1000 * number);
    }
}

// ---- families ---------------------------------------------------------------------------------------------------------------

/// Starts daemons, each of which starts daemons, down to the leaves; says who all of them are.
fn family(depth: u32, pids: Queue<u32>, never: Event) -> shmkit::Result<()> {
    pids.put(std::process::id())?;
    if depth > 0 {
        for method in all_start_methods() {
            let arguments = (depth - 1, pids.clone(), never.clone());
            // A daemon itself, so that its children are daemons, too, unless they say otherwise.
            Process::new(family).args(arguments).start_method(method).start()?;
        }
    }
    never.wait()
}

/// The root of a family of two children, four grandchildren and eight great-grandchildren, in a session with a name.
fn root(_: &[String]) {
    let (pids, never) = (Queue::bounded(64).unwrap(), Event::new().unwrap());
    for method in all_start_methods() {
        let arguments = (2, pids.clone(), never.clone());
        Process::new(family).args(arguments).daemon(true).start_method(method).start().unwrap();
    }
    let all: Vec<String> = (0..14).map(|_| pids.get().unwrap().to_string()).collect();
    common::say(&all.join(" "));
    match common::listen().as_str() {
        "exit" => std::process::exit(3),
        _ => never.wait().unwrap(),
    }
}

#[test]
fn a_family_of_daemons_dies_with_its_root_however_that_ends() {
    for how in ["exit", "kill"] {
        let mut root = common::start("root", &[]);
        let pids: Vec<u32> = root.hear().split(' ').map(|pid| pid.parse().unwrap()).collect();
        assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), 14);
        match how {
            "exit" => {
                root.tell("exit");
                assert_eq!(root.end().code(), Some(3));
            }
            _ => root.kill(),
        }
        common::until(|| pids.iter().all(|&pid| is_gone(pid)));
    }
}

#[test]
fn a_killed_child_takes_its_daemons_along_and_nobody_else() {
    let (pids, never) = (Queue::bounded(64).unwrap(), Event::new().unwrap());
    let start = || Process::new(family).args((1, pids.clone(), never.clone())).daemon(true).start().unwrap();
    let family_of = |child: &Process| -> Vec<u32> {
        let all: Vec<u32> = (0..3).map(|_| pids.get().unwrap()).collect();
        assert!(all.contains(&child.pid()));
        all
    };
    let victim = start();
    let its = family_of(&victim);
    let other = start();
    let others = family_of(&other);
    victim.kill().unwrap();
    assert_eq!(victim.join().unwrap().exit_code(), Some(-libc::SIGKILL));
    common::until(|| its.iter().all(|&pid| is_gone(pid)));
    assert!(others.iter().all(|&pid| !is_gone(pid)));
    assert!(active_children().iter().any(|child| child.pid() == other.pid()));
    other.terminate().unwrap();
    other.join().unwrap();
    common::until(|| others.iter().all(|&pid| is_gone(pid)));
}

// ---- idle pools ---------------------------------------------------------------------------------------------------------------

/// How often the threads of a process have been given a CPU, but for the first one.
fn switches(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let tasks = tasks.filter(|task| task.file_name().to_string_lossy() != pid.to_string() || pid != std::process::id());
    let of_one = |status: String| {
        let numbers = status.lines().filter(|line| line.contains("ctxt_switches:"));
        numbers.map(|line| line.rsplit('\t').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok()).map(of_one).sum()
}

/// A pool that has worked and has nothing to do.
fn idle_for_a_while(_: &[String]) {
    let pool = shmkit::Pool::new(4).unwrap();
    assert_eq!(pool.map(|x: u64| x * x, 0..1000).unwrap().len(), 1000);
    let pids: Vec<u32> = pool.worker_pids().into_iter().chain([std::process::id()]).collect();
    let count = || pids.iter().map(|&pid| switches(pid)).collect::<Vec<u64>>();
    // What is measured is how often they wake up in these two seconds; waits are getting longer during the first.
    std::thread::sleep(Duration::from_secs(1));
    let before = count();
    std::thread::sleep(Duration::from_secs(2));
    let woken: Vec<u64> = count().iter().zip(before).map(|(after, before)| after - before).collect();
    common::say(&woken.iter().map(u64::to_string).collect::<Vec<_>>().join(" "));
}

#[test]
fn an_idle_pool_wakes_up_once_a_second_and_its_process_never() {
    let mut idle = common::start("idle_for_a_while", &[]);
    let woken: Vec<u64> = idle.hear().split(' ').map(|number| number.parse().unwrap()).collect();
    idle.succeeded();
    let (own, workers) = woken.split_last().unwrap();
    // One switch away for each sleep; some more where others press for the CPU at that moment.
    assert!(workers.iter().all(|&number| number <= 12), "{woken:?}");
    assert!(*own <= 2, "{woken:?}");
}

#[test]
fn a_pool_in_a_worker_dies_with_that() {
    let pool = shmkit::Pool::new(1).unwrap();
    let pids = Queue::<u32>::bounded(8).unwrap();
    let inner = |pids: Queue<u32>, never: Event| {
        let pool = shmkit::Pool::new(2).unwrap();
        let tell = |pids: Queue<u32>, never: Event| {
            pids.put(std::process::id()).unwrap();
            never.wait().unwrap();
        };
        let both: Vec<_> = (0..2).map(|_| pool.apply_async(tell, (pids.clone(), never.clone()))).collect();
        both.into_iter().for_each(|mut task| task.get().unwrap());
    };
    let mut task = pool.apply_async(inner, (pids.clone(), Event::new().unwrap()));
    let inner: Vec<u32> = (0..2).map(|_| pids.get().unwrap()).collect();
    // SAFETY: kill has no preconditions.
    unsafe { libc::kill(pool.worker_pids()[0] as i32, libc::SIGKILL) };
    let died = task.get().unwrap_err();
    assert!(matches!(died, shmkit::Error::Task(shmkit::TaskError::WorkerDied { .. })), "{died}");
    common::until(|| inner.iter().all(|&pid| is_gone(pid)));
    assert_eq!(pool.apply(|x: u32| x + 1, (1,)).unwrap(), 2);
}

#[test]
fn a_default_pool_has_a_worker_for_each_cpu() {
    let pool = shmkit::Pool::builder().start().unwrap();
    assert_eq!((pool.workers(), pool.worker_pids().len()), (shmkit::cpu_count(), shmkit::cpu_count()));
}

#[test]
fn an_iterator_that_panics_is_the_callers_and_the_pool_goes_on() {
    let pool = shmkit::Pool::new(2).unwrap();
    let broken = || (0..10u64).inspect(|x| assert!(*x < 5, "no more"));
    let square = |x: u64| x * x;
    let caught = |work: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err();
    assert!(caught(&|| drop(pool.map(square, broken()))));
    assert!(caught(&|| pool.imap(square, broken()).for_each(drop)));
    assert!(caught(&|| pool.imap_unordered(square, broken()).chunk(3).for_each(drop)));
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
}

#[test]
fn the_methods_have_names() {
    let names: Vec<String> = all_start_methods().iter().map(|method| method.to_string()).collect();
    assert_eq!(names, ["spawn", "forkserver"]);
    assert_eq!(shmkit::process::start_method(), StartMethod::Spawn, "what is used unless told otherwise");
}

// ---- programs that reap ---------------------------------------------------------------------------------------------------

/// Starts children of all kinds and a pool, and looks at what is known of their ends.
fn ends_of_all() {
    for method in all_start_methods() {
        let child = Process::new(|| 3).start_method(method).start().unwrap();
        assert_eq!(child.join().unwrap().exit_code(), None, "{method}");
        let child = Process::new(wait_for_ever).args((Event::new().unwrap(),)).start_method(method).start().unwrap();
        child.kill().unwrap();
        assert_eq!(child.join().unwrap().exit_code(), None, "{method}");
    }
    let failed = Process::new(|| panic!("said nevertheless")).start().unwrap().join().unwrap();
    assert!(!failed.success() && failed.message().unwrap().contains("said nevertheless"), "{failed}");
    let pool = shmkit::Pool::new(2).unwrap();
    let died = pool.apply(|| -> u8 { std::process::abort() }, ()).unwrap_err();
    assert!(matches!(died, shmkit::Error::Task(shmkit::TaskError::WorkerDied { .. })), "{died}");
    assert_eq!(pool.map(|x: u64| x + 1, 0..100).unwrap().len(), 100);
    pool.close();
    pool.join().unwrap();
}

/// The kernel reaps for it: nothing is known but that they have ended.
fn ignores_its_childrens_ends(_: &[String]) {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    ends_of_all();
    common::say("all have ended");
}

/// A thread of its own reaps whatever ends, as some libraries do.
fn waits_for_any_child(_: &[String]) {
    std::thread::spawn(|| {
        loop {
            let mut status = 0;
            // SAFETY: the status is a local.
            if unsafe { libc::waitpid(-1, &mut status, 0) } < 0 {
                std::thread::yield_now();
            }
        }
    });
    for method in all_start_methods() {
        for _ in 0..20 {
            let ran = Event::new().unwrap();
            let run = |ran: Event| {
                ran.set();
                3
            };
            let child = Process::new(run).args((ran.clone(),)).start_method(method).start().unwrap();
            // One of the two has reaped it, be it before its parent could have a descriptor of it.
            assert!(matches!(child.join().unwrap().exit_code(), Some(3) | None), "{method}");
            assert!(ran.is_set() && !child.is_alive(), "{method}");
            child.kill().unwrap();
            assert_eq!(wait_any(&[&child], None).unwrap(), [0]);
        }
    }
    common::say("all have ended");
}

#[test]
fn programs_that_reap_children_themselves_are_told_that_they_have_ended() {
    for role in ["ignores_its_childrens_ends", "waits_for_any_child"] {
        let mut child = common::start(role, &[]);
        child.expect("all have ended");
        child.succeeded();
    }
}
