//! A core on a kernel that says what a test wants it to say.

mod gauges;

use std::sync::Arc;

use serde_json::json;

use super::http::Rules;
use super::kernel::{Accepted, Kernel, KernelEvent, Received, Send, Sent, Watched};
use super::reactor::Queued;
use super::*;
use crate::admission::overload::Overload;
use crate::app::{App, AppIndex, Apps, Secret, sample};
use crate::buffer::FrameBytes;
use crate::counters::{RefusalCounters, Refused};
use crate::limits;
use crate::mailbox::{Doorbell, mesh};
use crate::pusher::error_code::SLOW_CONSUMER;
use crate::pusher::signature;
use crate::shard::{
    ConnectionKey, NodeId, NodeQuestion, OperatorQuestion, SessionId, Settings, ToCluster,
};

/// A kernel that reports `sent` of each send, and whose sockets have always read what `source` fills in.
struct Scripted {
    sent: fn(usize) -> Sent,
    source: fn(&mut [u8]) -> Received,
    /// Gets the bytes of each send.
    seen: fn(&[u8]),
    /// Connections that wait at each listener.
    waiting: [u32; 2],
    now: u64,
    /// The time that a read takes.
    read_ns: u64,
}

impl Kernel for Scripted {
    type Socket = ();
    /// Its index in `waiting`.
    type Listener = usize;
    type Channel = crate::tls::TlsChannel;

    fn watch_listener(&mut self, _listener: &usize, _index: u32) {}

    fn unwatch_listener(&mut self, _listener: &usize, _index: u32) {}

    fn accept(&mut self, listener: &usize) -> Accepted<()> {
        let Some(left) = self.waiting[*listener].checked_sub(1) else { return Accepted::Nothing };
        self.waiting[*listener] = left;
        Accepted::Socket((), core::net::SocketAddr::from(([192, 0, 2, 1], 4_711)))
    }

    fn watch_readable(&mut self, (): &(), _watched: Watched) {}

    fn watch_writable(&mut self, (): &(), _watched: Watched) {}

    fn unwatch(&mut self, (): &(), _watched: Watched, _writable_too: bool) {}

    fn watch_doorbell(&mut self, _doorbell: &Doorbell) {}

    fn submit(&mut self) {}

    fn park(&mut self, _timeout_ms: Option<u64>) {}

    fn reap(&mut self, _events: &mut Vec<KernelEvent>) {}

    fn send_all<'a>(&mut self, sends: impl Iterator<Item = Send<'a, ()>>, results: &mut Vec<Sent>) {
        results.clear();
        results.extend(sends.map(|send| {
            (self.seen)(send.bytes);
            (self.sent)(send.bytes.len())
        }));
    }

    fn receive(&mut self, (): &(), buffer: &mut [u8]) -> Received {
        self.now += self.read_ns;
        (self.source)(buffer)
    }

    fn shut_down(&mut self, (): &()) -> bool {
        true
    }

    fn stamp(&self) -> u64 {
        self.now
    }
}

fn rules() -> Rules {
    Rules {
        request_size_max: 10_000,
        request_seconds: 10,
        keepalive_seconds: 75,
        prefix: String::new(),
        verbose_errors: false,
        debug: false,
        print_events: false,
        connections_max: 64,
    }
}

fn core_of(app: App, sent: fn(usize) -> Sent) -> Core<Scripted> {
    core_with(mesh(1).unwrap().remove(0), app, sent)
}

fn core_with(mailbox: Mailbox<Mail>, app: App, sent: fn(usize) -> Sent) -> Core<Scripted> {
    let apps = Arc::new(Apps::new(vec![app]));
    assert!(apps.get(AppIndex(0)).try_count_connection(), "each test opens one connection");
    let overload = Arc::new(Overload::default());
    let source = |_: &mut [u8]| Received::Nothing;
    let kernel = Scripted { sent, source, seen: |_| {}, waiting: [0; 2], now: 0, read_ns: 0 };
    let http = Http::new(rules(), apps.clone(), overload, Box::new(|| 0));
    Core::new(Shard::new(Settings::single_core(apps)), mailbox, http, kernel, 0)
}

fn open(core: &mut Core<Scripted>) -> ConnectionKey {
    let key = core.shard.open(AppIndex(0), 99, b"HTTP/1.1 101 \r\n\r\n");
    core.reactor.adopt(&mut core.shard, key, (), &mut []);
    key
}

