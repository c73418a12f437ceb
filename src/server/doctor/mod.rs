//! What a start would find on this machine now, for `ringverb check`: port, certificates, admin listener, kernel,
//! descriptors, locked memory, limits of the control group, Redis, webhook endpoints, clocks.
//!
//! Owns no state: which probes there are, and whether what they find is a fact, something to know (`Warning`), or
//! something that keeps the server from working (`Problem`). Nothing is changed, and no probe publishes, subscribes or
//! posts. Each probe of the network runs in a thread of its own, so a firewall that drops packets delays the report and
//! does not hold it up.
//! Limits: `ENDPOINTS_MAX` endpoints; the report ends its wait `PROBE_TIME` after the last answer. Cost: once in a
//! command, one thread for each probe of the network.

mod diagnosis;
mod finding;
mod host;
pub(super) mod port;
mod processes;
mod redis;
mod rights;
mod service_user;
mod serving;

pub(super) use diagnosis::diagnose;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use super::admin;
use super::certificates;
use super::locked::LockedMemory;
use super::probe;
use super::resources::Shares;
use crate::config::admin::{Admin, AdminPlace};
use crate::config::{Config, webhook_url};
use crate::webhook::EndpointProbe;
use crate::worker::is_clock_synchronized;
use crate::worker::kernel::{Choice, RingSize};
pub(super) use finding::{Finding, Verdict};
use finding::{RemoteClock, STEP_TIME};
pub(super) use service_user::examine_files;

/// Time after which a probe counts as unanswered. Longer than two of its steps: only name servers take longer.
const PROBE_TIME: Duration = Duration::from_secs(8);
/// So that a host of many customers does not start a thread for each. Those of one host and port count once.
const ENDPOINTS_MAX: usize = 20;
/// A `Date` field has whole seconds, and an answer may be on its way for a few of them.
const CLOCK_DIFFERENCE_SECONDS_MAX: u64 = 5;

/// What `ringverb check` reports, in the order in which a start meets it.
pub(super) fn examine(config: &Config, shares: &Shares) -> Vec<Finding> {
    let mut findings =
        vec![port::examine(SocketAddr::new(config.host, config.port), config.takeover)];
    findings.push(examine_admin(&config.admin));
    findings.extend(config.tls.iter().flat_map(certificates::findings_of_certificates));
    findings.extend(examine_kernel(config));
    findings.extend(resources(shares));
    let (of_network, clocks) = examine_network(config);
    findings.extend(of_network);
    findings.extend(examine_clocks(&clocks, config));
    findings.push(time_source(&is_clock_synchronized()));
    findings
}

/// Whether the host sets its clock by others. In a container the clock is the host's.
fn time_source(is_synchronized: &std::io::Result<bool>) -> Finding {
    let finding = |verdict, text: String| Finding::new(verdict, "ntp", text);
    match is_synchronized {
        Ok(true) => finding(Verdict::Good, "the kernel's clock is synchronized".to_owned()),
        Ok(false) => finding(
            Verdict::Warning,
            "the kernel's clock is not synchronized, so it may drift until signed requests are refused \
             (RINGVERB_AUTH_WINDOW): start an NTP client such as chrony or systemd-timesyncd on this host"
                .to_owned(),
        ),
        Err(error) => {
            // The filter of system calls of a unit or a container may refuse it.
            finding(Verdict::Note, format!("the state of the clock cannot be read: {error}"))
        }
    }
}

/// Only a configured place keeps a server from starting. Without the default one it starts with a warning.
fn examine_admin(wanted: &Admin) -> Finding {
    let finding = |verdict, text: String| Finding::new(verdict, "admin", text);
    let needs = if wanted.token.is_some() { ", and a token is needed" } else { "" };
    match admin::probe(&wanted.place) {
        Ok(()) if wanted.place == AdminPlace::Off => {
            finding(Verdict::Good, "off: no metrics and no probes".to_owned())
        }
        Ok(()) => finding(Verdict::Good, format!("{} is free{needs}", wanted.place)),
        Err(error) => {
            let verdict = if wanted.is_explicit { Verdict::Problem } else { Verdict::Warning };
            finding(verdict, admin::start_refusal(&wanted.place, &error))
        }
    }
}

