//! A shard: a process on a CPU of its own that takes one operation after the other and does all its runs.

use super::plan::{self, Extent, Kind, Point, mix_name};
use super::run::{Harness, Operation, Place, Run};
use crate::board::{Board, Tally};
use crate::operation::{Check, Family, WRONGS, corrupt};
use crate::random::mix;
use crate::step::Trace;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What all shards know.
pub struct Grid {
    /// All families.
    pub families: Vec<Box<dyn Family>>,
    /// All operations.
    pub operations: Vec<Operation>,
    /// How much of it.
    pub extent: Extent,
    /// What it follows from.
    pub seed: u64,
    /// Whether the first fault ends it.
    pub until_fault: bool,
    /// How many shards there are.
    pub jobs: u32,
    /// The first and the last instruction that are wanted.
    pub only: Option<(u32, u32)>,
    /// Where everything is written down.
    pub board: &'static Board,
    /// Prefix of the segments' names.
    pub prefix: String,
    /// When it began.
    pub start: Instant,
}

impl Grid {
    /// The operation and the pass of a task.
    pub fn of_task(&self, task: usize) -> (usize, u32) {
        (task % self.operations.len(), (task / self.operations.len()) as u32)
    }

    /// The reverse.
    fn task(&self, operation: usize, pass: u32) -> usize {
        pass as usize * self.operations.len() + operation
    }

    /// Until when the runs of an operation that begins now may last: its share of the time, if it is the first pass, else all.
    fn limit(&self, pass: u32) -> Duration {
        let taken = |tally: &&Tally| tally.taken.load(Ordering::Relaxed) == 0;
        let left = self.board.tallies[..self.operations.len()].iter().filter(taken).count() as u32;
        let elapsed = self.start.elapsed();
        let share = self.extent.time.saturating_sub(elapsed) / (left + 1);
        match pass {
            0 if self.only.is_none() => elapsed.saturating_add(share.saturating_mul(self.jobs)),
            _ => self.extent.time,
        }
    }

    /// Whether enough was found.
    fn is_over(&self) -> bool {
        let is_wrong = |tally: &Tally| tally.wrongs.iter().any(|count| count.load(Ordering::Relaxed) > 0);
        self.until_fault && self.board.tallies[..self.operations.len()].iter().any(is_wrong)
    }

    /// How many passes there are.
    fn passes(&self) -> u32 {
        if self.only.is_some() { 1 } else { self.extent.passes }
    }

    /// The line of an operation.
    pub fn print(&self, index: usize) {
        let tally = &self.board.tallies[index];
        if tally.is_printed.swap(1, Ordering::Relaxed) == 1 {
            return;
        }
        let counts = WRONGS.iter().zip(&tally.wrongs).filter_map(|(&(_, name), count)| {
            let count = count.load(Ordering::Relaxed);
            (count > 0).then(|| format!("{count} {name}"))
        });
        let counts: Vec<String> = counts.collect();
        println!(
            "{:40} {:>7} instructions {:>6} seen {:>7} kills {:>5} ms  {}",
            self.operations[index].name,
            tally.instructions.load(Ordering::Relaxed),
            tally.news.load(Ordering::Relaxed),
            tally.kills.load(Ordering::Relaxed),
            tally.longest.load(Ordering::Relaxed),
            if counts.is_empty() { "ok".to_owned() } else { counts.join(", ") }
        );
    }
}

/// The runs of an operation in a pass that are done even if the time is up. The first one is a kill.
const FEWEST: u32 = 3;

/// The most faults of one operation that are printed.
const PRINTED: u32 = 5;

struct Shard<'a> {
    grid: &'a Grid,
    harness: Harness<'a>,
    /// Of acts.
    traces: HashMap<(usize, usize), Trace>,
    /// Of those who recover, by operation and seed.
    recoveries: HashMap<(usize, u64), Trace>,
}

/// The life of shard `index`, which goes on with run `resume` of a task, if told.
pub fn live(grid: &Grid, index: usize, resume: Option<(u32, u32)>) {
    pin(index);
    let harness = Harness::new(&grid.families, grid.board, index, &grid.prefix);
    let (traces, recoveries) = (HashMap::new(), HashMap::new());
    let mut shard = Shard { grid, harness, traces, recoveries };
    if let Some((task, run)) = resume {
        shard.task(task as usize, run);
    }
    let own = index as u32 + 1;
    for pass in 0..grid.passes() {
        for place in 0..grid.families.len() {
            // Another one is first each time: on a slow machine the last ones may have few runs, or none.
            let family = (place + grid.seed as usize) % grid.families.len();
            // Relaxed: the number is all there is to see.
            let taken = grid.board.owners[family].compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed);
            if taken.is_ok() || taken == Err(own) {
                shard.pass(pass, |operation| operation.family == family);
            }
        }
        if pass + 1 == grid.passes() {
            // Who is done helps the others.
            shard.pass(pass, |_| true);
        }
    }
}

