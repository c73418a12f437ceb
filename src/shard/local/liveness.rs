//! Silent connections are pinged, and then closed: a wheel with one entry per connection (docs/PROTOCOL.md C3). PURE.
//!
//! Owns the rule when a connection is looked at; knows no timer of the system. Input moves no entry, because a move for
//! each message would cost more than the wheel. When an entry is due and the connection has sent something since, the
//! entry moves to the second in which the connection will have been silent for long enough. A connection that is silent
//! is pinged, and closed if no answer comes.
//!
//! Limit: one entry of 12 B for each connection, looked at once in its interval, and one in `Local::unauthorized` where
//! an app wants connections authorized in time. Those of connections that have ended are swept away when they are many.
//! Cost: nothing for a message. Each connection is one entry that is moved once in its ping interval, a few steps each.

use super::Local;
use super::connection::ConnectionKey;
use super::connection::get_open;
use super::refuse::Denial;
use crate::cause::{Cause, Detail};
use crate::clock::Moment;
use crate::pusher::error_code;
use crate::shard::context::Context;
use crate::shard::outbox::{Outbox, Trace};
use crate::slot::Slot;
use crate::wheel::Wheel;

/// When each of the last seconds began on this core, in milliseconds of its clock. Connections are pinged at the
/// beginning of a second, so an unanswered ping needs no time of its own.
#[derive(Debug)]
pub(super) struct SecondStarts([u64; SECONDS_KEPT]);

/// More than the default pong timeout. A pong that comes later has counted as none (`Cause::NoPong`), unless an app
/// waits longer.
const SECONDS_KEPT: usize = 64;

impl Default for SecondStarts {
    fn default() -> Self {
        Self([0; SECONDS_KEPT])
    }
}

impl SecondStarts {
    /// Seconds in which the core did not run begin now, too: it could not ping in them.
    fn note_second(&mut self, before: u32, now: Moment) {
        debug_assert!(before <= now.seconds(), "the clock of a shard does not run backwards");
        let second = now.seconds();
        let missed = (second.saturating_sub(before) as usize).min(SECONDS_KEPT);
        for place in (0..missed).filter_map(|back| (second as usize).checked_sub(back)) {
            self.0[place % SECONDS_KEPT] = now.0;
        }
    }

    /// Exact for the last `SECONDS_KEPT` seconds; the whole second for earlier ones.
    fn start_ms(&self, second: u32, now: Moment) -> u64 {
        debug_assert!(
            now.0 >= self.0[now.seconds() as usize % SECONDS_KEPT],
            "a second that has begun"
        );
        let is_kept = (now.seconds().saturating_sub(second) as usize) < SECONDS_KEPT;
        if is_kept { self.0[second as usize % SECONDS_KEPT] } else { u64::from(second) * 1_000 }
    }
}

impl Local {
    /// Measures the round trip of a ping. `silent_since`: see `NotedInput::ping_sent_after`. The connection was pinged
    /// in the second in which `check_connection` found it silent for its whole interval, so no time is stored for it.
    pub(super) fn note_pong(&self, context: &Context, slot: Slot, silent_since: u32) {
        debug_assert!(silent_since <= context.now.seconds(), "a second that has begun");
        let interval = self.app_of(context, slot).ping_interval_seconds;
        let pinged_ms =
            self.second_starts.start_ms(silent_since.saturating_add(interval), context.now);
        self.metrics.round_trip_ms.observe(context.now.0.saturating_sub(pinged_ms));
    }

    /// For a new connection: begins its ping interval, and its time to be authorized if its app limits that.
    pub(super) fn begin_liveness(&mut self, context: &Context, key: ConnectionKey) {
        debug_assert!(self.get(key).is_some(), "the slot is that of the key");
        let app = self.app_of(context, key.slot);
        let (interval, authorize_within) =
            (app.ping_interval_seconds, app.authorize_within_seconds);
        let now = context.now.seconds();
        self.sweep_deadlines();
        self.wheel.add(key, now.saturating_add(interval));
        if let Some(time) = authorize_within {
            let app = self.connections[key.slot].app;
            self.unauthorized.add(app, now, time, key);
        }
    }

    /// Removes deadlines of connections that have ended, if there are many.
    fn sweep_deadlines(&mut self) {
        let connections = &self.connections;
        let open = |key: ConnectionKey| {
            let found = connections.get(key.slot);
            found.filter(|found| found.generation == key.generation && !found.is_closing)
        };
        self.wheel.sweep_if_stale(connections.len(), |entry| open(entry.key).is_some());
        self.unauthorized.sweep_if_stale(connections.len(), |key| {
            open(key).is_some_and(|connection| !connection.is_authorized)
        });
        let most = crate::limits::stale_entries_max(self.connections.len());
        debug_assert!(self.wheel.len() <= most, "deadlines of ended connections do not pile up");
        debug_assert!(self.unauthorized.len() <= most, "nor those that end an authorization");
    }

