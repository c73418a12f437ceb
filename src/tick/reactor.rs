//! The sockets of a core: reports of the kernel, and established WebSockets with their descriptors and their reads.
//! PURE: the kernel is a parameter. `sessions` has the sockets that speak HTTP. Slots are the shard's.
//!
//! Owns one entry for each socket, and the queues of readable ones. An idle socket has nothing else: no task, timer or
//! buffer (docs/decisions/0002). Does not decode. Invariant: each connection in the shard's slab has its entry in
//! `sockets`, because `adopt` follows the shard's `open` or `import_connection` within the same call, and `sockets`
//! never shrinks.
//!
//! Limits: one entry in each table and queue for each connection (`limits::DESCRIPTORS_MAX`); one in `final_bytes` for
//! each connection with TLS that ended in this tick; reports of `limits::RING_COMPLETIONS_LARGE` completions, or
//! `limits::EPOLL_EVENTS_MAX` events, at once. Cost: an entry of 16 bytes for each socket; a report is one look-up by
//! slot, a read one system call.

mod end;
mod invariants;
mod named;
mod queued;
mod read;
mod secure;
mod sink;

use std::collections::VecDeque;

use core::net::SocketAddr;

use super::kernel::{Kernel, KernelEvent, Token, Watched};
use super::sessions::Sessions;
use super::site::Site;
use crate::admission::AddressSlot;
use crate::cause::{Cause, Detail};
use crate::clock::Moment;
use crate::limits;
use crate::shard::{ConnectionKey, Shard};
use crate::slot::Slot;
use crate::tls::RECORD_BYTES_MAX;
use crate::tls::socket::SecureChannel;
use crate::ws::reader::Partial;
use named::NamedClients;
pub(super) use queued::Queued;
use secure::SecureSockets;

/// Time between two checks of connections whose reads are paused, in milliseconds.
pub const PACED_LOOK_MS: u64 = 10;

/// One socket with the state of its reads. `descriptor` is `None` in a free slot.
struct SocketState<S> {
    descriptor: Option<S>,
    /// The tick in which it was read last, modulo 2^16. A coincidence delays a read by one tick.
    read_in_tick: u16,
    queued: Queued,
    /// The peer has sent its close frame, so the socket can be closed once ours is sent.
    peer_closed: bool,
    /// An incomplete frame or message; `None` for nearly all sockets.
    partial: Option<Box<Partial>>,
}

impl<S> Default for SocketState<S> {
    fn default() -> Self {
        Self {
            descriptor: None,
            read_in_tick: 0,
            queued: Queued::No,
            peer_closed: false,
            partial: None,
        }
    }
}

/// Bytes that a socket costs here; part of an idle connection's budget.
#[must_use]
pub const fn socket_bytes<S>() -> usize {
    size_of::<SocketState<S>>()
}

type SessionsOf<K> = Sessions<<K as Kernel>::Socket, <K as Kernel>::Channel>;

pub(super) struct Sockets<S>(Vec<SocketState<S>>);

impl<S> Sockets<S> {
    pub(super) fn descriptor(&self, slot: Slot) -> Option<&S> {
        self.0.get(slot.index())?.descriptor.as_ref()
    }
}

/// A change of the address slot of a connection, by the connection's slot. Changes are kept in order, because slots are
/// reused.
#[derive(Debug)]
pub enum AddressChange {
    Begun(Slot, AddressSlot),
    Ended(Slot),
}

