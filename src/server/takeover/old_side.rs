//! The old process's side of a take-over: a task of the control thread (`control.rs`) that offers the listeners and the
//! connections to one process at a time.
//!
//! Owns the conversation with a new process until the main thread gets it. A fault of a new process ends only its own
//! conversation, until it has taken over. The main thread carries out the `Order`s that the task sends, with a
//! `NewProcess` where connections are to move. Does not move a connection: the main thread and the workers do.
//! Limits: one conversation at a time, `PATIENCE` for a message; `message::LISTENERS_MAX` listeners travel in one.
//! Cost: a poll of one descriptor while no process asks; one system call for each message.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use monoio::time::{sleep, timeout};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::Order;
use super::message::{
    ACCEPTING, BRING, LISTENERS, LISTENERS_MAX, MESSAGE_BYTES, PATIENCE, RETIRING, SERVES_APPS,
    ServesAppsError, TAKE_OVER, TAKE_OVER_WITHOUT_APPS, explain_error, message, numbers, send_text,
    set_timeouts, text_of, worker_count, wrong_peer_error,
};
use super::new_process::NewProcess;
use super::order::{HAS_APPS, HoldReport};
use super::rendezvous::{Places, Point, RefusedPeers};
use crate::server::control::{AcceptWait, Control, RETRY_PAUSE, Readable};
use crate::worker::transfer::{FORMAT, peer_credentials};

/// What a new process can take over.
pub(in crate::server) struct Offer {
    pub(in crate::server) address: SocketAddr,
    /// More than workers, after a take-over from a server that had more.
    pub(in crate::server) listeners: Vec<OwnedFd>,
    pub(in crate::server) workers: usize,
    /// The old clock's start, so that times in the records of connections mean the same in the new process.
    pub(in crate::server) clock_start_nanos: u64,
    /// The connections may move too, and not the listeners only.
    pub(in crate::server) can_transfer: bool,
    /// `None`: there is none. It moves with the listeners, so that probes are answered during a take-over.
    pub(in crate::server) admin: Option<OwnedFd>,
}

/// Offers the listeners, and the connections, to processes that connect, until one has taken over: `Order::Retire`, or
/// `Order::Transfer` where the connections are to move. The task on the control thread ends when the new process is
/// ready. This process must not exit before that.
///
/// # Errors
/// When there is no place to meet at, or the control thread cannot wait for connections.
pub(in crate::server) fn offer(
    control: &Control,
    offer: Offer,
    places: &Places,
    orders: Sender<Order>,
) -> io::Result<Offering> {
    let place = Arc::new(places.open(offer.address)?);
    place.listener.set_nonblocking(true)?;
    let point = place.clone();
    let (done, ended) = mpsc::channel::<()>();
    control.run(move || {
        let readable = Readable::of(&point.listener)?;
        Ok(async move {
            serve_point(&point, &readable, &offer, &orders).await;
            drop(done);
        })
    })?;
    Ok(Offering { point: place, ended })
}

/// Withdrawn when the process ends; otherwise it lasts until one process has taken over.
pub(in crate::server) struct Offering {
    point: Arc<Point>,
    ended: Receiver<()>,
}

impl Offering {
    /// Removes the socket file. The task keeps running, and its listener closes with the process.
    pub(in crate::server) fn withdraw(&self) {
        self.point.remove();
    }

    /// Waits for the end of the task. The supervisor knows the new process by then, so this process may exit.
    pub(in crate::server) fn wait(self) {
        // Nothing is ever sent: the end of the task ends the wait.
        self.ended.recv().ok();
    }
}

