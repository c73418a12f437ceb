//! A ring with rtrb's names and its orders: an index of each side, written with Release and read with Acquire.

use std::cell::RefCell;
use std::collections::VecDeque;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};

struct Shared<T> {
    pushed: AtomicUsize,
    popped: AtomicUsize,
    capacity: usize,
    /// Loom runs one thread at a time and the indexes say who may look: no order of its own, which would hide that
    /// theirs is too weak.
    slots: RefCell<VecDeque<T>>,
}

// Loom's threads are switched to, never run beside each other.
struct Handle<T>(Arc<Shared<T>>);
#[expect(unsafe_code, reason = "a model: one thread at a time")]
// SAFETY: loom runs one thread at a time, and no borrow of the slots lives across a point where it switches.
unsafe impl<T: Send> Send for Handle<T> {}

pub struct Producer<T>(Handle<T>);
pub struct Consumer<T>(Handle<T>);

#[derive(Debug)]
pub enum PushError<T> {
    Full(T),
}

pub struct RingBuffer;

impl RingBuffer {
    #[expect(clippy::new_ret_no_self, reason = "rtrb's name")]
    pub fn new<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
        let shared = Arc::new(Shared {
            pushed: AtomicUsize::new(0),
            popped: AtomicUsize::new(0),
            capacity,
            slots: RefCell::default(),
        });
        (Producer(Handle(shared.clone())), Consumer(Handle(shared)))
    }
}

impl<T> Producer<T> {
    pub fn is_full(&self) -> bool {
        let shared = &self.0.0;
        let popped = shared.popped.load(Ordering::Acquire);
        shared.pushed.load(Ordering::Relaxed) - popped == shared.capacity
    }

    pub fn push(&mut self, value: T) -> Result<(), PushError<T>> {
        if self.is_full() {
            return Err(PushError::Full(value));
        }
        let shared = &self.0.0;
        shared.slots.borrow_mut().push_back(value);
        let pushed = shared.pushed.load(Ordering::Relaxed);
        shared.pushed.store(pushed + 1, Ordering::Release);
        Ok(())
    }
}

impl<T> Consumer<T> {
    pub fn is_empty(&self) -> bool {
        let shared = &self.0.0;
        shared.pushed.load(Ordering::Acquire) == shared.popped.load(Ordering::Relaxed)
    }

    pub fn pop(&mut self) -> Result<T, ()> {
        if self.is_empty() {
            return Err(());
        }
        let shared = &self.0.0;
        let value = shared.slots.borrow_mut().pop_front().expect("the index says so");
        let popped = shared.popped.load(Ordering::Relaxed);
        shared.popped.store(popped + 1, Ordering::Release);
        Ok(value)
    }
}
