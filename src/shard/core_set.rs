//! A set of cores as bits. PURE.
//!
//! Plain values of two words, because each channel at its home has one and each user has two (`HomeChannel` has a size
//! budget) and a publish walks over it. Does not know how many cores the process has.
//!
//! Limit: `limits::WORKERS_MAX`, 128 cores. Cost: one bit for an insertion; a walk is one step for each core in the
//! set, no allocation.

use crate::limits;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CoreSet([u64; 2]);

const _: () = assert!(8 * size_of::<CoreSet>() >= limits::WORKERS_MAX, "a bit for each core");

impl CoreSet {
    pub(super) fn insert(&mut self, core: u16) {
        debug_assert!(usize::from(core) < limits::WORKERS_MAX, "a core of this process");
        self.0[usize::from(core >> 6)] |= 1 << (core & 63);
        debug_assert!(self.contains(core) && !self.is_empty());
    }

    pub(super) fn remove(&mut self, core: u16) {
        self.0[usize::from(core >> 6)] &= !(1 << (core & 63));
        debug_assert!(!self.contains(core));
    }

    pub(super) fn contains(self, core: u16) -> bool {
        debug_assert!(usize::from(core) < limits::WORKERS_MAX, "a core of this process");
        self.0[usize::from(core >> 6)] & (1 << (core & 63)) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == [0, 0]
    }

    /// The cores in ascending order. Costs a step for each of them, not one for each of 128: every publish comes here.
    /// One wide word, because a walk over two words cost a publish 80 instructions more.
    pub(super) fn iter(self) -> impl Iterator<Item = u16> {
        let [low, high] = self.0;
        let mut bits = u128::from(low) | u128::from(high) << 64;
        std::iter::from_fn(move || {
            let core = u16::try_from(bits.trailing_zeros()).ok().filter(|_| bits != 0)?;
            bits &= bits - 1;
            Some(core)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_contains_the_cores_that_were_inserted_and_not_removed(
            changes in prop::collection::vec((0..128_u16, any::<bool>()), 0..300),
        ) {
            let (mut set, mut expected) = (CoreSet::default(), BTreeSet::new());
            for (core, is_in) in changes {
                if is_in {
                    set.insert(core);
                    expected.insert(core);
                } else {
                    set.remove(core);
                    expected.remove(&core);
                }
            }
            prop_assert_eq!(set.is_empty(), expected.is_empty());
            prop_assert!((0..128).all(|core| set.contains(core) == expected.contains(&core)));
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
        }
    }
}
