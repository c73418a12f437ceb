//! When connections were opened, without memory for each of them. PURE.
//!
//! A generation is a number that grows with each connection, so a list of the last number of each second is enough. If
//! second 7 ended with number 40 and second 8 with number 65, then number 50 was opened in second 8. The list has
//! `ENTRIES_MAX` entries. When it is full, the entry goes whose loss matters least: times are inexact by a few percent
//! of the age. A connection that another process transferred counts from its transfer.
//!
//! Limit: `ENTRIES_MAX` entries, as above. Cost: one entry for a second in which a connection opened; a look-up is a
//! binary search of `ENTRIES_MAX` entries.

/// 8 bytes each.
const ENTRIES_MAX: usize = 1_024;
/// Parts of a relation, which is an integer.
const SCALE: u64 = 1 << 20;

#[derive(Debug, Default)]
pub(in crate::shard) struct Openings {
    /// The last number that was given in this second, or earlier; both ascend.
    entries: Vec<(u32, u32)>,
}

impl Openings {
    /// The second has ended, and `sequence` was the last number given. Call it for each second.
    pub(super) fn note_second(&mut self, second: u32, sequence: u32) {
        debug_assert!(
            self.entries.last().is_none_or(|(last, _)| *last < second),
            "each second ends once"
        );
        match self.entries.last() {
            Some((_, last)) if *last == sequence => return,
            Some((_, last)) if *last > sequence => self.entries.clear(),
            _ => {}
        }
        if self.entries.len() >= ENTRIES_MAX {
            self.forget_one(second);
        }
        self.entries.push((second, sequence));
        debug_assert!(self.entries.len() <= ENTRIES_MAX, "one made room");
        debug_assert!(self.entries.is_sorted(), "seconds and numbers ascend");
    }

    /// Removes the entry whose neighbors are nearest to each other, in relation to their age.
    fn forget_one(&mut self, now: u32) {
        debug_assert!(!self.entries.is_empty(), "there is one to forget");
        let loss = |window: &[(u32, u32)]| match window {
            [(before, _), (at, _), (after, _)] => {
                let age = u64::from(now.saturating_sub(*at)).max(1);
                u64::from(after.saturating_sub(*before)) * SCALE / age
            }
            _ => u64::MAX,
        };
        let losses = self.entries.windows(3).map(loss);
        let least = losses.enumerate().min_by_key(|(_, loss)| *loss);
        // The window begins at the entry before the one that goes.
        self.entries.remove(least.map_or(0, |(index, _)| index + 1));
        debug_assert!(self.entries.len() < ENTRIES_MAX, "there is room for one more");
    }

    /// The second in which this connection was opened, or a later one; `None` in that second.
    pub(in crate::shard) fn opened_second(&self, generation: u32) -> Option<u32> {
        let at = self.entries.partition_point(|(_, last)| *last < generation);
        debug_assert!(
            at == 0 || self.entries[at - 1].1 < generation,
            "it was opened after the second before"
        );
        self.entries.get(at).map(|(second, _)| *second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_from_the_second_in_which_it_was_opened() {
        let mut openings = Openings::default();
        assert_eq!(openings.opened_second(1), None);
        for (second, sequence) in [(10, 3), (11, 3), (12, 7)] {
            openings.note_second(second, sequence);
        }
        let opened: Vec<_> = (1..=8).map(|generation| openings.opened_second(generation)).collect();
        let (ten, twelve) = (Some(10), Some(12));
        assert_eq!(opened, [ten, ten, ten, twelve, twelve, twelve, twelve, None]);
    }

    #[test]
    fn a_full_list_becomes_less_exact_and_stays_in_order() {
        let mut openings = Openings::default();
        const LAST: u32 = 20_000;
        for second in 0..LAST {
            openings.note_second(second, second + 1);
        }
        assert!(openings.entries.len() <= ENTRIES_MAX && openings.entries.is_sorted());
        for generation in [1, 10, 1_000, 10_000, 19_000, 19_900, 19_999, LAST] {
            let (opened, truth) = (openings.opened_second(generation).unwrap(), generation - 1);
            let age = LAST - truth;
            assert!(opened >= truth && opened - truth <= age / 20, "{generation}: {opened}");
        }
        openings.note_second(LAST, 5);
        assert_eq!(openings.opened_second(5), Some(LAST), "the numbers began again");
    }
}
