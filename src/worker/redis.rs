//! The connection of a worker to Redis: made, read, written and made again. The rules are `cluster::ClusterSession`'s.
//!
//! Owns the socket; knows nothing of what the bytes mean. Never makes local clients wait for Redis, except those that
//! cause more traffic than it reads. Its socket is watched like a client's; it is read and written once a tick, before
//! the clients. Names are resolved and connections made by a thread of their own, as the host's resolver blocks. Pauses
//! between two attempts grow to `PAUSE_MAX_MS`, and differ between workers and nodes, so that not all of them reach a
//! Redis that is back at the same moment.
//!
//! Limits: one connection, and one thread that makes it; `CHUNKS_PER_TICK` reads a tick; `ClusterSession` bounds what
//! waits for it. Cost: a tick with traffic has at most 16 reads of 64 KiB and usually one send, each a system call; a
//! tick without traffic has none.

mod connections;

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::{HostKernel, Shared, Worker, time};
use crate::app::Apps;
use crate::clock::Moment;
use crate::cluster::{ClusterSession, Login};
use crate::config::Scaling;
use crate::mailbox::{Doorbell, Mailbox};
use crate::shard::{Mail, SessionId, Shard};
use crate::tick::ClusterReports;
use crate::tick::kernel::Watched;
pub(crate) use connections::RedisConnections;

const PAUSE_FIRST_MS: u64 = 50;
const PAUSE_MAX_MS: u64 = 2_000;
/// How often a worker asks for the result of the connecting thread, beside that thread's ring.
const CONNECTING_POLL_MS: u64 = 20;
/// After a connection that lasted this long, the pause is `PAUSE_FIRST_MS` again: this was no Redis that accepts
/// connections and ends them.
const STABLE_SECONDS: u32 = 10;
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks read in one tick: what Redis sends must not keep the worker from its clients.
const CHUNKS_PER_TICK: usize = 16;
/// How long the end of the process waits for Redis to read the last messages, `NodeEnds` among them.
const END_MS: u64 = 500;

enum RedisState {
    /// Until the next attempt is due.
    Pausing(Moment),
    /// A thread connects, and sends the result.
    Connecting(Receiver<io::Result<TcpStream>>),
    Serving(OwnedFd),
}

pub(super) struct RedisConnection {
    session: ClusterSession,
    state: RedisState,
    /// Of all workers; the connecting thread rings the one of this worker.
    doorbells: Arc<[Doorbell]>,
    /// Names the socket in reports of the kernel. Another one for each connection, so that late reports of an old
    /// socket are recognized.
    socket_number: u32,
    /// The socket's buffer is full, and the kernel is to report when it has room.
    is_blocked: bool,
    /// `Moment::seconds` since which the session is up. `None`: Redis has not accepted it yet.
    up_since: Option<u32>,
    pause_ms: u64,
    /// Of the last `ClusterSession::advance`.
    last_second: u32,
    /// `ClusterSession::dropped_events` when it was logged last.
    dropped_events_logged: u64,
    /// It is counted in `RedisConnections::congested_workers`.
    is_congested: bool,
    buffer: Box<[u8]>,
}

impl RedisConnection {
    pub(super) fn set_apps(&mut self, apps: Arc<Apps>) {
        self.session.set_apps(apps);
    }

    pub(super) fn new(worker: &Shared, apps: Arc<Apps>, mailbox: &Mailbox<Mail>) -> Option<Self> {
        let connections = worker.redis.as_ref()?;
        let Scaling { prefix, username, password, .. } = &connections.scaling;
        let login = Login { username: username.clone(), password: password.clone() };
        let own = SessionId { node: connections.node, core: mailbox.core() };
        Some(Self {
            session: ClusterSession::new(own, prefix, apps, login, time::unix_seconds()),
            state: RedisState::Pausing(Moment::default()),
            doorbells: mailbox.doorbells(),
            socket_number: 0,
            is_blocked: false,
            up_since: None,
            pause_ms: PAUSE_FIRST_MS,
            last_second: 0,
            dropped_events_logged: 0,
            is_congested: false,
            buffer: vec![0; CHUNK_BYTES].into(),
        })
    }

