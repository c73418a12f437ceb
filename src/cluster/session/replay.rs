//! After this session was down: requests what it missed, and processes the replays of the other sessions before their
//! new events. Answers the same request of another session with a replay of its own events. PURE.
//!
//! Owns no state: it is `impl ClusterSession`. `catch_up.rs` decides for which sessions this one waits and holds what
//! they send during that time; `recent.rs` has what can be replayed. A request follows the announcement of all topics,
//! so that what is published after it is received. It names the newest number of each sender, and each sender answers
//! with what is newer, then `ReplayDone`. Does not replay state: snapshots repeat it. Limits: no replay into an output
//! of more than `RETRANSMIT_BYTES_MAX`; `SENDER_SECONDS_MAX` for silent senders. Cost: a request has an entry for each
//! known sender; a replay is linear in `recent`, and copies each frame twice.

use std::collections::BTreeSet;

use super::super::envelope::{self, Envelope};
use super::super::names::Topic;
use super::awaited::AwaitedReply;
use super::recent::RecentMessage;
use super::{ClusterSession, REPLAY_MARGIN_SECONDS, RETRANSMIT_BYTES_MAX, SENDER_SECONDS_MAX};
use crate::shard::{
    AccessAction, AccessCommand, AccessTarget, ChannelKey, ChannelMessage, FromCluster,
    LEASE_SECONDS, NodeId, NodeMessage, Replayed, SessionId, SessionMessage, Shard,
};

impl ClusterSession {
    pub(super) fn begin_catch_up(&mut self, shard: &mut Shard) {
        debug_assert!(self.is_up(), "others can be asked");
        let since = self.clock.saturating_sub(self.catch_up.down_seconds + LEASE_SECONDS);
        // One session of a node sends its heartbeats; the others may have had nothing to send.
        let recent = self.senders.iter().filter(|(_, sender)| sender.second >= since);
        let nodes: Vec<NodeId> = recent.map(|(session, _)| session.node).collect();
        let known = self.senders.keys().filter(|session| nodes.contains(&session.node));
        if !self.catch_up.on_up(known.copied()) {
            self.note_caught_up(shard);
        }
    }

    /// All topics are announced, so all that is published after this is received.
    pub(super) fn request_replay(&mut self) {
        if self.catch_up.take_request(self.clock) {
            self.send_replay_request(&self.names.all_sessions(), AwaitedReply::ReplayRequested);
        }
    }

    fn send_replay_request(&mut self, topic: &str, awaited: AwaitedReply) {
        let away_seconds = self.away_seconds();
        let received =
            self.senders.iter().map(|(session, sender)| (*session, sender.number)).collect();
        let message = SessionMessage::ReplayRequest { away_seconds, received };
        self.send(topic, message.into(), awaited);
    }

    fn away_seconds(&self) -> u32 {
        let since = self.catch_up.down_since;
        let away = since.map_or(0, |since| self.unix_seconds.saturating_sub(since));
        u32::try_from(away).unwrap_or(u32::MAX)
    }

    pub(super) fn on_replay_requested(&mut self, receivers: u32, shard: &mut Shard) {
        self.catch_up.on_request_sent(receivers);
        self.finish_catch_up_if_answered(shard);
    }

    fn finish_catch_up_if_answered(&mut self, shard: &mut Shard) {
        let senders = self.catch_up.drain_if_answered().unwrap_or_default();
        self.release_held(senders, shard);
    }

    /// The stored events are read only when the session waits for no sender. Before that, a subscriber that was greeted
    /// with one would receive it a second time by its replay.
    fn note_caught_up(&mut self, shard: &mut Shard) {
        if self.catch_up.take_must_read_stored() {
            shard.on_cluster(FromCluster::CaughtUp);
        }
        if self.catch_up.waits_for_none() {
            self.catch_up.down_since = None;
        }
    }

    /// More is held than there is room for. Earlier events of these senders that come later are not delivered.
    pub(super) fn give_up_catch_up(&mut self, shard: &mut Shard) {
        self.catch_ups_given_up += 1;
        self.note(
            "too many events of other nodes arrived before those that this node had missed while it was without Redis: \
             missed events that come later are discarded"
                .to_owned(),
        );
        let senders = self.catch_up.give_up();
        self.release_held(senders, shard);
    }

    fn release_held(&mut self, senders: Vec<SessionId>, shard: &mut Shard) {
        for sender in senders {
            self.release_held_of(sender, shard);
        }
        self.note_caught_up(shard);
    }

    /// A message that this session missed. Its sender's new messages are held, so this is the next one in order.
    pub(super) fn on_replay(
        &mut self,
        from: SessionId,
        number: u64,
        (app, channel): (&str, &str),
        what: Replayed,
        frame: &[u8],
        shard: &mut Shard,
    ) {
        if !self.note_number(from, number) {
            return;
        }
        let Some(app) = self.app_index(app) else { return };
        match what {
            Replayed::Event { except, cache } => {
                let Ok(channel) = shard.channel_key(app, channel) else { return };
                if !shard.was_greeted(&channel, from, number) {
                    let message = ChannelMessage::Event { except, cache };
                    let channel = &channel;
                    shard.on_cluster(FromCluster::Message { from, channel, message, frame });
                }
            }
            Replayed::Terminate { user_id, .. } => {
                let (target, action) = (AccessTarget::User(user_id), AccessAction::Terminate);
                shard.on_cluster(FromCluster::EndAccess(&AccessCommand { app, target, action }));
            }
            Replayed::EndAccess { target, action, .. } => {
                shard.on_cluster(FromCluster::EndAccess(&AccessCommand { app, target, action }));
            }
        }
    }