/// Keeps this process, and all that it forks, on one of the CPUs it may use.
fn pin(index: usize) {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else { return };
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect();
    let mut mine = CpuSet::new();
    if !cpus.is_empty() && mine.set(cpus[index % cpus.len()]).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &mine);
    }
}

impl<'a> Shard<'a> {
    /// Those operations of a pass that nobody has taken.
    fn pass(&mut self, pass: u32, is_meant: impl Fn(&Operation) -> bool) {
        let grid = self.grid;
        for (index, _) in grid.operations.iter().enumerate().filter(|(_, operation)| is_meant(operation)) {
            // The first pass leaves nobody out, however late it is.
            if pass > 0 && grid.start.elapsed() > grid.extent.time || grid.is_over() {
                return;
            }
            let taken = &grid.board.tallies[index].taken;
            // Relaxed: the number is all there is to see.
            if taken.compare_exchange(pass, pass + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                grid.board.passes.fetch_max(pass + 1, Ordering::Relaxed);
                self.task(grid.task(index, pass), 0);
            }
        }
    }

    /// The runs of an operation in a pass, from `first` on.
    fn task(&mut self, task: usize, first: u32) {
        let grid = self.grid;
        let (index, pass) = grid.of_task(task);
        let operation = &grid.operations[index];
        let progress = self.harness.progress;
        progress.task.store(task as u32, Ordering::Relaxed);
        progress.run.store(first, Ordering::Relaxed);
        progress.beat.fetch_add(1, Ordering::Relaxed);
        let corpses = if operation.is_recovery { grid.extent.corpses } else { 1 };
        let mut done = 0;
        let limit = grid.limit(pass);
        for corpse in 0..corpses {
            // Another place of the corpse, and all that follows from it, by another seed.
            let seed = grid.seed.wrapping_add(corpse);
            if let Err(fault) = self.runs(index, pass, seed, first, &mut done, limit) {
                self.report(index, &fault, (0, seed), "in a whole run, nobody killed");
            }
        }
        if pass + 1 == grid.passes() {
            grid.print(index);
        }
    }

    /// The runs of an operation in a pass for one seed. `done` counts them over all seeds.
    fn runs(&mut self, index: usize, pass: u32, seed: u64, first: u32, done: &mut u32, limit: Duration) -> Check {
        let grid = self.grid;
        let operation = &grid.operations[index];
        let corpse = match operation.is_recovery {
            true => {
                let trace = self.trace_of_act(operation)?;
                // Where it leaves something that it has not left before.
                let place = mix_name(seed, &operation.name) % trace.news.len() as u64;
                Some((trace.news[place as usize], trace))
            }
            false => None,
        };
        let place =
            corpse.as_ref().map(|(count, trace)| Place { act: operation.act, count: *count, trace: Some(trace) });
        let own = match &place {
            Some(place) => match self.recoveries.get(&(index, seed)) {
                Some(trace) => trace.clone(),
                None => {
                    let trace = Trace::new(&self.harness.trace(operation, Some(place.clone()))?, false);
                    self.recoveries.insert((index, seed), trace.clone());
                    trace
                }
            },
            None => self.trace_of_act(operation)?,
        };
        let tally = &grid.board.tallies[index];
        tally.instructions.fetch_max(own.len, Ordering::Relaxed);
        tally.news.fetch_max(own.news.len() as u32, Ordering::Relaxed);
        let info = grid.families[operation.family].acts()[operation.act];
        let has_pairs = !operation.is_recovery && !info.is_alone;
        let mut extent = grid.extent;
        if info.starts.is_some() || info.has_threads {
            extent.kills = (extent.kills / extent.thin).min(extent.most_of_many);
            extent.halts /= extent.thin;
        }
        let points = match grid.only {
            None => plan::points(&extent, operation.is_recovery, has_pairs, &own, seed),
            Some((first, last)) => {
                let kinds = [(Kind::Kill, true), (Kind::Lazy, true), (Kind::Pair, has_pairs), (Kind::Halt, true)];
                let kinds = kinds.into_iter().filter_map(|(kind, has)| has.then_some(kind));
                (first..=last).flat_map(|count| kinds.clone().map(move |kind| Point { count, kind, seed })).collect()
            }
        };
        let passes = grid.passes() as usize;
        for (_, point) in points.into_iter().enumerate().filter(|(place, _)| place % passes == pass as usize) {
            *done += 1;
            if *done <= first {
                continue;
            }
            if *done > FEWEST && grid.start.elapsed() > limit || grid.is_over() {
                break;
            }
            let progress = self.harness.progress;
            progress.run.store(*done, Ordering::Relaxed);
            progress.count.store(point.count, Ordering::Relaxed);
            progress.seed.store(point.seed, Ordering::Relaxed);
            progress.beat.fetch_add(1, Ordering::Relaxed);
            self.point(index, &own, place.clone(), point);
        }
        Ok(())
    }

