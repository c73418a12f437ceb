//! The HTTP sessions of a worker that wait for bytes. Two things end their wait early: the process moves its
//! connections to another one, or there are more sessions than a worker may have.
//!
//! While the process moves, sessions stand aside: between two requests, or with a part of one, they can go on in
//! another process, or here if it comes to nothing. For one session too many, the one that has waited longest ends.

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use slab::Slab;

use super::Worker;

/// A session that stands aside: all that it is.
pub(super) struct Aside {
    /// A second descriptor of its socket.
    pub(super) socket: OwnedFd,
    pub(super) peer: IpAddr,
    /// It has answered a request.
    pub(super) served: bool,
    /// Received, and not a whole request.
    pub(super) input: Vec<u8>,
}

/// One worker's.
#[derive(Default)]
pub(super) struct Lobby {
    /// Sessions are to stand aside.
    asked: Cell<bool>,
    sessions: Cell<usize>,
    /// Sessions that wait for bytes, or aside.
    waiting: RefCell<Slab<Waiting>>,
    /// Sessions that wait for bytes, by their entry and its number, those that have waited longest first. An entry
    /// whose number is another one is stale.
    by_age: RefCell<VecDeque<(usize, u64)>>,
    /// The same for those that have sent nothing yet: they make room before others.
    silent: RefCell<VecDeque<(usize, u64)>>,
    number: Cell<u64>,
    aside: RefCell<Slab<Aside>>,
}

/// Of the sessions that have waited longest, those that are searched for one of an address: a bound for the work that
/// an accepted socket can cause.
const SEARCHED_MAX: usize = 64;

/// Who begins to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) peer: IpAddr,
    /// The session can stand aside.
    pub(super) may_move: bool,
    /// It has sent nothing yet.
    pub(super) is_silent: bool,
}

/// A session that waits.
#[derive(Default)]
struct Waiting {
    waker: Option<Waker>,
    number: u64,
    peer: Option<IpAddr>,
    /// It is to end.
    ends: bool,
}

impl Waiting {
    fn end(&mut self) {
        self.ends = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Why a wait was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The session is to stand aside.
    Asked,
    /// It is to end: others need its descriptor.
    Ends,
}

/// Counts a session from its accept on, as long as it lives.
pub(super) struct Visit(Rc<Worker>);

impl Visit {
    pub(super) fn new(worker: Rc<Worker>) -> Self {
        let sessions = &worker.lobby.sessions;
        sessions.set(sessions.get() + 1);
        Self(worker)
    }

    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.0
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let sessions = &self.0.lobby.sessions;
        sessions.set(sessions.get().saturating_sub(1));
    }
}

/// An entry of one of the slabs, until it is dropped. Nothing else removes entries, so the key is good as long as this
/// lives.
struct Entry<'a, T>(&'a RefCell<Slab<T>>, usize);

impl<'a, T> Entry<'a, T> {
    fn new(slab: &'a RefCell<Slab<T>>, value: T) -> Self {
        let key = slab.borrow_mut().insert(value);
        Self(slab, key)
    }
}

impl<T> Drop for Entry<'_, T> {
    fn drop(&mut self) {
        drop(self.0.borrow_mut().remove(self.1));
    }
}

impl Lobby {
    /// Asks all sessions to stand aside, or lets them go on.
    pub(super) fn ask(&self, asked: bool) {
        if self.asked.replace(asked) != asked {
            for (_, waiting) in self.waiting.borrow_mut().iter_mut() {
                if let Some(waker) = waiting.waker.take() {
                    waker.wake();
                }
            }
        }
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.get()
    }

    /// Sessions that have something to do.
    pub(super) fn busy(&self) -> usize {
        self.sessions.get().saturating_sub(self.aside.borrow().len())
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.get()
    }

    /// Whether a session waits that could end for another one.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Ends the session that has waited for bytes longest, one that has sent nothing if there is one; `false` when none
    /// waits.
    pub(super) fn end_longest_waiting(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        for queue in [&self.silent, &self.by_age] {
            while let Some((key, number)) = queue.borrow_mut().pop_front() {
                if let Some(found) = waiting.get_mut(key).filter(|found| found.number == number) {
                    found.end();
                    return true;
                }
            }
        }
        false
    }

