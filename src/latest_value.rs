//! How a value that changes reaches other threads.
//!
//! Values form a list: each has a pointer to the next one. A worker keeps its current value and looks at that pointer,
//! so that nothing is locked on a core. Threads that are no workers read `LatestValue`, which has a lock. Owns the
//! values until no thread has them, and does not know what they are.
//!
//! No limit: a value is freed when no thread has it, so a worker that falls behind keeps the values since its own.
//! Cost: a worker's look is one atomic load; `LatestValue` takes one lock and makes one copy, of an `Arc` where it is
//! used.

use std::ops::Deref;
use std::sync::{Arc, OnceLock, PoisonError};

/// A value that workers have. The next one, once set, stays the next one.
#[derive(Debug)]
pub(crate) struct ValueLink<T> {
    value: T,
    next: OnceLock<Arc<Self>>,
}

impl<T> ValueLink<T> {
    #[must_use]
    pub(crate) fn new(value: T) -> Arc<Self> {
        Arc::new(Self { value, next: OnceLock::new() })
    }

    /// Makes `next` the latest value. Only the owner of the last link calls it, once for each.
    pub(crate) fn append(&self, next: Arc<Self>) {
        // The owner follows the link it has set, so it is empty here.
        self.next.set(next).ok();
    }

    pub(crate) fn next(&self) -> Option<&Arc<Self>> {
        self.next.get()
    }

    /// The newest value, or `None` if this is it. A caller that must apply each value in between follows `next`.
    pub(crate) fn latest(&self) -> Option<Arc<Self>> {
        let mut last = self.next.get()?;
        while let Some(next) = last.next.get() {
            last = next;
        }
        Some(last.clone())
    }
}

impl<T> Deref for ValueLink<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The value in use, for threads that are no workers.
#[derive(Debug, Default)]
#[expect(clippy::disallowed_types, reason = "no worker locks it")]
pub(crate) struct LatestValue<T>(std::sync::Mutex<T>);

impl<T: Clone> LatestValue<T> {
    #[must_use]
    pub(crate) fn new(value: T) -> Self {
        Self(value.into())
    }

    #[must_use]
    pub(crate) fn get(&self) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, value: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}
