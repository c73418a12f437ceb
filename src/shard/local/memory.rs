//! What connections cause this core to keep, in bytes. PURE.
//!
//! Owns the account of a core (`MemoryAccount`). Everything that a client can make the server remember is charged to
//! the client's connection: subscriptions with their names, presence and sign-in data. `Connection::charged_bytes` is
//! the sum. Its send queue and its incomplete input are counted where they are. Does not measure memory: the control
//! thread does, and sets the `headroom` that this core may use until the next measurement. Charges are estimates;
//! `tests/process/alone/connection_memory.rs` compares them with the resident set.
//!
//! Limits: `MemoryLimits`, and `headroom`. Counted as `Refused::MemorySubscription` and `Refused::ConnectionMemory`.
//! Cost: a charge or a discharge is a few additions, no allocation and no atomic operation.

use super::Local;
use super::channel_table::LocalChannel;
use super::connection::ConnectionKey;
use super::connection::{Extras, Subscription};
use super::refuse::Denial;
use super::send_queue::FRAME_BYTES;
use crate::cause::{Cause, Detail};
use crate::pusher::error_code::{self, ErrorCode};
use crate::pusher::inbound::UserId;
use crate::shard::context::Context;
use crate::shard::outbox::Outbox;
use crate::slot::Slot;

/// Memory of a subscription beside the channel's name, if it is the channel's only one: its entry, and those of the
/// channel on its core and at its home, with their places in the tables.
const SUBSCRIPTION_BYTES: usize = 288;
/// Memory of a member beside its texts.
const MEMBER_BYTES: usize = 128;
/// Memory of a watched or signed-in user beside the id.
const USER_BYTES: usize = 192;

const _: () = assert!(
    size_of::<Subscription>() + 2 * size_of::<LocalChannel>() <= SUBSCRIPTION_BYTES,
    "it pays for its entries; that of the home is as large as that of the core"
);
const _: () = assert!(size_of::<Extras>() <= USER_BYTES, "a sign-in pays for its entry");

pub(super) fn subscription_charge(name: &str, member: Option<(&UserId, usize)>) -> u32 {
    let member = member.map_or(0, |(user, user_info_bytes)| {
        // The roster has each text, and so has its encoded form.
        MEMBER_BYTES + 3 * (user.json.len() + user.text.len()) + 2 * user_info_bytes
    });
    u32::try_from(SUBSCRIPTION_BYTES + name.len() + member).unwrap_or(u32::MAX)
}

/// Of a sign-in with its watchlist; one sum, because both end together.
pub(super) fn user_charge<'a>(
    user: &UserId,
    user_info: &str,
    watched: impl Iterator<Item = &'a str>,
) -> u32 {
    let own = USER_BYTES + 2 * (user.json.len() + user.text.len()) + user_info.len();
    let watched: usize = watched.map(|id| USER_BYTES + id.len()).sum();
    u32::try_from(own + watched).unwrap_or(u32::MAX)
}

/// The most that subscriptions and sign-in of a connection may be charged. The rest is the send queue's, so that what
/// a client keeps never closes it when an event comes.
fn charged_bytes_max(context: &Context) -> usize {
    context.settings.memory.connection_bytes_max / 2
}

#[derive(Debug, Default)]
pub(in crate::shard) struct MemoryAccount {
    /// The sum of `Connection::charged_bytes` over all connections.
    charged_bytes: u64,
    /// Bytes that may be charged until memory is measured again; `None` without a budget.
    headroom: Option<u64>,
    /// Bytes reserved since the measurement before, less those released: the next measurement may not show them yet.
    since_measurement: i64,
    /// Bytes that connections that speak HTTP use now.
    http_bytes: u64,
    /// See `Local::set_http_reserve`.
    http_reserve: u64,
}

impl MemoryAccount {
    fn has_room(&self, more: u64) -> bool {
        self.headroom.is_none_or(|bytes| more <= bytes)
    }

    /// Never fails. What is no longer used goes back to the headroom at once: memory that is freed is used again before
    /// the resident set shrinks.
    fn change_charge(&mut self, before: u64, now: u64) {
        let (more, less) = (now.saturating_sub(before), before.saturating_sub(now));
        debug_assert!(more == 0 || less == 0, "a charge grows or shrinks");
        self.since_measurement =
            self.since_measurement.saturating_add_unsigned(more).saturating_sub_unsigned(less);
        if let Some(bytes) = &mut self.headroom {
            *bytes = bytes.saturating_sub(more).saturating_add(less);
        }
    }