    /// For a connection that another process watched before. Its pong gets its whole time again, because the other
    /// process did not read during the transfer.
    pub(super) fn resume_liveness(
        &mut self,
        context: &Context,
        key: ConnectionKey,
        authorize_by: Option<u32>,
    ) {
        debug_assert!(self.get(key).is_some(), "the slot is that of the key");
        let app = self.app_of(context, key.slot);
        let (interval, pong_timeout) = (app.ping_interval_seconds, app.pong_timeout_seconds);
        let connection = &self.connections[key.slot];
        let index = connection.app;
        let due = if connection.awaits_pong {
            context.now.seconds().saturating_add(pong_timeout)
        } else {
            // Its look may be due in the past: the wheel's buckets are taken when their second comes.
            connection.last_inbound_seconds.saturating_add(interval).max(context.now.seconds() + 1)
        };
        self.wheel.add(key, due);
        if let Some(at) = authorize_by {
            self.unauthorized.add_transferred(index, at, key);
        }
    }

    /// Closes those whose time to sign in or join a private channel is up (docs/PROTOCOL.md rule 44). A connection
    /// keeps the time that it was given when the option changes, unless the option is removed.
    pub(super) fn close_unauthorized(&mut self, context: &Context, out: &mut Outbox) {
        for (key, given) in self.unauthorized.take_due(context.now.seconds()) {
            if self.get_open(key).is_some_and(|connection| !connection.is_authorized) {
                let option = self.app_of(context, key.slot).authorize_within_seconds;
                let Some(configured) = option else { continue };
                let time = given.unwrap_or(configured);
                let cause = Cause::NotAuthorizedInTime;
                let values = [Detail::Number(time.into())];
                let denial = Denial::new(error_code::NOT_AUTHORIZED_IN_TIME, cause, values);
                self.deny_and_close(context, out, key.slot, &denial);
            }
        }
    }

    /// Once a second, or after a long sleep for all seconds of it.
    pub(super) fn check_liveness(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        before_seconds: u32,
    ) {
        self.second_starts.note_second(before_seconds, context.now);
        let now = context.now.seconds();
        for second in Wheel::<ConnectionKey>::seconds_since(before_seconds, now) {
            for due in self.wheel.take_bucket(second) {
                debug_assert!(
                    due.at_seconds % crate::limits::WHEEL_SECONDS
                        == second % crate::limits::WHEEL_SECONDS,
                    "a bucket has the deadlines of its second, in any round"
                );
                let next = if due.at_seconds > now {
                    Some(due.at_seconds)
                } else {
                    self.check_connection(context, out, due.key)
                };
                if let Some(at) = next {
                    debug_assert!(at > now, "it is looked at in a later second");
                    self.wheel.add(due.key, at);
                }
            }
        }
    }

    /// Returns the second in which to look again. `None`: the connection is closing or gone, so its entry ends.
    fn check_connection(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
    ) -> Option<u32> {
        let now = context.now_seconds;
        let connection = get_open(&mut self.connections, key)?;
        debug_assert!(connection.last_inbound_seconds <= now, "it has sent nothing in the future");
        let app = context.app(connection.app);
        let (interval, pong_timeout) = (app.ping_interval_seconds, app.pong_timeout_seconds);
        let socket_id = connection.socket_id;
        if connection.awaits_pong {
            out.trace(|| Trace::Pruned(socket_id));
            let values = [Detail::Number(pong_timeout.into())];
            self.deny_and_close(
                context,
                out,
                key.slot,
                &Denial::new(error_code::NO_PONG, Cause::NoPong, values),
            );
            return None;
        }
        let quiet_until = connection.last_inbound_seconds.saturating_add(interval);
        if quiet_until > now {
            return Some(quiet_until);
        }
        connection.awaits_pong = true;
        if connection.speaks_control_frames {
            let frame = self.frames.ping_control.clone();
            self.enqueue_frame(context, out, key.slot, &frame);
        } else {
            let frame = self.frames.ping_event.clone();
            self.enqueue(context, out, key.slot, &frame);
        }
        out.trace(|| Trace::Pinged(socket_id));
        Some(now.saturating_add(pong_timeout))
    }
}
