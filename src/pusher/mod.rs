//! The Pusher Channels protocol, version 7, as values (docs/PROTOCOL.md). Knows no WebSocket frame and no socket.
//!
//! `inbound` reads what clients send, `outbound` writes what the server sends, `json` finds raw spans in untrusted
//! input so that `data` is passed through byte for byte, `error_code` is the one table of codes and texts.
//! `debug_text` shows a message to a person.

pub mod channel_name;
pub mod debug_text;
pub mod error_code;
pub mod inbound;
pub mod json;
pub mod origin;
pub mod outbound;
pub mod signature;
pub mod socket_id;
pub mod webhook_event;
