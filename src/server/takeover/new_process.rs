//! A new process that asks for the connections, as the main thread of the old one sees it.
//!
//! Owns the stream of their conversation, and the report of its outcome to the task of the offer (`old_side.rs`). The
//! last message decides: once the new process has confirmed, the connections are its own, and `reclaim` finds out which
//! of both was first. Does not move the connections (`transfer.rs`).
//! No limits: one stream; `old_side.rs` serves one new process at a time. Cost: one or two system calls for each call.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::message::{FAILED, TAKEN, expect_message, is_readable, send_text};

#[derive(Debug)]
pub(in crate::server) struct NewProcess {
    pub(super) stream: UnixStream,
    pub(in crate::server) nonce: u64,
    pub(in crate::server) workers: usize,
    pub(in crate::server) process: i32,
    /// Reports the outcome to the task of the offer: a byte if the new process has everything, else only the end.
    pub(super) outcome: UnixStream,
}

impl NewProcess {
    /// # Errors
    /// When it sent something other than `taken`, or has ended before it had everything.
    pub(in crate::server) fn has_confirmed(&self) -> io::Result<bool> {
        if !is_readable(&self.stream)? {
            return Ok(false);
        }
        expect_message(&self.stream, TAKEN).map(|()| true)
    }

    /// `false`: too late, the new process has confirmed, and this process must not touch the connections again.
    pub(in crate::server) fn reclaim(&self) -> bool {
        // If the peer has closed, no process waits for this.
        send_text(&self.stream, FAILED).ok();
        // If the peer has ended, the stream is shut down already.
        self.stream.shutdown(Shutdown::Both).ok();
        expect_message(&self.stream, TAKEN).is_err()
    }

    pub(in crate::server) fn report_outcome(self, is_taken: bool) {
        if is_taken {
            // If the peer has closed, no process waits for this.
            (&self.outcome).write_all(&[1]).ok();
        }
    }
}
