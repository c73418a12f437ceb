//! Tests of the shard: `net` runs several cores in one thread, `rules` checks the protocol's rules one by one,
//! `memory` what connections are charged and what one client can cause, `users` those of sign-in and webhooks,
//! `counts` when numbers of subscribers are sent, `random` interleaves everything at random and checks what must hold
//! whatever happens, `refusals` has lines that take a server without memory, `odd` has values that only a faulty
//! clock, node or process gives, `invariants` violates each invariant once, `inspect` has the questions of operators.

pub(super) use net::node_alone;

mod access;
mod configuration;
mod counts;
mod inspect;
mod invariants;
mod limits;
mod memory;
mod net;
mod odd;
mod random;
mod refusals;
mod rules;
mod users;
