//! The kernel over epoll, where io_uring is forbidden or too old.
//!
//! Owns two epoll instances, and the reports for the next `reap`. Does not read the doorbell, because each ring is an
//! edge. System calls: epoll_create1 (Linux 2.6.27), epoll_ctl (2.6), epoll_pwait (2.6.19), eventfd2 (2.6.27), and
//! those of `mod.rs`. The oldest kernel that is supported is Linux 4.18, which is what the distributions that need it
//! have.
//!
//! Limits: `limits::EPOLL_EVENTS_MAX` events of one call; `early_events` has the failed watches of one tick, two for
//! each descriptor at most, and the reports of one call. Cost: one epoll_pwait for a park, one epoll_ctl for a socket
//! that is watched or unwatched, one system call for each send.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use super::{OWN_KINDS, PARK_MS_MAX, failed, pack, pack_parts, unpack};
use crate::limits;
use crate::mailbox::Doorbell;
use crate::tick::kernel::{Accepted, Kernel, KernelEvent, Received, Send, Sent, Token, Watched};
use crate::tls::TlsChannel;
use crate::worker::time::Clock;

/// How long `park` waits where only failed watches are to be reported.
const FAILED_PAUSE_MS: u64 = 1;
/// The kind of the watch of `main_epoll` on `writable_epoll`: it is no report for the worker.
const WRITABLE: u64 = OWN_KINDS;

/// Two instances. `main_epoll` has each socket, listener and the doorbell once, edge-triggered, so that a report costs
/// one call and nothing has to be removed. `writable_epoll` has the sockets that wait for room, each for one report
/// (EPOLLONESHOT), and is itself watched by `main_epoll`: an edge-triggered watch for both directions would report room
/// with every arrival of data. A socket that has waited for room stays in `writable_epoll`, disarmed, until it is
/// closed.
///
/// `unwatch` removes a socket explicitly: one that was passed to another process stays open there, and its watch would
/// go on reporting here.
pub struct Epoll {
    main_epoll: OwnedFd,
    writable_epoll: OwnedFd,
    /// Filled by `fetch`, and only kept so that no call allocates.
    ready: Vec<epoll::Event>,
    /// Reports for the next `reap`: of the last `wait`, and of watches that failed since.
    early_events: Vec<KernelEvent>,
    clock: Clock,
}

impl Epoll {
    /// # Errors
    /// When there is no descriptor or no memory left.
    pub fn new(clock: Clock) -> io::Result<Self> {
        let main = epoll::create(CreateFlags::CLOEXEC)?;
        let writable = epoll::create(CreateFlags::CLOEXEC)?;
        let data = EventData::new_u64(pack_parts(WRITABLE, 0, 0));
        epoll::add(&main, &writable, data, EventFlags::IN)?;
        let ready = Vec::with_capacity(limits::EPOLL_EVENTS_MAX);
        Ok(Self {
            main_epoll: main,
            writable_epoll: writable,
            ready,
            early_events: Vec::new(),
            clock,
        })
    }

    fn watch_edges(&mut self, descriptor: BorrowedFd<'_>, token: Token) {
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        self.early_events.extend(watch(&self.main_epoll, descriptor, token, flags));
    }

    fn wait(&mut self, timeout: Option<&Timespec>) {
        fetch(&self.main_epoll, &mut self.ready, timeout);
        let mut has_writable = false;
        for event in &self.ready {
            match event_of(event) {
                Some(report) => self.early_events.push(report),
                None => has_writable = true,
            }
        }
        if has_writable {
            fetch(&self.writable_epoll, &mut self.ready, Some(&Timespec::default()));
            self.early_events.extend(self.ready.iter().filter_map(event_of));
        }
    }
}

/// Adds a watch, or arms the one that the descriptor has. A report if the kernel cannot: ENOMEM, or ENOSPC over
/// `fs.epoll.max_user_watches`.
fn watch(
    epoll: &OwnedFd,
    descriptor: BorrowedFd<'_>,
    token: Token,
    flags: EventFlags,
) -> Option<KernelEvent> {
    let data = EventData::new_u64(pack(token));
    let watched = match epoll::add(epoll, descriptor, data, flags) {
        Err(Errno::EXIST) => epoll::modify(epoll, descriptor, data, flags),
        added => added,
    };
    watched.err().map(|_| failed(token))
}