    fn point(&mut self, index: usize, trace: &Trace, corpse: Option<Place<'_>>, point: Point) {
        let grid = self.grid;
        let operation = &grid.operations[index];
        let stopped = match (point.kind == Kind::Pair).then(|| self.bystander(operation, point)).transpose() {
            Ok(stopped) => stopped,
            Err(fault) => {
                let how = format!("nobody can be stopped while somebody is killed in {}", operation.name);
                return self.report(index, &fault, (point.count, point.seed), &how);
            }
        };
        let bystander =
            stopped.as_ref().map(|(act, count, trace)| Place { act: *act, count: *count, trace: Some(trace) });
        let run = Run {
            count: point.count,
            trace: Some(trace),
            corpse,
            bystander,
            is_lazy: point.kind == Kind::Lazy,
            is_halt: point.kind == Kind::Halt,
        };
        let outcome = self.harness.run(operation, &run);
        let tally = &grid.board.tallies[index];
        tally.kills.fetch_add(outcome.kills, Ordering::Relaxed);
        tally.longest.fetch_max(outcome.longest.as_millis() as u64, Ordering::Relaxed);
        if let Some(fault) = outcome.fault {
            let how = describe(grid, operation, &run);
            self.report(index, &fault, (point.count, point.seed), &how);
        }
    }

    /// Who is stopped meanwhile, and where.
    fn bystander(&mut self, operation: &Operation, point: Point) -> Check<(usize, u32, Trace)> {
        let acts = self.grid.families[operation.family].acts();
        let candidates: Vec<usize> = (0..acts.len()).filter(|&act| acts[operation.act].may_pair(&acts[act])).collect();
        let number = mix(&[mix_name(point.seed, &operation.name), u64::from(point.count), 3]);
        let Some(&act) = candidates.get(number as usize % candidates.len().max(1)) else {
            return corrupt("no act of the family can be one of a pair");
        };
        let name = super::name(&*self.grid.families[operation.family], &acts[act], false);
        let trace = self.trace_of_act(&Operation { name, family: operation.family, act, is_recovery: false })?;
        let count = (mix(&[number, 4]) % u64::from(trace.len + 1)) as u32;
        Ok((act, count, trace))
    }

    fn trace_of_act(&mut self, operation: &Operation) -> Check<Trace> {
        let key = (operation.family, operation.act);
        if let Some(trace) = self.traces.get(&key) {
            return Ok(trace.clone());
        }
        let plain = Operation { is_recovery: false, ..operation.clone() };
        let info = self.grid.families[operation.family].acts()[operation.act];
        let is_hard = info.has_threads || info.starts.is_some();
        let trace = Trace::new(&self.harness.trace(&plain, None)?, is_hard);
        self.harness.progress.beat.fetch_add(1, Ordering::Relaxed);
        self.traces.insert(key, trace.clone());
        Ok(trace)
    }

    fn report(&self, index: usize, fault: &crate::operation::Fault, place: (u32, u64), how: &str) {
        super::report(self.grid, index, fault, place, how, PRINTED);
    }
}

fn describe(grid: &Grid, operation: &Operation, run: &Run<'_>) -> String {
    let acts = grid.families[operation.family].acts();
    let what = if run.is_halt { "stopped" } else { "killed" };
    let mut how = format!("{what} after {} in {}", run.count, operation.name);
    if let Some(place) = &run.corpse {
        how += &format!(", repairing who died in {} after {}", acts[place.act].name, place.count);
    }
    if let Some(place) = &run.bystander {
        how += &format!(", with another stopped in {} after {}", acts[place.act].name, place.count);
    }
    if run.is_lazy {
        how += ", nobody told";
    }
    how
}
