//! One run: a fresh segment, somebody killed at an instruction, and what the survivors find.
//!
//! ```text
//! fork everybody    none of them has anything of the segment yet
//! create            the harness creates segment and objects; the helper attaches
//! corpse            runs to its instruction and is killed           (operations of recovery)
//! bystander         runs to its instruction and stays there         (pairs)
//! helper            waits in the object                             (acts that have a waiter)
//! victim            runs to its instruction and is killed
//! glance            nobody robs the bystander, who is stopped by SIGSTOP and then goes on to his end
//! release           whoever waits must come back
//! audit             what the dead left is judged; everything is as it was; the helper and somebody new use it
//! ```

use super::belongings::Belongings;
use super::helper::{Ask, Helper};
use super::raw;
use crate::board::{Board, Progress};
use crate::operation::{
    BOUND, Check, Deed, Family, Fault, PATIENCE, Role, Scene, Starts, World, Wrong, corrupt, eventually, hang, leaked,
};
use crate::step::{Stop, Ticks, Trace, Tracee, Way, program_of};
use shmkit::Segment;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a victim may wait for a bystander before it is killed in its sleep.
const SLEEP: Duration = Duration::from_millis(130);

/// What an instruction takes at most, stepped on a busy machine, on average.
const STEP: Duration = Duration::from_micros(60);

/// An operation of the grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// `family/act`, or `recover/family/act`.
    pub name: String,
    /// Index of the family.
    pub family: usize,
    /// Index of the act in it.
    pub act: usize,
    /// Whether somebody has died in the act, and the victim is the one who repairs that.
    pub is_recovery: bool,
}

/// Where somebody dies or stops.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// The act, of the operation's family.
    pub act: usize,
    /// After that many instructions.
    pub count: u32,
    /// The way there.
    pub trace: Option<&'a Trace>,
}

/// What is to happen in a run.
#[derive(Debug, Clone, Default)]
pub struct Run<'a> {
    /// The victim dies after that many instructions.
    pub count: u32,
    /// The way there.
    pub trace: Option<&'a Trace>,
    /// Somebody died before.
    pub corpse: Option<Place<'a>>,
    /// Somebody is stopped meanwhile.
    pub bystander: Option<Place<'a>>,
    /// Nobody calls `recover`: survivors find out for themselves.
    pub is_lazy: bool,
    /// Nobody is killed: who acts is stopped there, and goes on.
    pub is_halt: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Processes killed.
    pub kills: u64,
    /// The longest that a survivor took for anything.
    pub longest: Duration,
    /// What was wrong.
    pub fault: Option<Fault>,
    /// The victim's operation, if it was traced.
    pub way: Way,
}

/// The harness of one shard.
pub struct Harness<'a> {
    /// All families.
    pub families: &'a [Box<dyn Family>],
    /// Where everybody says what.
    pub progress: &'static Progress,
    /// Its helper.
    pub helper: Helper,
    /// Prefix of the names of its segments.
    pub prefix: String,
    next: u32,
}

impl Outcome {
    /// What a survivor does, or what is waited for until he has done it: it may not take long.
    fn timed<T>(&mut self, what: &str, does: impl FnOnce() -> Check<T>) -> Check<T> {
        let start = Instant::now();
        let done = does()?;
        let took = start.elapsed();
        self.longest = self.longest.max(took);
        if took > BOUND { hang(format!("a survivor takes {} ms: {what}", took.as_millis())) } else { Ok(done) }
    }
}

/// How the victim is driven.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Kill,
    Trace,
}