fn tick(core: &mut Core<Scripted>) -> NextTick {
    core.tick();
    core.finish()
}

#[test]
fn a_connection_is_closed_and_counted_when_the_kernel_reports_more_than_it_was_given() {
    let mut core = core_of(sample(), |given| Sent::Part(given + 1));
    let key = open(&mut core);
    tick(&mut core);
    assert!(core.shard.get(key).is_none());
    let counters = RefusalCounters::default();
    counters.drain_from(&mut core.shard.outbox.refused);
    assert_eq!(counters.get()[Refused::Kernel as usize], 1);
}

/// The worker has written the log lines of this tick before its flush.
#[test]
fn the_next_tick_follows_at_once_when_the_flush_closes_a_connection_and_has_a_log_line() {
    let mut core = core_of(sample(), |given| Sent::Part(given + 1));
    open(&mut core);
    core.tick();
    core.shard.outbox.refusals.clear();
    assert_eq!(core.finish(), NextTick::Now);
    assert_eq!(core.shard.outbox.refusals.len(), 1);
    core.tick();
    core.shard.outbox.refusals.clear();
    assert_eq!(core.finish(), NextTick::OnReport);
}

#[test]
fn a_connection_stays_when_the_kernel_reports_as_many_bytes_as_it_was_given() {
    let mut core = core_of(sample(), Sent::Part);
    let key = open(&mut core);
    tick(&mut core);
    assert!(core.shard.get(key).is_some());
    assert!(core.shard.send_queue(key.slot).unwrap().is_empty());
}

#[test]
fn connections_that_a_flush_leaves_for_the_next_tick_are_a_gauge_with_a_peak() {
    let mut core = core_of(sample(), |_| Sent::Whole);
    (0..limits::FLUSHES_PER_TICK_MAX + 3).for_each(|_| _ = open(&mut core));
    let metrics = core.shard.metrics().clone();
    for expected in [(3, 3), (0, 3)] {
        tick(&mut core);
        core.note_gauges();
        assert_eq!((metrics.flush_waiting.get(), metrics.flush_waiting.peak()), expected);
    }
}

/// Otherwise the clients of a host that fails hold up all others of the core until each has left its channels.
#[test]
fn connections_that_end_at_once_are_closed_in_several_ticks_of_bounded_time() {
    const CONNECTIONS: usize = 1_000;
    const READ_NS: u64 = 10_000;
    let app = sample();
    assert!((1..CONNECTIONS).all(|_| app.try_count_connection()));
    let mut core = core_of(app, |_| Sent::Whole);
    let keys: Vec<_> = (0..CONNECTIONS).map(|_| open(&mut core)).collect();
    tick(&mut core);
    for key in &keys {
        core.reactor.queue(*key, reactor::Queued::ToTheEnd);
    }
    core.reactor.kernel.read_ns = READ_NS;
    core.reactor.kernel.source = |_| Received::Gone;
    let reads_per_clock = (limits::READ_BYTES_PER_CLOCK / limits::READ_COST_BYTES_MIN) as u64;
    let open =
        |core: &Core<Scripted>| keys.iter().filter(|key| core.shard.get(**key).is_some()).count();
    let mut left = CONNECTIONS;
    while left > 0 {
        let start = core.reactor.kernel.now;
        core.tick();
        let next = core.finish();
        let took = core.reactor.kernel.now - start;
        assert!(took <= limits::READ_TIME_PER_TICK_NS + reads_per_clock * READ_NS, "{took} ns");
        let before = std::mem::replace(&mut left, open(&core));
        assert!(left < before, "each tick closes some: {left} are left");
        assert_eq!(next == NextTick::Now, left > 0, "{left} are left");
    }
}

#[test]
fn mail_that_a_tick_takes_out_of_the_rings_is_a_gauge_with_a_peak() {
    let mut mailboxes = mesh(2).unwrap();
    let mut other = mailboxes.remove(1);
    let mut core = core_with(mailboxes.remove(0), sample(), Sent::Part);
    let channel = core.shard.channel_key(AppIndex(0), "news").unwrap();
    let frame = FrameBytes::from(b"event".to_vec());
    let metrics = core.shard.metrics().clone();
    for _ in 0..5 {
        let (channel, frame) = (channel.clone(), frame.clone());
        other.send(0, 1, 0, Mail::Deliver { channel, frame, except: None });
    }
    for expected in [(5, 5), (0, 5)] {
        tick(&mut core);
        core.note_gauges();
        assert_eq!((metrics.ring_mail.get(), metrics.ring_mail.peak()), expected);
    }
}

