//! What is tortured: families of operations on a kind of object, and what must hold whoever dies in them.
//!
//! A family is a [`Subject`] (the objects, how they start, what survivors must find) and a list of [`Acts`] (what a victim
//! does between two markers). To add an operation is to add one [`Acts::act`]; its name turns up in the [`Deed`]s that
//! [`Subject::audit`] judges.

use crate::board::Ledger;
use crate::grid::belongings::Belongings;
use shmkit::Segment;
use std::time::{Duration, Instant};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Somebody waited longer than recovery takes.
    Hang,
    /// Something committed is not there.
    Lost,
    /// Something is there twice.
    Duplicated,
    /// Something is there that cannot be.
    Corrupt,
    /// Something did not come back.
    Leaked,
}

/// All of them, in the order of the closing line.
pub const WRONGS: [(Wrong, &str); 5] = [
    (Wrong::Hang, "hangs"),
    (Wrong::Lost, "lost"),
    (Wrong::Duplicated, "duplicated"),
    (Wrong::Corrupt, "corrupt"),
    (Wrong::Leaked, "leaked"),
];

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which.
    pub wrong: Wrong,
    /// What was found.
    pub what: String,
}

/// What a check gives.
pub type Check<T = ()> = Result<T, Fault>;

macro_rules! faults {
    ($($name:ident $wrong:ident;)*) => {$(
        #[doc = concat!("A fault of the kind `", stringify!($wrong), "`.")]
        pub fn $name<T>(what: impl Into<String>) -> Check<T> {
            Err(Fault { wrong: Wrong::$wrong, what: what.into() })
        }
    )*};
}

faults! {
    hang Hang;
    lost Lost;
    duplicated Duplicated;
    corrupt Corrupt;
    leaked Leaked;
}

impl From<shmkit::Error> for Fault {
    /// An operation that must succeed did not.
    fn from(error: shmkit::Error) -> Fault {
        Fault { wrong: Wrong::Corrupt, what: error.to_string() }
    }
}

/// After that a survivor is given up.
pub const PATIENCE: Duration = Duration::from_secs(12);

/// The longest that a survivor may take for anything: what is promised where nobody tells him of a death, one second, and what a
/// busy machine adds.
pub const BOUND: Duration = Duration::from_secs(3);

/// Looks until it is so; false if it is not within [`PATIENCE`].
pub fn eventually(is_so: impl Fn() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::yield_now();
    }
}

/// The parts a process can have in a run. The number tells apart what each of them leaves in the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Dead before the victim begins.
    Corpse = 1,
    /// Killed.
    Victim = 2,
    /// Stopped somewhere while the victim is killed, then let go.
    Bystander = 3,
    /// Waiting while the victim is killed.
    Waiter = 4,
}

/// Who acts, and where.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The segment's name.
    pub name: String,
    /// Which part.
    pub role: Role,
    /// What it says to whoever judges.
    pub ledger: &'static Ledger,
}

impl Scene {
    /// The number of the part.
    pub fn id(&self) -> u64 {
        self.role as u64
    }

    /// Writes down something that was received, for the judge. It outlives this process.
    pub fn note(&self, value: u64) {
        self.ledger.note(value);
    }

    /// A name that belongs to the scene and is taken away after it.
    pub fn other_name(&self) -> String {
        format!("{}-other", self.name)
    }
}

/// A participant with everything open.
pub struct Actor<S> {
    /// The objects. They are let go before the segment.
    pub subject: S,
    /// The segment.
    pub segment: Segment,
    /// Who acts.
    pub scene: Scene,
}

impl<S> std::ops::Deref for Actor<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.subject
    }
}

/// What somebody did, or died doing.
#[derive(Debug, Clone)]
pub struct Deed {
    /// Name of the act.
    pub act: &'static str,
    /// Whose: [`Scene::id`].
    pub id: u64,
    /// Whether it began; if not, it died on its way there.
    pub has_begun: bool,
    /// Whether it came to its end: then its effect must be there, whole.
    pub is_done: bool,
    /// What it wrote down.
    pub notes: Vec<u64>,
    /// Of somebody who is stopped: what was his then.
    pub belongings: Belongings,
}

impl Deed {
    /// What the harness did.
    pub fn of_harness(act: &'static str, notes: Vec<u64>) -> Deed {
        Deed { act, id: HARNESS, has_begun: true, is_done: true, notes, belongings: Belongings::default() }
    }
}

/// The harness's number among the [`Scene::id`]s.
pub const HARNESS: u64 = 9;

