//! Children of every start method, programs as children, and what a child can be told to be like.

mod common;

use shmkit::process::{Limit, StartMethod, all_start_methods};
use shmkit::{Event, Mutex, Process, Queue, Value};
use std::collections::BTreeSet;
use std::io::{Read, Seek};

roles!(killed_with_children, warm, attaches, forks, refuses_to_fork);

fn report(queue: Queue<(u32, u32)>, number: u32) -> shmkit::Result<()> {
    queue.put((number, std::process::id()))
}

#[test]
fn objects_work_under_all_methods_mixed() {
    let queue = Queue::bounded(64).unwrap();
    let total = Mutex::new(0u64).unwrap();
    let add = |total: Mutex<u64>, queue: Queue<(u32, u32)>, number: u32| -> shmkit::Result<()> {
        *total.lock()? += u64::from(number);
        report(queue, number)
    };
    let children: Vec<_> = (0..12u32)
        .map(|number| {
            let method = all_start_methods()[number as usize % 2];
            Process::new(add).args((total.clone(), queue.clone(), number)).start_method(method).start().unwrap()
        })
        .collect();
    let mut pids = BTreeSet::new();
    for child in &children {
        child.join().unwrap().check().unwrap();
        pids.insert(child.pid());
    }
    let seen: BTreeSet<u32> = queue.get_many(64).unwrap().into_iter().map(|message| message.unwrap().1).collect();
    assert_eq!(seen, pids);
    assert_eq!(*total.lock().unwrap(), 66);
}

#[test]
fn a_copy_of_the_server_is_a_child_of_this_process() {
    let queue = Queue::bounded(4).unwrap();
    let tell = |queue: Queue<(u32, String, u32)>| -> shmkit::Result<()> {
        let parent = shmkit::parent_process().unwrap();
        // SAFETY: gettid has no preconditions.
        let thread = unsafe { libc::syscall(libc::SYS_gettid) } as u32;
        assert_eq!(thread, std::process::id(), "the C library knows the copy's thread");
        // SAFETY: raise has no preconditions; signal 0 is none.
        assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), 0) }, 0);
        queue.put((parent.pid(), shmkit::current_process().name().to_owned(), thread))
    };
    let child =
        Process::new(tell).args((queue.clone(),)).start_method(StartMethod::ForkServer).name("copy").start().unwrap();
    child.join().unwrap().check().unwrap();
    assert_eq!(queue.get().unwrap(), (std::process::id(), "copy".to_owned(), child.pid()));
}

#[test]
fn ends_are_told_alike_under_all_methods() {
    for method in all_start_methods() {
        let start = |code: i32| Process::new(|code: i32| code).args((code,)).start_method(method).start().unwrap();
        assert_eq!(start(0).join().unwrap().exit_code(), Some(0));
        assert_eq!(start(7).join().unwrap().exit_code(), Some(7));
        let panics = Process::new(|| panic!("on purpose")).start_method(method).start().unwrap();
        let status = panics.join().unwrap();
        assert_eq!(status.exit_code(), Some(1), "{method}");
        assert!(status.message().unwrap().contains("on purpose"), "{method}: {status}");
        let waits = Process::new(|never: Event| never.wait()).args((Event::new().unwrap(),)).start_method(method);
        let killed = waits.start().unwrap();
        killed.kill().unwrap();
        assert_eq!(killed.join().unwrap().exit_code(), Some(-libc::SIGKILL), "{method}");
    }
}

#[test]
fn a_killed_holder_of_every_method_hands_its_lock_on() {
    for method in all_start_methods() {
        let (mutex, held) = (Mutex::new(1u64).unwrap(), Event::new().unwrap());
        let hold = |mutex: Mutex<u64>, held: Event| -> shmkit::Result<()> {
            let _guard = mutex.lock()?;
            held.set();
            Event::new()?.wait()
        };
        let child = Process::new(hold).args((mutex.clone(), held.clone())).start_method(method).start().unwrap();
        held.wait().unwrap();
        child.kill().unwrap();
        assert!(mutex.lock().unwrap_err().is_owner_died(), "{method}");
    }
}

static WARM: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// A process of its own, since the preload is the program's: its copies have what the server loaded, and a server that is
/// killed is started again.
fn warm(_: &[String]) {
    shmkit::process::set_forkserver_preload(|| WARM.store(42, std::sync::atomic::Ordering::Relaxed));
    shmkit::process::set_start_method(StartMethod::ForkServer).unwrap();
    let is_warm = || WARM.load(std::sync::atomic::Ordering::Relaxed) as i32;
    let run = || Process::new(is_warm).start().unwrap().join().unwrap().exit_code();
    assert_eq!(run(), Some(42));
    assert_eq!(WARM.load(std::sync::atomic::Ordering::Relaxed), 0, "this process loaded nothing");
    let server = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|children| children.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()).collect::<Vec<_>>())
        .next()
        .expect("the server is a child");
    // SAFETY: kill has no preconditions.
    unsafe { libc::kill(server, libc::SIGKILL) };
    assert_eq!(run(), Some(42), "another server");
    common::say("warm");
}

