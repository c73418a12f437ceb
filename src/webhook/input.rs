//! What the dispatcher and its senders receive: events, endpoints, orders.
//!
//! Plain values; the dispatcher (`dispatcher.rs`) owns their use. Limits: the rings of the workers bound events
//! (`mod.rs`); orders are one at the end of the server and one for each change of the configuration. The dispatcher
//! takes all of them before each pass and before each sleep.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::budget::Class;
use crate::app::{AppIndex, Apps};
use crate::pusher::webhook_event::WebhookEvent;

/// An endpoint of an app.
#[derive(Debug)]
pub(super) struct EndpointTarget {
    pub(super) app: AppIndex,
    /// Over all apps, for the thread's name. No other endpoint has it at the same time.
    pub(super) number: usize,
    pub(super) url: String,
    /// Without userinfo and query, for the log.
    pub(super) shown: String,
}

/// An event on its way from a worker.
pub(super) type ClassedEvent = (Class, WebhookEvent);

/// Orders to the dispatcher: the end, and changed endpoints.
pub(super) struct Orders {
    pub(super) finishing: Receiver<Duration>,
    pub(super) changed: Receiver<Arc<Apps>>,
}
