//! RFC 6455 as pure functions over bytes: no socket, no clock, no randomness, no knowledge of Pusher.
//!
//! - `frame`: header layout, encode and decode
//! - `mask`: masking and its removal
//! - `utf8`: validation of text that arrives in pieces
//! - `close`: close codes and the close payload
//! - `violation`: errors of a peer, each with its close code
//! - `reader`: bytes in any cut → whole messages and control frames
//! - `handshake`: the upgrade request and its answer

// What a peer sends decides no index.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod close;
pub mod frame;
pub mod handshake;
pub mod mask;
pub mod reader;
pub mod utf8;
pub mod violation;
