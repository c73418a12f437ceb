//! A worker of the old process sends all its connections to the workers of the new one, and waits for the outcome.
//!
//! Owns no state that stays, and changes none: `&self`. Does not decide whether the transfer succeeds: the main threads
//! do. Nothing in this worker changes before the new process has confirmed everything, so a failed transfer is undone
//! by resuming. Input: the state of the worker. Output: records and descriptors (`stream.rs`). Limits: those of
//! `stream.rs`, where each step waits for at most `PATIENCE`. Cost: linear in the bytes of the worker's state; clients
//! wait during that time.

use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use super::Rendezvous;
use super::record::Record;
use super::stream::Outgoing;
use crate::shard::TransferFault;
use crate::tick::TransferredSession;
use crate::worker::{HostKernel, Worker};

impl<K: HostKernel> Worker<K> {
    /// Sends everything and waits until the main thread decides. Returns if the process keeps its connections. The
    /// thread does nothing while it waits, because a change would be missing in what it has sent.
    pub(in crate::worker) fn send_all(&self) {
        let index = usize::from(self.core.mailbox.core());
        self.shared.transfer.finish(index, self.try_send_all());
        while self.shared.phase.is_leaving() {
            pause();
        }
    }

    fn try_send_all(&self) -> io::Result<()> {
        let core = &self.core;
        let rendezvous = self.shared.transfer.outgoing();
        let admission = &self.shared.overload.admission;
        let receivers = rendezvous.receivers_of(usize::from(core.mailbox.core()));
        let mut streams = receivers
            .iter()
            .map(|receiver| Outgoing::new(connect(&rendezvous, *receiver)?))
            .collect::<io::Result<Vec<_>>>()?;
        let mut last = 0;
        let mut next = || {
            last = (last + 1) % receivers.len();
            last
        };
        for moved in core.export_connections() {
            let (key, moved, socket) = moved.map_err(|TransferFault| {
                io::Error::other("a connection waits for an answer of another core")
            })?;
            let client = admission.client_of(&self.memory_guard.address_slot(key.slot));
            streams[next()]
                .send_record(&Record::Connection { moved, client }, Some(socket.as_fd()))?;
        }
        if let Some(acceptor) = self.acceptor.as_ref().filter(|_| core.mailbox.core() == 0) {
            let keys = acceptor.ticket_keys.iter().map(|key| key.to_bytes().to_vec()).collect();
            streams[next()].send_record(&Record::TicketKeys(keys), None)?;
        }
        for state in core.shard.export_channels() {
            streams[next()].send_record(&Record::Channel(state), None)?;
        }
        for TransferredSession { socket, peer, served, input, secure } in core.export_sessions() {
            let record = Record::Session { peer, served, input: input.to_vec(), secure };
            streams[next()].send_record(&record, Some(socket.as_fd()))?;
        }
        streams.into_iter().try_for_each(Outgoing::finish)
    }
}

#[expect(clippy::disallowed_methods, reason = "the whole core is to stand still")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

fn connect(rendezvous: &Rendezvous, receiver: usize) -> io::Result<UnixStream> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(rendezvous.name(receiver))?)
}
