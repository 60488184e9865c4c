//! What children and programs can be told to be like, whatever starts them: each option by what the child itself sees of it.

mod common;

use shmkit::process::{Limit, StartMethod, Stdio, all_start_methods};
use shmkit::{Event, Process};
use std::io::{Read, Write};

roles!(inherits_input, copies_with_options);

/// What this process is like, in words.
fn look(cpu: usize) -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
    // SAFETY: getpriority has no preconditions.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let seen = [
        ("directory", std::env::current_dir().unwrap().display().to_string(), "/usr".to_owned()),
        ("COLOUR", format!("{:?}", std::env::var_os("COLOUR")), "Some(\"blue\")".to_owned()),
        ("HOME", format!("{:?}", std::env::var_os("HOME")), "None".to_owned()),
        ("CPUs", cpus, cpu.to_string()),
        ("nice", nice.to_string(), "9".to_owned()),
        ("open files", limit("Max open files"), "77 77".to_owned()),
        ("address space", limit("Max address space"), format!("{0} {0}", 64u64 << 30)),
        ("core size", limit("Max core file size"), "0 0".to_owned()),
        ("CPU time", limit("Max cpu time"), "300 300".to_owned()),
        ("file size", limit("Max file size"), "1048576 1048576".to_owned()),
    ];
    match seen.into_iter().find(|(_, is, wanted)| is != wanted) {
        None => Ok(()),
        Some((what, is, wanted)) => Err(format!("{what}: {is}, not {wanted}")),
    }
}

macro_rules! with_options {
    ($builder:expr, $cpu:expr) => {
        $builder
            .current_dir("/usr")
            .env("COLOUR", "blue")
            .env_remove("HOME")
            .cpu_affinity([$cpu])
            .nice(9)
            .limit(Limit::OpenFiles, 77)
            .limit(Limit::AddressSpace, 64 << 30)
            .limit(Limit::CoreSize, 0)
            .limit(Limit::CpuTime, 300)
            .limit(Limit::FileSize, 1 << 20)
    };
}

/// A CPU this process may use.
fn a_cpu() -> usize {
    // SAFETY: the set is plain data that the call fills.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
        (0..libc::CPU_SETSIZE as usize).rev().find(|&cpu| libc::CPU_ISSET(cpu, &set)).unwrap()
    }
}

#[test]
fn children_of_all_methods_are_as_they_were_told_to_be() {
    let cpu = a_cpu();
    for method in all_start_methods() {
        let child = with_options!(Process::new(look).args((cpu,)).start_method(method), cpu).start().unwrap();
        let status = child.join().unwrap();
        assert!(status.success(), "{method}: {status}");
    }
    // None of it is this process's.
    assert!(look(cpu).is_err());
}

/// A process with one thread: tests have several.
fn copies_with_options(_: &[String]) {
    let cpu = a_cpu();
    // SAFETY: this process has one thread beside shmkit's own.
    let copy = unsafe { with_options!(Process::fork(move || look(cpu)), cpu).start().unwrap() };
    copy.join().unwrap().check().unwrap();
    common::say("as told");
}

#[test]
fn a_copy_is_as_it_was_told_to_be() {
    let mut child = common::start("copies_with_options", &[]);
    child.expect("as told");
    child.succeeded();
}

#[test]
fn a_program_is_as_it_was_told_to_be() {
    let script =
        "pwd; echo $COLOUR-$HOME-; nice; ulimit -n; ulimit -c; ulimit -t; grep Cpus_allowed_list /proc/self/status";
    let (mut from_it, output) = std::io::pipe().unwrap();
    let cpu = a_cpu();
    let program = with_options!(Process::command("sh").args(["-c", script]).stdout(output), cpu).start().unwrap();
    let mut said = String::new();
    from_it.read_to_string(&mut said).unwrap();
    assert_eq!(said, format!("/usr\nblue--\n9\n77\n0\n300\nCpus_allowed_list:\t{cpu}\n"));
    program.join().unwrap().check().unwrap();
}

#[test]
fn a_limit_is_a_limit() {
    let spin = || {
        let mut number = 0u64;
        loop {
            number = std::hint::black_box(number.wrapping_add(1));
        }
    };
    let child = Process::new(spin).limit(Limit::CpuTime, 1).limit(Limit::CoreSize, 0).start().unwrap();
    let status = child.join().unwrap();
    assert!(matches!(status.signal(), Some(libc::SIGXCPU | libc::SIGKILL)), "{status}");
    let write =
        || std::fs::write(std::env::temp_dir().join("shmkit-test-limit"), vec![0; 4096]).map_err(|e| e.to_string());
    let child = Process::new(write).limit(Limit::FileSize, 0).start().unwrap();
    let status = child.join().unwrap();
    assert!(!status.success(), "{status}");
    let _ = std::fs::remove_file(std::env::temp_dir().join("shmkit-test-limit"));
}

// ---- standard input, output and error ------------------------------------------------------------------------------------

