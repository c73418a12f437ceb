//! The session with Redis as the shard sees it: what it reports (`FromCluster`), and its time. PURE.
//!
//! Owns the waits of a topic's first subscribers for Redis and for the snapshots of other nodes, the announcement of
//! all topics after the session came up, and the stored events of cache channels. Does not send or read bytes. Outputs:
//! `ToCluster`, and the mail that was held back.
//!
//! Limits: a wait ends after `ANSWER_SECONDS` and with the session; `TOPICS_PER_CALL` topics at a time. Cost: one
//! look-up for each report. After a reconnect, one step for each topic, `TOPICS_PER_CALL` for each
//! `FromCluster::TopicRoom`.

use super::here::Here;
use super::topic_state::FetchReason;
use super::{
    ANSWER_SECONDS, Cluster, FromCluster, LEASE_SECONDS, Stored, TOPICS_PER_CALL, ToCluster,
};
use crate::limits;
use crate::shard::channel_key::ChannelKey;
use crate::shard::node_message::{ChannelMessage, NodeId, SessionId};
use crate::shard::outbox::GatherAnswer;

impl Cluster {
    pub(in crate::shard) fn on_event(&mut self, here: &mut Here<'_>, event: FromCluster<'_>) {
        match event {
            FromCluster::Up => self.on_up(),
            FromCluster::Down => self.on_down(here),
            FromCluster::CaughtUp => {
                let cached = self.topics.keys().filter(|channel| channel.kind.cached);
                self.unfetched = cached.cloned().collect();
            }
            FromCluster::Subscribed { channel, ticket } => {
                self.note_answers(here, channel, ticket, 0);
            }
            FromCluster::SnapshotSent { channel, ticket, receivers } => {
                self.note_answers(here, channel, ticket, i64::from(receivers.saturating_sub(1)));
            }
            FromCluster::Fetched { channel, ticket, stored } => {
                self.on_fetched(here, channel, ticket, stored);
            }
            FromCluster::FetchAgain { channel } => self.fetch_again(here, channel),
            FromCluster::Stored { channel } => self.on_stored(channel),
            FromCluster::TransitionOrdered => self.on_transition_ordered(here),
            FromCluster::Asked { id, receivers } => {
                here.out.answered.push(GatherAnswer::Nodes { id, count: receivers });
            }
            FromCluster::NodeAnswer { id, answers } => {
                here.out.answered.push(GatherAnswer::Node { id, answers });
            }
            FromCluster::NodeSeen(node) => self.on_node_seen(here, node),
            FromCluster::Message { from, channel, message, frame } => {
                self.on_message(here, from, channel, message, frame);
            }
            FromCluster::Snapshot { from, channel, ticket, snapshot } => {
                self.on_snapshot(here, from, channel, ticket, snapshot);
            }
            FromCluster::PeerUp(session) => self.on_session_up(here, session),
            FromCluster::PeerEnds(node) => self.forget_nodes(here, &[node]),
            FromCluster::Revive(node) => self.on_revive(node),
            // `Shard` carries it out: connections are of the local side.
            FromCluster::EndAccess(_) => {}
            FromCluster::TopicRoom(room) => self.send_topics(here, room),
        }
    }

    fn on_up(&mut self) {
        debug_assert!(self.waiting.is_empty(), "without a session no topic waits for replies");
        debug_assert_eq!(self.transitions.counts().unconfirmed, 0, "`on_down` has decided all");
        self.is_up = true;
        self.own_generation = self.own_generation.wrapping_add(1);
        self.sweeps.retain(|(_, session)| session.is_some());
        self.sweeps.push_back((self.lease_second + LEASE_SECONDS, None));
        debug_assert_eq!(
            self.sweeps.iter().filter(|(_, session)| session.is_none()).count(),
            1,
            "only the newest of our own sessions counts"
        );
        self.unannounced = self.topics.keys().cloned().collect();
        // Nothing was received from any node while the session was down.
        let lease_second = self.lease_second;
        self.nodes.values_mut().for_each(|seen| *seen = lease_second);
        debug_assert_eq!(
            self.unannounced.len(),
            self.topics.len(),
            "each topic is announced again"
        );
    }

    /// Answers subscribers with what this node knows: replies to what waits will not come.
    fn on_down(&mut self, here: &mut Here<'_>) {
        self.is_up = false;
        self.confirm_all_transitions(here);
        self.unannounced.clear();
        self.unfetched.clear();
        self.drop_unsent(here);
        for (_, channel, ticket) in std::mem::take(&mut self.waiting) {
            self.release_held_mail(here, &channel, ticket);
        }
        here.out.answered.push(GatherAnswer::NodesGone);
        debug_assert!(!self.has_unannounced(), "the next session announces all topics");
        debug_assert_eq!(self.mail_held, 0, "no mail waits for replies that do not come");
        debug_assert!(
            self.transitions.counts().unconfirmed == 0 && self.unsent_count == 0,
            "nothing waits for a confirmation that does not come"
        );
    }