/// The sockets of one worker and the kernel that watches them.
///
/// Fairness: a readable socket is queued once, even if the kernel reports it several times. It is read once a tick at
/// most, and at most `READ_BYTES_PER_TICK_MAX` bytes. The reads of all WebSockets in a tick end after
/// `READ_TIME_PER_TICK_NS`; `sessions` has as much time for those that speak HTTP. A socket with more to read waits for
/// the next tick, after all sockets that became readable since. So a client that sends little does not wait for clients
/// that send without end. At least every second tick reads one of the waiting sockets.
pub struct Reactor<K: Kernel> {
    pub kernel: K,
    sockets: Sockets<K::Socket>,
    pub(super) sessions: SessionsOf<K>,
    pub(super) listeners: Vec<ListenerState<K::Listener>>,
    /// TLS channels of established connections.
    pub(super) secure: SecureSockets<K::Channel>,
    pub(super) named: NamedClients,
    /// From which TLS channels are made; `None` without certificates.
    pub acceptor: Option<<K::Channel as SecureChannel>::Acceptor>,
    /// Sockets that are closed once these bytes were sent, as far as the kernel accepts them.
    pub(super) final_bytes: Vec<(K::Socket, Vec<u8>)>,
    /// No connection is accepted before this moment, because the system has refused one.
    pub(super) accept_resumes_at: Moment,
    /// The listener from which the next tick accepts first.
    pub(super) first_listener: usize,
    events: Vec<KernelEvent>,
    /// Readable sockets of this tick, in the order in which they became so. Each connection is in `ready` or in
    /// `unread` at most once, so both are bounded by the number of connections.
    ready: VecDeque<ConnectionKey>,
    /// Readable sockets that were read in this tick already: they wait for the next one.
    unread: VecDeque<ConnectionKey>,
    /// The previous tick had no time for any of `unread`, so this one reads one of them first.
    had_no_read_time: bool,
    /// Readable sockets whose reads are paused: see `Shard::must_wait`. They count as queued, so none is here twice.
    paused_reads: Vec<ConnectionKey>,
    next_paused_check: Moment,
    /// The number of this tick, modulo 2^16.
    pub(super) tick: u16,
    /// Closing connections and their deadlines, in order of deadline.
    closing_deadlines: VecDeque<(Moment, ConnectionKey)>,
    /// Sockets to be closed at the end of the tick, once the kernel has ended their watches.
    pub(super) closed_sockets: Vec<K::Socket>,
    /// Received bytes, from `RECORD_BYTES_MAX` on. The room before is for the beginning of a TLS record.
    pub(super) scratch: Box<[u8]>,
    /// Reports of the Redis connection since the worker looked last.
    pub cluster: ClusterReports,
    /// The watch of the doorbell has ended, as any watch may after a burst: the core arms it again.
    pub(super) doorbell_watch_ended: bool,
    /// Changes of address slots since the worker took the list last. The worker counts connections by address.
    pub accounts: Vec<AddressChange>,
}

pub(super) struct ListenerState<L> {
    pub(super) listener: L,
    /// Connections may be waiting to be accepted.
    pub(super) is_ready: bool,
    /// Its connections begin with a TLS handshake.
    pub(super) is_secure: bool,
}

/// What the kernel has reported of the Redis connection. The worker reads and clears it.
#[derive(Debug, Default)]
pub struct ClusterReports {
    pub readable: bool,
    pub writable: bool,
    /// The watch for reading has ended, so the worker must arm it again.
    pub watch_ended: bool,
    /// The number of the connection that is watched now; reports of others are old.
    pub number: u32,
}

impl<K: Kernel> Reactor<K> {
    pub(super) fn new(kernel: K, sockets_reserved: usize) -> Self {
        Self {
            kernel,
            sockets: Sockets(Vec::with_capacity(sockets_reserved)),
            sessions: Sessions::default(),
            listeners: Vec::new(),
            secure: SecureSockets::default(),
            named: NamedClients::default(),
            acceptor: None,
            final_bytes: Vec::new(),
            accept_resumes_at: Moment::default(),
            first_listener: 0,
            events: Vec::new(),
            ready: VecDeque::new(),
            unread: VecDeque::new(),
            had_no_read_time: false,
            paused_reads: Vec::new(),
            next_paused_check: Moment::default(),
            tick: 0,
            closing_deadlines: VecDeque::new(),
            closed_sockets: Vec::new(),
            scratch: vec![0; RECORD_BYTES_MAX + limits::READ_BYTES_PER_TICK_MAX].into(),
            cluster: ClusterReports::default(),
            doorbell_watch_ended: false,
            accounts: Vec::new(),
        }
    }

