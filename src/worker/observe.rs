//! A worker's part of the event log of the console: what its tick has observed becomes events of `event_log`.
//!
//! Owns the events that are not passed on yet, and the last `RECENT_MAX` refusals. Does not know the viewers:
//! `event_log` does. Inputs: observations of the shard, refusals with the text of the log, accepted events of the HTTP
//! API. Limits: those of `Outbox::observations` and of `event_log`, and `RECENT_MAX`. Cost: without a viewer one atomic
//! load a tick, and an allocation for each refusal; with one, up to three allocations an event, and one lock a tick
//! that is only tried.

use std::collections::VecDeque;

use super::{HostKernel, Worker, time};
use crate::app::AppIndex;
use crate::buffer::FrameBytes;
use crate::event_log::{EventLogEntry, EventLogKind, cut_text};
use crate::pusher::socket_id::SocketId;
use crate::shard::Observation;
use crate::tick::http::Printed;
use crate::ws::frame;

/// Refusals that a worker remembers, for an operator who asks why something was refused a while ago.
const RECENT_MAX: usize = 128;

#[derive(Default)]
pub(super) struct Observer {
    events: Vec<EventLogEntry>,
    recent_refusals: VecDeque<EventLogEntry>,
}

impl Observer {
    pub(super) fn note_refusal(
        &mut self,
        app: Option<AppIndex>,
        socket_id: Option<SocketId>,
        cause: &'static str,
        line: &str,
        is_observed: bool,
    ) {
        let text = cut_text(line.as_bytes());
        let refused = EventLogEntry { app, socket_id, cause, ..event(EventLogKind::Refused, text) };
        if is_observed {
            self.events.push(refused.clone());
        }
        if self.recent_refusals.len() >= RECENT_MAX {
            self.recent_refusals.pop_front();
        }
        // The log has the line, too, so its rate is limited.
        self.recent_refusals.push_back(EventLogEntry { unix_ms: time::unix_ms(), ..refused });
    }

    /// The last refusals, oldest first. `None`: of all connections, and of requests that had none.
    pub(super) fn recent_refusals(&self, socket_id: Option<SocketId>) -> Vec<EventLogEntry> {
        let is_asked = |event: &&EventLogEntry| socket_id.is_none() || event.socket_id == socket_id;
        self.recent_refusals.iter().filter(is_asked).cloned().collect()
    }

    pub(super) fn note_published(&mut self, published: &Printed) {
        self.events.push(EventLogEntry {
            app: Some(published.app),
            socket_id: published.excluded_socket_id,
            channel: Some(published.channel.shared()),
            ..event(EventLogKind::ApiEvent, payload_text(&published.frame))
        });
    }

    fn note_observation(&mut self, observation: Observation) {
        let of = |kind, app, socket_id| EventLogEntry {
            app: Some(app),
            socket_id: Some(socket_id),
            ..event(kind, Box::default())
        };
        self.events.push(match observation {
            Observation::Connected { app, socket_id } => {
                of(EventLogKind::Connected, app, socket_id)
            }
            Observation::Disconnected { app, socket_id, ended } => {
                let (by, cause) = ended.names();
                let text = format!("closed by {by}").into();
                EventLogEntry { cause, text, ..of(EventLogKind::Disconnected, app, socket_id) }
            }
            Observation::Subscribed { app, socket_id, channel, user } => EventLogEntry {
                channel: Some(channel),
                text: user.map(|user| format!("as user {user}").into()).unwrap_or_default(),
                ..of(EventLogKind::Subscribed, app, socket_id)
            },
            Observation::Unsubscribed { app, socket_id, channel } => EventLogEntry {
                channel: Some(channel),
                ..of(EventLogKind::Unsubscribed, app, socket_id)
            },
            Observation::SignedIn { app, socket_id, user } => EventLogEntry {
                text: format!("as user {user}").into(),
                ..of(EventLogKind::SignedIn, app, socket_id)
            },
            Observation::ClientEvent { app, socket_id, channel, frame } => EventLogEntry {
                channel: Some(channel),
                text: payload_text(&frame),
                ..of(EventLogKind::ClientEvent, app, socket_id)
            },
        });
    }
}

fn event(kind: EventLogKind, text: Box<str>) -> EventLogEntry {
    let (app, socket_id, channel) = (None, None, None);
    EventLogEntry { unix_ms: 0, kind, app, socket_id, channel, cause: "", text }
}

fn payload_text(frame: &FrameBytes) -> Box<str> {
    cut_text(frame::server_payload(frame))
}

impl<K: HostKernel> Worker<K> {
    /// At the beginning of a tick, so that all of the tick is observed or none.
    pub(super) fn begin_observing(&mut self) {
        let is_observed = self.shared.event_log.is_watched();
        self.core.shard.outbox.is_observed = is_observed;
        self.core.http.is_observed = is_observed;
    }

    /// At the end of a tick. If the reader has the lock of the feed, the events stay until the next tick.
    pub(super) fn pass_observations_on(&mut self) {
        let outbox = &mut self.core.shard.outbox;
        let observer = &mut self.observer;
        if outbox.observations.is_empty() && outbox.unobserved == 0 && observer.events.is_empty() {
            return;
        }
        outbox
            .observations
            .drain(..)
            .for_each(|observation| observer.note_observation(observation));
        let unix_ms = time::unix_ms();
        let new = observer.events.iter_mut().filter(|event| event.unix_ms == 0);
        new.for_each(|event| event.unix_ms = unix_ms);
        let worker = usize::from(self.core.mailbox.core());
        self.shared.event_log.add_lost(worker, std::mem::take(&mut outbox.unobserved));
        self.shared.event_log.push(worker, &mut observer.events);
    }
}
