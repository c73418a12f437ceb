//! A worker takes in what the workers of another process give, before it serves anybody.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use super::super::lobby::Visit;
use super::Meeting;
use super::record::Record;
use super::stream::{Incoming, PATIENCE};
use crate::worker::{Worker, session};

/// Where this worker is given to. To be called by its own thread, before the other process hears of it.
pub(in crate::worker) fn listen(meeting: &Meeting, worker: usize) -> io::Result<UnixListener> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(meeting.name(worker))?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Takes all in. The worker is paused, and serves nobody yet.
pub(in crate::worker) fn take_in(worker: &Rc<Worker>, meeting: &Meeting, listener: &UnixListener) {
    let index = usize::from(worker.index());
    let result = (0..meeting.givers_to(index)).try_for_each(|_| {
        Incoming::new(accept(listener)?)?.take_all(|record, socket| take(worker, record, socket))
    });
    worker.core.borrow_mut().settle_in();
    worker.shared.handover.finish(index, result);
}

fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    let mut waits = [PollFd::new(listener, PollFlags::IN)];
    if retry_on_intr(|| poll(&mut waits, Some(&patience)))? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody came to give"));
    }
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn take(worker: &Rc<Worker>, record: Record, socket: Option<OwnedFd>) -> io::Result<()> {
    let mut core = worker.core.borrow_mut();
    match (record, socket) {
        (Record::Connection { moved, client }, Some(socket)) => {
            let key = core.take_in(moved, socket);
            if let Some(client) = client {
                let place = worker.shared.overload.admission.enter_again(client);
                worker.effects.borrow_mut().guard.put(key.slot, place);
            }
        }
        (Record::Session { peer, served, input }, Some(socket)) => {
            let stream = monoio::net::TcpStream::from_std(socket.into())?;
            monoio::spawn(session::go_on(Visit::new(worker.clone()), stream, peer, served, input));
        }
        (Record::Channel(state), _) => core.take_in_channel(state),
        // `Incoming` gives what has a socket with its socket, and keeps the end to itself.
        (Record::Connection { .. } | Record::Session { .. } | Record::End { .. }, _) => {}
    }
    Ok(())
}
