//! The proof that a new ring works: a no-op and a multishot poll go to the kernel and back.
//!
//! Owns no state. Never runs in a worker: `kernel/probe.rs` runs it once, before any worker starts, because sandboxes
//! refuse io_uring in several ways. Input: a new ring. Output: the step that failed, with its error. Limits: `PROOF_MS`
//! for each of the three steps. Cost: six system calls or so, once at the start.

use std::io;

use super::completion::Completion;
use super::{NO_OP, TRIES, Uring, Wait};
use crate::mailbox::Doorbell;
use crate::tick::kernel::Kernel;
use crate::worker::kernel::pack_parts;
use io_uring::opcode;

/// A working ring needs some microseconds. An imitated one would never answer.
const PROOF_MS: u64 = 1_000;

impl Uring {
    /// Submits a no-op and lets a multishot poll report twice: if a sandbox refuses `io_uring_enter`, or only imitates
    /// it, a worker would wait without end. Takes at most `PROOF_MS` a step. For a new ring.
    ///
    /// # Errors
    /// The step that failed, and how.
    pub(in crate::worker::kernel) fn prove(&mut self) -> Result<(), (&'static str, io::Error)> {
        self.push(&opcode::Nop::new().build().user_data(pack_parts(NO_OP, 0, 0)));
        self.prove_step(|completion| completion.data == pack_parts(NO_OP, 0, 0))
            .map_err(|error| ("io_uring_enter", error))?;
        let poll = |error| ("a multishot poll", error);
        let doorbell = Doorbell::new().map_err(|error| ("an eventfd", error))?;
        self.watch_doorbell(&doorbell);
        for _ in 0..2 {
            doorbell.set_asleep();
            doorbell.ring();
            self.prove_step(|completion| {
                completion
                    .event()
                    .is_some_and(|event| event.is_armed && !event.has_failed && !event.has_end)
            })
            .map_err(poll)?;
        }
        Ok(())
    }

    fn prove_step(&mut self, is_expected: impl Fn(Completion) -> bool) -> io::Result<()> {
        for _ in 0..TRIES {
            match self.call(true, Wait::For(PROOF_MS)) {
                Err(error) if error.raw_os_error() == Some(libc::ETIME) => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let mut found = None;
            self.complete(|completion| found = Some(completion));
            if let Some(found) = found {
                let answer = usize::try_from(found.result)
                    .map_err(|_| io::Error::from_raw_os_error(found.result.saturating_neg()));
                answer?;
                return is_expected(found).then_some(()).ok_or(io::ErrorKind::InvalidData.into());
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}
