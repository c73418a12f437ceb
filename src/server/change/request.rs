//! Requests for a change, and those that wait: for the start of a reload, or for the end of a take-over.
//!
//! Owns both kinds of waiting requests. `PendingReload` makes one reload of all that are requested before it starts.
//! `HeldRequests` keeps changes back while another process reads the configuration. Does not carry out a request
//! (`change/mod.rs`).
//! Limit: one reload waits at a time, however many signals come; the admin listener limits the requests that wait for
//! an outcome (`admin/slots.rs`). Cost: one lock for a request of a reload; one entry for each request that waits.

use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};

use super::app_table::AppChange;
use super::outcome::ChangeOutcome;

/// Sent to the main thread as `Order::Change`.
pub(in crate::server) struct ChangeRequest {
    pub(in crate::server) what: ChangeCommand,
    /// `None`: the request is a signal's, or those who wait for the outcome are in `pending`.
    pub(in crate::server) answer: Option<Sender<ChangeOutcome>>,
    /// Only a reload has it. It is emptied when the reload starts, so that later requests cause another one.
    pub(in crate::server) pending: Option<PendingReload>,
}

pub(in crate::server) enum ChangeCommand {
    /// Reads all files and the environment again.
    Reload,
    ListApps,
    ShowApp(String),
    ChangeApp(AppChange),
}

impl ChangeRequest {
    /// The reload starts, if it is one. Returns the receivers of the outcome.
    pub(super) fn start(&mut self) -> Vec<Sender<ChangeOutcome>> {
        let mut answers = self.pending.take().map(|reload| reload.start()).unwrap_or_default();
        answers.extend(self.answer.take());
        answers
    }

    fn is_change(&self) -> bool {
        matches!(self.what, ChangeCommand::Reload | ChangeCommand::ChangeApp(_))
    }
}

impl std::fmt::Debug for ChangeRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is wanted may contain a secret.
        formatter.write_str("ChangeRequest")
    }
}

/// Whether a reload waits for the main thread, and the requests that wait for its outcome. Further signals and requests
/// add none, because a reload reads the newest files anyway, and SIGTERM must not wait for thousands of them. The admin
/// listener limits those who wait.
#[expect(
    clippy::disallowed_types,
    reason = "held for a push or a take, by the threads of signals and of the admin listener and the main thread"
)]
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct PendingReload {
    waiting: Arc<std::sync::Mutex<Option<Vec<Sender<ChangeOutcome>>>>>,
}

impl PendingReload {
    /// The request of a signal (without `answer`) or of an operator, unless one waits already. Its outcome is the
    /// outcome of all.
    pub(in crate::server) fn request(
        &self,
        answer: Option<Sender<ChangeOutcome>>,
    ) -> Option<ChangeRequest> {
        let mut pending = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let was_pending = pending.is_some();
        pending.get_or_insert_default().extend(answer);
        (!was_pending).then(|| ChangeRequest {
            what: ChangeCommand::Reload,
            answer: None,
            pending: Some(self.clone()),
        })
    }

    /// The reload starts: a signal or request from here on may announce newer files. Returns who waits.
    fn start(&self) -> Vec<Sender<ChangeOutcome>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }
}

/// The changes that wait for the end of a take-over: the new process might not see them. `None`: there is no take-over.
#[derive(Default)]
pub(super) struct HeldRequests(Option<Vec<ChangeRequest>>);

impl HeldRequests {
    /// A take-over begins. A second attempt may begin while requests wait.
    pub(super) fn begin(&mut self) {
        self.0.get_or_insert_default();
    }

    /// The take-over has failed. Returns the requests that waited, in their order.
    pub(super) fn end(&mut self) -> Vec<ChangeRequest> {
        self.0.take().unwrap_or_default()
    }

    /// Returns the request if it need not wait. Questions never wait.
    pub(super) fn pass(&mut self, request: ChangeRequest) -> Option<ChangeRequest> {
        match &mut self.0 {
            Some(held) if request.is_change() => {
                held.push(request);
                None
            }
            _ => Some(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn signals_add_no_second_reload_to_one_that_waits() {
        let pending = PendingReload::default();
        let mut first = pending.request(None).expect("nothing waits");
        let (answer, outcome) = mpsc::channel();
        for _ in 0..1_000 {
            assert!(pending.request(None).is_none());
            assert!(pending.request(Some(answer.clone())).is_none());
        }
        let answers = first.start();
        assert_eq!(answers.len(), 1_000, "each request has its answer, and each signal needs none");
        answers[999].send(ChangeOutcome::invalid("x")).unwrap();
        assert_eq!(outcome.recv().unwrap().status, 422);
        assert!(pending.request(None).is_some(), "the files may have changed since the start");
        assert!(pending.request(None).is_none());
    }

    #[test]
    fn changes_wait_for_the_end_of_a_take_over_and_questions_do_not() {
        let request = |what| ChangeRequest { what, answer: None, pending: None };
        let mut held = HeldRequests::default();
        assert!(held.pass(request(ChangeCommand::Reload)).is_some(), "there is no take-over");
        held.begin();
        assert!(held.pass(request(ChangeCommand::Reload)).is_none());
        assert!(held.pass(request(ChangeCommand::ListApps)).is_some());
        assert!(held.pass(request(ChangeCommand::ShowApp("1".to_owned()))).is_some());
        held.begin();
        assert_eq!(held.end().len(), 1, "a second attempt forgets none");
        assert!(held.pass(request(ChangeCommand::Reload)).is_some());
        assert!(held.end().is_empty());
    }
}
