//! Taking a running server's port over: its listeners move to a new process, and its connections with them, or not.
//!
//! The listeners themselves move, by SCM_RIGHTS, and with them whoever waits in their accept queues: a listener that is
//! closed resets those. `meeting.rs` says where the two processes meet and whom they believe.
//!
//! The conversation: `take over` -> `listeners` with the descriptors; then either `accepting` -> `retiring`
//! (connections stay with the old process, which closes them with 4200 over its drain period), or `bring` -> all
//! connections, by the workers -> `taken` -> `retiring`. Whoever stops before `accepting` or `taken` changes nothing.
//! A process that is to `bring` and cannot says `failed` and serves on.
//!
//! `taken` is the one point at which connections change hands, and both sides must see it alike. The old process gives
//! up by saying `failed` and shutting its end: the kernel then refuses `taken`, and if `taken` was there before, the
//! old process finds it in what it has not read, and has not given up. Where `taken` is refused and there is no
//! `failed` to read, the old process has died, and the new one is all there is.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use socket2::Socket;

use super::exchange::is_orphan;
use super::life::{Asked, WORKERS_MAX, sleep};
use super::meeting::{Places, Point, Strangers};
use crate::worker::handover::{FORMAT, peer_credentials};

/// Every message is as long as this, filled up with spaces.
const MESSAGE_BYTES: usize = 64;
/// The number changes with what is said: processes that speak differently do not take over from each other.
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
    Ok(String::from_utf8_lossy(&heard).trim_end().to_owned())
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
    /// Tells the thread that offers whether all was taken.
    taken: Sender<bool>,
}

/// What this process offers.
pub(super) struct Offer {
    pub(super) address: SocketAddr,
    /// More than workers, after a take-over from a server that had more.
    pub(super) listeners: Vec<OwnedFd>,
    pub(super) workers: usize,
    /// See `Clock::start_nanos`.
    pub(super) clock_start_nanos: u64,
    /// The connections may move, too, and not the listeners only.
    pub(super) gives: bool,
}

/// Offers the listeners, and the connections, to whoever comes to take over, until somebody has: `Asked::TakenOver`,
/// or `Asked::Give`, when the connections are to move. The thread ends when its successor stands, and the process must
/// not end before.
///
/// # Errors
/// When there is no place to meet at, or no thread can be had.
pub(super) fn offer(offer: Offer, places: &Places, asked: Sender<Asked>) -> io::Result<Offering> {
    let point = Arc::new(places.open(offer.address)?);
    let thread = std::thread::Builder::new().name("takeover".to_owned());
    let place = point.clone();
    let thread = thread.spawn(move || serve_point(&point, &offer, &asked))?;
    Ok(Offering { place, thread })
}

/// What a process has that offers itself.
pub(super) struct Offering {
    place: Arc<Point>,
    thread: JoinHandle<()>,
}

impl Offering {
    /// Takes the offer back, at the end of the process.
    pub(super) fn withdraw(&self) {
        self.place.remove();
    }

    /// Waits until the successor stands.
    pub(super) fn wait(self) {
        // A panic of the thread would have ended the process.
        let _ = self.thread.join();
    }
}

fn serve_point(point: &Point, offer: &Offer, asked: &Sender<Asked>) {
    let mut strangers = Strangers::new();
    loop {
        let Ok((stream, _)) = point.listener.accept() else {
            // Out of descriptors it fails at once, over and over.
            sleep(Duration::from_millis(100));
            continue;
        };
        // Before anything that takes time: a flood of strangers must not keep the right one waiting.
        if let Err(error) = point.check(&stream) {
            strangers.refuse(&error);
            continue;
        }
        match is_take_over(&stream)
            .and_then(|is| is.then(|| hand_out(stream, offer, asked)).transpose())
        {
            // An ordinary start asks in this way which process serves the address.
            Ok(None) => tracing::debug!("another process asked which process serves this address"),
            Ok(Some(stream)) => {
                // The successor offers from here on. The socket itself closes with the process; nobody accepts there.
                point.close();
                let _ = say(&stream, RETIRING);
                // It hangs up when its supervisor knows it for the main process. Before, the end of this one would
                // be taken for the end of the service.
                let _ = hear(&stream);
                return;
            }
            Err(error) => {
                let why = explained(&error, "the new process ended before it had everything");
                tracing::warn!("a take-over failed, and this process continues: {why}");
                sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Whether the peer wants to take over. `false`: it has closed the connection without a word.
fn is_take_over(stream: &UnixStream) -> io::Result<bool> {
    patient(stream)?;
    match hear(stream) {
        Ok(heard) if heard == TAKE_OVER => Ok(true),
        Ok(_) => Err(foreign()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// One conversation, from the listeners on; when it ends well, this process has nothing left to offer.
fn hand_out(stream: UnixStream, offer: &Offer, asked: &Sender<Asked>) -> io::Result<UnixStream> {
    send_listeners(&stream, offer)?;
    let process = peer_credentials(&stream)?.process;
    let wish = hear(&stream)?;
    if wish == ACCEPTING {
        let _ = asked.send(Asked::TakenOver(process));
        return Ok(stream);
    }
    let [workers, nonce] = numbers(&wish, BRING).ok_or_else(foreign)?;
    let workers = worker_count(workers)?;
    let (taken, outcome) = mpsc::channel();
    let stream_of_it = stream.try_clone()?;
    let successor = Successor { stream: stream_of_it, nonce, workers, process, taken };
    // A control thread that is at the end already drops it, and with it the other end of `outcome`.
    let _ = asked.send(Asked::Give(successor));
    if outcome.recv() == Ok(true) { Ok(stream) } else { Err(io::Error::other("see above")) }
}

fn send_listeners(stream: &UnixStream, offer: &Offer) -> io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> = offer.listeners.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("more listeners than one message holds"));
    }
    // No version has form 0: connections stay where they are.
    let format = if offer.gives { FORMAT } else { 0 };
    let text =
        message(&format!("{LISTENERS} {format} {} {}", offer.workers, offer.clock_start_nanos));
    let text = [IoSlice::new(&text)];
    let sent =
        retry_on_intr(|| rustix::net::sendmsg(stream, &text, &mut ancillary, SendFlags::NOSIGNAL))?;
    if sent == MESSAGE_BYTES { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
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
        let _ = self.taken.send(taken);
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
                    "the server before this one has died, all its connections are here: {error}"
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
    use std::sync::mpsc;

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

    #[test]
    fn listeners_move_with_those_who_wait() {
        let (listener, address) = listener();
        let (asked, asks) = mpsc::channel();
        offer(of(address, listener), &Places::none(), asked).unwrap();
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
        offer(of(address, listener), &Places::none(), asked).unwrap();
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
            offer(offer_of_it, &Places::none(), asked).unwrap();
            let refused = ask(address, &Places::none()).err();
            assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
        }
    }

    /// Asks for everything, as a new process does.
    fn begin() -> (Predecessor, Successor) {
        let (listener, address) = listener();
        let (asked, asks) = mpsc::channel();
        offer(of(address, listener), &Places::none(), asked).unwrap();
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
        // The thread that offers has the stream too, until it hears that nothing will come of it.
        while poll(&mut [PollFd::new(&predecessor.stream, PollFlags::IN)], None).unwrap() == 0 {}
        predecessor.take().unwrap();
    }

    #[test]
    fn nobody_to_take_over_from() {
        let (_listener, address) = listener();
        assert!(ask(address, &Places::none()).unwrap().is_none());
    }
}