#[test]
fn sockets_that_are_queued_to_be_read_are_a_gauge_with_a_peak() {
    let mut core = core_of(sample(), |_| Sent::Whole);
    let metrics = core.shard.metrics().clone();
    for _ in 0..3 {
        let key = open(&mut core);
        core.reactor.queue(key, Queued::Once);
    }
    core.note_gauges();
    assert_eq!((metrics.ready_sockets.get(), metrics.ready_sockets.peak()), (3, 3));
    tick(&mut core);
    core.note_gauges();
    assert_eq!((metrics.ready_sockets.get(), metrics.ready_sockets.peak()), (0, 3));
}

#[test]
fn a_question_of_another_node_over_the_limit_is_not_answered_so_that_it_counts_as_incomplete() {
    let mut core = core_of(sample(), |_| Sent::Whole);
    let from = SessionId { node: NodeId(9), core: 0 };
    let ask = |core: &mut Core<Scripted>, number| {
        let question = OperatorQuestion::Connections { app: None, contains: "".into() };
        core.begin_node_question(from, number, Some(NodeQuestion::Operator(question)));
    };
    (0..1_024).for_each(|number| ask(&mut core, number));
    let metrics = core.shard.metrics().clone();
    assert_eq!((metrics.gathers.get(), metrics.gathers_refused.get()), (1_024, 0));
    assert!(core.shard.outbox.cluster.take_effects().is_empty());
    ask(&mut core, 1_024);
    assert_eq!((metrics.gathers.get(), metrics.gathers_refused.get()), (1_024, 1));
    // An empty answer would count as that of the whole node.
    let effects = core.shard.outbox.cluster.take_effects();
    assert!(effects.is_empty(), "{effects:?}");
    core.begin_node_question(from, 1_025, None);
    let effects = core.shard.outbox.cluster.take_effects();
    assert!(
        matches!(&effects[..], [ToCluster::Reply { to, .. }] if *to == from),
        "a node without the app has nothing to add: {effects:?}"
    );
}