    /// Ends the session of this peer that has waited for bytes longest, if it is among the longest of all.
    pub(super) fn end_longest_waiting_of(&self, peer: IpAddr) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        for queue in [&self.silent, &self.by_age] {
            let mut queue = queue.borrow_mut();
            let place = queue.iter().take(SEARCHED_MAX).position(|(key, number)| {
                let found = waiting.get(*key).filter(|found| found.number == *number);
                found.is_some_and(|found| found.peer == Some(peer))
            });
            let entry = place.and_then(|place| queue.remove(place));
            if let Some(found) = entry.and_then(|(key, _)| waiting.get_mut(key)) {
                found.end();
                return true;
            }
        }
        false
    }

    /// Waits for bytes; the wait may be cut short.
    pub(super) async fn wait<F: Future>(
        &self,
        waiter: Waiter,
        future: F,
    ) -> Result<F::Output, Cut> {
        let Waiter { peer, may_move, is_silent } = waiter;
        let number = self.number.get() + 1;
        self.number.set(number);
        let waiting = Waiting { number, peer: Some(peer), ..Waiting::default() };
        let entry = Entry::new(&self.waiting, waiting);
        self.note_age(if is_silent { &self.silent } else { &self.by_age }, entry.1, number);
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            if may_move && self.asked.get() {
                return Poll::Ready(Err(Cut::Asked));
            }
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            let waiting = &mut entry.0.borrow_mut()[entry.1];
            if waiting.ends {
                return Poll::Ready(Err(Cut::Ends));
            }
            waiting.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Sessions begin to wait often and end seldom, so stale entries are dropped here.
    fn note_age(&self, queue: &RefCell<VecDeque<(usize, u64)>>, key: usize, number: u64) {
        let waiting = self.waiting.borrow();
        let mut queue = queue.borrow_mut();
        if queue.len() > 64 + 2 * waiting.len() {
            queue.retain(|(key, number)| {
                waiting.get(*key).is_some_and(|found| found.number == *number)
            });
        }
        queue.push_back((key, number));
    }

    /// Waits until sessions may go on. Until then the session can be moved.
    pub(super) async fn stand_aside(&self, aside: Aside) {
        let _aside = Entry::new(&self.aside, aside);
        let entry = Entry::new(&self.waiting, Waiting::default());
        std::future::poll_fn(|context| {
            if !self.asked.get() {
                return Poll::Ready(());
            }
            entry.0.borrow_mut()[entry.1].waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The sessions that stand aside.
    pub(super) fn aside(&self) -> Ref<'_, Slab<Aside>> {
        self.aside.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Context;

    type Wait<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), Cut>> + 'a>>;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn wait<'a>(lobby: &'a Lobby) -> Wait<'a> {
        wait_of(lobby, HERE)
    }

    fn wait_of<'a>(lobby: &'a Lobby, peer: IpAddr) -> Wait<'a> {
        let waiter = Waiter { peer, may_move: true, is_silent: false };
        let mut wait: Wait<'a> = Box::pin(lobby.wait(waiter, std::future::pending::<()>()));
        assert_eq!(poll(&mut wait), Poll::Pending);
        wait
    }

    fn poll(wait: &mut Wait) -> Poll<Result<(), Cut>> {
        wait.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_session_that_waited_longest_ends_first() {
        let lobby = Lobby::default();
        assert!(!lobby.end_longest_waiting());
        let mut first = wait(&lobby);
        let mut second = wait(&lobby);
        drop(wait(&lobby));
        assert!(lobby.end_longest_waiting());
        assert_eq!(poll(&mut first), Poll::Ready(Err(Cut::Ends)));
        assert_eq!(poll(&mut second), Poll::Pending);
        drop(first);
        let mut third = wait(&lobby);
        assert!(lobby.end_longest_waiting());
        assert_eq!(poll(&mut second), Poll::Ready(Err(Cut::Ends)));
        assert_eq!(poll(&mut third), Poll::Pending);
        assert!(lobby.end_longest_waiting());
        assert!(!lobby.end_longest_waiting());
    }

    #[test]
    fn the_session_of_an_address_that_waited_longest_ends() {
        let lobby = Lobby::default();
        let other = IpAddr::from([192, 0, 2, 1]);
        let mut waits = [wait(&lobby), wait_of(&lobby, other), wait_of(&lobby, other)];
        assert!(lobby.end_longest_waiting_of(other));
        assert_eq!(poll(&mut waits[1]), Poll::Ready(Err(Cut::Ends)));
        assert!(lobby.end_longest_waiting_of(other));
        assert!(!lobby.end_longest_waiting_of(other));
        assert_eq!(poll(&mut waits[0]), Poll::Pending);
        assert!(lobby.end_longest_waiting());
    }

    #[test]
    fn sessions_that_have_sent_nothing_end_before_others() {
        let lobby = Lobby::default();
        let mut served = wait(&lobby);
        let waiter = Waiter { peer: HERE, may_move: true, is_silent: true };
        let mut silent: Wait = Box::pin(lobby.wait(waiter, std::future::pending::<()>()));
        assert_eq!(poll(&mut silent), Poll::Pending);
        assert!(lobby.has_waiting() && lobby.end_longest_waiting());
        assert_eq!(poll(&mut silent), Poll::Ready(Err(Cut::Ends)));
        assert_eq!(poll(&mut served), Poll::Pending);
    }

    #[test]
    fn stale_entries_do_not_pile_up() {
        let lobby = Lobby::default();
        let _there = wait(&lobby);
        for _ in 0..10_000 {
            drop(wait(&lobby));
        }
        assert!(lobby.by_age.borrow().len() < 100);
        assert!(lobby.end_longest_waiting());
        assert!(!lobby.end_longest_waiting());
    }
}
