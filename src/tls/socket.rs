//! One socket with a secure channel: the bytes that wait beside the channel, in both directions. PURE.
//!
//! Owns the channel and its backlog; an idle socket owns no buffer. Input: received bytes, and content to send. Output:
//! content, and sealed bytes. `SecureChannel` is what the tick needs of TLS; `TlsChannel` implements it, and the
//! simulator has a cipher of its own. The content of a connection waits in its send queue: sealed bytes wait here only
//! if the socket accepted a part of them. Does not read or write a socket.
//!
//! Limits: one record of input, `SEALED_BYTES_MAX` of output and one record more. Cost: content is sealed and opened in
//! place; one copy and one allocation for a record that arrives in several reads or leaves in several writes.

use core::ops::Range;

use super::{CONTENT_BYTES_MAX, HEADER_BYTES, RECORD_BYTES_MAX};

/// Sealed bytes that may wait. With more, no further record is sealed.
pub const SEALED_BYTES_MAX: usize = CONTENT_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelEnd {
    /// The peer has announced that it sends no more.
    Closed,
    /// The first byte is not that of the protocol. The input is unchanged, so that it can be read as HTTP.
    NotTls,
    /// The peer broke a rule, or reports an error: the rest of a sentence about it.
    Failed(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of the input that were used. The others are an incomplete record.
    pub used: usize,
    /// Bytes of content, which are at the front of the input.
    pub plain: usize,
    pub end: Option<ChannelEnd>,
}

/// What the tick needs of a secure protocol, on the side of the server.
pub trait SecureChannel: Sized {
    /// From which new channels are made: certificates and keys.
    type Acceptor;

    /// A channel before its handshake. `None` if the configuration is unusable.
    fn accept(acceptor: &Self::Acceptor) -> Option<Self>;

    fn is_established(&self) -> bool;

    /// Bytes that it has allocated, for the memory limit of the server.
    fn heap_bytes(&self) -> usize;

    /// Length of the first record of `input`, which may be incomplete; at least that of a header.
    fn first_record_bytes(&self, input: &[u8]) -> usize;

    /// Opens the records of `input` in place, and moves their content to its front. Appends the answers of a handshake,
    /// and the alert of a failure, to `out`.
    fn open(&mut self, input: &mut [u8], out: &mut Vec<u8>) -> Opened;

    /// Whether a record is to be sent even if there is no content.
    fn has_pending_record(&self) -> bool;

    /// Writes the pending records, and begins a record in `out`. The caller appends at most `CONTENT_BYTES_MAX` bytes
    /// of content and calls `end_record` with the returned index. `None` if nothing can be sent.
    fn begin_record(&mut self, out: &mut Vec<u8>) -> Option<usize>;

    /// Seals the record that begins at `begin`. `false` if nothing was sealed.
    fn end_record(&mut self, out: &mut Vec<u8>, begin: usize) -> bool;

    /// Appends the announcement that nothing follows. A second call appends nothing.
    fn close(&mut self, out: &mut Vec<u8>);

    /// Whether its keys have sealed as much as they may, so that the connection is to be closed.
    fn is_exhausted(&self) -> bool;

    /// All state for another process, with the keys. `None` during the handshake.
    fn export(&self) -> Option<Vec<u8>>;

    /// Reads what `export` has written. `None` if it was another version.
    fn import(bytes: &[u8]) -> Option<Self>;
}

#[derive(Default)]
struct RecordBacklog {
    input: Vec<u8>,
    /// Sealed bytes that the socket has not accepted.
    output: Vec<u8>,
    /// The channel has ended: the socket is closed when it is read next.
    has_ended: bool,
}

/// A channel with its backlog. An established one has no allocation beside its own box while nothing waits.
pub struct SecureSocket<C> {
    channel: C,
    backlog: Option<Box<RecordBacklog>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecureInput {
    /// Where the content is in the buffer.
    pub plain: Range<usize>,
    pub end: Option<ChannelEnd>,
}

/// A socket in transfer to another process, without its descriptor. Contains the keys.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SecureState {
    channel: Vec<u8>,
    input: Vec<u8>,
    output: Vec<u8>,
    has_ended: bool,
}

impl<C: SecureChannel> SecureSocket<C> {
    #[must_use]
    pub fn accept(acceptor: &C::Acceptor) -> Option<Box<Self>> {
        C::accept(acceptor).map(|channel| Box::new(Self { channel, backlog: None }))
    }

    #[must_use]
    pub fn is_established(&self) -> bool {
        self.channel.is_established()
    }

    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.channel.is_exhausted()
    }

    /// Bytes that it has allocated beside its own box.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let backlog_bytes = self.backlog.as_ref().map_or(0, |backlog| {
            size_of::<RecordBacklog>() + backlog.input.capacity() + backlog.output.capacity()
        });
        backlog_bytes + self.channel.heap_bytes()
    }

    /// Whether the peer has closed the channel, or the channel has failed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.has_ended)
    }

    /// Whether sealed bytes wait, or the channel has a pending record.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.channel.has_pending_record()
            || self.backlog.as_ref().is_some_and(|backlog| !backlog.output.is_empty())
    }

    /// Opens what was received. `buffer[start..end]` has the received bytes, and there is room for a record before
    /// `start`, because the content of a record that arrives in several reads is put together there.
    pub fn receive(&mut self, buffer: &mut [u8], start: usize, end: usize) -> SecureInput {
        debug_assert!(start <= end && end <= buffer.len(), "received bytes of the buffer");
        let nothing = SecureInput { plain: start..start, end: None };
        let Some(backlog) = &mut self.backlog else {
            let opened = self.open(buffer, start, end);
            return opened.unwrap_or(nothing);
        };
        if backlog.has_ended {
            return nothing;
        }
        let received = buffer.get(start..end).unwrap_or_default();
        let mut header = [0; HEADER_BYTES];
        let known = backlog.input.iter().chain(received).copied();
        let known = header.iter_mut().zip(known).map(|(to, from)| *to = from).count();
        let record_bytes = self.channel.first_record_bytes(header.get(..known).unwrap_or_default());
        // The bytes of a record are moved once, however many reads bring them. A handshake keeps its own input.
        let is_established = self.channel.is_established();
        if is_established
            && backlog.input.len() + received.len() < record_bytes
            && record_bytes <= RECORD_BYTES_MAX
        {
            backlog.input.extend_from_slice(received);
            return nothing;
        }
        let input = std::mem::take(&mut backlog.input);
        let Some(begin) = start.checked_sub(input.len()) else {
            return SecureInput {
                end: Some(ChannelEnd::Failed("its record has no room")),
                ..nothing
            };
        };
        if let Some(room) = buffer.get_mut(begin..start) {
            room.copy_from_slice(&input);
        }
        self.open(buffer, begin, end).unwrap_or(nothing)
    }

    fn open(&mut self, buffer: &mut [u8], start: usize, end: usize) -> Option<SecureInput> {
        let input = buffer.get_mut(start..end)?;
        // Most reads cause no answer, so no buffer is kept for one.
        let mut out = self
            .backlog
            .as_mut()
            .map_or_else(Vec::new, |backlog| std::mem::take(&mut backlog.output));
        let opened = self.channel.open(input, &mut out);
        let left = match opened.end {
            None => input.get(opened.used..).unwrap_or_default(),
            Some(_) => &[],
        };
        let has_ended = opened.end.is_some_and(|end| end != ChannelEnd::NotTls);
        if left.is_empty() && out.is_empty() && !has_ended {
            self.backlog = None;
        } else {
            let backlog = self.backlog.get_or_insert_default();
            backlog.input = left.to_vec();
            backlog.output = out;
            backlog.has_ended |= has_ended;
        }
        debug_assert!(opened.plain <= opened.used, "content is shorter than its records");
        debug_assert!(opened.used <= end - start, "of the received bytes");
        Some(SecureInput { plain: start..start + opened.plain, end: opened.end })
    }

    /// Appends sealed bytes to `out`: first what waits, then one record with the content that `fill` appends to its
    /// argument, at most as many bytes as it is given. Returns the bytes of that content.
    pub fn write(&mut self, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>, usize)) -> usize {
        let unsent = self.backlog.as_mut().map(|backlog| std::mem::take(&mut backlog.output));
        let unsent = unsent.unwrap_or_default();
        out.extend_from_slice(&unsent);
        if self.backlog.as_ref().is_some_and(|backlog| backlog.is_empty()) {
            self.backlog = None;
        }
        if unsent.len() > SEALED_BYTES_MAX {
            return 0;
        }
        let Some(begin) = self.channel.begin_record(out) else { return 0 };
        let before = out.len();
        fill(out, CONTENT_BYTES_MAX);
        let content = out.len() - before;
        debug_assert!(content <= CONTENT_BYTES_MAX, "`fill` keeps to its limit");
        if content == 0 {
            out.truncate(begin);
            return 0;
        }
        if self.channel.end_record(out, begin) { content } else { 0 }
    }

    /// Appends the announcement that nothing follows. A second call appends nothing.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        self.channel.close(out);
    }

    /// Keeps the bytes of `write` that the socket did not accept.
    pub fn keep_unsent(&mut self, unsent: &[u8]) {
        if !unsent.is_empty() {
            let backlog = self.backlog.get_or_insert_default();
            // Nothing was sealed since `write`.
            let newer = std::mem::replace(&mut backlog.output, unsent.to_vec());
            backlog.output.extend_from_slice(&newer);
        }
    }

    /// The last bytes of a socket that is closed at once: an alert, or the announcement of the end. Empty if other
    /// bytes would have to come before.
    #[must_use]
    pub fn final_bytes(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, |_, _| {});
        self.channel.close(&mut out);
        out
    }

    /// The state for another process. `None` during the handshake.
    #[must_use]
    pub fn export(&self) -> Option<Box<SecureState>> {
        let channel = self.channel.export()?;
        let [input, output] = match &self.backlog {
            None => [Vec::new(), Vec::new()],
            Some(backlog) => [backlog.input.clone(), backlog.output.clone()],
        };
        Some(Box::new(SecureState { channel, input, output, has_ended: self.has_ended() }))
    }

    /// Continues a socket of another process. `None` if another version has exported it.
    #[must_use]
    #[expect(clippy::boxed_local, reason = "states travel in boxes")]
    pub fn import(state: Box<SecureState>) -> Option<Box<Self>> {
        let SecureState { channel, input, output, has_ended } = *state;
        let channel = C::import(&channel)?;
        let backlog = RecordBacklog { input, output, has_ended };
        let backlog = (!backlog.is_empty()).then(|| Box::new(backlog));
        Some(Box::new(Self { channel, backlog }))
    }
}

#[cfg(test)]
impl SecureState {
    /// Nothing is left at its default.
    pub(crate) fn sample() -> Self {
        Self { channel: vec![1; 9], input: vec![2], output: vec![3], has_ended: true }
    }
}

#[cfg(test)]
impl<C> SecureSocket<C> {
    pub(super) fn change_channel(&mut self, change: impl FnOnce(&mut C)) {
        change(&mut self.channel);
    }
}

impl RecordBacklog {
    fn is_empty(&self) -> bool {
        self.input.is_empty() && self.output.is_empty() && !self.has_ended
    }
}
