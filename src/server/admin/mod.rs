//! The admin listener: probes and metrics for operators, on a socket of its own (`RINGVERB_ADMIN`).
//!
//! `listener.rs` owns the socket, which a process that takes over inherits. `slots.rs` limits the connections, and
//! `connection.rs` reads one request and writes one answer, within limits of size and time. `owed.rs` counts what is
//! not answered, so that the process does not end before it is. `routes.rs` decides what is answered to whom. `metrics`
//! has the table of metrics, `api` what the console reads, `viewers` the event log, `changes` the requests that change
//! the configuration. All of it runs on the thread `admin`, which has a runtime like that of the control thread, so
//! that neither a scrape nor a slow peer delays signals or memory measurements. It reads what workers publish. Only
//! `api` asks workers, with bounded questions that have a time limit, and `changes` the main thread.

mod api;
mod changes;
mod claim;
mod connection;
mod console;
mod listener;
mod metrics;
mod owed;
mod routes;
mod server;
mod slots;
mod viewers;

pub(super) use claim::{Claimed, bind_or_inherit};
pub(super) use listener::{probe, start_refusal};
pub(super) use metrics::ScrapeSources;
#[cfg(test)]
pub(super) use owed::ANSWERS_TIME_MAX;
pub(super) use server::AdminServer;
