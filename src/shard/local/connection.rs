//! The state of one connection, and its size budget. PURE. The socket itself is the reactor's.
//!
//! Owns what a connection keeps between two messages: a `Connection` and its list of subscriptions, and nothing else
//! for an idle one (docs/decisions/0002). What only some connections have is boxed in `Extras`. A subscription names
//! its channel's slot, and both name each other's position (`channel_table.rs`).
//!
//! Limits: 96 bytes (asserted); `MemoryLimits` for send queue and charges, checked by `has_queue_room` and
//! `check_charge`. Cost: a look-up of a subscription is a search of a few entries, or one hash above
//! `SUBSCRIPTIONS_SEARCHED_MAX`; no allocation for the first one.

use crate::shard::slots::ChannelSlot;
use crate::slot::Slot;
use hashbrown::HashMap;

use crate::app::AppIndex;
use crate::limits;
use crate::pusher::inbound::UserId;
use crate::pusher::socket_id::SocketId;

use super::send_queue::SendQueue;
pub(in crate::shard) use super::subscription::{Subscription, SubscriptionList, SubscriptionState};
use crate::shard::channel_key::ChannelKey;
use crate::shard::slots::Slots;

/// Names a connection of this core for as long as it lives; a later one in the same slot has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    pub slot: Slot,
    pub generation: u32,
}

/// The user as whom a connection signed in (docs/PROTOCOL.md C6).
#[derive(Debug)]
pub(in crate::shard) struct SignedIn {
    pub(in crate::shard) user: UserId,
    /// JSON; `null` if the backend signed none.
    pub(in crate::shard) user_info: Box<str>,
    /// The user's own channel, which also names the user in mail.
    pub(in crate::shard) key: ChannelKey,
}

/// What only some connections have: it is not in every connection's budget.
#[derive(Debug, Default)]
pub(in crate::shard) struct Extras {
    pub(in crate::shard) signed_in: Option<SignedIn>,
    /// Users of the connection's watchlist: it is sent their status.
    pub(in crate::shard) watched: Vec<ChannelKey>,
    /// Of these, users whose home has not answered yet; the first list goes out when it is 0.
    pub(in crate::shard) watched_unknown: u32,
    /// In `client_event_second`, which may be over.
    pub(in crate::shard) client_event_count: u32,
    pub(in crate::shard) client_event_second: u32,
    /// The second of the last client event that was answered with an error for its rate.
    pub(in crate::shard) client_event_error_second: Option<u32>,
    /// The window of the last message that was answered with an error for its rate: its `rate_window_seconds`.
    pub(in crate::shard) message_error_window: Option<u32>,
    /// By channel, the place in the list of subscriptions. Filled above `SUBSCRIPTIONS_SEARCHED_MAX`. A channel is in
    /// the list once, so a place that is found is below the length of the list.
    pub(in crate::shard) positions: HashMap<ChannelSlot, u32, foldhash::fast::FixedState>,
    /// The payload of the latest ping frame that is to be answered later: a pong waits to be sent, or there were too
    /// many in this second.
    pub(in crate::shard) ping_waiting: Option<Box<[u8]>>,
    /// Bytes that the connection is charged for its sign-in and its watchlist.
    pub(in crate::shard) sign_in_charge: u32,
}

/// Up to so many subscriptions a list is searched, which is as fast as a table and needs none.
pub(in crate::shard) const SUBSCRIPTIONS_SEARCHED_MAX: usize = 32;

/// Counts of ping and pong frames, in two bytes: those of this second, and the pongs in the send queue.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::shard) struct ControlFrames(u16);

const UNSENT_PONGS_BITS: u32 = 5;
const _: () = assert!(limits::PONGS_PER_FLUSH_MAX < 1 << UNSENT_PONGS_BITS);
const _: () = assert!(limits::CONTROL_FRAMES_PER_SECOND_MAX < u16::MAX >> UNSENT_PONGS_BITS);

impl ControlFrames {
    /// `false`: the frame is over `CONTROL_FRAMES_PER_SECOND_MAX`.
    pub(in crate::shard) fn count(&mut self) -> bool {
        self.0 = self.0.checked_add(1 << UNSENT_PONGS_BITS).unwrap_or(self.0);
        debug_assert!(self.0 >> UNSENT_PONGS_BITS > 0, "this one counts");
        self.0 >> UNSENT_PONGS_BITS <= limits::CONTROL_FRAMES_PER_SECOND_MAX
    }

