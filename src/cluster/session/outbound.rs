//! What a session sends: effects of the shard as commands. PURE.
//!
//! Owns no state: it is `impl ClusterSession`. Does not read replies (`replies.rs`). Each message gets the next number
//! of this session. Events and terminations are kept until Redis has confirmed them, and sent again on the next
//! connection, because no snapshot repeats them. All other effects are discarded while the session is down: the next
//! one begins with all state. `recent.rs` has what was sent, for sessions that were down. Limits: without a connection
//! `KEPT_BYTES_MAX` of kept commands, over which the oldest is dropped and counted; with one, `OUTPUT_BYTES_MAX` that
//! Redis has not read, and `SILENT_SECONDS` that it owes a reply. Cost: about four allocations a message (topic,
//! payload, and for what is kept the command); its bytes are copied three times, and `recent` shares the frame.

use super::super::envelope::{self, Envelope, StoredHead};
use super::awaited::{AwaitedReply, KeptCommand, SessionState};
use super::recent::RecentMessage;
use super::{ClusterSession, KEPT_BYTES_MAX, STORE_AND_PUBLISH};
use crate::buffer::FrameBytes;
use crate::pusher::socket_id::SocketId;
use crate::resp;
use crate::shard::{
    ApiMessage, ChannelKey, ChannelMessage, NodeMessage, SessionMessage, ToCluster, WireQuestion,
};

impl ClusterSession {
    pub(super) fn carry_out_one(&mut self, effect: ToCluster) {
        match effect {
            ToCluster::Publish { channel, frame, except, cache_ttl_seconds } => {
                self.publish(&channel, &frame, except, cache_ttl_seconds);
            }
            ToCluster::EndAccess(command) => {
                let recent = RecentMessage::EndAccess(command.clone());
                let app = self.apps.get(command.app).id.as_str().into();
                let payload =
                    self.encode_next(SessionMessage::of_access(app, *command).into(), b"");
                self.recent.note(self.last_number, self.clock, recent);
                let mut bytes = Vec::new();
                let topic = self.names.all_sessions();
                resp::write_command(&[b"PUBLISH", topic.as_bytes(), &payload], &mut bytes);
                self.keep(KeptCommand { bytes: bytes.into(), stored_event: None });
            }
            // All state is sent once the session is up.
            _ if !self.is_up() => {}
            ToCluster::Subscribe { channel, ticket } => {
                let topic = self.names.channel(&self.apps, &channel);
                self.topics_in_flight += 1;
                self.command(
                    &[b"SUBSCRIBE", topic.as_bytes()],
                    AwaitedReply::Subscribed { channel, ticket },
                );
            }
            ToCluster::Unsubscribe { channel } => {
                let topic = self.names.channel(&self.apps, &channel);
                self.topics_in_flight += 1;
                self.command(&[b"UNSUBSCRIBE", topic.as_bytes()], AwaitedReply::Unsubscribed);
            }
            ToCluster::Send { channel, message, is_transition } => {
                let awaited =
                    if is_transition { AwaitedReply::Transition } else { AwaitedReply::Ignored };
                self.send(&self.names.channel(&self.apps, &channel), message.into(), awaited);
            }
            ToCluster::Synchronize { channel, ticket, snapshot } => {
                let topic = self.names.channel(&self.apps, &channel);
                let message = ChannelMessage::Synchronize { ticket, snapshot };
                self.send(&topic, message.into(), AwaitedReply::SnapshotSent { channel, ticket });
            }
            ToCluster::Fetch { channel, ticket } => {
                let key = self.names.stored_event_key(&self.apps, &channel);
                self.command(&[b"GET", key.as_bytes()], AwaitedReply::Fetched { channel, ticket });
            }
            ToCluster::StoreIfAbsent { channel, frame, seconds } => {
                let key = self.names.stored_event_key(&self.apps, &channel);
                // Number 0: the session that published it is no longer known, so no replay is matched with it.
                let (value, seconds) = self.encode_stored(&frame, seconds, 0);
                let set: [&[u8]; 6] =
                    [b"SET", key.as_bytes(), &value, b"EX", seconds.as_bytes(), b"NX"];
                self.command(&set, AwaitedReply::Ignored);
            }
            ToCluster::Reply { to, message } => {
                self.send(&self.names.session(to), message, AwaitedReply::Ignored);
            }
            ToCluster::SendToAll { message } => self.send_to_all(message),
            ToCluster::Ask { id, question } => {
                let question = WireQuestion::of(&question, &self.apps);
                self.send_question(id, question);
            }
            ToCluster::AskOperator { id, question } => {
                self.send_question(id, WireQuestion::Operator(*question));
            }
        }
    }

