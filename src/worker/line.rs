//! The connection of a worker to Redis: made, read, written and made again. The rules are `cluster::ClusterSession`'s.
//!
//! Nothing on the node waits for it. Its socket is watched like a client's; it is read and written once a tick, ahead
//! of the clients. Names are resolved and connections made by a thread of their own, as the host's resolver blocks.
//! Pauses between two attempts grow to `PAUSE_MAX_MS`, and differ between workers and nodes: a Redis that comes back is
//! not stormed.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::{HostKernel, Shared, Worker, time};
use crate::clock::Moment;
use crate::cluster::{ClusterSession, Login};
use crate::config::Scaling;
use crate::mailbox::{Doorbell, Mailbox};
use crate::shard::{Mail, NodeId, SessionId, Shard};
use crate::tick::ClusterReports;
use crate::tick::kernel::Watched;

const PAUSE_FIRST_MS: u64 = 50;
const PAUSE_MAX_MS: u64 = 2_000;
/// Time between two looks at a connection that is being made, in milliseconds.
const CALLING_LOOK_MS: u64 = 20;
/// A line that stood as long is worth to be called at once when it is lost.
const STOOD_SECONDS: u32 = 10;
const CHUNK_BYTES: usize = 64 * 1024;
/// Read in one tick.
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

/// Where a worker stands with Redis.
enum State {
    /// The next attempt is due at this moment.
    Pausing(Moment),
    /// A thread connects.
    Calling(Receiver<io::Result<TcpStream>>),
    Serving(OwnedFd),
}

/// One worker's line.
pub(super) struct Line {
    link: ClusterSession,
    state: State,
    /// To be rung by the thread that connects.
    doorbells: Arc<[Doorbell]>,
    /// Names the socket to the kernel.
    number: u32,
    /// The socket takes no more for now.
    blocked: bool,
    /// Since when the line has been up, in seconds.
    up_since: Option<u32>,
    pause_ms: u64,
    beat_seconds: u32,
    dropped_told: u64,
    /// It is counted in `Lines::congested`.
    is_congested: bool,
    buffer: Box<[u8]>,
}

impl Line {
    pub(super) fn new(worker: &Shared, mailbox: &Mailbox<Mail>) -> Option<Self> {
        let lines = worker.lines.as_ref()?;
        let Scaling { prefix, username, password, .. } = &lines.scaling;
        let login = Login { username: username.clone(), password: password.clone() };
        let own = SessionId { node: lines.node, core: mailbox.core() };
        Some(Self {
            link: ClusterSession::new(
                own,
                prefix,
                worker.apps.clone(),
                login,
                time::unix_seconds(),
            ),
            state: State::Pausing(Moment::default()),
            doorbells: mailbox.doorbells(),
            number: 0,
            blocked: false,
            up_since: None,
            pause_ms: PAUSE_FIRST_MS,
            beat_seconds: 0,
            dropped_told: 0,
            is_congested: false,
            buffer: vec![0; CHUNK_BYTES].into(),
        })
    }

