//! Tables of a shard by slot: connections, and the channels of either side. PURE.
//!
//! Owns the entries and the indexes by key; does not know what an entry is. A slot names an entry while it is there,
//! and another one afterwards. Code that keeps a slot longer than a call keeps a generation, or the channel's key,
//! beside it. Slots of connections (`Slot`) and of channels (`ChannelSlot`) have types of their own, because a
//! subscription names both. Indexing with a slot that is free panics; `get` does not.
//!
//! Limit: 2^32 - 1 entries, which no core has memory for. What bounds the entries is with each table. Cost: an index or
//! a hash look-up, no allocation unless the table grows.

use std::fmt;
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;
use slab::Slab;

use super::channel_key::ChannelKey;
use crate::app::AppIndex;
use crate::slot::Slot;

/// A slab whose keys cannot be taken for other numbers, and which knows where a walk over its slots ends.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slab: Slab<T>,
    /// Above each slot that was ever in use, so a walk in slices finds entries that move in behind it.
    slots_end: Slot,
}

impl<T> Slots<T> {
    /// `reserved` entries find room without moving: address space, not memory.
    pub(super) fn new(reserved: usize) -> Self {
        Self { slab: Slab::with_capacity(reserved), slots_end: Slot::FIRST }
    }

    pub(super) fn insert(&mut self, value: T) -> Slot {
        let slot = Slot::of(self.slab.insert(value));
        self.slots_end = self.slots_end.max(slot.next());
        debug_assert!(slot < self.slots_end, "all slots in use are below it");
        slot
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Option<&T> {
        self.slab.get(slot.index())
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.slab.get_mut(slot.index())
    }

    /// Panics if the slot is free: a slot is freed once, by its owner.
    pub(super) fn remove(&mut self, slot: Slot) -> T {
        debug_assert!(self.slab.contains(slot.index()), "a slot is freed once");
        self.slab.remove(slot.index())
    }

    pub(super) fn len(&self) -> usize {
        debug_assert!(self.slab.len() <= self.slots_end.index(), "all slots in use are below it");
        self.slab.len()
    }

    /// The end of a walk over all slots. It never becomes less.
    pub(super) fn slots_end(&self) -> Slot {
        debug_assert!(self.slab.len() <= self.slots_end.index(), "all slots in use are below it");
        self.slots_end
    }

    /// In the order of slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        self.slab.iter().map(|(slot, value)| (Slot::of(slot), value))
    }
}

impl<T> Index<Slot> for Slots<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: Slot) -> &T {
        &self.slab[slot.index()]
    }
}

impl<T> IndexMut<Slot> for Slots<T> {
    #[inline]
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        &mut self.slab[slot.index()]
    }
}

/// Of a channel in the table of its side: the local side and the home side have different slots for one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ChannelSlot(Slot);

impl ChannelSlot {
    pub(super) const fn new(number: u32) -> Self {
        Self(Slot::new(number))
    }

    pub(super) const fn number(self) -> u32 {
        self.0.number()
    }
}

impl fmt::Display for ChannelSlot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

pub(super) trait Keyed {
    fn key(&self) -> &ChannelKey;
}

/// Channels, found by slot or by key. Each channel has one slot and is in the index of its app once.
#[derive(Debug)]
pub(super) struct KeyedSlots<T> {
    /// One index for each app, grown as apps get channels: a listing of an app's channels must not cost what the
    /// channels of all other apps are. Each channel is in one index, so this takes no more memory than one for all.
    by_app: Vec<HashTable<ChannelSlot>>,
    slots: Slots<T>,
}

impl<T: Keyed> KeyedSlots<T> {
    /// See `Slots::new`.
    pub(super) fn new(reserved: usize) -> Self {
        Self { by_app: Vec::new(), slots: Slots::new(reserved) }
    }

    pub(super) fn find(&self, hash: u64, app: AppIndex, name: &str) -> Option<ChannelSlot> {
        let matches = |slot: &ChannelSlot| {
            let key = self.slots[slot.0].key();
            key.hash() == hash && key.name() == name
        };
        self.by_app.get(usize::from(app.0))?.find(hash, matches).copied()
    }

    pub(super) fn find_key(&self, key: &ChannelKey) -> Option<ChannelSlot> {
        self.find(key.hash(), key.app(), key.name())
    }

    /// The caller has looked for the key: a second entry would be found by no index.
    pub(super) fn insert(&mut self, channel: T) -> ChannelSlot {
        debug_assert!(self.find_key(channel.key()).is_none(), "a channel is in the table once");
        let (hash, app) = (channel.key().hash(), channel.key().app());
        let slot = ChannelSlot(self.slots.insert(channel));
        let slots = &self.slots;
        app_index_mut(&mut self.by_app, app)
            .insert_unique(hash, slot, |slot| slots[slot.0].key().hash());
        debug_assert_eq!(
            self.find(hash, app, self.slots[slot.0].key().name()),
            Some(slot),
            "it is found"
        );
        slot
    }

