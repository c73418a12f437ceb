//! One direction of an established connection: its key, IV, sequence number and traffic secret. PURE.
//!
//! Owns these 104 bytes, and zeroes them at its end. Keys are kept as bytes, because an expanded AES key has 544 bytes.
//! They are expanded for each burst: the one record of a flush, or all records of a read (docs/decisions/0011). ring
//! does the cryptography. Does not know records: `record.rs` builds nonces of TLS 1.2 and headers.
//!
//! Limit: `SEQUENCE_MAX` records of one key. Cost: one key expansion for each burst, no allocation.

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use rustls::{CipherSuite, ConnectionTrafficSecrets};
use zeroize::Zeroize;

/// Bytes of the longest key: that of AES-256 and of ChaCha20.
const KEY_BYTES_MAX: usize = 32;
/// Bytes of the longest traffic secret: that of a suite with SHA-384.
pub(super) const SECRET_BYTES_MAX: usize = 48;
pub(super) const TAG_BYTES: usize = 16;
/// The last sequence number of a key, because a nonce would repeat after it.
const SEQUENCE_MAX: u64 = u64::MAX;

/// The AEAD of a connection. In TLS 1.3 it also decides the hash of the key schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Suite {
    Aes128,
    Aes256,
    ChaCha20,
}

impl Suite {
    pub(super) fn of_number(number: u8) -> Option<Self> {
        [Self::Aes128, Self::Aes256, Self::ChaCha20]
            .into_iter()
            .find(|suite| *suite as u8 == number)
    }

    /// The AEAD of a suite of TLS 1.3. `None` if this server does not offer the suite.
    pub(super) fn of_tls13(suite: CipherSuite) -> Option<Self> {
        match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => Some(Self::Aes128),
            CipherSuite::TLS13_AES_256_GCM_SHA384 => Some(Self::Aes256),
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some(Self::ChaCha20),
            _ => None,
        }
    }

    fn key_bytes(self) -> usize {
        if self == Self::Aes128 { 16 } else { KEY_BYTES_MAX }
    }

    /// Bytes of the suite's hash, which a traffic secret has, too.
    fn secret_bytes(self) -> usize {
        if self == Self::Aes256 { SECRET_BYTES_MAX } else { 32 }
    }

    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128 => &aead::AES_128_GCM,
            Self::Aes256 => &aead::AES_256_GCM,
            Self::ChaCha20 => &aead::CHACHA20_POLY1305,
        }
    }

    /// HKDF-Expand-Label of RFC 8446 section 7.1, with an empty context. `None` if the hash cannot make so many bytes.
    fn expand(self, secret: &[u8], label: &[u8], out: &mut [u8]) -> Option<()> {
        let hash = if self == Self::Aes256 { hkdf::HKDF_SHA384 } else { hkdf::HKDF_SHA256 };
        let key = hkdf::Prk::new_less_safe(hash, secret);
        let length = u16::try_from(out.len()).ok()?.to_be_bytes();
        let label_length = u8::try_from(6 + label.len()).ok()?;
        let hkdf_label: [&[u8]; 5] = [&length, &[label_length], b"tls13 ", label, &[0]];
        key.expand(&hkdf_label, OutputLength(out.len())).ok()?.fill(out).ok()
    }
}

struct OutputLength(usize);

impl hkdf::KeyType for OutputLength {
    fn len(&self) -> usize {
        self.0
    }
}

/// The expanded key of the records of one read, made for the first record that is opened. It is valid for one
/// direction, and until a key update.
#[derive(Default)]
pub(super) struct BurstKey(Option<LessSafeKey>);

/// 104 bytes for every suite, so that a connection is one allocation of one size.
pub(super) struct Direction {
    pub(super) sequence: u64,
    /// TLS 1.3: the secret from which a key update derives the next one. Zeros in TLS 1.2.
    secret: [u8; SECRET_BYTES_MAX],
    key: [u8; KEY_BYTES_MAX],
    iv: [u8; aead::NONCE_LEN],
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.key.zeroize();
        self.iv.zeroize();
    }
}

