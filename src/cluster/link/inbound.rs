//! What a link hears: each envelope once, and in its sender's order. PURE.

use super::super::envelope::{self, Envelope};
use super::super::subject::Subject;
use super::{Due, HEARD_MAX, Link, Lost};
use crate::app::AppIndex;
use crate::shard::{Body, LEASE_BEATS, LinkId, Shard};
use crate::text::shown;

impl Link {
    pub(super) fn on_message(
        &mut self,
        subject: &[u8],
        payload: &[u8],
        shard: &mut Shard,
    ) -> Result<(), Lost> {
        let Some((Envelope { from, number, body }, frame)) = envelope::decode(payload) else {
            let subject = shown(subject);
            self.note(format!("something in {subject} that no node of this version says"));
            return Ok(());
        };
        if from.node == self.own.node {
            self.on_own(from, number, &body, shard);
            return Ok(());
        }
        self.check_partition(from, &body)?;
        if !shard.on_node_heard(from.node) {
            return Ok(());
        }
        match body {
            Body::Repeat { number, app, channel, what } => {
                self.on_repeat(from, number, (&app, &channel), what, frame, shard);
            }
            Body::Repeated => self.on_repeated(from, shard),
            body if self.catch_up.waits_for(from) => {
                self.ask_if_stranger(from, matches!(body, Body::LineUp));
                // Its number is not noted: what it repeats has lower ones.
                if !matches!(body, Body::Event { .. } | Body::Terminate { .. }) {
                    self.take_in(from, subject, body, frame, shard);
                } else if !self.catch_up.hold(from, subject, payload) {
                    self.give_up_catch_up(shard);
                }
            }
            body => {
                if self.is_news(from, number) {
                    self.take_in(from, subject, body, frame, shard);
                }
            }
        }
        Ok(())
    }

    /// This node is among those who hear what it says, and is counted: the link that asked is answered, and that
    /// is all.
    fn on_own(&mut self, from: LinkId, number: u64, body: &Body, shard: &mut Shard) {
        if from == self.own {
            let received = &mut self.partition.echo_received;
            *received = number.max(*received);
        }
        let answer = match *body {
            // What this node has was asked on its own cores.
            Body::Ask { id, .. } => Body::Answer { id, answers: Vec::new() },
            Body::CatchUp { .. } if from != self.own => Body::Repeated,
            Body::Answer { id, .. } => return shard.on_node_answer(id, Vec::new()),
            Body::Repeated => return self.on_repeated(from, shard),
            _ => return,
        };
        self.tell(&self.names.link(from), answer, Due::Done);
    }

    /// Notes the number; `false` when it was heard before, on this line or an earlier one.
    pub(super) fn is_news(&mut self, from: LinkId, number: u64) -> bool {
        if self.heard.len() >= HEARD_MAX && !self.heard.contains_key(&from) {
            // Of those who live, each was heard within a lease.
            let since = self.clock.saturating_sub(LEASE_BEATS);
            self.heard.retain(|_, heard| heard.beat >= since);
            if self.heard.len() >= HEARD_MAX {
                self.heard.clear();
            }
            self.note(format!("more than {HEARD_MAX} sessions of other nodes: some are forgotten"));
        }
        let heard = self.heard.entry(from).or_default();
        heard.beat = self.clock;
        let is_news = number > heard.number;
        heard.number = heard.number.max(number);
        is_news
    }

    pub(super) fn take_in(
        &mut self,
        from: LinkId,
        subject: &[u8],
        body: Body,
        frame: &[u8],
        shard: &mut Shard,
    ) {
        match self.names.read(&self.apps, subject) {
            Some(Subject::Channel { app, name }) => {
                if let Ok(channel) = shard.channel_key(app, name) {
                    shard.on_envelope(from, &channel, body, frame);
                }
            }
            Some(Subject::Links) => self.on_word(from, body, shard),
            None => {}
        }
    }

    /// What is said to all links, or to this one.
    fn on_word(&mut self, from: LinkId, body: Body, shard: &mut Shard) {
        match body {
            Body::Part { ref app, channel: ref name, .. } => {
                let channel = self.app(app).and_then(|app| shard.channel_key(app, name).ok());
                if let Some(channel) = channel {
                    shard.on_envelope(from, &channel, body, b"");
                }
            }
            Body::Terminate { app, user_id } => {
                if let Some(app) = self.app(&app) {
                    shard.on_terminate(app, &user_id);
                }
            }
            Body::CatchUp { away_seconds, heard } => {
                let number = heard.iter().find(|(link, _)| *link == self.own);
                self.repeat(from, away_seconds, number.map_or(0, |(_, number)| *number));
            }
            Body::Revive { node } => shard.on_revive(node),
            Body::LineUp => shard.on_peer_line_up(from),
            Body::Bye => shard.on_bye(from.node),
            Body::Ask { id, question } => {
                self.questions.push((from, id, question.question(&self.apps)));
            }
            Body::Answer { id, answers } => {
                shard.on_node_answer(id, answers.into_iter().map(Into::into).collect());
            }
            // A sign of life is all it is; the rest is for channels.
            _ => {}
        }
    }

    pub(super) fn app(&self, id: &str) -> Option<AppIndex> {
        self.apps.by_id(id)
    }
}
