//! What comes out: one report a figure, as a table, as JSON, as a page, and beside an earlier run.

mod baseline;
mod html;
mod json;
mod text;

pub use baseline::{compare, read_baseline};
pub use html::html;
pub use json::json;
pub use text::{summary, table};

use crate::contest::{Figure, Goal, Kind, Unit};
use crate::runner::Samples;
use crate::statistics::{median, range, ratio, two_humps};

/// A contestant's result.
pub struct Row {
    pub label: &'static str,
    pub kind: Kind,
    pub values: Vec<f64>,
    /// p50, p99, p99.9 and the largest, in nanoseconds.
    pub percentiles: Option<[u64; 4]>,
    /// Where the values have two humps.
    pub humps: Option<(f64, f64)>,
    pub failure: Option<String>,
}

impl Row {
    pub fn median(&self) -> f64 {
        median(&self.values)
    }

    pub fn range(&self) -> (f64, f64) {
        range(&self.values)
    }
}

/// A goal, and whether it is met; `None` where what it compares with has no value.
pub struct Judged {
    pub text: String,
    /// What shmkit is compared with: a contestant's label, or a value.
    pub base: String,
    /// shmkit's value in that.
    pub ratio: f64,
    pub met: Option<bool>,
}

/// A figure's results.
pub struct Report {
    pub name: String,
    pub about: &'static str,
    pub unit: Unit,
    pub rows: Vec<Row>,
    pub goals: Vec<Judged>,
    /// Places of shmkit, of the limit and of the best peer.
    pub shmkit: Option<usize>,
    pub limit: Option<usize>,
    pub best_peer: Option<usize>,
}

impl Report {
    pub fn new(figure: &Figure, samples: Vec<Samples>) -> Report {
        let rows: Vec<Row> = figure
            .contestants
            .iter()
            .zip(samples)
            .map(|(contestant, samples)| Row {
                label: contestant.label,
                kind: contestant.kind,
                percentiles: samples.latencies.as_ref().map(|latencies| {
                    let at = |quantile| latencies.value_at_quantile(quantile);
                    [at(0.5), at(0.99), at(0.999), latencies.max()]
                }),
                humps: two_humps(&samples.values),
                values: samples.values,
                failure: samples.failure,
            })
            .collect();
        let measured = |place: &usize| !rows[*place].values.is_empty();
        let of_kind = |kind: Kind| (0..rows.len()).filter(move |&place| figure.contestants[place].kind == kind);
        let better = |a: &usize, b: &usize| {
            let order = rows[*a].median().total_cmp(&rows[*b].median());
            if figure.unit.less_is_better() { order } else { order.reverse() }
        };
        let shmkit = figure.shmkit().filter(measured);
        // Where a figure has several, the one it is judged by first.
        let judged = figure.goals.iter().find_map(|goal| match goal {
            Goal::AtMost(_, label) | Goal::AtLeast(_, label) => {
                figure.place(label).filter(|&place| figure.contestants[place].kind == Kind::Limit)
            }
            Goal::Below(_) => None,
        });
        let limit = judged.or_else(|| of_kind(Kind::Limit).next_back()).filter(measured);
        let best_peer = of_kind(Kind::Peer).filter(measured).min_by(better);
        let goals = figure.goals.iter().map(|goal| judge(goal, figure, &rows, shmkit)).collect();
        Report {
            name: figure.name.clone(),
            about: figure.about,
            unit: figure.unit,
            rows,
            goals,
            shmkit,
            limit,
            best_peer,
        }
    }

    /// The median ratio of one row to another.
    pub fn ratio(&self, of: usize, to: usize) -> f64 {
        ratio(&self.rows[of].values, &self.rows[to].values)
    }

    /// shmkit's median ratio to a row; not a number where one of them is missing.
    pub fn own_ratio(&self, to: Option<usize>) -> f64 {
        match (self.shmkit, to) {
            (Some(own), Some(to)) => self.ratio(own, to),
            _ => f64::NAN,
        }
    }

    /// The rows that failed though nobody else's program is needed for them, and why.
    pub fn broken(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let own = self.rows.iter().filter(|row| row.kind != Kind::Peer);
        own.filter_map(|row| Some((row.label, row.failure.as_deref()?)))
    }

