//! Take-over: a new process takes the port, or the port and the connections, over from the old process.

mod admin_requests;
mod changes;
mod connections;
mod failures;
mod late_request;
mod listeners;
mod locked_memory;
pub(crate) mod new_program;
mod peers;
