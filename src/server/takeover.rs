//! Taking a running server's port over: its listeners move to a new process, which accepts before the old one drains.
//!
//! The listeners themselves move, by SCM_RIGHTS, and with them whoever waits in their accept queues: a listener that is
//! closed resets those. The two processes meet at a Unix socket with an abstract name, which belongs to the network
//! namespace as the port does, needs no path, and leaves nothing behind. Abstract names have no owner, so each side
//! looks at the other's user: only the same user, or root, may take over. Established connections stay with the old
//! process, which closes them with 4200 over its drain period.
//!
//! The conversation: `take over` -> `listeners` with the descriptors -> `accepting` -> `retiring`. Whoever stops
//! before `accepting` changes nothing.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use socket2::Socket;

use super::life::{Asked, sleep};

/// Changes with what is said: processes that speak differently do not take over from each other.
const TAKE_OVER: &[u8] = b"take over 1\n";
const LISTENERS: &[u8] = b"listeners 1\n";
const ACCEPTING: &[u8] = b"accepting 1\n";
const RETIRING: &[u8] = b"retiring  1\n";

/// For each step of the other side.
const PATIENCE: Duration = Duration::from_secs(10);
/// One for each worker, of which there are at most 128; the kernel's own bound is 253 a message.
const LISTENERS_MAX: usize = 128;

fn meeting_point(address: SocketAddr) -> io::Result<UnixAddress> {
    UnixAddress::from_abstract_name(format!("ringverb {address}"))
}

/// Only who could end the other side by a signal may take its place.
fn check_user(peer: &UnixStream) -> io::Result<()> {
    let user = rustix::net::sockopt::socket_peercred(peer)?.uid;
    if user.is_root() || user == rustix::process::geteuid() {
        return Ok(());
    }
    let why = format!("the other side runs as user {}, not as this one", user.as_raw());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

fn patient(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn expect(stream: &mut UnixStream, word: &[u8]) -> io::Result<()> {
    let mut heard = vec![0; word.len()];
    stream.read_exact(&mut heard)?;
    if heard == word { Ok(()) } else { Err(foreign()) }
}

fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the other side speaks another version of take-over")
}

/// Offers the listeners to whoever comes to take over, until somebody has; then `Asked::TakenOver`.
///
/// # Errors
/// When the meeting point is taken, or no thread can be had.
pub(super) fn offer(
    address: SocketAddr,
    listeners: Vec<OwnedFd>,
    asked: Sender<Asked>,
) -> io::Result<()> {
    let point = UnixListener::bind_addr(&meeting_point(address)?)?;
    let thread = std::thread::Builder::new().name("takeover".to_owned());
    let wait = move || {
        for stream in point.incoming() {
            let result = stream.and_then(|mut stream| {
                hand_out(&mut stream, &listeners)?;
                Ok(stream)
            });
            match result {
                Ok(mut stream) => {
                    // The successor offers the listeners from here on.
                    drop(point);
                    let _ = asked.send(Asked::TakenOver);
                    let _ = stream.write_all(RETIRING);
                    return;
                }
                Err(error) => {
                    tracing::warn!("a take-over failed, this process serves on: {error}");
                    // Out of descriptors, `incoming` fails at once, over and over.
                    sleep(Duration::from_millis(100));
                }
            }
        }
    };
    thread.spawn(wait).map(drop)
}

fn hand_out(stream: &mut UnixStream, listeners: &[OwnedFd]) -> io::Result<()> {
    check_user(stream)?;
    patient(stream)?;
    expect(stream, TAKE_OVER)?;
    let descriptors: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("more listeners than one message holds"));
    }
    let text = [IoSlice::new(LISTENERS)];
    let sent = rustix::net::sendmsg(&*stream, &text, &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent != LISTENERS.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    expect(stream, ACCEPTING)
}

/// The process whose place this one takes.
pub(super) struct Predecessor(UnixStream);

/// Asks the server at `address` for its listeners; `None` when there is none.
///
/// # Errors
/// When there is one that does not give them.
pub(super) fn ask(address: SocketAddr) -> io::Result<Option<(Predecessor, Vec<TcpListener>)>> {
    let mut stream = match UnixStream::connect_addr(&meeting_point(address)?) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(error),
    };
    check_user(&stream)?;
    patient(&stream)?;
    stream.write_all(TAKE_OVER)?;
    let listeners = receive(&stream)?;
    for listener in &listeners {
        if listener.local_addr()? != address {
            return Err(foreign());
        }
    }
    if listeners.is_empty() { Err(foreign()) } else { Ok(Some((Predecessor(stream), listeners))) }
}

fn receive(stream: &UnixStream) -> io::Result<Vec<TcpListener>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; LISTENERS.len()];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received =
        rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags)?;
    let mut listeners = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            listeners.extend(descriptors.map(|one| TcpListener::from(Socket::from(one))));
        }
    }
    if received.bytes != text.len() || text != LISTENERS {
        return Err(foreign());
    }
    if received.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(io::Error::other("not all listeners found a descriptor here; raise ulimit -n"));
    }
    Ok(listeners)
}

impl Predecessor {
    /// Tells it that this process accepts. When this returns it drains, or has ended.
    ///
    /// # Errors
    /// When it does not answer. It may serve on then, on the same listeners.
    pub(super) fn retire(mut self) -> io::Result<()> {
        self.0.write_all(ACCEPTING)?;
        expect(&mut self.0, RETIRING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn listeners_move_with_those_who_wait() {
        let (listener, address) = listener();
        let (asked, asks) = mpsc::channel();
        offer(address, vec![listener.into()], asked).unwrap();
        let mut waiting = std::net::TcpStream::connect(address).unwrap();
        let (predecessor, listeners) = ask(address).unwrap().expect("somebody is there");
        assert!(asks.try_recv().is_err(), "nothing is decided yet");
        predecessor.retire().unwrap();
        assert!(matches!(asks.recv().unwrap(), Asked::TakenOver));
        let (mut accepted, _) = listeners[0].accept().unwrap();
        accepted.write_all(b"here").unwrap();
        let mut heard = [0; 4];
        waiting.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"here");
        assert!(ask(address).unwrap().is_none(), "it offers no more");
    }

    #[test]
    fn who_gives_up_or_speaks_otherwise_changes_nothing() {
        let (listener, address) = listener();
        let (asked, asks) = mpsc::channel();
        offer(address, vec![listener.into()], asked).unwrap();
        drop(ask(address).unwrap().expect("somebody is there"));
        let mut foreigner = UnixStream::connect_addr(&meeting_point(address).unwrap()).unwrap();
        foreigner.write_all(b"take over 9\n").unwrap();
        assert_eq!(foreigner.read(&mut [0; 1]).unwrap_or(0), 0);
        assert!(asks.try_recv().is_err());
        ask(address).unwrap().expect("it still offers").0.retire().unwrap();
        assert!(asks.recv().is_ok());
    }

    #[test]
    fn nobody_to_take_over_from() {
        let (_listener, address) = listener();
        assert!(ask(address).unwrap().is_none());
    }
}
