//! Connections that must sign in or join a private channel in time, and until when (docs/PROTOCOL.md rule 44). PURE.
//!
//! Owns a queue of deadlines for each app that has such a time, because the deadlines of one app come in order. Does
//! not know whether a connection is still open or was authorized since: `liveness.rs` looks when a deadline is over. So
//! an entry outlives its connection. Limit: `limits::stale_entries_max` of the open connections of the core, because
//! `sweep_if_stale` removes entries that are of no use. Cost: one entry for each opening of a connection of such an
//! app, one step for each deadline that is over; a sweep is constant for each opening on average.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::connection::ConnectionKey;
use crate::app::AppIndex;
use crate::limits::stale_entries_max;

/// Deadlines in seconds of the shard's clock.
#[derive(Debug, Default)]
pub(super) struct UnauthorizedTable {
    by_app: HashMap<AppIndex, VecDeque<(u32, ConnectionKey)>, foldhash::fast::FixedState>,
    /// Entries of all queues.
    len: usize,
}

impl UnauthorizedTable {
    pub(super) fn add(&mut self, app: AppIndex, deadline_seconds: u32, key: ConnectionKey) {
        self.by_app.entry(app).or_default().push_back((deadline_seconds, key));
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

    /// Removes the entries whose time is over, and returns their connections.
    pub(super) fn take_due(&mut self, now: u32) -> Vec<ConnectionKey> {
        let mut due = Vec::new();
        for queue in self.by_app.values_mut() {
            while let Some((_, key)) = queue.pop_front_if(|(at, _)| *at <= now) {
                due.push(key);
            }
        }
        debug_assert!(due.len() <= self.len, "`add` has counted them");
        self.len = self.len.saturating_sub(due.len());
        debug_assert!(
            self.by_app.values().all(|queue| queue.front().is_none_or(|(at, _)| *at > now)),
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
        table.add(AppIndex(0), 30, key(1));
        table.add(AppIndex(1), 5, key(2));
        table.add(AppIndex(0), 31, key(3));
        assert_eq!(table.take_due(4), []);
        assert_eq!(table.take_due(5), [key(2)]);
        assert_eq!(table.take_due(30), [key(1)]);
        assert_eq!((table.len(), table.iter().collect::<Vec<_>>()), (1, vec![(31, key(3))]));
    }

    /// A client that connects and leaves again and again does not fill the queue within the time that it has.
    #[test]
    fn entries_of_connections_that_have_ended_do_not_pile_up() {
        let mut table = UnauthorizedTable::default();
        table.add(AppIndex(0), 60, key(0));
        for number in 1..10_000 {
            let is_open = |open: ConnectionKey| open == key(0) || open == key(number);
            table.sweep_if_stale(2, is_open);
            table.add(AppIndex(u16::from(number % 2 == 0)), 60, key(number));
            assert!(table.len() <= stale_entries_max(2) + 1, "{} entries", table.len());
        }
        assert!(table.take_due(60).contains(&key(0)), "that of an open connection stays");
        assert_eq!(table.len(), 0);
    }
}
