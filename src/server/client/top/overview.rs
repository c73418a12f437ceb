//! The overview of a server, read from JSON, and rates between two of them.
//!
//! Plain values. Input: the answer of `GET /api/overview` of the admin API, which another version of the server may
//! have written. So a number that is missing counts as 0, and what is unknown is ignored. Output: numbers, and their
//! differences by the time between two answers. Does not ask the server, and reads no clock: the answers have the
//! server's.
//! Limit: `TEXT_LENGTH` of each text, because the terminal shows it. Cost: linear in the answer's bytes; each field is
//! a look-up in its object.

use crate::pusher::json::{self, Validator};
use crate::server::client::outcome::member;
use crate::text::visible;

/// Longer texts are cut, so that a program that is no ringverb cannot fill the screen.
const TEXT_LENGTH: usize = 80;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Overview {
    pub(super) version: String,
    pub(super) host: String,
    pub(super) kernel: String,
    pub(super) node: String,
    pub(super) not_ready: String,
    pub(super) pid: u64,
    pub(super) clock_ms: u64,
    pub(super) uptime_seconds: u64,
    pub(super) connections: u64,
    pub(super) resident_bytes: u64,
    pub(super) memory_max: u64,
    pub(super) totals: Totals,
    pub(super) webhooks: WebhookCounts,
    pub(super) workers: Vec<WorkerCounts>,
    /// Sorted by count, the largest first.
    pub(super) refused: Vec<(String, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) new_connections: u64,
    pub(super) messages_sent: u64,
    pub(super) messages_received: u64,
    pub(super) sent_bytes: u64,
    pub(super) published_events: u64,
    pub(super) http_calls: u64,
    pub(super) channels: u64,
    pub(super) subscriptions: u64,
}

/// All 0 if no app has webhooks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct WebhookCounts {
    pub(super) waiting: u64,
    pub(super) delivered: u64,
    pub(super) given_up: u64,
    pub(super) failing_seconds: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct WorkerCounts {
    pub(super) core: u64,
    tick_ns: u64,
    sends: u64,
    messages_sent: u64,
    messages_received: u64,
    pub(super) subscriptions: u64,
    pub(super) queue_bytes: u64,
    pub(super) mail_waiting: u64,
}

/// Averages of one second, over the time between two answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) new_connections: f64,
    pub(super) sent: f64,
    pub(super) received: f64,
    pub(super) sent_bytes: f64,
    pub(super) published: f64,
    pub(super) http_calls: f64,
    pub(super) workers: Vec<WorkerRates>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct WorkerRates {
    /// The share of the time that the core spent in ticks: 0 to 1.
    pub(super) load: f64,
    pub(super) sent: f64,
    pub(super) received: f64,
    /// Messages of one send, if anything was sent.
    pub(super) messages_per_send: Option<f64>,
}

fn number(object: &str, name: &str) -> u64 {
    member(object, name).and_then(|span| span.parse().ok()).unwrap_or(0)
}

fn text(object: &str, name: &str) -> String {
    let text = member(object, name).and_then(json::string).unwrap_or_default();
    let mut out = String::new();
    visible(&text, TEXT_LENGTH, &mut out);
    out
}

