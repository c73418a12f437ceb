//! The decoder: input bytes, cut anywhere, to whole messages and control frames. PURE.
//!
//! Owns nothing for an idle connection: an incomplete frame or message is in a boxed `Partial`, which exists only until
//! it is complete. Does not know what a message means. A message that is complete in the input is unmasked in place and
//! passed on without a copy. Memory grows with the received bytes, never with a declared length.
//!
//! Limits: `FrameLimits::message_size_max` for a message, 125 bytes for a control frame. A larger one is a `Violation`,
//! which closes the connection and is counted. Cost: 412 instructions (`frame_read_100_bytes`, in
//! bench/RESULTS.md) for a frame of 100 bytes with its unmasking. One allocation for an incomplete frame, none for a
//! complete one.

use super::close;
use super::frame::{HEADER_BYTES_MAX, Header, Opcode};
use super::mask::unmask;
use super::utf8::Utf8;
pub use super::violation::Violation;

mod resume;
#[cfg(test)]
mod tests;

/// First allocation for a message in pieces; smaller ones would only be grown again.
const MESSAGE_CAPACITY_MIN: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    Continue,
    /// The connection is closing. The rest of the input is dropped.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    Text,
    Binary,
}

/// What the reader finds, in the order in which it arrived.
pub trait Sink {
    /// A complete message, reassembled and unmasked. Text is valid UTF-8.
    fn message(&mut self, kind: MessageKind, payload: &mut [u8]) -> Flow;
    fn ping(&mut self, payload: &[u8]) -> Flow;
    fn pong(&mut self, payload: &[u8]) -> Flow;
    /// Nothing is read after a close frame, whichever value is returned (RFC 6455 section 1.4).
    fn close(&mut self, code: Option<u16>, reason: &str) -> Flow;
}

#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// Payload bytes of one message, all fragments together. Exactly this many are accepted.
    pub message_size_max: usize,
}

/// The incomplete part of a connection's input: a header, a frame without all of its payload, or the fragments of an
/// unfinished message.
#[derive(Debug, Default)]
pub struct Partial {
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// `Some` from the first fragment of a message to the last.
    message_kind: Option<MessageKind>,
    utf8: Utf8,
    frame: Option<OpenFrame>,
    message: Vec<u8>,
    /// Control frames can come between fragments, so their bytes need a separate buffer.
    control: Vec<u8>,
}

// Every connection that pauses inside a frame pays this.
const _: () = assert!(size_of::<Partial>() <= 96);

/// A frame whose header is complete, and how many payload bytes have been received.
#[derive(Clone, Copy, Debug)]
struct OpenFrame {
    header: Header,
    received: usize,
}

/// Reads all of `input`. Afterwards `partial` is `None` if and only if the input ended at a frame
/// boundary with no fragmented message in progress, or the connection is over.
///
/// HOT: one pass over the bytes for the mask, one for UTF-8; no allocation for whole messages.
///
/// # Errors
/// The peer's fault that ends the connection; frames before it were handed to `sink`.
pub fn read(
    partial: &mut Option<Box<Partial>>,
    input: &mut [u8],
    limits: FrameLimits,
    sink: &mut impl Sink,
) -> Result<Flow, Violation> {
    let outcome = read_frames(partial, input, limits, sink);
    let is_over = outcome != Ok(Flow::Continue);
    if is_over || partial.as_ref().is_some_and(|partial| partial.is_empty()) {
        *partial = None;
    }
    outcome
}

fn read_frames(
    partial: &mut Option<Box<Partial>>,
    mut input: &mut [u8],
    limits: FrameLimits,
    sink: &mut impl Sink,
) -> Result<Flow, Violation> {
    while let Some(frame) = next_frame(partial, &mut input, limits)? {
        let remaining = frame.remaining();
        if input.len() < remaining {
            let partial = partial.get_or_insert_default();
            // A frame of which nothing came yet may still be handed on without a copy.
            if !input.is_empty() {
                partial.append(frame, input, limits)?;
            }
            partial.frame = Some(OpenFrame { received: frame.received + input.len(), ..frame });
            return Ok(Flow::Continue);
        }
        let (payload, rest) = std::mem::take(&mut input).split_at_mut(remaining);
        input = rest;
        if complete_frame(partial, frame, payload, limits, sink)? == Flow::Stop {
            return Ok(Flow::Stop);
        }
    }
    Ok(Flow::Continue)
}

