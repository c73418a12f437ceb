//! TLS of the server: what clients of several kinds see, faults, resumption, certificates, the take-over, and the PROXY
//! protocol before it.

mod certificates;
mod connections;
mod peers;
mod proxied;
mod takeover;