impl<'a> Harness<'a> {
    /// One with a helper of its own.
    pub fn new(families: &'a [Box<dyn Family>], board: &'static Board, shard: usize, prefix: &str) -> Harness<'a> {
        let progress = &board.shards[shard];
        let helper = Helper::fork(families, &progress.ledgers[Role::Waiter as usize]);
        Harness { families, progress, helper, prefix: format!("{prefix}{:07}-", std::process::id()), next: 0 }
    }

    fn scene(&self, name: &str, role: Role) -> Scene {
        let ledger = &self.progress.ledgers[role as usize];
        ledger.clear();
        Scene { name: name.to_owned(), role, ledger }
    }

    /// Forks somebody who will do `act`, or recover.
    fn fork(&self, family: usize, act: Option<usize>, scene: &Scene) -> Tracee {
        Tracee::fork(|| {
            let family = &self.families[family];
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match act {
                Some(act) => family.perform(act, scene.clone()),
                None => family.recover(scene.clone()),
            }));
            match done {
                Ok(Ok(())) => 0,
                Ok(Err(fault)) => {
                    scene.ledger.say(&fault.what);
                    3
                }
                Err(_) => {
                    scene.ledger.say("it panicked");
                    4
                }
            }
        })
    }

    /// Every instruction of an operation.
    pub fn trace(&mut self, operation: &Operation, corpse: Option<Place<'_>>) -> Check<Way> {
        let outcome = self.perform(operation, &Run { corpse, ..Run::default() }, Mode::Trace);
        match outcome.fault {
            Some(fault) => Err(fault),
            None => Ok(outcome.way),
        }
    }

    /// Runs it.
    pub fn run(&mut self, operation: &Operation, run: &Run<'_>) -> Outcome {
        self.perform(operation, run, Mode::Kill)
    }

    fn perform(&mut self, operation: &Operation, run: &Run<'_>, mode: Mode) -> Outcome {
        self.next += 1;
        // Of one length: a handle in a message names its segment, and longer messages take other ways.
        let name = format!("{}{:06}", self.prefix, self.next);
        let mut outcome = Outcome::default();
        let result = self.drama(operation, run, mode, &name, &mut outcome);
        if result.is_err() {
            // It may be in a lock that nobody releases.
            self.helper = Helper::fork(self.families, &self.progress.ledgers[Role::Waiter as usize]);
        }
        let _ = Segment::unlink(&name);
        let _ = Segment::unlink(&format!("{name}-other"));
        outcome.fault = result.err();
        outcome
    }

    fn drama(&self, operation: &Operation, run: &Run<'_>, mode: Mode, name: &str, outcome: &mut Outcome) -> Check {
        let &Operation { family: index, act, is_recovery, .. } = operation;
        let family = &self.families[index];
        let acts = family.acts();
        // Who can only go on with another's help must have it, even if he is only stopped.
        let needs_waiter = !run.is_halt || acts[act].is_alone;
        let has_waiter = !is_recovery && run.bystander.is_none() && needs_waiter && acts[act].has_waiter;
        // `recover` waits for whoever is at it, and that may be he who is stopped.
        let may_recover = !is_recovery && !acts[act].has_others && family.name() != "segment";
        let until = Instant::now() + PATIENCE;
        let _ticks = Ticks::start();
        // Everybody is forked before the harness has a segment: nobody inherits one.
        let victim_scene = self.scene(name, Role::Victim);
        let mut victim = self.fork(index, (!is_recovery).then_some(act), &victim_scene);
        let mut corpse = run.corpse.as_ref().map(|place| {
            let scene = self.scene(name, Role::Corpse);
            (self.fork(index, Some(place.act), &scene), place, scene)
        });
        let mut bystander = run.bystander.as_ref().map(|place| {
            let scene = self.scene(name, Role::Bystander);
            (self.fork(index, Some(place.act), &scene), place, scene)
        });
        let segment = Segment::builder().max_size(1 << 20).max_participants(8).create(name)?;
        let world = family.create(&segment)?;
        let before = segment.memory()?.0;
        self.progress.ledgers[Role::Waiter as usize].clear();
        self.helper.ask(Ask::Join, index, act, name)?;
        self.helper.answer(PATIENCE, "attach")?;
        let mut deeds = Vec::new();

        if let Some((corpse, place, scene)) = &mut corpse {
            start(corpse, scene, until)?;
            // Alone it may have to wait for somebody who never comes, and dies of that.
            let limit = if acts[place.act].has_waiter { Instant::now() + SLEEP } else { until };
            let stop = corpse.advance(place.count, place.trace, limit);
            let is_done = ended(&stop, scene)?;
            kill(corpse, &segment)?;
            if acts[place.act].has_threads {
                others_gone(&segment)?;
            }
            outcome.kills += 1;
            deeds.push(deed(acts[place.act].name, scene, true, is_done));
        }
        let mut belongings = Belongings::default();
        if let Some((bystander, place, scene)) = &mut bystander {
            start(bystander, scene, until)?;
            let stop = bystander.advance(place.count, place.trace, until);
            if !ended(&stop, scene)? {
                halt(bystander, until)?;
            }
            belongings = Belongings::of(&segment, bystander.pid())?;
        }
        if has_waiter {
            self.helper.ask(Ask::Wait, index, act, name)?;
        }
        let mut limit = if run.bystander.is_some() { Instant::now() + SLEEP } else { until };
        let mut launcher = None;
        if let Some(starts) = acts[act].starts {
            start(&mut victim, &victim_scene, until)?;
            let started = match started(&mut victim, &victim_scene, starts, until) {
                Ok(started) => started,
                Err(stop) => return corrupt(format!("no process starts: {stop:?} {}", victim_scene.ledger.said())),
            };
            launcher = Some(std::mem::replace(&mut victim, started));
        }
        let begins = !matches!(acts[act].starts, Some(Starts::Copy | Starts::CopyOf));
        let has_begun = match if begins { start(&mut victim, &victim_scene, limit) } else { Ok(()) } {
            // It waits for the bystander before it begins, and is killed there.
            Err(fault) if fault.wrong == Wrong::Hang && run.bystander.is_some() => false,
            Err(fault) => return Err(fault),
            Ok(()) => true,
        };
        let stop = match mode {
            _ if !has_begun => Stop::Overdue,
            Mode::Kill => {
                if run.bystander.is_some() {
                    limit = Instant::now() + SLEEP;
                }
                // Where there are no breakpoints it is stepped all the way.
                let way = if run.bystander.is_some() { Duration::ZERO } else { STEP * run.count };
                victim.advance(run.count, run.trace, limit + way)
            }
            Mode::Trace => {
                // What is done by other threads and processes cannot be told from what is the victim's.
                let is_here = is_recovery || acts[act].starts.is_none() && !acts[act].has_threads;
                let other = victim_scene.other_name();
                let mut watch = if is_here { raw::Watch::new(&segment, &other) } else { None };
                let is_new = |place| {
                    // A long way, and the harness is not hanging.
                    self.progress.beat.fetch_add(1, Ordering::Relaxed);
                    watch.as_mut().is_none_or(|watch| watch.is_new(place))
                };
                let code = program_of(victim.pid());
                let (way, stop) = victim.trace(1 << 20, Instant::now() + 20 * PATIENCE, is_new);
                outcome.way = Way { code, ..way };
                stop
            }
        };
        if stop == Stop::Overdue && run.bystander.is_none() {
            return hang("the victim waits for nobody");
        }
        let mut is_done = ended(&stop, &victim_scene)?;
        let victims_act = if is_recovery { "recover" } else { acts[act].name };
        if run.is_halt && !is_done {
            halt(&mut victim, until)?;
            let belongings = Belongings::of(&segment, victim.pid())?;
            if may_recover {
                segment.recover();
            }
            let stopped = Deed { belongings, ..deed(victims_act, &victim_scene, true, false) };
            outcome
                .timed("to go on after SIGCONT", || resume(&mut victim, &victim_scene, &*world, &segment, stopped))?;
            is_done = true;
        }
        kill(&mut victim, &segment)?;
        outcome.kills += u64::from(!run.is_halt);
        deeds.push(deed(victims_act, &victim_scene, has_begun, is_done));
        if let Some(mut launcher) = launcher {
            match outcome
                .timed("to see the end of whom it started", || Ok(launcher.finish(Instant::now() + PATIENCE)))?
            {
                Stop::End => {}
                Stop::Overdue => return hang("who has started a process that died waits for it"),
                stop => {
                    return corrupt(format!("who started it: {stop:?} {}", victim_scene.ledger.said()));
                }
            }
        }
        if let Some((bystander, place, scene)) = &mut bystander {
            if may_recover {
                segment.recover();
            }
            let stopped = Deed { belongings, ..deed(acts[place.act].name, scene, true, false) };
            outcome.timed("to go on after SIGCONT", || resume(bystander, scene, &*world, &segment, stopped))?;
            kill(bystander, &segment)?;
            deeds.push(deed(acts[place.act].name, scene, true, true));
        }
        others_gone(&segment)?;
        match run.is_lazy {
            true => outcome.timed("to notice the death", || world.notice())?,
            false => drop(segment.recover()),
        }
        if has_waiter {
            let waits = format!("{}, while its peer dies in {victims_act}", acts[act].name);
            let released = outcome.timed(&waits, || {
                let released = world.release(&deeds)?;
                self.helper.answer(PATIENCE, &waits)?;
                Ok(released)
            })?;
            let scene = Scene {
                role: Role::Waiter,
                ledger: &self.progress.ledgers[Role::Waiter as usize],
                name: String::new(),
            };
            deeds.push(deed("waiter", &scene, true, true));
            deeds.extend(released);
        }
        outcome.timed("to use what the dead left", || world.audit(&segment, &deeds))?;
        // With more holders than the directory's entry names, an object has more memory as long as it lives.
        let is_as_before =
            run.bystander.is_none() && run.corpse.is_none() && !acts[act].has_others && !world.may_grow();
        let nothing_leaked = || match segment.memory()?.0 {
            after if is_as_before && after != before => {
                leaked(format!("{after} bytes of the heap are in use, {before} were"))
            }
            _ => Ok(()),
        };
        // Before somebody new has the dead one's slot, and again.
        nothing_leaked()?;
        self.helper.ask(Ask::Finish, index, act, name)?;
        let anything = "what anybody can do afterwards";
        outcome.timed(anything, || self.helper.answer(PATIENCE, anything))?;
        segment.verify()?;
        nothing_leaked()?;
        match (raw::slots_in_use(&segment)?, segment.participants().len()) {
            (1, 1) => {}
            (slots, participants) => {
                return leaked(format!("{slots} slots in use by {participants} participants: 1 is left"));
            }
        }
        drop(world);
        for name in segment.objects().into_iter().filter_map(|object| object.name) {
            segment.remove(&name)?;
        }
        let (left, _) = segment.memory()?;
        if left != 0 || !segment.objects().is_empty() {
            return leaked(format!("{left} bytes of the heap are in use when every object is gone"));
        }
        Ok(())
    }
}

