//! The report as one page: figures, latency curves, what happened over time, the facts of the machine.
//!
//! Owns the layout. Does not load anything: the page is self-contained. Input: the report and the samples; output:
//! text. No limits: once a run. Cost: linear in the samples, some 100,000 bytes of text, after the measurement.

use crate::machine::Machine;
use crate::report::{Latency, PERCENTILES, Report};
use crate::shown;
use crate::svg::{self, COLORS, Chart, Series, escape};
use crate::telemetry::{INTERVAL, Sample, Timeline};

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1d2330;--soft:#667085;--line:#d8dde6;--page:#fff;--bad:#b42318;--good:#177245;
--c0:#1c6dd0;--c1:#d9480f;--c2:#2b8a3e;--c3:#9c36b5;--c4:#b08900;--c5:#0b7285}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--line:#344054;--page:#12151c;
--bad:#ff8a80;--good:#7bd88f;--c0:#74b0ff;--c1:#ff9d6b;--c2:#7bd88f;--c3:#e0a3f5;--c4:#ffd866;--c5:#66d9e8}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:60rem;
margin:2rem auto;padding:0 1rem}h1{margin-bottom:0}h2{margin:2.2rem 0 .4rem;font-size:1.15rem}
p,.note{color:var(--soft);margin:.2rem 0}table{border-collapse:collapse;width:100%}
td{border-top:1px solid var(--line);padding:.25rem .5rem;vertical-align:top}
td.value{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th{text-align:right;font-weight:normal;color:var(--soft);padding:.25rem .5rem}
td.fact{overflow-wrap:anywhere}
.head{display:flex;flex-wrap:wrap;gap:1rem 2.5rem;margin:1.4rem 0}.head div{flex:1 1 11rem}
.head b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums;white-space:nowrap}
.head span{color:var(--soft)}.bad{color:var(--bad)}p.good{color:var(--good)}svg{width:100%;height:auto;display:block}
svg text{fill:var(--soft);font-size:12px}svg .small{font-size:10px}svg .axis{fill:var(--ink)}
.middle{text-anchor:middle}.end{text-anchor:end}.grid{stroke:var(--line);stroke-width:1}
.mark{stroke:var(--soft);stroke-dasharray:4 3}
polyline{fill:none;stroke-width:2;stroke-linejoin:round}.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}
.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}.c4{stroke:var(--c4)}.c5{stroke:var(--c5)}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;font-size:.85rem;color:var(--soft)}
.key svg{display:inline-block;width:22px;height:10px;margin-right:.35rem}
";

pub(crate) fn page(report: &Report, timeline: &Timeline, machine: &Machine) -> String {
    let scenario = escape(report.scenario);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{scenario}</title><style>{STYLE}</style></head><body><h1>{scenario}</h1>"
    );
    let date = machine.facts.iter().find(|(name, _)| *name == "date");
    let date = date.map(|(_, value)| escape(value)).unwrap_or_default();
    out.push_str(&format!("<p>{}, {date}</p>", escape(&machine.server)));
    headlines(report, &mut out);
    violations(report, &mut out);
    latencies(report, &mut out);
    over_time(timeline, &mut out);
    figures(report, &mut out);
    facts(machine, &mut out);
    out.push_str("</body></html>\n");
    out
}

fn violations(report: &Report, out: &mut String) {
    let shown = shown::violations(report.violations.count);
    if report.is_clean() {
        out.push_str(&format!(
            "<p class=\"good\">{shown}: all that was due came once, in order and unchanged</p>"
        ));
        return;
    }
    out.push_str(&format!("<h2 class=\"bad\">{shown}</h2><ul>"));
    for text in &report.violations.texts {
        out.push_str(&format!("<li class=\"bad\">{}</li>", escape(text)));
    }
    out.push_str("</ul>");
}

fn headlines(report: &Report, out: &mut String) {
    let all = shown::headlines(report);
    if all.is_empty() {
        return;
    }
    out.push_str("<div class=\"head\">");
    for (name, value) in all {
        out.push_str(&format!(
            "<div><b>{}</b><span>{}</span></div>",
            escape(&value),
            escape(&name)
        ));
    }
    out.push_str("</div>");
}

