//! When topics are subscribed to and unsubscribed from in Redis. PURE.
//!
//! A client may cause a SUBSCRIBE and an UNSUBSCRIBE with a hundred bytes. So neither is sent where it is caused:
//! topics wait until the connection to Redis has room for them, and a topic that nobody needs any more before it was
//! sent is not sent at all. A topic that was needed stays subscribed for `Settings::topic_linger_beats`; whoever
//! comes back within that time finds it there and waits for nobody.
//!
//! Limits: what waits to be subscribed is what subscribers wait for, `Link::is_congested` slows those down; at most
//! `IDLE_MAX` topics stay subscribed for nobody, the oldest goes first.

use super::{Fetch, Peer};
use crate::pusher::error_code;
use crate::shard::Shard;
use crate::shard::channel_key::ChannelKey;
use crate::shard::connection::ConnectionKey;
use crate::shard::mail::Mail;

/// Topics of one core that stay subscribed although nobody needs them.
const IDLE_MAX: usize = 8_192;
/// Entries of `ClusterTable::unsent` that may be cancelled ones, beside as many as are not.
const CANCELLED_MAX: usize = 64;
/// Mails of one topic that are searched for one that is withdrawn. Who withdraws has asked last; whoever is not found
/// is answered when Redis has.
const WITHDRAW_SEARCHED_MAX: usize = 64;

impl Shard {
    /// Topics that are not subscribed to yet, and are needed.
    #[must_use]
    pub fn topics_waiting(&self) -> usize {
        self.cluster.unsent_count
    }

    /// Whether there is something to do for `send_topics`.
    #[must_use]
    pub fn has_topics_to_send(&self) -> bool {
        let cluster = &self.cluster;
        cluster.unsent_count > 0 || self.has_unannounced() || self.is_idle_topic_due()
    }

    pub(super) fn queue_topic(&mut self, channel: &ChannelKey, ticket: u32) {
        let cluster = &mut self.cluster;
        let Some(subject) = cluster.subjects.get_mut(channel) else { return };
        subject.details().unsent = Some(ticket);
        cluster.unsent.push_back((channel.clone(), ticket));
        cluster.unsent_count += 1;
        if cluster.unsent.len() > CANCELLED_MAX + 2 * cluster.unsent_count {
            let subjects = &cluster.subjects;
            cluster.unsent.retain(|(channel, ticket)| {
                subjects.get(channel).is_some_and(|subject| subject.unsent == Some(*ticket))
            });
        }
    }

    /// A topic is not needed any more; whether its SUBSCRIBE was not sent yet.
    pub(super) fn cancel_unsent(&mut self, channel: &ChannelKey) -> bool {
        let details = self.cluster.details(channel);
        let was_unsent = details.is_some_and(|details| details.unsent.take().is_some());
        self.cluster.unsent_count -= usize::from(was_unsent);
        was_unsent
    }

    /// The connection is down: there is nobody to subscribe at. Topics nobody needs are not asked for on the next.
    pub(super) fn drop_unsent(&mut self) {
        for (channel, _) in std::mem::take(&mut self.cluster.unsent) {
            self.cancel_unsent(&channel);
        }
        for (_, channel) in std::mem::take(&mut self.cluster.idle) {
            if let Some(details) = self.cluster.details(&channel) {
                details.idle_since = None;
            }
            self.let_go_if_unused(&channel);
            self.shrink_subject(&channel);
        }
    }

    /// Sends some that wait; how many.
    pub(super) fn subscribe_some(&mut self, most: usize) -> usize {
        let mut sent = 0;
        while sent < most {
            let Some((channel, ticket)) = self.cluster.unsent.pop_front() else { break };
            let details = self.cluster.details(&channel);
            if details.is_none_or(|details| details.unsent != Some(ticket)) {
                continue;
            }
            self.cancel_unsent(&channel);
            sent += 1;
            self.announce(&channel, ticket);
            if channel.kind.cached {
                self.fetch(&channel, ticket, Fetch::First);
            }
            self.shrink_subject(&channel);
        }
        sent
    }