    /// The sender has replayed everything that this session missed.
    pub(super) fn on_replay_done(&mut self, from: SessionId, shard: &mut Shard) {
        if !self.catch_up.waits_for_none() && self.catch_up.has_too_many_senders() {
            self.give_up_catch_up(shard);
        }
        if !self.catch_up.waits_for_none() {
            self.release_held_of(from, shard);
            self.catch_up.on_answer();
            self.finish_catch_up_if_answered(shard);
        }
    }

    /// Whether an event is still to be received from its sender, who replays what was missed, or will.
    pub(super) fn will_be_replayed(&self, from: SessionId, number: u64) -> bool {
        let newest = self.senders.get(&from).map_or(0, |sender| sender.number);
        from.node != self.own.node && self.catch_up.waits_for(from) && newest < number
    }

    /// Reads the stored event of the channel after its sender has replayed all.
    pub(super) fn fetch_after(&mut self, from: SessionId, channel: &ChannelKey, shard: &mut Shard) {
        self.request_replay_if_missed(from, false);
        let topic = self.names.channel(&self.apps, channel);
        if !self.catch_up.try_hold(from, topic.as_bytes(), b"") {
            self.give_up_catch_up(shard);
        }
    }

    /// Asks a sender that did not receive the request to all: it was down at that time, or did not exist.
    pub(super) fn request_replay_if_missed(&mut self, from: SessionId, is_new: bool) {
        if self.catch_up.must_ask_sender(from, is_new) {
            self.send_replay_request(&self.names.session(from), AwaitedReply::Ignored);
        }
    }

    /// Delivers what a sender has published since this session is up, and has not replayed.
    fn release_held_of(&mut self, from: SessionId, shard: &mut Shard) {
        let mut to_fetch = BTreeSet::new();
        for (topic, payload) in self.catch_up.finish_sender(from) {
            if payload.is_empty() {
                to_fetch.insert(topic);
                continue;
            }
            let Some((Envelope { number, mut message, .. }, frame)) = envelope::decode(&payload)
            else {
                continue;
            };
            // Other sessions may have stored newer events since, so this one does not become the stored event: that is
            // read at the end.
            if let NodeMessage::Channel(ChannelMessage::Event { cache, .. }) = &mut message
                && std::mem::take(cache)
            {
                to_fetch.insert(topic.clone());
            }
            if self.note_number(from, number) && !self.was_greeted(from, number, &topic, shard) {
                self.process_message(from, &topic, message, frame, shard);
            }
        }
        if !self.catch_up.must_read_stored() {
            let channels = to_fetch.iter().filter_map(|topic| self.channel(topic, shard));
            for channel in channels.collect::<Vec<_>>() {
                shard.on_cluster(FromCluster::FetchAgain { channel: &channel });
            }
        }
    }

    fn was_greeted(&self, from: SessionId, number: u64, topic: &[u8], shard: &Shard) -> bool {
        let channel = self.channel(topic, shard);
        channel.is_some_and(|channel| shard.was_greeted(&channel, from, number))
    }

    pub(super) fn channel(&self, topic: &[u8], shard: &Shard) -> Option<ChannelKey> {
        match self.names.read(&self.apps, topic)? {
            Topic::Channel { app, name } => shard.channel_key(app, name).ok(),
            Topic::Sessions => None,
        }
    }

    /// Once a second.
    pub(super) fn expire(&mut self, shard: &mut Shard) {
        self.recent.expire(self.clock);
        if let Some(senders) = self.catch_up.expire(self.clock) {
            self.release_held(senders, shard);
        }
        if self.clock.is_multiple_of(SENDER_SECONDS_MAX) {
            let since = self.clock.saturating_sub(SENDER_SECONDS_MAX);
            self.senders.retain(|_, sender| sender.second >= since);
        }
    }

    /// Replays what a session that was down has missed.
    pub(super) fn replay(&mut self, to: SessionId, away_seconds: u32, received: u64) {
        let since = self.clock.saturating_sub(away_seconds.saturating_add(REPLAY_MARGIN_SECONDS));
        let topic = self.names.session(to);
        let is_full = self.output().len() > RETRANSMIT_BYTES_MAX;
        if is_full {
            self.note(format!(
                "a node asked for retransmission while {RETRANSMIT_BYTES_MAX} bytes wait to be sent: it gets none"
            ));
        }
        let messages =
            if is_full { Vec::new() } else { self.recent.numbers_above(received, since) };
        self.retransmitted += messages.len() as u64;
        debug_assert!(
            messages.is_sorted_by_key(|(number, _)| *number),
            "they are replayed in the order in which they were published"
        );
        debug_assert!(
            messages.iter().all(|(number, _)| *number > received),
            "the others were received"
        );
        for (number, message) in messages {
            let (app, channel, what, frame) = match message {
                RecentMessage::Event { channel, frame, except } => (
                    channel.app(),
                    channel.name().into(),
                    Replayed::Event { except, cache: false },
                    Some(frame),
                ),
                RecentMessage::EndAccess(command) => {
                    let app = command.app;
                    let id = self.apps.get(app).id.as_str().into();
                    (app, "".into(), Replayed::of_access(id, *command), None)
                }
            };
            let app = self.apps.get(app).id.as_str().into();
            let message = SessionMessage::Replay { number, app, channel, what };
            let payload = self.encode_next(message.into(), frame.as_deref().unwrap_or_default());
            self.command(&[b"PUBLISH", topic.as_bytes(), &payload], AwaitedReply::Ignored);
        }
        self.send(&topic, SessionMessage::ReplayDone.into(), AwaitedReply::Ignored);
    }
}
