//! What `ringverb top` shows: a screen of the terminal that is drawn again and again, or plain text once.
//!
//! Owns the last two overviews, the rates between them and their history. Input: an `Overview` for each answer of the
//! admin API, or the sentence of a failure. Output: the lines of a frame, or text. Does not read the terminal or a
//! socket: `top.rs` does.
//! Limits: `HISTORY_MAX` values for each curve, `REFUSALS_MAX` reasons; texts were cut by `overview.rs`. Cost: one
//! frame a second, linear in its columns, lines and cores.

use std::time::Duration;

use super::overview::{Overview, Rates, WebhookCounts, WorkerRates};
use super::styled::{StyledLine, TextStyle, bar, beside, cell, curve};
use super::terminal::ScreenSize;
use crate::worker::time::Clock;

/// Values of a curve: four minutes of answers.
const HISTORY_MAX: usize = 240;
/// The height of a curve, in lines.
const CURVE_ROWS: usize = 4;
/// The most frequent reasons. More would leave no room for the cores on a screen of 24 lines.
const REFUSALS_MAX: usize = 8;
/// Share of its time from which a core is shown as busy, and as full.
const BUSY: f64 = 0.7;
const FULL: f64 = 0.9;

pub(super) struct Screen {
    now: Overview,
    rates: Option<Rates>,
    /// One value for each answer, so about one for each second.
    sent: Vec<u64>,
    connections: Vec<u64>,
    /// A sentence, if the last request failed. The numbers before it stay on the screen.
    failure: Option<String>,
    clock: Clock,
    shown_ms: u64,
}

impl Screen {
    pub(super) fn new(first: Overview) -> Self {
        let connections = vec![first.connections];
        let clock = Clock::start();
        Self {
            now: first,
            rates: None,
            sent: Vec::new(),
            connections,
            failure: None,
            clock,
            shown_ms: 0,
        }
    }

    /// Whether it is time for the next request; a key draws the screen earlier.
    pub(super) fn is_due(&self, interval: Duration) -> bool {
        let age = Duration::from_millis(self.clock.now().0.saturating_sub(self.shown_ms));
        age >= interval
    }

    pub(super) fn show(&mut self, now: Overview) {
        self.rates = Rates::between(&self.now, &now);
        if let Some(rates) = &self.rates {
            push_limited(&mut self.sent, rounded(rates.sent));
        }
        push_limited(&mut self.connections, now.connections);
        self.now = now;
        self.failure = None;
        self.shown_ms = self.clock.now().0;
    }

    pub(super) fn fail(&mut self, sentence: String) {
        self.failure = Some(sentence);
        self.shown_ms = self.clock.now().0;
    }

    /// At most `size.rows` lines. The last one is always the footer, which names failures.
    pub(super) fn lines(&self, size: ScreenSize) -> Vec<StyledLine> {
        let mut lines = vec![self.header(), StyledLine::default()];
        lines.extend(self.curves(size.columns));
        lines.push(StyledLine::default());
        lines.extend(self.cores());
        lines.push(StyledLine::default());
        lines.extend(beside(vec![self.traffic(), self.memory(), self.refused()], size.columns));
        lines.push(StyledLine::default());
        lines.truncate(size.rows.saturating_sub(1));
        lines.push(self.footer());
        lines
    }

    fn header(&self) -> StyledLine {
        let now = &self.now;
        let (style, state) = match (&self.failure, now.not_ready.is_empty()) {
            (Some(_), _) => (TextStyle::BlackOnRed, " no answer "),
            (None, false) => (TextStyle::BlackOnYellow, " not ready "),
            (None, true) => (TextStyle::BlackOnGreen, " ready "),
        };
        let about = format!(
            "  {} · {} · {} · up {}",
            now.host,
            now.version,
            now.kernel,
            format_duration(now.uptime_seconds)
        );
        StyledLine::styled(TextStyle::Bold, " ringverb ")
            .and(style, state)
            .and(TextStyle::Plain, about)
    }