/// Kills somebody, and waits until the kernel has let go of its memory: whoever looks at a process (`ps`, say) at this moment
/// keeps that a little longer than the process.
fn kill(tracee: &mut Tracee, segment: &Segment) -> Check {
    tracee.kill();
    let is_gone = || !segment.participants().contains(&tracee.pid());
    if eventually(is_gone) { Ok(()) } else { hang("a killed and reaped process counts as alive") }
}

/// The process that a launcher starts, at its beginning. The launcher runs on, untraced.
fn started(launcher: &mut Tracee, scene: &Scene, starts: Starts, until: Instant) -> Result<Tracee, Stop> {
    let noted = || loop {
        match scene.ledger.notes().first() {
            Some(&pid) => break Ok(pid as u32),
            None if Instant::now() > until => break Err(Stop::Overdue),
            None => std::thread::yield_now(),
        }
    };
    match starts {
        Starts::Program => launcher.follow(false, until),
        Starts::Copy => launcher.follow(true, until),
        Starts::Named => {
            launcher.let_go()?;
            Tracee::attach(noted()?, until)
        }
        Starts::CopyOf => {
            launcher.let_go()?;
            let mut original = Tracee::attach(noted()?, until)?;
            let copy = original.follow(true, until);
            original.forget();
            copy
        }
    }
}

