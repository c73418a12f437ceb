//! Where HTTP sessions stand aside while the process hands over: between two requests, or with a part of one, they
//! can go on in another process, or here if it comes to nothing.

use std::cell::{Cell, Ref, RefCell};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::{Poll, Waker};

use slab::Slab;

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
    waiting: RefCell<Slab<Option<Waker>>>,
    aside: RefCell<Slab<Aside>>,
}

/// Counts a session as long as it lives.
pub(super) struct Visit<'a>(&'a Lobby);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.sessions.set(self.0.sessions.get() - 1);
    }
}

/// An entry of one of the slabs, until it is dropped.
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
    pub(super) fn enter(&self) -> Visit<'_> {
        self.sessions.set(self.sessions.get() + 1);
        Visit(self)
    }

    /// Asks all sessions to stand aside, or lets them go on.
    pub(super) fn ask(&self, asked: bool) {
        if self.asked.replace(asked) != asked {
            for (_, waker) in self.waiting.borrow_mut().iter_mut() {
                if let Some(waker) = waker.take() {
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
        self.sessions.get() - self.aside.borrow().len()
    }

    /// Waits for `future`; `None` when the session is to stand aside first.
    pub(super) async fn unless_asked<F: Future>(&self, future: F) -> Option<F::Output> {
        let entry = Entry::new(&self.waiting, None);
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            if self.asked.get() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            entry.0.borrow_mut()[entry.1] = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits until sessions may go on. Until then the session can be moved.
    pub(super) async fn stand_aside(&self, aside: Aside) {
        let _aside = Entry::new(&self.aside, aside);
        let entry = Entry::new(&self.waiting, None);
        std::future::poll_fn(|context| {
            if !self.asked.get() {
                return Poll::Ready(());
            }
            entry.0.borrow_mut()[entry.1] = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The sessions that stand aside.
    pub(super) fn aside(&self) -> Ref<'_, Slab<Aside>> {
        self.aside.borrow()
    }
}
