//! HTTP/1.1 as pure functions over bytes: no socket, no clock, no routes (RFC 9110, RFC 9112).
//!
//! - `request`: bytes in any cut → whole requests, within limits
//! - `head`: one parsed request and what its header fields say
//! - `chunked`: the chunked transfer coding
//! - `refusal`: what can be wrong with a request, with the status it earns
//! - `query`: percent-decoding of query strings and paths
//! - `response`: the writer

// What a peer sends decides no index.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod chunked;
mod head;
pub mod query;
pub mod refusal;
pub mod request;
pub mod response;