    /// All goals in one text; empty where there are none.
    pub fn goal(&self) -> String {
        self.goals.iter().map(|goal| goal.text.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// Whether all goals are met; `None` where there are none, or one cannot be judged and no other is missed.
    pub fn met(&self) -> Option<bool> {
        if self.goals.iter().any(|goal| goal.met == Some(false)) {
            return Some(false);
        }
        (!self.goals.is_empty() && self.goals.iter().all(|goal| goal.met == Some(true))).then_some(true)
    }
}

fn judge(goal: &Goal, figure: &Figure, rows: &[Row], shmkit: Option<usize>) -> Judged {
    let against = |label: &str| match (shmkit, figure.place(label)) {
        (Some(own), Some(other)) => ratio(&rows[own].values, &rows[other].values),
        _ => f64::NAN,
    };
    let (text, base, ratio, met) = match *goal {
        Goal::AtMost(times, label) => {
            let ratio = against(label);
            (format!("≤ {times} × {label}"), label.to_owned(), ratio, ratio <= times)
        }
        Goal::AtLeast(times, label) => {
            let ratio = against(label);
            (format!("≥ {times} × {label}"), label.to_owned(), ratio, ratio >= times)
        }
        Goal::Below(most) => {
            let value = shmkit.map_or(f64::NAN, |own| rows[own].median());
            let base = format!("{most} {}", figure.unit.text());
            (format!("≤ {base}"), base, value / most, value <= most)
        }
    };
    Judged { text, base, ratio, met: (!ratio.is_nan()).then_some(met) }
}

/// A ratio; a dash where there is none.
pub fn times(ratio: f64) -> String {
    if ratio.is_nan() { "–".to_owned() } else { format!("{ratio:.2}") }
}

/// What a goal came to, in words.
pub fn verdict(goal: &Judged) -> String {
    match goal.met {
        Some(true) => format!("met at {:.2}", goal.ratio),
        Some(false) => format!("MISSED at {:.2}", goal.ratio),
        None => "cannot be judged".to_owned(),
    }
}

/// A number with three significant digits and separators for thousands.
pub fn number(value: f64) -> String {
    if value.is_nan() {
        return "–".to_owned();
    }
    let digits = match value.abs() {
        small if small < 10.0 => 2,
        medium if medium < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let (whole, part) = text.split_once('.').map_or((text.as_str(), ""), |(whole, part)| (whole, part));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) && digit.is_ascii_digit() && grouped != "-" {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if part.is_empty() { grouped } else { format!("{grouped}.{part}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Result;
    use crate::contest::Contestant;
    use crate::stage::Stage;

    fn never(_: &Stage) -> Result {
        Ok(())
    }

    fn samples(values: &[f64]) -> Samples {
        Samples { values: values.to_vec(), ..Samples::new() }
    }

    fn figure() -> Figure {
        Figure::new("round trip", Unit::Nanoseconds).goal(Goal::AtMost(1.2, "ring")).with([
            Contestant::pair("shmkit", Kind::Shmkit, never),
            Contestant::pair("ring", Kind::Limit, never),
            Contestant::pair("slow", Kind::Peer, never),
            Contestant::pair("fast", Kind::Peer, never),
            Contestant::pair("broken", Kind::Peer, never),
        ])
    }

    /// What the contestants of [`figure`] gave. The last one was the fastest, and then failed.
    fn all_samples() -> Vec<Samples> {
        let values: [&[f64]; 5] = [&[110.0, 220.0], &[100.0, 200.0], &[900.0, 900.0], &[165.0, 330.0], &[1.0]];
        let mut all: Vec<Samples> = values.into_iter().map(samples).collect();
        all[4].fail("it hung".to_owned());
        all
    }

    pub(super) fn report() -> Report {
        Report::new(&figure(), all_samples())
    }

    /// The row at `place` failed after it had given values.
    pub(super) fn report_without(place: usize) -> Report {
        let mut all = all_samples();
        all[place].fail("the sum of all messages: read 0x1, sent 0x2".to_owned());
        Report::new(&figure(), all)
    }

    #[test]
    fn who_fails_once_has_no_values_and_meets_no_goal() {
        let report = report_without(0);
        assert_eq!((report.shmkit, report.met()), (None, None));
        assert!(report.rows[0].values.is_empty() && report.rows[0].percentiles.is_none());
        assert_eq!(report.broken().map(|(label, _)| label).collect::<Vec<_>>(), ["shmkit"]);
    }

    #[test]
    fn what_a_failed_base_is_compared_with_is_not_judged() {
        let report = report_without(1);
        assert_eq!((report.limit, report.met()), (None, None));
        assert_eq!(report.broken().map(|(label, _)| label).collect::<Vec<_>>(), ["ring"]);
    }

    #[test]
    fn a_peer_that_failed_is_not_the_best_and_breaks_nothing() {
        let report = report();
        assert_eq!(report.best_peer, Some(3));
        assert_eq!(report.broken().count(), 0);
    }

    #[test]
    fn shmkit_is_judged_by_the_ratios_of_pairs() {
        let report = report();
        assert_eq!((report.shmkit, report.limit, report.best_peer), (Some(0), Some(1), Some(3)));
        assert!((report.ratio(0, 1) - 1.1).abs() < 1e-9);
        assert_eq!((report.goal().as_str(), report.met()), ("≤ 1.2 × ring", Some(true)));
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(123.4), "123");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(1.234), "1.23");
        assert_eq!(number(f64::NAN), "–");
    }
}