#[test]
fn a_programs_input_output_and_errors_are_pipes_files_or_nothing() {
    let ((input, mut to_it), (mut from_it, output), (mut errors, complaints)) =
        (std::io::pipe().unwrap(), std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let script = "read line; echo out:$line; echo err:$line >&2";
    let program = Process::command("sh").args(["-c", script]).stdin(input).stdout(output).stderr(complaints);
    let program = program.start().unwrap();
    to_it.write_all(b"hello\n").unwrap();
    let (mut said, mut complained) = (String::new(), String::new());
    from_it.read_to_string(&mut said).unwrap();
    errors.read_to_string(&mut complained).unwrap();
    assert_eq!((said.as_str(), complained.as_str()), ("out:hello\n", "err:hello\n"));
    program.join().unwrap().check().unwrap();

    let (mut from_it, output) = std::io::pipe().unwrap();
    let script = "cat; readlink /proc/self/fd/0 /proc/self/fd/2";
    let program = Process::command("sh").args(["-c", script]).stdout(output).stderr(Stdio::Null).start().unwrap();
    let mut said = String::new();
    from_it.read_to_string(&mut said).unwrap();
    assert_eq!(said, "/dev/null\n/dev/null\n", "nothing to read, and nobody hears");
    program.join().unwrap().check().unwrap();
}

/// Its program reads what it was given to read itself.
fn inherits_input(_: &[String]) {
    let program = Process::command("sh").args(["-c", "read line; echo got $line"]).stdin(Stdio::Inherit);
    program.stdout(Stdio::Inherit).start().unwrap().join().unwrap().check().unwrap();
}

#[test]
fn a_program_may_have_its_parents_input() {
    let mut parent = common::start("inherits_input", &[]);
    parent.tell("this");
    parent.expect("got this");
    parent.succeeded();
}

// ---- programs and their parents ------------------------------------------------------------------------------------------

#[test]
fn a_program_has_no_descriptors_but_its_own_and_the_sessions() {
    let (mut from_it, output) = std::io::pipe().unwrap();
    // SAFETY: a copy of standard output that is not closed on exec.
    let inheritable = unsafe { libc::fcntl(1, libc::F_DUPFD, 100) };
    assert!(inheritable >= 100);
    let script = "ls /proc/self/fd | tr '\\n' ' '; echo; echo $SHMKIT_SESSION_FD$SHMKIT_SESSION-$SHMKIT_SPAWN";
    let program = Process::command("sh").args(["-c", script]).stdout(output).start().unwrap();
    let mut said = String::new();
    from_it.read_to_string(&mut said).unwrap();
    program.join().unwrap().check().unwrap();
    // SAFETY: opened above, and used by nobody else.
    unsafe { libc::close(inheritable) };
    let (descriptors, session) = said.split_once('\n').unwrap();
    let session = session.trim_end().strip_suffix('-').expect("what enters a child is not the program's");
    let own: Vec<&str> = descriptors.split_whitespace().collect();
    // Its three, the session's, and the one with which the directory is read.
    assert!(own.contains(&session), "{said}");
    assert!(own.len() == 5 && !own.contains(&inheritable.to_string().as_str()), "{said}");
}

#[test]
fn a_program_is_interrupted_terminated_and_killed() {
    for (send, signal) in [
        (Process::interrupt as fn(&Process) -> shmkit::Result<()>, libc::SIGINT),
        (Process::terminate, libc::SIGTERM),
        (Process::kill, libc::SIGKILL),
    ] {
        let (mut from_it, output) = std::io::pipe().unwrap();
        // It says that it has become the program: before, it is this executable.
        let program = Process::command("sh").args(["-c", "echo here; exec sleep 1000"]).stdout(output).start().unwrap();
        from_it.read_exact(&mut [0; 5]).unwrap();
        send(&program).unwrap();
        assert_eq!(program.join().unwrap().exit_code(), Some(-signal));
    }
}

#[test]
fn a_child_of_a_child_is_started_by_any_method() {
    let start = |methods: Vec<u8>, seen: Event| -> shmkit::Result<()> {
        fn start(mut methods: Vec<u8>, seen: Event) -> shmkit::Result<()> {
            let Some(next) = methods.pop() else {
                seen.set();
                return Ok(());
            };
            let method = [StartMethod::Spawn, StartMethod::ForkServer][usize::from(next)];
            Process::new(start).args((methods, seen)).start_method(method).start()?.join()?.check()
        }
        start(methods, seen)
    };
    for methods in [vec![0, 1, 0, 1], vec![1, 0, 1, 0], vec![1, 1, 1], vec![0, 0, 0]] {
        let seen = Event::new().unwrap();
        start(methods, seen.clone()).unwrap();
        assert!(seen.is_set());
    }
}

#[test]
fn what_cannot_be_is_the_childs_message() {
    let message = |child: Process| {
        let status = child.join().unwrap();
        assert_eq!(status.exit_code(), Some(1), "{status}");
        status.message().unwrap().to_owned()
    };
    for method in all_start_methods() {
        let child = || Process::new(|| ()).start_method(method);
        for cpus in [vec![], vec![1_000_000], vec![usize::MAX]] {
            let said = message(child().cpu_affinity(cpus).start().unwrap());
            assert!(said.contains("cannot run on the CPUs"), "{said}");
        }
        let said = message(child().current_dir("/proc/self/exe").start().unwrap());
        assert!(said.contains("cannot enter /proc/self/exe"), "{said}");
    }
    // More than there is is as much as there is.
    let nice = Process::new(|| {
        // SAFETY: getpriority has no preconditions.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    });
    assert_eq!(nice.nice(100).start().unwrap().join().unwrap().exit_code(), Some(19));
}
