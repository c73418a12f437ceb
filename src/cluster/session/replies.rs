//! What Redis sends: each reply belongs to the oldest command that awaits one, and pushes are messages of topics. PURE.
//!
//! Owns the order of replies, and what follows from each. Does not read payloads: messages of topics go to
//! `inbound.rs`. Input: bytes of the connection. Output: calls of the shard, and `Lost` for a reply that does not fit,
//! which ends the session. Limits: `resp` bounds a value, `awaited.rs` the commands that await a reply. Cost: linear in
//! the bytes; a reply is one value from the front of a queue.

use super::ClusterSession;
use super::awaited::{AwaitedReply, KeptCommand, Lost, SessionState};
use super::awaited::{QUOTED_MAX, bytes_of};
use super::partition::{check_role, is_readonly};
use crate::cluster::envelope;
use crate::resp::Value;
use crate::shard::{ChannelKey, FromCluster, SessionMessage, Shard};
use crate::text::shown;

impl ClusterSession {
    /// Processes all complete values. The rest of the bytes is kept for the next call.
    ///
    /// # Errors
    /// When the session has to end; then `close` it.
    pub fn receive(&mut self, bytes: &[u8], shard: &mut Shard) -> Result<(), Lost> {
        self.silent_seconds = 0;
        self.catch_up.last_received = self.unix_seconds;
        self.reader.push(bytes);
        loop {
            match self.reader.next() {
                Ok(None) => return Ok(()),
                Ok(Some(Value::Push(list))) => self.on_push(list, shard)?,
                Ok(Some(reply)) => self.on_reply(&reply, shard)?,
                Err(_) => return Err(Lost::Malformed),
            }
        }
    }

    fn on_push(&mut self, list: Vec<Value>, shard: &mut Shard) -> Result<(), Lost> {
        let mut list = list.into_iter();
        let (Some(kind), topic) = (list.next(), list.next()) else {
            return Err(Lost::Malformed);
        };
        match (bytes_of(&kind), topic, list.next()) {
            (b"message", Some(Value::Bytes(topic)), Some(Value::Bytes(payload))) => {
                self.on_message(&topic, &payload, shard)
            }
            (b"subscribe" | b"unsubscribe", ..) => self.on_reply(&Value::Null, shard),
            // Another kind of push, as of a pattern: this session has subscribed to none.
            _ => Ok(()),
        }
    }

    fn on_reply(&mut self, reply: &Value, shard: &mut Shard) -> Result<(), Lost> {
        if self.awaited.front().is_some_and(|awaited| is_readonly(awaited, reply)) {
            // The command stays in `awaited`, so that `close` keeps it for the next connection if it must reach Redis.
            return Err(Lost::NotMaster("replica".to_owned()));
        }
        let Some(awaited) = self.awaited.pop_front() else { return Err(Lost::Malformed) };
        if let Value::Error(error) = reply {
            let error: String = error.chars().take(QUOTED_MAX).collect();
            if matches!(awaited, AwaitedReply::Hello) {
                return Err(Lost::Refused(error));
            }
            self.note(format!("Redis refuses a command of the cluster: {}", shown(&error)));
        }
        self.on_awaited(awaited, reply, shard)
    }