    /// For a frame to one connection. It is not released when the frame is sent: the next measurement shows that.
    pub(super) fn reserve_for_answer(&mut self, frame_bytes: usize) -> bool {
        self.try_change(0, (frame_bytes + FRAME_BYTES) as u64)
    }

    /// For bytes that are made once and sent, and are not released: the next measurement shows whether they are free.
    /// `false`: there is no room.
    pub(in crate::shard) fn reserve_headroom(&mut self, more: usize) -> bool {
        self.try_change(0, more as u64)
    }

    /// `false`: there is no room, and nothing is reserved. To use less is always possible.
    fn try_change(&mut self, before: u64, now: u64) -> bool {
        let fits = self.has_room(now.saturating_sub(before));
        debug_assert!(self.headroom.is_some() || fits, "without a budget there is always room");
        if fits {
            self.change_charge(before, now);
        }
        debug_assert!(fits || now > before, "less always fits");
        fits
    }
}

impl Local {
    /// The process was measured, and this many bytes are this core's until it is measured again. The measurement is
    /// older than this call. What was taken since the call before may have come after it, so it is subtracted.
    pub(in crate::shard) fn set_headroom(&mut self, bytes: u64) {
        let unmeasured = u64::try_from(self.account.since_measurement).unwrap_or(0);
        self.account.since_measurement = 0;
        self.account.headroom = Some(bytes.saturating_sub(unmeasured));
        debug_assert!(
            self.account.headroom.is_some_and(|left| left <= bytes),
            "what the measurement has not seen is subtracted"
        );
    }

    /// Bytes that connections that speak HTTP may use together whatever the headroom is: requests of backends are
    /// still answered when clients have used all.
    pub(in crate::shard) fn set_http_reserve(&mut self, bytes: u64) {
        self.account.http_reserve = bytes;
    }

    /// For a connection that speaks HTTP and uses another number of bytes now. `false`: the process has no memory for
    /// that, and nothing is noted.
    pub(in crate::shard) fn note_http(&mut self, before: usize, now: usize) -> bool {
        let (before, now) = (before as u64, now as u64);
        let account = &mut self.account;
        debug_assert!(account.http_bytes >= before, "it has taken as much");
        let held = account.http_bytes.saturating_add(now).saturating_sub(before);
        let fits = account.has_room(now.saturating_sub(before)) || held <= account.http_reserve;
        if fits {
            account.change_charge(before, now);
            account.http_bytes = held;
        }
        debug_assert!(!fits || account.http_bytes >= now, "what it takes is a part of the sum");
        fits
    }

    /// Reserves bytes for answers of other nodes, of which `held` bytes wait already, for whichever question. When the
    /// answers have been used, the next measurement shows that. `false`: there is no room.
    pub(in crate::shard) fn reserve_for_answers(&mut self, held: usize, more: usize) -> bool {
        let account = &mut self.account;
        let reserved = account.http_bytes.saturating_add((held + more) as u64);
        debug_assert!(reserved >= account.http_bytes, "sizes of values in memory have a sum");
        let fits = account.has_room(more as u64) || reserved <= account.http_reserve;
        debug_assert!(account.headroom.is_some() || fits, "without a budget there is always room");
        if fits {
            account.change_charge(0, more as u64);
        }
        fits
    }

    /// For bytes that were reserved for answers which are then discarded.
    pub(in crate::shard) fn release_answers(&mut self, bytes: usize) {
        self.account.change_charge(bytes as u64, 0);
    }

    #[must_use]
    pub(in crate::shard) fn http_bytes(&self) -> u64 {
        self.account.http_bytes
    }

    /// Of all connections of this core, for `/metrics`.
    #[must_use]
    pub(in crate::shard) fn charged_bytes(&self) -> u64 {
        self.account.charged_bytes
    }

    /// Whether a charge fits the connection and the process.
    ///
    /// # Errors
    /// What the client is answered: `memory_denial` says why.
    pub(super) fn check_charge(
        &self,
        context: &Context,
        slot: Slot,
        charge: u32,
    ) -> Result<(), ErrorCode> {
        debug_assert!(!self.connections[slot].is_closing, "it keeps nothing more");
        if !self.account.has_room(charge.into()) {
            return Err(error_code::SHORT_OF_MEMORY);
        }
        let connection = &self.connections[slot];
        let most = charged_bytes_max(context);
        debug_assert!(
            u64::from(connection.charged_bytes) <= self.account.charged_bytes,
            "a sum of all"
        );
        if connection.charged_bytes as usize + charge as usize > most {
            return Err(error_code::CONNECTION_KEEPS_TOO_MUCH);
        }
        Ok(())
    }

