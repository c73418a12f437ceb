//! The table of the channels whose home this core is. PURE.
//!
//! Owns the channels, from the first core that is interested, the first user in a roster or the first cached event to
//! the last of them. Does not send anything. Invariant: an index is valid until the next `drop_if_unused`,
//! `cache_event` or `expire`, which may free it. Code that keeps one longer keeps the channel's key instead and looks
//! it up.
//!
//! Limits: a cached event lives as long as its app says, and all of a core's cached events take at most
//! `Settings::cache_bytes_max`; the oldest goes first. Cost: one hash look-up for a channel by key, an index into a
//! slab afterwards; a new channel is one entry of 64 bytes.

use std::collections::VecDeque;

use super::count::CountTable;
use super::roster::{Member, Roster};
use crate::app::AppIndex;
use crate::buffer::FrameBytes;
use crate::clock::Moment;
use crate::limits::stale_entries_max;
use crate::pusher::inbound::UserId;
use crate::shard::channel_key::ChannelKey;
use crate::shard::core_set::CoreSet;
use crate::shard::invariants::ensure;
use crate::shard::node_message::SessionId;
use crate::shard::slots::{ChannelSlot, Keyed, KeyedSlots};
use crate::shard::state::{HomeState, MemberState};

/// Memory of a cached event beside its frame: the entry, the channel, its name, and its place by age. Measured with
/// short names.
const CACHED_EVENT_BYTES: usize = 320;

#[derive(Debug)]
pub(in crate::shard) struct CachedEvent {
    pub(in crate::shard) frame: FrameBytes,
    expires_seconds: u32,
    /// Finds out whether an entry of `HomeTable::cache_ages` is this event's or that of an earlier one of the channel.
    stamp: u64,
    /// The session that published it, and its number there. `None`: it was received, not fetched from Redis.
    fetched_from: Option<(SessionId, u64)>,
}

#[derive(Debug)]
pub(in crate::shard) struct HomeChannel {
    key: ChannelKey,
    pub(in crate::shard) interested: CoreSet,
    pub(in crate::shard) roster: Option<Box<Roster>>,
    cached: Option<Box<CachedEvent>>,
}

const _: () = assert!(size_of::<HomeChannel>() <= 64);
const _: () = assert!(size_of::<HomeChannel>() + size_of::<CachedEvent>() <= CACHED_EVENT_BYTES);

impl HomeChannel {
    /// `None` also for an event that is too old and waits for `expire`.
    pub(in crate::shard) fn cached(&self, now: Moment) -> Option<&CachedEvent> {
        self.cached.as_deref().filter(|cached| cached.expires_seconds > now.seconds())
    }

    pub(in crate::shard) fn is_unused(&self) -> bool {
        self.interested.is_empty() && self.roster.is_none() && self.cached.is_none()
    }

    pub(in crate::shard) fn user_count(&self) -> usize {
        self.roster.as_ref().map_or(0, |roster| roster.len())
    }

    pub(in crate::shard) fn has_user(&self, user_id: &str) -> bool {
        self.roster.as_ref().is_some_and(|roster| roster.contains(user_id))
    }

    pub(in crate::shard) fn key(&self) -> &ChannelKey {
        &self.key
    }

    pub(in crate::shard) fn user_ids(&self) -> impl Iterator<Item = &str> {
        self.roster.iter().flat_map(|roster| roster.user_ids())
    }
}

impl Keyed for HomeChannel {
    fn key(&self) -> &ChannelKey {
        &self.key
    }
}

pub(in crate::shard) struct HomeTable {
    channels: KeyedSlots<HomeChannel>,
    /// Cached events by age: (stamp, slot, when it expires). An entry whose stamp is no longer the channel's is stale.
    cache_ages: VecDeque<(u64, ChannelSlot, u32)>,
    cache_stamp: u64,
    cache_bytes: usize,
    cache_count: usize,
    cache_bytes_max: usize,
    /// Cached events that were dropped before their time for want of room.
    evicted: u64,
    pub(in crate::shard) counts: CountTable,
}

