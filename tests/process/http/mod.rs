//! The HTTP API, and HTTP itself.

mod api;
mod transport;