    fn curves(&self, columns: usize) -> Vec<StyledLine> {
        let sent = self.rates.as_ref().map_or(0.0, |rates| rates.sent);
        let block = |title: String, values: &[u64], style: TextStyle| {
            let mut lines = vec![StyledLine::styled(TextStyle::Bold, title)];
            lines.extend(curve(values, (columns / 2).saturating_sub(2), CURVE_ROWS, style));
            lines
        };
        let connections = format!("connections {}", format_count(self.now.connections));
        let sent = format!("messages to clients {}/s", format_number(sent));
        let blocks = vec![
            block(connections, &self.connections, TextStyle::Cyan),
            block(sent, &self.sent, TextStyle::Green),
        ];
        beside(blocks, columns)
    }

    fn cores(&self) -> Vec<StyledLine> {
        const BAR_CELLS: usize = 10;
        let before = ["cores", "load"].into_iter().zip([5, 7]);
        let behind = ["to clients", "of clients", "per send", "subscr.", "waits", "mail"];
        let cells = |columns: &mut dyn Iterator<Item = (&str, usize)>| -> String {
            columns.map(|(text, width)| cell(text, width)).collect()
        };
        let widths = [10, 10, 8, 9, 9, 5];
        let head = cells(&mut before.into_iter())
            + &" ".repeat(BAR_CELLS)
            + &cells(&mut behind.into_iter().zip(widths));
        let mut lines = vec![StyledLine::styled(TextStyle::Dim, head)];
        for (index, worker) in self.now.workers.iter().enumerate() {
            let rates = self.rates.as_ref().and_then(|rates| rates.workers.get(index)).copied();
            let WorkerRates { load, sent, received, messages_per_send } = rates.unwrap_or_default();
            let texts = [
                format!("{}/s", format_number(sent)),
                format!("{}/s", format_number(received)),
                messages_per_send.map_or("-".to_owned(), |number| format!("{number:.2}")),
                format_count(worker.subscriptions),
                format_bytes(worker.queue_bytes),
                format_count(worker.mail_waiting),
            ];
            let full = usize::try_from(rounded(load * 10.0)).unwrap_or(0);
            let front =
                cell(&worker.core.to_string(), 5) + &cell(&format!("{:.1} %", load * 100.0), 7);
            let rest = cells(&mut texts.iter().map(String::as_str).zip(widths));
            let line = StyledLine::plain(front).and(color_of(load), bar(full, BAR_CELLS));
            lines.push(line.and(TextStyle::Plain, rest));
        }
        lines
    }

    fn traffic(&self) -> Vec<StyledLine> {
        let rates = self.rates.clone().unwrap_or_default();
        let rows = [
            format!("published  {}/s", format_number(rates.published)),
            format!("API calls  {}/s", format_number(rates.http_calls)),
            format!("data out   {}/s", format_bytes(rounded(rates.sent_bytes))),
            format!("new conn.  {}/s", format_number(rates.new_connections)),
            format!("channels   {}", format_count(self.now.totals.channels)),
            format!("subscr.    {}", format_count(self.now.totals.subscriptions)),
        ];
        let mut lines = vec![StyledLine::styled(TextStyle::Bold, "traffic")];
        lines.extend(rows.map(StyledLine::plain));
        let webhooks = &self.now.webhooks;
        if webhooks.failing_seconds > 0 {
            let text =
                format!("webhooks   failing for {}", format_duration(webhooks.failing_seconds));
            lines.push(StyledLine::styled(TextStyle::Red, text));
        }
        if webhooks.given_up > 0 {
            let text = format!("webhooks   {} events given up", format_count(webhooks.given_up));
            lines.push(StyledLine::styled(TextStyle::Red, text));
        }
        lines
    }

    fn memory(&self) -> Vec<StyledLine> {
        const BAR_CELLS: usize = 20;
        let title = StyledLine::styled(TextStyle::Bold, "memory");
        let (used, most) = (self.now.resident_bytes, self.now.memory_max);
        if most == 0 {
            return vec![
                title,
                StyledLine::plain(format!("{}, no limit is set", format_bytes(used))),
            ];
        }
        let share = share_of(used, most);
        let full = usize::try_from(rounded(share * 20.0)).unwrap_or(0);
        let text = StyledLine::plain(format!("{} of {}", format_bytes(used), format_bytes(most)));
        vec![title, text, StyledLine::styled(color_of(share), bar(full, BAR_CELLS))]
    }