    pub(in crate::shard) fn begin_second(&mut self) {
        self.0 = self.unsent_pongs();
        debug_assert_eq!(self.0 >> UNSENT_PONGS_BITS, 0, "none of this second");
    }

    pub(in crate::shard) fn unsent_pongs(self) -> u16 {
        self.0 & ((1 << UNSENT_PONGS_BITS) - 1)
    }

    /// The caller has checked that there are fewer than `PONGS_PER_FLUSH_MAX`, or has cleared them.
    pub(in crate::shard) fn add_unsent_pong(&mut self) {
        if self.unsent_pongs() < limits::PONGS_PER_FLUSH_MAX {
            self.0 += 1;
        }
        debug_assert!((1..=limits::PONGS_PER_FLUSH_MAX).contains(&self.unsent_pongs()));
    }

    pub(in crate::shard) fn clear_unsent_pongs(&mut self) {
        self.0 -= self.unsent_pongs();
        debug_assert_eq!(self.unsent_pongs(), 0);
    }
}

/// Whether a connection is in the count of open connections of its app, and whether it has an app at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum AppPlace {
    Open,
    /// It was open, or never will be.
    Ended,
    /// It was refused before it had an app: of `Connection::app` it has the form of its errors only.
    Refused,
}

/// A new field makes each idle connection larger: put what only some connections have into `Extras`.
#[derive(Debug)]
pub struct Connection {
    pub(in crate::shard) generation: u32,
    pub socket_id: SocketId,
    pub(in crate::shard) subscriptions: SubscriptionList,
    pub(in crate::shard) send_queue: SendQueue,
    pub(in crate::shard) extras: Option<Box<Extras>>,
    pub(in crate::shard) last_inbound_seconds: u32,
    pub(in crate::shard) rate_window_seconds: u32,
    pub(in crate::shard) rate_count: u32,
    /// Bytes that it causes the server to keep, send queue and incomplete input aside (`memory.rs`).
    pub(in crate::shard) charged_bytes: u32,
    pub app: AppIndex,
    pub(in crate::shard) control_frames: ControlFrames,
    /// It was pinged and has sent nothing since.
    pub(in crate::shard) awaits_pong: bool,
    /// The client has sent a ping or pong frame: it is pinged with frames from then on (docs/PROTOCOL.md rule 14).
    pub(in crate::shard) speaks_control_frames: bool,
    /// Our close frame is enqueued: it is in no channel any longer, and what it sends is dropped.
    pub(in crate::shard) is_closing: bool,
    /// It is in the outbox's dirty list.
    pub(in crate::shard) is_dirty: bool,
    /// The kernel took less than it was given: wait until the socket is writable.
    pub(in crate::shard) is_blocked: bool,
    /// Its send queue is over the bound: `Shard::settle` closes it.
    pub(in crate::shard) has_overflowed: bool,
    pub(in crate::shard) app_place: AppPlace,
    /// It has signed in or given a valid signature for a channel (docs/PROTOCOL.md rule 44).
    pub(in crate::shard) is_authorized: bool,
}

const _: () = assert!(size_of::<Connection>() <= 96, "the budget of an idle connection");

impl Connection {
    pub(in crate::shard) fn new(
        app: AppIndex,
        socket_id: SocketId,
        generation: u32,
        now_seconds: u32,
    ) -> Self {
        Self {
            generation,
            socket_id,
            subscriptions: SubscriptionList::default(),
            send_queue: SendQueue::default(),
            extras: None,
            last_inbound_seconds: now_seconds,
            rate_window_seconds: 0,
            rate_count: 0,
            charged_bytes: 0,
            app,
            control_frames: ControlFrames::default(),
            awaits_pong: false,
            speaks_control_frames: false,
            is_closing: false,
            is_dirty: false,
            is_blocked: false,
            has_overflowed: false,
            app_place: AppPlace::Open,
            is_authorized: false,
        }
    }

