//! What waits to be sent, counted: in all (`SenderShared`), and for each endpoint (`EndpointLoad`), by class and kind.
//!
//! The dispatcher adds and one sender subtracts, each with atomic operations and without a lock, except for one example
//! of an event, which is locked once for each request or wait. Owns the counts, that example, and what all senders
//! share (`SenderShared`); does not keep an event. Limits: those of `settings.rs`. Cost: some ten atomic operations to
//! add an event; as many to subtract the events of a request, and one more for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::app::{Apps, WebhookKind};
use crate::counters::{WEBHOOK_KINDS, WebhookCounters};
use crate::event_log::EventLog;
use crate::latest_value::LatestValue;
use crate::webhook::WebhookSettings;
use crate::webhook::batch;
use crate::webhook::budget::{CLASSES, Class};
use crate::webhook::client::EndpointClient;
use crate::webhook::settings::{ALL_BYTES_MAX, ALL_PUBLIC_BYTES_MAX, ENDPOINT_BYTES_MAX};
use crate::webhook::time::WebhookClock;

/// The state that senders share with the dispatcher.
#[derive(Debug)]
pub(in crate::webhook) struct SenderShared {
    /// Read for each request, because a secret may have changed since the last one.
    pub(in crate::webhook) apps: LatestValue<Arc<Apps>>,
    pub(in crate::webhook) settings: WebhookSettings,
    pub(in crate::webhook) clock: WebhookClock,
    pub(in crate::webhook) client: EndpointClient,
    pub(in crate::webhook) counters: Arc<WebhookCounters>,
    /// Shows requests to consoles.
    pub(in crate::webhook) live: Arc<EventLog>,
    /// Bytes that wait for all endpoints.
    pub(in crate::webhook) bytes: AtomicUsize,
    /// Those of `bytes` that belong to public channels.
    pub(in crate::webhook) public_bytes: AtomicUsize,
    /// The time of the end is over: a sender posts nothing more, and what is left is counted as lost.
    pub(in crate::webhook) must_stop: AtomicBool,
}

/// What waits for an endpoint, the request under way included. Only the dispatcher adds, only the sender takes away.
#[derive(Debug)]
pub(super) struct EndpointLoad {
    /// Of all classes, or `ENDED`.
    pub(super) events: AtomicUsize,
    pub(super) by_class: [ClassLoad; CLASSES],
    pub(super) by_kind: [AtomicUsize; WEBHOOK_KINDS],
    /// Milliseconds since which the endpoint has refused every request; `NOT_FAILING` if it accepted the last one.
    pub(super) failing_since: AtomicU64,
    /// An event that waits, as an example for the log: its kind and channel. Only the sender changes it.
    pub(super) sample: Sample,
}

#[expect(
    clippy::disallowed_types,
    reason = "between two threads of this module, and no worker's: locked once for a request or wait, and at the end"
)]
type Sample = std::sync::Mutex<Option<(WebhookKind, Arc<str>)>>;

impl Default for EndpointLoad {
    fn default() -> Self {
        Self {
            events: AtomicUsize::default(),
            by_class: Default::default(),
            by_kind: Default::default(),
            failing_since: AtomicU64::new(NOT_FAILING),
            sample: Sample::default(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct ClassLoad {
    pub(super) events: AtomicUsize,
    pub(super) bytes: AtomicUsize,
}

/// In `EndpointLoad::failing_since`: the endpoint accepted the last request, or has had none.
pub(super) const NOT_FAILING: u64 = u64::MAX;

/// In `EndpointLoad::events`: the sender has ended.
pub(super) const ENDED: usize = usize::MAX;

impl ClassLoad {
    pub(super) fn is_full(&self, class: Class, shared: &SenderShared) -> bool {
        let bytes = self.bytes.load(Ordering::Relaxed);
        // Each endpoint may have the bytes of one request, even if others hang: the others must not use the room of
        // those that work.
        let others_are_full = shared.bytes.load(Ordering::Relaxed) >= ALL_BYTES_MAX
            || class == Class::Public
                && shared.public_bytes.load(Ordering::Relaxed) >= ALL_PUBLIC_BYTES_MAX;
        bytes >= class.share(ENDPOINT_BYTES_MAX)
            || others_are_full && bytes >= batch::BYTES_MAX
            || self.events.load(Ordering::Relaxed) >= class.share(shared.settings.queue_events_max)
    }
}

impl SenderShared {
    pub(super) fn add_bytes(&self, class: Class, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if class == Class::Public {
            self.public_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}