    /// Subscribes to some topics, announces some after the session came up, and unsubscribes from some that no core
    /// needs any longer; `room` SUBSCRIBE and UNSUBSCRIBE at most. Each kind has its share, so that none waits for the
    /// end of another.
    fn send_topics(&mut self, here: &mut Here<'_>, room: usize) {
        let room = room.min(TOPICS_PER_CALL);
        debug_assert!(self.is_up, "only a session has room for topics");
        let share = room.div_ceil(3);
        let sent = self.subscribe_topics(here, share);
        let ended = self.unsubscribe_topics(here, (room - sent).min(share));
        debug_assert!(sent + ended <= room, "each kind has its share");
        self.announce_topics(here, room - sent - ended);
    }

    fn announce_topics(&mut self, here: &mut Here<'_>, most: usize) {
        debug_assert!(self.is_up || most == 0, "without a session nothing is announced");
        for _ in 0..most {
            let (channel, is_new) = match self.unannounced.pop_front() {
                Some(channel) => (channel, true),
                None => match self.unfetched.pop_front() {
                    Some(channel) => (channel, false),
                    None => return,
                },
            };
            if !self.topics.contains_key(&channel) {
                continue;
            }
            let ticket = self.next_ticket_number();
            if is_new {
                self.announce(here, &channel, ticket);
            } else {
                self.fetch(here, &channel, ticket, FetchReason::Again);
            }
        }
    }

    /// Whether the request with this ticket was made for a topic whose subscribers may have missed events. Their replay
    /// must be over before the stored event is kept, because a subscriber that gets it at its subscription is not sent
    /// it again.
    pub(in crate::shard) fn is_refetch(&self, channel: &ChannelKey, ticket: u32) -> bool {
        let fetching = self.topics.get(channel).and_then(|topic| topic.fetching);
        matches!(fetching, Some((asked, FetchReason::Again | FetchReason::Restored)) if asked == ticket)
    }

    fn on_fetched(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        ticket: u32,
        stored: Option<Stored>,
    ) {
        let why = self.details(channel).and_then(|details| {
            let (_, why) = details.fetching.take_if(|(asked, _)| *asked == ticket)?;
            Some(why)
        });
        match (why, stored) {
            (Some(_), Some(stored)) => {
                let by = (stored.from, stored.number);
                debug_assert!(channel.kind.cached, "only cache channels have a stored event");
                here.home.cache_event(here.context, channel, &stored.frame, stored.seconds);
                here.home.channels.note_fetched(channel, by);
                if let Some(topic) = self.topics.get_mut(channel) {
                    topic.details().note_greeted(by);
                }
            }
            (Some(FetchReason::First), None) => here.home.channels.forget_cached(channel),
            (Some(FetchReason::Again), None) => self.restore_stored(here, channel),
            (Some(FetchReason::Restored), None) | (None, _) => {}
        }
        self.note_answers(here, channel, ticket, 0);
    }

    /// Whether an event that a catch-up delivers late is the cached event that subscribers were greeted with, or an
    /// older one of its sender. They must not be sent it again.
    pub(in crate::shard) fn is_in_greeting(
        &self,
        channel: &ChannelKey,
        from: SessionId,
        number: u64,
    ) -> bool {
        self.topics.get(channel).is_some_and(|topic| topic.was_greeted(from, number))
    }

    /// Redis has lost the channel's event. Of several nodes that remember one, the first decides.
    fn restore_stored(&mut self, here: &mut Here<'_>, channel: &ChannelKey) {
        debug_assert!(channel.kind.cached, "only cache channels have a stored event");
        let cached = here.home.channels.cached_and_seconds(channel, here.context.now);
        if let Some((frame, seconds)) = cached {
            let to_store = channel.clone();
            here.out.cluster.push(ToCluster::StoreIfAbsent { channel: to_store, frame, seconds });
            self.send_to_nodes(here, channel, || ChannelMessage::Restored);
            self.fetch_again(here, channel);
        }
    }

    /// For an event that was stored again, or stored by another node: what this node remembers may be another one.
    pub(super) fn fetch_again(&mut self, here: &mut Here<'_>, channel: &ChannelKey) {
        if self.topics.contains_key(channel) {
            let ticket = self.next_ticket_number();
            self.fetch(here, channel, ticket, FetchReason::Restored);
        }
    }