    /// Milliseconds until a tick is needed although no report causes one. `None`: none is.
    pub(super) fn wait_ms(&self, now: Moment) -> Option<u64> {
        match self.state {
            RedisState::Pausing(at) => Some(at.0.saturating_sub(now.0)),
            // The connecting thread rings only a worker that is asleep, and this worker may be awake at that moment.
            RedisState::Connecting(_) => Some(CONNECTING_POLL_MS),
            RedisState::Serving(_) => None,
        }
    }

    /// Clients of all workers wait while one worker has too much for Redis, because the home of their channels may be
    /// on that one.
    fn note_congestion(&mut self, connections: &RedisConnections, shard: &Shard) {
        let is_congested = self.session.is_congested(shard);
        match (std::mem::replace(&mut self.is_congested, is_congested), is_congested) {
            (false, true) => connections.congested_workers.fetch_add(1, Ordering::Relaxed),
            (true, false) => connections.congested_workers.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }

    /// Sends what the session has. Returns whether the socket's buffer became full. An error is left to the next read,
    /// which reports it, too.
    fn write(&mut self) -> bool {
        let RedisState::Serving(socket) = &self.state else { return false };
        if self.is_blocked {
            return false;
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        while !self.session.output().is_empty() {
            match rustix::net::send(socket, self.session.output(), flags) {
                Ok(count) => self.session.note_sent(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.is_blocked = true;
                    return true;
                }
                Err(_) => return false,
            }
        }
        false
    }

    /// Starts a thread that connects, and then rings this worker. It ends by itself: after the resolver's time and
    /// `timeout_seconds` for each address.
    fn start_connecting(
        &mut self,
        scaling: &Scaling,
        core: usize,
    ) -> io::Result<Receiver<io::Result<TcpStream>>> {
        let (sender, receiver) = mpsc::channel();
        let (host, port) = (scaling.host.clone(), scaling.port);
        let timeout = Duration::from_secs(scaling.timeout_seconds.into());
        let doorbells = self.doorbells.clone();
        let connect = move || {
            // If that fails, no worker waits for the result.
            sender.send(connect(&host, port, timeout)).ok();
            if let Some(doorbell) = doorbells.get(core) {
                doorbell.ring();
            }
        };
        std::thread::Builder::new().name("redis-call".to_owned()).spawn(connect)?;
        Ok(receiver)
    }
}

impl<K: HostKernel> Worker<K> {
    /// Part of the tick: reads what Redis has sent, or begins a connection that is due.
    pub(super) fn read_redis(&mut self) {
        let (Some(connection), Some(connections)) = (&mut self.redis, &self.shared.redis) else {
            return;
        };
        let now = self.clock.now();
        match &connection.state {
            RedisState::Pausing(at) if *at <= now => {
                let core = usize::from(self.core.mailbox.core());
                match connection.start_connecting(&connections.scaling, core) {
                    Ok(receiver) => connection.state = RedisState::Connecting(receiver),
                    Err(error) => {
                        let why = on_unreachable(connections, &error);
                        self.on_connection_lost(&why);
                    }
                }
            }
            RedisState::Pausing(_) => self.core.reactor.cluster.readable = false,
            RedisState::Connecting(receiver) => match receiver.try_recv() {
                Ok(Ok(socket)) => self.on_connected(socket.into()),
                Err(TryRecvError::Empty) => self.core.reactor.cluster.readable = false,
                Ok(Err(error)) => {
                    let why = on_unreachable(connections, &error);
                    self.on_connection_lost(&why);
                }
                Err(TryRecvError::Disconnected) => {
                    let why =
                        on_unreachable(connections, &io::Error::other("the call was given up"));
                    self.on_connection_lost(&why);
                }
            },
            RedisState::Serving(_) => self.read_if_ready(),
        }
    }

    fn on_connected(&mut self, socket: OwnedFd) {
        let Some(connection) = &mut self.redis else { return };
        connection.session.open();
        connection.socket_number = connection.socket_number.wrapping_add(1);
        connection.is_blocked = false;
        connection.up_since = None;
        let reactor = &mut self.core.reactor;
        reactor.cluster = ClusterReports { number: connection.socket_number, ..Default::default() };
        reactor.kernel.watch_readable(&socket, Watched::Cluster(connection.socket_number));
        connection.state = RedisState::Serving(socket);
    }

    fn read_if_ready(&mut self) {
        let reports = &mut self.core.reactor.cluster;
        let is_readable = std::mem::take(&mut reports.readable);
        let watch_ended = std::mem::take(&mut reports.watch_ended);
        let is_writable = std::mem::take(&mut reports.writable);
        let Some(connection) = &mut self.redis else { return };
        connection.is_blocked &= !is_writable;
        let RedisState::Serving(socket) = &connection.state else { return };
        if watch_ended {
            self.core
                .reactor
                .kernel
                .watch_readable(socket, Watched::Cluster(connection.socket_number));
        }
        if !is_readable {
            return;
        }
        let read = self.read_some();
        self.core.settle();
        let seconds = self.core.shard.now().seconds();
        if let (Some(connection), Some(connections)) = (&mut self.redis, &self.shared.redis)
            && connection.session.is_up()
            && connection.up_since.is_none()
        {
            connection.up_since = Some(seconds);
            if connections.note_up(usize::from(self.core.mailbox.core())) {
                tracing::info!(
                    event = "redis_connected",
                    "connected to Redis at {}",
                    connections.scaling.address()
                );
            }
        }
        if let Err(why) = read {
            self.end_serving(&why);
        }
    }

    /// Redis or the session has ended the connection.
    fn end_serving(&mut self, why: &str) {
        let (Some(connection), Some(connections)) = (&mut self.redis, &self.shared.redis) else {
            return;
        };
        connection.session.close(&mut self.core.shard);
        let now = self.core.shard.now().seconds();
        let lasted_seconds = connection.up_since.map_or(0, |since| now.saturating_sub(since));
        if lasted_seconds >= STABLE_SECONDS {
            connection.pause_ms = PAUSE_FIRST_MS;
        }
        let address = connections.scaling.address();
        let why = format!("the connection to Redis at {address} ended: {why}");
        self.on_connection_lost(&why);
    }

    /// No connection is left, or none could be made. The next attempt follows after a pause.
    fn on_connection_lost(&mut self, why: &str) {
        let Some(connection) = &mut self.redis else { return };
        if !matches!(connection.state, RedisState::Serving(_)) {
            connection.session.note_unreachable();
        }
        // Between half of the pause and all of it.
        let jitter = self.core.http.random() % (connection.pause_ms / 2 + 1);
        let again = Moment(self.clock.now().0 + connection.pause_ms / 2 + jitter);
        connection.pause_ms = (connection.pause_ms * 2).min(PAUSE_MAX_MS);
        if let RedisState::Serving(socket) =
            std::mem::replace(&mut connection.state, RedisState::Pausing(again))
        {
            let reactor = &mut self.core.reactor;
            reactor.kernel.unwatch(
                &socket,
                Watched::Cluster(connection.socket_number),
                connection.is_blocked,
            );
            reactor.kernel.submit();
            // Reports of this socket that are still to come are ignored by their number. One that waits here would keep
            // the core awake.
            connection.socket_number = connection.socket_number.wrapping_add(1);
            reactor.cluster =
                ClusterReports { number: connection.socket_number, ..Default::default() };
        }
        self.core.settle();
        let worker = usize::from(self.core.mailbox.core());
        let is_first =
            self.shared.redis.as_ref().is_some_and(|connections| connections.note_lost(worker));
        if is_first && !self.shared.phase.is_stopped() {
            tracing::warn!(
                event = "redis_lost",
                "{why}. Clients of this node still reach each other; retrying."
            );
        }
    }

    /// Reads at most `CHUNKS_PER_TICK` chunks. The rest is read in the next tick.
    fn read_some(&mut self) -> Result<(), String> {
        let Self { core, redis: connection, .. } = self;
        let Some(connection) = connection else { return Ok(()) };
        let RedisConnection { state, session, buffer, .. } = connection;
        let RedisState::Serving(socket) = state else { return Ok(()) };
        for _ in 0..CHUNKS_PER_TICK {
            if core.mailbox.is_from_home_congested() {
                // Events of other nodes become mail to other cores. While those have too much mail, further events wait
                // in the socket and in Redis.
                break;
            }
            match rustix::net::recv(&*socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err("it has closed the connection".to_owned()),
                Ok((count, _)) => {
                    // Replies received so far are processed before later messages of other nodes.
                    core.catch_up();
                    let bytes = buffer.get(..count).unwrap_or_default();
                    if let Err(lost) = session.receive(bytes, &mut core.shard) {
                        return Err(lost.to_string());
                    }
                    for (from, number, question) in session.take_questions() {
                        core.begin_node_question(from, number, question);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error_text(&error.into())),
            }
        }
        core.reactor.cluster.readable = true;
        Ok(())
    }

    /// Part of the tick: passes the effects of the tick to the session, and once a second the time.
    pub(super) fn serve_cluster(&mut self) {
        let (Some(connection), Some(connections)) = (&mut self.redis, &self.shared.redis) else {
            return;
        };
        let core = &mut self.core;
        let now = core.shard.now().seconds();
        let worker = usize::from(core.mailbox.core());
        let mut result = Ok(());
        if connection.last_second != now {
            connection.last_second = now;
            connections.is_up_by_worker[worker]
                .store(connection.session.is_up(), Ordering::Relaxed);
            result = connection.session.advance(
                time::unix_seconds(),
                connections.sends_heartbeat(worker),
                &mut core.shard,
            );
        }
        let result = result.and_then(|()| connection.session.carry_out(&mut core.shard));
        connection.note_congestion(connections, &core.shard);
        core.shard.set_cluster_congested(connections.congested_workers.load(Ordering::Relaxed) > 0);
        let metrics = core.shard.metrics();
        connection.session.note_gauges(&metrics.cluster);
        for note in connection.session.notes.drain(..) {
            self.notes.write(&note, metrics);
        }
        let dropped = connection.session.dropped_events - connection.dropped_events_logged;
        if dropped > 0 && connection.last_second.is_multiple_of(10) {
            connection.dropped_events_logged = connection.session.dropped_events;
            let text = format!(
                "{dropped} events for other nodes were dropped: Redis has been away for too long to keep them all"
            );
            self.notes.write(&text, metrics);
        }
        if let Err(lost) = result
            && matches!(connection.state, RedisState::Serving(_))
        {
            self.end_serving(&lost.to_string());
        }
    }

    /// Part of the tick. A socket whose buffer is full is watched until it has room.
    pub(super) fn write_redis(&mut self) {
        let Some(connection) = &mut self.redis else { return };
        if connection.write()
            && let RedisState::Serving(socket) = &connection.state
        {
            self.core
                .reactor
                .kernel
                .watch_writable(socket, Watched::Cluster(connection.socket_number));
        }
    }

    /// At the end of the worker: sends the final messages, and blocks until Redis has read them, for `END_MS` at most.
    pub(super) fn end_redis(&mut self) {
        let (Some(connection), Some(connections)) = (&mut self.redis, &self.shared.redis) else {
            return;
        };
        if connections.sends_heartbeat(usize::from(self.core.mailbox.core())) {
            connection.session.send_node_ends();
        }
        let start = self.clock.now();
        let mut is_shut = false;
        while self.clock.now().0.saturating_sub(start.0) < END_MS {
            connection.is_blocked = false;
            connection.write();
            let RedisState::Serving(socket) = &connection.state else { break };
            let all_sent = connection.session.output().is_empty();
            if all_sent && !std::mem::replace(&mut is_shut, true) {
                // An error means that Redis has closed the connection already.
                rustix::net::shutdown(socket, rustix::net::Shutdown::Write).ok();
            }
            let wants = if all_sent { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            let step = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            // An interrupted wait is repeated by the caller.
            poll(&mut [PollFd::new(socket, wants)], Some(&step)).ok();
            match rustix::net::recv(socket, &mut connection.buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => break,
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => break,
            }
        }
        connections.ended_workers.fetch_add(1, Ordering::AcqRel);
    }
}

fn on_unreachable(connections: &RedisConnections, error: &io::Error) -> String {
    format!("cannot reach Redis at {}: {}", connections.scaling.address(), error_text(error))
}

/// An error of the system without its number, in lower case: it continues a sentence.
fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

/// Tries all addresses of `host` in turn. Blocks, so it is called in a thread of its own.
fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::other(format!("{host} has no address"));
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => {
                // The session writes once a tick, so the kernel need not wait for more bytes (Nagle's algorithm).
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
