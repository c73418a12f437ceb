//! The line to Redis as the shard sees it: up, down, its answers, and time. PURE.

use super::subject::Fetch;
use super::{ANSWER_BEATS, LEASE_BEATS, Stored, TOPICS_PER_TURN, ToCluster};
use crate::shard::channel_key::ChannelKey;
use crate::shard::envelope::{Body, LinkId, NodeId};
use crate::shard::{Answered, Shard};

impl Shard {
    /// The line is up, and knows nothing of before.
    pub fn on_line_up(&mut self) {
        let cluster = &mut self.cluster;
        cluster.is_up = true;
        cluster.line = cluster.line.wrapping_add(1);
        cluster.sweeps.push_back((cluster.beat + LEASE_BEATS, None));
        cluster.unannounced = cluster.subjects.keys().cloned().collect();
        // Nobody could be heard meanwhile.
        let beat = cluster.beat;
        cluster.nodes.values_mut().for_each(|heard| *heard = beat);
    }

    /// The line is down: nobody waits for what is beyond it.
    pub fn on_line_down(&mut self) {
        self.cluster.is_up = false;
        self.confirm_all_edges();
        self.cluster.unannounced.clear();
        self.cluster.unfetched.clear();
        self.drop_unsent();
        for (_, channel, ticket) in std::mem::take(&mut self.cluster.waiting) {
            self.stop_waiting(&channel, ticket);
        }
        self.outbox.answered.push(Answered::NodesGone);
    }

    /// Subscribes to some topics, tells the other nodes of some after the connection came back, and unsubscribes from
    /// some that nobody needs any more; `room` SUBSCRIBE and UNSUBSCRIBE at most. Of each a part in turn: none waits
    /// for the end of another.
    pub fn send_topics(&mut self, room: usize) {
        let room = room.min(TOPICS_PER_TURN);
        let share = room.div_ceil(3);
        let sent = self.subscribe_some(share);
        let ended = self.unsubscribe_some((room - sent).min(share));
        self.announce_some(room - sent - ended);
    }

    fn announce_some(&mut self, most: usize) {
        for _ in 0..most {
            let (channel, is_new) = match self.cluster.unannounced.pop_front() {
                Some(channel) => (channel, true),
                None => match self.cluster.unfetched.pop_front() {
                    Some(channel) => (channel, false),
                    None => return,
                },
            };
            if !self.is_held(&channel) {
                continue;
            }
            let ticket = self.next_cluster_ticket();
            if is_new {
                self.announce(&channel, ticket);
            } else {
                self.fetch(&channel, ticket, Fetch::Again);
            }
        }
    }

    /// Redis has confirmed a subject.
    pub fn on_held(&mut self, channel: &ChannelKey, ticket: u32) {
        self.note_answers(channel, ticket, 0);
    }

    /// So many heard a `Sync`, this node among them.
    pub fn on_synced(&mut self, channel: &ChannelKey, ticket: u32, heard: u32) {
        self.note_answers(channel, ticket, i64::from(heard.saturating_sub(1)));
    }

    /// The event that is stored for a cache channel. `is_due`: its sender has not told it to this node, and will.
    /// Returned is that sender, if it must be waited for: those who were there before are to hear it, and whoever is
    /// greeted with it is not. Then what is stored is to be asked for again.
    #[must_use]
    pub fn on_fetched(
        &mut self,
        channel: &ChannelKey,
        ticket: u32,
        stored: Option<Stored>,
        is_due: bool,
    ) -> Option<LinkId> {
        let why = self.cluster.details(channel).and_then(|details| {
            let (_, why) = details.fetching.take_if(|(asked, _)| *asked == ticket)?;
            Some(why)
        });
        match (why, stored) {
            (Some(Fetch::Again | Fetch::Restored), Some(stored)) if is_due => {
                return Some(stored.from);
            }
            (Some(_), Some(stored)) => {
                let by = (stored.from, stored.number);
                self.home_remember(channel, &stored.frame, stored.seconds);
                self.homes.note_fetched(channel, by);
                if let Some(subject) = self.cluster.subjects.get_mut(channel) {
                    subject.details().note_greeted(by);
                }
            }
            (Some(Fetch::First), None) => self.homes.forget_cached(channel),
            (Some(Fetch::Again), None) => self.restore_stored(channel),
            (Some(Fetch::Restored), None) | (None, _) => {}
        }
        self.note_answers(channel, ticket, 0);
        None
    }

