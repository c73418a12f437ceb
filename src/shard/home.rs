//! A channel's home: the one core that holds its global state and gives its events their order (docs/decisions/0003).
//! PURE.
//!
//! Holds which cores are interested, the presence roster (`roster.rs`) and the cached event. `member_added` goes out
//! ahead of the joiner's own acknowledgement (docs/PROTOCOL.md rule 97). In a cluster it is the node's home:
//! `cluster.rs` joins it with those of other nodes. Invariant: an index is good until the next `drop_if_unused`,
//! `remember` or `expire`, which may free it. Who keeps one longer keeps the channel's key instead and looks it up.
//! Bounds: a cached event lives as long as its app says, and all of a core's cached events take at most
//! `Settings::cache_bytes_max`; the oldest goes first.

use std::collections::VecDeque;

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};
use slab::Slab;

use super::channel_key::ChannelKey;
use super::channel_table::{forget, of_app_mut};
use super::cluster::Edge;
use super::connection::ConnectionKey;
use super::core_set::CoreSet;
use super::count::CountTable;
use super::envelope::{Body, LinkId};
use super::mail::{Greeting, Join, Mail};
use super::outbox::Trace;
use super::roster::{Member, Roster};
use super::{Shard, frame};
use crate::app::{AppIndex, WebhookKind};
use crate::buffer::FrameBytes;
use crate::clock::Moment;
use crate::pusher::channel_name::Access;
use crate::pusher::inbound::UserId;
use crate::pusher::json;
use crate::pusher::outbound;
use crate::pusher::socket_id::SocketId;
use crate::pusher::webhook_event::{Happening, WebhookEvent};
use crate::text::{shown, shown_up_to};

/// Memory of a cached event beside its frame: the entry, the channel, its name, and its place by age. Measured with
/// short names.
const CACHED_EVENT_BYTES: usize = 320;

const NOBODY_SUBSCRIBED: &str = "which has no subscribers. Is it the name the browser uses? Laravel's \
    PrivateChannel('x') is private-x here; `ringverb channels` lists the occupied channels";
const USER_NOT_SUBSCRIBED: &str = "to which the signed-in user is not subscribed; pusher-js subscribes by itself after \
    pusher.signin()";
const NOT_SIGNED_IN: &str = "and no connection is signed in as that user. Does the page call pusher.signin(), and \
    does /broadcasting/user-auth answer with that id?";

/// Bytes shown of the name of an event.
const NAME_BYTES_MAX: usize = 64;

/// What a home knows of a channel and no connection tells, for another process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HomeState {
    pub members: Vec<MemberState>,
    /// The cached event's frame, and when it expires.
    pub cached: Option<(Vec<u8>, u32)>,
    /// The number of subscribers that was told last, and when.
    pub count_told: Option<(u64, u32)>,
}

/// A user in a presence channel, with the number of their connections in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberState {
    pub user: UserId,
    pub info: Box<str>,
    pub connections: u32,
}

#[derive(Debug)]
struct Cached {
    frame: FrameBytes,
    expires_seconds: u32,
    /// Tells this event's entry in `HomeTable::cache_ages` from those of its predecessors.
    stamp: u64,
    /// Who published it, by which number, where it was not heard but fetched.
    fetched: Option<(LinkId, u64)>,
}

#[derive(Debug)]
pub(super) struct HomeChannel {
    key: ChannelKey,
    interested: CoreSet,
    pub(super) roster: Option<Box<Roster>>,
    cached: Option<Box<Cached>>,
}

const _: () = assert!(size_of::<HomeChannel>() <= 64);

impl HomeChannel {
    /// The cached event, unless it is too old.
    fn cached(&self, now: Moment) -> Option<&Cached> {
        self.cached.as_deref().filter(|cached| cached.expires_seconds > now.seconds())
    }

    fn is_unused(&self) -> bool {
        self.interested.is_empty() && self.roster.is_none() && self.cached.is_none()
    }

