//! What the dispatcher and its senders receive: events, endpoints, orders.
//!
//! Plain values; does not decide their use (`dispatcher.rs` does). Limits: the rings of the workers bound events
//! (`mod.rs`); orders are one at the end of the server and one for each change of the configuration. The dispatcher
//! receives all of them before each pass and before each sleep. Cost: an event is moved, without a copy of its text.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::budget::Class;
use crate::app::{AppIndex, Apps};
use crate::pusher::webhook_event::WebhookEvent;

/// Where events are posted. It lives as long as an event waits for it, also after the endpoint was removed.
#[derive(Debug)]
pub(super) struct EndpointTarget {
    pub(super) app: AppIndex,
    /// Over all apps, for the thread's name. No other endpoint has it at the same time.
    pub(super) number: usize,
    pub(super) url: String,
    /// Without userinfo and query, for the log.
    pub(super) shown: String,
}

/// The worker finds the class, and all limits on the way to the endpoint use it.
pub(super) type ClassedEvent = (Class, WebhookEvent);

pub(super) struct DispatcherOrders {
    /// The grace period, once, at the end of the server.
    pub(super) finishing: Receiver<Duration>,
    /// The apps with their endpoints, after each change of the configuration.
    pub(super) changed: Receiver<Arc<Apps>>,
}
