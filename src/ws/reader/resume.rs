//! An incomplete input as bytes that another reader continues from: a transfer moves it to another process. PURE.
//!
//! Owns no format and no version: the bytes are wire bytes, so the reader itself is the decoder. Does not know the
//! transfer. Complete fragments are merged into one, which is equivalent for the following frames. Limits: those of the
//! reader. Cost: one copy of the incomplete input, only for a transfer.

use super::{MessageKind, OpenFrame, Partial};
use crate::ws::frame::{Opcode, encode_masked_header};
use crate::ws::mask::unmask;

impl Partial {
    /// The bytes after which a new reader has the state of this one.
    #[must_use]
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        let data = self.frame.filter(|frame| !frame.header.opcode.is_control());
        let received = data.map_or(0, |frame| frame.received);
        let (before, tail) = self.message.split_at(self.message.len() - received);
        let is_first = data.is_some_and(|frame| frame.header.opcode != Opcode::Continuation);
        if let Some(kind) = self.message_kind
            && !is_first
        {
            let opcode = match kind {
                MessageKind::Text => Opcode::Text,
                MessageKind::Binary => Opcode::Binary,
            };
            // Masked with zeros: the bytes as they are.
            encode_masked_header(false, opcode, before.len() as u64, [0; 4], &mut wire);
            wire.extend_from_slice(before);
        }
        if let Some(OpenFrame { header, .. }) = self.frame {
            let payload = if header.opcode.is_control() { &self.control } else { tail };
            encode_masked_header(
                header.fin,
                header.opcode,
                header.payload_len,
                header.mask,
                &mut wire,
            );
            let start = wire.len();
            wire.extend_from_slice(payload);
            unmask(wire.get_mut(start..).unwrap_or_default(), header.mask, 0);
        }
        wire.extend_from_slice(self.header_bytes());
        wire
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::ws::frame::{Opcode, encode_masked_header};
    use crate::ws::mask::unmask;
    use crate::ws::reader::{Flow, FrameLimits, MessageKind, Partial, Sink, read};

    #[derive(Debug, Default, PartialEq)]
    struct Received(Vec<(u8, Vec<u8>)>);

    impl Sink for Received {
        fn message(&mut self, kind: MessageKind, payload: &mut [u8]) -> Flow {
            self.0.push((if kind == MessageKind::Text { 1 } else { 2 }, payload.to_vec()));
            Flow::Continue
        }
        fn ping(&mut self, payload: &[u8]) -> Flow {
            self.0.push((9, payload.to_vec()));
            Flow::Continue
        }
        fn pong(&mut self, payload: &[u8]) -> Flow {
            self.0.push((10, payload.to_vec()));
            Flow::Continue
        }
        fn close(&mut self, _code: Option<u16>, _reason: &str) -> Flow {
            Flow::Stop
        }
    }

    /// Messages in fragments, pings between them, all masked.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let fragment = prop::collection::vec(any::<u8>(), 0..200);
        let fragments = prop::collection::vec((fragment, any::<bool>()), 1..4);
        let text = prop::collection::vec("\\PC{0,40}", 1..3);
        let message = prop_oneof![
            (fragments, any::<[u8; 4]>()).prop_map(|(parts, mask)| message(2, parts, mask)),
            (text, any::<[u8; 4]>()).prop_map(|(parts, mask)| {
                message(1, parts.into_iter().map(|part| (part.into_bytes(), true)).collect(), mask)
            }),
        ];
        prop::collection::vec(message, 1..4).prop_map(|messages| messages.concat())
    }

    fn message(first: u8, parts: Vec<(Vec<u8>, bool)>, mask: [u8; 4]) -> Vec<u8> {
        let mut wire = Vec::new();
        let last = parts.len() - 1;
        for (index, (part, ping)) in parts.into_iter().enumerate() {
            let opcode = match (index, first) {
                (0, 1) => Opcode::Text,
                (0, _) => Opcode::Binary,
                _ => Opcode::Continuation,
            };
            put(&mut wire, index == last, opcode, part, mask);
            if ping {
                put(&mut wire, true, Opcode::Ping, vec![7; index + 3], mask);
            }
        }
        wire
    }

    fn put(wire: &mut Vec<u8>, fin: bool, opcode: Opcode, mut payload: Vec<u8>, mask: [u8; 4]) {
        encode_masked_header(fin, opcode, payload.len() as u64, mask, wire);
        unmask(&mut payload, mask, 0);
        wire.append(&mut payload);
    }

    proptest! {
        /// Input that is cut anywhere, moved and continued gives the same messages.
        #[test]
        fn another_reader_continues_input_that_was_cut(wire in stream(), cut: prop::sample::Index) {
            let limits = FrameLimits { message_size_max: 1 << 20 };
            let mut whole = Received::default();
            let mut partial: Option<Box<Partial>> = None;
            let _ = read(&mut partial, &mut wire.clone(), limits, &mut whole);
            prop_assert!(partial.is_none());

            let mut wire = wire;
            let at = cut.index(wire.len() + 1);
            let (head, tail) = wire.split_at_mut(at);
            let mut events = Received::default();
            let _ = read(&mut partial, head, limits, &mut events);
            let mut moved = partial.as_ref().map_or(Vec::new(), |partial| partial.to_wire());
            let mut resumed: Option<Box<Partial>> = None;
            let before = events.0.len();
            let _ = read(&mut resumed, &mut moved, limits, &mut events);
            prop_assert_eq!(events.0.len(), before, "what is incomplete stays so");
            let _ = read(&mut resumed, tail, limits, &mut events);
            prop_assert_eq!(events, whole);
        }
    }
}
