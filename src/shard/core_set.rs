//! A set of cores as bits. PURE.

/// Up to 128 workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CoreSet([u64; 2]);

impl CoreSet {
    pub(super) fn insert(&mut self, core: u16) {
        self.0[usize::from(core >> 6)] |= 1 << (core & 63);
    }

    pub(super) fn remove(&mut self, core: u16) {
        self.0[usize::from(core >> 6)] &= !(1 << (core & 63));
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == [0, 0]
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u16> {
        (0..128_u16).filter(move |core| self.0[usize::from(core >> 6)] >> (core & 63) & 1 == 1)
    }
}
