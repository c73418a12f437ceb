//! The running admin listener: its thread, and the loop that accepts.
//!
//! The thread has one task for each connection, on a runtime of its own, so that a slow scrape delays no worker and no
//! signal. Each task reads one request, writes one answer (`connection.rs`) and ends. When the server drains, the
//! listener stays until the process ends, so that `/ready` reports the drain. After a take-over the new process has the
//! socket, and this one stops accepting (`leave_to_other`). Limit: `slots::CONNECTIONS_MAX` connections.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use monoio::time::sleep;
use socket2::Socket;

use super::connection;
use super::listener::AdminListener;
use super::metrics::ScrapeSources;
use super::routes::AdminState;
use super::slots::{AdminSlots, CONNECTIONS_MAX, refuse};
use crate::config::admin::AdminPlace;
use crate::server::control::{AcceptWait, Control, RETRY_PAUSE, Readable};
use crate::server::takeover::Order;

/// The running admin listener.
pub(in crate::server) struct AdminServer {
    pub(super) listener: Arc<AdminListener>,
    pub(super) is_stopped: Arc<AtomicBool>,
    /// Dropped, it ends nothing: the thread ends with the process.
    _thread: Control,
}

impl AdminServer {
    /// Begins to accept.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(in crate::server) fn start(
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
    pub(in crate::server) fn leave_to_other(&self) {
        self.is_stopped.store(true, Ordering::Release);
    }

    /// The end of the server: no process listens there.
    pub(in crate::server) fn remove_file(&self) {
        self.listener.remove_file();
    }
}

pub(super) async fn accept_all(
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