/// The frame in progress, or the next one whose header is complete. `None`: `input` is used up.
fn next_frame(
    partial: &mut Option<Box<Partial>>,
    input: &mut &mut [u8],
    limits: FrameLimits,
) -> Result<Option<OpenFrame>, Violation> {
    if partial.is_none() {
        return next_whole_header(partial, input, limits);
    }
    if let Some(frame) = partial.as_mut().and_then(|partial| partial.frame.take()) {
        return Ok(Some(frame));
    }
    let cut = partial.as_deref().map_or(0, |partial| usize::from(partial.header_len));
    let decoded = match partial.as_deref_mut() {
        Some(partial) if cut > 0 => {
            partial.extend_header(input);
            Header::decode(partial.header_bytes())?
        }
        _ => Header::decode(input)?,
    };
    let Some((header, size)) = decoded else {
        // With a cut header in store its bytes were added above.
        if cut == 0 && !input.is_empty() {
            partial.get_or_insert_default().extend_header(input);
        }
        return Ok(None);
    };
    let taken = std::mem::take(input);
    *input = taken.get_mut(size.saturating_sub(cut)..).unwrap_or_default();
    if let Some(partial) = partial {
        partial.header_len = 0;
    }
    check_order_and_size(partial.as_deref(), &header, limits)?;
    Ok(Some(OpenFrame { header, received: 0 }))
}

/// `next_frame` where nothing is incomplete, which is the usual case.
#[inline]
fn next_whole_header(
    partial: &mut Option<Box<Partial>>,
    input: &mut &mut [u8],
    limits: FrameLimits,
) -> Result<Option<OpenFrame>, Violation> {
    if input.is_empty() {
        return Ok(None);
    }
    let Some((header, size)) = Header::decode(input)? else {
        partial.get_or_insert_default().extend_header(input);
        return Ok(None);
    };
    *input = std::mem::take(input).get_mut(size..).unwrap_or_default();
    check_order_and_size(None, &header, limits)?;
    Ok(Some(OpenFrame { header, received: 0 }))
}

/// What a header can only break together with the frames before it (RFC 6455 section 5.4).
fn check_order_and_size(
    partial: Option<&Partial>,
    header: &Header,
    limits: FrameLimits,
) -> Result<(), Violation> {
    if header.opcode.is_control() {
        return Ok(());
    }
    let in_progress = partial.is_some_and(|partial| partial.message_kind.is_some());
    match (header.opcode, in_progress) {
        (Opcode::Continuation, false) => return Err(Violation::ContinuationWithoutStart),
        (Opcode::Text | Opcode::Binary, true) => return Err(Violation::MessageInsideMessage),
        _ => {}
    }
    let received = partial.map_or(0, |partial| partial.message.len());
    let room = limits.message_size_max.saturating_sub(received) as u64;
    if header.payload_len > room { Err(Violation::MessageTooBig) } else { Ok(()) }
}

/// `payload` is the last piece of the frame, and usually the only one.
fn complete_frame(
    partial: &mut Option<Box<Partial>>,
    frame: OpenFrame,
    payload: &mut [u8],
    limits: FrameLimits,
    sink: &mut impl Sink,
) -> Result<Flow, Violation> {
    let Header { fin, opcode, mask, .. } = frame.header;
    if frame.received == 0 && opcode.is_control() {
        unmask(payload, mask, 0);
        return deliver_control(opcode, payload, sink);
    }
    if frame.received == 0
        && fin
        && let Some(kind) = message_kind(opcode)
    {
        unmask(payload, mask, 0);
        if kind == MessageKind::Text && simdutf8::basic::from_utf8(payload).is_err() {
            return Err(Violation::InvalidUtf8);
        }
        return Ok(sink.message(kind, payload));
    }
    let partial = partial.get_or_insert_default();
    partial.append(frame, payload, limits)?;
    if opcode.is_control() {
        let control = std::mem::take(&mut partial.control);
        return deliver_control(opcode, &control, sink);
    }
    if fin { partial.deliver_message(sink) } else { Ok(Flow::Continue) }
}