    /// The time until it needs a tick although nothing is reported, in milliseconds.
    pub(super) fn wait_ms(&self, now: Moment) -> Option<u64> {
        match self.state {
            State::Pausing(at) => Some(at.0.saturating_sub(now.0)),
            // The ring of the thread that connects finds the worker awake now and then.
            State::Calling(_) => Some(CALLING_LOOK_MS),
            State::Serving(_) => None,
        }
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

    /// Sends what there is. `true`: the socket takes no more for now. An error is found by the next read, too.
    fn write(&mut self) -> bool {
        let State::Serving(socket) = &self.state else { return false };
        if self.blocked {
            return false;
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        while !self.link.output().is_empty() {
            match rustix::net::send(socket, self.link.output(), flags) {
                Ok(count) => self.link.note_sent(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.blocked = true;
                    return true;
                }
                Err(_) => return false,
            }
        }
        false
    }

    /// Starts a thread that connects and rings.
    fn call(
        &mut self,
        scaling: &Scaling,
        core: usize,
    ) -> io::Result<Receiver<io::Result<TcpStream>>> {
        let (sender, receiver) = mpsc::channel();
        let (host, port) = (scaling.host.clone(), scaling.port);
        let timeout = Duration::from_secs(scaling.timeout_seconds.into());
        let doorbells = self.doorbells.clone();
        let connect = move || {
            // Nobody waits for it any more, if that fails.
            let _ = sender.send(connect(&host, port, timeout));
            if let Some(doorbell) = doorbells.get(core) {
                doorbell.ring();
            }
        };
        std::thread::Builder::new().name("redis-call".to_owned()).spawn(connect)?;
        Ok(receiver)
    }
}

impl<K: HostKernel> Worker<K> {
    /// Takes in what Redis has sent, and makes a connection when it is time. Part of the tick.
    pub(super) fn hear_line(&mut self) {
        let (Some(line), Some(lines)) = (&mut self.line, &self.shared.lines) else { return };
        let now = self.clock.now();
        match &line.state {
            State::Pausing(at) if *at <= now => {
                let core = usize::from(self.core.mailbox.core());
                match line.call(&lines.scaling, core) {
                    Ok(receiver) => line.state = State::Calling(receiver),
                    Err(error) => {
                        let why = unreachable(lines, &error);
                        self.lose_line(&why);
                    }
                }
            }
            State::Pausing(_) => self.core.reactor.cluster.readable = false,
            State::Calling(receiver) => match receiver.try_recv() {
                Ok(Ok(socket)) => self.open_line(socket.into()),
                Err(TryRecvError::Empty) => self.core.reactor.cluster.readable = false,
                Ok(Err(error)) => {
                    let why = unreachable(lines, &error);
                    self.lose_line(&why);
                }
                Err(TryRecvError::Disconnected) => {
                    let why = unreachable(lines, &io::Error::other("the call was given up"));
                    self.lose_line(&why);
                }
            },
            State::Serving(_) => self.serve_line(),
        }
    }

    fn open_line(&mut self, socket: OwnedFd) {
        let Some(line) = &mut self.line else { return };
        line.link.open();
        line.number = line.number.wrapping_add(1);
        line.blocked = false;
        line.up_since = None;
        let reactor = &mut self.core.reactor;
        reactor.cluster = ClusterReports { number: line.number, ..Default::default() };
        reactor.kernel.watch_readable(&socket, Watched::Cluster(line.number));
        line.state = State::Serving(socket);
    }

    fn serve_line(&mut self) {
        let reports = &mut self.core.reactor.cluster;
        let is_readable = std::mem::take(&mut reports.readable);
        let is_deaf = std::mem::take(&mut reports.is_deaf);
        let is_writable = std::mem::take(&mut reports.writable);
        let Some(line) = &mut self.line else { return };
        line.blocked &= !is_writable;
        let State::Serving(socket) = &line.state else { return };
        if is_deaf {
            self.core.reactor.kernel.watch_readable(socket, Watched::Cluster(line.number));
        }
        if !is_readable {
            return;
        }
        let read = self.read_line();
        self.core.settle();
        let seconds = self.core.shard.now().seconds();
        if let (Some(line), Some(lines)) = (&mut self.line, &self.shared.lines)
            && line.link.is_up()
            && line.up_since.is_none()
        {
            line.up_since = Some(seconds);
            if lines.begins_up(usize::from(self.core.mailbox.core())) {
                tracing::info!("connected to Redis at {}", lines.scaling.address());
            }
        }
        if let Err(why) = read {
            self.end_serving(&why);
        }
    }

    /// The connection is of no use any more.
    fn end_serving(&mut self, why: &str) {
        let (Some(line), Some(lines)) = (&mut self.line, &self.shared.lines) else { return };
        line.link.close(&mut self.core.shard);
        let now = self.core.shard.now().seconds();
        let stood = line.up_since.map_or(0, |since| now.saturating_sub(since));
        if stood >= STOOD_SECONDS {
            line.pause_ms = PAUSE_FIRST_MS;
        }
        let address = lines.scaling.address();
        let why = format!("the connection to Redis at {address} ended: {why}");
        self.lose_line(&why);
    }

    /// There is no connection. The next attempt follows after a pause.
    fn lose_line(&mut self, why: &str) {
        let Some(line) = &mut self.line else { return };
        if !matches!(line.state, State::Serving(_)) {
            line.link.note_unreachable();
        }
        // Between half of it and all.
        let jitter = self.core.http.random() % (line.pause_ms / 2 + 1);
        let again = Moment(self.clock.now().0 + line.pause_ms / 2 + jitter);
        line.pause_ms = (line.pause_ms * 2).min(PAUSE_MAX_MS);
        if let State::Serving(socket) = std::mem::replace(&mut line.state, State::Pausing(again)) {
            let reactor = &mut self.core.reactor;
            reactor.kernel.unwatch(&socket, Watched::Cluster(line.number), line.blocked);
            reactor.kernel.submit();
            // What was reported of this socket is of no use to anybody, and a report that waits keeps the core awake.
            line.number = line.number.wrapping_add(1);
            reactor.cluster = ClusterReports { number: line.number, ..Default::default() };
        }
        self.core.settle();
        let worker = usize::from(self.core.mailbox.core());
        let is_first = self.shared.lines.as_ref().is_some_and(|lines| lines.begins_lost(worker));
        if is_first && !self.shared.phase.is_stopped() {
            tracing::warn!("{why}. Clients of this node still reach each other; retrying.");
        }
    }

    /// Reads what is there, within bounds: more than that waits for the next tick.
    fn read_line(&mut self) -> Result<(), String> {
        let Self { core, line, .. } = self;
        let Some(line) = line else { return Ok(()) };
        let Line { state, link, buffer, .. } = line;
        let State::Serving(socket) = state else { return Ok(()) };
        for _ in 0..CHUNKS_PER_TURN {
            match rustix::net::recv(&*socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err("it has closed the connection".to_owned()),
                Ok((count, _)) => {
                    // What was answered here comes before what others say since.
                    core.catch_up();
                    let bytes = buffer.get(..count).unwrap_or_default();
                    if let Err(lost) = link.receive(bytes, &mut core.shard) {
                        return Err(lost.to_string());
                    }
                    for (from, number, question) in link.take_questions() {
                        core.begin_node_question(from, number, question);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(reason(&error.into())),
            }
        }
        core.reactor.cluster.readable = true;
        Ok(())
    }

    /// Carries out what this tick wants of the cluster. Part of the tick.
    pub(super) fn carry_out_line(&mut self) {
        let (Some(line), Some(lines)) = (&mut self.line, &self.shared.lines) else { return };
        let core = &mut self.core;
        let now = core.shard.now().seconds();
        let worker = usize::from(core.mailbox.core());
        let mut result = Ok(());
        if line.beat_seconds != now {
            line.beat_seconds = now;
            lines.up[worker].store(line.link.is_up(), Ordering::Relaxed);
            result = line.link.advance(time::unix_seconds(), lines.speaks(worker), &mut core.shard);
        }
        let result = result.and_then(|()| line.link.carry_out(&mut core.shard));
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
        if let Err(lost) = result
            && matches!(line.state, State::Serving(_))
        {
            self.end_serving(&lost.to_string());
        }
    }

    /// Sends what the tick has left for Redis.
    pub(super) fn write_line(&mut self) {
        let Some(line) = &mut self.line else { return };
        if line.write()
            && let State::Serving(socket) = &line.state
        {
            self.core.reactor.kernel.watch_writable(socket, Watched::Cluster(line.number));
        }
    }

    /// Says the last words and waits until Redis has them.
    pub(super) fn end_line(&mut self) {
        let (Some(line), Some(lines)) = (&mut self.line, &self.shared.lines) else { return };
        if lines.speaks(usize::from(self.core.mailbox.core())) {
            line.link.send_bye();
        }
        let start = self.clock.now();
        let mut shut = false;
        while self.clock.now().0.saturating_sub(start.0) < END_MS {
            line.blocked = false;
            line.write();
            let State::Serving(socket) = &line.state else { break };
            let all_sent = line.link.output().is_empty();
            if all_sent && !std::mem::replace(&mut shut, true) {
                // It may be at its end already.
                let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
            }
            let wants = if all_sent { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            let step = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            let _ = poll(&mut [PollFd::new(socket, wants)], Some(&step));
            match rustix::net::recv(socket, &mut line.buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => break,
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => break,
            }
        }
        lines.ended.fetch_add(1, Ordering::AcqRel);
    }
}

fn unreachable(lines: &Lines, error: &io::Error) -> String {
    format!("cannot reach Redis at {}: {}", lines.scaling.address(), reason(error))
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

/// Makes a connection. Blocks.
fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::other(format!("{host} has no address"));
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
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

#[cfg(test)]
mod tests;
