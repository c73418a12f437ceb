//! TLS of a server, without sockets: rustls makes the handshake, and a record layer of our own carries the connection.
//! PURE, with one exception: rustls and the tickets use random numbers.
//!
//! Owns the handshake driver (`handshake.rs`), the record layer (`record.rs`, `direction.rs`), session tickets
//! (`ticket.rs`), the checks of certificates (`identity.rs`), and the buffers of a socket (`socket.rs`). Knows no HTTP,
//! no WebSocket and no socket. `socket.rs` has the trait that the simulator implements with a cipher of its own.
//!
//! Limits: `sizes.rs` for a record, `handshake.rs` for a handshake, `socket.rs` for what waits. Cost: an established
//! connection keeps 224 bytes, because no TLS library stays beside it (docs/decisions/0011 has the measurements).

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub(crate) mod acceptor;
pub mod alert;
mod direction;
mod early_data;
pub mod handshake;
pub mod identity;
mod private_key;
pub mod record;
mod secrets;
mod sizes;
pub mod socket;
#[cfg(test)]
mod tests;
pub mod ticket;

use std::sync::Arc;

use rustls::ServerConfig;

use alert::Alert;
use direction::BurstKey;
use handshake::{Handshake, HandshakeError, HandshakeProgress};
use record::{RecordEvent, RecordLayer};
pub use sizes::{CONTENT_BYTES_MAX, HEADER_BYTES, RECORD_BYTES_MAX};
use socket::{ChannelEnd, Opened, SecureChannel};

/// The secure channel of one socket: a handshake, then the record layer.
#[expect(
    clippy::large_enum_variant,
    reason = "it is boxed with its socket, and mostly established"
)]
pub enum TlsChannel {
    Handshake(Box<Handshake>),
    Established(RecordLayer),
}

impl SecureChannel for TlsChannel {
    type Acceptor = Arc<ServerConfig>;

    fn accept(acceptor: &Self::Acceptor) -> Option<Self> {
        Handshake::new(acceptor.clone()).map(|handshake| Self::Handshake(Box::new(handshake)))
    }

    fn is_established(&self) -> bool {
        matches!(self, Self::Established(_))
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Handshake(handshake) => handshake.heap_bytes(),
            Self::Established(_) => 0,
        }
    }

    fn first_record_bytes(&self, input: &[u8]) -> usize {
        record::first_record_bytes(input)
    }

    fn open(&mut self, input: &mut [u8], out: &mut Vec<u8>) -> Opened {
        let mut begin = 0;
        if let Self::Handshake(handshake) = self {
            let (used, outcome) = handshake.receive(input, out);
            begin = used;
            match outcome {
                Ok(HandshakeProgress::Incomplete) => return Opened { used, plain: 0, end: None },
                Ok(HandshakeProgress::Established(records)) => *self = Self::Established(*records),
                Err(error) => {
                    let end = match error {
                        HandshakeError::NotTls => ChannelEnd::NotTls,
                        HandshakeError::Failed(why) => ChannelEnd::Failed(why),
                    };
                    return Opened { used, plain: 0, end: Some(end) };
                }
            }
        }
        match self {
            Self::Established(records) => open_records(records, input, begin, out),
            Self::Handshake(_) => Opened { used: begin, plain: 0, end: None },
        }
    }

    fn has_pending_record(&self) -> bool {
        matches!(self, Self::Established(records) if records.has_pending_record())
    }

    fn begin_record(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        match self {
            Self::Established(records) => records.begin_record(out),
            Self::Handshake(_) => None,
        }
    }

    fn end_record(&mut self, out: &mut Vec<u8>, begin: usize) -> bool {
        match self {
            Self::Established(records) => records.end(record::DATA, out, begin),
            Self::Handshake(_) => false,
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Self::Established(records) = self {
            records.close(out);
        }
    }

    fn is_exhausted(&self) -> bool {
        matches!(self, Self::Established(records) if records.is_exhausted())
    }

    fn export(&self) -> Option<Vec<u8>> {
        match self {
            Self::Established(records) => Some(records.export()),
            Self::Handshake(_) => None,
        }
    }

    fn import(bytes: &[u8]) -> Option<Self> {
        RecordLayer::import(bytes).map(Self::Established)
    }
}

const _: () = assert!(
    size_of::<socket::SecureSocket<TlsChannel>>() <= 224,
    "part of the budget of an idle connection"
);

/// Opens the records of `input` from `begin` on, and moves their content to its front.
fn open_records(
    records: &mut RecordLayer,
    input: &mut [u8],
    begin: usize,
    out: &mut Vec<u8>,
) -> Opened {
    let mut opened = Opened { used: begin, plain: 0, end: None };
    let mut burst = BurstKey::default();
    while let Some(rest) = input.get_mut(opened.used..) {
        let (bytes, event) = match records.open(rest, &mut burst) {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(alert) => {
                records.fail(alert, out);
                opened.end = Some(ChannelEnd::Failed(alert.text()));
                break;
            }
        };
        match event {
            RecordEvent::Data(content) => {
                let from = opened.used + content.start..opened.used + content.end;
                let count = from.len();
                // The content follows its header, so it moves to the left.
                input.copy_within(from, opened.plain);
                opened.plain += count;
            }
            RecordEvent::Nothing => {}
            RecordEvent::Closed => opened.end = Some(ChannelEnd::Closed),
            RecordEvent::Failed(number) => {
                opened.end = Some(ChannelEnd::Failed(Alert(number).text_of_peer()));
            }
        }
        opened.used += bytes;
        if opened.end.is_some() {
            break;
        }
    }
    opened
}
