//! Starting processes, and pools of them.

use crate::Result;
use crate::contest::Kind::{Limit, Reference, Shmkit};
use crate::contest::{Contestant, Figure, Goal, Unit};
use crate::drivers::latencies;
use crate::limits;
use crate::peers;
use crate::stage::Stage;
use shmkit::process::StartMethod;
use shmkit::{Barrier, Pool, Process};
use std::time::{Duration, Instant};

fn nothing() {}

/// Start and join, one after the other.
fn start_join(stage: &Stage) -> Result {
    Process::new(nothing).start()?.join()?.check()?;
    let start = Instant::now();
    for _ in 0..stage.n {
        Process::new(nothing).start()?.join()?.check()?;
    }
    stage.publish(start.elapsed().as_nanos() as f64 / 1e3 / stage.n as f64);
    Ok(())
}

/// As [`start_join`], by a fork server.
fn forkserver_start_join(stage: &Stage) -> Result {
    let once = || Process::new(nothing).start_method(StartMethod::ForkServer).start()?.join()?.check();
    once()?;
    let start = Instant::now();
    for _ in 0..stage.n {
        once()?;
    }
    stage.publish(start.elapsed().as_nanos() as f64 / 1e3 / stage.n as f64);
    Ok(())
}

/// The trivial task of every pool.
pub fn next(number: u64) -> u64 {
    number + 1
}

/// Checks what a pool made of `0..n` and publishes thousands of tasks a second.
///
/// # Errors
/// If a result is wrong or missing.
pub fn check_pool(stage: &Stage, results: &[u64], start: Instant) -> Result {
    let elapsed = start.elapsed();
    if results.len() as u64 != stage.n || results.iter().zip(1..).any(|(&found, expected)| found != expected) {
        return Err("a result is wrong".into());
    }
    stage.publish(stage.n as f64 / elapsed.as_secs_f64() / 1e3);
    Ok(())
}

/// Lets a measurement use every CPU: pools are not pinned.
///
/// # Errors
/// If the kernel refuses.
pub fn unpin() -> Result {
    // SAFETY: the set is plain data; the numbers are those the harness was started on.
    let outcome = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in crate::stage::cpus() {
            libc::CPU_SET(cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

/// Comes back when both workers are here.
fn meet(both: Barrier) -> bool {
    both.wait().is_ok()
}

/// Waits until both workers have begun to work: one that still starts takes the other one's CPU.
fn await_workers(pool: &Pool) -> Result {
    let both = Barrier::new(2)?;
    let mut met = [both.clone(), both].map(|both| pool.apply_async(meet, (both,)));
    for met in &mut met {
        if !met.get()? {
            return Err("the workers did not meet".into());
        }
    }
    Ok(())
}

fn pool(stage: &Stage, chunk: usize) -> Result {
    unpin()?;
    let pool = Pool::new(2)?;
    await_workers(&pool)?;
    pool.map(next, 0..100)?;
    let start = Instant::now();
    let results = pool.map_chunked(next, 0..stage.n, chunk).get()?;
    check_pool(stage, &results, start)
}

fn pool_chunk_1(stage: &Stage) -> Result {
    pool(stage, 1)
}

fn pool_chunk_64(stage: &Stage) -> Result {
    pool(stage, 64)
}

/// One task after the other, while the workers still look for the next one.
fn apply_back_to_back(stage: &Stage) -> Result {
    unpin()?;
    apply(stage, &Pool::new(2)?)
}

/// Never spins, and stays on the CPU of a role.
fn sleeper(role: usize) {
    shmkit::set_spin_time(Duration::ZERO);
    crate::stage::pin(role).expect("the harness may use this CPU");
}

/// One task at a time, as it comes to workers that sleep: nobody spins. The caller is on the first CPU and the workers are on the
/// second one, as are the two sides of the pipe that this is compared with.
fn apply_to_idle_workers(stage: &Stage) -> Result {
    sleeper(0);
    apply(stage, &Pool::builder().workers(2).initializer(sleeper, (1,)).start()?)
}

fn apply(stage: &Stage, pool: &Pool) -> Result {
    await_workers(pool)?;
    for number in 0..10 {
        pool.apply(next, (number,))?;
    }
    let mut histogram = latencies();
    let all = Instant::now();
    for number in 0..stage.n {
        let start = Instant::now();
        if pool.apply(next, (number,))? != number + 1 {
            return Err("the result is wrong".into());
        }
        let _ = histogram.record(start.elapsed().as_nanos() as u64);
    }
    stage.publish(all.elapsed().as_nanos() as f64 / 1e3 / stage.n as f64);
    stage.publish_latencies(&histogram);
    Ok(())
}

const TASKS: u64 = 100_000;

pub fn figures() -> Vec<Figure> {
    let call = super::pipes::blocked_in_microseconds();
    let apply = Figure::new("pool: apply, one at a time, idle workers", Unit::Microseconds)
        .about(
            "Caller and workers sleep in between, as both sides of the pipe do, on the same two CPUs. Back to back they do not, and \
             are not pinned; nor are the others.",
        )
        .goal(Goal::AtMost(1.3, call.label))
        .with([
            Contestant::single("shmkit", Shmkit, apply_to_idle_workers),
            call,
            Contestant::single("back to back, spinning", Reference, apply_back_to_back),
        ])
        .with(peers::pool_apply());
    vec![
        Figure::new("process: start and join, spawn", Unit::Microseconds)
            .about("Starter and started are on one CPU, the first; Python's are not pinned.")
            .goal(Goal::AtMost(1.2, "std::process::Command"))
            .with([
                Contestant::single("shmkit", Shmkit, start_join),
                Contestant::single("std::process::Command", Limit, limits::command),
            ])
            .with(peers::processes()),
        Figure::new("process: start and join, forkserver", Unit::Microseconds)
            .about("Asker, server and child are on one CPU, the first; Python's are not pinned.")
            .goal(Goal::AtMost(2.0, "fork, _exit, waitpid"))
            .with([
                Contestant::single("shmkit", Shmkit, forkserver_start_join),
                Contestant::single("fork, _exit, waitpid", Limit, limits::fork),
                Contestant::single("minimal fork server", Reference, limits::fork_server),
            ])
            .with(peers::forked_processes()),
        Figure::new("pool: trivial tasks, chunk 1", Unit::Thousands)
            .about("Two workers. Tasks travel in runs of up to 32 a message, each one a task of its own. Nobody is pinned.")
            .goal(Goal::AtLeast(0.4, "two threads over crossbeam-channel"))
            .goal(Goal::AtLeast(25.0, "Python's Pool"))
            .goal(Goal::AtLeast(50.0, "procspawn's Pool"))
            .with([
                Contestant::single("shmkit", Shmkit, pool_chunk_1).fixed(TASKS),
                Contestant::single("chunk 64", Reference, pool_chunk_64).fixed(TASKS),
            ])
            .with(peers::pools()),
        apply,
    ]
}
