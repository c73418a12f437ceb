//! When topics are subscribed to and unsubscribed from in Redis. PURE.
//!
//! Owns the queues of topics to subscribe to and of idle ones. Does not send a command: `ToCluster` does. A client can
//! cause a SUBSCRIBE and an UNSUBSCRIBE with a hundred bytes. So neither is sent at once: topics wait until the session
//! has room for them, and a topic that is no longer needed before it was sent is never sent. A topic that was needed
//! stays subscribed for `Settings::topic_idle_seconds`, so that a subscriber who returns within that time does not
//! wait. Limits: each topic that waits has a subscriber that waits, and `ClusterSession::is_congested` makes the
//! reactor read no further subscribe messages. At most `IDLE_MAX` idle topics stay subscribed; the oldest is dropped
//! first. Cost: one entry in a queue and one look-up for each topic that is subscribed to or unsubscribed from.

use super::Cluster;
use super::here::Here;
use super::topic_state::{FetchReason, PeerSnapshot};
use crate::pusher::error_code;
use crate::shard::ConnectionKey;
use crate::shard::channel_key::ChannelKey;
use crate::shard::context::Context;
use crate::shard::mail::Mail;

/// Topics of one core that stay subscribed although they are not needed. Events on them cost Redis and this node work
/// for no client.
pub(super) const IDLE_MAX: usize = 8_192;
/// Entries of `Cluster::unsent` that may be canceled ones, beside as many as are not.
pub(super) const CANCELED_MAX: usize = 64;
/// Mails of one topic that are searched for the one that is withdrawn, from the newest on: a client usually withdraws
/// its last request. A request that is not found is answered when Redis has answered.
pub(super) const WITHDRAW_SEARCHED_MAX: usize = 64;

impl Cluster {
    pub(in crate::shard) fn mail_held(&self) -> usize {
        self.mail_held
    }

    pub(in crate::shard) fn has_topic(&self, channel: &ChannelKey) -> bool {
        self.topics.contains_key(channel)
    }

    /// Canceled entries of the queue do not count.
    pub(in crate::shard) fn topics_waiting(&self) -> usize {
        self.unsent_count
    }

    /// Whether the session is to report its room (`FromCluster::TopicRoom`), for `send_topics`.
    pub(in crate::shard) fn has_topics_to_send(&self, context: &Context) -> bool {
        self.unsent_count > 0 || self.has_unannounced() || self.is_idle_topic_due(context)
    }

    pub(super) fn queue_topic(&mut self, channel: &ChannelKey, ticket: u32) {
        let Some(topic) = self.topics.get_mut(channel) else { return };
        debug_assert!(topic.details().unsent.is_none(), "a topic is queued once");
        topic.details().unsent = Some(ticket);
        self.unsent.push_back((channel.clone(), ticket));
        self.unsent_count += 1;
        if self.unsent.len() > CANCELED_MAX + 2 * self.unsent_count {
            let topics = &self.topics;
            self.unsent.retain(|(channel, ticket)| {
                topics.get(channel).is_some_and(|topic| topic.unsent == Some(*ticket))
            });
        }
        debug_assert!(self.unsent_count <= self.unsent.len(), "each of them is in the queue");
    }

    /// Returns whether the topic's SUBSCRIBE was still to be sent: if so, Redis needs no UNSUBSCRIBE. The entry in the
    /// queue stays, without its ticket.
    pub(super) fn cancel_unsent(&mut self, channel: &ChannelKey) -> bool {
        let details = self.details(channel);
        let was_unsent = details.is_some_and(|details| details.unsent.take().is_some());
        debug_assert!(!was_unsent || self.unsent_count > 0, "`queue_topic` has counted it");
        self.unsent_count -= usize::from(was_unsent);
        was_unsent
    }

    /// The session is down. Its successor announces all topics that are left, so the queues are emptied, and idle
    /// topics are dropped for good.
    pub(super) fn drop_unsent(&mut self, here: &mut Here<'_>) {
        for (channel, _) in std::mem::take(&mut self.unsent) {
            self.cancel_unsent(&channel);
        }
        for (_, channel) in std::mem::take(&mut self.idle) {
            if let Some(details) = self.details(&channel) {
                details.idle_since = None;
            }
            self.release_if_unneeded(here, &channel);
            self.shrink_topic(&channel);
        }
        debug_assert_eq!(self.unsent_count, 0, "nothing is left to send");
        debug_assert!(self.unsent.is_empty() && self.idle.is_empty(), "and no topic is idle");
    }

    /// Returns to how many topics it has subscribed. Canceled entries do not count.
    pub(super) fn subscribe_topics(&mut self, here: &mut Here<'_>, most: usize) -> usize {
        let mut sent = 0;
        while sent < most {
            let Some((channel, ticket)) = self.unsent.pop_front() else { break };
            let details = self.details(&channel);
            if details.is_none_or(|details| details.unsent != Some(ticket)) {
                continue;
            }
            let was_unsent = self.cancel_unsent(&channel);
            debug_assert!(was_unsent, "its ticket is that of the queue");
            debug_assert!(sent < most, "the session has room for it");
            sent += 1;
            self.announce(here, &channel, ticket);
            if channel.kind.cached {
                self.fetch(here, &channel, ticket, FetchReason::First);
            }
            self.shrink_topic(&channel);
        }
        sent
    }

