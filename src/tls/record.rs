//! The record layer of an established TLS 1.3 or 1.2 connection (RFC 8446 section 5, RFC 5246 section 6, RFC 5288, RFC
//! 7905). PURE.
//!
//! Owns the keys and the state of both directions, and no buffer: an incomplete record is its caller's. Input: received
//! records, opened in place, and content to seal. Output: content, sealed records, and an alert for what breaks a rule.
//! Only AEAD suites. A sealed record cannot be sealed again, so content is sealed only when the socket is about to
//! accept it. Does not know what content means.
//!
//! Limits: `CONTENT_BYTES_MAX`, `IDLE_RECORDS_MAX`, `KEY_RECORDS_MAX`. Cost: no allocation and no copy; one key
//! expansion for each sealed record, and one for all records of a read.

use core::ops::Range;

use rustls::ExtractedSecrets;

use super::alert::Alert;
use super::direction::{BurstKey, Direction, SECRET_BYTES_MAX, Suite, TAG_BYTES};
use super::{CONTENT_BYTES_MAX, HEADER_BYTES};

const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const DATA: u8 = 23;
/// The version in the header of each record: TLS 1.2, also in TLS 1.3.
const VERSION: [u8; 2] = [3, 3];
/// The part of a nonce that AES-GCM sends in each record of TLS 1.2.
const EXPLICIT_NONCE_BYTES: usize = 8;
/// A KeyUpdate message: type, length, and whether an answer is requested.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
/// Records in a row without content (empty ones, key updates, warnings): they cost the server more than the peer.
pub const IDLE_RECORDS_MAX: u8 = 32;
/// Records that one AES-GCM key may seal: half of what rustls allows.
pub const KEY_RECORDS_MAX: u64 = 1 << 23;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordEvent {
    /// Content: a range of the bytes given to `open`.
    Data(Range<usize>),
    Nothing,
    /// The peer sends no more: `close_notify`.
    Closed,
    /// The peer has ended the connection with this alert.
    Failed(u8),
}

pub struct RecordLayer {
    sending: Direction,
    receiving: Direction,
    suite: Suite,
    is_tls13: bool,
    /// Records in a row without content, up to `IDLE_RECORDS_MAX`.
    empty_records_in_a_row: u8,
    /// Bytes of an incomplete KeyUpdate message. Only their number is kept, because all but the last one are known.
    key_update_bytes: u8,
    /// The peer has requested a key update, which is not sent yet. Several requests get one answer.
    must_send_key_update: bool,
    /// The peer has requested a renegotiation: a warning says that there is none.
    must_send_refusal: bool,
    /// `close_notify` or a fatal alert was sealed: nothing may follow.
    is_closed: bool,
}

/// Length of the first record, as its header says; that of a header alone if the header is not complete.
pub(super) fn first_record_bytes(input: &[u8]) -> usize {
    match input {
        [_, _, _, high, low, ..] => HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low])),
        _ => HEADER_BYTES,
    }
}

impl RecordLayer {
    /// `traffic`: the first traffic secrets of client and server in TLS 1.3, zeros in TLS 1.2. `None` if this server
    /// does not offer the suite.
    pub(super) fn new(
        secrets: &ExtractedSecrets,
        is_tls13: bool,
        traffic: &[[u8; SECRET_BYTES_MAX]; 2],
    ) -> Option<Self> {
        let [client, server] = *traffic;
        let (suite, sending) = Direction::new(secrets.tx.0, &secrets.tx.1, server)?;
        let (_, receiving) = Direction::new(secrets.rx.0, &secrets.rx.1, client)?;
        Some(Self::of(sending, receiving, suite, is_tls13))
    }

    fn of(sending: Direction, receiving: Direction, suite: Suite, is_tls13: bool) -> Self {
        Self {
            sending,
            receiving,
            suite,
            is_tls13,
            empty_records_in_a_row: 0,
            key_update_bytes: 0,
            must_send_key_update: false,
            must_send_refusal: false,
            is_closed: false,
        }
    }

