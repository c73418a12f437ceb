//! Line charts as SVG text: axes with labels, a grid, lines, marks. PURE.
//!
//! Owns the geometry. No script, no outside resource; never a color: those are classes of the page, so that light and
//! dark both work. No limits: the caller's points. Cost: linear in the points, some bytes of text each, after the
//! measurement.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 44.0;
/// The width of a character of a mark's name.
const CHARACTER: f64 = 6.0;

/// Lines are told apart by so many colors of the page.
pub(crate) const COLORS: usize = 6;

pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

pub(crate) struct Chart<'a> {
    pub(crate) x_label: &'a str,
    pub(crate) y_label: &'a str,
    /// Ticks of the horizontal axis, which ends at `x_max`.
    pub(crate) x_ticks: Vec<(f64, String)>,
    pub(crate) x_max: f64,
    pub(crate) log_y: bool,
    pub(crate) series: Vec<Series>,
    /// Upright lines with a name.
    pub(crate) marks: Vec<(f64, String)>,
}

pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// Round steps that divide 0 to `max` into about `count` parts.
pub(crate) fn ticks(max: f64, count: f64) -> Vec<f64> {
    if max.is_nan() || max <= 0.0 {
        return vec![0.0];
    }
    let rough = max / count;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(10.0 * power);
    let mut ticks = vec![0.0];
    while ticks.last().is_some_and(|last| *last < max) {
        ticks.push(step * ticks.len() as f64);
    }
    ticks
}

/// Powers of ten around the values.
fn log_ticks(least: f64, greatest: f64) -> Vec<f64> {
    let from = least.max(1e-6).log10().floor();
    let to = greatest.max(1e-6).log10().ceil().max(from + 1.0);
    let mut ticks = vec![10f64.powf(from)];
    let mut exponent = from;
    while exponent < to {
        exponent += 1.0;
        ticks.push(10f64.powf(exponent));
    }
    ticks
}

/// As few digits as say it.
pub(crate) fn label(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{} M", value / 1e6),
        size if size >= 1e4 => format!("{} k", value / 1e3),
        _ => {
            let text = format!("{value:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

/// From values to places in the picture.
struct Scale {
    x_max: f64,
    y_min: f64,
    y_max: f64,
    log_y: bool,
}

impl Scale {
    fn x(&self, value: f64) -> f64 {
        LEFT + value / self.x_max.max(1e-9) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let place = if self.log_y {
            let value = value.max(self.y_min);
            (value / self.y_min).log10() / (self.y_max / self.y_min).log10()
        } else {
            value / self.y_max.max(1e-9)
        };
        HEIGHT - BOTTOM - place.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Chart<'_> {
    pub(crate) fn draw(&self) -> String {
        let values = || self.series.iter().flat_map(|series| &series.points).map(|point| point.1);
        let greatest = values().fold(0.0, f64::max);
        let y_ticks = if self.log_y {
            log_ticks(values().fold(f64::MAX, f64::min).min(greatest), greatest)
        } else {
            ticks(greatest, 5.0)
        };
        let scale = Scale {
            x_max: self.x_max,
            y_min: y_ticks.first().copied().unwrap_or(0.0),
            y_max: y_ticks.last().copied().unwrap_or(1.0),
            log_y: self.log_y,
        };
        let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        self.axes(&scale, &y_ticks, &mut out);
        for (number, (at, name)) in self.marks.iter().enumerate() {
            let next = self.marks.get(number + 1).map_or(self.x_max, |mark| mark.0);
            draw_mark(scale.x(*at), scale.x(next), name, &mut out);
        }
        for (number, Series { name, points }) in self.series.iter().enumerate() {
            let place =
                |point: &(f64, f64)| format!("{:.1},{:.1}", scale.x(point.0), scale.y(point.1));
            let places: Vec<String> = points.iter().map(place).collect();
            put(
                &mut out,
                format_args!(
                    "<polyline class=\"c{}\" points=\"{}\"><title>{}</title></polyline>",
                    number % COLORS,
                    places.join(" "),
                    escape(name),
                ),
            );
        }
        out.push_str("</svg>");
        out
    }

    fn axes(&self, scale: &Scale, y_ticks: &[f64], out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in y_ticks {
            let y = scale.y(*tick);
            put(
                out,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick end\" x=\"{}\" y=\"{:.1}\">{}</text>",
                    LEFT - 6.0,
                    y + 4.0,
                    label(*tick),
                ),
            );
        }
        for (tick, text) in &self.x_ticks {
            let x = scale.x(*tick);
            put(
                out,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text class=\"tick middle\" x=\"{x:.1}\" y=\"{}\">{}</text>",
                    bottom + 16.0,
                    escape(text),
                ),
            );
        }
        let middle = (LEFT + right) / 2.0;
        put(
            out,
            format_args!(
                "<text class=\"axis middle\" x=\"{middle}\" y=\"{}\">{}</text>",
                HEIGHT - 8.0,
                escape(self.x_label),
            ),
        );
        let middle = (TOP + bottom) / 2.0;
        put(
            out,
            format_args!(
                "<text class=\"axis middle\" transform=\"translate(14 {middle}) rotate(-90)\">{}</text>",
                escape(self.y_label),
            ),
        );
    }
}

/// The width of a mark's name, as a part of the chart's.
pub(crate) fn text_width(name: &str) -> f64 {
    CHARACTER * name.chars().count() as f64 / (WIDTH - LEFT - RIGHT)
}

/// The name only when there is room for it before `next`.
fn draw_mark(x: f64, next: f64, name: &str, out: &mut String) {
    let (bottom, short) = (HEIGHT - BOTTOM, escape(name));
    put(
        out,
        format_args!(
            "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\">\
             <title>{short}</title></line>",
        ),
    );
    let width = CHARACTER * name.chars().count() as f64;
    if next - x > width {
        let (x, y) = (x + 3.0, TOP - 6.0);
        put(out, format_args!("<text class=\"small\" x=\"{x:.1}\" y=\"{y:.1}\">{short}</text>"));
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        assert_eq!(
            escape("<a href=\"x\">'&'</a>"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;"
        );
        assert_eq!(escape("plain ü"), "plain ü");
    }

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        assert_eq!(ticks(9.0, 5.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(0.0, 5.0), [0.0]);
        assert_eq!(ticks(f64::NAN, 5.0), [0.0]);
        assert_eq!(log_ticks(0.3, 25.0), [0.1, 1.0, 10.0, 100.0]);
        assert_eq!([label(0.1), label(12_000.0), label(5.0)], ["0.1", "12 k", "5"]);
    }

    #[test]
    fn a_chart_without_values_is_still_a_picture() {
        let chart = Chart {
            x_label: "x",
            y_label: "<y>",
            x_ticks: Vec::new(),
            x_max: 0.0,
            log_y: true,
            series: vec![Series { name: "a&b".into(), points: Vec::new() }],
            marks: Vec::new(),
        };
        let text = chart.draw();
        assert!(text.contains("&lt;y&gt;") && text.contains("a&amp;b"));
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
