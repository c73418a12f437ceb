//! When connections were opened, without memory for each of them. PURE.
//!
//! A generation is a number that grows with each connection, so a list of the last number of each second tells the
//! second of any of them. The list has `ENTRIES_MAX` entries: when it is full, every second one is dropped, and times of
//! old connections become less exact. A connection that another process transferred counts from its transfer.

/// 8 bytes each.
const ENTRIES_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(in crate::shard) struct Openings {
    /// The last number that was given in this second, or earlier; both ascend.
    entries: Vec<(u32, u32)>,
}

impl Openings {
    /// The second has ended, and `sequence` was the last number given. Call it for each second.
    pub(super) fn note(&mut self, second: u32, sequence: u32) {
        match self.entries.last() {
            Some((_, last)) if *last == sequence => return,
            // After 2^32 connections.
            Some((_, last)) if *last > sequence => self.entries.clear(),
            _ => {}
        }
        if self.entries.len() >= ENTRIES_MAX {
            let mut is_kept = false;
            self.entries.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.entries.push((second, sequence));
    }

    /// The second in which this connection was opened, or a later one; `None` in that second.
    pub(in crate::shard) fn opened(&self, generation: u32) -> Option<u32> {
        let at = self.entries.partition_point(|(_, last)| *last < generation);
        self.entries.get(at).map(|(second, _)| *second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_from_the_second_in_which_it_was_opened() {
        let mut openings = Openings::default();
        assert_eq!(openings.opened(1), None);
        for (second, sequence) in [(10, 3), (11, 3), (12, 7)] {
            openings.note(second, sequence);
        }
        let opened: Vec<_> = (1..=8).map(|generation| openings.opened(generation)).collect();
        let (ten, twelve) = (Some(10), Some(12));
        assert_eq!(opened, [ten, ten, ten, twelve, twelve, twelve, twelve, None]);
    }

    #[test]
    fn a_full_list_becomes_less_exact_and_stays_in_order() {
        let mut openings = Openings::default();
        for second in 0..100_000 {
            openings.note(second, second + 1);
        }
        assert!(openings.entries.len() <= ENTRIES_MAX);
        assert!(openings.entries.is_sorted());
        assert_eq!(openings.opened(100_000), Some(99_999));
        let early = openings.opened(50_000).unwrap();
        assert!((49_999..60_000).contains(&early), "{early}");
        openings.note(100_000, 5);
        assert_eq!(openings.opened(5), Some(100_000), "the numbers began again");
    }
}
