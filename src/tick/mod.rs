//! One core's turn: shard, mailbox, sockets and flush joined, without the thread, the clock and the kernel.
//!
//! A tick deals with all that is ready, then flushes each dirty connection once (docs/decisions/0001). Generic over the
//! kernel: the worker runs it on io_uring or epoll, the simulator runs many in one thread. PURE but for the doorbells
//! of the mailbox.

mod flush;
mod gather;
pub mod http;
pub mod kernel;
mod moving;
mod reactor;
mod sessions;
mod site;
#[cfg(test)]
mod tests;

use crate::app::AppIndex;
use crate::buffer::FrameBytes;
use crate::clock::Moment;
use crate::mailbox::Mailbox;
use crate::pusher::socket_id::SocketId;
use crate::shard::{ConnectionKey, Mail, Question, SessionId, Shard};
use flush::Flush;
use gather::{Asker, Gathers};
use http::Http;
use kernel::Kernel;
pub use moving::{Moved, MovedSession};
pub use reactor::{Account, ClusterReports, PACED_LOOK_MS, Reactor, socket_bytes};
use site::{Post, Site};

/// What a tick changes.
pub struct Core<K: Kernel> {
    pub shard: Shard,
    pub reactor: Reactor<K>,
    pub mailbox: Mailbox<Mail>,
    pub gathers: Gathers,
    pub http: Http,
    post: Post,
    flush: Flush,
    /// See `pause`.
    paused: bool,
}

/// When a core is to tick again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// At once: work is left.
    None,
    /// At this moment, or when something is reported.
    Until(Moment),
    /// When something is reported.
    Reports,
}

impl<K: Kernel> Core<K> {
    /// The doorbell is watched from here on.
    pub fn new(
        shard: Shard,
        mailbox: Mailbox<Mail>,
        http: Http,
        mut kernel: K,
        sockets_reserved: usize,
    ) -> Self {
        kernel.watch_doorbell(mailbox.doorbell());
        kernel.submit();
        Self {
            shard,
            reactor: Reactor::new(kernel, sockets_reserved),
            mailbox,
            gathers: Gathers::default(),
            http,
            post: Post::default(),
            flush: Flush::default(),
            paused: false,
        }
    }

    /// Everything but the sockets, and the sockets.
    fn split(&mut self) -> (Site<'_>, &mut Reactor<K>) {
        let stamp = self.reactor.kernel.stamp();
        let Self { shard, reactor, mailbox, gathers, http, post, .. } = self;
        (Site { shard, mailbox, post, gathers, http, stamp }, reactor)
    }

    /// The first half of a tick: everything that is ready. What is left in the shard's outbox then, webhooks and
    /// traces, is the caller's to carry out.
    pub fn turn(&mut self) {
        let (now, paused) = (self.shard.now(), self.paused);
        if !paused {
            self.reactor.expire(&mut self.shard, now);
        }
        let congested = self.mailbox.is_congested();
        let (mut site, reactor) = self.split();
        reactor.turn(&mut site, paused, congested);
        if std::mem::take(&mut reactor.doorbell_is_deaf) {
            reactor.kernel.watch_doorbell(site.mailbox.doorbell());
        }
        // What was read is older than what is done for it.
        site.stamp = reactor.kernel.stamp();
        site.drain_from_home();
        site.catch_up();
        self.settle();
        for (key, code) in std::mem::take(&mut self.shard.outbox.closed) {
            tracing::debug!(slot = key.slot, code, "connection closing");
            self.reactor.linger(key, now);
        }
    }

    /// What shard, mail and sessions have to say to each other. To be called again if the caller changes the shard
    /// behind `turn`.
    pub fn settle(&mut self) {
        let paused = self.paused;
        let (mut site, reactor) = self.split();
        site.mailbox.flush_overflow();
        site.settle_mail();
        let now = site.shard.now();
        let outbox = &mut site.shard.outbox;
        site.gathers.tell(&mut outbox.answered, &mut outbox.cluster);
        site.gathers.expire(now, &mut outbox.cluster);
        if !paused {
            reactor.resume_sessions(&mut site);
            reactor.expire_sessions(&mut site);
            site.settle_mail();
        }
        site.mailbox.ring_doorbells();
    }

