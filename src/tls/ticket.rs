//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): sealed state that a client brings back to resume a session. PURE
//! but for the random nonces.
//!
//! Owns the keys. The server keeps no state of sessions. Keys come from outside, so that all workers, the next process
//! and other nodes open each other's tickets; nodes derive them from a secret that they share. The first key of a list
//! seals, all open. Does not know the time: `server/certificates.rs` changes the keys.
//!
//! Limit: `TICKET_BYTES_MAX` for a ticket. Cost: two allocations for a new ticket, one for one that is opened, and a
//! comparison with the name of each key.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use rustls::server::ProducesTickets;
use zeroize::Zeroize;

/// Longest ticket in bytes. It contains a name, a cipher suite and a secret, and no certificate of a client, so a
/// longer one is not ours.
const TICKET_BYTES_MAX: usize = 1024;
const NAME_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
pub const TICKET_KEY_BYTES: usize = NAME_BYTES + KEY_BYTES;

/// A key with its name, which each ticket has in clear text.
#[derive(Clone)]
pub struct TicketKey {
    name: [u8; NAME_BYTES],
    key: [u8; KEY_BYTES],
}

impl Drop for TicketKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TicketKey(********)")
    }
}

impl TicketKey {
    /// A key from random bytes, or from those of `to_bytes`.
    #[must_use]
    pub fn of_bytes(bytes: [u8; TICKET_KEY_BYTES]) -> Self {
        let mut ticket_key = Self { name: [0; NAME_BYTES], key: [0; KEY_BYTES] };
        ticket_key.name.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        ticket_key.key.iter_mut().zip(&bytes[NAME_BYTES..]).for_each(|(to, from)| *to = *from);
        ticket_key
    }

    /// The key of a period of time, from a secret that several nodes share, so nodes exchange no keys. A key reveals
    /// nothing about the secret or another key (RFC 5869).
    #[must_use]
    pub fn derived(secret: &[u8], period: u64) -> Option<Self> {
        let mut bytes = [0; TICKET_KEY_BYTES];
        let pseudorandom = Salt::new(HKDF_SHA256, b"ringverb session tickets").extract(secret);
        let number = period.to_be_bytes();
        pseudorandom.expand(&[&number], TicketKeyBytes).ok()?.fill(&mut bytes).ok()?;
        let key = Self::of_bytes(bytes);
        bytes.zeroize();
        Some(key)
    }

    /// The bytes for another process. They are secret.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; TICKET_KEY_BYTES] {
        let mut bytes = [0; TICKET_KEY_BYTES];
        let from = self.name.iter().chain(&self.key);
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        bytes
    }
}

struct TicketKeyBytes;

impl KeyType for TicketKeyBytes {
    fn len(&self) -> usize {
        TICKET_KEY_BYTES
    }
}

pub struct Tickets {
    keys: Vec<([u8; NAME_BYTES], LessSafeKey)>,
    lifetime_seconds: u32,
    random: fn(&mut [u8]) -> bool,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Tickets({} keys)", self.keys.len())
    }
}

impl Tickets {
    /// `random` fills its argument with unpredictable bytes, or returns `false`.
    #[must_use]
    pub fn new(keys: &[TicketKey], lifetime_seconds: u32, random: fn(&mut [u8]) -> bool) -> Self {
        let expand = |key: &TicketKey| {
            let expanded = UnboundKey::new(&CHACHA20_POLY1305, &key.key).ok()?;
            Some((key.name, LessSafeKey::new(expanded)))
        };
        Self { keys: keys.iter().filter_map(expand).collect(), lifetime_seconds, random }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.keys.is_empty()
    }

    fn lifetime(&self) -> u32 {
        self.lifetime_seconds
    }

    /// A ticket: name, nonce, sealed state, tag. `None`, and no ticket is sent, if there is no key or no random number.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (name, key) = self.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        if !(self.random)(&mut nonce) {
            return None;
        }
        let mut ticket = [&name[..], &nonce, plain].concat();
        let content = ticket.get_mut(NAME_BYTES + NONCE_LEN..)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(name), content).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        (ticket.len() <= TICKET_BYTES_MAX).then_some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        // The name is public: it is in each ticket.
        let (name, key) = self.keys.iter().find(|(known, _)| known == name)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.open_in_place(nonce, Aad::from(name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_with_one_secret_derive_one_key_for_each_period() {
        let of = |secret: &[u8], period| TicketKey::derived(secret, period).unwrap().to_bytes();
        assert_eq!(of(b"secret", 7), of(b"secret", 7));
        assert_ne!(of(b"secret", 7), of(b"secret", 8));
        assert_ne!(of(b"secret", 7), of(b"another", 7));
        // The names are different, too, or a node would try the wrong key.
        assert_ne!(of(b"secret", 7)[..NAME_BYTES], of(b"secret", 8)[..NAME_BYTES]);
    }
}
