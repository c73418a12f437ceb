//! One core's turn: shard, mailbox, sockets and flush joined, without the thread, the clock and the kernel.
//!
//! A tick deals with all that is ready, then flushes each dirty connection once (law 1). Generic over the kernel: the
//! worker runs it on a raw io_uring, the simulator runs many in one thread. PURE but for the doorbells of the mailbox.

mod flush;
mod gather;
pub mod kernel;
mod moving;
mod reactor;
#[cfg(test)]
mod tests;

use crate::app::AppIndex;
use crate::buffer::FrameBytes;
use crate::limits;
use crate::mailbox::Mailbox;
use crate::pusher::socket_id::SocketId;
use crate::shard::{ConnectionKey, Lane, Mail, Shard};
use flush::Flush;
use gather::Gathers;
use kernel::Kernel;
pub use moving::Moved;
pub use reactor::{PACED_LOOK_MS, Reactor, socket_bytes};

/// What a tick changes.
pub struct Core<K: Kernel> {
    pub shard: Shard,
    pub reactor: Reactor<K>,
    pub mailbox: Mailbox<Mail>,
    pub gathers: Gathers,
    flush: Flush,
    /// Mail on its way to the shard.
    inbox: Vec<Mail>,
    /// Mail of the shard to itself.
    own_mail: Vec<Mail>,
    /// See `pause`.
    paused: bool,
}

impl<K: Kernel> Core<K> {
    /// The doorbell is watched from here on.
    pub fn new(
        shard: Shard,
        mailbox: Mailbox<Mail>,
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
            flush: Flush::default(),
            inbox: Vec::new(),
            own_mail: Vec::new(),
            paused: false,
        }
    }

    /// The first half of a tick: everything that is ready. What is left in the shard's outbox then, webhooks and
    /// traces, is the caller's to carry out.
    pub fn turn(&mut self) {
        let now = self.shard.now();
        if !self.paused {
            self.reactor.expire(&mut self.shard, now);
        }
        self.reactor.turn(&mut self.shard, self.paused || self.mailbox.is_congested());
        if std::mem::take(&mut self.reactor.doorbell_is_deaf) {
            self.reactor.kernel.watch_doorbell(self.mailbox.doorbell());
        }
        self.drain_from_home();
        self.catch_up();
        self.mailbox.flush_overflow();
        self.settle_mail();
        self.mailbox.ring_doorbells();
        let outbox = &mut self.shard.outbox;
        self.gathers.tell(&mut outbox.answered, &mut outbox.cluster);
        self.gathers.expire(now, &mut outbox.cluster);
        for (key, code) in std::mem::take(&mut self.shard.outbox.closed) {
            tracing::debug!(slot = key.slot, code, "connection closing");
            self.reactor.linger(key, now);
        }
    }

    /// The second half: sends, and sleeps unless something is left.
    pub fn finish(&mut self) {
        if !self.paused {
            self.flush.run(&mut self.shard, &mut self.reactor);
        }
        if self.wants_another_tick() || !self.mailbox.prepare_sleep() {
            self.reactor.kernel.request_again();
        }
        self.reactor.finish_turn();
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
        mail_waits
            || !self.shard.outbox.is_empty()
            || self.flush.is_unfinished()
            || self.reactor.has_unread()
    }

    /// Hands the shard's mail to the rings, and to itself what is its own, until there is none. `catch_up` calls
    /// it last: what other cores sent before goes ahead of what this core asks of itself.
    fn settle_mail(&mut self) {
        let own_core = self.mailbox.core();
        loop {
            self.shard.settle();
            if self.shard.outbox.mails.is_empty() {
                break;
            }
            let stamp = self.reactor.kernel.stamp();
            for (to, mail) in self.shard.outbox.mails.drain(..) {
                if to == own_core {
                    self.own_mail.push(mail);
                } else {
                    self.mailbox.send(to, lane_index(mail.lane()), stamp, mail);
                }
            }
            for mail in self.own_mail.drain(..) {
                self.shard.on_mail(mail);
            }
        }
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
        self.catch_up();
        for (channel, frame, except) in publications {
            // The API has checked the name already.
            if let Ok(channel) = self.shard.channel_key(app, channel) {
                self.shard.publish(channel, frame, except, true);
            }
        }
        self.settle_mail();
    }

    /// Takes in what was sent before now, by whichever core. A request must see, and come behind, all that was
    /// answered before it was made.
    pub fn catch_up(&mut self) {
        self.drain_to_home();
        self.settle_mail();
    }

    /// Always: this mail causes none that must find room at once.
    fn drain_from_home(&mut self) {
        for from in 0..self.mailbox.cores() {
            for _ in 0..limits::MAIL_PER_TICK_MAX {
                let lane = lane_index(Lane::FromHome);
                let Some(mail) = self.mailbox.receive(from, lane) else { break };
                self.shard.on_mail(mail);
            }
        }
    }

    /// Only while there is room for the mail it may cause.
    fn drain_to_home(&mut self) {
        if self.mailbox.owes_too_much() {
            return;
        }
        let horizon = self.reactor.kernel.stamp();
        self.mailbox.receive_ordered(lane_index(Lane::ToHome), horizon, &mut self.inbox);
        for mail in self.inbox.drain(..) {
            self.shard.on_mail(mail);
        }
    }
}

fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::ToHome => 0,
        Lane::FromHome => 1,
    }
}