impl Direction {
    /// The keys that rustls has negotiated. `None` if this server does not offer the suite.
    pub(super) fn new(
        sequence: u64,
        secrets: &ConnectionTrafficSecrets,
        secret: [u8; SECRET_BYTES_MAX],
    ) -> Option<(Suite, Self)> {
        let (suite, negotiated_key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Suite::ChaCha20, key, iv),
            _ => return None,
        };
        let mut key = [0; KEY_BYTES_MAX];
        let bytes = suite.key_bytes();
        key.get_mut(..bytes)?.copy_from_slice(negotiated_key.as_ref().get(..bytes)?);
        let mut direction = Self { sequence, secret, key, iv: [0; aead::NONCE_LEN] };
        key.zeroize();
        direction.iv = iv.as_ref().try_into().ok()?;
        Some((suite, direction))
    }

    /// The first keys of a traffic secret of TLS 1.3 (RFC 8446 section 7.3).
    pub(super) fn of_secret(suite: Suite, secret: [u8; SECRET_BYTES_MAX]) -> Option<Self> {
        let (key, iv) = ([0; KEY_BYTES_MAX], [0; aead::NONCE_LEN]);
        let mut direction = Self { sequence: 0, secret, key, iv };
        direction.derive_keys(suite)?;
        Some(direction)
    }

    fn key(&self, suite: Suite) -> Option<LessSafeKey> {
        let key = self.key.get(..suite.key_bytes())?;
        UnboundKey::new(suite.algorithm(), key).ok().map(LessSafeKey::new)
    }

    /// The nonce of the next record: IV XOR sequence number (RFC 8446 section 5.3; RFC 7905; for AES-GCM of TLS 1.2 see
    /// `record.rs`).
    pub(super) fn nonce(&self) -> [u8; aead::NONCE_LEN] {
        let mut nonce = self.iv;
        let sequence = self.sequence.to_be_bytes();
        nonce.iter_mut().skip(4).zip(sequence).for_each(|(byte, number)| *byte ^= number);
        nonce
    }

    /// Encrypts `content` in place and returns its tag. `None` if the key has no sequence number left.
    pub(super) fn seal(
        &mut self,
        suite: Suite,
        additional: &[u8],
        content: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]> {
        let next = self.sequence.checked_add(1)?;
        let nonce = Nonce::assume_unique_for_key(self.nonce());
        let key = self.key(suite)?;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(additional), content).ok()?;
        debug_assert!(next > self.sequence, "each record has a nonce of its own");
        self.sequence = next;
        tag.as_ref().try_into().ok()
    }

    /// Decrypts in place and returns the length of the content. `None` if the record is not authentic; then it is not
    /// counted.
    pub(super) fn open(
        &mut self,
        suite: Suite,
        burst: &mut BurstKey,
        nonce: [u8; aead::NONCE_LEN],
        additional: &[u8],
        sealed: &mut [u8],
    ) -> Option<usize> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let key = match &burst.0 {
            Some(key) => key,
            None => burst.0.insert(self.key(suite)?),
        };
        let content = key.open_in_place(nonce, Aad::from(additional), sealed).ok()?;
        self.sequence += 1;
        Some(content.len())
    }

    pub(super) fn has_reached_key_limit(&self) -> bool {
        self.sequence == SEQUENCE_MAX
    }

    /// Replaces the keys by those of the next generation (RFC 8446 section 7.2). `None` only if the hash cannot make
    /// them.
    pub(super) fn update(&mut self, suite: Suite) -> Option<()> {
        let bytes = suite.secret_bytes();
        let mut next = [0; SECRET_BYTES_MAX];
        suite.expand(self.secret.get(..bytes)?, b"traffic upd", next.get_mut(..bytes)?)?;
        self.secret = next;
        next.zeroize();
        self.derive_keys(suite)?;
        self.sequence = 0;
        Some(())
    }

    fn derive_keys(&mut self, suite: Suite) -> Option<()> {
        let secret = self.secret.get(..suite.secret_bytes())?;
        suite.expand(secret, b"key", self.key.get_mut(..suite.key_bytes())?)?;
        suite.expand(secret, b"iv", &mut self.iv)
    }

    /// Appends all state, with the keys, for another process: `import` reads it.
    pub(super) fn export(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.secret);
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.iv);
    }

    /// Reads what `export` has written, and returns the bytes after it. `None` if there are too few bytes.
    pub(super) fn import(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (sequence, bytes) = bytes.split_first_chunk()?;
        let (secret, bytes) = bytes.split_first_chunk()?;
        let (key, bytes) = bytes.split_first_chunk()?;
        let (iv, bytes) = bytes.split_first_chunk()?;
        let sequence = u64::from_le_bytes(*sequence);
        Some((Self { sequence, secret: *secret, key: *key, iv: *iv }, bytes))
    }
}
