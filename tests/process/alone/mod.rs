//! Tests that measure memory, descriptors or latency: no other test may run beside them. `support::gate` sees to it.

mod connection_memory;
mod exhaustion;
mod fairness;
mod memory;
mod sockets;