/// Objects, and what must hold of them.
pub trait Subject: Sized + 'static {
    /// Makes them in a fresh segment and brings them to where every act starts.
    fn create(segment: &Segment) -> shmkit::Result<Self>;

    /// Opens them.
    fn open(segment: &Segment) -> shmkit::Result<Self>;

    /// Lets whoever waits in an act's `waits` go on, if the victim has not; gives what it did for that.
    fn release(&self, _deeds: &[Deed]) -> Check<Option<Deed>> {
        Ok(None)
    }

    /// Waits for something until the dead must have been noticed, where nobody has called `recover`.
    fn notice(&self) -> Check {
        Ok(())
    }

    /// Looks, without ever waiting, while `stopped` has come to a halt anywhere in its act: nobody may take its place. That the
    /// words still say what is his is looked at by the harness.
    fn glance(&self, _stopped: &Deed) -> Check {
        Ok(())
    }

    /// Judges what the deeds left, and brings the objects back to where [`Subject::create`] left them.
    fn audit(&self, segment: &Segment, deeds: &[Deed]) -> Check;

    /// Whether objects keep memory when they are brought back.
    fn may_grow() -> bool {
        false
    }

    /// Uses the objects as anybody can who finds them as [`Subject::create`] left them, and leaves them so.
    fn exercise(&self, segment: &Segment) -> Check;
}

/// What a child does.
enum Body<S> {
    /// With everything open before it begins.
    Open(fn(Actor<S>) -> Check),
    /// From nothing: it opens what it needs.
    Bare(fn(Scene) -> Check),
    /// From nothing: it starts another process, which is the one who acts.
    Launcher(fn(Scene) -> Check, Starts),
}

/// How a launcher's act comes to the process that is the victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    /// It is the next one that executes a program, from there on. It begins at its own marker.
    Program,
    /// It is the next one that is forked, from its first instruction on.
    Copy,
    /// It is the next one forked by the process whose number the launcher notes, from its first instruction on.
    CopyOf,
    /// It is the process whose number the launcher notes. It begins at its own marker, once it is traced.
    Named,
}

/// One operation of a family.
struct Act<S> {
    info: ActInfo,
    body: Body<S>,
    waits: Option<fn(&S, &Scene) -> Check>,
}

/// The operations of a family. The body of each says where it begins and ends: [`crate::step::begin`], [`crate::step::end`].
pub struct Acts<S> {
    acts: Vec<Act<S>>,
}

impl<S> Acts<S> {
    /// None.
    pub fn new() -> Acts<S> {
        Acts { acts: Vec::new() }
    }

    fn with(mut self, name: &'static str, body: Body<S>) -> Self {
        let starts = match body {
            Body::Launcher(_, starts) => Some(starts),
            _ => None,
        };
        let info = ActInfo {
            name,
            has_waiter: false,
            is_alone: starts.is_some(),
            side: None,
            has_threads: false,
            has_children: false,
            has_others: false,
            starts,
        };
        self.acts.push(Act { info, body, waits: None });
        self
    }

    /// One more, of somebody who has opened everything before.
    pub fn act(self, name: &'static str, body: fn(Actor<S>) -> Check) -> Self {
        self.with(name, Body::Open(body))
    }

    /// One more, of somebody who comes from nothing.
    pub fn bare(self, name: &'static str, body: fn(Scene) -> Check) -> Self {
        self.with(name, Body::Bare(body))
    }

    /// One more, of a process that somebody who comes from nothing starts after his own marker; it ends at a marker, or by
    /// itself. Who has started it is never killed, and its second marker is where it has seen the other's end.
    pub fn launcher(self, name: &'static str, starts: Starts, body: fn(Scene) -> Check) -> Self {
        self.with(name, Body::Launcher(body, starts))
    }

    fn last(&mut self) -> &mut Act<S> {
        self.acts.last_mut().expect("an act")
    }

    /// What another process waits in while the victim of the last act is killed. It must come back.
    pub fn while_waiting(mut self, waits: fn(&S, &Scene) -> Check) -> Self {
        self.last().waits = Some(waits);
        self.last().info.has_waiter = true;
        self
    }

    /// The last act is in no pairs with others.
    pub fn alone(mut self) -> Self {
        self.last().info.is_alone = true;
        self
    }

    /// The last act is in no pairs with those of the same side: there is one of each.
    pub fn on(mut self, side: &'static str) -> Self {
        self.last().info.side = Some(side);
        self
    }

    /// Others than those of the run have had the objects in the last act, which have more room for holders since.
    pub fn with_others(mut self) -> Self {
        self.last().info.has_others = true;
        self
    }

    /// The last act starts threads.
    pub fn with_threads(mut self) -> Self {
        self.last().info.has_threads = true;
        self
    }

    /// The last act starts processes, and threads.
    pub fn with_children(mut self) -> Self {
        self.last().info.has_children = true;
        self.with_threads()
    }
}