    /// Adds the socket of a new connection after its handshake. `leftover`: the bytes after the request.
    pub fn adopt(
        &mut self,
        shard: &mut Shard,
        key: ConnectionKey,
        descriptor: K::Socket,
        leftover: &mut [u8],
    ) {
        let slot = key.slot.index();
        if self.sockets.0.len() <= slot {
            self.sockets.0.resize_with(slot + 1, SocketState::default);
        }
        self.kernel.watch_readable(&descriptor, Watched::Connection(key));
        debug_assert!(self.sockets.0[slot].descriptor.is_none(), "a slot has one socket");
        debug_assert!(shard.get(key).is_some(), "the connection comes before its socket");
        debug_assert!(self.sockets.0[slot].partial.is_none(), "no input of the one before is left");
        // It may have been read in this tick, as a session.
        let read_in_tick = self.tick;
        self.sockets.0[slot] =
            SocketState { descriptor: Some(descriptor), read_in_tick, ..SocketState::default() };
        if !leftover.is_empty() {
            self.decode_input(shard, key, leftover);
        }
    }

    /// The parts of a connection that a transfer moves: its socket, whether its peer has closed, and its incomplete
    /// input.
    pub(super) fn export_socket(&self, slot: Slot) -> Option<(&K::Socket, bool, Vec<u8>)> {
        let socket = self.sockets.0.get(slot.index())?;
        let partial = socket.partial.as_ref().map_or_else(Vec::new, |partial| partial.to_wire());
        Some((socket.descriptor.as_ref()?, socket.peer_closed, partial))
    }

    /// The socket of a connection, or `None` in a free slot.
    #[must_use]
    pub fn descriptor(&self, slot: Slot) -> Option<&K::Socket> {
        self.sockets.descriptor(slot)
    }

    /// The client that a header of the PROXY protocol has named; `None` if there was no such header.
    #[must_use]
    pub fn named_client(&self, slot: Slot) -> Option<SocketAddr> {
        self.named.get(slot)
    }

    #[must_use]
    pub fn is_secure(&self, slot: Slot) -> bool {
        self.secure.is_secure(slot)
    }

    /// Memory of a slot's incomplete input, and of the bytes that wait in its TLS channel.
    pub(super) fn input_bytes(&self, slot: Slot) -> usize {
        let partial = self.sockets.0.get(slot.index()).and_then(|socket| socket.partial.as_ref());
        partial.map_or(0, |partial| partial.heap_bytes()) + self.secure.heap_bytes(slot)
    }

    pub(super) fn note_peer_closed(&mut self, key: ConnectionKey, closed: bool) {
        self.sockets.0[key.slot.index()].peer_closed |= closed;
    }

    /// For the flush: the kernel, and the descriptors to send to.
    pub(super) fn split(&mut self) -> (&mut K, &Sockets<K::Socket>, &SessionsOf<K>) {
        (&mut self.kernel, &self.sockets, &self.sessions)
    }

    /// Asks for a report when the kernel accepts bytes for this connection again.
    pub(super) fn wait_writable(&mut self, key: ConnectionKey) {
        if let Some(socket) = self.sockets.descriptor(key.slot) {
            self.kernel.watch_writable(socket, Watched::Connection(key));
        }
    }

    /// Processes everything that is ready. `paused`: nothing is read. `congested`: the mailboxes are full, so
    /// WebSockets are not read, because their messages would cause more mail.
    pub(super) fn run_events(&mut self, site: &mut Site<'_>, paused: bool, congested: bool) {
        self.tick = self.tick.wrapping_add(1);
        let waiting = self.unread.len();
        self.check_paused_reads(site.shard);
        self.dispatch_reports(site);
        if paused {
            return;
        }
        if !congested {
            self.read_connections(site.shard, waiting);
        }
        self.read_sessions(site);
        self.accept(site);
    }

