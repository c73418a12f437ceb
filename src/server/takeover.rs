//! The take-over of a running server by a new process: the conversation between the two.
//!
//! The listening sockets move by SCM_RIGHTS, with the connections in their accept queues: closing a listener would
//! reset those. `meeting.rs` says where the two processes meet and how they check each other.
//!
//! | old process | new process |
//! |---|---|
//! | | `take over` and a version |
//! | `listeners`, with the descriptors | |
//! | | `accepting`: the connections stay with the old process, which closes them with 4200; or `bring` |
//! | after `bring`: the workers transfer all connections (`worker/handover`), or `failed` | |
//! | | after `bring`: `taken` |
//! | `retiring` | |
//!
//! A process that stops before `accepting` or `taken` changes nothing. An old process that cannot transfer its
//! connections sends `failed` and continues to serve.
//!
//! `taken` is the one point at which the connections change their process, and both sides must agree on it. An old
//! process that gives up sends `failed` and shuts down its end of the socket. After that the kernel refuses `taken`. If
//! `taken` was written before, the old process finds it in its receive buffer, and the take-over is complete. If
//! `taken` is refused and there is no `failed` to read, the old process has died, and the new process has all
//! connections.

mod offer;

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use socket2::Socket;

pub(super) use self::offer::{Offer, Offering, offer};
use super::exchange::is_orphan;
use super::life::WORKERS_MAX;
use super::meeting::Places;
use crate::worker::handover::peer_credentials;

/// Every message is as long as this, filled up with spaces.
const MESSAGE_BYTES: usize = 64;
/// With the version of the conversation: processes of different versions do not take over from each other.
const TAKE_OVER: &str = "take over 2";
const LISTENERS: &str = "listeners";
const ACCEPTING: &str = "accepting";
const BRING: &str = "bring";
const FAILED: &str = "failed";
const TAKEN: &str = "taken";
const RETIRING: &str = "retiring";

/// For each step of the other side.
const PATIENCE: Duration = Duration::from_secs(10);
/// One for each worker, of which there are at most 128; the kernel's own bound is 253 a message.
const LISTENERS_MAX: usize = 128;

fn patient(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn message(text: &str) -> [u8; MESSAGE_BYTES] {
    debug_assert!(text.len() <= MESSAGE_BYTES, "a word and three numbers");
    let mut message = [b' '; MESSAGE_BYTES];
    message.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
    message
}

fn say(stream: &UnixStream, text: &str) -> io::Result<()> {
    (&*stream).write_all(&message(text))
}

fn hear(stream: &UnixStream) -> io::Result<String> {
    let mut heard = [0; MESSAGE_BYTES];
    (&*stream).read_exact(&mut heard)?;
    Ok(text_of(&heard))
}

fn text_of(message: &[u8; MESSAGE_BYTES]) -> String {
    String::from_utf8_lossy(message).trim_end().to_owned()
}

fn expect(stream: &UnixStream, text: &str) -> io::Result<()> {
    if hear(stream)? == text { Ok(()) } else { Err(foreign()) }
}

/// The numbers behind a word.
fn numbers<const COUNT: usize>(heard: &str, word: &str) -> Option<[u64; COUNT]> {
    let mut parts = heard.strip_prefix(word)?.split_ascii_whitespace();
    let mut numbers = [0; COUNT];
    for number in &mut numbers {
        *number = parts.next()?.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// A number of workers that the other side has named. Who meets whom is computed from it (`Meeting::takers_of`), so
/// zero or a huge number is refused.
fn worker_count(named: u64) -> io::Result<usize> {
    let count = usize::try_from(named).ok().filter(|count| (1..=WORKERS_MAX).contains(count));
    count.ok_or_else(foreign)
}

/// The end of a conversation in words, if the kernel only says that the other side has closed it.
pub(super) fn explained(error: &io::Error, closed: &str) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => closed.to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut if error.raw_os_error().is_some() => {
            format!("the other process gave no answer within {} s", PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}

fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the other process has another version of take-over")
}

/// A process that wants the connections too.
#[derive(Debug)]
pub(super) struct Successor {
    stream: UnixStream,
    pub(super) nonce: u64,
    pub(super) workers: usize,
    /// Its id.
    pub(super) process: i32,
    /// Tells the task that offers whether all was taken: a byte if so, and only the end if not.
    taken: UnixStream,
}

impl Successor {
    /// Whether it has said something, or has gone, by now.
    ///
    /// # Errors
    /// When it said that it failed, or is gone.
    pub(super) fn has_taken(&self) -> io::Result<bool> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if retry_on_intr(|| poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], Some(&at_once)))?
            == 0
        {
            return Ok(false);
        }
        expect(&self.stream, TAKEN).map(|()| true)
    }

    /// Takes everything back. `false`: too late, the successor has it.
    pub(super) fn take_back(&self) -> bool {
        let _ = say(&self.stream, FAILED);
        let _ = self.stream.shutdown(Shutdown::Both);
        expect(&self.stream, TAKEN).is_err()
    }

    pub(super) fn tell_outcome(self, taken: bool) {
        if taken {
            let _ = (&self.taken).write_all(&[1]);
        }
    }
}

