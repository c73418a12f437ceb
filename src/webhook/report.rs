//! Log lines of a sender about its endpoint: failure, recovery, and discarded events.
//!
//! Decides when a line is due and builds its text; the sender writes it. Owns the state of two reports for one
//! endpoint. PURE: time comes in with each call. Limits: one line in `FAILING_REPORT_INTERVAL` and
//! `GIVEN_UP_REPORT_INTERVAL`, with `NAMED_MAX` events by name. Cost: an allocation for each event that is given up,
//! and for each line.

use std::sync::Arc;
use std::time::Duration;

use super::backlog::GiveUpReason;
use super::batch::EventJson;
use super::time::add_time;
use crate::app::WebhookKind;
use crate::clock::Moment;
use crate::counters::WEBHOOK_KINDS;
use crate::text::{Counted, shown_up_to};

/// A failing endpoint is reported once until none of its refused events is left. If it fails again after that, it is
/// reported when the last report is as old as this.
const FAILING_REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// Events that were given up are reported once in this time.
const GIVEN_UP_REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// Events that a line names; the others are counted by kind.
const NAMED_MAX: usize = 3;
/// Bytes of a channel's name in a line. A name may be longer than a line of a log should be.
const CHANNEL_BYTES_MAX: usize = 60;

#[derive(Debug, Default)]
pub(super) struct EndpointReport {
    /// Since when the endpoint has been reported as failing.
    failing_since: Option<Moment>,
    failing_quiet_until: Moment,
    given_up: GivenUp,
    given_up_quiet_until: Moment,
}

/// Events that were given up and not yet reported.
#[derive(Debug, Default)]
struct GivenUp {
    by_kind: [u64; WEBHOOK_KINDS],
    /// The first `NAMED_MAX` of them: kind and channel.
    named: Vec<String>,
    /// Why the last one was given up. A line has one reason, because most have the same.
    reason: String,
}

pub(super) fn event_count(count: u64) -> Counted {
    Counted(count, "event")
}

/// The end of the line about a failing endpoint: what it means for events that were not refused.
pub(super) fn delay_of_other_events(is_endpoint_paused: bool) -> &'static str {
    if is_endpoint_paused {
        "its other events wait until it is tried again"
    } else {
        "other events are not delayed"
    }
}

/// One request and what the endpoint answered, for the event log of the console.
pub(super) fn attempt_text<'a>(
    endpoint: &str,
    events: impl Iterator<Item = &'a EventJson>,
    outcome: &str,
) -> String {
    let (mut count, mut named) = (0, Vec::new());
    for event_json in events {
        count += 1;
        if named.len() < NAMED_MAX {
            named.push(kind_and_channel(event_json));
        }
    }
    let more = if count > NAMED_MAX as u64 { ", …" } else { "" };
    format!(
        "{endpoint} was posted {} ({}{more}) and {outcome}",
        event_count(count),
        named.join(", ")
    )
}

fn kind_and_channel(event_json: &EventJson) -> String {
    let channel = shown_up_to(event_json.channel.as_bytes(), CHANNEL_BYTES_MAX);
    format!("{} of {channel}", event_json.kind.name())
}

/// Events of an endpoint that are discarded at the end of the server.
#[derive(Debug, Default)]
pub(super) struct Discarded {
    pub(super) by_kind: [usize; WEBHOOK_KINDS],
    /// One of them, as an example: its kind and channel.
    pub(super) sample: Option<(WebhookKind, Arc<str>)>,
}

impl Discarded {
    pub(super) fn count(&self) -> usize {
        self.by_kind.iter().sum()
    }

    /// To be read after the endpoint and its app.
    pub(super) fn sentence(&self) -> String {
        let sample = self.sample.as_ref().map(|(kind, channel)| {
            (*kind, format!(" ({})", shown_up_to(channel.as_bytes(), CHANNEL_BYTES_MAX)))
        });
        let kinds = WebhookKind::ALL.iter().zip(self.by_kind).filter(|(_, count)| *count > 0);
        let kinds = kinds.map(|(kind, count)| {
            let channel = sample.as_ref().filter(|(sample_kind, _)| sample_kind == kind);
            let channel = channel.map_or("", |(_, channel)| channel);
            format!("{count} {}{channel}", kind.name())
        });
        format!(
            "{} discarded at the end, because the endpoint did not accept them in time: {}",
            event_count(self.count() as u64),
            kinds.collect::<Vec<_>>().join(", ")
        )
    }
}

impl EndpointReport {
    /// A request has failed. Returns whether that is to be reported now: the failure is new, and the last report old.
    pub(super) fn note_failure(&mut self, now: Moment) -> bool {
        if self.failing_since.is_some() || now < self.failing_quiet_until {
            return false;
        }
        self.failing_since = Some(now);
        self.failing_quiet_until = add_time(now, FAILING_REPORT_INTERVAL);
        true
    }

    /// No refused event is left: returns since when the endpoint was reported as failing, if it was.
    pub(super) fn end_failure(&mut self) -> Option<Moment> {
        self.failing_since.take()
    }

