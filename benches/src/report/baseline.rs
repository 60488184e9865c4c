//! `--baseline`: what has changed since an earlier run.

use super::json::{Line, lines};
use super::{Report, number};
use crate::Result;
use crate::statistics::{noise, ratios};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Changes below this are not told, however small the spread was.
const LEAST: f64 = 0.10;

/// Reads what `--json` wrote.
pub fn read_baseline(path: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
}

/// The rows that changed by more than the noise. Rows that have a limit are compared by their ratio to it, so that another
/// state of the machine is no change; the threshold is a tenth, or three times the noise of this run where that is more.
pub fn compare(reports: &[Report], baseline: &[Line]) -> String {
    let before: BTreeMap<&str, &Line> = baseline.iter().map(|line| (line.name.as_str(), line)).collect();
    let mut out = String::from("\nSince the baseline:\n");
    let mut changes = 0;
    for report in reports {
        for now in lines(std::slice::from_ref(report)) {
            let Some(old) = before.get(now.name.as_str()).filter(|old| old.unit == now.unit) else { continue };
            let change = match (now.ratio_to_limit, old.ratio_to_limit) {
                (Some(now), Some(old)) => now / old,
                _ => now.value / old.value,
            };
            let label = now.name.strip_prefix(&report.name).and_then(|rest| rest.strip_prefix(" / "));
            let row = report.rows.iter().enumerate().find(|(place, row)| match label {
                Some(label) => row.label == label,
                None => report.shmkit == Some(*place),
            });
            // What is compared is what has the noise: ratios do not drift with the machine as values do.
            let noise = row.map_or(0.0, |(place, row)| match (now.ratio_to_limit, report.limit) {
                (Some(_), Some(limit)) if limit != place => noise(&ratios(&row.values, &report.rows[limit].values)),
                _ => noise(&row.values),
            });
            let threshold = (3.0 * noise).max(LEAST);
            if (change - 1.0).abs() > threshold && change.is_finite() {
                let better = (change < 1.0) == report.unit.less_is_better();
                let _ = writeln!(
                    out,
                    "  {} {}: {} {unit} was {} {unit} ({:+.0} %, noise {:.0} %)",
                    if better { "better" } else { "WORSE " },
                    now.name,
                    number(now.value),
                    number(old.value),
                    (change - 1.0) * 100.0,
                    threshold * 100.0,
                    unit = now.unit
                );
                changes += 1;
            }
        }
    }
    if changes == 0 {
        out.push_str("  no change above the noise\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_machine_is_none_and_one_of_a_row_is() {
        let mut report = super::super::tests::report();
        for row in &mut report.rows {
            row.values = row.values.iter().flat_map(|&value| [value; 4]).collect();
        }
        let mut old = lines(std::slice::from_ref(&report));
        for line in &mut old {
            line.value *= 3.0;
        }
        old.retain(|line| line.ratio_to_limit.is_some());
        assert!(compare(std::slice::from_ref(&report), &old).contains("no change"));
        old[0].ratio_to_limit = old[0].ratio_to_limit.map(|ratio| ratio * 10.0);
        assert!(compare(std::slice::from_ref(&report), &old).contains("better round trip:"));
    }
}
