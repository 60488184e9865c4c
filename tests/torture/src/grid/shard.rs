//! A shard: a process on a CPU of its own that takes one operation after the other and does all its runs.

use super::plan::{self, Extent, Kind, Point, mix, mix_name};
use super::run::{Harness, Operation, Place, Run};
use crate::board::Board;
use crate::operation::{Check, Family, WRONGS};
use crate::step::{Trace, own_code};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering;

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
    /// The first and the last instruction that are wanted.
    pub only: Option<(u32, u32)>,
    /// Where everything is written down.
    pub board: &'static Board,
    /// Prefix of the segments' names.
    pub prefix: String,
}

/// The most faults of one operation that are printed.
const PRINTED: u32 = 5;

struct Shard<'a> {
    grid: &'a Grid,
    harness: Harness<'a>,
    code: Range<u64>,
    traces: HashMap<(usize, usize), Trace>,
}

/// The life of shard `index`, which goes on with run `resume` of an operation, if told.
pub fn live(grid: &Grid, index: usize, resume: Option<(u32, u32)>) {
    pin(index);
    let harness = Harness::new(&grid.families, grid.board, index, &grid.prefix);
    let mut shard = Shard { grid, harness, code: own_code(), traces: HashMap::new() };
    if let Some((operation, run)) = resume {
        shard.operation(operation as usize, run);
    }
    loop {
        let next = grid.board.next.fetch_add(1, Ordering::Relaxed) as usize;
        if next >= grid.operations.len() {
            return;
        }
        shard.operation(next, 0);
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
    /// All runs of an operation, from `first` on.
    fn operation(&mut self, index: usize, first: u32) {
        let grid = self.grid;
        let operation = &grid.operations[index];
        let progress = self.harness.progress;
        progress.operation.store(index as u32, Ordering::Relaxed);
        progress.run.store(first, Ordering::Relaxed);
        progress.beat.fetch_add(1, Ordering::Relaxed);
        let rounds = if operation.is_recovery { grid.extent.corpses } else { 1 };
        let mut done = 0;
        for round in 0..rounds {
            // Another place of the corpse, and all that follows from it, by another seed.
            let seed = grid.seed.wrapping_add(round);
            if let Err(fault) = self.round(index, seed, first, &mut done) {
                self.report(index, &fault, &format!("{}:0:{seed}", operation.name), "in a whole run, nobody killed");
            }
        }
        let tally = &grid.board.tallies[index];
        let counts = WRONGS.iter().zip(&tally.wrongs).filter_map(|(&(_, name), count)| {
            let count = count.load(Ordering::Relaxed);
            (count > 0).then(|| format!("{count} {name}"))
        });
        let counts: Vec<String> = counts.collect();
        println!(
            "{:32} {:>7} instructions {:>7} kills  {}",
            operation.name,
            tally.instructions.load(Ordering::Relaxed),
            tally.kills.load(Ordering::Relaxed),
            if counts.is_empty() { "ok".to_owned() } else { counts.join(", ") }
        );
    }

    /// All runs of an operation for one seed. `done` counts them over all rounds.
    fn round(&mut self, index: usize, seed: u64, first: u32, done: &mut u32) -> Check {
        let grid = self.grid;
        let operation = &grid.operations[index];
        let tally = &grid.board.tallies[index];
        let corpse = match operation.is_recovery {
            true => {
                let trace = self.trace_of_act(operation)?;
                let count = (mix_name(seed, &operation.name) % u64::from(trace.len + 1)) as u32;
                Some((count, trace))
            }
            false => None,
        };
        let place =
            corpse.as_ref().map(|(count, trace)| Place { act: operation.act, count: *count, trace: Some(trace) });
        let own = match &place {
            Some(place) => Trace::new(&self.harness.trace(operation, Some(place.clone()))?, &self.code),
            None => self.trace_of_act(operation)?,
        };
        tally.instructions.fetch_max(own.len, Ordering::Relaxed);
        let acts = grid.families[operation.family].acts();
        let has_pairs = !operation.is_recovery && !acts[operation.act].is_alone;
        let points = match grid.only {
            None => plan::points(&grid.extent, operation.is_recovery, has_pairs, own.len, seed),
            Some((first, last)) => {
                let kinds = &[Kind::Kill, Kind::Lazy, Kind::Pair][..if has_pairs { 3 } else { 2 }];
                let at = |count| kinds.iter().map(move |&kind| Point { count, kind, seed });
                (first..=last).flat_map(at).collect()
            }
        };
        for point in points {
            *done += 1;
            if *done <= first {
                continue;
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
        let stopped = (point.kind == Kind::Pair).then(|| self.bystander(operation, point)).flatten();
        let bystander =
            stopped.as_ref().map(|(act, count, trace)| Place { act: *act, count: *count, trace: Some(trace) });
        let run = Run { count: point.count, trace: Some(trace), corpse, bystander, is_lazy: point.kind == Kind::Lazy };
        let outcome = self.harness.run(operation, &run);
        grid.board.tallies[index].kills.fetch_add(outcome.kills, Ordering::Relaxed);
        if let Some(fault) = outcome.fault {
            let how = describe(grid, operation, &run);
            self.report(index, &fault, &format!("{}:{}:{}", operation.name, point.count, point.seed), &how);
        }
    }

    /// Who is stopped meanwhile, and where.
    fn bystander(&mut self, operation: &Operation, point: Point) -> Option<(usize, u32, Trace)> {
        let acts = self.grid.families[operation.family].acts();
        let candidates: Vec<usize> = (0..acts.len()).filter(|&act| !acts[act].is_alone).collect();
        let number = mix(&[mix_name(point.seed, &operation.name), u64::from(point.count), 3]);
        let act = *candidates.get(number as usize % candidates.len().max(1))?;
        let name = format!("{}/{}", self.grid.families[operation.family].name(), acts[act].name);
        let trace = self.trace_of_act(&Operation { name, family: operation.family, act, is_recovery: false }).ok()?;
        let count = (mix(&[number, 4]) % u64::from(trace.len + 1)) as u32;
        Some((act, count, trace))
    }

    fn trace_of_act(&mut self, operation: &Operation) -> Check<Trace> {
        let key = (operation.family, operation.act);
        if let Some(trace) = self.traces.get(&key) {
            return Ok(trace.clone());
        }
        let plain = Operation { is_recovery: false, ..operation.clone() };
        let trace = Trace::new(&self.harness.trace(&plain, None)?, &self.code);
        self.harness.progress.beat.fetch_add(1, Ordering::Relaxed);
        self.traces.insert(key, trace.clone());
        Ok(trace)
    }

    fn report(&self, index: usize, fault: &crate::operation::Fault, only: &str, how: &str) {
        super::report(self.grid.board, index, fault, only, how, PRINTED);
    }
}

fn describe(grid: &Grid, operation: &Operation, run: &Run<'_>) -> String {
    let acts = grid.families[operation.family].acts();
    let mut how = format!("killed after {}", run.count);
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