    /// An event is given up. `failure` is the endpoint's last failure; the text follows the URL.
    pub(super) fn note_given_up(
        &mut self,
        event_json: &EventJson,
        why: GiveUpReason,
        failure: &str,
    ) {
        let given_up = &mut self.given_up;
        if let Some(count) = given_up.by_kind.get_mut(event_json.kind as usize) {
            *count += 1;
        }
        if given_up.named.len() < NAMED_MAX {
            given_up.named.push(kind_and_channel(event_json));
        }
        let end = match why {
            GiveUpReason::Permanent => "such an answer is final",
            GiveUpReason::Expired => "RINGVERB_WEBHOOK_RETRY sets the time for retries",
            GiveUpReason::TooMany => {
                "more refused events wait than RINGVERB_WEBHOOK_QUEUE_MAX has room for beside others"
            }
        };
        given_up.reason = format!("the endpoint {failure}; {end}");
    }

    /// When `due_report` returns something; `None` if nothing is to be reported.
    pub(super) fn next_due(&self) -> Option<Moment> {
        (!self.given_up.named.is_empty()).then_some(self.given_up_quiet_until)
    }

    /// The events that were given up, if the interval is over; `now` may be the maximum.
    pub(super) fn due_report(&mut self, now: Moment) -> Option<String> {
        if now < self.next_due()? {
            return None;
        }
        self.given_up_quiet_until = add_time(now, GIVEN_UP_REPORT_INTERVAL);
        let GivenUp { by_kind, named, reason } = std::mem::take(&mut self.given_up);
        let count: u64 = by_kind.iter().sum();
        let mut text = format!("{} given up: {}", event_count(count), named.join(", "));
        if count > named.len() as u64 {
            let kinds = WebhookKind::ALL.iter().zip(by_kind).filter(|(_, count)| *count > 0);
            let kinds: Vec<String> =
                kinds.map(|(kind, count)| format!("{count} {}", kind.name())).collect();
            text.push_str(&format!(", ... (in all {})", kinds.join(", ")));
        }
        Some(format!("{text}. Reason: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::budget::Class;

    fn event_json(kind: WebhookKind, channel: &str) -> EventJson {
        EventJson {
            class: Class::Member,
            kind,
            channel: channel.into(),
            json: b"{}"[..].into(),
            queued_ms: 0,
        }
    }

    #[test]
    fn events_that_are_given_up_are_reported_at_a_bounded_rate_and_length() {
        let mut report = EndpointReport::default();
        let second = |seconds: u64| Moment(seconds * 1000);
        assert_eq!((report.next_due(), report.due_report(second(1))), (None, None));
        let failure = "answered with HTTP 400; look";
        report.note_given_up(
            &event_json(WebhookKind::MemberAdded, "presence-\n1"),
            GiveUpReason::Permanent,
            failure,
        );
        let first = report.due_report(second(1)).unwrap();
        let expected = "1 event given up: member_added of \"presence-\\n1\". Reason: the endpoint answered with \
                        HTTP 400; look; such an answer is final";
        assert_eq!(first, expected);
        for _ in 0..100_000 {
            let long = event_json(WebhookKind::CacheMiss, &"x".repeat(10_000));
            report.note_given_up(&long, GiveUpReason::Expired, failure);
        }
        assert_eq!((report.due_report(second(10)), report.next_due()), (None, Some(second(11))));
        let many = report.due_report(second(11)).unwrap();
        assert!(many.starts_with("100000 events given up: cache_miss of \"xxx"), "{many}");
        assert!(
            many.contains("(in all 100000 cache_miss)") && many.contains("WEBHOOK_RETRY"),
            "{many}"
        );
        assert!(many.len() < 700, "{many}");
        assert_eq!(report.due_report(Moment(u64::MAX)), None);
    }

    #[test]
    fn discarded_events_are_counted_by_kind_and_one_channel_is_named() {
        let mut discarded = Discarded::default();
        discarded.by_kind[WebhookKind::ChannelOccupied as usize] = 1;
        let what = "because the endpoint did not accept them in time:";
        let expected = format!("1 event discarded at the end, {what} 1 channel_occupied");
        assert_eq!(discarded.sentence(), expected);
        discarded.by_kind[WebhookKind::MemberAdded as usize] = 3;
        discarded.sample = Some((WebhookKind::ChannelOccupied, "ne\nws".into()));
        let text = discarded.sentence();
        assert!(text.starts_with("4 events discarded") && !text.contains('\n'), "{text}");
        assert!(
            text.contains("1 channel_occupied (\"ne") && text.contains("3 member_added"),
            "{text}"
        );
    }

    #[test]
    fn the_line_about_a_failing_endpoint_says_whether_other_events_wait() {
        assert!(delay_of_other_events(true).contains("other events wait"));
        assert!(delay_of_other_events(false).contains("not delayed"));
    }

    #[test]
    fn a_failing_endpoint_is_reported_once_until_it_recovers_and_then_after_a_minute() {
        let mut report = EndpointReport::default();
        assert_eq!(report.end_failure(), None);
        assert!(report.note_failure(Moment(5)) && !report.note_failure(Moment(6)));
        assert_eq!((report.end_failure(), report.end_failure()), (Some(Moment(5)), None));
        assert!(!report.note_failure(Moment(60_004)) && report.note_failure(Moment(60_005)));
    }
}