fn deliver_control(
    opcode: Opcode,
    payload: &[u8],
    sink: &mut impl Sink,
) -> Result<Flow, Violation> {
    match opcode {
        Opcode::Ping => Ok(sink.ping(payload)),
        Opcode::Pong => Ok(sink.pong(payload)),
        _ => {
            let (code, reason) = match close::decode_payload(payload)? {
                Some((code, reason)) => (Some(code), reason),
                None => (None, ""),
            };
            let _stops_anyway = sink.close(code, reason);
            Ok(Flow::Stop)
        }
    }
}

fn message_kind(opcode: Opcode) -> Option<MessageKind> {
    match opcode {
        Opcode::Text => Some(MessageKind::Text),
        Opcode::Binary => Some(MessageKind::Binary),
        _ => None,
    }
}

impl OpenFrame {
    /// Payload bytes still to come. A length beyond the address space was refused with its header.
    fn remaining(&self) -> usize {
        let payload_len = usize::try_from(self.header.payload_len).unwrap_or(usize::MAX);
        payload_len.saturating_sub(self.received)
    }
}

impl Partial {
    /// Heap bytes of this value, including itself.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.message.capacity() + self.control.capacity()
    }

    /// Then the box is freed.
    fn is_empty(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message_kind.is_none()
    }

    fn header_bytes(&self) -> &[u8] {
        self.header.get(..usize::from(self.header_len)).unwrap_or_default()
    }

    /// Copies bytes to the cut header until it is full; a full one always decodes.
    fn extend_header(&mut self, input: &[u8]) {
        let free = self.header.iter_mut().skip(usize::from(self.header_len));
        for (slot, byte) in free.zip(input) {
            *slot = *byte;
            self.header_len += 1;
        }
    }

    /// Unmasks and stores a piece of a frame's payload; text is validated as it arrives.
    fn append(
        &mut self,
        frame: OpenFrame,
        piece: &mut [u8],
        limits: FrameLimits,
    ) -> Result<(), Violation> {
        unmask(piece, frame.header.mask, frame.received);
        if frame.header.opcode.is_control() {
            self.control.extend_from_slice(piece);
            return Ok(());
        }
        if let Some(kind) = message_kind(frame.header.opcode) {
            self.message_kind = Some(kind);
        }
        if self.message_kind == Some(MessageKind::Text) {
            self.utf8.push(piece).map_err(|_| Violation::InvalidUtf8)?;
        }
        let size_max = if frame.header.fin {
            self.message.len() + frame.remaining()
        } else {
            limits.message_size_max
        };
        self.reserve(piece.len(), size_max);
        self.message.extend_from_slice(piece);
        Ok(())
    }

    /// Doubles like a `Vec`, but not beyond what the message can still become.
    fn reserve(&mut self, additional: usize, size_max: usize) {
        let needed = self.message.len() + additional;
        if needed > self.message.capacity() {
            let doubled = (2 * self.message.capacity()).max(MESSAGE_CAPACITY_MIN);
            let capacity = doubled.min(size_max).max(needed);
            self.message.reserve_exact(capacity - self.message.len());
        }
    }

    /// Passes the message in progress to the sink, and frees its memory.
    fn deliver_message(&mut self, sink: &mut impl Sink) -> Result<Flow, Violation> {
        let mut message = std::mem::take(&mut self.message);
        let utf8 = std::mem::take(&mut self.utf8);
        // A last fragment was only accepted with a message in progress.
        let kind = self.message_kind.take().ok_or(Violation::ContinuationWithoutStart)?;
        if kind == MessageKind::Text {
            utf8.finish().map_err(|_| Violation::InvalidUtf8)?;
        }
        Ok(sink.message(kind, &mut message))
    }
}
