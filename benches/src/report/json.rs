//! `--json`: one object a row.

use super::{Judged, Report};
use crate::Result;
use serde::{Deserialize, Serialize};

/// A goal, what it is measured by, and what came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoalLine {
    pub goal: String,
    /// What shmkit is compared with: another row's contestant, or a value.
    pub base: String,
    /// shmkit's value in that; a median of the ratios of neighbouring runs.
    pub ratio_to_base: Option<f64>,
    pub met: Option<bool>,
}

/// A row. Those of shmkit are named as their figure; the others `figure / contestant`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub name: String,
    pub value: f64,
    pub unit: String,
    /// The limit's value, in the same unit.
    pub limit: Option<f64>,
    /// The best peer's value, in the same unit.
    pub best_peer: Option<f64>,
    /// Medians of the ratios of neighbouring runs, not ratios of medians.
    pub ratio_to_limit: Option<f64>,
    pub ratio_to_best_peer: Option<f64>,
    pub goal: Option<String>,
    pub met: Option<bool>,
    /// The goals one by one; none for rows that are not shmkit's.
    #[serde(default)]
    pub goals: Vec<GoalLine>,
}

/// All rows of a run that have a value.
pub fn lines(reports: &[Report]) -> Vec<Line> {
    let mut lines = Vec::new();
    for report in reports {
        for (place, row) in report.rows.iter().enumerate().filter(|(_, row)| !row.values.is_empty()) {
            let own = report.shmkit == Some(place);
            let ratio = |to: Option<usize>| to.filter(|&to| to != place).map(|to| report.ratio(place, to));
            let value = |of: Option<usize>| of.filter(|&of| of != place).map(|of| report.rows[of].median());
            lines.push(Line {
                name: if own { report.name.clone() } else { format!("{} / {}", report.name, row.label) },
                value: row.median(),
                unit: report.unit.text().to_owned(),
                limit: value(report.limit),
                best_peer: value(report.best_peer),
                ratio_to_limit: ratio(report.limit),
                ratio_to_best_peer: ratio(report.best_peer),
                goal: (own && !report.goals.is_empty()).then(|| report.goal()),
                met: if own { report.met() } else { None },
                goals: if own { report.goals.iter().map(goal).collect() } else { Vec::new() },
            });
        }
    }
    lines
}

fn goal(judged: &Judged) -> GoalLine {
    GoalLine {
        goal: judged.text.clone(),
        base: judged.base.clone(),
        ratio_to_base: (!judged.ratio.is_nan()).then_some(judged.ratio),
        met: judged.met,
    }
}

/// The text of the file.
pub fn json(reports: &[Report]) -> Result<String> {
    Ok(serde_json::to_string_pretty(&lines(reports))? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_exactly_these_fields() {
        let report = super::super::tests::report();
        let all: serde_json::Value = serde_json::from_str(&json(&[report]).unwrap()).unwrap();
        let first = all[0].as_object().unwrap();
        let mut names: Vec<&str> = first.keys().map(String::as_str).collect();
        names.sort_unstable();
        let mut expected = [
            "name",
            "value",
            "unit",
            "limit",
            "best_peer",
            "ratio_to_limit",
            "ratio_to_best_peer",
            "goal",
            "met",
            "goals",
        ];
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(first["goals"][0]["base"], "ring");
        assert!((first["goals"][0]["ratio_to_base"].as_f64().unwrap() - 1.1).abs() < 1e-9);
        assert_eq!(first["name"], "round trip");
        assert_eq!(first["met"], true);
        assert_eq!(all[1]["name"], "round trip / ring");
        assert_eq!(all.as_array().unwrap().len(), 4, "what was not measured has no row");
    }
    #[test]
    fn a_failed_row_has_no_line_and_a_goal_without_its_base_no_verdict() {
        let names = |report| lines(&[report]).into_iter().map(|line| line.name).collect::<Vec<_>>();
        assert_eq!(names(super::super::tests::report_without(0)).first().unwrap(), "round trip / ring");
        let all = lines(&[super::super::tests::report_without(1)]);
        assert_eq!((all[0].met, all[0].goals[0].met, all[0].goals[0].ratio_to_base), (None, None, None));
    }
}
