//! After a line was away: what was missed is asked for, and heard before what is new (`catch_up.rs` has who is waited
//! for). PURE.

use std::collections::BTreeSet;

use super::super::envelope::{self, Envelope};
use super::super::subject::Subject;
use super::{Due, HEARD_BEATS_MAX, Link};
use crate::shard::{
    ANSWER_BEATS, Body, ChannelKey, LEASE_BEATS, LinkId, NodeId, Retransmitted, Shard,
};

/// The time without a line, and what is still to be done about it.
#[derive(Debug)]
pub(super) struct Absence {
    /// When it began, in seconds since 1970: a process that was stopped counts no beats. `None`: all is made up for.
    pub(super) since: Option<u64>,
    /// Its beats.
    pub(super) beats: u32,
    /// When Redis said something last, in seconds since 1970.
    pub(super) last_word: u64,
    /// There was a line before, or there should have been.
    pub(super) may_have_missed: bool,
    /// What is stored of cache channels is to be asked for once all is heard.
    is_behind: bool,
    /// The others are still to be asked what was missed; and how long they are waited for once they are.
    pub(super) is_to_ask: bool,
    waits_until: u32,
}

impl Absence {
    pub(super) fn new(unix_seconds: u64) -> Self {
        Self {
            since: Some(unix_seconds),
            beats: 0,
            last_word: unix_seconds,
            may_have_missed: false,
            is_behind: false,
            is_to_ask: false,
            waits_until: 0,
        }
    }
}

impl Link {
    /// The line is up. A process that has just begun has missed nothing.
    pub(super) fn begin_catch_up(&mut self, shard: &mut Shard) {
        self.absence.is_behind = true;
        if self.absence.may_have_missed {
            let since = self.clock.saturating_sub(self.absence.beats + LEASE_BEATS);
            // One link of a node gives its signs of life; the others may have had nothing to say.
            let recent = self.heard.iter().filter(|(_, heard)| heard.beat >= since);
            let nodes: Vec<NodeId> = recent.map(|(link, _)| link.node).collect();
            let known = self.heard.keys().filter(|link| nodes.contains(&link.node));
            self.catch_up.begin(known.copied());
            self.absence.is_to_ask = true;
        } else {
            self.note_caught_up(shard);
        }
        self.absence.may_have_missed = true;
    }

    /// All subjects are announced, so whatever is said after this is heard.
    pub(super) fn ask_what_was_missed(&mut self) {
        if std::mem::take(&mut self.absence.is_to_ask) {
            self.ask(&self.names.all(), Due::CaughtUp);
            self.catch_up.expect_answers(1);
            self.absence.waits_until = self.clock + ANSWER_BEATS;
        }
    }

    pub(super) fn ask(&mut self, subject: &str, due: Due) {
        let away_seconds = self.away_seconds();
        let heard = self.heard.iter().map(|(link, heard)| (*link, heard.number)).collect();
        self.tell(subject, Body::CatchUp { away_seconds, heard }, due);
    }

    fn away_seconds(&self) -> u32 {
        let away = self.absence.since.map_or(0, |since| self.unix_seconds.saturating_sub(since));
        u32::try_from(away).unwrap_or(u32::MAX)
    }

    /// So many heard the question, this link among them.
    pub(super) fn on_catch_up_heard(&mut self, heard: u32, shard: &mut Shard) {
        self.catch_up.expect_answers(i64::from(heard.saturating_sub(1)) - 1);
        self.finish_catch_up_if_answered(shard);
    }

    /// Whether nothing is waited for.
    pub(super) fn is_caught_up(&self) -> bool {
        self.catch_up.is_over()
    }

    fn finish_catch_up_if_answered(&mut self, shard: &mut Shard) {
        if self.catch_up.is_on() && !self.absence.is_to_ask && self.catch_up.is_answered() {
            let senders = self.catch_up.wait_for_missing_only();
            self.take_in_all_held(senders, shard);
        } else {
            self.note_caught_up(shard);
        }
    }

    /// What is stored is asked for only now: whoever was greeted with it before would hear it again.
    fn note_caught_up(&mut self, shard: &mut Shard) {
        if self.is_caught_up() && std::mem::take(&mut self.absence.is_behind) {
            shard.on_caught_up();
        }
        if self.catch_up.is_closed() {
            self.absence.since = None;
        }
    }

    /// Nobody is waited for any more.
    pub(super) fn give_up_catch_up(&mut self, shard: &mut Shard) {
        let senders = self.catch_up.give_up();
        self.take_in_all_held(senders, shard);
    }

    fn take_in_all_held(&mut self, senders: Vec<LinkId>, shard: &mut Shard) {
        for sender in senders {
            self.take_in_held(sender, shard);
        }
        self.note_caught_up(shard);
    }

