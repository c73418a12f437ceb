//! The handshake of one connection: rustls' unbuffered API, driven without I/O. PURE but for rustls' random numbers.
//!
//! Owns rustls' state and the input that is not complete. Input: received bytes. Output: bytes to send, and at the end
//! a `RecordLayer` with the keys. rustls is shown one record at a time, where it was received, so it never opens a
//! record after the client's Finished. After an error only rustls' alert is read: a further call would panic inside
//! rustls if part of a message had been received. Does not know sockets or HTTP.
//!
//! Limit: `INPUT_BYTES_MAX` of input that is not complete. Cost: `RUSTLS_BYTES` of memory until it ends; a buffer is
//! allocated only for a record or message of which a part is missing; the steps are those of the key exchange and of
//! one signature.

mod text;

use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{ProtocolVersion, ServerConfig};

use super::alert::Alert;
use super::direction::TAG_BYTES;
use super::early_data::EarlyData;
use super::record::{self, RecordLayer, first_record_bytes};
use super::secrets::Secrets;
use super::{CONTENT_BYTES_MAX, HEADER_BYTES};
pub(super) use text::text_of;

/// Most bytes of input that a handshake keeps: one record of TLS 1.3, or several small ones. rustls alone would keep 64
/// KiB.
pub const INPUT_BYTES_MAX: usize = HEADER_BYTES + CONTENT_BYTES_MAX + 256;
/// Memory of rustls during a handshake: 5.0 to 6.3 KB were counted (docs/decisions/0011).
pub(super) const RUSTLS_BYTES: usize = 6_400;

pub enum HandshakeProgress {
    Incomplete,
    /// The handshake is complete. Boxed, because every other state is small.
    Established(Box<RecordLayer>),
}

/// Why a handshake has ended. The bytes in `out` are to be sent, then the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// The first byte is not that of a TLS handshake. Nothing of the input was used, so that it can be read as HTTP.
    NotTls,
    /// The rest of a sentence about the client, for the log.
    Failed(&'static str),
}

const SEALED_RECORD_TOO_SHORT: HandshakeError =
    HandshakeError::Failed("it sent a sealed record without content");
const NOT_SEALED: HandshakeError =
    HandshakeError::Failed("it sent a handshake message without its key");
const ENDED_BEFORE: HandshakeError = HandshakeError::Failed("the handshake has ended before");
const CLOSED_EARLY: HandshakeError = HandshakeError::Failed("it closed during the handshake");
const HANDSHAKE_TOO_LONG: HandshakeError =
    HandshakeError::Failed("its handshake is over 16,645 bytes");
const RECORD_TOO_LONG: HandshakeError =
    HandshakeError::Failed("it sent a handshake record over 16,384 bytes");
const _: () = assert!(INPUT_BYTES_MAX == 16_645 && CONTENT_BYTES_MAX == 16_384, "the texts");

pub struct Handshake {
    /// `None` after the end of the handshake, with or without success.
    connection: Option<UnbufferedServerConnection>,
    secrets: Secrets,
    early_data: EarlyData,
    /// Received bytes that must be shown again: whole records with a part of a message, then an incomplete record.
    /// Mostly empty, because a client sends whole messages in whole records.
    input: Vec<u8>,
    /// Bytes at the front of `input` that rustls has seen and needs again.
    shown: usize,
    has_begun: bool,
}

enum RustlsProgress {
    NeedsNextRecord,
    Complete,
}