    fn refused(&self) -> Vec<StyledLine> {
        let rows = self.now.refused.iter().take(REFUSALS_MAX);
        let rows = rows
            .map(|(why, count)| StyledLine::plain(format!("{:>9}  {why}", format_count(*count))));
        let mut lines = vec![StyledLine::styled(TextStyle::Bold, "refused since the start")];
        lines.extend(rows);
        lines
    }

    fn footer(&self) -> StyledLine {
        match &self.failure {
            Some(why) => StyledLine::styled(TextStyle::Red, why.as_str()),
            None if !self.now.not_ready.is_empty() => {
                StyledLine::styled(TextStyle::Yellow, self.now.not_ready.as_str())
            }
            None => StyledLine::styled(TextStyle::Dim, "q ends"),
        }
    }
}

/// `--once` prints it: without colors and cursor movements, so that it can be piped.
pub(super) fn plain_text(now: &Overview, rates: Option<&Rates>) -> String {
    let none = Rates::default();
    let rates = rates.unwrap_or(&none);
    let state = if now.not_ready.is_empty() {
        "ready".to_owned()
    } else {
        format!("not ready: {}", now.not_ready)
    };
    let node = if now.node.is_empty() { String::new() } else { format!(", node {}", now.node) };
    let mut text = format!(
        "ringverb {} on {}, {}{node}, up {}, {state}\n\
         connections {}, new {}/s, channels {}, subscriptions {}, memory {}\n\
         to clients {}/s, of clients {}/s, published {}/s, API calls {}/s, data out {}/s\n",
        now.version,
        now.host,
        now.kernel,
        format_duration(now.uptime_seconds),
        format_count(now.connections),
        format_number(rates.new_connections),
        format_count(now.totals.channels),
        format_count(now.totals.subscriptions),
        format_bytes(now.resident_bytes),
        format_number(rates.sent),
        format_number(rates.received),
        format_number(rates.published),
        format_number(rates.http_calls),
        format_bytes(rounded(rates.sent_bytes)),
    );
    let webhooks = &now.webhooks;
    if *webhooks != WebhookCounts::default() {
        let failing = match webhooks.failing_seconds {
            0 => String::new(),
            seconds => format!(", failing for {}", format_duration(seconds)),
        };
        text.push_str(&format!(
            "webhooks: events delivered {}, waiting {}, given up {}{failing}\n",
            format_count(webhooks.delivered),
            format_count(webhooks.waiting),
            format_count(webhooks.given_up),
        ));
    }
    text.push_str(
        "core    load   to clients/s  of clients/s  per send  subscriptions      waits  mail\n",
    );
    for (index, worker) in now.workers.iter().enumerate() {
        let WorkerRates { load, sent, received, messages_per_send } =
            rates.workers.get(index).copied().unwrap_or_default();
        let messages_per_send =
            messages_per_send.map_or("-".to_owned(), |number| format!("{number:.2}"));
        text.push_str(&format!(
            "{:>4} {:>5.1} % {:>14} {:>13} {:>9} {:>14} {:>10} {:>5}\n",
            worker.core,
            load * 100.0,
            format_number(sent),
            format_number(received),
            messages_per_send,
            format_count(worker.subscriptions),
            format_bytes(worker.queue_bytes),
            format_count(worker.mail_waiting),
        ));
    }
    for (why, count) in &now.refused {
        text.push_str(&format!("refused {} {why}\n", format_count(*count)));
    }
    text
}

fn push_limited(values: &mut Vec<u64>, value: u64) {
    if values.len() >= HISTORY_MAX {
        values.remove(0);
    }
    values.push(value);
}

fn color_of(share: f64) -> TextStyle {
    match share {
        share if share > FULL => TextStyle::Red,
        share if share > BUSY => TextStyle::Yellow,
        _ => TextStyle::Green,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast to an integer saturates, and rates are not negative"
)]
fn rounded(number: f64) -> u64 {
    number.round() as u64
}