impl HomeTable {
    /// `reserved` channels find room without moving: address space, not memory.
    pub(in crate::shard) fn new(reserved: usize, cache_bytes_max: usize) -> Self {
        Self {
            channels: KeyedSlots::new(reserved),
            cache_ages: VecDeque::new(),
            cache_stamp: 0,
            cache_bytes: 0,
            cache_count: 0,
            cache_bytes_max,
            evicted: 0,
            counts: CountTable::default(),
        }
    }

    pub(in crate::shard) fn find_index(&self, key: &ChannelKey) -> Option<ChannelSlot> {
        self.channels.find_key(key)
    }

    pub(in crate::shard) fn find(&self, key: &ChannelKey) -> Option<&HomeChannel> {
        self.find_index(key).map(|index| &self.channels[index])
    }

    /// For a walk in slices. See `Slots::slots_end`.
    pub(in crate::shard) fn slots_end(&self) -> ChannelSlot {
        self.channels.slots_end()
    }

    pub(in crate::shard) fn get_if_used(&self, index: ChannelSlot) -> Option<&HomeChannel> {
        self.channels.get(index)
    }

    pub(in crate::shard) fn get(&self, index: ChannelSlot) -> &HomeChannel {
        debug_assert!(
            self.contains(index),
            "an index is not kept over a call that may drop a channel"
        );
        &self.channels[index]
    }

    pub(in crate::shard) fn get_mut(&mut self, index: ChannelSlot) -> &mut HomeChannel {
        debug_assert!(
            self.contains(index),
            "an index is not kept over a call that may drop a channel"
        );
        &mut self.channels[index]
    }

    /// In no order. Costs a step for each channel of this app, not of all.
    pub(in crate::shard) fn of_app(&self, app: AppIndex) -> impl Iterator<Item = &HomeChannel> {
        self.channels.of_app(app)
    }

    pub(in crate::shard) fn entries(&self) -> impl Iterator<Item = (ChannelSlot, &HomeChannel)> {
        self.channels.entries()
    }

    pub(in crate::shard) fn contains(&self, index: ChannelSlot) -> bool {
        self.channels.get(index).is_some()
    }

    /// Checks the sums over cached events, and that the oldest of them are found by age.
    pub(in crate::shard) fn check_cache(&self) -> Result<(), String> {
        let cached = || self.iter().filter_map(|home| home.cached.as_ref());
        let bytes: usize = cached().map(|cached| cached_bytes(&cached.frame)).sum();
        ensure!(bytes == self.cache_bytes, "{bytes} bytes are cached, not {}", self.cache_bytes);
        let count = cached().count();
        ensure!(count == self.cache_count, "{count} events are cached, not {}", self.cache_count);
        ensure!(bytes <= self.cache_bytes_max, "{bytes} bytes are cached: the limit is exceeded");
        let ages = self.cache_ages.iter();
        let live = ages.filter(|(stamp, index, _)| is_cached(&self.channels, *index, *stamp));
        ensure!(live.count() == count, "a cached event would never expire");
        Ok(())
    }

    pub(in crate::shard) fn iter(&self) -> impl Iterator<Item = &HomeChannel> {
        self.channels.iter()
    }

    pub(in crate::shard) fn find_or_insert(&mut self, key: &ChannelKey) -> ChannelSlot {
        if let Some(index) = self.find_index(key) {
            debug_assert!(self.contains(index), "the index of names has channels in use");
            return index;
        }
        let interested = CoreSet::default();
        let channel = HomeChannel { key: key.clone(), interested, roster: None, cached: None };
        debug_assert!(channel.is_unused(), "the caller adds what keeps the channel");
        self.channels.insert(channel)
    }

    pub(in crate::shard) fn drop_if_unused(&mut self, index: ChannelSlot) {
        if self.channels[index].is_unused() {
            debug_assert!(self.channels[index].roster.is_none(), "no member is left behind");
            self.channels.remove(index);
            self.counts.forget(index);
            debug_assert!(!self.contains(index), "its slot is free");
        }
    }