    /// All state for another process, with the keys.
    pub(super) fn export(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 * size_of::<Direction>() + 8);
        let flags =
            [self.is_tls13, self.must_send_key_update, self.must_send_refusal, self.is_closed];
        out.extend_from_slice(&[
            self.suite as u8,
            self.empty_records_in_a_row,
            self.key_update_bytes,
        ]);
        out.extend(flags.map(u8::from));
        self.sending.export(&mut out);
        self.receiving.export(&mut out);
        out
    }

    pub(super) fn import(bytes: &[u8]) -> Option<Self> {
        let (head, bytes) = bytes.split_first_chunk::<7>()?;
        let [suite, empty_records_in_a_row, key_update_bytes, flags @ ..] = *head;
        let (sending, bytes) = Direction::import(bytes)?;
        let (receiving, bytes) = Direction::import(bytes)?;
        let [is_tls13, must_send_key_update, must_send_refusal, is_closed] =
            flags.map(|flag| flag == 1);
        let suite = Suite::of_number(suite)?;
        bytes.is_empty().then(|| Self {
            empty_records_in_a_row,
            key_update_bytes,
            must_send_key_update,
            must_send_refusal,
            is_closed,
            ..Self::of(sending, receiving, suite, is_tls13)
        })
    }

    fn explicit_nonce_bytes(&self) -> usize {
        let has_none = self.is_tls13 || self.suite == Suite::ChaCha20;
        if has_none { 0 } else { EXPLICIT_NONCE_BYTES }
    }

    /// The key has sealed as much as it may, and TLS 1.2 has no key update, so the connection is to be closed.
    pub(super) fn is_exhausted(&self) -> bool {
        !self.is_tls13 && self.needs_key_update()
    }

    fn needs_key_update(&self) -> bool {
        self.suite != Suite::ChaCha20 && self.sending.sequence >= KEY_RECORDS_MAX
    }

    /// Whether a record is to be sent even if there is no content.
    pub(super) fn has_pending_record(&self) -> bool {
        !self.is_closed && (self.must_send_key_update || self.must_send_refusal)
    }

    /// Writes the pending records, and begins a record in `out`. The caller appends at most `CONTENT_BYTES_MAX` bytes
    /// of content and calls `end` with the returned index. `None` if nothing may be sent any longer.
    pub(super) fn begin_record(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        self.write_pending_records(out);
        self.begin_record_of_any_kind(out)
    }

    fn begin_record_of_any_kind(&self, out: &mut Vec<u8>) -> Option<usize> {
        if self.is_closed {
            return None;
        }
        let begin = out.len();
        out.resize(begin + HEADER_BYTES + self.explicit_nonce_bytes(), 0);
        Some(begin)
    }

    /// Seals the record that begins at `begin`. `false` if it could not be sealed; it is then removed from `out`.
    pub(super) fn end(&mut self, kind: u8, out: &mut Vec<u8>, begin: usize) -> bool {
        let tag = self.seal_at(kind, out, begin);
        match tag {
            Some(tag) => out.extend_from_slice(&tag),
            None => out.truncate(begin),
        }
        debug_assert!(
            tag.is_none()
                || out
                    .get(begin..)
                    .is_some_and(|record| first_record_bytes(record) == record.len()),
            "the header has the length of the record"
        );
        tag.is_some()
    }

    fn seal_at(&mut self, kind: u8, out: &mut Vec<u8>, begin: usize) -> Option<[u8; TAG_BYTES]> {
        let explicit = self.explicit_nonce_bytes();
        let content_bytes = out.len().checked_sub(begin + HEADER_BYTES + explicit)?;
        if content_bytes > CONTENT_BYTES_MAX {
            return None;
        }
        let outer = if self.is_tls13 { DATA } else { kind };
        let inner = if self.is_tls13 { content_bytes + 1 } else { content_bytes + explicit };
        let [high, low] = u16::try_from(inner + TAG_BYTES).ok()?.to_be_bytes();
        let header = [outer, VERSION[0], VERSION[1], high, low];
        if self.is_tls13 {
            out.push(kind);
        }
        let (head, body) = out.get_mut(begin..)?.split_first_chunk_mut::<HEADER_BYTES>()?;
        *head = header;
        if self.is_tls13 {
            return self.sending.seal(self.suite, &header, body);
        }
        let additional = additional_data(self.sending.sequence, kind, content_bytes);
        let (nonce, content) = body.split_at_mut_checked(explicit)?;
        // rustls has put the start of the explicit nonces into the IV, so they count up with the sequence number.
        let [_, _, _, _, tail @ ..] = self.sending.nonce();
        nonce.copy_from_slice(tail.get(..explicit)?);
        self.sending.seal(self.suite, &additional, content)
    }

    fn send(&mut self, kind: u8, content: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(begin) = self.begin_record_of_any_kind(out) else { return false };
        out.extend_from_slice(content);
        self.end(kind, out, begin)
    }

    /// Writes the answer to a request for a key update, our own key update if it is due, and the refusal of a
    /// renegotiation.
    fn write_pending_records(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.must_send_refusal) {
            self.alert(Alert::NO_RENEGOTIATION, out);
        }
        let is_due = self.is_tls13 && self.needs_key_update();
        if !std::mem::take(&mut self.must_send_key_update) && !is_due {
            return;
        }
        let [kind, high, middle, low] = KEY_UPDATE;
        let is_sent = self.send(HANDSHAKE, &[kind, high, middle, low, 0], out);
        if is_sent && self.sending.update(self.suite).is_none() {
            // Neither the old nor the new key could seal what follows.
            self.is_closed = true;
        }
    }

    fn alert(&mut self, alert: Alert, out: &mut Vec<u8>) {
        self.send(ALERT, &[alert.level(), alert.0], out);
    }

    /// Writes `close_notify`, unless the connection has ended.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        self.fail(Alert::CLOSE_NOTIFY, out);
    }

    /// Writes an alert after which nothing is sent. Without effect if the connection has ended.
    pub(super) fn fail(&mut self, alert: Alert, out: &mut Vec<u8>) {
        if !self.is_closed {
            self.alert(alert, out);
            self.is_closed = true;
        }
        debug_assert!(!self.has_pending_record(), "nothing follows the last alert");
    }

    /// Opens the first record of `input` in place. Returns its length and what it contains; `None` if it is incomplete.
    /// `burst` must be empty for the first record of a read.
    ///
    /// # Errors
    /// The alert to send before the connection is closed.
    pub(super) fn open(
        &mut self,
        input: &mut [u8],
        burst: &mut BurstKey,
    ) -> Result<Option<(usize, RecordEvent)>, Alert> {
        let Some(header) = input.first_chunk::<HEADER_BYTES>().copied() else { return Ok(None) };
        let length = first_record_bytes(&header) - HEADER_BYTES;
        // A record that will be refused is refused before it is complete.
        self.check_header(&header, length)?;
        let Some(body) = input.get_mut(HEADER_BYTES..HEADER_BYTES + length) else {
            return Ok(None);
        };
        if self.receiving.has_reached_key_limit() {
            return Err(Alert::INTERNAL_ERROR);
        }
        let explicit = self.explicit_nonce_bytes();
        let mut nonce = self.receiving.nonce();
        let Some((explicit_nonce, sealed)) = body.split_at_mut_checked(explicit) else {
            return Err(Alert::BAD_RECORD_MAC);
        };
        nonce
            .iter_mut()
            .skip(12 - explicit)
            .zip(explicit_nonce.iter())
            .for_each(|(to, from)| *to = *from);
        let content_bytes = match self.is_tls13 {
            true => self.receiving.open(self.suite, burst, nonce, &header, sealed),
            false => {
                let [kind, ..] = header;
                let content_bytes = sealed.len().saturating_sub(TAG_BYTES);
                let additional = additional_data(self.receiving.sequence, kind, content_bytes);
                self.receiving.open(self.suite, burst, nonce, &additional, sealed)
            }
        };
        let content_bytes = content_bytes.ok_or(Alert::BAD_RECORD_MAC)?;
        if content_bytes > CONTENT_BYTES_MAX + usize::from(self.is_tls13) {
            return Err(Alert::RECORD_OVERFLOW);
        }
        let content = sealed.get(..content_bytes).unwrap_or_default();
        let (kind, content) = match self.is_tls13 {
            // Padding is zeros after the type. A record of zeros has no type.
            true => {
                let at = content.iter().rposition(|byte| *byte != 0);
                let (rest, _) = at
                    .and_then(|at| content.split_at_checked(at + 1))
                    .ok_or(Alert::UNEXPECTED_MESSAGE)?;
                let (kind, content) = rest.split_last().ok_or(Alert::UNEXPECTED_MESSAGE)?;
                (*kind, content)
            }
            false => {
                let [kind, ..] = header;
                (kind, content)
            }
        };
        let event = self.process_opened(kind, content, HEADER_BYTES + explicit)?;
        if self.receiving.sequence == 0 {
            *burst = BurstKey::default();
        }
        Ok(Some((HEADER_BYTES + length, event)))
    }

    fn check_header(&self, header: &[u8; HEADER_BYTES], length: usize) -> Result<(), Alert> {
        let [kind, major, minor, ..] = *header;
        let is_known = match self.is_tls13 {
            // A ChangeCipherSpec is allowed during the handshake only.
            true => kind == DATA,
            false => matches!(kind, ALERT | HANDSHAKE | DATA),
        };
        if !is_known {
            return Err(Alert::UNEXPECTED_MESSAGE);
        }
        // TLS 1.3 ignores the version (RFC 8446 section 5.1).
        if !self.is_tls13 && [major, minor] != VERSION {
            return Err(Alert::PROTOCOL_VERSION);
        }
        if length > CONTENT_BYTES_MAX + if self.is_tls13 { 256 } else { 2048 } {
            return Err(Alert::RECORD_OVERFLOW);
        }
        // In TLS 1.3 the type is a byte of its own inside the sealed part.
        let least = self.explicit_nonce_bytes() + TAG_BYTES + usize::from(self.is_tls13);
        // Too short to be opened: no other alert than that of a record which fails to (RFC 5246 section 6.2.3.3).
        match length < least {
            true => Err(Alert::BAD_RECORD_MAC),
            false => Ok(()),
        }
    }

    /// What an opened record of this type means. `at`: the index of the content in the record.
    fn process_opened(
        &mut self,
        kind: u8,
        content: &[u8],
        at: usize,
    ) -> Result<RecordEvent, Alert> {
        // No other record may come between two parts of a message (RFC 8446 section 5.1).
        if self.key_update_bytes > 0 && kind != HANDSHAKE {
            return Err(Alert::UNEXPECTED_MESSAGE);
        }
        if kind == DATA && !content.is_empty() {
            self.empty_records_in_a_row = 0;
            return Ok(RecordEvent::Data(at..at + content.len()));
        }
        self.empty_records_in_a_row += 1;
        if self.empty_records_in_a_row > IDLE_RECORDS_MAX {
            return Err(Alert::UNEXPECTED_MESSAGE);
        }
        match (kind, content) {
            (DATA, _) => Ok(RecordEvent::Nothing),
            (ALERT, [_, 0]) => Ok(RecordEvent::Closed),
            // `user_canceled`, before `close_notify`; other warnings of TLS 1.2.
            (ALERT, [_, 90]) => Ok(RecordEvent::Nothing),
            (ALERT, [1, _]) if !self.is_tls13 => Ok(RecordEvent::Nothing),
            (ALERT, [_, number]) => Ok(RecordEvent::Failed(*number)),
            (ALERT, []) | (HANDSHAKE, []) => Err(Alert::UNEXPECTED_MESSAGE),
            (ALERT, _) => Err(Alert::DECODE_ERROR),
            (HANDSHAKE, _) if !self.is_tls13 => {
                self.must_send_refusal = true;
                Ok(RecordEvent::Nothing)
            }
            (HANDSHAKE, message) => self.receive_key_update(message),
            _ => Err(Alert::UNEXPECTED_MESSAGE),
        }
    }

    /// The only handshake message that a server of TLS 1.3 may receive here. It may come in several records.
    fn receive_key_update(&mut self, message: &[u8]) -> Result<RecordEvent, Alert> {
        for (index, byte) in message.iter().copied().enumerate() {
            match KEY_UPDATE.get(usize::from(self.key_update_bytes)) {
                Some(expected) if *expected == byte => self.key_update_bytes += 1,
                Some(_) if self.key_update_bytes == 0 => return Err(Alert::UNEXPECTED_MESSAGE),
                Some(_) => return Err(Alert::DECODE_ERROR),
                // It ends its record, because what follows is sealed with the next key.
                None if index + 1 != message.len() => return Err(Alert::UNEXPECTED_MESSAGE),
                None if byte > 1 => return Err(Alert::ILLEGAL_PARAMETER),
                None => {
                    self.key_update_bytes = 0;
                    self.receiving.update(self.suite).ok_or(Alert::INTERNAL_ERROR)?;
                    self.must_send_key_update |= byte == 1;
                }
            }
        }
        Ok(RecordEvent::Nothing)
    }
}

#[cfg(test)]
impl RecordLayer {
    /// Sets the state after so many sealed records, which no test could seal.
    pub(super) fn set_sealed_count(&mut self, records: u64) {
        self.sending.sequence = records;
    }
}

/// The additional data of TLS 1.2 (RFC 5246 section 6.2.3.3).
fn additional_data(sequence: u64, kind: u8, content_bytes: usize) -> [u8; 13] {
    let [a, b, c, d, e, f, g, h] = sequence.to_be_bytes();
    let [high, low] = u16::try_from(content_bytes).unwrap_or(u16::MAX).to_be_bytes();
    [a, b, c, d, e, f, g, h, kind, VERSION[0], VERSION[1], high, low]
}
