//! The echo build (`--features echo`): the server sends each message back unchanged. PURE.
//!
//! For suites that test the framing of any server by its echo (tests/autobahn). The feature is never on in what is
//! shipped. Owns nothing; does not parse a message. A message is counted, charged and limited as any other.
//!
//! Limits: those of any message, as above. Cost: one allocation and one copy of the message.

use super::Local;
use super::connection::ConnectionKey;
use crate::shard::context::Context;
use crate::shard::outbox::Outbox;
use crate::ws::frame;
use crate::ws::frame::Opcode;
use crate::ws::reader::MessageKind;

impl Local {
    /// In place of `on_message`.
    pub(in crate::shard) fn echo(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        kind: MessageKind,
        payload: &[u8],
    ) {
        if self.note_inbound(context, key).is_none() {
            return;
        }
        let opcode = match kind {
            MessageKind::Text => Opcode::Text,
            MessageKind::Binary => Opcode::Binary,
        };
        let mut bytes = Vec::with_capacity(payload.len() + 10);
        frame::encode(opcode, payload, &mut bytes);
        self.enqueue(context, out, key.slot, &bytes.into());
    }
}