/// Waits until whoever the victim has started is gone, too: harness and helper are left.
fn others_gone(segment: &Segment) -> Check {
    let is_so = || segment.participants().len() <= 2;
    if eventually(is_so) { Ok(()) } else { hang("whoever the victim has started lives on") }
}

/// Stops somebody with SIGSTOP where it is.
fn halt(tracee: &mut Tracee, until: Instant) -> Check {
    match tracee.halt(until) {
        // It had come to its end in this moment.
        Ok(()) | Err(Stop::End) => Ok(()),
        Err(stop) => corrupt(format!("it cannot be stopped: {stop:?}")),
    }
}

/// Looks whether whoever is stopped is left alone, and lets it on to its end.
fn resume(tracee: &mut Tracee, scene: &Scene, world: &dyn World, segment: &Segment, stopped: Deed) -> Check {
    world.glance(&stopped)?;
    if let Some(missing) = Belongings::of(segment, tracee.pid())?.missing(&stopped.belongings) {
        return corrupt(format!("who was stopped in {} was robbed: {missing}", stopped.act));
    }
    tracee.go_on();
    match tracee.finish(Instant::now() + PATIENCE) {
        Stop::End => Ok(()),
        // It was stopped behind its last instruction already.
        Stop::Gone(how) if how.contains("Exited") && scene.ledger.said().is_empty() => Ok(()),
        Stop::Overdue => hang(format!("who was stopped in {} does not come to its end", stopped.act)),
        stop => corrupt(format!("who was stopped in {} cannot go on: {stop:?} {}", stopped.act, scene.ledger.said())),
    }
}

/// Brings somebody to the beginning of its act.
fn start(tracee: &mut Tracee, scene: &Scene, until: Instant) -> Check {
    match tracee.run(until) {
        Stop::Begin => Ok(()),
        Stop::Overdue => hang("somebody who comes anew hangs before its act begins"),
        stop => corrupt(format!("somebody who comes anew cannot begin: {stop:?} {}", scene.ledger.said())),
    }
}

/// Whether whoever stopped has come to the end of its act.
fn ended(stop: &Stop, scene: &Scene) -> Check<bool> {
    match stop {
        Stop::End => Ok(true),
        Stop::Step | Stop::Overdue => Ok(false),
        // Stepped past the marker.
        Stop::Gone(how) if how.contains("Exited") && scene.ledger.said().is_empty() => Ok(true),
        Stop::Gone(how) => corrupt(format!("an act failed: {how} {}", scene.ledger.said())),
        Stop::Begin => corrupt("an act begins twice"),
    }
}

fn deed(act: &'static str, scene: &Scene, has_begun: bool, is_done: bool) -> Deed {
    Deed { act, id: scene.id(), has_begun, is_done, notes: scene.ledger.notes(), belongings: Belongings::default() }
}
