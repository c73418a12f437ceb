//! The Pusher Channels protocol, version 7, as values (docs/PROTOCOL.md). Knows no WebSocket frame and no socket, and
//! owns no state.
//!
//! `inbound` reads messages of clients, `outbound` writes messages of the server, `json` finds raw spans in untrusted
//! input so that `data` is passed through byte for byte, `error_code` is the only table of codes and texts.
//! `debug_text` formats a message for a person. Rules of membership are in `shard`.

// What a peer sends decides no index.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod channel_name;
pub mod debug_text;
pub mod error_code;
pub mod inbound;
pub mod json;
pub mod origin;
pub mod outbound;
pub(crate) mod printed;
pub mod signature;
pub mod socket_id;
pub mod webhook_event;
