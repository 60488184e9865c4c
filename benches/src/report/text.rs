//! The table on the terminal.

use super::{Report, number, times, verdict};
use crate::contest::Kind;
use std::fmt::Write;
use std::time::Duration;

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Shmkit => "▶",
        Kind::Reference => "·",
        Kind::Limit => "=",
        Kind::Peer => " ",
    }
}

/// A figure's table: median, spread, latencies, and what shmkit's value is in each row's.
pub fn table(report: &Report) -> String {
    let mut out = String::new();
    let unit = report.unit.text();
    let own = report.shmkit.or_else(|| report.rows.iter().position(|row| row.kind == Kind::Reference));
    let _ = writeln!(out, "\n{} [{unit}]", report.name);
    if !report.about.is_empty() {
        let _ = writeln!(out, "  {}", report.about);
    }
    let has_latencies = report.rows.iter().any(|row| row.percentiles.is_some());
    let latencies =
        if has_latencies { format!("{:>9} {:>9} {:>9} {:>9}", "p50", "p99", "p99.9", "max ns") } else { String::new() };
    let width = report.rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0).max(36);
    let _ =
        writeln!(out, "  {:<width$} {:>10} {:>10} {:>10} {:>9}  {latencies}", "", "median", "min", "max", "shmkit ÷");
    for (place, row) in report.rows.iter().enumerate() {
        if let Some(why) = &row.failure {
            let _ = writeln!(out, "{} {:<width$} not measured: {why}", kind(row.kind), row.label);
            continue;
        }
        let (least, most) = row.range();
        let ratio =
            own.filter(|&own| own != place).map_or(String::new(), |own| format!("{:.2}", report.ratio(own, place)));
        let latencies = row.percentiles.map_or(String::new(), |[p50, p99, p999, most]| {
            let [p50, p99, p999, most] = [p50, p99, p999, most].map(|latency| number(latency as f64));
            format!("{p50:>9} {p99:>9} {p999:>9} {most:>9}")
        });
        let [median, least, most] = [row.median(), least, most].map(number);
        let _ = writeln!(
            out,
            "{} {:<width$} {median:>10} {least:>10} {most:>10} {ratio:>9}  {latencies}",
            kind(row.kind),
            row.label
        );
        if let Some((low, high)) = row.humps {
            let _ = writeln!(out, "    two humps: about {} and about {} {unit}", number(low), number(high));
        }
    }
    for goal in &report.goals {
        let _ = writeln!(out, "  goal {}: {}", goal.text, verdict(goal));
    }
    out
}

/// All goals, with shmkit's ratio to the limit, to the best peer, and to what the goal is measured by.
fn goals(reports: &[Report]) -> String {
    let mut out = String::new();
    for report in reports {
        let value = report.shmkit.map_or(f64::NAN, |own| report.rows[own].median());
        for goal in &report.goals {
            let [limit, peer] = [report.limit, report.best_peer].map(|to| times(report.own_ratio(to)));
            let mark = match goal.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not judged",
            };
            let _ = writeln!(
                out,
                "  {:<46} {:>8} {:<4} {limit:>7} {peer:>8} {:>8}  {mark:<10}  {}",
                report.name,
                number(value),
                report.unit.text(),
                times(goal.ratio),
                goal.text
            );
        }
    }
    if !out.is_empty() {
        out = format!(
            "\n  {:<46} {:>8} {:<4} {:>7} {:>8} {:>8}  {:<10}  goal\n{out}",
            "", "value", "", "÷ limit", "÷ peer", "÷ base", ""
        );
    }
    out
}

/// All goals, how many are met, and what failed its check.
pub fn summary(reports: &[Report], took: Duration) -> String {
    let count = |met| reports.iter().filter(|report| !report.goals.is_empty() && report.met() == met).count();
    let mut out = goals(reports);
    let _ = write!(
        out,
        "\n▶ shmkit, = a limit of the machine, · for comparison. Goals: {} met, {} missed, {} not judged. {:.0} s.\n",
        count(Some(true)),
        count(Some(false)),
        count(None),
        took.as_secs_f64()
    );
    for report in reports {
        for (label, why) in report.broken() {
            let _ = writeln!(out, "  FAILED: {} / {label}: {why}", report.name);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_is_met_and_what_is_broken() {
        let text = table(&super::super::tests::report());
        assert!(text.contains("goal ≤ 1.2 × ring: met at 1.10"), "{text}");
        assert!(text.contains("not measured: it hung"), "{text}");
        let text = table(&super::super::tests::report_without(1));
        assert!(text.contains("goal ≤ 1.2 × ring: cannot be judged") && !text.contains("NaN"), "{text}");
    }

    #[test]
    fn the_summary_has_the_ratio_that_is_judged_and_who_failed() {
        let text = summary(&[super::super::tests::report()], Duration::ZERO);
        let line = text.lines().find(|line| line.contains("round trip")).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>()[2..8], ["165", "ns", "1.10", "0.67", "1.10", "met"]);
        let text = summary(&[super::super::tests::report_without(0)], Duration::ZERO);
        assert!(text.contains("FAILED: round trip / shmkit: the sum of all messages"), "{text}");
        assert!(text.contains("0 met, 0 missed, 1 not judged") && !text.contains("NaN"), "{text}");
    }
}