/// A family of operations, whatever its subject is.
pub trait Family {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Its acts.
    fn acts(&self) -> Vec<ActInfo>;
    /// Makes the objects.
    fn create(&self, segment: &Segment) -> shmkit::Result<Box<dyn World>>;
    /// Opens the objects.
    fn open(&self, segment: &Segment) -> shmkit::Result<Box<dyn World>>;
    /// A child's part.
    fn perform(&self, act: usize, scene: Scene) -> Check;
    /// A child that comes to repair what others left.
    fn recover(&self, scene: Scene) -> Check;
    /// The part of whoever waits.
    fn wait(&self, act: usize, world: &dyn World, scene: &Scene) -> Check;
}

/// What the grid knows of an act.
#[derive(Debug, Clone, Copy)]
pub struct ActInfo {
    /// Its name.
    pub name: &'static str,
    /// Whether somebody waits meanwhile.
    pub has_waiter: bool,
    /// Whether it is not to be paired.
    pub is_alone: bool,
    /// If it has one, it is paired with none of the same side.
    pub side: Option<&'static str>,
    /// Whether others come by its code while it is traced.
    pub has_threads: bool,
    /// Whether it starts processes: then who recovers its death is not killed himself.
    pub has_children: bool,
    /// Whether more than the usual have the objects.
    pub has_others: bool,
    /// Whether who acts is a process that the child starts, and how one comes to it.
    pub starts: Option<Starts>,
}

impl ActInfo {
    /// Whether one may be killed in it while another one is stopped in `other`.
    pub fn may_pair(&self, other: &ActInfo) -> bool {
        !self.is_alone && !other.is_alone && (self.side.is_none() || self.side != other.side)
    }
}

/// Somebody's open objects, whatever they are.
pub trait World {
    /// [`Subject::release`].
    fn release(&self, deeds: &[Deed]) -> Check<Option<Deed>>;
    /// [`Subject::notice`].
    fn notice(&self) -> Check;
    /// [`Subject::glance`].
    fn glance(&self, stopped: &Deed) -> Check;
    /// [`Subject::audit`].
    fn audit(&self, segment: &Segment, deeds: &[Deed]) -> Check;
    /// [`Subject::exercise`].
    fn exercise(&self, segment: &Segment) -> Check;
    /// [`Subject::may_grow`].
    fn may_grow(&self) -> bool;
    /// The subject itself.
    fn as_any(&self) -> &dyn std::any::Any;
}

impl<S: Subject> World for S {
    fn release(&self, deeds: &[Deed]) -> Check<Option<Deed>> {
        Subject::release(self, deeds)
    }
    fn notice(&self) -> Check {
        Subject::notice(self)
    }
    fn glance(&self, stopped: &Deed) -> Check {
        Subject::glance(self, stopped)
    }
    fn audit(&self, segment: &Segment, deeds: &[Deed]) -> Check {
        Subject::audit(self, segment, deeds)
    }
    fn exercise(&self, segment: &Segment) -> Check {
        Subject::exercise(self, segment)
    }
    fn may_grow(&self) -> bool {
        S::may_grow()
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

struct Typed<S> {
    name: &'static str,
    acts: Vec<Act<S>>,
}

/// A family.
pub fn family<S: Subject>(name: &'static str, acts: Acts<S>) -> Box<dyn Family> {
    Box::new(Typed { name, acts: acts.acts })
}

impl<S: Subject> Family for Typed<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn acts(&self) -> Vec<ActInfo> {
        self.acts.iter().map(|act| act.info).collect()
    }

    fn create(&self, segment: &Segment) -> shmkit::Result<Box<dyn World>> {
        Ok(Box::new(S::create(segment)?))
    }

    fn open(&self, segment: &Segment) -> shmkit::Result<Box<dyn World>> {
        Ok(Box::new(S::open(segment)?))
    }

    fn perform(&self, act: usize, scene: Scene) -> Check {
        match self.acts[act].body {
            Body::Bare(body) | Body::Launcher(body, _) => body(scene),
            Body::Open(body) => {
                let segment = Segment::open(&scene.name)?;
                body(Actor { subject: S::open(&segment)?, segment, scene })
            }
        }
    }

    fn recover(&self, scene: Scene) -> Check {
        let segment = Segment::open(&scene.name)?;
        let _subject = S::open(&segment)?;
        crate::step::begin();
        segment.recover();
        crate::step::end();
        Ok(())
    }

    fn wait(&self, act: usize, world: &dyn World, scene: &Scene) -> Check {
        match (self.acts[act].waits, world.as_any().downcast_ref::<S>()) {
            (Some(waits), Some(subject)) => waits(subject, scene),
            _ => corrupt("nobody waits in this act"),
        }
    }
}