    /// The second half: sends. Says when the next tick is to come. With anything but `Rest::None` the core has said
    /// that it sleeps: a core that has mail for it rings.
    pub fn finish(&mut self) -> Rest {
        let paused = self.paused;
        if !paused {
            self.flush();
        }
        self.reactor.finish_turn();
        if self.wants_another_tick() || !self.mailbox.prepare_sleep() {
            return Rest::None;
        }
        if paused {
            // No time passes.
            return Rest::Reports;
        }
        let now = self.shard.now();
        let paced = self.reactor.has_paced().then_some(Moment(now.0 + PACED_LOOK_MS));
        let accepts = self.reactor.accepts_again_at(&self.http);
        match paced.into_iter().chain(accepts).min() {
            Some(at) => Rest::Until(at),
            None => Rest::Reports,
        }
    }

    /// Checks what holds between two ticks. For tests and the simulator: the cost is that of the whole state.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.mailbox.check_invariants()?;
        self.shard.check_invariants(self.flush.waiting())?;
        // Paused, it takes over connections in any order.
        if self.paused { Ok(()) } else { self.shard.check_sides_agree() }
    }

    /// Connections that speak HTTP.
    #[must_use]
    pub fn http_sessions(&self) -> usize {
        self.reactor.sessions.len()
    }

    fn flush(&mut self) {
        let mut flush = std::mem::take(&mut self.flush);
        let (mut site, reactor) = self.split();
        flush.run(&mut site, reactor);
        self.flush = flush;
    }

    /// Connections wait for the next tick with what they are to be sent.
    pub fn has_unflushed(&self) -> bool {
        self.flush.is_unfinished()
    }

    fn wants_another_tick(&self) -> bool {
        let mail_waits = self.mailbox.has_held() || self.mailbox.has_overflow();
        if self.paused {
            return mail_waits || !self.shard.outbox.mails.is_empty();
        }
        let now = self.shard.now();
        let accepts = self.reactor.accepts_again_at(&self.http).is_some_and(|at| at <= now);
        mail_waits
            || !self.shard.outbox.is_empty()
            || self.flush.is_unfinished()
            || self.reactor.has_unread()
            || self.gathers.has_whole()
            || self.reactor.cluster.readable
            || accepts
    }

    fn settle_mail(&mut self) {
        self.split().0.settle_mail();
    }

    /// Closes the connections in these slots that keep most memory.
    pub fn shed(&mut self, slots: std::ops::Range<usize>) {
        let reactor = &self.reactor;
        self.shard.shed(slots, |slot| reactor.input_bytes(slot));
    }

    /// Memory of a connection in bytes: what its account says, its send queue and its incomplete input.
    #[must_use]
    pub fn kept_bytes(&self, key: ConnectionKey) -> usize {
        self.shard.kept_bytes(key) + self.reactor.input_bytes(key.slot as usize)
    }

    /// Publishes what one request holds. When this returns, no later request, on whichever core, can overtake
    /// it: it was ordered here, or its mail is stamped and on its way (unless `has_overflow`).
    pub fn publish<'a>(
        &mut self,
        app: AppIndex,
        publications: impl Iterator<Item = (&'a str, FrameBytes, Option<SocketId>)>,
    ) {
        self.split().0.publish(app, publications);
    }

    /// Takes in what was sent before now, by whichever core. A request must see, and come behind, all that was
    /// answered before it was made.
    pub fn catch_up(&mut self) {
        self.split().0.catch_up();
    }

    /// Asks all cores, this one included, and all nodes; the number to take the answers by.
    pub fn begin_gather(&mut self, question: Question) -> u32 {
        self.split().0.begin_gather(Asker::Caller, question)
    }

    /// A question of another node, for all cores of this one.
    pub fn begin_node_question(
        &mut self,
        from: SessionId,
        number: u32,
        question: Option<Question>,
    ) {
        self.split().0.begin_node_question(from, number, question);
    }
}
