//! TLS of the server: what clients of several kinds see, faults, resumption, certificates, and the take-over.

mod certificates;
mod connections;
mod peers;
mod takeover;