    /// Remembers a cache channel's last event and evicts the oldest over the bound.
    pub(in crate::shard) fn cache_event(
        &mut self,
        index: ChannelSlot,
        frame: &FrameBytes,
        expires_seconds: u32,
    ) {
        self.forget_cached_at(index);
        self.cache_stamp += 1;
        let stamp = self.cache_stamp;
        let cached =
            CachedEvent { frame: frame.clone(), expires_seconds, stamp, fetched_from: None };
        self.channels[index].cached = Some(Box::new(cached));
        self.cache_bytes += cached_bytes(frame);
        self.cache_count += 1;
        self.cache_ages.push_back((stamp, index, expires_seconds));
        while self.cache_bytes > self.cache_bytes_max {
            let Some((stamp, oldest, _)) = self.cache_ages.pop_front() else { break };
            self.evicted += u64::from(is_cached(&self.channels, oldest, stamp));
            self.forget_cached_if(oldest, stamp);
        }
        if self.cache_ages.len() > stale_entries_max(self.cache_count) {
            let channels = &self.channels;
            self.cache_ages.retain(|(stamp, index, _)| is_cached(channels, *index, *stamp));
        }
        debug_assert!(self.cache_bytes <= self.cache_bytes_max, "the oldest were evicted");
        debug_assert!(self.cache_count <= self.cache_ages.len(), "each cached event has its age");
    }

    /// Bytes of cached events, as they are charged, and how many were dropped for want of room.
    pub(in crate::shard) fn cached(&self) -> (usize, u64) {
        debug_assert!(self.cache_bytes <= self.cache_bytes_max, "the oldest were evicted");
        debug_assert!(
            self.cache_bytes >= self.cache_count * CACHED_EVENT_BYTES,
            "each cached event is charged for its entry"
        );
        (self.cache_bytes, self.evicted)
    }

    fn forget_cached_at(&mut self, index: ChannelSlot) {
        if let Some(cached) = self.channels[index].cached.take() {
            debug_assert!(self.cache_count > 0, "it is counted");
            debug_assert!(self.cache_bytes >= cached_bytes(&cached.frame), "its bytes are counted");
            self.cache_bytes -= cached_bytes(&cached.frame);
            self.cache_count -= 1;
        }
        debug_assert!(self.cache_count > 0 || self.cache_bytes == 0, "no event, no bytes");
    }

    fn forget_cached_if(&mut self, index: ChannelSlot, stamp: u64) {
        if is_cached(&self.channels, index, stamp) {
            self.forget_cached_at(index);
            self.drop_if_unused(index);
        }
        debug_assert!(!is_cached(&self.channels, index, stamp), "no event of this age is left");
    }

    /// Drops cached events that are too old. Amortized constant per event: they are queued by age. Where apps differ
    /// in how long they remember, one may wait for another; it is not sent any longer all the same.
    pub(in crate::shard) fn expire(&mut self, now: Moment) {
        while let Some((stamp, index, expires)) = self.cache_ages.front().copied() {
            if expires > now.seconds() {
                break;
            }
            self.cache_ages.pop_front();
            self.forget_cached_if(index, stamp);
            debug_assert!(stamp <= self.cache_stamp, "an event that was remembered");
        }
        debug_assert!(self.cache_count <= self.cache_ages.len(), "each cached event has its age");
        debug_assert!(
            self.cache_ages.front().is_none_or(|(_, _, expires)| *expires > now.seconds()),
            "the others are not too old"
        );
    }

    /// Interested cores are left out: `Local::finish_import` of the other process sends them. So is a channel that has
    /// nothing else.
    pub(in crate::shard) fn export(
        &self,
        now: Moment,
    ) -> impl Iterator<Item = (&ChannelKey, HomeState)> {
        self.channels.entries().filter_map(move |(index, channel)| {
            let members = channel.roster.iter().flat_map(|roster| roster.iter());
            let state = HomeState {
                members: members
                    .filter(|(_, member)| member.connections > 0)
                    .map(|(text, member)| MemberState {
                        user: UserId { json: member.id_json.clone(), text: text.clone() },
                        user_info: member.user_info.clone(),
                        connections: member.connections,
                    })
                    .collect(),
                cached: channel
                    .cached(now)
                    .map(|cached| (cached.frame.to_vec(), cached.expires_seconds)),
                count_sent: self.counts.last_sent_count(index),
            };
            (state != HomeState::default()).then_some((&channel.key, state))
        })
    }

