//! A worker of the new process imports connections of the old one before it serves.
//!
//! Owns the listener of this worker until it has received everything. Does not serve a client, and does not know how
//! the sockets came to be. Input: batches of records with sockets (`stream.rs`, `record.rs`). Output: connections,
//! sessions and channel states in this worker's core. An error makes the transfer fail, and the old process resumes.
//! Limits: those of `stream.rs`; it waits for at most `PATIENCE` for each sender. Cost: linear in the bytes received;
//! blocks its thread.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use super::Rendezvous;
use super::record::Record;
use super::stream::{Incoming, PATIENCE, check_user};
use crate::tls::ticket::TicketKey;
use crate::worker::time::Clock;
use crate::worker::{HostKernel, Worker};

/// Listens for the old process. The worker's own thread calls it before the main thread sends the address.
pub(in crate::worker) fn listen(
    rendezvous: &Rendezvous,
    worker: usize,
) -> io::Result<UnixListener> {
    let listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(rendezvous.name(worker))?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl<K: HostKernel> Worker<K> {
    /// Imports everything, from one sender after the other. The worker is paused and serves no client yet.
    pub(in crate::worker) fn receive_all(
        &mut self,
        rendezvous: &Rendezvous,
        listener: &UnixListener,
    ) {
        let index = usize::from(self.core.mailbox.core());
        let result = (0..rendezvous.senders_to(index)).try_for_each(|_| {
            let stream = accept(listener, self.shared.clock)?;
            Incoming::new(stream)?.receive_all(|record, socket| {
                self.import(record, socket);
                Ok(())
            })
        });
        self.core.finish_import();
        self.shared.transfer.finish(index, result);
    }

    fn import(&mut self, record: Record, socket: Option<OwnedFd>) {
        let Self { core, memory_guard, shared, .. } = self;
        match (record, socket) {
            (Record::Connection { moved, client }, Some(socket)) => {
                let key = core.import_connection(moved, socket);
                if let Some(client) = client {
                    memory_guard.set_address_slot(
                        key.slot,
                        shared.overload.admission.count_transferred_connection(client),
                    );
                }
            }
            (Record::Session { peer, served, input, secure }, Some(socket)) => {
                core.import_session(socket, peer, served, &input, secure);
            }
            (Record::Channel(state), _) => core.import_channel(state),
            (Record::TicketKeys(keys), _) => {
                let keys = keys.iter().filter_map(|key| key.as_slice().try_into().ok());
                // One worker of the old process sends them.
                shared.transfer.ticket_keys.set(keys.map(TicketKey::of_bytes).collect()).ok();
            }
            // `Incoming` returns records that need a socket together with it, and does not return the end.
            (Record::Connection { .. } | Record::Session { .. } | Record::End { .. }, _) => {}
        }
    }
}

/// The next connection of the old process. Every user can list abstract names and connect to them, so connections of
/// other users are dropped until the deadline.
fn accept(listener: &UnixListener, clock: Clock) -> io::Result<UnixStream> {
    let late = || {
        io::Error::new(io::ErrorKind::TimedOut, "no worker of the old process connected in time")
    };
    let start = clock.now();
    loop {
        let left =
            PATIENCE.checked_sub(Duration::from_millis(clock.now().0.saturating_sub(start.0)));
        let left = Timespec::try_from(left.ok_or_else(late)?).map_err(io::Error::other)?;
        let mut waits = [PollFd::new(listener, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut waits, Some(&left)))? == 0 {
            return Err(late());
        }
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        if check_user(&stream).is_ok() {
            stream.set_nonblocking(false)?;
            return Ok(stream);
        }
    }
}
