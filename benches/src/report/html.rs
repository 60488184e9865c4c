//! `--html`: one page that needs nothing else, with a chart a figure.

use super::{Report, Row, number, times, verdict};
use crate::contest::Kind;
use crate::machine::Machine;
use std::fmt::Write;

const STYLE: &str = "
:root { color-scheme: light dark; --back: #fcfcfb; --text: #1d1d1f; --soft: #6b6b70; --line: #e3e3e1; --own: #c2410c; --limit: #0f766e;
  --peer: #475569; --reference: #94a3b8; --good: #15803d; --bad: #b91c1c; --card: #ffffff }
@media (prefers-color-scheme: dark) { :root { --back: #131315; --text: #ececee; --soft: #9a9aa2; --line: #2e2e33; --own: #fb923c;
  --limit: #2dd4bf; --peer: #a3b1c6; --reference: #64748b; --good: #4ade80; --bad: #f87171; --card: #1b1b1f } }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1rem 4rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin: 0 0 .3rem } h2 { font-size: 1.1rem; margin: 0 }
p { color: var(--soft); margin: .3rem 0 1rem; max-width: 46rem }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.2rem; margin: 1.2rem 0;
  overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; width: 100% }
th { text-align: right; color: var(--soft); font-weight: 500 } td { text-align: right; padding: .12rem .5rem;
  border-top: 1px solid var(--line) } th { padding: .12rem .5rem } th:first-child, td:first-child { text-align: left }
.shmkit { color: var(--own); font-weight: 600 } .limit { color: var(--limit) } .peer { color: var(--peer) }
.reference { color: var(--reference) } .met { color: var(--good) } .missed { color: var(--bad) }
svg { width: 100%; height: auto; display: block; margin: .6rem 0 } svg text { fill: var(--text); font: 12px system-ui, sans-serif }
svg .axis { stroke: var(--line) } svg .tick { fill: var(--soft) } svg .dot { fill: currentColor } svg .bar { stroke: currentColor;
  stroke-width: 2; stroke-linecap: round } svg .range { fill: currentColor; opacity: .22 }
details { margin-top: .4rem } summary { cursor: pointer; color: var(--soft) }
";

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Shmkit => "shmkit",
        Kind::Reference => "reference",
        Kind::Limit => "limit",
        Kind::Peer => "peer",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page.
pub fn html(reports: &[Report], machine: &Machine) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>shmkit benchmarks</title>\n\
         <style>{STYLE}</style>\n<h1>shmkit benchmarks</h1>\n\
         <p>Dots are medians, bars go from the smallest to the largest run, the scale is logarithmic. Ratios are medians of the \
         ratios of neighbouring runs. <span class=\"shmkit\">shmkit</span>, <span class=\"limit\">limits of the machine</span>, \
         <span class=\"peer\">others</span>, <span class=\"reference\">for comparison</span>.</p>\n"
    );
    goals(&mut out, reports);
    for report in reports {
        let _ = writeln!(out, "<section>\n<h2>{} <small>[{}]</small></h2>", escaped(&report.name), report.unit.text());
        if !report.about.is_empty() {
            let _ = writeln!(out, "<p>{}</p>", escaped(report.about));
        }
        for goal in &report.goals {
            let (class, _) = mark(goal.met);
            let (text, verdict) = (escaped(&goal.text), verdict(goal));
            let _ = writeln!(out, "<div>goal {text}: <span class=\"{class}\">{verdict}</span></div>");
        }
        chart(&mut out, report);
        values(&mut out, report);
        out.push_str("</section>\n");
    }
    out.push_str("<section>\n<h2>The machine</h2>\n<table>\n");
    for (what, value) in &machine.facts {
        let _ = writeln!(out, "<tr><td>{}<td>{}", escaped(what), escaped(value));
    }
    out.push_str("</table>\n</section>\n</html>\n");
    out
}

/// The class and the sign of a verdict.
fn mark(met: Option<bool>) -> (&'static str, &'static str) {
    match met {
        Some(true) => ("met", "✓"),
        Some(false) => ("missed", "✗"),
        None => ("", "?"),
    }
}

fn goals(out: &mut String, reports: &[Report]) {
    if reports.iter().all(|report| report.goals.is_empty()) {
        return;
    }
    out.push_str("<section>\n<h2>Goals</h2>\n<table>\n<tr><th>figure<th>value<th>÷ limit<th>÷ best peer<th>goal<th>÷ goal's base<th>\n");
    for report in reports {
        let value = report.shmkit.map_or(f64::NAN, |own| report.rows[own].median());
        for goal in &report.goals {
            let (class, mark) = mark(goal.met);
            let [limit, peer] = [report.limit, report.best_peer].map(|to| times(report.own_ratio(to)));
            let _ = writeln!(
                out,
                "<tr><td>{}<td>{} {}<td>{limit}<td>{peer}<td>{}<td>{}<td class=\"{class}\">{mark}",
                escaped(&report.name),
                number(value),
                report.unit.text(),
                escaped(&goal.text),
                times(goal.ratio)
            );
        }
    }
    out.push_str("</table>\n</section>\n");
}

