//! HOT: what the frame decoder finds in the input of one connection, passed to the shard. PURE.
//!
//! Owns no state: it borrows the shard for the time of one read. Stops the decoder when the connection closes or is
//! over the limit of its send queue, so that the rest of the input has no effect. Does not decode frames or read
//! messages.
//!
//! Limits: those of the shard for messages and control frames. Cost: one look-up by slot for each message, no
//! allocation.

use crate::shard::{ConnectionKey, Shard};
use crate::ws::reader::{Flow, MessageKind, Sink};

pub(super) struct ShardSink<'a> {
    pub(super) shard: &'a mut Shard,
    pub(super) key: ConnectionKey,
    pub(super) peer_closed: bool,
}

impl ShardSink<'_> {
    fn flow(&self) -> Flow {
        match self.shard.get(self.key) {
            // A connection that is over the bound of its send queue is closed after this input, and its further
            // requests are ignored.
            Some(connection) if !connection.is_closing() && !connection.is_overflowed() => {
                Flow::Continue
            }
            _ => Flow::Stop,
        }
    }
}

impl Sink for ShardSink<'_> {
    #[cfg(not(feature = "echo"))]
    fn message(&mut self, _kind: MessageKind, payload: &mut [u8]) -> Flow {
        self.shard.on_message(self.key, payload);
        self.flow()
    }

    #[cfg(feature = "echo")]
    fn message(&mut self, kind: MessageKind, payload: &mut [u8]) -> Flow {
        self.shard.echo(self.key, kind, payload);
        self.flow()
    }

    fn ping(&mut self, payload: &[u8]) -> Flow {
        self.shard.on_ping_frame(self.key, payload);
        self.flow()
    }

    fn pong(&mut self, _payload: &[u8]) -> Flow {
        self.shard.on_pong_frame(self.key);
        self.flow()
    }

    fn close(&mut self, code: Option<u16>, reason: &str) -> Flow {
        self.peer_closed = true;
        // The peer's code is sent back (RFC 6455 section 5.5.1); an empty close is answered with 1000 as in Reverb.
        self.shard.close_frame(self.key.slot, code.unwrap_or(1000), reason);
        debug_assert!(
            self.shard.get(self.key).is_none_or(crate::shard::Connection::is_closing),
            "what follows its close frame is dropped"
        );
        Flow::Stop
    }
}