impl Handshake {
    /// `None` if rustls refuses the configuration.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>) -> Option<Self> {
        let connection = UnbufferedServerConnection::new(config).ok()?;
        Some(Self {
            connection: Some(connection),
            secrets: Secrets::default(),
            early_data: EarlyData::default(),
            input: Vec::new(),
            shown: 0,
            has_begun: false,
        })
    }

    pub(super) fn heap_bytes(&self) -> usize {
        RUSTLS_BYTES + self.input.capacity()
    }

    /// Processes input until the handshake ends. Returns how many bytes were used: after the end, the others belong to
    /// the record layer. Appends bytes to send to `out`, also with an error. rustls decrypts used bytes in place.
    ///
    /// # Errors
    /// The handshake has failed. Later calls fail too.
    pub fn receive(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
    ) -> (usize, Result<HandshakeProgress, HandshakeError>) {
        if self.connection.is_none() {
            return (0, Err(ENDED_BEFORE));
        }
        if !self.has_begun && input.first().is_some_and(|byte| *byte != record::HANDSHAKE) {
            self.connection = None;
            return (0, Err(HandshakeError::NotTls));
        }
        self.has_begun |= !input.is_empty();
        let mut used = 0;
        let result = self.receive_records(input, &mut used, out);
        if result.is_err() {
            self.connection = None;
            self.input = Vec::new();
        }
        (used, result)
    }

    fn receive_records(
        &mut self,
        input: &mut [u8],
        used: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<HandshakeProgress, HandshakeError> {
        loop {
            let rest = input.get_mut(*used..).unwrap_or_default();
            let (progress, copy) = if self.input.is_empty() && is_whole(rest) {
                let record_bytes = first_record_bytes(rest);
                let record = rest.get_mut(..record_bytes).unwrap_or_default();
                *used += record.len();
                self.check_header(record, 0, out)?;
                let copy = self.early_data.copy_if_possible(&self.secrets, record);
                let (progress, discarded) = self.process_with_rustls(record, out)?;
                record.get(discarded..).unwrap_or_default().clone_into(&mut self.input);
                (progress, copy)
            } else {
                let Some(appended) = self.append_record(rest, out)? else {
                    *used = input.len();
                    return Ok(HandshakeProgress::Incomplete);
                };
                *used += appended;
                let mut kept = std::mem::take(&mut self.input);
                let copy = self.early_data.copy_if_possible(&self.secrets, &kept);
                let (progress, discarded) = self.process_with_rustls(&mut kept, out)?;
                kept.drain(..discarded);
                if !kept.is_empty() {
                    self.input = kept;
                }
                (progress, copy)
            };
            self.shown = self.input.len();
            match progress {
                RustlsProgress::NeedsNextRecord => self.skip_early_data(copy),
                RustlsProgress::Complete => return self.finish(),
            }
        }
    }

    /// Discards the record that rustls was shown, if it was early data. `copy`: the record before rustls had it.
    fn skip_early_data(&mut self, copy: Option<Vec<u8>>) {
        let Some(record) = copy else { return };
        let is_kept = self.shown == record.len();
        let suite = self
            .connection
            .as_ref()
            .and_then(|connection| connection.negotiated_cipher_suite().map(|suite| suite.suite()));
        if self.early_data.is_early_data(&self.secrets, suite, record, is_kept) {
            self.input.clear();
            self.shown = 0;
        }
    }

    /// Appends the next record to `self.input`, or the part of it that has arrived. Returns how many bytes of `rest`
    /// these are; `None` if the record is still incomplete.
    fn append_record(
        &mut self,
        rest: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, HandshakeError> {
        let mut appended = 0;
        // Twice, because the header must be there before the length of the record is known.
        for _ in 0..2 {
            let begun = self.input.get(self.shown..).unwrap_or_default();
            let missing = first_record_bytes(begun).saturating_sub(begun.len());
            let piece = rest.get(appended..).unwrap_or_default();
            let piece = piece.get(..missing).unwrap_or(piece);
            self.input.extend_from_slice(piece);
            appended += piece.len();
            self.check_header(self.input.get(self.shown..).unwrap_or_default(), self.shown, out)?;
        }
        let begun = self.input.get(self.shown..).unwrap_or_default();
        Ok(is_whole(begun).then_some(appended))
    }

    /// Refuses records that rustls would accept. `kept`: bytes of records before this one that rustls needs again. A
    /// record that is too long is refused before it is complete.
    fn check_header(
        &self,
        begun: &[u8],
        kept: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), HandshakeError> {
        let [kind, _, _, _, _, ..] = begun else { return Ok(()) };
        let record_bytes = first_record_bytes(begun);
        // rustls skips such a record as early data.
        if *kind == record::HANDSHAKE && self.secrets.client_handshake().is_some() {
            write_alert(Alert::UNEXPECTED_MESSAGE, out);
            return Err(NOT_SEALED);
        }
        // Without type and tag rustls would skip it, too, and count its content, which is empty: an endless number of
        // them.
        if *kind == record::DATA && record_bytes <= HEADER_BYTES + TAG_BYTES {
            write_alert(Alert::BAD_RECORD_MAC, out);
            return Err(SEALED_RECORD_TOO_SHORT);
        }
        if kept + record_bytes > INPUT_BYTES_MAX {
            write_alert(Alert::RECORD_OVERFLOW, out);
            return Err(HANDSHAKE_TOO_LONG);
        }
        // rustls accepts 2,048 bytes more than RFC 8446 section 5.1 allows.
        if *kind == record::HANDSHAKE && record_bytes > HEADER_BYTES + CONTENT_BYTES_MAX {
            write_alert(Alert::RECORD_OVERFLOW, out);
            return Err(RECORD_TOO_LONG);
        }
        Ok(())
    }

    /// Lets rustls process these records. Returns how many bytes of them it does not need again.
    fn process_with_rustls(
        &mut self,
        records: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(RustlsProgress, usize), HandshakeError> {
        let mut discarded = 0;
        loop {
            let connection = self.connection.as_mut().ok_or(ENDED_BEFORE)?;
            let shown = records.get_mut(discarded..).ok_or(ENDED_BEFORE)?;
            let UnbufferedStatus { discard, state, .. } = connection.process_tls_records(shown);
            let next = match state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out).map(|()| None),
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(None)
                }
                Ok(ConnectionState::BlockedHandshake) => Ok(Some(RustlsProgress::NeedsNextRecord)),
                Ok(ConnectionState::WriteTraffic(_)) => Ok(Some(RustlsProgress::Complete)),
                // No record after Finished is shown, and 0-RTT is never accepted.
                Ok(_) => Err(CLOSED_EARLY),
                Err(error) => Err(HandshakeError::Failed(self.early_data.text_of(&error))),
            };
            self.secrets.keep_derived();
            discarded = records.len().min(discarded + discard);
            match next {
                Ok(None) => {}
                Ok(Some(progress)) => return Ok((progress, discarded)),
                Err(error) => {
                    self.write_queued_alert(out);
                    return Err(error);
                }
            }
        }
    }

    /// Appends the alert that rustls has queued after an error, and what it has queued before.
    fn write_queued_alert(&mut self, out: &mut Vec<u8>) {
        let Some(mut connection) = self.connection.take() else { return };
        // A call that finds nothing to write looks at the input again, and panics on a message that was incomplete.
        while connection.wants_write() {
            let UnbufferedStatus { state, .. } = connection.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(data)) = state else { break };
            if encode(data, out).is_err() {
                break;
            }
        }
    }

    fn finish(&mut self) -> Result<HandshakeProgress, HandshakeError> {
        let connection = self.connection.take().ok_or(ENDED_BEFORE)?;
        let unusable = HandshakeError::Failed("its keys cannot be used");
        if !self.input.is_empty() {
            // The record layer could not continue at the right place.
            return Err(unusable);
        }
        let is_tls13 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let (secrets, _) = connection.dangerous_into_kernel_connection().map_err(|_| unusable)?;
        let records =
            RecordLayer::new(&secrets, is_tls13, self.secrets.traffic()).ok_or(unusable)?;
        Ok(HandshakeProgress::Established(Box::new(records)))
    }
}

/// Whether `input` contains the whole first record.
fn is_whole(input: &[u8]) -> bool {
    input.len() >= HEADER_BYTES && input.len() >= first_record_bytes(input)
}

/// Appends an alert without encryption, as RFC 8446 section 6 has it before keys exist.
fn write_alert(alert: Alert, out: &mut Vec<u8>) {
    out.extend_from_slice(&[21, 3, 3, 0, 2, alert.level(), alert.0]);
}

fn encode(
    mut data: EncodeTlsData<'_, ServerConnectionData>,
    out: &mut Vec<u8>,
) -> Result<(), HandshakeError> {
    let failed = HandshakeError::Failed("its answer cannot be encoded");
    let begin = out.len();
    // The first call has no room and returns the size.
    let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        data.encode(&mut [])
    else {
        return Err(failed);
    };
    out.resize(begin + required_size, 0);
    let room = out.get_mut(begin..).unwrap_or_default();
    data.encode(room).map(|_| ()).map_err(|_| failed)
}
