//! What a client sends on a connection and what it receives.

mod conformance;
mod ends;
mod framing;
mod handshake;
mod order;
mod presence;
mod transcripts;
mod users;