/// A call that a signal interrupts returns no events: `park` may return early.
fn fetch(epoll: &OwnedFd, ready: &mut Vec<epoll::Event>, timeout: Option<&Timespec>) {
    ready.clear();
    // An interrupted wait is repeated by the caller.
    epoll::wait(epoll, rustix::buffer::spare_capacity(ready), timeout).ok();
}

fn event_of(event: &epoll::Event) -> Option<KernelEvent> {
    let (data, flags) = (event.data.u64(), event.flags);
    let token = unpack(data)?;
    let end = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
    Some(KernelEvent {
        token,
        is_armed: !matches!(token, Token::Writable(_)),
        has_end: end,
        has_failed: false,
    })
}

impl Kernel for Epoll {
    type Socket = OwnedFd;
    type Listener = OwnedFd;
    type Channel = TlsChannel;

    fn watch_listener(&mut self, listener: &OwnedFd, index: u32) {
        self.watch_edges(listener.as_fd(), Token::Readable(Watched::Listener(index)));
    }

    fn unwatch_listener(&mut self, listener: &OwnedFd, index: u32) {
        self.unwatch(listener, Watched::Listener(index), false);
    }

    fn accept(&mut self, listener: &OwnedFd) -> Accepted<OwnedFd> {
        super::accept(listener)
    }

    fn watch_readable(&mut self, socket: &OwnedFd, watched: Watched) {
        self.watch_edges(socket.as_fd(), Token::Readable(watched));
    }

    fn watch_writable(&mut self, socket: &OwnedFd, watched: Watched) {
        let flags = EventFlags::OUT | EventFlags::ONESHOT;
        let token = Token::Writable(watched);
        self.early_events.extend(watch(&self.writable_epoll, socket.as_fd(), token, flags));
    }

    fn unwatch(&mut self, socket: &OwnedFd, _watched: Watched, writable_too: bool) {
        // Fails with ENOENT where the watch could not be made.
        epoll::delete(&self.main_epoll, socket).ok();
        if writable_too {
            // As above.
            epoll::delete(&self.writable_epoll, socket).ok();
        }
    }

    fn watch_doorbell(&mut self, doorbell: &Doorbell) {
        self.watch_edges(doorbell.as_event_fd(), Token::Doorbell);
    }

    /// Nothing waits here: each request was carried out in its own system call.
    fn submit(&mut self) {}

    fn park(&mut self, timeout_ms: Option<u64>) {
        let timeout_ms = match &self.early_events[..] {
            [] => timeout_ms,
            // A caller that retries at once would use all of the processor, because the next try fails as well.
            reports if reports.iter().all(|report| report.has_failed) => {
                timeout_ms.map_or(Some(FAILED_PAUSE_MS), |time| Some(time.min(FAILED_PAUSE_MS)))
            }
            _ => Some(0),
        };
        let timeout = timeout_ms.map(|milliseconds| {
            let milliseconds = milliseconds.min(PARK_MS_MAX);
            let part = |number: u64| i64::try_from(number).unwrap_or_default();
            Timespec {
                tv_sec: part(milliseconds / 1_000),
                tv_nsec: part(milliseconds % 1_000 * 1_000_000),
            }
        });
        self.wait(timeout.as_ref());
    }

    fn reap(&mut self, events: &mut Vec<KernelEvent>) {
        events.append(&mut self.early_events);
    }

    fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = Send<'a, OwnedFd>>,
        results: &mut Vec<Sent>,
    ) {
        results.clear();
        results.extend(sends.map(|send| super::send(&send)));
    }

    fn receive(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Received {
        super::receive(socket, buffer)
    }

    fn shut_down(&mut self, socket: &OwnedFd) -> bool {
        super::shut_down(socket)
    }

    fn stamp(&self) -> u64 {
        self.clock.stamp()
    }
}

#[cfg(test)]
mod tests;
