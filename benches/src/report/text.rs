//! The table on the terminal.

use super::{Report, number};
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
    let has_latencies = report.rows.iter().any(|row| row.percentiles.is_some());
    let latencies =
        if has_latencies { format!("{:>9} {:>9} {:>9} {:>9}", "p50", "p99", "p99.9", "max ns") } else { String::new() };
    let _ = writeln!(out, "  {:<36} {:>10} {:>10} {:>10} {:>9}  {latencies}", "", "median", "min", "max", "shmkit ÷");
    for (place, row) in report.rows.iter().enumerate() {
        if let Some(why) = &row.failure {
            let _ = writeln!(out, "{} {:<36} not measured: {why}", kind(row.kind), row.label);
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
            "{} {:<36} {median:>10} {least:>10} {most:>10} {ratio:>9}  {latencies}",
            kind(row.kind),
            row.label
        );
        if let Some((low, high)) = row.humps {
            let _ = writeln!(out, "    two humps: about {} and about {} {unit}", number(low), number(high));
        }
    }
    for goal in &report.goals {
        let verdict = match goal.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "cannot be judged",
        };
        let _ = writeln!(out, "  goal {}: {verdict} at {:.2}", goal.text, goal.ratio);
    }
    out
}

/// How many goals are met, and which are not.
pub fn summary(reports: &[Report], took: Duration) -> String {
    let count = |met| reports.iter().filter(|report| !report.goals.is_empty() && report.met() == met).count();
    let mut out = format!(
        "\n▶ shmkit, = a limit of the machine, · for comparison. Goals: {} met, {} missed, {} not judged. {:.0} s.\n",
        count(Some(true)),
        count(Some(false)),
        count(None),
        took.as_secs_f64()
    );
    for report in reports.iter().filter(|report| report.met() == Some(false)) {
        for goal in report.goals.iter().filter(|goal| goal.met == Some(false)) {
            let _ = writeln!(out, "  missed: {}: {} is {:.2}", report.name, goal.text, goal.ratio);
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
    }
}