    /// From the last such report on, events of other nodes are the newest again (`is_newest_elsewhere`).
    fn on_stored(&mut self, channel: &ChannelKey) {
        if let Some(unstored) = self.unstored.get_mut(channel) {
            debug_assert!(*unstored > 0, "an entry is of events that are not stored");
            *unstored -= 1;
            if *unstored == 0 {
                self.unstored.remove(channel);
            }
        }
    }

    /// One answer has arrived, and shows that `more` others will. `replies_missing` may be below 0 in between, because
    /// snapshots may arrive before the report of how many there are.
    pub(super) fn note_answers(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        ticket: u32,
        more: i64,
    ) {
        let waiting = self.details(channel).and_then(|details| details.waiting.as_mut());
        let Some(waiting) = waiting.filter(|waiting| waiting.ticket == ticket) else { return };
        waiting.replies_missing += more - 1;
        debug_assert!(more >= 0, "a reply announces answers, and takes none back");
        if waiting.replies_missing == 0 {
            self.release_held_mail(here, channel, ticket);
        }
    }

    /// Idempotent: an answer and the end of the time may both call it. Nothing happens for the ticket of an earlier
    /// wait.
    fn release_held_mail(&mut self, here: &mut Here<'_>, channel: &ChannelKey, ticket: u32) {
        debug_assert_eq!(
            here.context.keys.home(channel),
            here.context.core(),
            "this core is its home"
        );
        let Some(topic) = self.topics.get_mut(channel) else { return };
        let waiting = topic
            .details_if_any()
            .and_then(|details| details.waiting.take_if(|it| it.ticket == ticket));
        let Some(waiting) = waiting else { return };
        topic.shrink();
        debug_assert!(
            waiting.mails.iter().all(|mail| matches!(mail.lane(), crate::shard::Lane::ToHome)),
            "only mail to a home is held back"
        );
        if waiting.mails.is_empty() {
            return self.release_if_unneeded(here, channel);
        }
        debug_assert!(waiting.mails.len() <= self.mail_held, "each was counted");
        self.mail_held -= waiting.mails.len();
        here.out.requeue_held_mail(waiting.mails);
    }

    /// Called once a second. Without a session only the time of pending leaves passes, not that of leases and waits.
    pub(in crate::shard) fn advance(&mut self, here: &mut Here<'_>) {
        self.end_due_pending_leaves(here);
        if !self.is_up {
            return;
        }
        self.lease_second += 1;
        debug_assert!(
            self.nodes.len() > limits::ASSERTED_LEN_MAX
                || self.nodes.values().all(|seen| *seen < self.lease_second),
            "a node was seen before this second"
        );
        let lease_second = self.lease_second;
        while let Some((since, _, _)) = self.waiting.front()
            && since + ANSWER_SECONDS <= lease_second
        {
            let Some((_, channel, ticket)) = self.waiting.pop_front() else { break };
            self.release_held_mail(here, &channel, ticket);
        }
        let is_silent = |seen: &u32| seen + LEASE_SECONDS < lease_second;
        debug_assert!(
            self.waiting.front().is_none_or(|(since, ..)| since + ANSWER_SECONDS > lease_second),
            "the others may still be answered"
        );
        let nodes = self.nodes.iter().filter(|(_, seen)| is_silent(seen));
        let silent: Vec<NodeId> = nodes.map(|(node, _)| *node).collect();
        self.on_nodes_dead(here, &silent);
        debug_assert!(
            silent.iter().all(|node| !self.nodes.contains_key(node)),
            "what dead nodes had is forgotten"
        );
        debug_assert!(
            self.sweeps.len() > limits::ASSERTED_LEN_MAX
                || self.sweeps.iter().is_sorted_by_key(|(at, _)| *at),
            "each lasts as long"
        );
        let due = self.sweeps.partition_point(|(at, _)| *at <= lease_second);
        let due: Vec<Option<(SessionId, u32)>> =
            self.sweeps.drain(..due).map(|(_, session)| session).collect();
        let newest = due.into_iter().filter(|came_up| {
            came_up.is_none_or(|(session, renewals)| {
                self.renewals.get(&session).is_some_and(|newest| *newest == renewals)
            })
        });
        let sessions: Vec<Option<SessionId>> =
            newest.map(|came_up| came_up.map(|(session, _)| session)).collect();
        if !sessions.is_empty() {
            self.drop_stale_snapshots(here, &sessions);
        }
    }
}