    fn on_awaited(
        &mut self,
        awaited: AwaitedReply,
        reply: &Value,
        shard: &mut Shard,
    ) -> Result<(), Lost> {
        match awaited {
            AwaitedReply::Hello => {
                check_role(reply)?;
                self.on_greeted(shard);
            }
            AwaitedReply::Role => {
                self.partition.is_role_asked = false;
                check_role(reply)?;
            }
            AwaitedReply::Heartbeat => {
                self.partition.undelivered += u32::from(receiver_count(reply) <= 1)
            }
            AwaitedReply::Echo { number } => self.on_echo_sent(number)?,
            AwaitedReply::Ignored => {}
            AwaitedReply::Unsubscribed => self.note_topic_confirmed(),
            AwaitedReply::ReplayRequested => self.on_replay_requested(receiver_count(reply), shard),
            AwaitedReply::Transition => shard.on_cluster(FromCluster::TransitionOrdered),
            AwaitedReply::Subscribed { channel, ticket } => {
                self.note_topic_confirmed();
                shard.on_cluster(FromCluster::Subscribed { channel: &channel, ticket });
            }
            AwaitedReply::SnapshotSent { channel, ticket } => {
                let (channel, receivers) = (&channel, receiver_count(reply));
                shard.on_cluster(FromCluster::SnapshotSent { channel, ticket, receivers });
            }
            AwaitedReply::Asked { id } => {
                shard.on_cluster(FromCluster::Asked { id, receivers: receiver_count(reply) });
            }
            AwaitedReply::Fetched { channel, ticket } => {
                self.on_fetched(&channel, ticket, reply, shard);
            }
            AwaitedReply::Kept(kept) => self.on_kept(kept, reply, shard),
        }
        Ok(())
    }

    fn note_topic_confirmed(&mut self) {
        debug_assert!(self.topics_in_flight > 0, "each SUBSCRIBE and UNSUBSCRIBE was counted");
        self.topics_in_flight = self.topics_in_flight.saturating_sub(1);
    }

    /// The stored event of a cache channel. If its sender has still to replay that event, earlier subscribers must
    /// receive it by the replay, so the stored event is read again after the replay.
    fn on_fetched(&mut self, channel: &ChannelKey, ticket: u32, reply: &Value, shard: &mut Shard) {
        let stored = match reply {
            Value::Bytes(bytes) => envelope::decode_stored(bytes, self.unix_seconds),
            _ => None,
        };
        let to_be_replayed =
            stored.as_ref().filter(|stored| self.will_be_replayed(stored.from, stored.number));
        match to_be_replayed.map(|stored| stored.from).filter(|_| shard.is_refetch(channel, ticket))
        {
            Some(from) => self.fetch_after(from, channel, shard),
            None => shard.on_cluster(FromCluster::Fetched { channel, ticket, stored }),
        }
    }

    fn on_kept(&mut self, kept: KeptCommand, reply: &Value, shard: &mut Shard) {
        debug_assert!(self.kept_bytes >= kept.bytes.len(), "`keep` has counted them");
        self.kept_bytes -= kept.bytes.len();
        let Some((channel, frame, except)) = kept.stored_event else { return };
        match reply {
            Value::Error(_) => self.publish_without_storing(&channel, &frame, except, true),
            Value::Bytes(why) => {
                let why: String = String::from_utf8_lossy(why).chars().take(QUOTED_MAX).collect();
                self.note(format!("Redis does not store the event of a cache channel: {why:?}"));
            }
            _ => {}
        }
        shard.on_cluster(FromCluster::Stored { channel: &channel });
    }

    /// Redis has accepted the session. What waited is sent before anything new, because its numbers are lower.
    fn on_greeted(&mut self, shard: &mut Shard) {
        debug_assert_eq!(self.state, SessionState::Greeting, "a session is greeted once");
        self.state = SessionState::Up;
        shard.metrics().cluster.is_up.set(1);
        shard.metrics().cluster.sessions.add(1);
        let mut topics = vec![self.names.session(self.own), self.names.all_sessions()];
        if self.own.core == 0 {
            topics.push(self.names.first_sessions());
        }
        for topic in topics {
            self.command(&[b"SUBSCRIBE", topic.as_bytes()], AwaitedReply::Ignored);
        }
        for kept in std::mem::take(&mut self.backlog) {
            self.send_kept(kept);
        }
        // After what waited, whose numbers are lower.
        self.send_to_all(SessionMessage::SessionUp);
        shard.on_cluster(FromCluster::Up);
        self.begin_catch_up(shard);
    }
}

/// How many sessions received a `PUBLISH`. 0 if Redis refused it.
fn receiver_count(reply: &Value) -> u32 {
    match reply {
        Value::Integer(count) => u32::try_from(*count).unwrap_or_default(),
        _ => 0,
    }
}
