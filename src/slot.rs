//! `Slot`: the place of a connection in the tables of its core. PURE.
//!
//! A slot names an entry while it is there, and another one afterwards. So code that keeps a slot longer than a call
//! keeps a generation beside it (`ConnectionKey`, `SessionKey`). Several tables of a core are parallel: the sockets of
//! the reactor, clients that a proxy has named, TLS. The type keeps slots apart from the other numbers of 32 bits that
//! stand beside them: generations, tickets, positions in a list, numbers of listeners.
//!
//! Limit: 2^28 slots, because a report of io_uring carries 28 bits of one (`limits::DESCRIPTORS_MAX` is below it).

use core::fmt;

/// The place of a connection in the tables of its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u32);

impl Slot {
    pub const FIRST: Self = Self(0);

    #[must_use]
    #[inline]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The slot of a table's entry. No table has an entry whose index has more than 32 bits.
    ///
    /// # Panics
    /// When the index has more.
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