#[test]
fn the_server_is_warm_and_is_started_again() {
    let mut child = common::start("warm", &[]);
    child.expect("warm");
    child.succeeded();
}

/// Starts daemons of every method, a program and a copy, says who they are, and waits to be killed.
fn killed_with_children(_: &[String]) {
    let never = Event::new().unwrap();
    let mut all: Vec<Process> = all_start_methods()
        .into_iter()
        .map(|method| {
            let wait = Process::new(|never: Event| never.wait()).args((never.clone(),));
            wait.daemon(true).start_method(method).start().unwrap()
        })
        .collect();
    all.push(Process::command("sleep").arg("1000").daemon(true).start().unwrap());
    let theirs = never.clone();
    // SAFETY: this process has one thread beside shmkit's own.
    all.push(unsafe { Process::fork(move || theirs.wait()).daemon(true).start().unwrap() });
    for child in &all {
        common::say(&child.pid().to_string());
    }
    common::listen();
}

#[test]
fn daemons_of_every_method_die_with_a_killed_parent() {
    let mut parent = common::start("killed_with_children", &[]);
    let pids: Vec<u32> = (0..4).map(|_| parent.hear().parse().unwrap()).collect();
    parent.kill();
    for pid in pids {
        // Dead, or a zombie of whoever adopted it.
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
        };
        while !is_gone() {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_program_has_arguments_an_environment_and_ends() {
    let mut output = tempfile();
    let child = Process::command("sh")
        .args(["-c", "read line; echo \"$line $GREETING $0\" && pwd && exit 5", "me"])
        .env("GREETING", "hello")
        .env_remove("HOME")
        .current_dir("/")
        .stdin(text("input"))
        .stdout(output.try_clone().unwrap())
        .start()
        .unwrap();
    assert_eq!(child.join().unwrap().exit_code(), Some(5));
    output.rewind().unwrap();
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    assert_eq!(said, "input hello me\n/\n");
    assert!(child.name().starts_with("sh-"), "{}", child.name());
}

#[test]
fn a_program_that_is_not_there_is_told_of() {
    let status = Process::command("/no/such/program").start().unwrap().join().unwrap();
    assert_eq!(status.exit_code(), Some(127));
    assert!(status.message().unwrap().contains("/no/such/program"), "{status}");
}

/// An unnamed file.
fn tempfile() -> std::fs::File {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).open(std::env::temp_dir()).unwrap()
}

fn text(text: &str) -> std::fs::File {
    use std::io::Write;
    let mut file = tempfile();
    writeln!(file, "{text}").unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_program_attaches_to_the_session() {
    let session = shmkit::session().unwrap();
    let name = common::unique("answer");
    let answer: Value<u32> = session.value(&name).create().unwrap();
    let program = std::env::current_exe().unwrap();
    let child = Process::command(program).env("SHMKIT_TEST_ROLE", "attaches").env("SHMKIT_TEST_ARGUMENTS", &name);
    child.start().unwrap().join().unwrap().check().unwrap();
    assert_eq!(answer.get().unwrap(), 43);
    session.remove(&name).unwrap();
}

/// Another program, as far as the test's process is concerned: it knows its environment only.
fn attaches(arguments: &[String]) {
    assert!(shmkit::parent_process().is_none(), "it is no child of shmkit's");
    let answer = shmkit::session().unwrap().value::<u32>(&arguments[0]).open().unwrap();
    answer.set(43).unwrap();
}

#[test]
fn a_child_is_as_it_was_told_to_be() {
    for method in all_start_methods() {
        let check = |cpu: u32| -> Result<(), String> {
            let same = |what: &str, is: String, wanted: &str| {
                if is == wanted { Ok(()) } else { Err(format!("{what} is {is}, not {wanted}")) }
            };
            same("the directory", std::env::current_dir().unwrap().display().to_string(), "/")?;
            same("COLOUR", std::env::var("COLOUR").unwrap_or_default(), "blue")?;
            same("PATH", std::env::var("PATH").unwrap_or_default(), "")?;
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let field = |name: &str| {
                status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
            };
            same("the CPU", field("Cpus_allowed_list:"), &cpu.to_string())?;
            let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
            let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
            same("the limit", files.split_whitespace().nth(3).unwrap().to_owned(), "99")?;
            // SAFETY: getpriority has no preconditions.
            same("nice", unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }.to_string(), "7")
        };
        let cpu = (0..).find(|&cpu| usable(cpu)).unwrap();
        let child = Process::new(check)
            .args((cpu as u32,))
            .start_method(method)
            .current_dir("/")
            .env("COLOUR", "blue")
            .env_remove("PATH")
            .cpu_affinity([cpu])
            .limit(Limit::OpenFiles, 99)
            .nice(7)
            .start()
            .unwrap();
        let status = child.join().unwrap();
        assert!(status.success(), "{method}: {status}");
    }
}

/// Whether this process may run on a CPU.
fn usable(cpu: usize) -> bool {
    // SAFETY: the set is plain data that the call fills.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) == 0 && libc::CPU_ISSET(cpu, &set)
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = Process::new(|| ()).env("A=B", "c").start().unwrap_err().to_string();
    assert!(refused.contains("A=B"), "{refused}");
    let nowhere = Process::new(|| ()).current_dir("/no/such/directory").start().unwrap().join().unwrap();
    assert!(nowhere.message().unwrap().contains("/no/such/directory"), "{nowhere}");
}

/// A process with one thread: tests have several.
fn forks(_: &[String]) {
    let (queue, mutex) = (Queue::bounded(8).unwrap(), Mutex::new(1u32).unwrap());
    let captured = [1u32, 2, 3];
    let (theirs, lock) = (queue.clone(), mutex.clone());
    let body = move || -> shmkit::Result<i32> {
        theirs.put((shmkit::current_process().name().to_owned(), captured.iter().sum::<u32>()))?;
        assert_eq!(shmkit::parent_process().unwrap().pid(), theirs_parent());
        // A child of the copy, by another method.
        let grandchild = Process::new(|queue: Queue<(String, u32)>| {
            queue.put((shmkit::current_process().name().to_owned(), 0)).unwrap();
        });
        grandchild.args((theirs.clone(),)).start()?.join()?.check()?;
        let mut guard = lock.lock()?;
        *guard = 2;
        // SAFETY: raise has no preconditions.
        unsafe { libc::raise(libc::SIGKILL) };
        Ok(0)
    };
    // SAFETY: this process has one thread beside shmkit's own.
    let child = unsafe { Process::fork(body).name("copy").start().unwrap() };
    assert_eq!(child.join().unwrap().exit_code(), Some(-libc::SIGKILL));
    assert_eq!(queue.get().unwrap(), ("copy".to_owned(), 6));
    assert!(queue.get().unwrap().0.starts_with("Process-1:1"));
    assert_eq!(*mutex.lock().unwrap_err().repair(|_| ()).unwrap(), 2, "the copy's lock was handed on");
    // What only the copy still holds lives on.
    let kept = Value::new(7u32).unwrap();
    let (ours, done) = (kept.clone(), Event::new().unwrap());
    let gone = done.clone();
    // SAFETY: as above.
    let child = unsafe {
        Process::fork(move || {
            gone.wait().unwrap();
            ours.get().unwrap() as i32
        })
        .start()
        .unwrap()
    };
    drop(kept);
    done.set();
    assert_eq!(child.join().unwrap().exit_code(), Some(7));
    // SAFETY: as above.
    let panics = unsafe { Process::fork(|| -> i32 { panic!("in the copy") }).start().unwrap() };
    let status = panics.join().unwrap();
    assert!(status.message().unwrap().contains("in the copy"), "{status}");
    drop((queue, mutex, done));
    shmkit::session().unwrap().verify().unwrap();
    common::say("forked");
}

fn theirs_parent() -> u32 {
    // SAFETY: getppid has no preconditions.
    unsafe { libc::getppid() as u32 }
}

#[test]
fn a_copy_has_everything_and_is_a_process_of_its_own() {
    let mut child = common::start("forks", &[]);
    child.expect("forked");
    child.succeeded();
}

fn refuses_to_fork(_: &[String]) {
    let stop = Event::new().unwrap();
    let theirs = stop.clone();
    let thread = std::thread::spawn(move || theirs.wait().unwrap());
    // SAFETY: it is refused.
    let refused = unsafe { Process::fork(|| ()).start().unwrap_err() };
    common::say(if refused.to_string().contains("several threads") { "refused" } else { "another error" });
    // SAFETY: the other thread waits in a system call and holds nothing the closure needs.
    let told = unsafe { Process::fork(|| 9).allow_threads().start().unwrap() };
    common::say(&told.join().unwrap().exit_code().unwrap().to_string());
    stop.set();
    thread.join().unwrap();
}

#[test]
fn a_process_with_threads_is_copied_only_if_told_to() {
    let mut child = common::start("refuses_to_fork", &[]);
    child.expect("refused");
    child.expect("9");
    child.succeeded();
}
