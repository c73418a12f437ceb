//! Metrics of the process: the console, printed events, the log, memory, the configuration, the start and the version.
//!
//! Owns the rows of this topic (`row.rs`), and no value: each row reads the counters of a scrape or of the output.
//! Does not run on a worker. Limit: labels are cores, files of certificates and fixed words.
//! Cost: for a scrape, linear in cores and certificates.

use super::row::{Metric, metrics};
use super::spec::{MetricKind, MetricSpec};
use crate::admission::overload::OverloadLevel;
use crate::counters::DepthGauge;
use crate::output;

metrics! {
    "console_events_lost_total" Counter []
        "Events that the event log of the console did not show, because there were too many. Counts only while it is \
         open.",
        |scrape, out| out.sample(&[], scrape.console_events_lost());
    "console_feed_events" Gauge ["feed"]
        "Events that a worker, by number, or the senders of webhooks have left for the event log of the console. At \
         most 2,048 each.",
        |scrape, out| scrape.by_console_feed(out, DepthGauge::depth);
    "console_feed_events_peak" Gauge ["feed"]
        "Most events that a feed has held at a time, since the start.",
        |scrape, out| scrape.by_console_feed(out, DepthGauge::peak);
    "console_viewer_events" Gauge []
        "Events that wait for the viewer of the console who reads slowest. At most 2,000 and 1 MiB.",
        |scrape, out| out.sample(&[], scrape.viewers().waiting.depth());
    "console_viewer_events_peak" Gauge []
        "Most events that have waited for one viewer at a time, since the start.",
        |scrape, out| out.sample(&[], scrape.viewers().waiting.peak());
    "console_viewer_events_lost_total" Counter []
        "Events that a viewer of the console was not sent, because too many waited for it.",
        |scrape, out| out.sample(&[], scrape.viewers().lost_count.get());
    "printed_queue_bytes" Gauge []
        "Bytes of printed events that wait for standard output. 0 without RINGVERB_PRINT_EVENTS.",
        |_, out| out.sample(&[], output::queued_printed_bytes().now);
    "printed_queue_peak_bytes" Gauge []
        "Most bytes of printed events that have waited at a time, since the start. Over 8 MiB events are lost.",
        |_, out| out.sample(&[], output::queued_printed_bytes().peak);
    "printed_events_lost_total" Counter []
        "Printed events that found the queue full, or that standard output refused.",
        |_, out| out.sample(&[], output::lost_printed());
    "log_queue_bytes" Gauge []
        "Bytes of log lines that wait for their stream.",
        |_, out| out.sample(&[], output::queued_log_bytes().now);
    "log_queue_peak_bytes" Gauge []
        "Most bytes of log lines that have waited at a time, since the start. Over 1 MiB lines are lost, with the \
         reason unread.",
        |_, out| out.sample(&[], output::queued_log_bytes().peak);
    "log_lines_lost_total" Counter ["reason"]
        "Lines that are not in the log. suppressed: their reason had no lines left; over_rate: over the bytes a \
         second; unread: the reader was too slow; unwritten: the stream refused them.",
        |scrape, out| {
            let lost = output::lost_lines();
            let suppressed = scrape.cores().map(|core| core.lines_left_out.get()).sum::<u64>();
            out.sample(&["suppressed"], suppressed);
            out.sample(&["over_rate"], lost.over_rate);
            out.sample(&["unread"], lost.queue_full);
            out.sample(&["unwritten"], lost.write_failed);
        };
    "memory_resident_bytes" Gauge []
        "Resident memory of the process.",
        |scrape, out| if let Some(bytes) = scrape.resident_bytes { out.sample(&[], bytes) };
    "memory_limit_bytes" Gauge []
        "RINGVERB_MEMORY_MAX. Nothing without a limit.",
        |scrape, out| if let Some(bytes) = scrape.sources.shared.config.memory_max { out.sample(&[], bytes) };
    "memory_level" Gauge []
        "0: memory is not short; 1: connections are refused, from 3 % below the limit on until memory is 9 % below \
         it; 2: publishes, too, 12.5 % over it.",
        |scrape, out| out.sample(&[], match scrape.sources.shared.overload.pressure.level() {
            OverloadLevel::None => 0,
            OverloadLevel::Over => 1,
            OverloadLevel::FarOver => 2,
        });
    "takeover_duration_seconds" Gauge []
        "Time of the take-over by which this process received connections. Nothing without one.",
        |scrape, out| if let Some(time) = scrape.sources.takeover { out.sample(&[], time.as_secs_f64()) };
    "tls_certificate_expires_seconds" Gauge ["certificate"]
        "Until when a certificate in use is valid, in seconds since 1970; the label is the file. Nothing without \
         TLS.",
        |scrape, out| scrape.certificates(out);
    "workers" Gauge []
        "Cores that serve.",
        |scrape, out| out.sample(&[], scrape.sources.shared.metrics.len());
    "ready" Gauge []
        "1 if /ready answers 200.",
        |scrape, out| out.sample(&[], u8::from(scrape.is_ready));
    "configurations_waiting" Gauge []
        "Configurations that a worker has not applied, because it does not run. At most 16.",
        |scrape, out| out.sample(&[], scrape.unapplied().waiting.depth());
    "configurations_waiting_peak" Gauge []
        "Most configurations that have waited for a worker at a time, since the start.",
        |scrape, out| out.sample(&[], scrape.unapplied().waiting.peak());
    "configurations_refused_total" Counter []
        "Changes of the configuration that were refused, because 16 waited for a worker.",
        |scrape, out| out.sample(&[], scrape.unapplied().refused.get());
    "heartbeats_total" Counter ["core"]
        "Seconds in which the core ran. One that stands still has stalled.",
        |scrape, out| scrape.heartbeats(out);
    "start_time_seconds" Gauge []
        "When the process started, in seconds since 1970.",
        |scrape, out| out.sample(&[], scrape.sources.started_unix_seconds);
    "build_info" Gauge ["version"]
        "Always 1; the label is the version.",
        |_, out| out.sample(&[env!("CARGO_PKG_VERSION")], 1);
}