    pub(super) fn on_repeat(
        &mut self,
        from: LinkId,
        number: u64,
        (app, channel): (&str, &str),
        what: Retransmitted,
        frame: &[u8],
        shard: &mut Shard,
    ) {
        if !self.is_news(from, number) {
            return;
        }
        let Some(app) = self.app(app) else { return };
        match what {
            Retransmitted::Event { except, cache } => {
                let channel = shard.channel_key(app, channel).ok();
                if let Some(channel) = channel.filter(|it| !shard.was_greeted(it, from, number)) {
                    shard.on_envelope(from, &channel, Body::Event { except, cache }, frame);
                }
            }
            Retransmitted::Terminate { user_id, .. } => shard.on_terminate(app, &user_id),
        }
    }

    /// A sender has repeated all.
    pub(super) fn on_repeated(&mut self, from: LinkId, shard: &mut Shard) {
        if !self.catch_up.is_closed() && self.catch_up.has_too_many() {
            self.note("too many senders to wait for after the connection came back".to_owned());
            self.give_up_catch_up(shard);
        }
        if !self.catch_up.is_closed() {
            self.take_in_held(from, shard);
            self.catch_up.expect_answers(-1);
            self.finish_catch_up_if_answered(shard);
        }
    }

    /// Whether an event is still to come from its sender, who repeats what was missed, or will.
    pub(super) fn is_due(&self, from: LinkId, number: u64) -> bool {
        let newest = self.heard.get(&from).map_or(0, |heard| heard.number);
        from.node != self.own.node && self.catch_up.waits_for(from) && newest < number
    }

    /// What is stored for the channel is asked for once its sender has repeated all.
    pub(super) fn fetch_after(&mut self, from: LinkId, channel: &ChannelKey, shard: &mut Shard) {
        self.ask_if_stranger(from, false);
        let subject = self.names.channel(&self.apps, channel);
        if !self.catch_up.hold(from, subject.as_bytes(), b"") {
            self.give_up_catch_up(shard);
        }
    }

    /// Whoever was away, too, when all were asked, or did not exist, is asked now.
    pub(super) fn ask_if_stranger(&mut self, from: LinkId, is_new: bool) {
        if !self.absence.is_to_ask && self.catch_up.is_stranger(from, is_new) {
            self.ask(&self.names.link(from), Due::Done);
            self.catch_up.expect_answers(1);
        }
    }

    /// The events a sender has told of meanwhile and has not repeated.
    fn take_in_held(&mut self, from: LinkId, shard: &mut Shard) {
        let mut to_fetch = BTreeSet::new();
        for (subject, payload) in self.catch_up.end(from) {
            if payload.is_empty() {
                to_fetch.insert(subject);
                continue;
            }
            let Some((Envelope { number, mut body, .. }, frame)) = envelope::decode(&payload)
            else {
                continue;
            };
            // Others may have stored newer ones since; what is stored is asked for in the end.
            if let Body::Event { cache, .. } = &mut body
                && std::mem::take(cache)
            {
                to_fetch.insert(subject.clone());
            }
            if self.is_news(from, number) && !self.was_greeted(from, number, &subject, shard) {
                self.take_in(from, &subject, body, frame, shard);
            }
        }
        if !self.absence.is_behind {
            let channels = to_fetch.iter().filter_map(|subject| self.channel(subject, shard));
            channels.collect::<Vec<_>>().iter().for_each(|channel| shard.fetch_again(channel));
        }
    }

    fn was_greeted(&self, from: LinkId, number: u64, subject: &[u8], shard: &Shard) -> bool {
        self.channel(subject, shard)
            .is_some_and(|channel| shard.was_greeted(&channel, from, number))
    }

    fn channel(&self, subject: &[u8], shard: &Shard) -> Option<ChannelKey> {
        match self.names.read(&self.apps, subject)? {
            Subject::Channel { app, name } => shard.channel_key(app, name).ok(),
            Subject::Links => None,
        }
    }

    /// A second has passed.
    pub(super) fn expire(&mut self, shard: &mut Shard) {
        self.recent.expire(self.clock);
        if !self.absence.is_to_ask && !self.catch_up.is_closed() {
            if self.absence.waits_until + LEASE_BEATS <= self.clock {
                self.give_up_catch_up(shard);
            } else if self.catch_up.is_on() && self.absence.waits_until <= self.clock {
                let senders = self.catch_up.wait_for_missing_only();
                self.take_in_all_held(senders, shard);
            }
        }
        if self.clock.is_multiple_of(HEARD_BEATS_MAX) {
            let since = self.clock.saturating_sub(HEARD_BEATS_MAX);
            self.heard.retain(|_, heard| heard.beat >= since);
        }
    }
}