/// The member that leaves is reported to another one whose queue is full, after the last `settle` of the tick.
#[test]
fn a_slow_consumer_that_the_flush_finds_is_closed_in_the_next_tick() {
    const BYTES_MAX: usize = 4_096;
    let apps = Arc::new(Apps::new(vec![sample()]));
    assert!((0..2).all(|_| apps.get(AppIndex(0)).try_count_connection()));
    let mut settings = Settings::single_core(apps);
    settings.memory.send_queue_bytes_max = BYTES_MAX;
    let mut core = core_of(sample(), |_| Sent::Whole);
    core.shard = Shard::new(settings);
    let [leaving, slow] = [1, 2].map(|user| {
        let key = core.shard.open(AppIndex(0), user, b"HTTP/1.1 101 \r\n\r\n");
        core.reactor.adopt(&mut core.shard, key, (), &mut []);
        join(&mut core.shard, key, user);
        tick(&mut core);
        assert!(core.shard.send_queue(key.slot).unwrap().is_empty());
        key
    });
    // The larger of two sends finds no room, and the other one fails.
    core.reactor.kernel.sent = |given| if given > BYTES_MAX { Sent::Part(0) } else { Sent::Failed };
    let channel = core.shard.channel_key(AppIndex(0), "presence-r").unwrap();
    let except = Some(core.shard.get(leaving).unwrap().socket_id);
    core.shard.publish(channel, vec![b'x'; BYTES_MAX + 1].into(), except, false);
    core.shard.on_message(leaving, br#"{"event":"pusher:ping"}"#);
    let next_tick = tick(&mut core);
    assert!(core.shard.get(leaving).is_none());
    let found = core.shard.get(slow).unwrap();
    assert!(found.is_overflowed() && !found.is_closing());
    // Its frames are with the kernel or were refused, so only the close is left to do.
    assert!(core.shard.has_unsettled());
    assert_eq!(next_tick, NextTick::Now, "a close does not wait for a report");
    core.shard.advance(crate::clock::Moment(1_000));
    tick(&mut core);
    assert!(core.shard.get(slow).is_none_or(|found| found.is_closing()));
}

fn join(shard: &mut Shard, key: ConnectionKey, user: u64) {
    let channel_data = format!(r#"{{"user_id":{user}}}"#);
    let signed = format!("{}:presence-r:{channel_data}", shard.get(key).unwrap().socket_id);
    let hex = signature::sign(&Secret::new("app-secret"), &[signed.as_bytes()]);
    let auth = format!("app-key:{}", String::from_utf8_lossy(&hex));
    let data = json!({"channel": "presence-r", "auth": auth, "channel_data": channel_data});
    let text = json!({"event": "pusher:subscribe", "data": data}).to_string();
    shard.on_message(key, text.as_bytes());
}

/// Sessions become connections within a tick, in slots that others have left in it.
#[test]
fn a_slot_that_changes_hands_within_a_tick_is_sent_once() {
    thread_local! {
        static SENDS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }
    let mut core = core_of(sample(), |_| {
        SENDS.set(SENDS.get() + 1);
        Sent::Whole
    });
    let first = open(&mut core);
    core.reactor.drop_socket(&mut core.shard, first);
    let second = open(&mut core);
    assert_eq!(first.slot, second.slot);
    tick(&mut core);
    assert_eq!(SENDS.get(), 1);
}

/// Answers to requests that a client has sent ahead of its handshake are part of the prelude: they were carried out.
#[test]
fn a_close_for_a_full_send_queue_keeps_the_answers_before_the_handshake() {
    thread_local! {
        static SENT: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    const BYTES_MAX: usize = 4_096;
    const PINGS: usize = 100;
    let apps = Arc::new(Apps::new(vec![sample()]));
    assert!(apps.get(AppIndex(0)).try_count_connection());
    let mut settings = Settings::single_core(apps);
    settings.memory.send_queue_bytes_max = BYTES_MAX;
    let mut core = core_of(sample(), |_| Sent::Whole);
    core.shard = Shard::new(settings);
    core.reactor.kernel.seen = |bytes| SENT.with_borrow_mut(|sent| sent.extend_from_slice(bytes));
    let answers = vec![b'a'; limits::ANSWERS_BYTES_MAX];
    let key = core.shard.open(AppIndex(0), 99, &answers);
    // A client may send all of this in one packet, behind its handshake.
    let text = br#"{"event":"pusher:ping"}"#;
    let mut ping = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    ping.extend_from_slice(text);
    core.reactor.adopt(&mut core.shard, key, (), &mut ping.repeat(PINGS));
    tick(&mut core);
    let sent = SENT.take();
    assert!(sent.starts_with(&answers), "{} bytes were sent", sent.len());
    let rest = String::from_utf8_lossy(&sent[answers.len()..]);
    assert!(rest.contains("pusher:connection_established"), "{rest}");
    assert!(!rest.contains("pusher:pong") && rest.ends_with(SLOW_CONSUMER.message), "{rest}");
}

/// It sends requests without end and reads all answers: they leave in the pace in which they are served.
#[test]
fn a_client_that_never_stops_sending_has_no_more_kept_than_one_read() {
    const REQUEST: &[u8] = b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut core = core_of(sample(), |_| Sent::Whole);
    core.reactor.kernel.waiting[0] = 1;
    core.reactor.kernel.source = |buffer| {
        let whole = buffer.len() / REQUEST.len() * REQUEST.len();
        buffer[..whole]
            .chunks_exact_mut(REQUEST.len())
            .for_each(|one| one.copy_from_slice(REQUEST));
        Received::Bytes(whole)
    };
    core.reactor.listen(0);
    for _ in 0..200 {
        tick(&mut core);
        let kept = core.export_sessions().map(|session| session.input.len()).sum::<usize>();
        assert!(kept <= limits::READ_BYTES_PER_TICK_MAX, "{kept} bytes");
        let charged = core.shard.http_bytes();
        assert!(charged < 4 * limits::READ_BYTES_PER_TICK_MAX as u64, "{charged} bytes");
    }
    assert_eq!(core.http_sessions(), 1);
}

/// The check of a core finds what is wrong in its shard. A paused core takes over connections in any order, so that its
/// sides need not agree.
#[test]
fn violations_of_a_core_are_named() {
    let mut core = core_of(sample(), |_| Sent::Whole);
    open(&mut core);
    core.check_invariants().unwrap();
    // The flush is to send the greeting, and has lost it.
    let dirty = std::mem::take(&mut core.shard.outbox.dirty);
    let found = core.check_invariants().unwrap_err();
    assert!(found.contains("nobody flushes it"), "{found}");
    core.shard.outbox.dirty = dirty;
    core.check_invariants().unwrap();
    let channel = core.shard.channel_key(AppIndex(0), "a").unwrap();
    let restore = crate::shard::Restore::Interest { channel, core: 0, count: 1 };
    core.shard.on_mail(Mail::Restore(Box::new(restore)));
    let found = core.check_invariants().unwrap_err();
    assert!(found.contains("interest true, active false"), "{found}");
    core.pause();
    core.check_invariants().unwrap();
}

/// Otherwise `ringverb_publish_to_flush_seconds` shows the time since an earlier event.
#[test]
fn the_stamp_of_an_event_ends_with_its_tick_on_a_core_that_sends_nothing() {
    let mut mailboxes = mesh(2).unwrap();
    let mut other = mailboxes.remove(1);
    let mut core = core_with(mailboxes.remove(0), sample(), Sent::Part);
    let channel = core.shard.channel_key(AppIndex(0), "news").unwrap();
    let frame = FrameBytes::from(b"event".to_vec());
    for cache in [false, true] {
        core.reactor.kernel.now += 10;
        let mail =
            Mail::Publish { channel: channel.clone(), frame: frame.clone(), except: None, cache };
        other.send(0, 0, core.reactor.kernel.now - 5, mail);
        tick(&mut core);
        assert_eq!(core.mail_buffers.oldest_event, None);
    }
    core.reactor.kernel.now = 1_000;
    other.send(0, 1, 993, Mail::Deliver { channel, frame, except: None });
    tick(&mut core);
    let observed = core.shard.metrics().publish_to_flush_ns.read();
    assert_eq!((observed.counts.iter().sum::<u64>(), observed.sum), (1, 7));
    assert_eq!(core.mail_buffers.oldest_event, None);
}

#[test]
fn accepting_and_the_first_reads_end_with_their_time_and_go_on_in_the_next_tick() {
    let mut core = core_of(sample(), |_| Sent::Whole);
    core.reactor.listen(0);
    core.reactor.kernel.waiting[0] = 40;
    core.reactor.kernel.read_ns = limits::READ_TIME_PER_TICK_NS / 4;
    core.tick();
    // One batch was read, which took longer than the time of a tick.
    assert_eq!((core.reactor.kernel.waiting[0], core.http_sessions()), (24, 16));
    assert_eq!(core.finish(), NextTick::Now, "connections wait");
    let later = (1..100).find(|_| {
        tick(&mut core);
        core.http_sessions() == 40
    });
    assert!(later.is_some_and(|ticks| ticks > 1), "{later:?} ticks");
}

/// Nothing is served for them, so no request notes the time.
#[test]
fn accepting_connections_that_end_at_once_ends_with_its_time() {
    let mut core = core_of(sample(), |_| Sent::Whole);
    core.reactor.listen(0);
    core.reactor.kernel.waiting[0] = 40;
    core.reactor.kernel.read_ns = limits::READ_TIME_PER_TICK_NS / 4;
    core.reactor.kernel.source = |_| Received::Gone;
    for expected in [24, 8, 0] {
        core.tick();
        assert_eq!((core.reactor.kernel.waiting[0], core.http_sessions()), (expected, 0));
        assert_eq!(core.finish() == NextTick::Now, expected > 0, "connections wait");
    }
}

#[test]
fn a_listener_is_accepted_from_although_another_one_always_has_connections() {
    let mut core = core_of(sample(), |_| Sent::Whole);
    (0..2).for_each(|listener| core.reactor.listen(listener));
    core.reactor.kernel.waiting = [1_000; 2];
    for _ in 0..10 {
        tick(&mut core);
    }
    let accepted = core.reactor.kernel.waiting.map(|waiting| 1_000 - waiting);
    assert_eq!(accepted, [320; 2], "64 a tick, in turn");
}