    /// Nobody needs a topic since now.
    pub(super) fn note_idle(&mut self, channel: &ChannelKey) {
        let beat = self.cluster.beat;
        let Some(subject) = self.cluster.subjects.get_mut(channel) else { return };
        if subject.details().idle_since.replace(beat).is_none() {
            self.cluster.idle.push_back((beat, channel.clone()));
        }
    }

    /// A topic that stayed subscribed for nobody is no short cut for who comes now, if a node has told its part
    /// before its connection was lost, or ours: all are asked again.
    pub(super) fn let_go_if_idle_and_in_doubt(&mut self, channel: &ChannelKey) {
        let cluster = &self.cluster;
        let Some(subject) = cluster.subjects.get(channel) else { return };
        let in_doubt = |peer: &Peer| peer.told != cluster.told_now(peer.told.by);
        if subject.idle_since.is_some()
            && subject.peers.iter().any(in_doubt)
            && self.is_unused(channel)
        {
            self.let_go(channel);
        }
    }

    /// Looks at the oldest of those that nobody needed, and ends some; how many.
    pub(super) fn unsubscribe_some(&mut self, most: usize) -> usize {
        let mut ended = 0;
        while ended < most && self.is_idle_topic_due() {
            let Some((_, channel)) = self.cluster.idle.pop_front() else { break };
            let is_over = self.cluster.idle.len() >= IDLE_MAX;
            let is_unused = self.is_unused(&channel);
            let Some(details) = self.cluster.details(&channel) else { continue };
            let since = details.idle_since.take().unwrap_or_default();
            if is_unused && !is_over && !self.is_long_ago(since) {
                // Somebody came back, and has left again since.
                self.cluster.idle.push_back((since, channel.clone()));
                if let Some(details) = self.cluster.details(&channel) {
                    details.idle_since = Some(since);
                }
                continue;
            }
            if is_unused {
                ended += 1;
                self.let_go(&channel);
            } else {
                self.shrink_subject(&channel);
            }
        }
        ended
    }

    fn is_idle_topic_due(&self) -> bool {
        let idle = &self.cluster.idle;
        idle.len() > IDLE_MAX || idle.front().is_some_and(|(since, _)| self.is_long_ago(*since))
    }

    fn is_long_ago(&self, beat: u32) -> bool {
        beat.saturating_add(self.settings.topic_linger_beats) <= self.cluster.beat
    }

    fn shrink_subject(&mut self, channel: &ChannelKey) {
        if let Some(subject) = self.cluster.subjects.get_mut(channel) {
            subject.shrink();
        }
    }

    /// A connection of `core` has left before its subscription was answered. If that waits for other nodes, it does not
    /// any more.
    pub(in crate::shard) fn home_withdraw(
        &mut self,
        channel: &ChannelKey,
        connection: ConnectionKey,
        ticket: u32,
        core: u16,
    ) {
        let details = self.cluster.details(channel);
        let Some(waiting) = details.and_then(|details| details.waiting.as_mut()) else { return };
        let is_it = |mail: &Mail| match mail {
            Mail::Subscribe { connection: asker, ticket: asked, core: from, .. } => {
                (*asker, *asked, *from) == (connection, ticket, core)
            }
            _ => false,
        };
        let searched = waiting.mails.iter().rev().take(WITHDRAW_SEARCHED_MAX);
        let Some(behind) = searched.into_iter().position(is_it) else { return };
        waiting.mails.remove(waiting.mails.len() - 1 - behind);
        self.mail_back(
            core,
            Mail::Full {
                channel: channel.clone(),
                connection,
                ticket,
                error: error_code::TOO_MANY_MEMBERS,
            },
        );
        self.let_go_if_unused(channel);
    }
}