    pub(super) fn user_count(&self) -> usize {
        self.roster.as_ref().map_or(0, |roster| roster.len())
    }

    pub(super) fn user_ids(&self) -> impl Iterator<Item = &str> {
        self.roster.iter().flat_map(|roster| roster.user_ids())
    }

    pub(super) fn key(&self) -> &ChannelKey {
        &self.key
    }
}

/// The channels whose home this core is.
pub(super) struct HomeTable {
    /// One index for each app, as in `ChannelTable`.
    by_app: Vec<HashTable<u32>>,
    channels: Slab<HomeChannel>,
    /// Cached events by age: (stamp, slot, when it expires). An entry whose stamp is not the channel's any
    /// more is stale.
    cache_ages: VecDeque<(u64, u32, u32)>,
    cache_stamp: u64,
    cache_bytes: usize,
    cache_count: usize,
    cache_bytes_max: usize,
    pub(super) counts: CountTable,
}

impl HomeTable {
    /// `reserved` channels find room without moving: address space, not memory.
    pub(super) fn new(reserved: usize, cache_bytes_max: usize) -> Self {
        Self {
            by_app: Vec::new(),
            channels: Slab::with_capacity(reserved),
            cache_ages: VecDeque::new(),
            cache_stamp: 0,
            cache_bytes: 0,
            cache_count: 0,
            cache_bytes_max,
            counts: CountTable::default(),
        }
    }

    pub(super) fn find_index(&self, key: &ChannelKey) -> Option<u32> {
        let index = self.by_app.get(usize::from(key.app().0))?;
        index.find(key.hash(), |index| self.channels[*index as usize].key == *key).copied()
    }

    pub(super) fn find(&self, key: &ChannelKey) -> Option<&HomeChannel> {
        self.find_index(key).map(|index| &self.channels[index as usize])
    }

