//! Messages that a session receives: each once, and in its sender's order. PURE.
//!
//! Owns no state: it is `impl ClusterSession`. Does not know what a channel's message does: the shard does. Inputs:
//! payloads of Redis topics. Outputs: `FromCluster` to the shard, questions for the node's cores, answers to the node's
//! own sessions. A message is processed if its number is higher than its sender's last one, and if its topic is of its
//! kind. A replayable message of a sender that has still to replay older ones is held (`catch_up.rs`). Limits:
//! `SENDERS_MAX` senders; bytes that are no message are noted and dropped; `shard.accepts_node` bounds the nodes. Cost:
//! a message is decoded once and causes four look-ups (node, sender, app, channel); with `SENDERS_MAX` senders a new
//! one causes a pass over all.

use super::super::envelope::{self, Envelope};
use super::super::names::Topic;
use super::ClusterSession;
use super::awaited::SENDERS_MAX;
use super::awaited::{AwaitedReply, Lost};
use crate::app::AppIndex;
use crate::shard::{
    AccessAction, AccessCommand, AccessTarget, ApiMessage, ChannelMessage, FromCluster,
    LEASE_SECONDS, NodeMessage, SessionId, SessionMessage, Shard,
};
use crate::text::shown;

impl ClusterSession {
    pub(super) fn on_message(
        &mut self,
        topic: &[u8],
        payload: &[u8],
        shard: &mut Shard,
    ) -> Result<(), Lost> {
        let Some((Envelope { from, number, message }, frame)) = envelope::decode(payload) else {
            let topic = shown(topic);
            self.note(format!("something in {topic} that no node of this version sends"));
            return Ok(());
        };
        if from.node == self.own.node {
            self.on_own_message(from, number, &message, shard);
            return Ok(());
        }
        shard.metrics().cluster.messages_received.add(1);
        self.check_partition(from, &message)?;
        let is_accepted = shard.accepts_node(from.node);
        shard.on_cluster(FromCluster::NodeSeen(from.node));
        if !is_accepted {
            return Ok(());
        }
        match message {
            NodeMessage::Session(SessionMessage::Replay { number, app, channel, what }) => {
                self.on_replay(from, number, (&app, &channel), what, frame, shard);
            }
            NodeMessage::Session(SessionMessage::ReplayDone) => self.on_replay_done(from, shard),
            message if self.catch_up.waits_for(from) => {
                self.request_replay_if_missed(from, is_session_up(&message));
                // The number of a held message is not noted: what its sender replays has lower ones, which would be
                // dropped.
                if !is_replayable(&message) {
                    self.process_message(from, topic, message, frame, shard);
                } else if !self.catch_up.try_hold(from, topic, payload) {
                    self.give_up_catch_up(shard);
                }
            }
            message => {
                if self.note_number(from, number) {
                    self.process_message(from, topic, message, frame, shard);
                } else if is_stored(&message) {
                    self.read_stored_again(topic, shard);
                }
            }
        }
        Ok(())
    }

    /// Redis counts this node's sessions among the receivers of what the node publishes, so they answer, too: the
    /// asking session waits for as many answers as Redis counted.
    fn on_own_message(
        &mut self,
        from: SessionId,
        number: u64,
        message: &NodeMessage,
        shard: &mut Shard,
    ) {
        if from == self.own {
            let received = &mut self.partition.echo_received;
            *received = number.max(*received);
            self.partition.observe_echo(number, shard);
        }
        let answer: NodeMessage = match message {
            // The asking core asks the other cores of its node by mail, so nothing is added here.
            NodeMessage::Api(ApiMessage::Ask { id, .. }) => {
                ApiMessage::Answer { id: *id, answers: Vec::new() }.into()
            }
            NodeMessage::Api(ApiMessage::Answer { id, .. }) => {
                let (id, answers) = (*id, Vec::new());
                return shard.on_cluster(FromCluster::NodeAnswer { id, answers });
            }
            NodeMessage::Session(SessionMessage::ReplayRequest { .. }) if from != self.own => {
                SessionMessage::ReplayDone.into()
            }
            NodeMessage::Session(SessionMessage::ReplayDone) => {
                return self.on_replay_done(from, shard);
            }
            _ => return,
        };
        self.send(&self.names.session(from), answer, AwaitedReply::Ignored);
    }

    /// An event that this session has received was stored once more: Redis has lost its data, and with it the number by
    /// which it refuses a retransmission. The event may be older than the one that is remembered here. But Redis has it
    /// now and other nodes read it, so this node does, too.
    fn read_stored_again(&mut self, topic: &[u8], shard: &mut Shard) {
        if !self.catch_up.must_read_stored()
            && let Some(channel) = self.channel(topic, shard)
        {
            shard.on_cluster(FromCluster::FetchAgain { channel: &channel });
        }
    }