    /// The inverse of `export`, into a table that may have the channel already: interests come before or after.
    pub(in crate::shard) fn restore(&mut self, channel: &ChannelKey, state: HomeState) {
        let index = self.find_or_insert(channel);
        debug_assert!(self.contains(index), "it was found, or inserted");
        if !state.members.is_empty() {
            let roster =
                state.members.into_iter().map(|MemberState { user, user_info, connections }| {
                    (user.text, Member { id_json: user.json, user_info, connections, nodes: 0 })
                });
            self.channels[index].roster = Some(Box::new(roster.collect()));
        }
        if let Some((sent, seconds)) = state.count_sent {
            self.counts.restore_sent(index, sent, seconds);
        }
        // The last step: an event over `cache_bytes_max` is forgotten at once, and the channel with it if nothing else
        // needs it. Then `index` is another channel's.
        if let Some((frame, expires_seconds)) = state.cached {
            self.cache_event(index, &frame.into(), expires_seconds);
        }
    }

    /// `count`: the core's number of subscribers, `None` if the app does not count.
    pub(in crate::shard) fn restore_interest(
        &mut self,
        channel: &ChannelKey,
        core: u16,
        count: Option<u32>,
    ) {
        let index = self.find_or_insert(channel);
        self.channels[index].interested.insert(core);
        if let Some(count) = count {
            self.counts.restore(index, core, count);
        }
        debug_assert!(self.channels[index].interested.contains(core), "events reach the core");
    }

    /// The cached event, and for how many seconds it is still to be remembered.
    pub(in crate::shard) fn cached_and_seconds(
        &self,
        key: &ChannelKey,
        now: Moment,
    ) -> Option<(FrameBytes, u32)> {
        let cached = self.find(key)?.cached(now)?;
        debug_assert!(
            cached.expires_seconds > now.seconds(),
            "`cached` leaves out what is too old"
        );
        Some((cached.frame.clone(), cached.expires_seconds - now.seconds()))
    }

    /// Later subscribers are greeted with this event, so a late delivery of it must not reach them (`is_in_greeting`).
    pub(in crate::shard) fn note_fetched(&mut self, key: &ChannelKey, by: (SessionId, u64)) {
        debug_assert!(key.kind.cached, "only cache channels have a stored event");
        let index = self.find_index(key);
        if let Some(cached) = index.and_then(|index| self.channels[index].cached.as_mut()) {
            cached.fetched_from = Some(by);
            debug_assert!(cached.stamp <= self.cache_stamp, "an event that was remembered");
        }
    }

    pub(in crate::shard) fn fetched_from(&self, key: &ChannelKey) -> Option<(SessionId, u64)> {
        debug_assert!(
            key.kind.cached || self.find(key).is_none_or(|home| home.cached.is_none()),
            "only cache channels have a cached event"
        );
        self.find(key)?.cached.as_ref()?.fetched_from
    }

    pub(in crate::shard) fn forget_cached_of(&mut self, app: AppIndex) {
        let cached = self.channels.entries();
        let cached = cached.filter(|(_, home)| home.key.app() == app && home.cached.is_some());
        let indexes: Vec<ChannelSlot> = cached.map(|(index, _)| index).collect();
        for index in indexes {
            self.forget_cached_at(index);
            self.drop_if_unused(index);
        }
        debug_assert!(
            self.of_app(app).all(|home| home.cached.is_none()),
            "none of the app is left"
        );
    }

    pub(in crate::shard) fn forget_cached(&mut self, key: &ChannelKey) {
        if let Some(index) = self.find_index(key) {
            self.forget_cached_at(index);
            self.drop_if_unused(index);
        }
        debug_assert!(self.find(key).is_none_or(|home| home.cached.is_none()), "it is forgotten");
    }

    pub(in crate::shard) fn len(&self) -> usize {
        debug_assert!(self.cache_count <= self.channels.len(), "a channel has one cached event");
        self.channels.len()
    }
}

/// With the channel, because a cached event may be all that keeps it.
fn cached_bytes(frame: &FrameBytes) -> usize {
    frame.len() + CACHED_EVENT_BYTES
}

fn is_cached(channels: &KeyedSlots<HomeChannel>, index: ChannelSlot, stamp: u64) -> bool {
    let cached = channels.get(index).and_then(|channel| channel.cached.as_ref());
    cached.is_some_and(|cached| cached.stamp == stamp)
}
