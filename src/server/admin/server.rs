//! The running admin listener: its thread, and the loop that accepts.
//!
//! Owns the thread, which has one task for each connection, on a runtime of its own, so that a slow scrape delays no
//! worker and no signal. Each task reads one request, writes one answer (`connection.rs`) and ends. When the server
//! drains, the listener stays until the process ends, so that `/ready` reports the drain. After a take-over the new
//! process has the socket, and this one stops accepting (`end_changes`). Does not read requests itself
//! (`connection.rs`).
//! Limit: `slots::CONNECTIONS_MAX` connections. Cost: one thread; one task and a few allocations for a connection.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use monoio::time::sleep;
use socket2::Socket;

use super::connection;
use super::listener::AdminListener;
use super::metrics::ScrapeSources;
use super::owed::OwedAnswers;
use super::routes::AdminState;
use super::slots::{AdminSlots, CONNECTIONS_MAX, refuse};
use crate::config::admin::AdminPlace;
use crate::server::control::{AcceptWait, Control, RETRY_PAUSE, Readable};
use crate::server::takeover::Order;
use crate::worker::time::Clock;

pub(in crate::server) struct AdminServer {
    pub(super) listener: Arc<AdminListener>,
    pub(super) owed: Arc<OwedAnswers>,
    /// Dropped, it ends nothing: the thread ends with the process.
    _thread: Control,
}

impl AdminServer {
    /// # Errors
    /// When the thread cannot be started.
    pub(in crate::server) fn start(
        listener: AdminListener,
        sources: ScrapeSources,
        orders: Sender<Order>,
    ) -> io::Result<Self> {
        let thread = Control::start_thread("admin")?;
        let listener = Arc::new(listener);
        let owed = Arc::new(OwedAnswers::default());
        let (of_task, owed_by) = (listener.clone(), owed.clone());
        let submitter = sources.shared.operator_queues.take_submitter();
        let submitter =
            submitter.ok_or_else(|| io::Error::other("an admin listener runs already"))?;
        thread.run(move || {
            let readable = Readable::of(&of_task.socket)?;
            let is_tcp = matches!(of_task.place, AdminPlace::Tcp(_));
            let state = AdminState::new(sources, is_tcp, orders, owed_by.clone(), submitter);
            let state = Rc::new(state);
            Ok(async move { accept_all(&of_task.socket, &readable, &owed_by, &state).await })
        })?;
        Ok(Self { listener, owed, _thread: thread })
    }

    /// Called once the main thread carries out no change any longer. `is_taken_over`: another process accepts here.
    pub(in crate::server) fn end_changes(&self, is_taken_over: bool) {
        self.owed.end_changes(is_taken_over);
        if is_taken_over {
            self.owed.stop();
        }
    }

    /// Accepts no more, and waits until what was accepted is answered. The process may end then.
    pub(in crate::server) fn finish(&self, clock: Clock) {
        self.owed.stop();
        self.owed.wait(clock);
    }

    /// To be called when the server ends and no other process listens there.
    pub(in crate::server) fn remove_file(&self) {
        self.listener.remove_file();
    }
}

pub(super) async fn accept_all(
    socket: &Socket,
    readable: &Readable,
    owed: &Arc<OwedAnswers>,
    state: &Rc<AdminState>,
) {
    let slots = Rc::new(AdminSlots::default());
    let mut wait = AcceptWait::new(readable);
    loop {
        wait.next().await;
        if !owed.begin_accept() {
            return;
        }
        let accepted = socket.accept();
        let answer = accepted.is_ok().then(|| owed.add_connection());
        owed.end_accept();
        match accepted {
            Ok((peer, _)) => match slots.admit(peer) {
                Ok(connection) => {
                    let state = state.clone();
                    monoio::spawn(
                        async move { connection::serve(&connection, answer, &state).await },
                    );
                }
                Err(peer) => {
                    let text = format!(
                        "The admin listener has {CONNECTIONS_MAX} connections already, which is its limit. Try again.\n"
                    );
                    refuse(&peer, &text);
                }
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Out of descriptors it fails at once, over and over.
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}
