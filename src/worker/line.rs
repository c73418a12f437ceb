//! The socket of a worker's line to Redis: called, read, written and called again. The rules are `cluster::Link`'s.
//!
//! Nothing on the node waits for it. It is written once a tick, ahead of the clients. Names are resolved and
//! connections made by a thread of their own, as the host's resolver blocks. Pauses between two calls grow to
//! `PAUSE_MAX_MS`, and differ between workers and nodes: a Redis that comes back is not stormed.

use std::io;
use std::net::{Shutdown, TcpStream as StdTcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::time::Duration;

use monoio::net::{TcpStream, UnixStream};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::{Worker, sys, time};
use crate::cluster::{Link, Login, Lost};
use crate::config::Scaling;
use crate::shard::{LinkId, NodeId, Shard};
use crate::tick::Core;

const PAUSE_FIRST_MS: u64 = 50;
const PAUSE_MAX_MS: u64 = 2_000;
/// A line that stood as long is worth to be called at once when it is lost.
const STOOD_SECONDS: u32 = 10;
const CHUNK_BYTES: usize = 64 * 1024;
/// Read before the worker has its turn.
const CHUNKS_PER_TURN: usize = 16;
/// What the end waits for Redis to have read the last words.
const END_MS: u64 = 500;

/// `Lines::told`.
const TOLD_NOTHING: u8 = 0;
const TOLD_UP: u8 = 1;
const TOLD_LOST: u8 = 2;

/// What the workers of a node share.
#[derive(Debug)]
pub struct Lines {
    pub node: NodeId,
    pub scaling: Scaling,
    /// By worker: its line is up.
    up: Box<[AtomicBool]>,
    /// What the log said last of all workers' lines, so that it says it once and not once a worker.
    told: AtomicU8,
    /// Workers whose connection has more to send than Redis takes.
    congested: AtomicUsize,
    /// Workers whose line has ended for good.
    pub ended: AtomicUsize,
}

impl Lines {
    #[must_use]
    pub fn new(node: NodeId, scaling: Scaling, workers: usize) -> Self {
        let up = (0..workers).map(|_| AtomicBool::new(false)).collect();
        let (congested, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { node, scaling, up, told: AtomicU8::new(TOLD_NOTHING), congested, ended }
    }

    /// A worker's line is up. Whether the log is to say so: it is the last of all.
    fn begins_up(&self, worker: usize) -> bool {
        self.up[worker].store(true, Ordering::SeqCst);
        let all_are_up = self.up.iter().all(|up| up.load(Ordering::SeqCst));
        all_are_up && self.told.swap(TOLD_UP, Ordering::SeqCst) != TOLD_UP
    }

    /// A worker has no line. Whether the log is to say so: it is the first.
    fn begins_lost(&self, worker: usize) -> bool {
        self.up[worker].store(false, Ordering::SeqCst);
        self.told.swap(TOLD_LOST, Ordering::SeqCst) != TOLD_LOST
    }

    /// Whether it is this worker that gives the node's sign of life: the first whose line is up.
    fn speaks(&self, worker: usize) -> bool {
        self.up.iter().position(|up| up.load(Ordering::Relaxed)) == Some(worker)
    }
}

/// One worker's line.
pub(super) struct Line {
    link: Link,
    socket: Option<Rc<TcpStream>>,
    /// The socket takes no more for now; whoever waits for room is woken by this.
    blocked: bool,
    writer: Option<Waker>,
    /// Why the reader finds the socket at its end.
    lost: Option<Lost>,
    beat_seconds: u32,
    dropped_told: u64,
    /// It is counted in `Lines::congested`.
    is_congested: bool,
}

impl Line {
    pub(super) fn new(worker: &super::Shared, core: u16) -> Option<Self> {
        let lines = worker.lines.as_ref()?;
        let Scaling { prefix, username, password, .. } = &lines.scaling;
        let login = Login { username: username.clone(), password: password.clone() };
        let own = LinkId { node: lines.node, core };
        Some(Self {
            link: Link::new(own, prefix, worker.apps.clone(), login, time::unix_seconds()),
            socket: None,
            blocked: false,
            writer: None,
            lost: None,
            beat_seconds: 0,
            dropped_told: 0,
            is_congested: false,
        })
    }

    /// Clients of all workers wait while one has too much for Redis: a channel's home may be any of them.
    fn tell_congestion(&mut self, lines: &Lines, shard: &Shard) {
        let is_congested = self.link.is_congested(shard);
        match (std::mem::replace(&mut self.is_congested, is_congested), is_congested) {
            (false, true) => lines.congested.fetch_add(1, Ordering::Relaxed),
            (true, false) => lines.congested.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }

    /// Ends the socket; the reader sees it and does the rest.
    fn hang_up(&mut self, lost: Lost) {
        self.lost = Some(lost);
        if let Some(socket) = &self.socket {
            // It may be at its end already.
            let _ = rustix::net::shutdown(sys::borrow(&**socket), rustix::net::Shutdown::Both);
        }
    }

    /// Sends what there is; the rest waits for room.
    fn write(&mut self) {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.blocked) else { return };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        while !self.link.output().is_empty() {
            match rustix::net::send(sys::borrow(&**socket), self.link.output(), flags) {
                Ok(count) => self.link.note_sent(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.blocked = true;
                    if let Some(waker) = self.writer.take() {
                        waker.wake();
                    }
                    return;
                }
                // The reader finds the end, too, and says so.
                Err(_) => return,
            }
        }
    }
}

impl Worker {
    /// Carries out what this tick wants of the cluster. Part of the tick.
    pub(super) fn carry_out_line(&self, core: &mut Core<sys::Ring>) {
        let Some(line) = &mut *self.line.borrow_mut() else { return };
        let (Some(lines), now) = (&self.shared.lines, core.shard.now().seconds()) else { return };
        let worker = usize::from(core.mailbox.core());
        let mut result = Ok(());
        if line.beat_seconds != now {
            line.beat_seconds = now;
            lines.up[worker].store(line.link.is_up(), Ordering::Relaxed);
            result = line.link.beat(time::unix_seconds(), lines.speaks(worker), &mut core.shard);
        }
        if let Err(lost) = result.and_then(|()| line.link.carry_out(&mut core.shard)) {
            line.hang_up(lost);
        }
        line.tell_congestion(lines, &core.shard);
        core.shard.set_cluster_congested(lines.congested.load(Ordering::Relaxed) > 0);
        for note in line.link.notes.drain(..) {
            self.notes.tell(&note);
        }
        let dropped = line.link.dropped - line.dropped_told;
        if dropped > 0 && line.beat_seconds.is_multiple_of(10) {
            line.dropped_told = line.link.dropped;
            self.notes.tell(&format!(
                "{dropped} events for other nodes were dropped: Redis has been away for too long to keep them all"
            ));
        }
    }

    /// Sends what the tick has left for Redis.
    pub(super) fn write_line(&self) {
        if let Some(line) = &mut *self.line.borrow_mut() {
            line.write();
        }
    }

    fn with_line<T>(&self, what: impl FnOnce(&mut Line) -> T) -> Option<T> {
        self.line.borrow_mut().as_mut().map(what)
    }

    /// Bytes of Redis; `false` when it is of no use any more.
    fn hear(&self, bytes: &[u8]) -> bool {
        let core = &mut *self.core.borrow_mut();
        let line = &mut *self.line.borrow_mut();
        let Some(line) = line else { return false };
        // What was answered here comes before what others say since.
        core.catch_up();
        if let Err(lost) = line.link.receive(bytes, &mut core.shard) {
            line.lost = Some(lost);
            return false;
        }
        for (from, number, question) in line.link.take_questions() {
            core.begin_node_question(from, number, question);
        }
        true
    }

    /// Says the last words and waits until Redis has them.
    pub(super) async fn end_line(&self) {
        let Some(lines) = &self.shared.lines else { return };
        let worker = usize::from(self.index());
        self.with_line(|line| {
            if lines.speaks(worker) {
                line.link.say_bye();
            }
            line.write();
            if let Some(socket) = &line.socket {
                // It may be at its end already.
                let _ = rustix::net::shutdown(sys::borrow(&**socket), rustix::net::Shutdown::Write);
            }
        });
        for _ in 0..END_MS / 5 {
            if self.with_line(|line| line.socket.is_none()) != Some(false) {
                break;
            }
            monoio::time::sleep(Duration::from_millis(5)).await;
        }
        lines.ended.fetch_add(1, Ordering::AcqRel);
    }
}

/// Keeps a worker's line for as long as the worker lives.
pub(super) async fn keep(worker: Rc<Worker>) {
    let Some(lines) = &worker.shared.lines else { return };
    let address = lines.scaling.address();
    let index = usize::from(worker.index());
    let mut pause_ms = PAUSE_FIRST_MS;
    while !worker.shared.phase.is_stopped() {
        let called = call(&lines.scaling).await;
        let (why, stood_seconds) = match called {
            Ok(socket) => {
                let (why, stood_seconds) = serve(&worker, lines, socket, &address).await;
                (format!("the connection to Redis at {address} ended: {why}"), stood_seconds)
            }
            Err(error) => {
                worker.with_line(|line| line.link.note_unreachable());
                (format!("cannot reach Redis at {address}: {}", reason(&error)), 0)
            }
        };
        let is_first = lines.begins_lost(index);
        if worker.shared.phase.is_stopped() {
            return;
        }
        if is_first {
            tracing::warn!("{why}. Clients of this node still reach each other; retrying.");
        }
        if stood_seconds >= STOOD_SECONDS {
            pause_ms = PAUSE_FIRST_MS;
        }
        monoio::time::sleep(Duration::from_millis(jittered(&worker, pause_ms))).await;
        pause_ms = (pause_ms * 2).min(PAUSE_MAX_MS);
    }
}

/// An error of the system without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

/// Between half of it and all.
fn jittered(worker: &Worker, pause_ms: u64) -> u64 {
    let entropy = worker.effects.borrow_mut().entropy.next();
    pause_ms / 2 + entropy % (pause_ms / 2 + 1)
}

/// Serves a line from its first word to its end: why it ended, and how long it was up.
async fn serve(
    worker: &Rc<Worker>,
    lines: &Lines,
    socket: TcpStream,
    address: &str,
) -> (String, u32) {
    let socket = Rc::new(socket);
    worker.with_line(|line| {
        line.link.open();
        (line.socket, line.blocked, line.lost) = (Some(socket.clone()), false, None);
        line.write();
    });
    monoio::spawn(write_when_there_is_room(worker.clone(), socket.clone()));
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut up_since = None;
    let why = loop {
        let read = read_some(worker, &socket, &mut buffer).await;
        worker.tick();
        let is_up = worker.with_line(|line| line.link.is_up()) == Some(true);
        if is_up && up_since.is_none() {
            up_since = Some(worker.core.borrow().shard.now().seconds());
            if lines.begins_up(usize::from(worker.index())) {
                tracing::info!("connected to Redis at {address}");
            }
        }
        if let Err(why) = read {
            break why;
        }
    };
    let lost = worker.with_line(|line| {
        let core = &mut *worker.core.borrow_mut();
        line.link.close(&mut core.shard);
        line.socket = None;
        if let Some(waker) = line.writer.take() {
            waker.wake();
        }
        line.lost.take()
    });
    worker.ask_tick();
    let now = worker.core.borrow().shard.now().seconds();
    let why = lost.flatten().map_or(why, |lost| lost.to_string());
    (why, up_since.map_or(0, |since| now.saturating_sub(since)))
}

/// Waits for bytes and takes in what is there.
async fn read_some(worker: &Worker, socket: &TcpStream, buffer: &mut [u8]) -> Result<(), String> {
    socket.readable(true).await.map_err(|error| reason(&error))?;
    for _ in 0..CHUNKS_PER_TURN {
        match rustix::net::recv(sys::borrow(socket), &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err("it has closed the connection".to_owned()),
            Ok((count, _)) => {
                if !worker.hear(&buffer[..count]) {
                    return Err("it was left".to_owned());
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => break,
            Err(error) => return Err(reason(&error.into())),
        }
    }
    Ok(())
}

async fn write_when_there_is_room(worker: Rc<Worker>, socket: Rc<TcpStream>) {
    loop {
        let goes_on = std::future::poll_fn(|context| {
            let line = &mut *worker.line.borrow_mut();
            let Some(line) = line else { return Poll::Ready(false) };
            let is_ours = line.socket.as_ref().is_some_and(|now| Rc::ptr_eq(now, &socket));
            if !is_ours || line.blocked {
                return Poll::Ready(is_ours);
            }
            line.writer = Some(context.waker().clone());
            Poll::Pending
        });
        if !goes_on.await || socket.writable(true).await.is_err() {
            return;
        }
        worker.with_line(|line| {
            line.blocked = false;
            line.write();
        });
    }
}

/// Makes a connection, on a thread of its own: name look-ups block.
async fn call(scaling: &Scaling) -> io::Result<TcpStream> {
    let (done, bell) = StdUnixStream::pair()?;
    let (sender, receiver) = mpsc::channel();
    let (host, port) = (scaling.host.clone(), scaling.port);
    let timeout = Duration::from_secs(scaling.timeout_seconds.into());
    let connect = move || {
        // Nobody waits for it any more, if that fails.
        let _ = sender.send(connect(&host, port, timeout));
        let _ = done.shutdown(Shutdown::Both);
    };
    std::thread::Builder::new().name("redis-call".to_owned()).spawn(connect)?;
    UnixStream::from_std(bell)?.readable(true).await?;
    let socket = receiver.recv().map_err(|_| io::Error::other("the call was given up"))??;
    TcpStream::from_std(socket)
}

fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<StdTcpStream> {
    let mut last = io::Error::other(format!("{host} has no address"));
    for address in (host, port).to_socket_addrs()? {
        match StdTcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => {
                // A line speaks once a tick: nothing is gained by waiting for more.
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
