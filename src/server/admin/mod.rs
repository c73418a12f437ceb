//! The admin listener: probes and metrics for operators, on a socket of its own (`RINGVERB_ADMIN`).
//!
//! `listener.rs` owns the socket, which a process that takes over inherits. `slots.rs` limits the connections, and
//! `connection.rs` reads one request and writes one answer, within limits of size and time. `routes.rs` decides what is
//! answered to whom. `metrics` has the table of metrics, `api` what the console reads, `viewers` the event log,
//! `changes` the requests that change the configuration. All of it runs on the thread `admin`, which has a runtime like
//! that of the control thread, so that neither a scrape nor a slow peer delays signals or memory measurements. It reads
//! what workers publish. Only `api` asks workers, with bounded questions that have a time limit, and `changes` the main
//! thread.

mod api;
mod changes;
mod connection;
mod console;
mod listener;
mod metrics;
mod routes;
mod slots;
mod viewers;

pub(super) use listener::{Claimed, claim, probe, refusal};
pub(super) use metrics::ScrapeSources;

use listener::AdminListener;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use monoio::time::sleep;
use socket2::Socket;

use super::control::{AcceptWait, Control, RETRY_PAUSE, Readable};
use super::takeover::Order;
use crate::config::admin::AdminPlace;
use routes::AdminState;
use slots::{AdminSlots, CONNECTIONS_MAX};

/// The running admin listener.
pub(super) struct AdminServer {
    listener: Arc<AdminListener>,
    is_stopped: Arc<AtomicBool>,
    /// Dropped, it ends nothing: the thread ends with the process.
    _thread: Control,
}

impl AdminServer {
    /// Begins to accept.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(
        listener: AdminListener,
        sources: ScrapeSources,
        orders: Sender<Order>,
    ) -> io::Result<Self> {
        let thread = Control::start_thread("admin")?;
        let listener = Arc::new(listener);
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (of_task, stops) = (listener.clone(), is_stopped.clone());
        thread.run(move || {
            let readable = Readable::of(&of_task.socket)?;
            let is_tcp = matches!(of_task.place, AdminPlace::Tcp(_));
            let state = Rc::new(AdminState::new(sources, is_tcp, orders));
            Ok(async move { accept_all(&of_task.socket, &readable, &stops, &state).await })
        })?;
        Ok(Self { listener, is_stopped, _thread: thread })
    }

    /// Accepts no more, because another process does.
    pub(super) fn leave_to_other(&self) {
        self.is_stopped.store(true, Ordering::Release);
    }

    /// The end of the server: no process listens there.
    pub(super) fn remove_file(&self) {
        self.listener.remove_file();
    }
}

async fn accept_all(
    socket: &Socket,
    readable: &Readable,
    stops: &AtomicBool,
    state: &Rc<AdminState>,
) {
    let slots = Rc::new(AdminSlots::default());
    let mut wait = AcceptWait::new(readable);
    loop {
        wait.next().await;
        if stops.load(Ordering::Acquire) {
            return;
        }
        match socket.accept() {
            Ok((peer, _)) => match slots.admit(peer) {
                Ok(connection) => {
                    let state = state.clone();
                    monoio::spawn(async move { connection::serve(&connection, &state).await });
                }
                Err(peer) => {
                    let text = format!(
                        "The admin listener has {CONNECTIONS_MAX} connections already, which is its limit. Try                          again.\n"
                    );
                    connection::refuse(&peer, &text);
                }
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Out of descriptors it fails at once, over and over.
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}