#[expect(clippy::cast_precision_loss, reason = "for people, who read three digits")]
fn share_of(part: u64, whole: u64) -> f64 {
    (part as f64 / whole.max(1) as f64).clamp(0.0, 1.0)
}

/// 1,234,567: for counts, of which every digit counts.
fn format_count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// 12.3k: for rates, of which three digits are enough.
fn format_number(number: f64) -> String {
    match number {
        number if number < 10.0 && number.fract() > 0.0 => format!("{number:.1}"),
        number if number < 10_000.0 => format_count(rounded(number)),
        number if number < 1e6 => format!("{:.1}k", number / 1e3),
        number => format!("{:.1}M", number / 1e6),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people, who read three digits")]
fn format_bytes(number: u64) -> String {
    let mut value = number as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{number} B") } else { format!("{value:.1} {unit}") }
}

fn format_duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::super::overview::tests::two_overviews;
    use super::super::styled::frame;
    use super::*;

    #[test]
    fn plain_text_has_a_line_for_each_core() {
        let (before, now) = two_overviews();
        let rates = Rates::between(&before, &now);
        let text = plain_text(&now, rates.as_ref());
        for part in [
            "ringverb 1.2.3 on box, io_uring, up 1 h 1 min, ready\n",
            "connections 12,345, new 0/s, channels 3, subscriptions 9, memory 70.0 MiB\n",
            "to clients 8,000/s",
            "\n   0 100.0 %          8,000             0      4.00",
            "\n   1   0.0 %",
            "\nrefused 20 quota\n",
            "\nwebhooks: events delivered 1,000, waiting 3, given up 4, failing for 2 min\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        let none = Overview { webhooks: WebhookCounts::default(), ..now };
        assert!(!plain_text(&none, None).contains("webhooks"), "no app has any");
    }

    /// The characters of a frame, without its control sequences.
    fn shown(screen: &Screen, columns: usize, rows: usize) -> String {
        let mut out = String::new();
        let size = ScreenSize { columns, rows };
        let frame = frame(&screen.lines(size), size);
        let mut characters = frame.chars();
        while let Some(character) = characters.next() {
            if character == '\u{1b}' {
                characters.by_ref().find(|code| code.is_ascii_alphabetic());
            } else {
                out.push(character);
            }
        }
        out
    }

    #[test]
    fn the_screen_fits_any_size_and_shows_the_server() {
        let (before, now) = two_overviews();
        let mut screen = Screen::new(before);
        screen.show(now);
        for (columns, rows) in [(100, 30), (80, 24), (20, 5), (1, 1)] {
            let shown = shown(&screen, columns, rows);
            assert!(shown.lines().count() <= rows, "{shown}");
            assert!(shown.lines().all(|line| line.chars().count() == columns), "{shown}");
            if rows >= 24 {
                let parts = ["ready", "connections 12,345", "8,000/s", "quota", "100.0 %"];
                let webhooks = ["webhooks   failing for 2", "webhooks   4 events"];
                for part in parts.into_iter().chain(webhooks) {
                    assert!(shown.contains(part), "{part} in {shown}");
                }
            }
        }
        screen.fail("no answer from there".to_owned());
        for rows in [1, 5, 30] {
            let shown = shown(&screen, 100, rows);
            assert!(shown.contains("no answer from there"), "{shown}");
        }
    }

    #[test]
    fn large_numbers_are_shown_with_a_unit() {
        let (shorts, sizes) = ([0.0, 0.5, 9_999.0, 12_345.0, 2.5e6], [0, 1_023, 1_536, 3 << 30]);
        assert_eq!(shorts.map(format_number), ["0", "0.5", "9,999", "12.3k", "2.5M"]);
        assert_eq!(sizes.map(format_bytes), ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
        assert_eq!([59, 60, 90_000].map(format_duration), ["59 s", "1 min", "1 d 1 h"]);
        assert_eq!(format_count(1_000_000), "1,000,000");
    }
}