fn figures(report: &Report, out: &mut String) {
    out.push_str("<h2>All figures</h2><table>");
    for figure in report.figures.iter().filter(|figure| !figure.is_percentile) {
        let (name, value) = (escape(&figure.name), shown::figure(&figure.value, figure.unit));
        out.push_str(&format!(
            "<tr><td>{name}</td><td class=\"value\">{}</td></tr>",
            escape(&value)
        ));
    }
    out.push_str("</table>");
}

fn percentile_table(report: &Report, out: &mut String) {
    out.push_str("<h2>Latency in milliseconds</h2><table><tr><th></th>");
    PERCENTILES.iter().for_each(|(name, _)| out.push_str(&format!("<th>{name}</th>")));
    out.push_str("</tr>");
    for (name, latency) in &report.latencies {
        out.push_str(&format!("<tr><td>{}</td>", escape(name)));
        for value in shown::percentiles(latency) {
            out.push_str(&format!("<td class=\"value\">{value}</td>"));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
}

/// Points of the latency curve, spaced so that 90 %, 99 %, 99.9 % are equally far apart.
fn curve(latency: &Latency) -> Vec<(f64, f64)> {
    let count = latency.0.len();
    if count == 0 {
        return Vec::new();
    }
    let nines_max = (count as f64).log10().min(7.0);
    let steps = 200;
    (0..=steps)
        .map(|step| {
            let nines = nines_max * f64::from(step) / f64::from(steps);
            (nines, latency.ms_at(1.0 - 10f64.powf(-nines)))
        })
        .collect()
}

fn latencies(report: &Report, out: &mut String) {
    let series: Vec<Series> = report
        .latencies
        .iter()
        .map(|(name, latency)| Series { name: name.clone(), points: curve(latency) })
        .filter(|series| !series.points.is_empty())
        .collect();
    if series.is_empty() {
        return;
    }
    percentile_table(report, out);
    let last = series.iter().filter_map(|series| series.points.last());
    let x_max = last.map(|point| point.0).fold(1.0, f64::max);
    let names = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"];
    let ticks = names.iter().enumerate().map(|(nines, name)| (nines as f64, (*name).to_owned()));
    let chart = Chart {
        x_label: "percentile",
        y_label: "milliseconds (logarithmic)",
        x_ticks: ticks.filter(|(nines, _)| *nines <= x_max).collect(),
        x_max,
        log_y: true,
        series,
        marks: Vec::new(),
    };
    section("Latency by percentile", &chart, out);
}

fn section(title: &str, chart: &Chart<'_>, out: &mut String) {
    out.push_str(&format!("<h2>{}</h2>{}", escape(title), chart.draw()));
    if chart.series.len() < 2 {
        return;
    }
    out.push_str("<div class=\"key\">");
    for (number, series) in chart.series.iter().enumerate() {
        let (color, name) = (number % COLORS, escape(&series.name));
        out.push_str(&format!(
            "<span><svg viewBox=\"0 0 22 10\"><polyline class=\"c{color}\" points=\"0,5 22,5\"/>\
             </svg>{name}</span>"
        ));
    }
    out.push_str("</div>");
}

/// A point for each interval between two samples. The last interval is left out if it is too short.
fn between(samples: &[Sample], value: impl Fn(&Sample, &Sample, f64) -> f64) -> Vec<(f64, f64)> {
    let least = INTERVAL.as_secs_f64() * 0.8;
    let stretch = |pair: &[Sample]| {
        let wall = (pair[1].at - pair[0].at).as_secs_f64();
        (wall > least).then(|| (pair[1].at.as_secs_f64(), value(&pair[0], &pair[1], wall)))
    };
    samples.windows(2).filter_map(stretch).collect()
}

fn over_time(timeline: &Timeline, out: &mut String) {
    let samples = &timeline.samples;
    let x_max = samples.last().map_or(1.0, |sample| sample.at.as_secs_f64()).max(0.1);
    // A phase that is over before its name fits shares its line with the next.
    let mut marks: Vec<(f64, String)> = Vec::new();
    for phase in &timeline.phases {
        let at = phase.at.as_secs_f64();
        match marks.last_mut() {
            Some((last, names)) if at - *last < svg::text_width(names) * x_max => {
                names.push_str(", ");
                names.push_str(&phase.name);
            }
            _ => marks.push((at, phase.name.clone())),
        }
    }
    let chart = |y_label, series| Chart {
        x_label: "seconds",
        y_label,
        x_ticks: svg::ticks(x_max, 8.0)
            .into_iter()
            .filter(|tick| *tick <= x_max)
            .map(|tick| (tick, svg::label(tick)))
            .collect(),
        x_max,
        log_y: false,
        series,
        marks: marks.clone(),
    };
    let rate = |before: &Sample, after: &Sample, wall: f64| {
        after.progress.saturating_sub(before.progress) as f64 / wall
    };
    let mut points = between(samples, rate);
    // A new phase counts from 0, so the interval in which it begins has no rate.
    let begins = |second: f64| {
        let mut begun = timeline.phases.iter().map(|phase| phase.at.as_secs_f64());
        begun.any(|at| (0.0..=0.26).contains(&(second - at)) && at > 0.0)
    };
    points.retain(|(second, _)| !begins(*second));
    section(
        "Throughput",
        &chart(
            "per second, of what the phase above counts",
            vec![Series { name: "throughput".into(), points }],
        ),
        out,
    );
    let busy = |name: &str, of: fn(&Sample) -> std::time::Duration| Series {
        name: name.to_owned(),
        points: between(samples, |before, after, wall| {
            100.0 * of(after).saturating_sub(of(before)).as_secs_f64() / wall
        }),
    };
    let both = vec![
        busy("server", |sample| sample.server_cpu),
        busy("client", |sample| sample.client_cpu),
    ];
    section("CPU", &chart("percent of a core", both), out);
    let memory =
        |sample: &Sample| (sample.at.as_secs_f64(), sample.server_rss as f64 / f64::from(1 << 20));
    let points = samples.iter().map(memory).collect();
    section(
        "Memory of the server",
        &chart("RSS, MiB", vec![Series { name: "RSS".into(), points }]),
        out,
    );
}

fn facts(machine: &Machine, out: &mut String) {
    out.push_str("<h2>Machine</h2><table>");
    for (name, value) in &machine.facts {
        let (name, value) = (escape(name), escape(value));
        out.push_str(&format!("<tr><td>{name}</td><td class=\"fact\">{value}</td></tr>"));
    }
    out.push_str("</table>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Phase;
    use std::time::Duration;

    fn report() -> Report {
        let mut report = Report::new("<scenario>");
        report.figure("deliveries & more", 12.5, "1/s");
        let mut latency = Latency::default();
        (1..=1000).for_each(|micros| latency.record(Duration::from_micros(micros)));
        report.latency("to \"all\"", &latency);
        let mut violations = crate::report::Violations::default();
        violations.add(|| "altered: <script>alert(1)</script>".to_owned());
        report.add_violations(violations);
        report
    }

    #[test]
    fn the_page_is_whole_and_escapes_its_texts() {
        let sample = |second| Sample {
            at: Duration::from_secs(second),
            progress: second * 100,
            server_cpu: Duration::from_millis(second * 500),
            client_cpu: Duration::from_millis(second * 300),
            server_rss: 5 << 20,
        };
        let phase = Phase { at: Duration::from_secs(1), name: "<warm>".to_owned() };
        let timeline = Timeline { samples: (0..4).map(sample).collect(), phases: vec![phase] };
        let machine = Machine {
            server: "ringverb <1>".to_owned(),
            facts: vec![("command", "bench '<x>'".to_owned())],
        };
        let page = page(&report(), &timeline, &machine);
        for bad in ["<script", "<scenario>", "<warm>", "<x>", "<1>", "http://", "https://", "NaN"] {
            assert!(!page.contains(bad), "{bad}");
        }
        for part in
            ["deliveries &amp; more", "✘ 1 violation", "percentile", "RSS, MiB", "&lt;warm&gt;"]
        {
            assert!(page.contains(part), "{part}");
        }
        assert!(page.ends_with("</html>\n"));
    }

    #[test]
    fn a_curve_goes_up_to_the_rarest_value() {
        let report = report();
        let points = curve(&report.latencies[0].1);
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
        assert!((points[0].1 - 0.001).abs() < 0.01);
        assert!((points.last().unwrap().1 - 1.0).abs() < 0.01);
        assert!(curve(&Latency::default()).is_empty());
    }
}
