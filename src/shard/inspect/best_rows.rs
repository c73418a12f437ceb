//! The rows of the highest ranks of an answer, and what is left out. PURE.
//!
//! Owns a heap whose first row is the lowest, so that a row costs the logarithm of the limit and no slice sorts all of
//! them. A rank is a number, and another one that decides between equals. Limit: `rows_max` rows; `left_out` counts the
//! others. Cost: at most 15 steps for a row of 20,000, and one allocation each time the heap doubles.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// What decides whether a row stays.
pub(super) type Rank = (u64, u32);

#[derive(Debug)]
pub(super) struct BestRows<R> {
    rows: BinaryHeap<RankedRow<R>>,
    rows_max: usize,
    left_out: u64,
    /// The second numbers of the ranks of what is left out.
    left_out_rank_sum: u64,
}

#[derive(Debug)]
struct RankedRow<R> {
    rank: Rank,
    row: R,
}

/// The heap has its highest element first, so the order is that of falling ranks.
impl<R> Ord for RankedRow<R> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.rank.cmp(&self.rank)
    }
}

impl<R> PartialOrd for RankedRow<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> PartialEq for RankedRow<R> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl<R> Eq for RankedRow<R> {}

impl<R> BestRows<R> {
    pub(super) fn new(rows_max: usize) -> Self {
        debug_assert!(rows_max > 0, "an answer has room for a row");
        Self { rows: BinaryHeap::new(), rows_max, left_out: 0, left_out_rank_sum: 0 }
    }

    /// Of two equal ranks the row that came first stays. `row` is called only if the row may stay.
    pub(super) fn add(&mut self, rank: Rank, row: impl FnOnce() -> R) {
        if self.rows.len() < self.rows_max {
            return self.rows.push(RankedRow { rank, row: row() });
        }
        let mut dropped = rank;
        if let Some(mut lowest) = self.rows.peek_mut().filter(|lowest| lowest.rank < rank) {
            dropped = lowest.rank;
            *lowest = RankedRow { rank, row: row() };
        }
        debug_assert!(dropped <= rank, "a row is left out for a higher one only");
        self.left_out += 1;
        self.left_out_rank_sum += u64::from(dropped.1);
        debug_assert_eq!(self.rows.len(), self.rows_max, "rows are left out when there is no room");
    }

    /// Takes out the lowest rows that are left, `count` at most, lowest first.
    pub(super) fn drain_lowest(&mut self, count: usize) -> impl Iterator<Item = R> {
        debug_assert!(self.rows.len() <= self.rows_max, "the others are left out");
        std::iter::from_fn(|| self.rows.pop()).take(count).map(|ranked| ranked.row)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    pub(super) fn left_out_rank_sum(&self) -> u64 {
        self.left_out_rank_sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_the_highest_ranks_stay_and_the_others_are_counted() {
        const ROWS: u64 = 1_000;
        let mut best = BestRows::new(100);
        // 7 has no divisor in common with 1,000, so each number comes once, in a mixed order.
        for number in (0..ROWS).map(|number| number * 7 % ROWS) {
            best.add((number, 2), || number);
            assert!(best.rows.len() <= 100, "never more, not even for a time");
        }
        assert_eq!((best.left_out(), best.left_out_rank_sum()), (900, 1_800));
        let lowest: Vec<u64> = best.drain_lowest(60).collect();
        assert_eq!(lowest, (900..960).collect::<Vec<u64>>());
        assert!(!best.is_empty());
        assert_eq!(best.drain_lowest(60).collect::<Vec<u64>>(), (960..1_000).collect::<Vec<u64>>());
        assert!(best.is_empty());
    }

    #[test]
    fn between_equal_ranks_the_second_number_decides_and_then_the_first_row() {
        let mut best = BestRows::new(2);
        for (rank, name) in [((1, 1), "a"), ((1, 5), "b"), ((1, 1), "c"), ((1, 3), "d")] {
            best.add(rank, || name);
        }
        assert_eq!(best.drain_lowest(9).collect::<Vec<&str>>(), ["d", "b"]);
        assert_eq!((best.left_out(), best.left_out_rank_sum()), (2, 2));
    }
}