    fn dispatch_reports(&mut self, site: &mut Site<'_>) {
        self.kernel.reap(&mut self.events);
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.on_event(site, event);
        }
        debug_assert!(self.events.is_empty(), "a report causes no other in the same tick");
        self.events = events;
    }

    fn on_event(&mut self, site: &mut Site<'_>, event: KernelEvent) {
        let until = if event.has_end { Queued::ToTheEnd } else { Queued::Once };
        match event.token {
            Token::Readable(watched) | Token::Writable(watched) if event.has_failed => {
                self.note_unwatchable(site, watched);
            }
            Token::Readable(Watched::Connection(key)) => {
                if site.shard.get(key).is_none() {
                    return;
                }
                debug_assert!(
                    self.sockets.descriptor(key.slot).is_some(),
                    "a connection that is there has a socket"
                );
                if !event.is_armed {
                    // A watch ends at errors and when the kernel has no room; the read shows which it was.
                    if let Some(socket) = &self.sockets.0[key.slot.index()].descriptor {
                        self.kernel.watch_readable(socket, Watched::Connection(key));
                    }
                }
                self.queue(key, until);
            }
            Token::Readable(Watched::Session(key)) => {
                self.note_readable_session(key, event.is_armed, until);
            }
            Token::Readable(Watched::Listener(index)) => self.note_listener(index, event.is_armed),
            Token::Readable(Watched::Cluster(number)) if number == self.cluster.number => {
                self.cluster.readable = true;
                self.cluster.watch_ended |= !event.is_armed;
            }
            Token::Writable(Watched::Connection(key)) if site.shard.get(key).is_some() => {
                site.shard.unblock(key.slot);
                self.wake_secure(site.shard, key);
            }
            Token::Writable(Watched::Session(key)) => self.note_writable_session(key),
            Token::Writable(Watched::Cluster(number)) if number == self.cluster.number => {
                self.cluster.writable = true;
            }
            // The connection has ended, and its slot may have another owner.
            Token::Readable(_) | Token::Writable(_) => {}
            Token::Lost => self.drop_all(site),
            // The worker drains its mailboxes in every tick; the core only has to be woken.
            Token::Doorbell => self.doorbell_watch_ended |= !event.is_armed,
        }
    }

    /// The kernel has no memory to watch a socket. Without a watch the socket would never be reported, and retrying
    /// would only use the processor. So the socket is closed, and its client reconnects when there is memory.
    fn note_unwatchable(&mut self, site: &mut Site<'_>, watched: Watched) {
        match watched {
            Watched::Connection(key) if site.shard.get(key).is_some() => {
                let why = Detail::Own("it has no memory to watch the socket");
                site.shard.note_refusal(key.slot, Cause::Kernel, &[why]);
                self.drop_socket(site.shard, key);
            }
            Watched::Session(key) => self.note_unwatchable_session(site, key),
            // Connections may be waiting, so the next tick tries again.
            Watched::Listener(index) => self.note_listener(index, false),
            // The connection is lost, as the read will show.
            Watched::Cluster(number) if number == self.cluster.number => {
                self.cluster.readable = true;
                self.cluster.watch_ended = true;
            }
            Watched::Connection(_) | Watched::Cluster(_) => {}
        }
    }

    /// Submits the remaining requests, and closes sockets whose watches have ended.
    pub(super) fn finish_tick(&mut self) {
        self.send_final_bytes();
        self.kernel.submit();
        self.closed_sockets.clear();
        debug_assert!(self.final_bytes.is_empty(), "no socket waits for its last bytes");
    }

    /// Ends the watches of the listeners and returns them. A listener that is shared with another process would wake
    /// this core for each of the other's connections.
    pub fn stop_listening(&mut self) -> Vec<K::Listener> {
        for (index, state) in (0..).zip(&self.listeners) {
            self.kernel.unwatch_listener(&state.listener, index);
        }
        self.kernel.submit();
        self.listeners.drain(..).map(|state| state.listener).collect()
    }

    /// The number of slots that are or were in use: they are the lowest ones.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.sockets.0.len()
    }
}
