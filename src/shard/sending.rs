//! HOT: an event on its way through a core, and send queues as the flush takes them. PURE.
//!
//! Owns nothing: `Home` has the interested cores, `Local` the queues and the account. Does not send: the flush does. An
//! event is ordered here, at the home of its channel, and goes to each interested core once. The flush reads dirty
//! connections and their send queues here, and reports what was sent. The worker passes on what it has measured:
//! headroom, the reserve of HTTP, bytes of incomplete input.
//!
//! Limits: those of `local/delivery.rs` and `local/memory.rs`. Cost: a publish is one look-up by key and, for each
//! other interested core, two atomic reference counts and one mail; the other calls are a few steps without an
//! allocation.

use super::Shard;
use super::channel_key::ChannelKey;
use super::context::Context;
use super::core_set::CoreSet;
use super::home::Home;
use super::local::connection::ConnectionKey;
use super::local::delivery::AfterSend;
use super::local::send_queue::SendQueue;
use super::mail::Mail;
use super::outbox::{Outbox, Trace};
use crate::buffer::FrameBytes;
use crate::pusher::socket_id::SocketId;
use crate::slot::Slot;

impl Home {
    /// HOT. Sends an event to each interested core but this one, once. Returns whether this core is interested, too:
    /// the caller then delivers it, because a mail to the own core would cost as much as some deliveries.
    #[must_use]
    pub(super) fn distribute(
        &self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        frame: &FrameBytes,
        except: Option<SocketId>,
    ) -> bool {
        out.trace(|| Trace::Broadcasting(channel.shared_name(), frame.clone()));
        let mut others = self.interested_cores(channel);
        let is_interested = others.contains(context.core());
        others.remove(context.core());
        for core in others.iter() {
            debug_assert!(core < context.settings.cores, "a core of this process");
            let (channel, frame) = (channel.clone(), frame.clone());
            out.mails.push((core, Mail::Deliver { channel, frame, except }));
        }
        is_interested
    }

    pub(super) fn interested_cores(&self, channel: &ChannelKey) -> CoreSet {
        self.channels.find(channel).map_or(CoreSet::default(), |home| home.interested)
    }
}

impl Shard {
    /// Sends an encoded event to the home of its channel, which orders it. `except`: the connection that must not get
    /// it.
    pub fn publish(
        &mut self,
        channel: ChannelKey,
        frame: FrameBytes,
        except: Option<SocketId>,
        cache: bool,
    ) {
        if self.context.settings.cores == 1 {
            return self.publish_here(&channel, &frame, except, cache);
        }
        let home = self.context.keys.home(&channel);
        debug_assert!(home < self.context.settings.cores, "a core of this process");
        self.outbox.send_to_home(home, Mail::Publish { channel, frame, except, cache });
    }

    /// HOT. Publishes an event of a channel whose home this core is. This is the channel's only ordering point on the
    /// node.
    pub(super) fn publish_here(
        &mut self,
        channel: &ChannelKey,
        frame: &FrameBytes,
        except: Option<SocketId>,
        cache: bool,
    ) {
        debug_assert_eq!(self.context.keys.home(channel), self.context.core(), "the home");
        let Self { context, local, home, cluster, outbox } = self;
        let cached_seconds = cache.then(|| home.cache_published(context, channel, frame)).flatten();
        if let Some(cluster) = cluster {
            cluster.publish(outbox, channel, frame, except, cached_seconds);
        }
        if home.distribute(context, outbox, channel, frame, except) {
            outbox.has_events = true;
            local.deliver(&mut outbox.dirty, channel, frame, except);
        }
        if cache && (context.settings.verbose_errors || context.settings.debug) {
            home.note_without_subscribers(context, outbox, channel, frame);
        }
    }

    /// See `Local::settle`. Call it once input is dealt with, and before the flush.
    pub fn settle(&mut self) {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        self.local.settle(&self.context, &mut self.outbox);
        self.drain_own_mail();
        debug_assert!(self.outbox.own_mail.is_empty(), "the parts have answered each other");
    }

