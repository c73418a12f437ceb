//! One core's tick: shard, mailbox, sockets and flush together, without the thread, the clock and the kernel.
//!
//! Owns the parts of one core, and the order of a tick: it processes everything that is ready, then flushes each dirty
//! connection once (docs/decisions/0001). Generic over the kernel: the worker runs it on io_uring or epoll, the
//! simulator runs many cores in one thread. PURE except for the doorbells of the mailbox. ARCHITECTURE.md ("A worker")
//! has the steps in order.
//!
//! Limits: the budgets of `reactor.rs`, `sessions/accept.rs`, `site.rs` and `flush.rs` in a tick. Cost: linear in what
//! is ready; a tick without work is one load for each ring and no allocation.

mod flush;
mod gather;
pub mod http;
pub mod kernel;
mod reactor;
mod sessions;
mod site;
#[cfg(test)]
mod tests;
mod transfer;

use crate::api::Publication;
use crate::app::AppIndex;
use crate::clock::Moment;
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::mailbox::Mailbox;
use crate::shard::{
    ConnectionKey, Mail, NodeQuestion, OperatorQuestion, Question, SessionId, Shard,
    ShardConfiguration,
};
use flush::Flush;
use gather::{Asker, Gathers};
use http::{Http, Rules};
use kernel::Kernel;
pub use reactor::{AddressChange, ClusterReports, PACED_LOOK_MS, Reactor, socket_bytes};
use site::{MailBuffers, Site};
pub use transfer::{SessionPeer, TransferredConnection, TransferredSession};

pub struct Core<K: Kernel> {
    pub shard: Shard,
    pub reactor: Reactor<K>,
    pub mailbox: Mailbox<Mail>,
    pub gathers: Gathers,
    pub http: Http,
    mail_buffers: MailBuffers,
    flush: Flush,
    /// Set between `pause` and `resume`, while the core's connections may move to another process.
    paused: bool,
    /// When the current tick began, by `Kernel::stamp`.
    began: u64,
    /// The stamp of the oldest event that a flush has not finished sending.
    unsent_since: Option<u64>,
}

/// The parts of a configuration that a core applies.
#[derive(Clone, Debug)]
pub struct CoreConfiguration {
    pub shard: ShardConfiguration,
    pub rules: Rules,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextTick {
    /// At once, because work is left.
    Now,
    /// At this moment, or when something is reported.
    At(Moment),
    /// When something is reported.
    OnReport,
}

impl<K: Kernel> Core<K> {
    /// Creates a core and watches its doorbell.
    pub fn new(
        shard: Shard,
        mut mailbox: Mailbox<Mail>,
        mut http: Http,
        mut kernel: K,
        sockets_reserved: usize,
    ) -> Self {
        mailbox.discard_when_full(Mail::is_event);
        kernel.watch_doorbell(mailbox.doorbell());
        kernel.submit();
        http.metrics = shard.metrics().clone();
        let gathers = Gathers::new(shard.metrics().clone());
        Self {
            shard,
            reactor: Reactor::new(kernel, sockets_reserved),
            mailbox,
            gathers,
            http,
            mail_buffers: MailBuffers::default(),
            flush: Flush::default(),
            paused: false,
            began: 0,
            unsent_since: None,
        }
    }

    /// Applies a configuration. Connections of apps that are no longer served are closed in the ticks that follow.
    pub fn apply(&mut self, configuration: CoreConfiguration) {
        let CoreConfiguration { shard, rules } = configuration;
        self.http.apply(shard.apps.clone(), rules);
        self.shard.apply(shard);
    }

    /// The core as a request sees it, and the sockets. Reads the clock of the kernel for the site's stamp.
    fn split(&mut self) -> (Site<'_>, &mut Reactor<K>) {
        let stamp = self.reactor.kernel.stamp();
        let Self { shard, reactor, mailbox, gathers, http, mail_buffers, .. } = self;
        (Site { shard, mailbox, mail_buffers, gathers, http, stamp }, reactor)
    }

    /// The first half of a tick: processes everything that is ready. The caller then carries out the effects left in
    /// the shard's outbox, such as webhooks and traces.
    pub fn tick(&mut self) {
        let (now, paused) = (self.shard.now(), self.paused);
        if !paused {
            self.reactor.expire(&mut self.shard, now);
            self.shard.close_unserved();
        }
        let congested = self.mailbox.is_congested();
        let (mut site, reactor) = self.split();
        let began = site.stamp;
        reactor.run_events(&mut site, paused, congested);
        if std::mem::take(&mut reactor.doorbell_watch_ended) {
            reactor.kernel.watch_doorbell(site.mailbox.doorbell());
        }
        // The stamp must be later than the read and earlier than anything done for it.
        site.stamp = reactor.kernel.stamp();
        site.drain_from_home();
        site.receive_mail_sent_before_now();
        self.began = began;
        self.settle();
        debug_assert!(self.shard.outbox.mails.is_empty() || paused, "mail is in the rings");
        for (key, code) in std::mem::take(&mut self.shard.outbox.closed) {
            tracing::debug!(
                event = "connection_closing",
                slot = key.slot.number(),
                code,
                "connection closing"
            );
            self.reactor.await_close(&self.shard, key, now);
        }
    }

