//! Choices: from a seed, or from a script of the fuzzer.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// A sequence of numbers from one seed; or choices from a script, and from a seed when it is over.
#[derive(Debug)]
pub(crate) struct Random {
    state: Cell<u64>,
    script: RefCell<VecDeque<u8>>,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let state = Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self { state, script: RefCell::default() }
    }

    pub(crate) fn scripted(script: &[u8]) -> Self {
        Self { script: RefCell::new(script.iter().copied().collect()), ..Self::new(1) }
    }

    pub(crate) fn script_is_over(&self) -> bool {
        self.script.borrow().is_empty()
    }

    pub(crate) fn next(&self) -> u64 {
        let mut state = self.state.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.state.set(state);
        state
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        if let Some(byte) = self.script.borrow_mut().pop_front() {
            return usize::from(byte) * bound.div_ceil(256).max(1) % bound;
        }
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    /// One of so many seeds, without a choice: the choices of the others stay as they were. Never with a script.
    pub(crate) fn is_one_seed_in(&self, count: u64) -> bool {
        let mixed = self.state.get().wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33;
        self.script_is_over() && mixed.is_multiple_of(count)
    }

    pub(crate) fn one_in(&self, count: usize) -> bool {
        self.below(count) == 0
    }
}