/// The process whose place this one takes.
pub(super) struct Predecessor {
    stream: UnixStream,
    /// The form in which it gives connections away; `FORMAT` is ours.
    pub(super) format: u64,
    pub(super) workers: usize,
    pub(super) clock_start_nanos: u64,
}

/// Asks the server at `address` for its listeners; `None` when there is none.
///
/// # Errors
/// When there is one that does not give them.
pub(super) fn ask(
    address: SocketAddr,
    places: &Places,
) -> io::Result<Option<(Predecessor, Vec<TcpListener>)>> {
    let Some(stream) = places.find(address)? else { return Ok(None) };
    ask_through(stream, address).map(Some)
}

/// What serves an address that an ordinary start finds in use.
pub(super) enum Running {
    /// No server of this user.
    Unknown,
    /// The server with this process id, which goes on.
    Server(i32),
    /// A stand-in whose parent is gone, which gives everything away.
    Orphan(Predecessor, Vec<TcpListener>),
}

/// Looks which server of this user serves the address, and asks a stand-in whose parent is gone for its listeners.
///
/// # Errors
/// When there is one that does not give them.
pub(super) fn ask_orphan(address: SocketAddr, places: &Places) -> io::Result<Running> {
    let Some(stream) = places.find(address)? else { return Ok(Running::Unknown) };
    let process = peer_credentials(&stream)?.process;
    if !is_orphan(process) {
        return Ok(Running::Server(process));
    }
    tracing::warn!(
        "process {process} serves {address} for a process that is gone: taking over from it, with all connections"
    );
    ask_through(stream, address)
        .map(|(predecessor, listeners)| Running::Orphan(predecessor, listeners))
}

fn ask_through(
    stream: UnixStream,
    address: SocketAddr,
) -> io::Result<(Predecessor, Vec<TcpListener>)> {
    patient(&stream)?;
    say(&stream, TAKE_OVER)?;
    let (heard, listeners) = receive(&stream)?;
    let [format, workers, clock_start_nanos] = numbers(&heard, LISTENERS).ok_or_else(foreign)?;
    for listener in &listeners {
        if listener.local_addr()? != address {
            return Err(foreign());
        }
    }
    if listeners.is_empty() {
        return Err(foreign());
    }
    let workers = worker_count(workers)?;
    Ok((Predecessor { stream, format, workers, clock_start_nanos }, listeners))
}