    /// Also makes the app's index smaller if it has become far too large: a listing looks at all its places, and an app
    /// that had a million channels for a minute would pay for them for ever.
    pub(super) fn remove(&mut self, slot: ChannelSlot) -> T {
        /// Rehashing what is left is paid for by the removals before it, of which there were at least seven times as
        /// many.
        const SPARSE: usize = 8;
        const CAPACITY_KEPT: usize = 1024;
        let channel = self.slots.remove(slot.0);
        let key = channel.key();
        let index = app_index_mut(&mut self.by_app, key.app());
        let entry = index.find_entry(key.hash(), |found| *found == slot);
        debug_assert!(entry.is_ok(), "each channel is in the index of its app");
        if let Ok(entry) = entry {
            entry.remove();
        }
        if index.capacity() > CAPACITY_KEPT && index.len() < index.capacity() / SPARSE {
            let slots = &self.slots;
            index.shrink_to(2 * index.len(), |slot| slots[slot.0].key().hash());
        }
        debug_assert!(
            index.find(channel.key().hash(), |found| *found == slot).is_none(),
            "its slot is another channel's from here on"
        );
        debug_assert!(
            self.slots.len() > crate::limits::ASSERTED_LEN_MAX
                || self.slots.len() == self.indexed_count(),
            "each channel is in one index"
        );
        channel
    }

    pub(super) fn get(&self, slot: ChannelSlot) -> Option<&T> {
        self.slots.get(slot.0)
    }

    pub(super) fn get_mut(&mut self, slot: ChannelSlot) -> Option<&mut T> {
        self.slots.get_mut(slot.0)
    }

    /// See `Slots::slots_end`.
    pub(super) fn slots_end(&self) -> ChannelSlot {
        ChannelSlot(self.slots.slots_end())
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (ChannelSlot, &T)> {
        self.slots.iter().map(|(slot, channel)| (ChannelSlot(slot), channel))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().map(|(_, channel)| channel)
    }

    /// In no order.
    pub(super) fn of_app(&self, app: AppIndex) -> impl Iterator<Item = &T> {
        let index = self.by_app.get(usize::from(app.0));
        debug_assert!(
            index.is_none_or(|index| index.len() <= self.slots.len()),
            "the channels of an app are some of all"
        );
        index.into_iter().flatten().map(|slot| &self.slots[slot.0])
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// For `check_invariants`: as many as `len`.
    pub(super) fn indexed_count(&self) -> usize {
        debug_assert!(
            self.by_app.iter().flatten().all(|slot| self.slots.get(slot.0).is_some()),
            "an index names channels that are there"
        );
        self.by_app.iter().map(HashTable::len).sum()
    }
}

impl<T: Keyed> Index<ChannelSlot> for KeyedSlots<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: ChannelSlot) -> &T {
        &self.slots[slot.0]
    }
}

impl<T: Keyed> IndexMut<ChannelSlot> for KeyedSlots<T> {
    #[inline]
    fn index_mut(&mut self, slot: ChannelSlot) -> &mut T {
        &mut self.slots[slot.0]
    }
}

/// Grows the list up to this app, for its first channel.
fn app_index_mut(
    by_app: &mut Vec<HashTable<ChannelSlot>>,
    app: AppIndex,
) -> &mut HashTable<ChannelSlot> {
    let app = usize::from(app.0);
    if by_app.len() <= app {
        by_app.resize_with(app + 1, HashTable::new);
    }
    debug_assert!(app < by_app.len(), "each app up to this one has an index");
    &mut by_app[app]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::channel_key::ChannelKeys;

    impl Keyed for ChannelKey {
        fn key(&self) -> &ChannelKey {
            self
        }
    }

    fn key(app: u16, name: &str) -> ChannelKey {
        ChannelKeys::new(7, 1).make(AppIndex(app), name).unwrap()
    }

    #[test]
    fn a_channel_is_found_by_slot_and_by_key_until_it_is_removed() {
        let mut table = KeyedSlots::new(0);
        let (of_first, of_second) = (table.insert(key(0, "a")), table.insert(key(1, "a")));
        assert_eq!(table.find_key(&key(0, "a")), Some(of_first), "names are by app");
        assert_eq!(table.find_key(&key(1, "a")), Some(of_second));
        assert_eq!(table.find_key(&key(0, "b")), None);
        assert_eq!(table.find_key(&key(2, "a")), None, "an app that has had none");
        assert_eq!(table.of_app(AppIndex(1)).count(), 1);
        table.remove(of_first);
        assert_eq!((table.find_key(&key(0, "a")), table.get(of_first).is_none()), (None, true));
        assert_eq!((table.len(), table.indexed_count()), (1, 1));
        assert_eq!(table.insert(key(0, "c")), of_first, "a slot is used again");
        assert_eq!(table[of_first].name(), "c");
    }

    #[test]
    fn an_index_that_was_large_shrinks_and_still_finds_its_entries() {
        let mut table = KeyedSlots::new(0);
        let slots: Vec<ChannelSlot> =
            (0..20_000).map(|at| table.insert(key(0, &format!("n{at}")))).collect();
        let before = table.by_app[0].capacity();
        slots[10..].iter().for_each(|slot| _ = table.remove(*slot));
        assert!(table.by_app[0].capacity() < before / 8, "{}", table.by_app[0].capacity());
        for (at, slot) in slots.iter().take(10).enumerate() {
            assert_eq!(table.find_key(&key(0, &format!("n{at}"))), Some(*slot));
        }
    }
}
