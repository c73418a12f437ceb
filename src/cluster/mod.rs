//! Nodes speak to each other over Redis: the line of one core, as a value. PURE: bytes in, bytes out
//! (docs/decisions/0008, docs/PROTOCOL.md C11).
//!
//! Each core has a line of its own and subscribes on it to the subjects that its homes hold, so nothing is handed
//! between cores that was not before, and what Redis says on one line is in one order: replies, confirmations and
//! messages. `shard::cluster` has the rules of what is said; `worker` has the socket.
//!
//! Every envelope carries its sender's link and a number that only grows. Events that Redis has not confirmed are kept
//! and sent again on the next line; whoever had heard them knows the number and drops them. All else that is lost with
//! a line is state, and told whole on the next.
//!
//! Bounds: what is kept takes at most `KEPT_BYTES_MAX`, the oldest event goes first and is counted; a Redis that takes
//! or says nothing for `SILENT_BEATS`, or does not take what is written, is left and called anew.

mod catch_up;
mod envelope;
mod link;
mod recent;
mod subject;

pub use link::{Link, LinkLimits, Login, Lost};