/// In the order of their arrival; peers that fail `check` are counted and dropped.
async fn next_peer(
    listener: &UnixListener,
    readable: &Readable,
    refused_peers: &mut RefusedPeers,
    mut check: impl FnMut(&UnixStream) -> io::Result<()>,
) -> UnixStream {
    let mut wait = AcceptWait::new(readable);
    loop {
        wait.next().await;
        match listener.accept() {
            // Before anything that takes time: a flood of other processes must not keep the right one waiting.
            Ok((stream, _)) => match check(&stream) {
                Ok(()) => return stream,
                Err(error) => refused_peers.refuse(&error),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Out of descriptors it fails at once, over and over.
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}

async fn serve_point(point: &Point, readable: &Readable, offer: &Offer, orders: &Sender<Order>) {
    let mut refused_peers = RefusedPeers::new();
    loop {
        let check = |peer: &UnixStream| point.check(peer);
        let stream = next_peer(&point.listener, readable, &mut refused_peers, check).await;
        match converse(stream, offer, orders).await {
            // An ordinary start only asks which process serves the address.
            Ok(None) => tracing::debug!(
                event = "takeover_asked",
                "another process asked which process serves this address"
            ),
            Ok(Some(conversation)) => {
                // From here on the new process has an offer of its own. This socket closes with the process, and
                // no task accepts on it.
                point.close();
                // If the peer has closed, no process waits for this.
                send_text(&conversation.stream, RETIRING).ok();
                // It hangs up when its supervisor knows it for the main process. Before, the end of this one would
                // be taken for the end of the service.
                conversation.receive_text().await.ok();
                return;
            }
            Err(error) => {
                let why = explain_error(&error, "the new process ended before it had everything");
                tracing::warn!(
                    event = "takeover_failed",
                    "a take-over failed, and this process continues: {why}"
                );
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// The connection of a process that may take over. Its socket is non-blocking, except while a `NewProcess` has it.
struct Conversation {
    stream: UnixStream,
    readable: Readable,
}

impl Conversation {
    fn accept_conversation(stream: UnixStream) -> io::Result<Self> {
        set_timeouts(&stream)?;
        stream.set_nonblocking(true)?;
        let readable = Readable::of(&stream)?;
        Ok(Self { stream, readable })
    }

    /// One message, in any number of pieces, within `PATIENCE`.
    async fn receive_text(&self) -> io::Result<String> {
        timeout(PATIENCE, self.receive_whole_message()).await.unwrap_or(Err(Errno::TIMEDOUT.into()))
    }

    async fn receive_whole_message(&self) -> io::Result<String> {
        let mut received = [0; MESSAGE_BYTES];
        let mut filled = 0;
        while filled < received.len() {
            self.readable.wait().await;
            match (&self.stream).read(&mut received[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(text_of(&received))
    }

    /// Whether the peer, which wants to take over, has a configured app. `None`: it has closed the connection without a
    /// word.
    async fn greeting(&self) -> io::Result<Option<bool>> {
        match self.receive_text().await {
            Ok(received) if received == TAKE_OVER => Ok(Some(true)),
            Ok(received) if received == TAKE_OVER_WITHOUT_APPS => Ok(Some(false)),
            Ok(_) => Err(wrong_peer_error()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// One conversation; when it ends well, this process has nothing left to offer. `None`: the peer wanted nothing.
async fn converse(
    stream: UnixStream,
    offer: &Offer,
    orders: &Sender<Order>,
) -> io::Result<Option<Conversation>> {
    let conversation = Conversation::accept_conversation(stream)?;
    let Some(has_apps) = conversation.greeting().await? else { return Ok(None) };
    let result = offer_everything(&conversation, has_apps, offer, orders).await;
    if result.is_err() {
        // A main thread that is at the end changes nothing.
        orders.send(Order::ResumeChanges).ok();
    }
    result.map(|()| Some(conversation))
}

/// Offers everything to a process that wants to take over, with changes of the configuration held.
async fn offer_everything(
    conversation: &Conversation,
    has_apps: bool,
    offer: &Offer,
    orders: &Sender<Order>,
) -> io::Result<()> {
    let stream = &conversation.stream;
    let serves_apps = hold_changes(orders).await?;
    if serves_apps && !has_apps {
        send_text(stream, SERVES_APPS)?;
        return Err(io::Error::other(ServesAppsError));
    }
    send_listeners(stream, offer)?;
    let process = peer_credentials(stream)?.process;
    let request = conversation.receive_text().await?;
    if request == ACCEPTING {
        // Fails only if the receiver has ended, and then nothing waits for it.
        orders.send(Order::Retire(process)).ok();
        return Ok(());
    }
    let [workers, nonce] = numbers(&request, BRING).ok_or_else(wrong_peer_error)?;
    let workers = worker_count(workers)?;
    let (report, outcome) = UnixStream::pair()?;
    outcome.set_nonblocking(true)?;
    let settled = Readable::of(&outcome)?;
    // Only the main thread uses the stream until it reports the outcome.
    stream.set_nonblocking(false)?;
    let new_process =
        NewProcess { stream: stream.try_clone()?, nonce, workers, process, outcome: report };
    // A main thread that is at the end already drops it, and with it the other end of `outcome`.
    orders.send(Order::Transfer(new_process)).ok();
    let is_taken = loop {
        settled.wait().await;
        match (&outcome).read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => break matches!(read, Ok(1)),
        }
    };
    stream.set_nonblocking(true)?;
    if is_taken { Ok(()) } else { Err(io::Error::other("see above")) }
}

/// Waits until the main thread carries out no change of the configuration: the new process, which reads it from now on,
/// then misses none. Returns whether this server has configured apps.
async fn hold_changes(orders: &Sender<Order>) -> io::Result<bool> {
    let (report, held) = UnixStream::pair()?;
    held.set_nonblocking(true)?;
    let readable = Readable::of(&held)?;
    // A main thread that is at the end drops it, and changes nothing.
    orders.send(Order::HoldChanges(HoldReport(report))).ok();
    let reported = async {
        loop {
            readable.wait().await;
            let mut byte = [0];
            match (&held).read(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => break matches!(read, Ok(1)) && byte[0] == HAS_APPS,
            }
        }
    };
    timeout(PATIENCE, reported).await.map_err(|_| Errno::TIMEDOUT.into())
}

fn send_listeners(stream: &UnixStream, offer: &Offer) -> io::Result<()> {
    // The last place is the admin listener's.
    let listeners = offer.listeners.iter().take(LISTENERS_MAX - 1);
    let descriptors: Vec<BorrowedFd<'_>> = listeners.chain(&offer.admin).map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("more listeners than one message holds"));
    }
    // No version has form 0: connections stay where they are.
    let format = if offer.can_transfer { FORMAT } else { 0 };
    let (workers, admins) = (offer.workers, usize::from(offer.admin.is_some()));
    let text = format!("{LISTENERS} {format} {workers} {} {admins}", offer.clock_start_nanos);
    let text = message(&text);
    let text = [IoSlice::new(&text)];
    let sent =
        retry_on_intr(|| rustix::net::sendmsg(stream, &text, &mut ancillary, SendFlags::NOSIGNAL))?;
    if sent == MESSAGE_BYTES { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::holding;
    use super::*;
    use crate::server::control::CONNECTIONS_IN_A_ROW;
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::Duration;

    fn offer_of(listener: TcpListener) -> Offer {
        Offer {
            address: listener.local_addr().unwrap(),
            listeners: vec![listener.into()],
            workers: 1,
            clock_start_nanos: 7,
            can_transfer: true,
            admin: None,
        }
    }

    /// An offer, its control thread, what it received of the main thread, and a connection to it.
    fn begin() -> (Control, Receiver<Order>, UnixStream) {
        let what = offer_of(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = what.address;
        let (orders, received) = mpsc::channel();
        let control = Control::start().unwrap();
        offer(&control, what, &Places::without_directories(), holding(orders, true)).unwrap();
        let stream = Places::without_directories().find(address).unwrap().expect("the offer");
        (control, received, stream)
    }

    #[test]
    fn a_silent_peer_stops_no_other_task() {
        let (control, _received, stream) = begin();
        (&stream).write_all(b"take over").unwrap();
        for pause in [1, 20] {
            let (done, result) = mpsc::channel();
            let timer = move || {
                Ok(async move {
                    sleep(Duration::from_millis(pause)).await;
                    done.send(()).unwrap();
                })
            };
            control.run(timer).unwrap();
            result.recv_timeout(PATIENCE / 2).expect("the control thread goes on");
        }
    }

    #[test]
    fn a_message_in_pieces_is_one_message() {
        let (_control, received, stream) = begin();
        let (first, second) = (message(TAKE_OVER), message(ACCEPTING));
        for piece in first.chunks(7).chain(second.chunks(5)) {
            (&stream).write_all(piece).unwrap();
            crate::server::wait::sleep(Duration::from_millis(1));
        }
        assert!(matches!(received.recv().unwrap(), Order::Retire(_)));
    }

    /// A byte at a time would otherwise keep the right process waiting for as long as a peer likes.
    #[test]
    fn a_peer_that_dribbles_has_one_deadline_for_its_message() {
        let (_control, received, stream) = begin();
        let message = message(TAKE_OVER);
        let sent = message.iter().take_while(|byte| {
            crate::server::wait::sleep(PATIENCE / 40);
            (&stream).write_all(&[**byte]).is_ok()
        });
        assert!(sent.count() < MESSAGE_BYTES, "the whole message took 1.6 x PATIENCE");
        assert!(received.try_recv().is_err());
    }

    #[test]
    fn timers_run_during_a_flood_of_connections() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let point = Places::without_directories().open(address).unwrap();
        point.listener.set_nonblocking(true).unwrap();
        // All wait in the queue before the task starts, so the listener is readable until the last one.
        let flood = 10 * CONNECTIONS_IN_A_ROW;
        for _ in 0..flood {
            drop(Places::without_directories().find(address).unwrap().expect("room in the queue"));
        }
        let control = Control::start().unwrap();
        let (events, log) = mpsc::channel();
        let of_timer = events.clone();
        let both = move || {
            let readable = Readable::of(&point.listener)?;
            monoio::spawn(async move {
                sleep(Duration::from_millis(5)).await;
                of_timer.send("timer").unwrap();
            });
            Ok(async move {
                let mut seen = 0;
                let check = |_: &UnixStream| {
                    seen += 1;
                    if seen < flood { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
                };
                next_peer(&point.listener, &readable, &mut RefusedPeers::new(), check).await;
                events.send("the last peer").unwrap();
            })
        };
        control.run(both).unwrap();
        assert_eq!([log.recv().unwrap(), log.recv().unwrap()], ["timer", "the last peer"]);
    }
}
