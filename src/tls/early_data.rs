//! Early data of a client that has a ticket of another server: recognized, so that the handshake driver discards it
//! (RFC 8446 section 4.2.10). PURE.
//!
//! Owns what one handshake has seen of it. rustls skips a record that does not decrypt, but does not say so, and
//! expects to be shown it again in front of the next one; it would then count it twice, and the driver would run out of
//! room. A part of a Finished message looks the same from outside, but rustls does need that again. So a record that
//! may be early data is copied before rustls has it, and the copy is opened with the key of the client's handshake.
//! Does not accept early data.
//!
//! Limit: `EARLY_DATA_BYTES_MAX`, counted by rustls. Cost: one copy of a record that may be early data, and one key
//! expansion; of most clients, for the record with Finished only.

use rustls::{CipherSuite, Error};

use super::HEADER_BYTES;
use super::direction::{BurstKey, Direction, Suite};
use super::handshake::text_of;
use super::record::{DATA, first_record_bytes};
use super::secrets::Secrets;

/// Sealed bytes that are skipped in one handshake. Servers that accept early data allow 16 KiB of content by default;
/// the other half is for the tags of small records.
pub(super) const EARLY_DATA_BYTES_MAX: u32 = 32_768;

#[derive(Default)]
pub(super) struct EarlyData {
    /// A record was opened with the client's handshake key, so no early data can follow.
    is_ruled_out: bool,
    has_begun: bool,
}

impl EarlyData {
    /// A copy of the record that rustls is shown next, if it may be early data. `None`, and no copy, if it cannot.
    pub(super) fn copy_if_possible(&self, secrets: &Secrets, shown: &[u8]) -> Option<Vec<u8>> {
        let is_possible = !self.is_ruled_out
            && shown.first() == Some(&DATA)
            && first_record_bytes(shown) == shown.len()
            && secrets.client_handshake().is_some();
        is_possible.then(|| shown.to_vec())
    }

    /// Whether `record`, which rustls was shown, is early data and is to be discarded. `is_kept`: rustls did not ask to
    /// discard it.
    pub(super) fn is_early_data(
        &mut self,
        secrets: &Secrets,
        suite: Option<CipherSuite>,
        record: Vec<u8>,
        is_kept: bool,
    ) -> bool {
        // The sequence number of the client's first record is 0, so a record after it cannot be tried with this key.
        self.is_ruled_out =
            !is_kept || opens_with_handshake_key(secrets, suite, record).unwrap_or(true);
        self.has_begun |= !self.is_ruled_out;
        !self.is_ruled_out
    }

    /// The text of an error of rustls. An error of decryption after early data has two possible causes.
    pub(super) fn text_of(&self, error: &Error) -> &'static str {
        if self.has_begun && *error == Error::DecryptError {
            return "it sent early data over 32,768 bytes, or a record that does not decrypt";
        }
        text_of(error)
    }
}

/// Whether the client's handshake key opens this record, as its first one. `None` if the key or the suite is not known.
fn opens_with_handshake_key(
    secrets: &Secrets,
    suite: Option<CipherSuite>,
    mut record: Vec<u8>,
) -> Option<bool> {
    let suite = Suite::of_tls13(suite?)?;
    let mut client = Direction::of_secret(suite, secrets.client_handshake()?)?;
    let nonce = client.nonce();
    let (header, sealed) = record.split_first_chunk_mut::<HEADER_BYTES>()?;
    // rustls authenticates this version, whatever the record says.
    (header[1], header[2]) = (3, 3);
    Some(client.open(suite, &mut BurstKey::default(), nonce, header.as_slice(), sealed).is_some())
}
