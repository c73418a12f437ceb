//! The connections of the admin listener that are open, at most `CONNECTIONS_MAX`.
//!
//! A probe must be answered, or an orchestrator restarts the server. So if all slots are in use, a new connection takes
//! the slot of the one that has waited longest for its peer: for a complete request, or for the end after the answer.
//! The new one is refused only if the server is working on an answer for every open connection. A viewer of the event
//! log gives its slot back, because viewers have a limit of their own (`viewers.rs`). Owns a handle of each socket, to
//! end it; does not read or answer a request.
//! Limit: `CONNECTIONS_MAX` connections, and as many that wait for their peer. Cost: one allocation for a connection; a
//! removal is linear in those that wait, at most `CONNECTIONS_MAX` steps.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::Write;
use std::net::Shutdown;
use std::rc::Rc;

use socket2::Socket;

use crate::http1::response::Response;

pub(super) const CONNECTIONS_MAX: usize = 32;

#[derive(Debug, Default)]
pub(super) struct AdminSlots {
    used_count: Cell<usize>,
    /// Connections that wait for their peer, the one that has waited longest first.
    waiting: RefCell<VecDeque<Rc<SlotEntry>>>,
}

#[derive(Debug)]
struct SlotEntry {
    socket: Socket,
    has_slot: Cell<bool>,
    is_answered: Cell<bool>,
}

/// An accepted connection. Dropped, it gives its slot back.
#[derive(Debug)]
pub(super) struct AdminConnection {
    slots: Rc<AdminSlots>,
    entry: Rc<SlotEntry>,
}

/// Answers one connection too many with 503. The answer is lost if the kernel has no room for it at once.
pub(super) fn refuse(socket: &Socket, text: &str) {
    // If this fails, the write does not block either: the answer is short, and nothing else was written.
    socket.set_nonblocking(true).ok();
    let mut answer = Vec::new();
    Response::text(503, text).write(&mut answer, false, false);
    // If the peer has closed, no task waits for this.
    (&*socket).write_all(&answer).ok();
    // If the peer has closed, nothing is left to shut down.
    socket.shutdown(Shutdown::Both).ok();
}

impl AdminSlots {
    /// # Errors
    /// The socket, if no connection can be ended for it.
    pub(super) fn admit(self: &Rc<Self>, socket: Socket) -> Result<AdminConnection, Socket> {
        if self.used_count.get() >= CONNECTIONS_MAX {
            let longest = self.waiting.borrow_mut().pop_front();
            match longest {
                Some(longest) => self.end_connection(&longest),
                None => return Err(socket),
            }
        }
        self.used_count.set(self.used_count.get() + 1);
        let (has_slot, is_answered) = (Cell::new(true), Cell::new(false));
        let entry = Rc::new(SlotEntry { socket, has_slot, is_answered });
        self.waiting.borrow_mut().push_back(entry.clone());
        Ok(AdminConnection { slots: self.clone(), entry })
    }

    /// Its task ends when it reads the end of the socket.
    fn end_connection(&self, entry: &SlotEntry) {
        self.release(entry);
        if entry.is_answered.get() {
            // If the peer has closed, nothing is left to shut down.
            entry.socket.shutdown(Shutdown::Both).ok();
        } else {
            let text = format!(
                "The admin listener has {CONNECTIONS_MAX} connections, which is its limit, and this one has waited \
                 longest. Nothing was done for it. Send the request again.\n"
            );
            refuse(&entry.socket, &text);
        }
    }

    fn release(&self, entry: &SlotEntry) {
        if entry.has_slot.replace(false) {
            self.used_count.set(self.used_count.get().saturating_sub(1));
        }
    }
}

impl AdminConnection {
    pub(super) fn socket(&self) -> &Socket {
        &self.entry.socket
    }

    /// Its request is complete: it is not ended before the answer is sent. `false`: it was ended before. Then the
    /// request must not be carried out, because the answer 503 says that nothing was done. What has arrived stays
    /// readable after the end.
    pub(super) fn begin_answer(&self) -> bool {
        self.slots.waiting.borrow_mut().retain(|entry| !Rc::ptr_eq(entry, &self.entry));
        self.entry.has_slot.get()
    }

    pub(super) fn set_answered(&self) {
        self.entry.is_answered.set(true);
        if self.entry.has_slot.get() {
            self.slots.waiting.borrow_mut().push_back(self.entry.clone());
        }
    }

    /// The connection becomes a viewer, of which `viewers.rs` limits the number.
    pub(super) fn leave_slot(&self) {
        self.slots.release(&self.entry);
    }
}

impl Drop for AdminConnection {
    fn drop(&mut self) {
        self.begin_answer();
        self.slots.release(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn pair() -> (Socket, Socket) {
        Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap()
    }

    #[test]
    fn a_full_listener_ends_the_connection_that_has_waited_longest_for_its_request() {
        let slots = Rc::new(AdminSlots::default());
        let (mut peers, mut open) = (Vec::new(), Vec::new());
        for _ in 0..CONNECTIONS_MAX {
            let (socket, peer) = pair();
            open.push(slots.admit(socket).unwrap());
            peers.push(peer);
        }
        assert!(open[0].begin_answer());
        let read = |peer: &mut Socket| {
            let mut text = String::new();
            peer.read_to_string(&mut text).map(|_| text)
        };
        let newest = slots.admit(pair().0).unwrap();
        assert!(read(&mut peers[1]).unwrap().starts_with("HTTP/1.1 503"), "the longest");
        assert!(!open[1].begin_answer(), "it was answered already");
        open[0].set_answered();
        for connection in &open[2..] {
            assert!(connection.begin_answer());
        }
        let next = slots.admit(pair().0).unwrap();
        assert!(next.begin_answer());
        let last = slots.admit(pair().0).unwrap();
        assert_eq!(read(&mut peers[0]).unwrap(), "", "its answer was sent");
        assert!(last.begin_answer());
        assert!(slots.admit(pair().0).is_err(), "all others are owed an answer");
        last.leave_slot();
        drop(slots.admit(pair().0).unwrap());
        drop((open, newest, next, last));
        assert_eq!((slots.used_count.get(), slots.waiting.borrow().len()), (0, 0));
    }
}
