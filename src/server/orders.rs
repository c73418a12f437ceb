//! The orders of a running server, and the states that they lead to: from its start until it is to end.
//!
//! Owns `ServerState`; every change of it is in this file. Inputs: orders of the control thread (signals, other
//! processes) and of the admin API, and time. Output: why the server ends (`End`). Does not end it (`ending.rs`).
//! Limit: one order at a time; `takeover/order.rs` has how many can wait. Deadlines are checked before each order, and
//! SIGTERM comes before the changes that wait, so neither is delayed by more than one order. Cost: no step while no
//! order comes; with a watchdog, one look at each worker's heartbeat every third of its time, and one more before an
//! order that may take long.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;

use super::change::Changer;
use super::control::Control;
use super::delay::{Delay, open_connections};
use super::ending::{End, SAME_SIGNAL_TIME};
use super::supervision::{self, Watchdog};
use super::takeover::replacement::Program;
use super::takeover::replacement::failure::report_ignored;
use super::takeover::{NewProcess, Order, OrderQueue, transfer};
use crate::mailbox::Doorbell;
use crate::worker::Shared;

/// ```text
/// Serving --- signal, no delay -----------------------------> Ending(Drain)
/// Serving --- signal --> Delayed --- time, second signal ---> Ending(Drain)
/// Serving, Delayed --- another process has the listeners ---> Ending(Retire)
/// Serving, Delayed --- another process has everything ------> Ending(Transferred)
/// ```
enum ServerState {
    Serving,
    /// A signal has come, and the shutdown delay is not over. Everything is served, but `/up` answers 503.
    Delayed(Delay),
    Ending(End),
}

/// Runs on the main thread until the server is to end.
pub(super) struct OrderLoop<'a> {
    shared: Arc<Shared>,
    doorbells: Arc<[Doorbell]>,
    changer: &'a mut Changer,
    control: &'a Control,
    orders: OrderQueue<'a>,
    program: &'a mut Program,
    watchdog: Watchdog,
}

impl<'a> OrderLoop<'a> {
    pub(super) fn new(
        shared: Arc<Shared>,
        doorbells: Arc<[Doorbell]>,
        changer: &'a mut Changer,
        control: &'a Control,
        orders: OrderQueue<'a>,
        program: &'a mut Program,
    ) -> Self {
        let watchdog = Watchdog::new(&shared);
        Self { shared, doorbells, changer, control, orders, program, watchdog }
    }

    /// Carries out one order after the other. Returns what ends the server.
    pub(super) fn run(mut self) -> End {
        let mut state = ServerState::Serving;
        loop {
            self.watchdog.look_if_due(&self.shared);
            state = match state {
                ServerState::Ending(end) => return end,
                ServerState::Delayed(delay)
                    if delay.time_left(self.shared.clock.now()).is_zero() =>
                {
                    self.begin_drain(delay.signal)
                }
                state => match self.receive(&state) {
                    Ok(order) => self.carry_out(state, order),
                    Err(RecvTimeoutError::Disconnected) => ServerState::Ending(End::Drain),
                    Err(RecvTimeoutError::Timeout) => state,
                },
            };
        }
    }

    /// Waits for an order, at most until the delay is over or the watchdog is to look.
    fn receive(&mut self, state: &ServerState) -> Result<Order, RecvTimeoutError> {
        let now = self.shared.clock.now();
        let left = match state {
            ServerState::Delayed(delay) => Some(delay.time_left(now)),
            ServerState::Serving | ServerState::Ending(_) => None,
        };
        self.orders.next([self.watchdog.time_left(now), left].into_iter().flatten().min())
    }

    fn carry_out(&mut self, state: ServerState, order: Order) -> ServerState {
        match order {
            Order::Change(request) => {
                self.watchdog.look_before_long_order(&self.shared);
                self.changer.carry_out(*request);
                state
            }
            Order::HoldChanges(report) => {
                report.report(self.changer.hold_changes());
                state
            }
            Order::ResumeChanges => {
                self.orders.put_in_front(self.changer.resume_changes());
                state
            }
            Order::Replace => {
                self.replace(&state);
                state
            }
            Order::Retire(process) => {
                let text = "Another process has taken over: closing connections here.";
                self.program.note_new_process(process, text);
                ServerState::Ending(End::Retire(process))
            }
            Order::Transfer(new_process) => self.transfer(state, new_process),
            Order::End(signal) => self.begin_end(state, signal),
        }
    }

    /// Called for SIGUSR2.
    fn replace(&mut self, state: &ServerState) {
        let refusal = match state {
            ServerState::Serving if self.shared.config.takeover => None,
            ServerState::Serving => Some("RINGVERB_TAKEOVER=false forbids take-overs"),
            ServerState::Delayed(_) | ServerState::Ending(_) => Some("the server is about to end"),
        };
        match refusal {
            None => self.program.start_stand_in(self.control),
            Some(why) => report_ignored(why),
        }
    }

    /// Sends all connections to the new process. If that fails, this process continues as before.
    fn transfer(&mut self, state: ServerState, new_process: NewProcess) -> ServerState {
        let process = new_process.process;
        self.watchdog.look_before_long_order(&self.shared);
        if !transfer::send(&self.shared, &self.doorbells, new_process) {
            return state;
        }
        let text = "Another process has taken over, with all connections.";
        self.program.note_new_process(process, text);
        ServerState::Ending(End::Transferred(process))
    }

    /// Called for SIGINT and SIGTERM. A second signal within `SAME_SIGNAL_TIME` counts as the first.
    fn begin_end(&self, state: ServerState, signal: &'static str) -> ServerState {
        match state {
            ServerState::Serving => {
                supervision::notify_stopping();
                match Delay::begin(&self.shared, signal) {
                    Some(delay) => ServerState::Delayed(delay),
                    None => self.begin_drain(signal),
                }
            }
            ServerState::Delayed(delay)
                if delay.since(self.shared.clock.now()) < SAME_SIGNAL_TIME =>
            {
                ServerState::Delayed(delay)
            }
            ServerState::Delayed(_) => {
                tracing::warn!(event = "shutdown_delay_ended", "second signal: the delay is over");
                self.begin_drain(signal)
            }
            ServerState::Ending(end) => ServerState::Ending(end),
        }
    }

    fn begin_drain(&self, signal: &str) -> ServerState {
        let seconds = self.shared.config.shutdown_grace_seconds;
        let open = open_connections(&self.shared);
        tracing::info!(
            event = "shutdown_started",
            "{signal}: closing {open} connections within {seconds} s. Gracefully terminating connections."
        );
        ServerState::Ending(End::Drain)
    }
}
