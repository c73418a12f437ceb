//! Questions of the admin API to the workers, and their answers put together.
//!
//! A question goes to the `OperatorQueue` of each worker it concerns, and the doorbells ring. Then this thread looks
//! for the answers every few milliseconds, because a write to a pipe or an eventfd would cost a worker a system call.
//! Owns the count of open questions; does not read the state of a core.
//! Limits: `QUESTIONS_MAX` at a time, `ANSWER_TIME_MAX` for all workers to answer. Cost: one wake-up for each sleeping
//! worker, then one try of a lock for each worker and look: every 8 ms, 250 looks at most.

use std::cell::Cell;
use std::time::Duration;

use monoio::time::sleep;

use crate::http1::response::Response;
use crate::mailbox::Doorbell;
use crate::operator_requests::{OperatorReply, OperatorRequest, Submitter};
use crate::server::admin::ScrapeSources;

const QUESTIONS_MAX: usize = 8;
const LOOKS_MAX: u32 = 250;
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Used by the thread `admin` only, so a `Cell` is enough.
#[derive(Debug)]
pub(in crate::server::admin) struct Questions {
    submitter: Submitter,
    open_count: Cell<usize>,
}

struct QuestionSlot<'a>(&'a Cell<usize>);

impl Drop for QuestionSlot<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Questions {
    pub(in crate::server::admin) fn new(submitter: Submitter) -> Self {
        Self { submitter, open_count: Cell::new(0) }
    }

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
        let is_action = request().is_action();
        let queues = &sources.shared.operator_queues;
        let mut receivers = self
            .submitter
            .submit_to_all(queues, workers, request)
            .map_err(|full| busy_response(full, "has too many questions waiting"))?;
        let doorbells =
            || receivers.iter().filter_map(|(worker, _)| sources.doorbells.get(*worker));
        doorbells().for_each(Doorbell::ring);
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
                return Err(busy_response(
                    *worker,
                    "is gathering the answers to too many questions",
                ));
            }
            // A worker that is slow must not make an action that another one has carried out look like none.
            let is_conclusive = replies.iter().any(|(_, reply)| reply.is_conclusive());
            if receivers.is_empty() || is_conclusive {
                return Ok(replies);
            }
            sleep(ANSWER_TIME_MAX / LOOKS_MAX).await;
        }
        let silent = receivers.first().map_or(0, |(worker, _)| *worker);
        let seconds = ANSWER_TIME_MAX.as_secs();
        let text = format!(
            "Worker {silent} did not answer within {seconds} s: it is overloaded, or a new process takes over. {}\n",
            advice_without_answer(is_action)
        );
        Err(Response::text(503, &text).with_header("Retry-After", "1"))
    }
}

/// A question can be asked again; an action may have been carried out already.
fn advice_without_answer(is_action: bool) -> &'static str {
    match is_action {
        true => "It may have carried the action out: look before you try again.",
        false => "Try again.",
    }
}

fn is_busy(reply: &OperatorReply) -> bool {
    matches!(reply, OperatorReply::Busy)
}

fn busy_response(worker: usize, why: &str) -> Response {
    Response::text(503, &format!("Worker {worker} {why}. Try again.\n"))
        .with_header("Retry-After", "1")
}