    /// Notes the number; `false` when it was received before, on this connection or an earlier one.
    pub(super) fn note_number(&mut self, from: SessionId, number: u64) -> bool {
        if self.senders.len() >= SENDERS_MAX && !self.senders.contains_key(&from) {
            // Each node that is alive has sent something within a lease.
            let since = self.clock.saturating_sub(LEASE_SECONDS);
            self.senders.retain(|_, sender| sender.second >= since);
            if self.senders.len() >= SENDERS_MAX {
                self.senders.clear();
            }
            self.note(format!(
                "more than {SENDERS_MAX} sessions of other nodes: some are forgotten"
            ));
        }
        let sender = self.senders.entry(from).or_default();
        sender.second = self.clock;
        let is_new = number > sender.number;
        sender.number = sender.number.max(number);
        debug_assert!(self.senders.len() <= SENDERS_MAX, "others were forgotten for this one");
        is_new
    }

    /// A message on a topic of the wrong kind is ignored: only a faulty or hostile client of Redis sends one.
    pub(super) fn process_message(
        &mut self,
        from: SessionId,
        topic: &[u8],
        message: NodeMessage,
        frame: &[u8],
        shard: &mut Shard,
    ) {
        match (self.names.read(&self.apps, topic), message) {
            (Some(Topic::Channel { app, name }), NodeMessage::Channel(message)) => {
                if let Ok(channel) = shard.channel_key(app, name) {
                    let channel = &channel;
                    shard.on_cluster(FromCluster::Message { from, channel, message, frame });
                }
            }
            (Some(Topic::Sessions), NodeMessage::Session(message)) => {
                self.on_session_message(from, message, shard);
            }
            (Some(Topic::Sessions), NodeMessage::Api(ApiMessage::Ask { id, question })) => {
                self.questions.push((from, id, question.question(&self.apps)));
            }
            (Some(Topic::Sessions), NodeMessage::Api(ApiMessage::Answer { id, answers })) => {
                let answers = answers.into_iter().map(Into::into).collect();
                shard.on_cluster(FromCluster::NodeAnswer { id, answers });
            }
            _ => {}
        }
    }

    fn on_session_message(&mut self, from: SessionId, message: SessionMessage, shard: &mut Shard) {
        match message {
            SessionMessage::Snapshot { app, channel: name, ticket, snapshot } => {
                let channel =
                    self.app_index(&app).and_then(|app| shard.channel_key(app, &name).ok());
                if let Some(channel) = &channel {
                    shard.on_cluster(FromCluster::Snapshot { from, channel, ticket, snapshot });
                }
            }
            SessionMessage::Terminate { app, user_id } => {
                let (target, action) = (AccessTarget::User(user_id), AccessAction::Terminate);
                self.end_access(&app, target, action, shard);
            }
            SessionMessage::EndAccess { app, target, action } => {
                self.end_access(&app, target, action, shard);
            }
            SessionMessage::ReplayRequest { away_seconds, received } => {
                let number = received.iter().find(|(session, _)| *session == self.own);
                self.replay(from, away_seconds, number.map_or(0, |(_, number)| *number));
            }
            SessionMessage::Revive { node } => shard.on_cluster(FromCluster::Revive(node)),
            SessionMessage::SessionUp => shard.on_cluster(FromCluster::PeerUp(from)),
            SessionMessage::NodeEnds => shard.on_cluster(FromCluster::PeerEnds(from.node)),
            // A heartbeat means only that its sender lives. Replays are dealt with before.
            SessionMessage::Heartbeat
            | SessionMessage::Replay { .. }
            | SessionMessage::ReplayDone => {}
        }
    }

    fn end_access(&self, app: &str, target: AccessTarget, action: AccessAction, shard: &mut Shard) {
        if let Some(app) = self.app_index(app) {
            shard.on_cluster(FromCluster::EndAccess(&AccessCommand { app, target, action }));
        }
    }

    /// Also of an app that this core does not serve, as for messages on topics (`TopicNames::read`). Its topics may
    /// still be subscribed to when it is served again, and no later message repeats a discarded snapshot.
    pub(super) fn app_index(&self, id: &str) -> Option<AppIndex> {
        self.apps.index_of(id)
    }
}

/// Whether a message is replayed for a session that was down, so that its place in its sender's order must be kept.
pub(super) fn is_replayable(message: &NodeMessage) -> bool {
    matches!(
        message,
        NodeMessage::Channel(ChannelMessage::Event { .. })
            | NodeMessage::Session(
                SessionMessage::Terminate { .. } | SessionMessage::EndAccess { .. }
            )
    )
}

/// Whether Redis has stored the event of this message.
fn is_stored(message: &NodeMessage) -> bool {
    matches!(message, NodeMessage::Channel(ChannelMessage::Event { cache: true, .. }))
}

pub(super) fn is_session_up(message: &NodeMessage) -> bool {
    matches!(message, NodeMessage::Session(SessionMessage::SessionUp))
}
