//! What a link says: effects of the shard as commands, kept until Redis has them where they are not told again. PURE.

use super::super::envelope::{self, Envelope, StoredHead};
use super::super::recent::Said;
use super::{
    Due, KEPT_BYTES_MAX, Kept, Link, REPEAT_MARGIN_BEATS, RETRANSMIT_BYTES_MAX, STORE_AND_PUBLISH,
};
use crate::buffer::FrameBytes;
use crate::pusher::socket_id::SocketId;
use crate::resp;
use crate::shard::{Asked, Body, ChannelKey, LinkId, Retransmitted, ToCluster};

impl Link {
    pub(super) fn carry_out_one(&mut self, what: ToCluster) {
        match what {
            ToCluster::Publish { channel, frame, except, cache_ttl_seconds } => {
                self.publish(&channel, &frame, except, cache_ttl_seconds);
            }
            ToCluster::Terminate { app, user_id } => {
                let said = Said::Terminate { app, user_id: user_id.clone() };
                let app = self.apps.get(app).id.as_str().into();
                let payload = self.payload(Body::Terminate { app, user_id }, b"");
                self.recent.note(self.number, self.clock, said);
                let mut bytes = Vec::new();
                let subject = self.names.all();
                resp::write_command(&[b"PUBLISH", subject.as_bytes(), &payload], &mut bytes);
                self.keep(Kept { bytes: bytes.into(), stores: None });
            }
            // It is all told when the line is up.
            _ if !self.is_up() => {}
            ToCluster::Hold { channel, ticket } => {
                let subject = self.names.channel(&self.apps, &channel);
                self.topics_in_flight += 1;
                self.command(&[b"SUBSCRIBE", subject.as_bytes()], Due::Held { channel, ticket });
            }
            ToCluster::LetGo { channel } => {
                let subject = self.names.channel(&self.apps, &channel);
                self.topics_in_flight += 1;
                self.command(&[b"UNSUBSCRIBE", subject.as_bytes()], Due::LetGo);
            }
            ToCluster::Tell { channel, body, is_edge } => {
                let due = if is_edge { Due::Edge } else { Due::Done };
                self.tell(&self.names.channel(&self.apps, &channel), body, due);
            }
            ToCluster::Sync { channel, ticket, part } => {
                let subject = self.names.channel(&self.apps, &channel);
                self.tell(&subject, Body::Sync { ticket, part }, Due::Synced { channel, ticket });
            }
            ToCluster::Fetch { channel, ticket } => {
                let key = self.names.stored(&self.apps, &channel);
                self.command(&[b"GET", key.as_bytes()], Due::Fetched { channel, ticket });
            }
            ToCluster::Restore { channel, frame, seconds } => {
                let key = self.names.stored(&self.apps, &channel);
                // Who has published it is not known any more.
                let (value, seconds) = self.stored(&frame, seconds, 0);
                let set: [&[u8]; 6] =
                    [b"SET", key.as_bytes(), &value, b"EX", seconds.as_bytes(), b"NX"];
                self.command(&set, Due::Done);
            }
            ToCluster::Reply { to, body } => self.tell(&self.names.link(to), body, Due::Done),
            ToCluster::TellAll { body } => self.tell_all(body),
            ToCluster::Ask { id, question } => {
                let question = Asked::of(&question, &self.apps);
                self.tell(&self.names.questions(), Body::Ask { id, question }, Due::Asked { id });
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
        let said = Said::Event { channel: channel.clone(), frame: frame.clone(), except };
        let Some(seconds) = cache_ttl_seconds else {
            self.publish_only(channel, frame, except, false);
            return self.recent.note(self.number, self.clock, said);
        };
        let payload = self.payload(Body::Event { except, cache: true }, frame);
        self.recent.note(self.number, self.clock, said);
        let subject = self.names.channel(&self.apps, channel);
        let key = self.names.stored(&self.apps, channel);
        let (value, seconds) = self.stored(frame, seconds, self.number);
        let said = self.names.said(self.own);
        let number = self.number.to_string();
        let (key, said) = (key.as_bytes(), said.as_bytes());
        let (seconds, number) = (seconds.as_bytes(), number.as_bytes());
        let subject = subject.as_bytes();
        let script: [&[u8]; 10] = [
            b"EVAL",
            STORE_AND_PUBLISH,
            b"2",
            key,
            said,
            &value,
            seconds,
            subject,
            &payload,
            number,
        ];
        let mut bytes = Vec::new();
        resp::write_command(&script, &mut bytes);
        let stores = Some((channel.clone(), frame.clone(), except));
        self.keep(Kept { bytes: bytes.into(), stores });
    }

    /// A stored event, and for how many seconds.
    fn stored(&self, frame: &FrameBytes, seconds: u32, number: u64) -> (Vec<u8>, String) {
        let expires = self.unix_seconds + u64::from(seconds);
        let head = StoredHead { expires, from: self.own, number };
        (envelope::encode_stored(head, frame), seconds.to_string())
    }

    pub(super) fn publish_only(
        &mut self,
        channel: &ChannelKey,
        frame: &FrameBytes,
        except: Option<SocketId>,
        cache: bool,
    ) {
        let payload = self.payload(Body::Event { except, cache }, frame);
        let subject = self.names.channel(&self.apps, channel);
        let mut bytes = Vec::new();
        resp::write_command(&[b"PUBLISH", subject.as_bytes(), &payload], &mut bytes);
        self.keep(Kept { bytes: bytes.into(), stores: None });
    }

    pub(super) fn tell_all(&mut self, body: Body) {
        self.tell(&self.names.all(), body, Due::Done);
    }

    pub(super) fn tell(&mut self, subject: &str, body: Body, due: Due) {
        let payload = self.payload(body, b"");
        self.command(&[b"PUBLISH", subject.as_bytes(), &payload], due);
    }

    fn payload(&mut self, body: Body, frame: &[u8]) -> Vec<u8> {
        self.number += 1;
        envelope::encode(&Envelope { from: self.own, number: self.number, body }, frame)
    }

    pub(super) fn command(&mut self, parts: &[&[u8]], due: Due) {
        resp::write_command(parts, &mut self.output);
        self.due.push_back(due);
    }

    fn keep(&mut self, kept: Kept) {
        self.kept_bytes += kept.bytes.len();
        if self.is_up() {
            self.say(kept);
        } else {
            self.backlog.push_back(kept);
            self.drop_oldest();
        }
    }

    pub(super) fn say(&mut self, kept: Kept) {
        self.output.extend_from_slice(&kept.bytes);
        self.due.push_back(Due::Kept(kept));
    }

    pub(super) fn drop_oldest(&mut self) {
        while self.kept_bytes > KEPT_BYTES_MAX {
            let Some(oldest) = self.backlog.pop_front() else { break };
            self.kept_bytes -= oldest.bytes.len();
            self.dropped += 1;
            self.unstored.extend(oldest.stores.map(|(channel, ..)| channel));
        }
    }

    /// Says again what a line that was away has missed.
    pub(super) fn repeat(&mut self, to: LinkId, away_seconds: u32, heard: u64) {
        let since = self.clock.saturating_sub(away_seconds.saturating_add(REPEAT_MARGIN_BEATS));
        let subject = self.names.link(to);
        if self.output().len() > RETRANSMIT_BYTES_MAX {
            self.note(format!(
                "a node asked for retransmission while {RETRANSMIT_BYTES_MAX} bytes wait to be sent: it gets none"
            ));
            return self.tell(&subject, Body::Repeated, Due::Done);
        }
        for (number, said) in self.recent.since(heard, since) {
            let (app, channel, what, frame) = match said {
                Said::Event { channel, frame, except } => (
                    channel.app(),
                    channel.name().into(),
                    Retransmitted::Event { except, cache: false },
                    Some(frame),
                ),
                Said::Terminate { app, user_id } => {
                    let id = self.apps.get(app).id.as_str().into();
                    (app, "".into(), Retransmitted::Terminate { app: id, user_id }, None)
                }
            };
            let app = self.apps.get(app).id.as_str().into();
            let body = Body::Repeat { number, app, channel, what };
            let payload = self.payload(body, frame.as_deref().unwrap_or_default());
            self.command(&[b"PUBLISH", subject.as_bytes(), &payload], Due::Done);
        }
        self.tell(&subject, Body::Repeated, Due::Done);
    }
}
