//! Figures and their contestants.

use crate::Result;
use crate::stage::Stage;

/// What a figure is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds an operation.
    Nanoseconds,
    /// Microseconds an operation.
    Microseconds,
    /// Millions of operations a second.
    Millions,
    /// Thousands of operations a second.
    Thousands,
    /// Gigabytes (10^9 bytes) a second.
    Gigabytes,
    /// KiB of memory.
    Kibibytes,
}

impl Unit {
    /// As it is written.
    pub fn text(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::Microseconds => "µs",
            Unit::Millions => "M/s",
            Unit::Thousands => "k/s",
            Unit::Gigabytes => "GB/s",
            Unit::Kibibytes => "KiB",
        }
    }

    /// Whether less is better.
    pub fn less_is_better(self) -> bool {
        matches!(self, Unit::Nanoseconds | Unit::Microseconds | Unit::Kibibytes)
    }

    /// Nanoseconds that an operation of this value takes.
    pub fn nanoseconds(self, value: f64) -> f64 {
        match self {
            Unit::Nanoseconds => value,
            Unit::Microseconds => value * 1e3,
            Unit::Millions => 1e3 / value,
            Unit::Thousands => 1e6 / value,
            Unit::Gigabytes | Unit::Kibibytes => 1.0,
        }
    }
}

/// What a contestant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// shmkit, as the figure's name says: one in a figure at most.
    Shmkit,
    /// shmkit used otherwise, or another thing to compare with; threads where processes are asked for.
    Reference,
    /// What the machine can do at best.
    Limit,
    /// Somebody else who does the same, between processes.
    Peer,
}

/// How many operations are timed.
#[derive(Debug, Clone, Copy)]
pub enum Amount {
    /// As many as fit the time.
    Fitting,
    /// So many, always.
    Fixed(u64),
}

/// What a contestant's processes run.
pub type Run = fn(&Stage) -> Result;

/// Somebody who does what a figure measures.
#[derive(Clone)]
pub struct Contestant {
    /// Its name, unique in the figure.
    pub label: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Processes it runs in.
    pub processes: usize,
    /// How much is timed.
    pub amount: Amount,
    /// Whether all of them are on the first CPU.
    pub is_on_one_cpu: bool,
    /// Runs in each of the processes.
    pub run: Run,
}

impl Contestant {
    /// One in two processes.
    pub const fn pair(label: &'static str, kind: Kind, run: Run) -> Contestant {
        Contestant { label, kind, processes: 2, amount: Amount::Fitting, is_on_one_cpu: false, run }
    }

    /// One in one process, which may have threads or start processes of its own.
    pub const fn single(label: &'static str, kind: Kind, run: Run) -> Contestant {
        Contestant { label, kind, processes: 1, amount: Amount::Fitting, is_on_one_cpu: false, run }
    }

    /// In so many processes.
    #[must_use]
    pub const fn of(mut self, processes: usize) -> Contestant {
        self.processes = processes;
        self
    }

    /// With all its processes on the first CPU.
    #[must_use]
    pub const fn on_one_cpu(mut self) -> Contestant {
        self.is_on_one_cpu = true;
        self
    }

    /// With a fixed number of operations.
    #[must_use]
    pub const fn fixed(mut self, operations: u64) -> Contestant {
        self.amount = Amount::Fixed(operations);
        self
    }
}

/// What shmkit's value is to be.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// At most so many times a contestant's.
    AtMost(f64, &'static str),
    /// At least so many times a contestant's.
    AtLeast(f64, &'static str),
    /// At most so much.
    Below(f64),
}

/// Something measured, and all who do it.
#[derive(Clone)]
pub struct Figure {
    /// Its name: unique, and what `--only` looks at.
    pub name: String,
    /// What the name leaves open: who runs where, what exactly is done. Empty where there is nothing to say.
    pub about: &'static str,
    /// What its values are in.
    pub unit: Unit,
    /// shmkit's goals.
    pub goals: Vec<Goal>,
    /// In the order in which they run.
    pub contestants: Vec<Contestant>,
}

impl Figure {
    /// One without contestants.
    pub fn new(name: impl Into<String>, unit: Unit) -> Figure {
        Figure { name: name.into(), about: "", unit, goals: Vec::new(), contestants: Vec::new() }
    }

    /// With a line on what the name leaves open.
    #[must_use]
    pub fn about(mut self, about: &'static str) -> Figure {
        self.about = about;
        self
    }

    /// With a goal.
    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Figure {
        self.goals.push(goal);
        self
    }

    /// With contestants.
    #[must_use]
    pub fn with(mut self, contestants: impl IntoIterator<Item = Contestant>) -> Figure {
        self.contestants.extend(contestants);
        self
    }

    /// shmkit's place among the contestants.
    pub fn shmkit(&self) -> Option<usize> {
        self.contestants.iter().position(|contestant| contestant.kind == Kind::Shmkit)
    }

    /// The place of a contestant.
    pub fn place(&self, label: &str) -> Option<usize> {
        self.contestants.iter().position(|contestant| contestant.label == label)
    }
}
