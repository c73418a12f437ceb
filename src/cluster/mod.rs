//! Nodes send each other messages over Redis: the session of one core, as a value. PURE: bytes in, bytes out
//! (docs/decisions/0008, docs/PROTOCOL.md C11). docs/CLUSTER.md has all messages, and diagrams.
//!
//! Owns: the commands and replies of one connection to Redis, the numbers of messages, and what may have to be sent
//! again. Does not touch: the socket (`worker/redis.rs`), or what messages mean (`shard/cluster`).
//!
//! Each core has its own session and subscribes on it to the topics that its homes need, so nothing is handed between
//! cores that was not before. Redis only relays messages, and what it sends on one connection has one order: replies,
//! confirmations and messages.
//!
//! Each message carries its sender's session and a number that only grows. Events that Redis has not confirmed are kept
//! and sent again on the next connection; a receiver drops numbers that it knows. Everything else that is lost with a
//! connection is state, and its snapshot is sent on the next.
//!
//! Limits: while there is no connection, what is kept takes at most `KEPT_BYTES_MAX`; the oldest event is dropped
//! first, and counted. A Redis that sends nothing for `SILENT_SECONDS` while it owes a reply, or leaves
//! `OUTPUT_BYTES_MAX` unread, is left, so both also bound what it has not confirmed.

mod envelope;
mod names;
mod session;

pub use names::probe_name;
pub use session::{ClusterSession, Login, Lost, SessionLimits};