    /// `settle` has something to do. A flush that ends connections can cause it after the last `settle` of a tick, and
    /// its effects must not wait for the next report.
    #[must_use]
    pub fn has_unsettled(&self) -> bool {
        self.local.has_unsettled()
    }

    /// Clears the mark of a connection in `Outbox::dirty`, and returns its generation, if it is to be flushed. `None`
    /// when the connection has ended, or for the second entry of a slot that was given to another connection since. The
    /// send queue is empty if `wake` has marked it.
    #[inline]
    pub fn unmark_dirty(&mut self, slot: Slot) -> Option<u32> {
        let connection = self.local.connections.get_mut(slot)?;
        let was_dirty = std::mem::take(&mut connection.is_dirty);
        (was_dirty && !connection.is_blocked).then_some(connection.generation)
    }

    #[must_use]
    #[inline]
    pub fn send_queue(&self, slot: Slot) -> Option<&SendQueue> {
        self.local.connections.get(slot).map(|connection| &connection.send_queue)
    }

    /// See `Local::on_sent`.
    #[inline]
    pub fn on_sent(&mut self, slot: Slot, count: usize, blocked: bool) -> AfterSend {
        debug_assert!(
            self.local.connections.get(slot).is_none_or(|found| !found.is_dirty),
            "`unmark_dirty` has cleared the mark"
        );
        self.local.on_sent(&self.context, &mut self.outbox, slot, count, blocked)
    }

    /// See `Local::wake`.
    pub fn wake(&mut self, slot: Slot) {
        self.local.wake(&mut self.outbox, slot);
        debug_assert!(
            self.local.connections.get(slot).is_none_or(|found| found.is_dirty || found.is_blocked),
            "the flush looks at it, or the kernel reports it"
        );
    }

    /// `on_sent` was called for so many bytes together. Once for a batch, because the sum costs a delivery less than
    /// each.
    pub fn note_sent(&self, bytes: usize) {
        debug_assert!(self.metrics().send_queue_bytes.get() >= bytes as u64, "they were counted");
        self.metrics().send_queue_bytes.sub(bytes as u64);
    }

    /// See `Local::unblock`.
    pub fn unblock(&mut self, slot: Slot) {
        self.local.unblock(&mut self.outbox, slot);
    }

    /// See `Local::must_wait`.
    #[must_use]
    pub fn must_wait(&self, key: ConnectionKey) -> bool {
        self.local.must_wait(&self.context, key)
    }

    /// See `Local::set_headroom`.
    pub fn set_headroom(&mut self, bytes: u64) {
        self.local.set_headroom(bytes);
    }

    /// See `Local::set_http_reserve`.
    pub fn set_http_reserve(&mut self, bytes: u64) {
        self.local.set_http_reserve(bytes);
    }

    /// See `Local::note_http`.
    pub fn note_http(&mut self, before: usize, now: usize) -> bool {
        self.local.note_http(before, now)
    }

    /// See `Local::reserve_for_answers`.
    pub fn reserve_for_answers(&mut self, held: usize, more: usize) -> bool {
        self.local.reserve_for_answers(held, more)
    }

    /// See `Local::release_answers`.
    pub fn release_answers(&mut self, bytes: usize) {
        self.local.release_answers(bytes);
    }

    /// See `Local::note_input`.
    pub fn note_input(&mut self, key: ConnectionKey, before: usize, now: usize) {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        self.local.note_input(&self.context, &mut self.outbox, key, before, now);
        self.drain_own_mail();
    }

    /// See `Local::http_bytes`.
    #[must_use]
    pub fn http_bytes(&self) -> u64 {
        self.local.http_bytes()
    }

    /// See `Local::charged_bytes`.
    #[must_use]
    pub fn charged_bytes(&self) -> u64 {
        self.local.charged_bytes()
    }

    /// See `Local::kept_bytes`.
    #[must_use]
    pub fn kept_bytes(&self, key: ConnectionKey) -> usize {
        self.local.kept_bytes(key)
    }

    /// See `Local::account_fault`.
    #[must_use]
    pub fn account_fault(&self) -> Option<String> {
        self.local.account_fault(&self.context)
    }
}
