//! Connections that must sign in or join a private channel in time, and until when (docs/PROTOCOL.md rule 44). PURE.
//!
//! Owns a queue of deadlines for each app and each length of this time, because only deadlines of equal length come in
//! order: a reload may shorten the time. Those of another process have a queue of their own, which `sort` orders. Does
//! not know whether a connection is still open or was authorized since: `liveness.rs` looks when a deadline is over. So
//! an entry outlives its connection. Limit: `limits::stale_entries_max` of the open connections of the core, because
//! `sweep_if_stale` removes entries that are of no use; no queue is empty. Cost: one entry for each opening of a
//! connection of such an app, one step for each deadline that is over and each queue; a sweep is constant for each
//! opening on average.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::connection::ConnectionKey;
use crate::app::AppIndex;
use crate::limits::{ASSERTED_LEN_MAX, stale_entries_max};

/// Which deadlines are in order: those of one app whose connections were given equally many seconds. `None`: those that
/// came from another process.
type Queue = (AppIndex, Option<u32>);

/// Deadlines in seconds of the shard's clock.
#[derive(Debug, Default)]
pub(super) struct UnauthorizedTable {
    by_app: HashMap<Queue, VecDeque<(u32, ConnectionKey)>, foldhash::fast::FixedState>,
    /// Entries of all queues.
    len: usize,
}

impl UnauthorizedTable {
    /// For a connection that has `seconds` from `now` on.
    pub(super) fn add(&mut self, app: AppIndex, now: u32, seconds: u32, key: ConnectionKey) {
        let deadline = now.saturating_add(seconds);
        let queue = self.by_app.entry((app, Some(seconds))).or_default();
        debug_assert!(
            queue.back().is_none_or(|(at, _)| *at <= deadline),
            "the clock of a shard does not run backwards"
        );
        queue.push_back((deadline, key));
        self.len += 1;
    }

    /// For a connection of another process. Call `sort` after the last one.
    pub(super) fn add_transferred(&mut self, app: AppIndex, deadline: u32, key: ConnectionKey) {
        self.by_app.entry((app, None)).or_default().push_back((deadline, key));
        self.len += 1;
    }

    /// Entries, those included whose connection has ended or was authorized.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, ConnectionKey)> {
        self.by_app.values().flatten().copied()
    }

    /// Removes entries of connections that are `awaited` no longer, if there are many more entries than connections.
    pub(super) fn sweep_if_stale(
        &mut self,
        connections: usize,
        awaited: impl Fn(ConnectionKey) -> bool,
    ) {
        if self.len <= stale_entries_max(connections) {
            return;
        }
        self.by_app.retain(|_, queue| {
            queue.retain(|(_, key)| awaited(*key));
            !queue.is_empty()
        });
        self.len = self.by_app.values().map(VecDeque::len).sum();
        debug_assert!(self.len <= connections, "each open connection is in one queue, once");
    }

    /// Removes the entries whose time is over. Returns their connections, and how many seconds each had; `None` if
    /// another process gave it its time.
    pub(super) fn take_due(&mut self, now: u32) -> Vec<(ConnectionKey, Option<u32>)> {
        let mut due = Vec::new();
        self.by_app.retain(|(_, seconds), queue| {
            while let Some((_, key)) = queue.pop_front_if(|(at, _)| *at <= now) {
                due.push((key, *seconds));
            }
            !queue.is_empty()
        });
        debug_assert!(due.len() <= self.len, "`add` has counted them");
        self.len = self.len.saturating_sub(due.len());
        debug_assert!(
            self.len > ASSERTED_LEN_MAX || self.iter().all(|(at, _)| at > now),
            "the time of the others is not over"
        );
        due
    }

    /// Puts the entries in the order of their deadlines, after those of another process were added.
    pub(super) fn sort(&mut self) {
        for queue in self.by_app.values_mut() {
            queue.make_contiguous().sort_by_key(|(at, _)| *at);
        }
        debug_assert!(
            self.by_app.values().all(|queue| queue.iter().is_sorted_by_key(|(at, _)| *at)),
            "`take_due` takes them from the front"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Slot;

    fn key(number: u32) -> ConnectionKey {
        ConnectionKey { slot: Slot::new(number % 8), generation: number }
    }

    #[test]
    fn deadlines_are_taken_when_they_are_over_in_the_order_of_each_app() {
        let mut table = UnauthorizedTable::default();
        table.add(AppIndex(0), 0, 30, key(1));
        table.add(AppIndex(1), 0, 5, key(2));
        table.add(AppIndex(0), 1, 30, key(3));
        assert_eq!(table.take_due(4), []);
        assert_eq!(table.take_due(5), [(key(2), Some(5))]);
        assert_eq!(table.take_due(30), [(key(1), Some(30))]);
        assert_eq!((table.len(), table.iter().collect::<Vec<_>>()), (1, vec![(31, key(3))]));
    }

    #[test]
    fn a_shorter_time_does_not_wait_for_the_longer_one_of_before() {
        let mut table = UnauthorizedTable::default();
        table.add(AppIndex(0), 0, 600, key(1));
        table.add(AppIndex(0), 1, 5, key(2));
        table.add_transferred(AppIndex(0), 300, key(3));
        table.add_transferred(AppIndex(0), 4, key(4));
        table.sort();
        table.add(AppIndex(0), 3, 5, key(5));
        assert_eq!(table.take_due(4), [(key(4), None)]);
        assert_eq!(table.take_due(6), [(key(2), Some(5))]);
        assert_eq!(table.take_due(8), [(key(5), Some(5))]);
        assert_eq!((table.take_due(300), table.by_app.len()), (vec![(key(3), None)], 1));
        assert_eq!((table.take_due(600), table.by_app.len()), (vec![(key(1), Some(600))], 0));
    }

    /// A client that connects and leaves again and again does not fill the queue within the time that it has.
    #[test]
    fn entries_of_connections_that_have_ended_do_not_pile_up() {
        let mut table = UnauthorizedTable::default();
        table.add(AppIndex(0), 0, 60, key(0));
        for number in 1..10_000 {
            let is_open = |open: ConnectionKey| open == key(0) || open == key(number);
            table.sweep_if_stale(2, is_open);
            table.add(AppIndex(u16::from(number % 2 == 0)), 0, 60, key(number));
            assert!(table.len() <= stale_entries_max(2) + 1, "{} entries", table.len());
        }
        assert!(
            table.take_due(60).contains(&(key(0), Some(60))),
            "that of an open connection stays"
        );
        assert_eq!(table.len(), 0);
    }
}
