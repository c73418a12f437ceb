//! `Slot`: the place of a connection in the tables of its core. PURE.
//!
//! A slot names an entry while it is there, and another one afterwards. So code that keeps a slot longer than a call
//! keeps a generation beside it (`ConnectionKey`, `SessionKey`). Several tables of a core are parallel: the sockets of
//! the reactor, clients that a proxy has named, TLS. The type keeps slots apart from the other numbers of 32 bits that
//! stand beside them: generations, tickets, positions in a list, numbers of listeners.
//!
//! Plain values: a slot owns no entry and does not know which table has it. Limit: 2^28 slots, because a report of
//! io_uring carries 28 bits of one (`limits::DESCRIPTORS_MAX` is below it). Cost: 4 bytes; a look-up is an index into a
//! table.

use core::fmt;

/// Says nothing about whether the entry is still that of the same connection: compare the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u32);

impl Slot {
    pub const FIRST: Self = Self(0);

    #[must_use]
    #[inline]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// For an entry that a table has just made: a process has fewer than 2^32 descriptors, and so fewer entries.
    ///
    /// # Panics
    /// When the index has more than 32 bits.
    #[must_use]
    #[inline]
    pub fn of(index: usize) -> Self {
        Self(u32::try_from(index).expect("a table has fewer than 2^32 entries"))
    }

    #[must_use]
    #[inline]
    pub const fn number(self) -> u32 {
        self.0
    }

    #[must_use]
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    #[must_use]
    #[inline]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}
