//! The records that move between two processes in a transfer, and the version of their format. Plain values.
//!
//! Owns the format. Does not touch sockets: `stream.rs` sends and receives them beside the records. Both processes run
//! this program, perhaps in two versions. If `FORMAT` differs, the new process takes over the listeners only, and
//! clients reconnect. The other process is trusted, because it runs as the same user; its records are still decoded
//! within bounds. Limits: `stream.rs` bounds the bytes of a batch, and so every list of a record. Cost: linear in the
//! bytes; decoding allocates for each text and list.

use std::io;

use serde::{Deserialize, Serialize};

use crate::admission::ClientAddress;
use crate::shard::ChannelState;
use crate::tick::{SessionPeer, TransferredConnection};
use crate::tls::socket::SecureState;

/// Increase it with each change of `Record`: `the_form_has_its_number` fails otherwise.
pub(crate) const FORMAT: u32 = 3;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Record {
    /// An established connection, with its socket.
    Connection { moved: TransferredConnection, client: Option<ClientAddress> },
    /// A socket that speaks HTTP, between two requests or with an incomplete one.
    Session { peer: SessionPeer, served: bool, input: Vec<u8>, secure: Option<Box<SecureState>> },
    /// The keys of session tickets: the new process opens the tickets of the old one.
    TicketKeys(Vec<Vec<u8>>),
    /// A home's state of a channel.
    Channel(ChannelState),
    /// The end, with the number of records before it.
    End { records: u64 },
}

impl Record {
    pub(super) fn has_socket(&self) -> bool {
        matches!(self, Self::Connection { .. } | Self::Session { .. })
    }

    /// `postcard` wants the vector by value, so it is returned with the record appended.
    pub(super) fn encode(&self, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        postcard::to_extend(self, bytes).map_err(io::Error::other)
    }

    /// The first record, and the bytes after it.
    pub(super) fn decode(bytes: &[u8]) -> io::Result<(Self, &[u8])> {
        let decoded = postcard::take_from_bytes(bytes);
        decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pusher::inbound::UserId;
    use crate::pusher::socket_id::SocketId;
    use crate::shard::{ConnectionState, HomeState, MemberState, UserState};

    fn text(text: &str) -> Box<str> {
        text.into()
    }

    fn user(id: &str) -> UserId {
        UserId { json: format!("\"{id}\"").into(), text: id.into() }
    }

    /// One of each, nothing left at its default.
    fn samples() -> [Record; 5] {
        let connection = ConnectionState {
            app: text("1001"),
            socket_id: SocketId::parse("7.8").unwrap(),
            subscriptions: vec![(text("news"), None), (text("presence-r"), Some(user("u")))],
            begun_frame: vec![1],
            unsent: vec![2, 3],
            is_closing: true,
            last_inbound_seconds: 4,
            rate_window_seconds: 5,
            rate_count: 6,
            awaits_pong: true,
            speaks_control_frames: true,
            is_authorized: true,
            authorize_by_seconds: Some(7),
            user: Some(UserState {
                user: user("u"),
                user_info: text("{}"),
                watched: vec![(text("v"), true)],
            }),
            client_event_count: 8,
            client_event_second: 9,
        };
        let home = HomeState {
            members: vec![MemberState { user: user("u"), user_info: text("{}"), connections: 1 }],
            cached: Some((vec![129, 0], 300)),
            count_sent: Some((101, 12)),
        };
        let client = ClientAddress::of([127, 0, 0, 1].into());
        [
            Record::Connection {
                moved: TransferredConnection {
                    connection,
                    peer_closed: true,
                    partial: vec![129],
                    secure: Some(Box::new(SecureState::sample())),
                    named_client: Some(([198, 51, 100, 7], 5_123).into()),
                },
                client: Some(client),
            },
            Record::Session {
                peer: SessionPeer { address: ([127, 0, 0, 1], 4_711).into(), is_named: true },
                served: true,
                input: b"GET /".to_vec(),
                secure: None,
            },
            Record::TicketKeys(vec![vec![1; 48]]),
            Record::Channel(ChannelState { app: text("1001"), name: text("news"), home }),
            Record::End { records: 4 },
        ]
    }

    #[test]
    fn records_are_decoded_as_they_were_encoded() {
        let mut bytes = Vec::new();
        for record in samples() {
            bytes = record.encode(bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        for record in samples() {
            let (decoded, after) = Record::decode(rest).unwrap();
            assert_eq!(decoded, record);
            rest = after;
        }
        assert!(rest.is_empty());
        for cut in 0..bytes.len() {
            // A cut record is an error or another record, and never a panic.
            let _ = Record::decode(&bytes[cut..]);
            let _ = Record::decode(&bytes[..cut]);
        }
    }

    /// Two versions that read one format differently would lose connections. A change of a record changes these bytes:
    /// then change `FORMAT` too, and the number here.
    #[test]
    fn the_form_has_its_number() {
        let bytes =
            samples().iter().fold(Vec::new(), |bytes, record| record.encode(bytes).unwrap());
        let digest = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        assert_eq!((FORMAT, bytes.len(), digest), (3, 199, 10_820_213_861_217_044_865));
    }
}