    /// Only the first call adds an entry to `idle`: a topic that was needed again in between has kept its entry.
    pub(super) fn note_idle(&mut self, channel: &ChannelKey) {
        debug_assert!(self.is_up, "without a session topics are unsubscribed from at once");
        let lease_second = self.lease_second;
        let Some(topic) = self.topics.get_mut(channel) else { return };
        if topic.details().idle_since.replace(lease_second).is_none() {
            self.idle.push_back((lease_second, channel.clone()));
        }
    }

    /// A topic that stayed subscribed without need is no short cut for a new subscriber if a session was lost after a
    /// snapshot was received: all snapshots are requested again. Returns since when the topic was idle, if it is
    /// dropped: its entry in `idle` stays, and is that of the topic which takes its place.
    pub(super) fn unsubscribe_if_idle_and_in_doubt(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
    ) -> Option<u32> {
        let topic = self.topics.get(channel)?;
        let since = topic.idle_since?;
        debug_assert!(since <= self.lease_second, "it became idle before now");
        let in_doubt =
            |peer: &PeerSnapshot| peer.received_at != self.received_now(peer.received_at.sender);
        if !topic.peers.iter().any(in_doubt) || !self.is_unneeded(here, channel) {
            return None;
        }
        self.unsubscribe(here, channel);
        Some(since)
    }

    /// Begins with the topics that have not been needed for longest. Returns from how many it has unsubscribed.
    pub(super) fn unsubscribe_topics(&mut self, here: &mut Here<'_>, most: usize) -> usize {
        let mut ended = 0;
        while ended < most && self.is_idle_topic_due(here.context) {
            let Some((_, channel)) = self.idle.pop_front() else { break };
            let is_over = self.idle.len() >= IDLE_MAX;
            let is_unneeded = self.is_unneeded(here, &channel);
            let Some(details) = self.details(&channel) else { continue };
            let since = details.idle_since.take().unwrap_or_default();
            if is_unneeded && !is_over && !self.is_older_than_idle_limit(here.context, since) {
                // A subscriber came back, and has left again since.
                self.idle.push_back((since, channel.clone()));
                if let Some(details) = self.details(&channel) {
                    details.idle_since = Some(since);
                }
                continue;
            }
            if is_unneeded {
                ended += 1;
                debug_assert!(ended <= most, "there is room for so many");
                self.unsubscribe(here, &channel);
            } else {
                self.shrink_topic(&channel);
            }
        }
        ended
    }

    fn is_idle_topic_due(&self, context: &Context) -> bool {
        let idle = &self.idle;
        idle.len() > IDLE_MAX
            || idle.front().is_some_and(|(since, _)| self.is_older_than_idle_limit(context, *since))
    }

    fn is_older_than_idle_limit(&self, context: &Context, lease_second: u32) -> bool {
        lease_second.saturating_add(context.settings.topic_idle_seconds) <= self.lease_second
    }

    fn shrink_topic(&mut self, channel: &ChannelKey) {
        if let Some(topic) = self.topics.get_mut(channel) {
            topic.shrink();
        }
    }

    /// A connection of `core` has left before its subscription was answered. If its request waits for other nodes, it
    /// is answered now, because each request has exactly one answer.
    pub(in crate::shard) fn withdraw_subscribe(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        connection: ConnectionKey,
        ticket: u32,
        core: u16,
    ) {
        debug_assert_eq!(
            here.context.keys.home(channel),
            here.context.core(),
            "this core is its home"
        );
        let details = self.details(channel);
        let Some(waiting) = details.and_then(|details| details.waiting.as_mut()) else { return };
        let is_it = |mail: &Mail| match mail {
            Mail::Subscribe { connection: asker, ticket: asked, core: from, .. } => {
                (*asker, *asked, *from) == (connection, ticket, core)
            }
            _ => false,
        };
        let searched = waiting.mails.iter().rev().take(WITHDRAW_SEARCHED_MAX);
        let Some(behind) = searched.into_iter().position(is_it) else { return };
        let withdrawn = waiting.mails.remove(waiting.mails.len() - 1 - behind);
        debug_assert!(is_it(&withdrawn), "the mail that was found");
        debug_assert!(self.mail_held > 0, "`hold_back` has counted it");
        self.mail_held -= 1;
        let (channel_key, error) = (channel.clone(), error_code::TOO_MANY_MEMBERS);
        let answer = Mail::SubscribeRefused { channel: channel_key, connection, ticket, error };
        here.out.send_from_home(core, answer);
        self.release_if_unneeded(here, channel);
    }
}