fn examine_kernel(config: &Config) -> Vec<Finding> {
    let memory = LockedMemory::for_workers(config.workers);
    let facts = match probe::run(config.io, &memory) {
        Ok(facts) => facts,
        Err(error) => return vec![Finding::new(Verdict::Problem, "kernel", error.to_string())],
    };
    let descriptors = match facts.warning() {
        Some(warning) => Finding::new(Verdict::Warning, "limits", warning),
        None => Finding::new(Verdict::Good, "limits", format!("{} descriptors", facts.descriptors)),
    };
    let kernel = format!("Linux {} with {}", facts.kernel, facts.io);
    let kernel = match facts.note() {
        Some(note) => Finding::new(Verdict::Warning, "kernel", format!("{kernel}: {note}")),
        None => Finding::new(Verdict::Good, "kernel", kernel),
    };
    let memory = match facts.io {
        Choice::Uring(size) => Some(locked_memory(&memory, size)),
        Choice::Epoll(_) => None,
    };
    [kernel, descriptors].into_iter().chain(memory).collect()
}

/// Each sentence says where its number comes from: the configuration, the CPUs, or the control group.
fn resources(shares: &Shares) -> Vec<Finding> {
    let workers = match shares.has_too_many_workers {
        false => Finding::new(Verdict::Good, "workers", &shares.workers_text),
        true => {
            let text = format!(
                "{}. The kernel stops all of them when the quota is used up: lower RINGVERB_WORKERS or raise the quota",
                shares.workers_text
            );
            Finding::new(Verdict::Warning, "workers", text)
        }
    };
    let memory = match &shares.memory_text {
        Some(memory) => format!("at most {memory}"),
        None => "no limit: RINGVERB_MEMORY_MAX sets one".to_owned(),
    };
    vec![workers, Finding::new(Verdict::Good, "memory", memory)]
}

/// Only for io_uring: epoll locks no memory.
fn locked_memory(memory: &LockedMemory, size: RingSize) -> Finding {
    match memory.warning() {
        None => Finding::new(Verdict::Good, "locked", memory.ring_choice_text(size)),
        Some(warning) if memory.is_enough_to_start() => {
            Finding::new(Verdict::Warning, "locked", warning)
        }
        Some(warning) => Finding::new(Verdict::Problem, "locked", warning),
    }
}

type ProbeAnswer = (usize, Finding, Option<RemoteClock>);

