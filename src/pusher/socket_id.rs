//! The public id of a connection: two numbers joined by a dot (docs/PROTOCOL.md rule 6). PURE: random bits are an
//! argument. A plain value.
//!
//! The first number modulo the number of workers is the worker that generated it, so no two workers generate the same
//! one. The rest is random, so an id cannot be guessed. Does not say where the connection is now, because a transfer
//! can move it. Limits: two numbers of 32 bits; a text of other numbers is no socket id. Cost: 8 bytes; `parse` and
//! `write` are linear in at most 21 digits, and allocate nothing.

use std::fmt;

/// Both numbers lie in `1 ..= 1_000_000_000`, as Reverb's do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct SocketId {
    first: u32,
    second: u32,
}

const NUMBER_MAX: u32 = 1_000_000_000;

impl SocketId {
    /// Makes an id for a connection of worker `core` out of `cores` from 64 random bits.
    ///
    /// # Panics
    /// When `core >= cores`.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of 64 random bits are meant")]
    pub fn make(core: u16, cores: u16, entropy: u64) -> Self {
        assert!(core < cores, "a worker index is below the number of workers");
        let cores = u32::from(cores);
        let blocks = NUMBER_MAX / cores - 1;
        let first = (entropy as u32 % blocks + 1) * cores + u32::from(core);
        let second = (entropy >> 32) as u32 % NUMBER_MAX + 1;
        Self { first, second }
    }

    /// The worker that generated this id, on a server with `cores` workers.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a remainder below cores fits u16")]
    pub fn core(self, cores: u16) -> u16 {
        (self.first % u32::from(cores)) as u16
    }

    /// Appends its text: without the machinery of `Display`, which cost as much as the rest of a greeting.
    pub fn write(self, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(digits.format(self.first).as_bytes());
        out.push(b'.');
        out.extend_from_slice(digits.format(self.second).as_bytes());
    }

    /// `None` for every text that cannot be the id of a connection.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, second) = text.split_once('.')?;
        Some(Self { first: number(first)?, second: number(second)? })
    }
}

/// Digits only: `parse` alone would accept a sign, and a leading zero would be a second spelling of one id.
fn number(text: &str) -> Option<u32> {
    if text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| *number <= NUMBER_MAX)
}

impl fmt::Display for SocketId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.first, self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn made_ids_name_their_core_and_parse_back(entropy: u64, cores in 1u16..=128, core in 0u16..128) {
            let core = core % cores;
            let id = SocketId::make(core, cores, entropy);
            prop_assert_eq!(id.core(cores), core);
            prop_assert!(id.first >= 1 && id.first <= NUMBER_MAX && id.second >= 1);
            prop_assert_eq!(SocketId::parse(&id.to_string()), Some(id));
            let mut text = Vec::new();
            id.write(&mut text);
            prop_assert_eq!(text, id.to_string().into_bytes());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = SocketId::parse(&text);
        }
    }

    #[test]
    fn texts_that_are_no_socket_id_are_refused() {
        for text in
            ["", ".", "1", "1.", ".1", "1.2.3", "+1.2", "01.2", "1.4294967296", "a.b", "1 .2"]
        {
            assert_eq!(SocketId::parse(text), None, "{text}");
        }
    }
}