    /// Whether its app counts it as open, and `app` is its own.
    #[inline]
    pub(in crate::shard) fn is_counted(&self) -> bool {
        debug_assert!(
            self.app_place != AppPlace::Refused || self.subscriptions.is_empty(),
            "a refused connection is in no channel"
        );
        self.app_place == AppPlace::Open
    }

    /// The app whose row of metrics counts its messages and bytes. `None`: it was refused before it had an app.
    #[inline]
    pub(in crate::shard) fn metrics_app(&self) -> Option<AppIndex> {
        (self.app_place != AppPlace::Refused).then_some(self.app)
    }

    /// Returns the place of the subscription in the list, which the channel's list must name.
    pub(in crate::shard) fn add_subscription(&mut self, subscription: Subscription) -> usize {
        let place = self.subscriptions.len();
        let channel = subscription.channel;
        debug_assert!(self.position_of(channel).is_none(), "a channel is in the list once");
        self.subscriptions.push(subscription);
        if place < SUBSCRIPTIONS_SEARCHED_MAX {
            return place;
        }
        let places = &mut self.extras.get_or_insert_default().positions;
        if places.is_empty() {
            let all = self.subscriptions.iter().map(|found| found.channel);
            places.extend(all.zip(0..));
        } else {
            places.insert(channel, u32::try_from(place).unwrap_or(u32::MAX));
        }
        debug_assert_eq!(places.len(), self.subscriptions.len(), "each has its place");
        place
    }

    /// The last subscription of the list takes the place, so the caller must change its position in its channel.
    pub(in crate::shard) fn remove_subscription(&mut self, place: usize) -> Option<Subscription> {
        let removed = self.subscriptions.swap_remove(place)?;
        if let Some(extras) = &mut self.extras
            && !extras.positions.is_empty()
        {
            let places = &mut extras.positions;
            if self.subscriptions.len() <= SUBSCRIPTIONS_SEARCHED_MAX {
                *places = HashMap::default();
            } else {
                places.remove(&removed.channel);
                if let Some(moved) = self.subscriptions.get(place) {
                    places.insert(moved.channel, u32::try_from(place).unwrap_or(u32::MAX));
                }
            }
        }
        debug_assert!(self.position_of(removed.channel).is_none(), "a channel is in the list once");
        debug_assert!(
            self.extras.as_ref().is_none_or(|extras| {
                extras.positions.is_empty() || extras.positions.len() == self.subscriptions.len()
            }),
            "a table of places has all of them"
        );
        Some(removed)
    }

    /// In constant time: a client that is in many channels cannot make each message cost more.
    pub(in crate::shard) fn position_of(&self, channel: ChannelSlot) -> Option<usize> {
        if self.subscriptions.len() <= SUBSCRIPTIONS_SEARCHED_MAX {
            return self.subscriptions.iter().position(|found| found.channel == channel);
        }
        let place = self.extras.as_ref()?.positions.get(&channel)?;
        debug_assert!((*place as usize) < self.subscriptions.len(), "a place in the list");
        debug_assert_eq!(
            self.subscriptions[*place as usize].channel, channel,
            "the place of this channel"
        );
        Some(*place as usize)
    }

    /// Its socket's send buffer is full: the kernel reports when it has room.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    #[must_use]
    pub fn is_overflowed(&self) -> bool {
        self.has_overflowed
    }

    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether it is signed in as that user, or some presence channel knows it as them (docs/PROTOCOL.md rule 70).
    pub(in crate::shard) fn is_known_as(&self, user_id: &str) -> bool {
        let is = |member: &UserId| &*member.text == user_id;
        self.signed_in().is_some_and(|signed_in| is(&signed_in.user))
            || self.subscriptions.iter().any(|found| found.member.as_deref().is_some_and(is))
    }

    pub(in crate::shard) fn signed_in(&self) -> Option<&SignedIn> {
        self.extras.as_ref()?.signed_in.as_ref()
    }
}

/// `None` for a connection that is closing, too: its input no longer counts. A function and not a method of `Local`, so
/// that other fields of `Local` can be borrowed beside it.
#[inline]
pub(super) fn get_open(
    connections: &mut Slots<Connection>,
    key: ConnectionKey,
) -> Option<&mut Connection> {
    let found = connections.get_mut(key.slot)?;
    (found.generation == key.generation && !found.is_closing).then_some(found)
}
