//! What waits to be sent, counted: in all (`SenderShared`), and for each endpoint (`Load`), by class and kind of event.
//!
//! The dispatcher adds and one sender takes away, each with atomic operations and without a lock, except for one
//! example of an event, which is locked once a request. Owns no waiting event: only counts, that example, and what all
//! senders share (`SenderShared`). Limits: those of `settings.rs`.

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
use crate::webhook::settings::{ALL_BYTES_MAX, ALL_OPEN_BYTES_MAX, ENDPOINT_BYTES_MAX};
use crate::webhook::time::WebhookClock;

/// The state that senders share with the dispatcher.
#[derive(Debug)]
pub(in crate::webhook) struct SenderShared {
    /// With their secrets, which may change.
    pub(in crate::webhook) apps: LatestValue<Arc<Apps>>,
    pub(in crate::webhook) settings: WebhookSettings,
    pub(in crate::webhook) clock: WebhookClock,
    pub(in crate::webhook) client: EndpointClient,
    pub(in crate::webhook) counters: Arc<WebhookCounters>,
    /// The event log of the console.
    pub(in crate::webhook) live: Arc<EventLog>,
    /// Bytes that wait for all endpoints; and those of events that any client can cause.
    pub(in crate::webhook) bytes: AtomicUsize,
    pub(in crate::webhook) open_bytes: AtomicUsize,
    /// The time to finish is over.
    pub(in crate::webhook) must_stop: AtomicBool,
}

/// What waits for an endpoint, the request under way included. Only the dispatcher adds, only the sender takes away.
#[derive(Debug)]
pub(super) struct Load {
    /// Of all classes.
    pub(super) events: AtomicUsize,
    pub(super) by_class: [ClassLoad; CLASSES],
    pub(super) by_kind: [AtomicUsize; WEBHOOK_KINDS],
    /// Milliseconds since which the endpoint has refused every request; `WORKS` if it accepted the last one.
    pub(super) failing_since: AtomicU64,
    /// An event that waits, for the log: its kind and channel. Only the sender changes it, once a request.
    pub(super) sample: Sample,
}

#[expect(
    clippy::disallowed_types,
    reason = "between two threads of this module, and no worker's: locked once a request and once at the end"
)]
type Sample = std::sync::Mutex<Option<(WebhookKind, Arc<str>)>>;

impl Default for Load {
    fn default() -> Self {
        Self {
            events: AtomicUsize::default(),
            by_class: Default::default(),
            by_kind: Default::default(),
            failing_since: AtomicU64::new(WORKS),
            sample: Sample::default(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct ClassLoad {
    pub(super) events: AtomicUsize,
    pub(super) bytes: AtomicUsize,
}

/// In `Load::failing_since`: the endpoint accepted the last request, or has had none.
pub(super) const WORKS: u64 = u64::MAX;

/// In `Load::events`: the sender has ended.
pub(super) const ENDED: usize = usize::MAX;

impl ClassLoad {
    pub(super) fn is_full(&self, class: Class, common: &SenderShared) -> bool {
        let bytes = self.bytes.load(Ordering::Relaxed);
        // Each endpoint may have the bytes of one request, even if others hang: the others must not use the room of
        // those that work.
        let others_are_full = common.bytes.load(Ordering::Relaxed) >= ALL_BYTES_MAX
            || class == Class::Open
                && common.open_bytes.load(Ordering::Relaxed) >= ALL_OPEN_BYTES_MAX;
        bytes >= class.share(ENDPOINT_BYTES_MAX)
            || others_are_full && bytes >= batch::BYTES_MAX
            || self.events.load(Ordering::Relaxed) >= class.share(common.settings.queue_events_max)
    }
}

impl SenderShared {
    pub(super) fn add_bytes(&self, class: Class, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if class == Class::Open {
            self.open_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}
