//! The HTTP API, and HTTP itself.

mod api;
mod authentication;
mod transport;