/// Asks Redis and the endpoints of webhooks, all at once.
fn examine_network(config: &Config) -> (Vec<Finding>, Vec<RemoteClock>) {
    let (answers, received) = mpsc::channel::<ProbeAnswer>();
    let mut asked: Vec<(&'static str, String)> = Vec::new();
    if let Some(scaling) = config.scaling.clone() {
        asked.push(("redis", scaling.address()));
        start_probe(&answers, 0, move || redis::examine(&scaling, STEP_TIME));
    }
    let endpoints = endpoints(config);
    let probe = EndpointProbe::new(STEP_TIME);
    let more = endpoints.len().saturating_sub(ENDPOINTS_MAX);
    for url in endpoints.into_values().take(ENDPOINTS_MAX) {
        let index = asked.len();
        asked.push(("webhook", webhook_url::shown(&url)));
        let probe = probe.clone();
        start_probe(&answers, index, move || examine_endpoint(&probe, &url));
    }
    drop(answers);
    let mut findings: Vec<Option<Finding>> = asked.iter().map(|_| None).collect();
    let mut clocks = Vec::new();
    while let Ok((index, finding, clock)) = received.recv_timeout(PROBE_TIME) {
        findings[index] = Some(finding);
        clocks.extend(clock);
    }
    let unanswered = |(what, place): &(&'static str, String)| {
        let seconds = PROBE_TIME.as_secs();
        Finding::new(Verdict::Problem, what, format!("{place} gave no answer within {seconds} s"))
    };
    let found = findings.into_iter().zip(&asked);
    let mut findings: Vec<Finding> =
        found.map(|(finding, asked)| finding.unwrap_or_else(|| unanswered(asked))).collect();
    if more > 0 {
        findings.push(Finding::new(
            Verdict::Good,
            "webhook",
            format!("{more} more endpoints were not asked"),
        ));
    }
    (findings, clocks)
}

fn start_probe(
    answers: &mpsc::Sender<ProbeAnswer>,
    index: usize,
    examine: impl FnOnce() -> (Finding, Option<RemoteClock>) + Send + 'static,
) {
    let answers = answers.clone();
    let run = move || {
        let (finding, clock) = examine();
        // The receiver may have stopped waiting for a late answer.
        answers.send((index, finding, clock)).ok();
    };
    // Without a thread there is no answer, and that is what the report says.
    std::thread::Builder::new().name("probe".to_owned()).spawn(run).ok();
}

/// Keyed by scheme, host and port: endpoints of one server are reachable or not together.
fn endpoints(config: &Config) -> BTreeMap<String, String> {
    let urls = config.apps.iter().flat_map(|app| &app.webhooks).map(|webhook| webhook.url.clone());
    urls.map(|url| {
        let shown = webhook_url::shown(&url);
        let place = shown.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        (place.to_ascii_lowercase(), url)
    })
    .collect()
}

fn examine_endpoint(probe: &EndpointProbe, url: &str) -> (Finding, Option<RemoteClock>) {
    let shown = webhook_url::shown(url);
    match probe.reach(url) {
        Ok(date) => {
            let clock = date.as_deref().and_then(http_date);
            let clock = clock.map(|seconds| RemoteClock::new(&shown, seconds));
            (Finding::new(Verdict::Good, "webhook", format!("{shown} answers")), clock)
        }
        Err(why) => (Finding::new(Verdict::Problem, "webhook", format!("{shown} {why}")), None),
    }
}

/// The clock with the largest difference stands for all: one sentence is enough to set it right.
fn examine_clocks(clocks: &[RemoteClock], config: &Config) -> Option<Finding> {
    let worst = clocks.iter().max_by_key(|clock| clock.difference_seconds())?;
    let (distance, place) = (worst.difference_seconds(), &worst.place);
    if distance <= CLOCK_DIFFERENCE_SECONDS_MAX {
        return Some(Finding::new(Verdict::Good, "clock", format!("agrees with {place}")));
    }
    let text = format!("differs by {distance} s from the one of {place}: set both by NTP");
    let window = config.apps.iter().filter_map(|app| app.auth_window_seconds).min();
    let breaks = window.is_some_and(|window| distance > u64::from(window));
    if breaks {
        let text =
            format!("{text}. Signed requests that are older than RINGVERB_AUTH_WINDOW are refused");
        return Some(Finding::new(Verdict::Problem, "clock", text));
    }
    Some(Finding::new(Verdict::Warning, "clock", text))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_once(", ")?.1.split(' ').collect();
    let [day, month, year, time, "GMT"] = words[..] else { return None };
    let month = u64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()? + 1;
    let (day, year) = (day.parse::<u64>().ok()?, year.parse::<u64>().ok()?);
    let time: Option<Vec<u64>> = time.split(':').map(|part| part.parse().ok()).collect();
    let [hours, minutes, seconds] = time?[..] else { return None };
    if !(1970..=9999).contains(&year)
        || !(1..=31).contains(&day)
        || hours > 23
        || minutes > 59
        || seconds > 60
    {
        return None;
    }
    // Days since 1 March of the year 0: leap days come last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hours * 3_600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_over_the_quota_are_a_warning() {
        let mut shares = Shares { workers_text: "7, not pinned".to_owned(), ..Shares::default() };
        let found = |shares: &Shares| {
            let findings = resources(shares).into_iter();
            findings
                .map(|finding| (finding.verdict, finding.what, finding.text))
                .collect::<Vec<_>>()
        };
        let none = "no limit: RINGVERB_MEMORY_MAX sets one".to_owned();
        assert_eq!(
            found(&shares),
            [
                (Verdict::Good, "workers", "7, not pinned".to_owned()),
                (Verdict::Good, "memory", none)
            ]
        );
        shares.has_too_many_workers = true;
        shares.memory_text = Some("204 MiB".to_owned());
        let [workers, memory] = &found(&shares)[..] else { panic!("two findings") };
        assert_eq!((workers.0, memory.2.as_str()), (Verdict::Warning, "at most 204 MiB"));
        assert!(workers.2.contains("7, not pinned. ") && workers.2.contains("RINGVERB_WORKERS"));
    }

    #[test]
    fn a_clock_that_nobody_synchronizes_is_a_warning() {
        let verdict = |state| time_source(&state).verdict;
        assert_eq!(verdict(Ok(true)), Verdict::Good);
        assert_eq!(verdict(Ok(false)), Verdict::Warning);
        assert_eq!(verdict(Err(std::io::Error::other("seccomp"))), Verdict::Note);
        assert!(is_clock_synchronized().is_ok(), "reading needs no right");
    }

    #[test]
    fn dates_of_http_are_read_in_utc() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
            ("Fri, 31 Dec 2100 12:00:00 GMT", 4_133_937_600),
        ] {
            assert_eq!(http_date(text), Some(seconds), "{text}");
        }
        for text in [
            "",
            "Sun, 06 Nov 1994",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "x, 0 Jan 0 0:0:0 GMT",
            "Sun, 06 Nov 1994 99:49:37 GMT",
        ] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }
}