    /// Exchanges mail between shard, rings and sessions. Call it again if the caller changes the shard after `tick`.
    pub fn settle(&mut self) {
        let paused = self.paused;
        let (mut site, reactor) = self.split();
        site.mailbox.flush_overflow();
        site.settle_mail();
        let now = site.shard.now();
        site.gathers.note_answers(site.shard);
        site.gathers.expire(now, &mut site.shard.outbox.cluster);
        if !paused {
            reactor.resume_sessions(&mut site);
            reactor.expire_sessions(&mut site);
            site.settle_mail();
        }
        site.mailbox.ring_doorbells();
    }

    /// The second half of a tick: sends. Returns when the next tick is needed. Unless that is `NextTick::Now`, the core
    /// has set `asleep`, and a core with mail for it rings.
    pub fn finish(&mut self) -> NextTick {
        let paused = self.paused;
        if !paused {
            self.flush();
        }
        self.reactor.finish_tick();
        if self.wants_another_tick() || !self.mailbox.try_set_asleep() {
            return NextTick::Now;
        }
        debug_assert!(!self.mailbox.has_held_mail(), "a core with mail does not sleep");
        debug_assert!(!self.mailbox.has_overflow(), "nor one whose mail waits for room");
        debug_assert!(
            paused || !self.flush.has_waiting(),
            "nor one with frames that the flush left for this tick"
        );
        if paused {
            // A paused core ignores time: deadlines of connections must not pass while they move to another process.
            return NextTick::OnReport;
        }
        let now = self.shard.now();
        let paced = self.reactor.has_paused_reads().then_some(Moment(now.0 + PACED_LOOK_MS));
        let accepts = self.reactor.accept_due(&self.http);
        match paced.into_iter().chain(accepts).min() {
            Some(at) => NextTick::At(at),
            None => NextTick::OnReport,
        }
    }

    /// Checks what holds between two ticks. For tests, the simulator and debug builds: it walks over the whole state.
    ///
    /// # Errors
    /// The first invariant that is violated.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.mailbox.check_invariants()?;
        self.shard.check_invariants(self.flush.waiting_slots())?;
        self.shard.check_gauges()?;
        self.reactor.check_invariants(&self.shard)?;
        // A paused core imports connections in any order.
        if self.paused { Ok(()) } else { self.shard.check_sides_agree() }
    }

    #[must_use]
    pub fn http_sessions(&self) -> usize {
        self.reactor.sessions.len()
    }

    fn flush(&mut self) {
        let mut flush = std::mem::take(&mut self.flush);
        let (mut site, reactor) = self.split();
        flush.flush_tick(&mut site, reactor);
        self.flush = flush;
        self.observe_events();
    }

    /// Observes the age of the oldest event that was sent: since its publish on another core, or since the beginning of
    /// its tick, which has read those of this core. The stamp of a tick ends with the tick, also on a core that had
    /// nothing to send. Otherwise later events would leave for other cores with it.
    fn observe_events(&mut self) {
        let received = self.mail_buffers.oldest_event.take();
        if std::mem::take(&mut self.shard.outbox.has_events) {
            let oldest = received.map_or(self.began, |at| at.min(self.began));
            self.unsent_since = Some(self.unsent_since.map_or(oldest, |at| at.min(oldest)));
            debug_assert!(
                self.unsent_since.is_some_and(|since| since <= self.began),
                "an event that leaves now was published before now"
            );
        }
        if !self.flush.has_waiting()
            && let Some(oldest) = self.unsent_since.take()
        {
            let now = self.reactor.kernel.stamp();
            self.shard.metrics().publish_to_flush_ns.observe(now.saturating_sub(oldest));
        }
    }