    /// Whether an event that comes late is what the channel's subscribers were greeted with, or older.
    #[must_use]
    pub fn was_greeted(&self, channel: &ChannelKey, from: LinkId, number: u64) -> bool {
        let subject = self.cluster.subjects.get(channel);
        subject.is_some_and(|subject| subject.was_greeted(from, number))
    }

    /// All that was missed while the line was down is heard: what is stored meanwhile can be asked for.
    pub fn on_caught_up(&mut self) {
        let held = self.cluster.subjects.keys().filter(|channel| channel.kind.cached);
        self.cluster.unfetched = held.cloned().collect();
    }

    /// Redis has forgotten the channel's event. Of several nodes that remember one, the first decides.
    fn restore_stored(&mut self, channel: &ChannelKey) {
        let cached = self.homes.cached_and_seconds(channel, self.now);
        if let Some((frame, seconds)) = cached {
            let to_store = channel.clone();
            self.outbox.cluster.push(ToCluster::Restore { channel: to_store, frame, seconds });
            self.tell_nodes(channel, || Body::Restored);
            self.fetch_again(channel);
        }
    }

    /// Asks for what is stored once more.
    pub fn fetch_again(&mut self, channel: &ChannelKey) {
        if self.is_held(channel) {
            let ticket = self.next_cluster_ticket();
            self.fetch(channel, ticket, Fetch::Restored);
        }
    }

    pub(super) fn is_held(&self, channel: &ChannelKey) -> bool {
        self.cluster.subjects.contains_key(channel)
    }

    /// An event of this node is stored, or will not be.
    pub fn on_stored(&mut self, channel: &ChannelKey) {
        if let Some(unstored) = self.cluster.unstored.get_mut(channel) {
            *unstored -= 1;
            if *unstored == 0 {
                self.cluster.unstored.remove(channel);
            }
        }
    }

    /// One answer came, and `more` are to come.
    pub(super) fn note_answers(&mut self, channel: &ChannelKey, ticket: u32, more: i64) {
        let waiting = self.cluster.details(channel).and_then(|details| details.waiting.as_mut());
        let Some(waiting) = waiting else { return };
        if waiting.ticket == ticket {
            waiting.missing += more - 1;
            if waiting.missing == 0 {
                self.stop_waiting(channel, ticket);
            }
        }
    }

    fn stop_waiting(&mut self, channel: &ChannelKey, ticket: u32) {
        let Some(subject) = self.cluster.subjects.get_mut(channel) else { return };
        let waiting =
            subject.known().and_then(|details| details.waiting.take_if(|it| it.ticket == ticket));
        let Some(waiting) = waiting else { return };
        subject.shrink();
        for mail in waiting.mails {
            self.on_mail(mail);
        }
        self.let_go_if_unused(channel);
    }

    /// A second has passed.
    pub(in crate::shard) fn beat(&mut self) {
        self.end_lingering();
        if !self.cluster.is_up {
            return;
        }
        self.cluster.beat += 1;
        let beat = self.cluster.beat;
        while let Some((since, _, _)) = self.cluster.waiting.front()
            && since + ANSWER_BEATS <= beat
        {
            let Some((_, channel, ticket)) = self.cluster.waiting.pop_front() else { break };
            self.stop_waiting(&channel, ticket);
        }
        let silent = |heard: &u32| heard + LEASE_BEATS < beat;
        let nodes = self.cluster.nodes.iter().filter(|(_, heard)| silent(heard));
        let silent: Vec<NodeId> = nodes.map(|(node, _)| *node).collect();
        self.bury(&silent);
        let due = self.cluster.sweeps.partition_point(|(at, _)| *at <= beat);
        let links: Vec<Option<LinkId>> =
            self.cluster.sweeps.drain(..due).map(|(_, link)| link).collect();
        if !links.is_empty() {
            self.drop_doubtful(&links);
        }
    }
}