impl Overview {
    /// `None`: it is no overview, so another program answers.
    pub(super) fn read(body: &str) -> Option<Self> {
        let mut validator = Validator::default();
        let object = validator.check(body.trim().as_bytes())?;
        let totals = member(object, "totals")?;
        let workers = json::elements(member(object, "workers")?)?.map(|worker| WorkerCounts {
            core: number(worker, "core"),
            tick_ns: number(worker, "tick_ns"),
            sends: number(worker, "sends"),
            messages_sent: number(worker, "messages_sent"),
            messages_received: number(worker, "messages_received"),
            subscriptions: number(worker, "subscriptions"),
            queue_bytes: number(worker, "queue_bytes"),
            mail_waiting: number(worker, "mail_waiting"),
        });
        let webhooks = member(object, "webhooks").unwrap_or("{}");
        let refused = member(object, "refused").and_then(json::members).into_iter().flatten();
        let mut refused: Vec<(String, u64)> = refused
            .map(|(name, count)| {
                let mut shown = String::new();
                visible(&json::string(name).unwrap_or_default(), TEXT_LENGTH, &mut shown);
                (shown, count.parse().unwrap_or(0))
            })
            .collect();
        refused.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Some(Self {
            version: text(object, "version"),
            host: text(object, "host"),
            kernel: text(object, "kernel"),
            node: text(object, "node"),
            not_ready: text(object, "not_ready"),
            pid: number(object, "pid"),
            clock_ms: number(object, "clock_ms"),
            uptime_seconds: number(object, "uptime_seconds"),
            connections: number(object, "connections"),
            resident_bytes: number(object, "resident_bytes"),
            memory_max: number(object, "memory_max"),
            totals: Totals {
                new_connections: number(totals, "new_connections"),
                messages_sent: number(totals, "messages_sent"),
                messages_received: number(totals, "messages_received"),
                sent_bytes: number(totals, "sent_bytes"),
                published_events: number(totals, "published_events"),
                http_calls: number(totals, "http_calls"),
                channels: number(totals, "channels"),
                subscriptions: number(totals, "subscriptions"),
            },
            webhooks: WebhookCounts {
                waiting: number(webhooks, "waiting"),
                delivered: number(webhooks, "delivered"),
                given_up: number(webhooks, "given_up"),
                failing_seconds: number(webhooks, "failing_seconds"),
            },
            workers: workers.collect(),
            refused,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people, who read three digits")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

impl Rates {
    /// `None`: another process answers, or no time has passed.
    pub(super) fn between(before: &Overview, now: &Overview) -> Option<Self> {
        let milliseconds = now.clock_ms.checked_sub(before.clock_ms).filter(|time| *time > 0)?;
        if before.pid != now.pid {
            return None;
        }
        let seconds = to_f64(milliseconds) / 1_000.0;
        let rate = |before: u64, now: u64| to_f64(now.saturating_sub(before)) / seconds;
        let (was, is) = (&before.totals, &now.totals);
        let workers = before.workers.iter().zip(&now.workers).map(|(was, is)| {
            let sends = is.sends.saturating_sub(was.sends);
            let messages = is.messages_sent.saturating_sub(was.messages_sent);
            WorkerRates {
                load: (rate(was.tick_ns, is.tick_ns) / 1e9).min(1.0),
                sent: rate(was.messages_sent, is.messages_sent),
                received: rate(was.messages_received, is.messages_received),
                messages_per_send: (sends > 0).then(|| to_f64(messages) / to_f64(sends)),
            }
        });
        Some(Self {
            new_connections: rate(was.new_connections, is.new_connections),
            sent: rate(was.messages_sent, is.messages_sent),
            received: rate(was.messages_received, is.messages_received),
            sent_bytes: rate(was.sent_bytes, is.sent_bytes),
            published: rate(was.published_events, is.published_events),
            http_calls: rate(was.http_calls, is.http_calls),
            workers: workers.collect(),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two answers of a server with two workers, a second apart.
    pub(in super::super) fn two_overviews() -> (Overview, Overview) {
        let body = |clock: u64, sent: u64| {
            format!(
                r#"{{"version":"1.2.3","host":"box","kernel":"io_uring","pid":7,"clock_ms":{clock},
                "uptime_seconds":3700,"connections":12345,"resident_bytes":73400320,
                "totals":{{"messages_sent":{sent},"channels":3,"subscriptions":9}},
                "workers":[{{"core":0,"tick_ns":{clock}000000,"sends":{sends},"messages_sent":{sent}}},{{"core":1}}],
                "webhooks":{{"delivered":1000,"waiting":3,"given_up":4,"failing_seconds":125}},
                "refused":{{"origin":1,"quota":20}}}}"#,
                sends = sent / 4
            )
        };
        (Overview::read(&body(500, 0)).unwrap(), Overview::read(&body(1_000, 4_000)).unwrap())
    }

    #[test]
    fn rates_are_those_of_the_time_between_two_answers() {
        let (before, now) = two_overviews();
        let rates = Rates::between(&before, &now).unwrap();
        assert!((rates.sent - 8_000.0).abs() < 1e-6);
        assert!((rates.workers[0].load - 1.0).abs() < 1e-6);
        assert_eq!(rates.workers[0].messages_per_send, Some(4.0));
        assert_eq!(rates.workers[1], WorkerRates::default());
        assert_eq!(Rates::between(&now, &now), None);
        let other = Overview { pid: 8, ..now };
        assert_eq!(Rates::between(&before, &other), None, "another process counts from zero");
    }

    #[test]
    fn an_answer_that_is_no_overview_is_refused_and_hidden_characters_are_not_shown() {
        for body in ["", "[]", "{}", "{\"totals\":1,\"workers\":{}}", "<html>"] {
            assert_eq!(Overview::read(body), None, "{body}");
        }
        let body =
            "{\"host\":\"a\\u001b[2Jb\",\"totals\":{},\"workers\":[],\"refused\":{\"x\\u0007\":1}}";
        let read = Overview::read(body).unwrap();
        assert!(!read.host.contains('\u{1b}') && !read.refused[0].0.contains('\u{7}'), "{read:?}");
    }

    #[test]
    fn refusals_are_in_order_of_their_number() {
        let (_, now) = two_overviews();
        assert_eq!(now.refused, [("quota".to_owned(), 20), ("origin".to_owned(), 1)]);
    }
}
