//! The channels with subscribers on this core: name to dense subscriber list. PURE: plain data, no locks, no
//! atomics.
//!
//! Invariants: an index is good from `insert` to `remove`. `Shard::drop_if_unused` alone removes a channel, when it has
//! neither subscribers nor unanswered questions, so the index in any `Subscription` is good. An index that may be stale
//! goes to `find_mut`. `SubscriptionState::Active::position` and `Subscriber::subscription_index` name each other's
//! entry: `acknowledge`, `import_subscription`, `leave` and `remove_subscriber` change both.

use hashbrown::HashTable;
use slab::Slab;

use crate::app::AppIndex;
use crate::shard::channel_key::ChannelKey;

/// One subscriber: its slot, and where in its connection's list the subscription stands (so that both sides
/// can move entries in constant time).
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Subscriber {
    pub(in crate::shard) slot: u32,
    pub(in crate::shard) subscription_index: u32,
}

/// A channel as this core sees it. Lives while it has subscribers or unanswered questions to its home.
#[derive(Debug)]
pub(in crate::shard) struct LocalChannel {
    pub(in crate::shard) key: ChannelKey,
    pub(in crate::shard) subscribers: Vec<Subscriber>,
    /// `Subscribe` mails whose `Subscribed` has not come back.
    pub(in crate::shard) pending: u32,
    /// Home knows of this core's interest, and its events reach this core from here on.
    pub(in crate::shard) active: bool,
    /// The number of subscribers has changed, and the home is to be sent it.
    pub(in crate::shard) count_changed: bool,
}

const _: () = assert!(size_of::<LocalChannel>() <= 64);

impl LocalChannel {
    /// Adds a subscriber by its slot and the place in its list of subscriptions; its position here.
    pub(in crate::shard) fn add(&mut self, slot: u32, subscription_index: u32) -> u32 {
        let position = u32::try_from(self.subscribers.len()).unwrap_or(u32::MAX);
        if self.subscribers.is_empty() {
            self.subscribers.reserve_exact(1);
        }
        self.subscribers.push(Subscriber { slot, subscription_index });
        position
    }
}

pub(in crate::shard) struct ChannelTable {
    /// One index for each app, grown as apps get channels: a listing of an app's channels must not cost what the
    /// channels of all other apps are. Each channel is in one index, so this takes no more memory than one for all.
    by_app: Vec<HashTable<u32>>,
    channels: Slab<LocalChannel>,
}

impl ChannelTable {
    /// `reserved` channels find room without moving: address space, not memory.
    pub(in crate::shard) fn new(reserved: usize) -> Self {
        Self { by_app: Vec::new(), channels: Slab::with_capacity(reserved) }
    }

    pub(in crate::shard) fn get(&self, index: u32) -> &LocalChannel {
        &self.channels[index as usize]
    }

    pub(in crate::shard) fn get_mut(&mut self, index: u32) -> &mut LocalChannel {
        &mut self.channels[index as usize]
    }

    /// `get` of a channel that may be gone.
    pub(in crate::shard) fn find_at(&self, index: u32) -> Option<&LocalChannel> {
        self.channels.get(index as usize)
    }

    /// `get_mut` of a channel that may be gone.
    pub(in crate::shard) fn find_mut(&mut self, index: u32) -> Option<&mut LocalChannel> {
        self.channels.get_mut(index as usize)
    }

    /// All channels with their indexes.
    pub(in crate::shard) fn entries(&self) -> impl Iterator<Item = (u32, &LocalChannel)> {
        self.channels.iter().map(|(at, channel)| (u32::try_from(at).unwrap_or(u32::MAX), channel))
    }

    /// Entries of the indexes of all apps: as many as channels.
    pub(in crate::shard) fn indexed(&self) -> usize {
        self.by_app.iter().map(HashTable::len).sum()
    }

    pub(in crate::shard) fn iter(&self) -> impl Iterator<Item = &LocalChannel> {
        self.channels.iter().map(|(_, channel)| channel)
    }

    /// The channels of one app, in no order.
    pub(in crate::shard) fn of_app(&self, app: AppIndex) -> impl Iterator<Item = &LocalChannel> {
        let index = self.by_app.get(usize::from(app.0));
        index.into_iter().flatten().map(|index| &self.channels[*index as usize])
    }

    pub(in crate::shard) fn find(&self, hash: u64, app: AppIndex, name: &str) -> Option<u32> {
        let matches = |index: &u32| {
            let key = &self.channels[*index as usize].key;
            key.hash() == hash && key.name() == name
        };
        self.by_app.get(usize::from(app.0))?.find(hash, matches).copied()
    }

    pub(in crate::shard) fn find_key(&self, key: &ChannelKey) -> Option<u32> {
        self.find(key.hash(), key.app(), key.name())
    }

    /// Adds a channel that is not there yet.
    pub(in crate::shard) fn insert(&mut self, key: ChannelKey) -> u32 {
        debug_assert!(self.find_key(&key).is_none(), "a channel is in the table once");
        let (hash, app) = (key.hash(), key.app());
        let channel = LocalChannel {
            key,
            subscribers: Vec::new(),
            pending: 0,
            active: false,
            count_changed: false,
        };
        let index = u32::try_from(self.channels.insert(channel)).unwrap_or(u32::MAX);
        assert!(index != u32::MAX, "a core has fewer than 2^32 channels");
        let channels = &self.channels;
        of_app_mut(&mut self.by_app, app)
            .insert_unique(hash, index, |index| channels[*index as usize].key.hash());
        index
    }

    /// Removes a channel that nobody needs any longer.
    pub(in crate::shard) fn remove(&mut self, index: u32) -> LocalChannel {
        let channel = self.channels.remove(index as usize);
        debug_assert!(channel.subscribers.is_empty() && channel.pending == 0, "still in use");
        forget(&mut self.by_app, &channel.key, index, |index| {
            self.channels[*index as usize].key.hash()
        });
        channel
    }

    pub(in crate::shard) fn len(&self) -> usize {
        self.channels.len()
    }
}

/// The index of an app, made if it is the app's first channel.
pub(in crate::shard) fn of_app_mut(
    by_app: &mut Vec<HashTable<u32>>,
    app: AppIndex,
) -> &mut HashTable<u32> {
    let app = usize::from(app.0);
    if by_app.len() <= app {
        by_app.resize_with(app + 1, HashTable::new);
    }
    &mut by_app[app]
}

/// Takes a channel out of its app's index. An index that has become far too large is made smaller: a listing looks at
/// all its places, and an app that had a million channels for a minute would pay for them for ever.
pub(in crate::shard) fn forget(
    by_app: &mut Vec<HashTable<u32>>,
    key: &ChannelKey,
    index: u32,
    hash: impl Fn(&u32) -> u64,
) {
    /// Rehashing what is left is paid for by the removals before it, of which there were at least seven times as many.
    const SPARSE: usize = 8;
    const CAPACITY_KEPT: usize = 1024;
    let table = of_app_mut(by_app, key.app());
    if let Ok(entry) = table.find_entry(key.hash(), |found| *found == index) {
        entry.remove();
    }
    if table.capacity() > CAPACITY_KEPT && table.len() < table.capacity() / SPARSE {
        table.shrink_to(2 * table.len(), hash);
    }
}
