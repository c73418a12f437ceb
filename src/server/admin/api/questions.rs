//! Questions of the admin API to the workers, and their answers put together.
//!
//! A question goes to the `OperatorQueue` of each worker it concerns, and the doorbells ring. Then this thread looks
//! for the answers every few milliseconds, because a write to a pipe or an eventfd would cost a worker a system call.
//! Limits: `QUESTIONS_MAX` at a time, `ANSWER_TIME_MAX` for all workers to answer. Owns the count of open questions;
//! does not read the state of a core.

use std::cell::Cell;
use std::time::Duration;

use monoio::time::sleep;

use crate::http1::response::Response;
use crate::mailbox::Doorbell;
use crate::operator_requests::{OperatorReply, OperatorRequest};
use crate::server::admin::ScrapeSources;

const QUESTIONS_MAX: usize = 8;
const LOOKS_MAX: u32 = 250;
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Counts the questions in progress.
#[derive(Debug, Default)]
pub(in crate::server::admin) struct Questions {
    open_count: Cell<usize>,
}

struct QuestionSlot<'a>(&'a Cell<usize>);

impl Drop for QuestionSlot<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Questions {
    /// Asks these workers and waits for all of them.
    ///
    /// # Errors
    /// The answer to the operator if too many ask, or a worker does not answer in time.
    pub(super) async fn ask(
        &self,
        sources: &ScrapeSources,
        workers: std::ops::Range<usize>,
        request: impl Fn() -> OperatorRequest,
    ) -> Result<Vec<(usize, OperatorReply)>, Response> {
        if self.open_count.get() >= QUESTIONS_MAX {
            let text = format!(
                "{QUESTIONS_MAX} questions are being answered already, which is the limit. Try again.\n"
            );
            return Err(Response::text(503, &text).with_header("Retry-After", "1"));
        }
        self.open_count.set(self.open_count.get() + 1);
        let _slot = QuestionSlot(&self.open_count);
        let mut receivers = Vec::new();
        for worker in workers {
            let queue = sources.shared.operator_queues.get(worker);
            let Some(receiver) = queue.and_then(|queue| queue.submit(request())) else {
                return Err(busy(worker, "has too many questions waiting"));
            };
            receivers.push((worker, receiver));
            if let Some(doorbell) = sources.doorbells.get(worker) {
                doorbell.ring();
            }
        }
        let mut replies = Vec::new();
        for look in 0..LOOKS_MAX {
            if look == LOOKS_MAX * 4 / 5 {
                // Other nodes have had their time by now, and their answers are given without those that are late.
                receivers
                    .iter()
                    .filter_map(|(worker, _)| sources.doorbells.get(*worker))
                    .for_each(Doorbell::ring);
            }
            receivers.retain(|(worker, receiver)| match receiver.try_receive() {
                Some(reply) => {
                    replies.push((*worker, reply));
                    false
                }
                None => true,
            });
            if let Some((worker, _)) = replies.iter().find(|(_, reply)| is_busy(reply)) {
                return Err(busy(*worker, "is gathering the answers to too many questions"));
            }
            if receivers.is_empty() {
                return Ok(replies);
            }
            sleep(ANSWER_TIME_MAX / LOOKS_MAX).await;
        }
        let silent = receivers.first().map_or(0, |(worker, _)| *worker);
        let seconds = ANSWER_TIME_MAX.as_secs();
        let text = format!(
            "Worker {silent} did not answer within {seconds} s: it is overloaded, or a new process takes over. Try \
             again.\n"
        );
        Err(Response::text(503, &text).with_header("Retry-After", "1"))
    }
}

fn is_busy(reply: &OperatorReply) -> bool {
    matches!(reply, OperatorReply::Busy)
}

fn busy(worker: usize, why: &str) -> Response {
    Response::text(503, &format!("Worker {worker} {why}. Try again.\n"))
        .with_header("Retry-After", "1")
}