    pub(super) fn get(&self, index: u32) -> &HomeChannel {
        &self.channels[index as usize]
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut HomeChannel {
        &mut self.channels[index as usize]
    }

    /// The channels of one app, in no order.
    pub(super) fn of_app(&self, app: AppIndex) -> impl Iterator<Item = &HomeChannel> {
        let index = self.by_app.get(usize::from(app.0));
        index.into_iter().flatten().map(|index| &self.channels[*index as usize])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &HomeChannel> {
        self.channels.iter().map(|(_, channel)| channel)
    }

    pub(super) fn find_or_insert(&mut self, key: &ChannelKey) -> u32 {
        if let Some(index) = self.find_index(key) {
            return index;
        }
        let interested = CoreSet::default();
        let channel = HomeChannel { key: key.clone(), interested, roster: None, cached: None };
        let index = u32::try_from(self.channels.insert(channel)).unwrap_or(u32::MAX);
        assert!(index != u32::MAX, "a core is home to fewer than 2^32 channels");
        let channels = &self.channels;
        of_app_mut(&mut self.by_app, key.app())
            .insert_unique(key.hash(), index, |at| channels[*at as usize].key.hash());
        index
    }

    pub(super) fn drop_if_unused(&mut self, index: u32) {
        if !self.channels[index as usize].is_unused() {
            return;
        }
        let channel = self.channels.remove(index as usize);
        self.counts.forget(index);
        forget(&mut self.by_app, &channel.key, index, |at| self.channels[*at as usize].key.hash());
    }

    /// Remembers a cache channel's last event and evicts the oldest over the bound.
    fn remember(&mut self, index: u32, frame: &FrameBytes, expires_seconds: u32) {
        self.forget(index);
        self.cache_stamp += 1;
        let stamp = self.cache_stamp;
        let cached = Cached { frame: frame.clone(), expires_seconds, stamp, fetched: None };
        self.channels[index as usize].cached = Some(Box::new(cached));
        self.cache_bytes += cached_bytes(frame);
        self.cache_count += 1;
        self.cache_ages.push_back((stamp, index, expires_seconds));
        while self.cache_bytes > self.cache_bytes_max {
            let Some((stamp, oldest, _)) = self.cache_ages.pop_front() else { break };
            self.forget_if(oldest, stamp);
        }
        if self.cache_ages.len() > 64 + 2 * self.cache_count {
            let channels = &self.channels;
            self.cache_ages.retain(|(stamp, index, _)| is_cached(channels, *index, *stamp));
        }
    }

    fn forget(&mut self, index: u32) {
        if let Some(cached) = self.channels[index as usize].cached.take() {
            self.cache_bytes -= cached_bytes(&cached.frame);
            self.cache_count -= 1;
        }
    }

    fn forget_if(&mut self, index: u32, stamp: u64) {
        if is_cached(&self.channels, index, stamp) {
            self.forget(index);
            self.drop_if_unused(index);
        }
    }

    /// Drops cached events that are too old. Amortised constant per event: they are queued by age. Where apps differ
    /// in how long they remember, one may wait for another; it is not told any more all the same.
    pub(super) fn expire(&mut self, now: Moment) {
        while let Some((stamp, index, expires)) = self.cache_ages.front().copied() {
            if expires > now.seconds() {
                break;
            }
            self.cache_ages.pop_front();
            self.forget_if(index, stamp);
        }
    }

    /// The channels that have more than interested cores.
    pub(super) fn export(&self, now: Moment) -> impl Iterator<Item = (&ChannelKey, HomeState)> {
        self.channels.iter().filter_map(move |(index, channel)| {
            let members = channel.roster.iter().flat_map(|roster| roster.iter());
            let state = HomeState {
                members: members
                    .filter(|(_, member)| member.connections > 0)
                    .map(|(text, member)| MemberState {
                        user: UserId { json: member.id_json.clone(), text: text.clone() },
                        info: member.info.clone(),
                        connections: member.connections,
                    })
                    .collect(),
                cached: channel
                    .cached(now)
                    .map(|cached| (cached.frame.to_vec(), cached.expires_seconds)),
                count_told: self.counts.told(u32::try_from(index).unwrap_or(u32::MAX)),
            };
            (state != HomeState::default()).then_some((&channel.key, state))
        })
    }

    /// The other way of `export`.
    pub(super) fn restore(&mut self, channel: &ChannelKey, state: HomeState) {
        let index = self.find_or_insert(channel);
        if !state.members.is_empty() {
            let roster =
                state.members.into_iter().map(|MemberState { user, info, connections }| {
                    (user.text, Member { id_json: user.json, info, connections, nodes: 0 })
                });
            self.channels[index as usize].roster = Some(Box::new(roster.collect()));
        }
        if let Some((told, seconds)) = state.count_told {
            self.counts.restore_told(index, channel, told, seconds);
        }
        // The last step: an event over `cache_bytes_max` is forgotten at once, and the channel with it if nothing else
        // needs it. Then `index` is another channel's.
        if let Some((frame, expires_seconds)) = state.cached {
            self.remember(index, &frame.into(), expires_seconds);
        }
    }

    /// A core has subscribers, as it had in another process.
    pub(super) fn restore_interest(&mut self, channel: &ChannelKey, core: u16, count: Option<u32>) {
        let index = self.find_or_insert(channel);
        self.channels[index as usize].interested.insert(core);
        if let Some(count) = count {
            self.counts.restore(index, core, count);
        }
    }

    /// The cached event, and for how many seconds it is still to be remembered.
    pub(super) fn cached_and_seconds(
        &self,
        key: &ChannelKey,
        now: Moment,
    ) -> Option<(FrameBytes, u32)> {
        let cached = self.find(key)?.cached(now)?;
        Some((cached.frame.clone(), cached.expires_seconds - now.seconds()))
    }

    /// The cached event was not heard, but fetched.
    pub(super) fn note_fetched(&mut self, key: &ChannelKey, by: (LinkId, u64)) {
        let index = self.find_index(key);
        if let Some(cached) = index.and_then(|index| self.channels[index as usize].cached.as_mut())
        {
            cached.fetched = Some(by);
        }
    }

    pub(super) fn fetched_by(&self, key: &ChannelKey) -> Option<(LinkId, u64)> {
        self.find(key)?.cached.as_ref()?.fetched
    }

    pub(super) fn forget_cached(&mut self, key: &ChannelKey) {
        if let Some(index) = self.find_index(key) {
            self.forget(index);
            self.drop_if_unused(index);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }
}

/// What a remembered event costs, its channel included.
fn cached_bytes(frame: &FrameBytes) -> usize {
    frame.len() + CACHED_EVENT_BYTES
}

fn is_cached(channels: &Slab<HomeChannel>, index: u32, stamp: u64) -> bool {
    let cached = channels.get(index as usize).and_then(|channel| channel.cached.as_ref());
    cached.is_some_and(|cached| cached.stamp == stamp)
}

impl Shard {
    /// A connection of `core` wants into a channel of ours.
    pub(super) fn home_subscribe(
        &mut self,
        channel: ChannelKey,
        connection: ConnectionKey,
        ticket: u32,
        core: u16,
        join: Option<&Join>,
    ) {
        let index = self.homes.find_or_insert(&channel);
        let error = join.and_then(|join| self.refuses(index, &channel, join));
        if let Some(error) = error {
            self.homes.drop_if_unused(index);
            self.let_go_if_unused(&channel);
            return self.mail_back(core, Mail::Full { channel, connection, ticket, error });
        }
        if self.homes.channels[index as usize].interested.is_empty() {
            self.tell_occupied(&channel, Edge::Came);
            self.homes.counts.set_elsewhere(index, self.cluster.count_elsewhere(&channel));
        }
        if let Some(join) = join {
            self.home_join(index, &channel, join);
        }
        self.homes.channels[index as usize].interested.insert(core);
        let greeting = self.greeting(index, &channel);
        let joined = join.filter(|join| !join.again).map(|join| Box::new(join.user.clone()));
        let answer = Mail::Subscribed { channel, connection, ticket, greeting, joined };
        self.mail_back(core, answer);
    }

    /// A core has no subscriber in the channel any more.
    pub(super) fn home_disinterest(&mut self, channel: &ChannelKey, core: u16) {
        let Some(index) = self.homes.find_index(channel) else { return };
        let interested = &mut self.homes.channels[index as usize].interested;
        interested.remove(core);
        let is_empty = interested.is_empty();
        if self.settings.apps.get(channel.app()).counts_subscriptions() {
            self.home_count(channel, core, 0);
        }
        self.homes.drop_if_unused(index);
        if is_empty {
            self.tell_occupied(channel, Edge::Left);
            self.let_go_if_unused(channel);
        }
    }

    /// This node has its first subscriber of the channel, or none any more.
    fn tell_occupied(&mut self, channel: &ChannelKey, edge: Edge) {
        self.edge(channel, None, edge, || Body::Occupied(edge == Edge::Came));
    }

    /// Tells the app's backend, if it wants to hear of it.
    pub(super) fn tell_backend(
        &mut self,
        channel: &ChannelKey,
        kind: WebhookKind,
        what: impl FnOnce() -> Happening,
    ) {
        if self.settings.apps.get(channel.app()).wants_webhook(kind, channel.name()) {
            let (app, channel) = (channel.app(), channel.shared_name());
            self.outbox.webhooks.push(WebhookEvent { app, channel, what: what() });
        }
    }

    /// What a subscriber is sent first: the roster, then the cached event or `cache_miss` (docs/PROTOCOL.md rule 21).
    /// Both are encoded once and shared, so that a repeated subscription costs no more than its message.
    fn greeting(&mut self, index: u32, channel: &ChannelKey) -> Option<Box<Greeting>> {
        let home = &mut self.homes.channels[index as usize];
        let acknowledgement =
            (channel.kind.access == Access::Presence).then(|| match &mut home.roster {
                Some(roster) => roster.acknowledgement(channel.name()),
                None => Roster::default().acknowledgement(channel.name()),
            });
        if !channel.kind.cached {
            let acknowledgement = Some(acknowledgement?);
            return Some(Box::new(Greeting { acknowledgement, cached: None }));
        }
        let cached = home.cached(self.now).map(|cached| cached.frame.clone());
        let cached = cached.unwrap_or_else(|| {
            self.tell_backend(channel, WebhookKind::CacheMiss, || Happening::CacheMiss);
            self.text.clear();
            outbound::cache_miss(channel.name(), &mut self.text);
            frame::encode_text(&self.text).into()
        });
        Some(Box::new(Greeting { acknowledgement, cached: Some(cached) }))
    }

    /// An event for everybody in the channel, on this node and on others. The channel's only ordering point here.
    pub(super) fn home_publish(
        &mut self,
        channel: &ChannelKey,
        frame: &FrameBytes,
        except: Option<SocketId>,
        cache: bool,
    ) {
        let cache_ttl_seconds = (cache && channel.kind.cached)
            .then(|| self.settings.apps.get(channel.app()).cache_ttl_seconds);
        if let Some(seconds) = cache_ttl_seconds {
            self.home_remember(channel, frame, seconds);
        }
        self.publish_to_nodes(channel, frame, except, cache_ttl_seconds);
        self.home_deliver(channel, frame, except);
        if cache && (self.settings.verbose_errors || self.settings.debug) {
            self.note_unheard(channel, frame);
        }
    }

    pub(super) fn home_remember(&mut self, channel: &ChannelKey, frame: &FrameBytes, seconds: u32) {
        let index = self.homes.find_or_insert(channel);
        self.homes.remember(index, frame, self.now.seconds().saturating_add(seconds));
    }

    /// To each interested core of this node once.
    pub(super) fn home_deliver(
        &mut self,
        channel: &ChannelKey,
        frame: &FrameBytes,
        except: Option<SocketId>,
    ) {
        let interested = self.interested(channel);
        self.trace(|| Trace::Broadcasting(channel.shared_name(), frame.clone()));
        for core in interested.iter() {
            if core == self.settings.core {
                self.deliver(channel, frame, except);
            } else {
                let (channel, frame) = (channel.clone(), frame.clone());
                self.outbox.mail(core, Mail::Deliver { channel, frame, except });
            }
        }
    }

    pub(super) fn interested(&self, channel: &ChannelKey) -> CoreSet {
        self.homes.find(channel).map_or(CoreSet::default(), |home| home.interested)
    }

    /// Whoever develops an app wants to know; in a cluster others may have heard it.
    fn note_unheard(&mut self, channel: &ChannelKey, event: &FrameBytes) {
        if !self.interested(channel).is_empty() || self.cluster.is_on() {
            return;
        }
        let why = if channel.kind.access != Access::User {
            NOBODY_SUBSCRIBED
        } else if self.is_user_online(channel) {
            USER_NOT_SUBSCRIBED
        } else {
            NOT_SIGNED_IN
        };
        let payload = std::str::from_utf8(frame::server_payload(event)).unwrap_or_default();
        let mut members = json::members(payload).into_iter().flatten();
        let name = members.find(|(name, _)| json::is_name(name, "event"));
        let name = name.and_then(|(_, span)| json::string(span)).unwrap_or_default();
        let (name, to) = (shown_up_to(&*name, NAME_BYTES_MAX), shown(channel.name()));
        let app = &self.settings.apps.get(channel.app()).id;
        self.outbox.note_line(format!("event {name} was published to {to}, {why} app={app}"));
    }
}
