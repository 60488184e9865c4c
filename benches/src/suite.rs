//! The command line: which figures to measure, how thoroughly, and where the results go.

use crate::contest::Figure;
use crate::limits::gap_steps;
use crate::machine::Machine;
use crate::payload::Payload;
use crate::report::{self, Report};
use crate::runner::{Effort, Launcher, STAGE, end_with_the_measurement};
use crate::stage::{Stage, pin};
use crate::{Result, peers, rows};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
usage: bench [--quick | --smoke] [--only PATTERN] [--json FILE] [--html FILE] [--baseline FILE] [--list]

  --quick           under four minutes instead of about a quarter of an hour
  --smoke           each contestant once, only to see whether it works
  --only PATTERN    the figures with this in their name; several patterns with commas between them
  --json FILE       one object a row: name, value, unit, limit, best_peer, ratio_to_limit, ratio_to_best_peer, goal, met, and
                    the goals one by one, with what each is measured by and the ratio to that
  --html FILE       one page with charts
  --baseline FILE   what has changed since a run with --json FILE
  --list            the figures and their contestants, without measuring

It fails if a contestant of the project's own does: others may be missing.
";

/// The figures to measure.
pub struct Suite {
    figures: Vec<Figure>,
    prefix: Vec<String>,
}

/// What the command line asks for.
struct Options {
    effort: Effort,
    only: Vec<String>,
    json: Option<PathBuf>,
    html: Option<PathBuf>,
    baseline: Option<PathBuf>,
    list: bool,
}

impl Options {
    fn parse(words: &[String]) -> std::result::Result<Options, String> {
        let mut options =
            Options { effort: Effort::FULL, only: Vec::new(), json: None, html: None, baseline: None, list: false };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (name, given) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let mut value = || {
                given
                    .clone()
                    .or_else(|| words.next().cloned())
                    .ok_or_else(|| format!("{name} wants a value\n\n{USAGE}"))
            };
            match name {
                "--quick" => options.effort = Effort::QUICK,
                "--smoke" => options.effort = Effort::SMOKE,
                "--list" => options.list = true,
                "--only" => options.only.extend(value()?.split(',').map(|pattern| pattern.trim().to_lowercase())),
                "--json" => options.json = Some(value()?.into()),
                "--html" => options.html = Some(value()?.into()),
                "--baseline" => options.baseline = Some(value()?.into()),
                "--help" | "-h" => return Err(USAGE.to_owned()),
                _ => return Err(format!("{word:?} is no option\n\n{USAGE}")),
            }
        }
        Ok(options)
    }

    fn wants(&self, figure: &Figure) -> bool {
        let name = figure.name.to_lowercase();
        self.only.is_empty() || self.only.iter().any(|pattern| name.contains(pattern))
    }
}

impl Suite {
    /// The figures of the project.
    pub fn standard() -> Suite {
        Suite { figures: rows::all(), prefix: Vec::new() }
    }

    /// Only figures of one's own.
    pub fn of(figures: Vec<Figure>) -> Suite {
        Suite { figures, prefix: Vec::new() }
    }

    /// Measures messages of type `P`, too.
    #[must_use]
    pub fn payload<P: Payload>(mut self) -> Suite {
        self.figures.extend(rows::of_payload::<P>());
        self
    }

    /// For a program that has other commands: the words that lead to this one.
    #[must_use]
    pub fn under(mut self, words: &[&str]) -> Suite {
        self.prefix = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Does what the words ask for, or, in a process that the harness started, takes part in a measurement. Call it first
    /// thing in `main`.
    pub fn main(self, words: &[String]) -> ExitCode {
        if crate::ends_at_once() {
            return ExitCode::SUCCESS;
        }
        peers::enter();
        if words.first().is_some_and(|word| word == STAGE) {
            return self.take_part(&words[1..]);
        }
        let outcome = match Options::parse(words) {
            Ok(options) if options.list => {
                self.list(&options);
                Ok(())
            }
            Ok(options) => self.measure(&options),
            Err(text) => {
                let asked = text == USAGE;
                eprint!("{text}");
                return if asked { ExitCode::SUCCESS } else { ExitCode::from(2) };
            }
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bench: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn list(&self, options: &Options) {
        let mut out = std::io::stdout().lock();
        for figure in self.figures.iter().filter(|figure| options.wants(figure)) {
            let labels: Vec<&str> = figure.contestants.iter().map(|contestant| contestant.label).collect();
            let _ = writeln!(out, "{} [{}]: {}", figure.name, figure.unit.text(), labels.join(", "));
            if !figure.about.is_empty() {
                let _ = writeln!(out, "    {}", figure.about);
            }
        }
    }

    fn measure(&self, options: &Options) -> Result {
        let baseline = options.baseline.as_deref().map(report::read_baseline).transpose()?;
        let wanted: Vec<&Figure> = self.figures.iter().filter(|figure| options.wants(figure)).collect();
        if wanted.is_empty() {
            return Err("no figure has that in its name; --list shows them".into());
        }
        let gap = gap_steps();
        let machine = Machine::look().with("gap between locks", format!("{gap} steps, 100 ns by the clock"));
        println!("{machine}");
        end_with_the_measurement();
        let launcher = Launcher { prefix: self.prefix.clone(), gap };
        let terminal = std::io::stderr().is_terminal();
        let start = Instant::now();
        let mut reports = Vec::new();
        for (number, figure) in wanted.iter().enumerate() {
            let progress = |what: &str| {
                if terminal {
                    eprint!("\r\x1b[K[{}/{}] {}: {what}", number + 1, wanted.len(), figure.name);
                }
            };
            let samples = launcher.run(figure, options.effort, progress);
            if terminal {
                eprint!("\r\x1b[K");
            }
            let report = Report::new(figure, samples);
            print!("{}", report::table(&report));
            let _ = std::io::stdout().flush();
            reports.push(report);
        }
        print!("{}", report::summary(&reports, start.elapsed()));
        if let Some(baseline) = baseline {
            print!("{}", report::compare(&reports, &baseline));
        }
        if let Some(path) = &options.json {
            std::fs::write(path, report::json(&reports)?)?;
        }
        if let Some(path) = &options.html {
            std::fs::write(path, report::html(&reports, &machine))?;
        }
        match reports.iter().flat_map(Report::broken).count() {
            0 => Ok(()),
            failed => Err(format!("{failed} rows of the project's own failed").into()),
        }
    }

    /// `FIGURE CONTESTANT FD ROLE N NAME`.
    fn take_part(&self, words: &[String]) -> ExitCode {
        let [figure, label, fd, role, n, name] = words else { return ExitCode::from(2) };
        let found = self.figures.iter().find(|known| known.name == *figure);
        let contestant = found.and_then(|figure| figure.contestants.iter().find(|known| known.label == *label));
        let (Some(contestant), Ok(fd), Ok(role), Ok(n)) = (contestant, fd.parse(), role.parse(), n.parse()) else {
            return ExitCode::from(2);
        };
        let stage = match Stage::attach(fd, role, contestant.processes, n, name.clone()) {
            Ok(stage) => stage,
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        };
        let run = || {
            pin(if contestant.is_on_one_cpu { 0 } else { role })?;
            (contestant.run)(&stage)
        };
        match run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                stage.fail(&error.to_string());
                ExitCode::FAILURE
            }
        }
    }
}
