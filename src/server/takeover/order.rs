//! Orders to the main thread: what signals, other processes and the admin API ask of it.
//!
//! Owns the closed list of orders, and those that wait, in the order in which they are to be carried out
//! (`OrderQueue`). `orders.rs` carries out one order after the other. Does not carry out any. Limit: one order for each
//! signal that the control thread has read, three for the process that takes over, and one for each connection of the
//! admin listener, because each waits for its answer. Cost: one allocation for an order; a step for each order that
//! waits before SIGTERM.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::new_process::NewProcess;
use crate::server::change::ChangeRequest;

/// Sent to the main thread by the control thread and the admin listener.
#[derive(Debug)]
pub(in crate::server) enum Order {
    /// SIGINT or SIGTERM, with its name for the log: drain.
    End(&'static str),
    /// SIGUSR2: replace the program of this process.
    Replace,
    /// Another process, with this id, accepts on our listeners: drain, and leave them alone.
    Retire(i32),
    /// Another process begins to take over, and reads the configuration: changes wait from now on.
    HoldChanges(HoldReport),
    /// That take-over has failed: carry out the changes that wait.
    ResumeChanges,
    /// Another process asks for the connections, too, not for the listeners alone.
    Transfer(NewProcess),
    /// SIGHUP, or the admin API: change the configuration.
    Change(Box<ChangeRequest>),
}

impl Order {
    /// A change takes up to 10 s if a worker stands still, and a supervisor kills the server soon after its SIGTERM.
    /// Another process that already has the listeners or connections counts before a signal, because the end depends
    /// on it.
    fn lets_end_pass(&self) -> bool {
        match self {
            Self::Change(_) | Self::HoldChanges(_) | Self::ResumeChanges | Self::Replace => true,
            Self::End(_) | Self::Retire(_) | Self::Transfer(_) => false,
        }
    }
}

/// The orders that wait, of which an order to end is carried out before changes. Dropped, it drops those that only a
/// server that goes on carries out; all others are still in the channel.
pub(in crate::server) struct OrderQueue<'a> {
    received: &'a Receiver<Order>,
    /// Of those that `lets_end_pass` forbids to pass, the last one at most.
    waiting: VecDeque<Order>,
}

impl<'a> OrderQueue<'a> {
    pub(in crate::server) fn new(received: &'a Receiver<Order>) -> Self {
        Self { received, waiting: VecDeque::new() }
    }

    /// The next order. Waits for one until `timeout` is over, without end for `None`.
    pub(in crate::server) fn next(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<Order, RecvTimeoutError> {
        while self.waiting.back().is_none_or(Order::lets_end_pass)
            && let Ok(order) = self.received.try_recv()
        {
            self.waiting.push_back(order);
        }
        let next = match self.waiting.back() {
            Some(Order::End(_)) => self.waiting.pop_back(),
            _ => self.waiting.pop_front(),
        };
        match (next, timeout) {
            (Some(order), _) => Ok(order),
            (None, None) => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            (None, Some(timeout)) => self.received.recv_timeout(timeout),
        }
    }

    /// These changes are carried out before the orders that wait, one by one.
    pub(in crate::server) fn put_in_front(&mut self, changes: Vec<ChangeRequest>) {
        for request in changes.into_iter().rev() {
            self.waiting.push_front(Order::Change(Box::new(request)));
        }
    }
}

/// Tells the task of the offer that changes wait. Dropped, it reports that the main thread carries out none, because
/// the server ends.
#[derive(Debug)]
pub(in crate::server) struct HoldReport(pub(super) UnixStream);

/// The byte that `HoldReport` sends. A process without apps does not take over from a server that has some.
pub(super) const HAS_APPS: u8 = 1;
const IS_DEVELOPMENT: u8 = 0;

impl HoldReport {
    pub(in crate::server) fn report(mut self, is_development: bool) {
        let byte = if is_development { IS_DEVELOPMENT } else { HAS_APPS };
        // The task may have stopped waiting.
        self.0.write_all(&[byte]).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::change::ChangeCommand;
    use std::sync::mpsc;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    fn change(id: &str) -> ChangeRequest {
        ChangeRequest { what: ChangeCommand::ShowApp(id.to_owned()), answer: None, pending: None }
    }

    fn order(id: &str) -> Order {
        Order::Change(Box::new(change(id)))
    }

    fn name(order: Result<Order, RecvTimeoutError>) -> String {
        match order {
            Ok(Order::Change(request)) => match request.what {
                ChangeCommand::ShowApp(id) => id,
                _ => unreachable!("the tests have no other"),
            },
            Ok(Order::End(signal)) => signal.to_owned(),
            other => format!("{other:?}"),
        }
    }

    /// A worker that stands still makes each change take 10 s, and systemd waits 20 s for the end.
    #[test]
    fn a_signal_is_received_before_the_changes_of_a_failed_take_over() {
        let (sender, receiver) = mpsc::channel();
        let mut orders = OrderQueue::new(&receiver);
        sender.send(order("later")).unwrap();
        sender.send(Order::ResumeChanges).unwrap();
        assert_eq!(name(orders.next(NOW)), "later");
        assert!(matches!(orders.next(NOW), Ok(Order::ResumeChanges)));
        sender.send(order("new")).unwrap();
        orders.put_in_front(["first", "second", "third"].map(change).into());
        assert_eq!(name(orders.next(None)), "first");
        sender.send(Order::Replace).unwrap();
        sender.send(Order::End("SIGTERM")).unwrap();
        assert_eq!(name(orders.next(None)), "SIGTERM");
        for expected in ["second", "third", "new", "Ok(Replace)", "Err(Timeout)"] {
            assert_eq!(name(orders.next(NOW)), expected);
        }
        drop(sender);
        assert_eq!(name(orders.next(None)), "Err(Disconnected)");
    }

    /// The end of a server whose listeners another process has leaves them alone.
    #[test]
    fn a_signal_does_not_pass_a_process_that_has_the_listeners() {
        let (sender, receiver) = mpsc::channel();
        let mut orders = OrderQueue::new(&receiver);
        for order in [order("change"), Order::Retire(7), Order::End("SIGTERM")] {
            sender.send(order).unwrap();
        }
        for expected in ["change", "Ok(Retire(7))"] {
            assert_eq!(name(orders.next(NOW)), expected);
        }
        drop(orders);
        assert_eq!(name(receiver.try_recv().map_err(|_| RecvTimeoutError::Timeout)), "SIGTERM");
    }
}