    fn publish(
        &mut self,
        channel: &ChannelKey,
        frame: &FrameBytes,
        except: Option<SocketId>,
        cache_ttl_seconds: Option<u32>,
    ) {
        let recent =
            RecentMessage::Event { channel: channel.clone(), frame: frame.clone(), except };
        let Some(seconds) = cache_ttl_seconds else {
            self.publish_without_storing(channel, frame, except, false);
            return self.recent.note(self.last_number, self.clock, recent);
        };
        let payload = self.encode_next(ChannelMessage::Event { except, cache: true }.into(), frame);
        self.recent.note(self.last_number, self.clock, recent);
        let topic = self.names.channel(&self.apps, channel);
        let key = self.names.stored_event_key(&self.apps, channel);
        let (value, seconds) = self.encode_stored(frame, seconds, self.last_number);
        let stored_number = self.names.stored_number_key(self.own);
        let number = self.last_number.to_string();
        let (key, stored_number) = (key.as_bytes(), stored_number.as_bytes());
        let (seconds, number) = (seconds.as_bytes(), number.as_bytes());
        let topic = topic.as_bytes();
        let script: [&[u8]; 10] = [
            b"EVAL",
            STORE_AND_PUBLISH,
            b"2",
            key,
            stored_number,
            &value,
            seconds,
            topic,
            &payload,
            number,
        ];
        let mut bytes = Vec::new();
        resp::write_command(&script, &mut bytes);
        let stored_event = Some((channel.clone(), frame.clone(), except));
        self.keep(KeptCommand { bytes: bytes.into(), stored_event });
    }

    /// The value to store, and its lifetime as the argument of `EX`.
    fn encode_stored(&self, frame: &FrameBytes, seconds: u32, number: u64) -> (Vec<u8>, String) {
        let expires = self.unix_seconds + u64::from(seconds);
        let head = StoredHead { expires, from: self.own, number };
        (envelope::encode_stored(head, frame), seconds.to_string())
    }

    pub(super) fn publish_without_storing(
        &mut self,
        channel: &ChannelKey,
        frame: &FrameBytes,
        except: Option<SocketId>,
        cache: bool,
    ) {
        let payload = self.encode_next(ChannelMessage::Event { except, cache }.into(), frame);
        let topic = self.names.channel(&self.apps, channel);
        let mut bytes = Vec::new();
        resp::write_command(&[b"PUBLISH", topic.as_bytes(), &payload], &mut bytes);
        self.keep(KeptCommand { bytes: bytes.into(), stored_event: None });
    }

    fn send_question(&mut self, id: u32, question: WireQuestion) {
        let message = ApiMessage::Ask { id, question };
        self.send(&self.names.first_sessions(), message.into(), AwaitedReply::Asked { id });
    }

    pub(super) fn send_to_all(&mut self, message: SessionMessage) {
        self.send(&self.names.all_sessions(), message.into(), AwaitedReply::Ignored);
    }

    pub(super) fn send(&mut self, topic: &str, message: NodeMessage, awaited: AwaitedReply) {
        let payload = self.encode_next(message, b"");
        self.command(&[b"PUBLISH", topic.as_bytes(), &payload], awaited);
    }

    /// Uses up a number. Messages are sent in the order of these calls, because a receiver drops lower numbers.
    pub(super) fn encode_next(&mut self, message: NodeMessage, frame: &[u8]) -> Vec<u8> {
        self.last_number += 1;
        envelope::encode(Envelope { from: self.own, number: self.last_number, message }, frame)
    }

    pub(super) fn command(&mut self, parts: &[&[u8]], awaited: AwaitedReply) {
        debug_assert!(self.state != SessionState::Down, "commands need a connection");
        resp::write_command(parts, &mut self.output);
        self.awaited.push_back(awaited);
    }

    fn keep(&mut self, kept: KeptCommand) {
        self.kept_bytes += kept.bytes.len();
        if self.is_up() {
            self.send_kept(kept);
        } else {
            self.backlog.push_back(kept);
            self.drop_oldest();
        }
    }

    pub(super) fn send_kept(&mut self, kept: KeptCommand) {
        debug_assert!(self.is_up(), "kept commands wait for a session");
        self.output.extend_from_slice(&kept.bytes);
        self.awaited.push_back(AwaitedReply::Kept(kept));
    }

    pub(super) fn drop_oldest(&mut self) {
        while self.kept_bytes > KEPT_BYTES_MAX {
            let Some(oldest) = self.backlog.pop_front() else { break };
            debug_assert!(self.kept_bytes >= oldest.bytes.len(), "`keep` has counted them");
            self.kept_bytes -= oldest.bytes.len();
            self.dropped_events += 1;
            self.unstored.extend(oldest.stored_event.map(|(channel, ..)| channel));
        }
        debug_assert!(
            self.kept_bytes <= KEPT_BYTES_MAX || self.backlog.is_empty(),
            "no more waits than there is room for"
        );
    }
}
