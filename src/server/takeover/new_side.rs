//! The new process's side of a take-over: finds the old process, receives its listeners, and asks for its connections.
//!
//! Owns the stream to the old process. Never changes anything in the old process before `OldProcess::retire` or
//! `OldProcess::confirm`. Every call blocks for at most `PATIENCE` a message. Does not move a connection
//! (`transfer.rs`).
//! Limits: `PATIENCE` for a message, `message::LISTENERS_MAX` listeners in one. Cost: one system call for each message;
//! all listeners come with one of them.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::io::retry_on_intr;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use socket2::Socket;

use super::message::{
    ACCEPTING, BRING, FAILED, LISTENERS, LISTENERS_MAX, MESSAGE_BYTES, RETIRING, SERVES_APPS,
    ServesAppsError, TAKE_OVER, TAKE_OVER_WITHOUT_APPS, TAKEN, is_readable, numbers, receive_text,
    send_text, set_timeouts, worker_count, wrong_peer_error,
};
use super::rendezvous::Places;
use super::replacement::is_orphan;
use crate::worker::transfer::peer_credentials;

/// The process whose place this one takes, as the new process sees it.
pub(in crate::server) struct OldProcess {
    stream: UnixStream,
    /// The version of the records in which it sends connections; ours is `transfer::FORMAT`. 0: it sends none.
    pub(in crate::server) record_format: u64,
    pub(in crate::server) workers: usize,
    pub(in crate::server) clock_start_nanos: u64,
    /// `None`: it has no admin listener.
    pub(in crate::server) admin: Option<OwnedFd>,
}

/// Asks the server at the first of the addresses for its listeners at all of them; `None` when there is no server.
/// `has_apps`: this process has a configured app. The server carries out no change of the configuration from its answer
/// on, until the take-over ends or fails.
///
/// # Errors
/// When there is one that refuses.
pub(in crate::server) fn ask(
    addresses: &[SocketAddr],
    places: &Places,
    has_apps: bool,
) -> io::Result<Option<(OldProcess, Vec<TcpListener>)>> {
    let Some(address) = addresses.first() else { return Ok(None) };
    let Some(stream) = places.find(*address)? else { return Ok(None) };
    ask_through(stream, addresses, has_apps).map(Some)
}

/// What serves an address that an ordinary start finds in use.
pub(in crate::server) enum Running {
    /// No server of this user answers: another program has the address.
    Unknown,
    /// The server with this process id, which goes on.
    Server(i32),
    /// A stand-in whose parent has ended: this process takes over from it.
    Orphan(OldProcess, Vec<TcpListener>),
}

/// Finds the server of this user at the address, and asks a stand-in whose parent has ended for its listeners.
///
/// # Errors
/// When there is one that refuses.
pub(in crate::server) fn ask_orphan(
    addresses: &[SocketAddr],
    places: &Places,
    has_apps: bool,
) -> io::Result<Running> {
    let Some(address) = addresses.first() else { return Ok(Running::Unknown) };
    let Some(stream) = places.find(*address)? else { return Ok(Running::Unknown) };
    let process = peer_credentials(&stream)?.process;
    if !is_orphan(process) {
        return Ok(Running::Server(process));
    }
    tracing::warn!(
        event = "takeover_started",
        "process {process} serves {address} for a process that is gone: taking over from it, with all connections"
    );
    ask_through(stream, addresses, has_apps)
        .map(|(old_process, listeners)| Running::Orphan(old_process, listeners))
}