    /// For an error of `check_charge` or of the home: the text says which of the two limits it was.
    pub(super) fn memory_denial<'a>(
        &self,
        context: &Context,
        error: ErrorCode,
        what: Detail<'a>,
    ) -> Denial<'a> {
        debug_assert!(
            [error_code::CONNECTION_KEEPS_TOO_MUCH, error_code::SHORT_OF_MEMORY].contains(&error),
            "an error of memory"
        );
        if error == error_code::CONNECTION_KEEPS_TOO_MUCH {
            let most = Detail::count(charged_bytes_max(context));
            Denial::new(error, Cause::ConnectionMemory, [what, most])
        } else {
            Denial::new(error, Cause::MemorySubscription, [what])
        }
    }

    pub(super) fn charge(&mut self, slot: Slot, charge: u32) {
        let connection = &mut self.connections[slot];
        connection.charged_bytes = connection.charged_bytes.saturating_add(charge);
        self.account.charged_bytes += u64::from(charge);
        debug_assert!(
            self.account.charged_bytes >= u64::from(connection.charged_bytes),
            "a sum of all"
        );
        self.account.change_charge(0, charge.into());
    }

    /// For a connection whose incomplete input has another size now. It is closed if the process has no memory for
    /// that: its client alone decides how long a message stays incomplete.
    pub(in crate::shard) fn note_input(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        before: usize,
        now: usize,
    ) {
        let fits = self.account.try_change(before as u64, now as u64);
        if !fits && self.get_open(key).is_some() {
            self.close_without_queue(
                context,
                out,
                key.slot,
                error_code::SHORT_OF_MEMORY,
                Cause::InputMemory,
                now,
            );
        }
        debug_assert!(fits || self.get_open(key).is_none(), "over the budget it is closed");
    }

    pub(super) fn discharge(&mut self, slot: Slot, charge: u32) {
        let connection = &mut self.connections[slot];
        debug_assert!(connection.charged_bytes >= charge, "it was charged as much");
        debug_assert!(self.account.charged_bytes >= u64::from(charge), "a sum of all");
        connection.charged_bytes = connection.charged_bytes.saturating_sub(charge);
        self.account.charged_bytes = self.account.charged_bytes.saturating_sub(charge.into());
        self.account.change_charge(charge.into(), 0);
        debug_assert!(
            self.account.charged_bytes >= u64::from(self.connections[slot].charged_bytes),
            "a sum of all"
        );
    }

    /// Bytes that a connection causes the server to keep, its incomplete input aside.
    #[must_use]
    pub(in crate::shard) fn kept_bytes(&self, key: ConnectionKey) -> usize {
        self.get(key)
            .map_or(0, |found| found.charged_bytes as usize + found.send_queue.memory_bytes())
    }

    /// What is wrong with the account: for tests, since it walks over all that connections keep.
    #[must_use]
    pub(in crate::shard) fn account_fault(&self, context: &Context) -> Option<String> {
        let limits = context.settings.memory;
        let mut sum = 0;
        for (slot, found) in self.connections.iter() {
            let subscriptions = found.subscriptions.iter().map(|one| one.charge);
            let user = found.extras.as_ref().map_or(0, |extras| extras.sign_in_charge);
            let charged: u32 = subscriptions.chain([user]).sum();
            sum += u64::from(charged);
            if charged != found.charged_bytes {
                return Some(format!(
                    "slot {slot} is charged {}, not {charged}",
                    found.charged_bytes
                ));
            }
            // A queue of one frame may be longer: one frame always finds room.
            let kept = charged as usize + found.send_queue.memory_bytes();
            let is_one_frame = found.send_queue.single_frame().is_some();
            if kept > limits.connection_bytes_max && !is_one_frame && !found.is_closing {
                return Some(format!("slot {slot} keeps {kept} bytes: {limits:?}"));
            }
        }
        (sum != self.account.charged_bytes)
            .then(|| format!("the account says {}, not {sum}", self.account.charged_bytes))
    }
}