const WIDTH: f64 = 900.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 820.0;
const STEP: f64 = 24.0;

/// Medians and ranges on a logarithmic axis.
fn chart(out: &mut String, report: &Report) {
    let rows: Vec<&Row> = report.rows.iter().filter(|row| row.range().0 > 0.0).collect();
    let least = rows.iter().map(|row| row.range().0).fold(f64::INFINITY, f64::min);
    let most = rows.iter().map(|row| row.range().1).fold(0.0, f64::max);
    if rows.is_empty() {
        return;
    }
    let (low, high) = (least.log10() - 0.08, (most.log10() + 0.08).max(least.log10() + 0.5));
    let x = |value: f64| LEFT + (value.log10() - low) / (high - low) * (RIGHT - LEFT);
    let bottom = rows.len() as f64 * STEP + 10.0;
    let _ = writeln!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">",
        bottom + 24.0,
        escaped(&report.name)
    );
    let mut decade = 10f64.powf(low.floor());
    while decade.log10() <= high {
        // In a narrow range the decades alone are too few.
        let steps: &[f64] = if high - low > 1.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        for tick in steps.iter().map(|step| step * decade).filter(|tick| (low..=high).contains(&tick.log10())) {
            let at = x(tick);
            let _ = writeln!(
                out,
                "<line class=\"axis\" x1=\"{at:.1}\" y1=\"4\" x2=\"{at:.1}\" y2=\"{bottom:.1}\"/>\
                 <text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                short(tick)
            );
        }
        decade *= 10.0;
    }
    for (place, row) in rows.iter().enumerate() {
        let y = 16.0 + place as f64 * STEP;
        let (least, most) = row.range();
        let (from, to, at) = (x(least), x(most), x(row.median()));
        let _ = writeln!(
            out,
            "<g class=\"{}\"><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <line class=\"bar\" x1=\"{from:.1}\" y1=\"{y:.1}\" x2=\"{to:.1}\" y2=\"{y:.1}\"/>\
             <circle class=\"dot\" cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"5\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            class(row.kind),
            LEFT - 10.0,
            y + 4.0,
            escaped(row.label),
            to.max(at) + 9.0,
            y + 4.0,
            number(row.median())
        );
    }
    out.push_str("</svg>\n");
}

/// 1, 20, 500, 1k, 2M.
fn short(value: f64) -> String {
    match value {
        small if small < 1.0 => format!("{small:.3}").trim_end_matches('0').to_owned(),
        medium if medium < 1e3 => format!("{medium:.0}"),
        large if large < 1e6 => format!("{:.0}k", large / 1e3),
        huge => format!("{:.0}M", huge / 1e6),
    }
}

fn values(out: &mut String, report: &Report) {
    let _ = write!(
        out,
        "<details><summary>values</summary>\n<table>\n<tr><th>{}<th>median<th>min<th>max<th>÷ limit<th>p50 ns<th>p99<th>p99.9<th>max\n",
        report.unit.text()
    );
    for (place, row) in report.rows.iter().enumerate() {
        if let Some(why) = &row.failure {
            let _ = writeln!(out, "<tr><td>{}<td colspan=\"8\">not measured: {}", escaped(row.label), escaped(why));
            continue;
        }
        let (least, most) = row.range();
        let ratio = times(report.limit.map_or(f64::NAN, |limit| report.ratio(place, limit)));
        let _ = write!(
            out,
            "<tr><td class=\"{}\">{}<td>{}<td>{}<td>{}<td>{ratio}",
            class(row.kind),
            escaped(row.label),
            number(row.median()),
            number(least),
            number(most)
        );
        for latency in row.percentiles.into_iter().flatten() {
            let _ = write!(out, "<td>{}", number(latency as f64));
        }
        out.push('\n');
        if let Some((low, high)) = row.humps {
            let (low, high) = (number(low), number(high));
            let _ = writeln!(out, "<tr><td><td colspan=\"8\">two humps: about {low} and about {high}");
        }
    }
    out.push_str("</table></details>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_chart_a_figure_and_needs_nothing_else() {
        let page = html(&[super::super::tests::report()], &Machine { facts: vec![("CPU", "<fast>".to_owned())] });
        assert_eq!(page.matches("<svg").count(), 1);
        assert_eq!(page.matches("<circle").count(), 4);
        assert!(page.contains("&lt;fast&gt;") && !page.contains("http") && !page.contains("NaN"), "{page}");
    }

    #[test]
    fn what_has_no_limit_and_no_verdict_is_a_dash() {
        let page = html(&[super::super::tests::report_without(1)], &Machine { facts: Vec::new() });
        assert!(page.contains("cannot be judged") && page.contains("<td>–") && !page.contains("NaN"), "{page}");
    }
}