    /// Copies numbers of the mailbox, the queues and the shard into the metrics. Call it at the end of a tick.
    pub fn note_gauges(&self) {
        let metrics = self.shard.metrics();
        let totals = self.mailbox.mail_totals();
        metrics.mail_sent.set(totals.sent);
        // The rings themselves are not asked: each has an index that another core writes.
        let received_now = totals.received.saturating_sub(metrics.mail_received.get());
        debug_assert!(totals.received >= metrics.mail_received.get(), "a sum that only grows");
        metrics.ring_mail.set(received_now);
        metrics.mail_received.set(totals.received);
        metrics.mail_discarded.set(self.mailbox.discarded_count());
        metrics.mail_waiting.set(self.mailbox.overflow_len() as u64);
        metrics.mail_held.set(self.mailbox.held_len() as u64);
        metrics.publishers_waiting.set(self.http.publishers_waiting() as u64);
        metrics.ready_sockets.set(self.reactor.queued_reads() as u64);
        metrics.flush_waiting.set(self.flush.waiting_slots().len() as u64);
        metrics.send_queue_bytes.note_peak();
        metrics.http_connections.set(self.http_sessions() as u64);
        metrics.closing_connections.set(self.reactor.closing_connections() as u64);
        let (deadlines, unauthorized) = self.shard.deadline_counts();
        metrics.deadlines.set((deadlines + self.reactor.sessions.deadlines()) as u64);
        metrics.authorizations_awaited.set(unauthorized as u64);
        let (cached_bytes, evicted) = self.shard.cached();
        metrics.cached_bytes.set(cached_bytes as u64);
        metrics.cached_events_evicted.set(evicted);
        metrics.subscription_counts_waiting.set(self.shard.counts_waiting() as u64);
        if self.shard.has_cluster() {
            let (cluster, outbox) = (&metrics.cluster, &self.shard.outbox.cluster);
            cluster.effects_peak.set(outbox.high_water() as u64);
            cluster.effects_discarded.set(outbox.discarded());
            let transitions = self.shard.transition_counts();
            cluster.transitions_unconfirmed.set(transitions.unconfirmed as u64);
            cluster.transitions_unconfirmed_peak.set(transitions.unconfirmed_high_water as u64);
            cluster.pending_leaves.set(transitions.pending_leaves as u64);
            cluster.pending_leaves_peak.set(transitions.pending_leaves_high_water as u64);
            cluster.transitions_unordered.set(transitions.unordered);
            let held = self.shard.mail_held() as u64;
            cluster.mail_held.set(held);
            cluster.mail_held_peak.set(cluster.mail_held_peak.get().max(held));
            cluster.topics_waiting.set(self.shard.topics_waiting() as u64);
            cluster.remote_bytes.set(self.shard.remote_bytes_counted() as u64);
            cluster.refused.set(self.shard.cluster_refused());
        }
    }

    /// Whether connections have frames that are sent in the next tick only.
    pub fn has_unflushed(&self) -> bool {
        self.flush.has_waiting()
    }

    fn wants_another_tick(&self) -> bool {
        let mail_waits = self.mailbox.has_held_mail() || self.mailbox.has_overflow();
        if self.paused {
            return mail_waits || !self.shard.outbox.mails.is_empty();
        }
        let now = self.shard.now();
        let accepts = self.reactor.accept_due(&self.http).is_some_and(|at| at <= now);
        mail_waits
            || !self.shard.outbox.is_empty()
            || self.flush.has_waiting()
            || self.reactor.has_unread()
            || self.gathers.has_complete_sessions()
            || self.reactor.cluster.readable
            || self.shard.has_unserved()
            || self.shard.has_unsettled()
            || accepts
    }

    fn settle_mail(&mut self) {
        self.split().0.settle_mail();
    }

    /// Closes the connections in these slots that keep most memory. The worker calls it when memory is short.
    pub fn shed(&mut self, slots: std::ops::Range<usize>) {
        let reactor = &self.reactor;
        self.shard.shed(slots, |slot| reactor.input_bytes(slot));
    }

    /// Memory of a connection in bytes: its account, its send queue and its incomplete input.
    #[must_use]
    pub fn kept_bytes(&self, key: ConnectionKey) -> usize {
        self.shard.kept_bytes(key) + self.reactor.input_bytes(key.slot)
    }

    /// See `Site::publish`.
    pub fn publish(&mut self, app: AppIndex, publications: &[Publication]) {
        self.split().0.publish(app, publications);
    }

    /// Publishes an operator's event: a request of the admin API with the body of `POST /events`.
    pub fn publish_for_operator(&mut self, app: AppIndex, request: &Request) -> Response {
        http::publish_for_operator(app, request, &mut self.split().0)
    }

    /// See `Site::receive_mail_sent_before_now`.
    pub fn catch_up(&mut self) {
        self.split().0.receive_mail_sent_before_now();
    }

    /// See `Site::begin_gather`.
    pub fn begin_gather(&mut self, question: Question) -> u32 {
        self.split().0.begin_gather(Asker::Caller, question)
    }

    /// See `Site::begin_operator_gather`.
    pub fn begin_operator_gather(&mut self, question: OperatorQuestion) -> u32 {
        self.split().0.begin_operator_gather(question)
    }

    /// See `Site::begin_node_question`.
    pub fn begin_node_question(
        &mut self,
        from: SessionId,
        number: u32,
        question: Option<NodeQuestion>,
    ) {
        self.split().0.begin_node_question(from, number, question);
    }
}