fn ask_through(
    stream: UnixStream,
    addresses: &[SocketAddr],
    has_apps: bool,
) -> io::Result<(OldProcess, Vec<TcpListener>)> {
    set_timeouts(&stream)?;
    send_text(&stream, if has_apps { TAKE_OVER } else { TAKE_OVER_WITHOUT_APPS })?;
    let (received, mut descriptors) = receive(&stream)?;
    if received == SERVES_APPS {
        return Err(io::Error::other(ServesAppsError));
    }
    let numbers = numbers(&received, LISTENERS).ok_or_else(wrong_peer_error)?;
    let [record_format, workers, clock_start_nanos, admins] = numbers;
    let admin = if admins == 1 { descriptors.pop() } else { None };
    let mut listeners: Vec<TcpListener> =
        descriptors.into_iter().map(|one| TcpListener::from(Socket::from(one))).collect();
    // The old process may have a TLS port that this one has not: its listeners close here.
    let is_wanted = |listener: &TcpListener, addresses: &[SocketAddr]| {
        listener.local_addr().is_ok_and(|address| addresses.contains(&address))
    };
    listeners.retain(|listener| is_wanted(listener, addresses));
    let first = addresses.get(..1).unwrap_or_default();
    if !listeners.iter().any(|listener| is_wanted(listener, first)) {
        return Err(wrong_peer_error());
    }
    let workers = worker_count(workers)?;
    Ok((OldProcess { stream, record_format, workers, clock_start_nanos, admin }, listeners))
}

fn receive(stream: &UnixStream) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; MESSAGE_BYTES];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = retry_on_intr(|| {
        rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags)
    })?;
    let mut received_descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            received_descriptors.extend(descriptors);
        }
    }
    if received.bytes != text.len() {
        return Err(wrong_peer_error());
    }
    if received.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(io::Error::other("no descriptor was left for a listener; raise ulimit -n"));
    }
    Ok((String::from_utf8_lossy(&text).trim_end().to_owned(), received_descriptors))
}

impl OldProcess {
    /// Tells it that this process accepts connections. When this returns, it drains, or has ended.
    ///
    /// # Errors
    /// When it does not answer. It may serve on then, on the same listeners.
    pub(in crate::server) fn retire(&self) -> io::Result<()> {
        send_text(&self.stream, ACCEPTING)?;
        self.wait_until_retiring()
    }

    /// Its workers send them to as many workers here, at names with this number (`Rendezvous`).
    ///
    /// # Errors
    /// When the message cannot be sent.
    pub(in crate::server) fn request_transfer(&self, workers: usize, nonce: u64) -> io::Result<()> {
        send_text(&self.stream, &format!("{BRING} {workers} {nonce}"))
    }

    /// To be called while connections arrive, because the old process gives up when its own time limits end.
    ///
    /// # Errors
    /// When it has given up: `confirm` must not be called then.
    pub(in crate::server) fn check_sending(&self) -> io::Result<()> {
        if !is_readable(&self.stream)? {
            return Ok(());
        }
        // At this point it sends nothing but `failed`.
        receive_text(&self.stream)?;
        Err(reclaimed())
    }

    /// From here on the connections are this process's.
    ///
    /// # Errors
    /// When the old process keeps everything after all.
    pub(in crate::server) fn confirm(&self) -> io::Result<()> {
        match send_text(&self.stream, TAKEN) {
            Ok(()) => Ok(()),
            Err(_) if receive_text(&self.stream).is_ok_and(|received| received == FAILED) => {
                Err(reclaimed())
            }
            Err(error) => {
                tracing::warn!(
                    event = "takeover_old_process_died",
                    "the old process has died during the take-over; this process has all its connections: {error}"
                );
                Ok(())
            }
        }
    }

    /// Waits until it offers nothing. It exits once this end is dropped, or after `PATIENCE`.
    ///
    /// # Errors
    /// When it sends something else. If it has ended, that is no error.
    pub(in crate::server) fn wait_until_retiring(&self) -> io::Result<()> {
        loop {
            match receive_text(&self.stream) {
                Ok(received) if received == RETIRING => return Ok(()),
                // Its `failed` crossed our `taken`, which is what counts.
                Ok(received) if received == FAILED => {}
                Ok(_) => return Err(wrong_peer_error()),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
impl OldProcess {
    /// Also true if it has sent something.
    pub(super) fn has_closed(&self) -> io::Result<bool> {
        is_readable(&self.stream)
    }
}

impl Drop for OldProcess {
    /// Closing would not do: the workers' descriptor tables have copies of the descriptor.
    fn drop(&mut self) {
        // If the peer has ended, the stream is shut down already.
        self.stream.shutdown(Shutdown::Both).ok();
    }
}

fn reclaimed() -> io::Error {
    io::Error::other("the running server keeps its connections; its log has the reason")
}