fn receive(stream: &UnixStream) -> io::Result<(String, Vec<TcpListener>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; MESSAGE_BYTES];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = retry_on_intr(|| {
        rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags)
    })?;
    let mut listeners = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            listeners.extend(descriptors.map(|one| TcpListener::from(Socket::from(one))));
        }
    }
    if received.bytes != text.len() {
        return Err(foreign());
    }
    if received.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(io::Error::other("no descriptor was left for a listener; raise ulimit -n"));
    }
    Ok((String::from_utf8_lossy(&text).trim_end().to_owned(), listeners))
}

impl Predecessor {
    /// Tells it that this process accepts. When this returns it drains, or has ended.
    ///
    /// # Errors
    /// When it does not answer. It may serve on then, on the same listeners.
    pub(super) fn retire(&self) -> io::Result<()> {
        say(&self.stream, ACCEPTING)?;
        self.wait_until_retiring()
    }

    /// Tells it to give its connections, to so many workers that listen by this number.
    ///
    /// # Errors
    /// When it cannot be told.
    pub(super) fn bring(&self, workers: usize, nonce: u64) -> io::Result<()> {
        say(&self.stream, &format!("{BRING} {workers} {nonce}"))
    }

    /// Whether it still means to give.
    ///
    /// # Errors
    /// When it does not. It is not to be taken from then: this was its last word.
    pub(super) fn still_gives(&self) -> io::Result<()> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if retry_on_intr(|| poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], Some(&at_once)))?
            == 0
        {
            return Ok(());
        }
        // It has nothing to say at this point but that it failed.
        hear(&self.stream)?;
        Err(given_up())
    }

    /// Takes what it gave: from here on it is this process's.
    ///
    /// # Errors
    /// When it has taken everything back.
    pub(super) fn take(&self) -> io::Result<()> {
        match say(&self.stream, TAKEN) {
            Ok(()) => Ok(()),
            Err(_) if hear(&self.stream).is_ok_and(|heard| heard == FAILED) => Err(given_up()),
            Err(error) => {
                tracing::warn!(
                    "the old process has died during the take-over; this process has all its connections: {error}"
                );
                Ok(())
            }
        }
    }

    /// Returns when it offers nothing any more. It lives on until this end is dropped, or for `PATIENCE`.
    ///
    /// # Errors
    /// When it says something else. It has retired, too, when it has ended.
    pub(super) fn wait_until_retiring(&self) -> io::Result<()> {
        loop {
            match hear(&self.stream) {
                Ok(heard) if heard == RETIRING => return Ok(()),
                // It meant to give up, but too late.
                Ok(heard) if heard == FAILED => {}
                Ok(_) => return Err(foreign()),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Predecessor {
    /// Closing would not do: the workers' descriptor tables have copies.
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn given_up() -> io::Error {
    io::Error::other(
        "the running server has taken its connections back, and its log has the reason",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::control::Control;
    use crate::server::life::Asked;
    use crate::worker::handover::FORMAT;
    use std::sync::mpsc::{self, Sender};

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn of(address: SocketAddr, listener: TcpListener) -> Offer {
        Offer {
            address,
            listeners: vec![listener.into()],
            workers: 1,
            clock_start_nanos: 7,
            gives: true,
        }
    }

    fn offer_to_others(what: Offer, asked: Sender<Asked>) -> Control {
        let control = Control::start().unwrap();
        offer(&control, what, &Places::none(), asked).unwrap();
        control
    }

    #[test]
    fn listeners_move_with_those_who_wait() {
        let (listener, address) = listener();
        let (asked, asks) = mpsc::channel();
        offer_to_others(of(address, listener), asked);
        let mut waiting = std::net::TcpStream::connect(address).unwrap();
        let (predecessor, listeners) =
            ask(address, &Places::none()).unwrap().expect("somebody is there");
        assert!(asks.try_recv().is_err(), "nothing is decided yet");
        predecessor.retire().unwrap();
        assert!(matches!(asks.recv().unwrap(), Asked::TakenOver(_)));
        let (mut accepted, _) = listeners[0].accept().unwrap();
        accepted.write_all(b"here").unwrap();
        let mut heard = [0; 4];
        waiting.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"here");
        assert!(ask(address, &Places::none()).unwrap().is_none(), "it offers no more");
    }

    #[test]
    fn who_gives_up_or_speaks_otherwise_changes_nothing() {
        let (listener, address) = listener();
        let (asked, asks) = mpsc::channel();
        offer_to_others(of(address, listener), asked);
        drop(ask(address, &Places::none()).unwrap().expect("somebody is there"));
        let mut foreigner = Places::none().find(address).unwrap().unwrap();
        say(&foreigner, "take over 9").unwrap();
        assert_eq!(foreigner.read(&mut [0; 1]).unwrap_or(0), 0);
        assert!(asks.try_recv().is_err());
        ask(address, &Places::none()).unwrap().expect("it still offers").0.retire().unwrap();
        assert!(asks.recv().is_ok());
    }

    /// Whoever meets whom is computed from the number of workers: none, or more than there can be, is refused.
    #[test]
    fn an_old_process_that_names_an_impossible_number_of_workers_is_refused() {
        for workers in [0, WORKERS_MAX + 1, 1 << 40] {
            let (listener, address) = listener();
            let (asked, _asks) = mpsc::channel();
            let offer_of_it = Offer { workers, ..of(address, listener) };
            offer_to_others(offer_of_it, asked);
            let refused = ask(address, &Places::none()).err();
            assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
        }
    }

    /// Asks for everything, as a new process does.
    fn begin() -> (Predecessor, Successor) {
        let (listener, address) = listener();
        let (asked, asks) = mpsc::channel();
        offer_to_others(of(address, listener), asked);
        let (predecessor, _) = ask(address, &Places::none()).unwrap().expect("somebody is there");
        assert_eq!((predecessor.format, predecessor.workers), (u64::from(FORMAT), 1));
        assert_eq!(predecessor.clock_start_nanos, 7);
        predecessor.bring(3, 99).unwrap();
        let Asked::Give(successor) = asks.recv().unwrap() else { panic!("connections") };
        assert_eq!((successor.workers, successor.nonce), (3, 99));
        assert!(!successor.has_taken().unwrap());
        predecessor.still_gives().unwrap();
        (predecessor, successor)
    }

    #[test]
    fn what_is_taken_is_taken() {
        let (predecessor, successor) = begin();
        predecessor.take().unwrap();
        assert!(!successor.take_back(), "too late");
        successor.tell_outcome(true);
        predecessor.wait_until_retiring().unwrap();
    }

    #[test]
    fn what_is_taken_back_cannot_be_taken() {
        let (predecessor, successor) = begin();
        assert!(successor.take_back());
        predecessor.take().unwrap_err();
        successor.tell_outcome(false);
        let (predecessor, successor) = begin();
        assert!(successor.take_back());
        predecessor.still_gives().unwrap_err();
        successor.tell_outcome(false);
    }

    #[test]
    fn of_two_at_once_one_wins() {
        for _ in 0..200 {
            let (predecessor, successor) = begin();
            let (taken, kept) = std::thread::scope(|scope| {
                let take = scope.spawn(|| predecessor.take().is_ok());
                let kept = successor.take_back();
                (take.join().unwrap(), kept)
            });
            assert_ne!(taken, kept, "both have them, or nobody");
        }
    }

    #[test]
    fn who_dies_leaves_all_to_the_other() {
        let (predecessor, successor) = begin();
        drop(successor);
        // The task that offers has the stream too, until it hears that nothing will come of it.
        while poll(&mut [PollFd::new(&predecessor.stream, PollFlags::IN)], None).unwrap() == 0 {}
        predecessor.take().unwrap();
    }

    #[test]
    fn nobody_to_take_over_from() {
        let (_listener, address) = listener();
        assert!(ask(address, &Places::none()).unwrap().is_none());
    }
}
