//! The session of one core with Redis, through which nodes send each other messages: a value. PURE: bytes in, bytes out
//! (docs/decisions/0008, docs/PROTOCOL.md C11). docs/CLUSTER.md has all messages, and diagrams.
//!
//! Owns: the commands and replies of one connection to Redis, the numbers of messages, and what may have to be sent
//! again. Does not touch the socket (`worker/redis.rs`), and does not know what messages mean (`shard/cluster`). Each
//! core has its own session and subscribes on it to the topics that its homes need, so a cluster adds no mail between
//! the cores of a node. Redis only relays messages; what it sends on one connection has one order.
//!
//! Limits: those of `session/mod.rs`. Cost: a publish is one command, whatever the number of nodes and subscribers;
//! each node decodes a message once.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod envelope;
mod names;
mod session;

pub use names::probe_name;
pub use session::{ClusterSession, Login, Lost, SessionLimits};
