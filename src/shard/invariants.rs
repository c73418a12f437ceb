//! What holds between two calls, checked over the whole state. PURE. For tests, the simulator and debug builds, whose
//! workers call it once a second.
//!
//! Owns nothing and changes nothing. Each part checks its own in its `invariants.rs`. Here are those between the parts.
//! Limits: the state that it walks over. Cost: a step for each entry of every table.

use super::{SendQueue, Shard};
use crate::metrics::Tally;
use crate::slot::Slot;

/// Returns an error, and does not panic, so that the simulator can report its seed with the text.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
pub(super) use ensure;

impl Shard {
    /// Checks all invariants. `flushing`: slots that the caller has taken from `Outbox::dirty` and not flushed.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_invariants(&self, flushing: &[Slot]) -> Result<(), String> {
        ensure!(self.outbox.own_mail.is_empty(), "mail of the shard to itself is left");
        self.local.check_invariants(&self.context, &self.outbox, flushing)?;
        self.home.check_invariants()?;
        if let Some(cluster) = &self.cluster {
            cluster.check_invariants(&self.context, &self.home)?;
        }
        Ok(())
    }

    /// Checks that the gauges of `/metrics` agree with the tables: they are changed where the tables are.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_gauges(&self) -> Result<(), String> {
        let metrics = self.context.metrics();
        let queues = self.local.connections.iter().map(|(_, found)| found.send_queue.bytes());
        let (waiting, gauge) = (queues.sum::<usize>() as u64, metrics.send_queue_bytes.get());
        ensure!(gauge == waiting, "{waiting} bytes wait to be sent, the gauge has {gauge}");
        let subscribers = self.local.channels.iter().map(|local| local.subscribers.len());
        let (subscribers, rows) = (subscribers.sum::<usize>() as u64, metrics.rows());
        let gauge: u64 = rows.iter().flat_map(|row| &row.subscribers).map(Tally::get).sum();
        ensure!(gauge == subscribers, "{subscribers} subscribers, the gauge has {gauge}");
        let occupied = self.home.channels.iter().filter(|home| !home.interested.is_empty());
        let occupied = occupied.count() as u64;
        let gauge: u64 = rows.iter().flat_map(|row| &row.channels).map(Tally::get).sum();
        ensure!(gauge == occupied, "{occupied} occupied channels, the gauge has {gauge}");
        Ok(())
    }

    /// Checks that the local side and the home side agree, which they do on a single core: no mail is under way there.
    /// Not to be called while connections of another process are taken over, because homes come first.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_sides_agree(&self) -> Result<(), String> {
        if self.context.settings.cores > 1 {
            return Ok(());
        }
        for local in self.local.channels.iter().filter(|local| local.is_active) {
            let name = local.key.name();
            ensure!(
                !self.home.interested_cores(&local.key).is_empty(),
                "{name}: the home is not interested"
            );
        }
        for home in self.home.channels.iter() {
            let (name, is_interested) = (home.key().name(), !home.interested.is_empty());
            let index = self.local.channels.find_key(home.key());
            let is_active = index.is_some_and(|index| self.local.channels[index].is_active);
            ensure!(
                is_interested == is_active,
                "{name}: interest {is_interested}, active {is_active}"
            );
            for (user_id, member) in home.roster.iter().flat_map(|roster| roster.iter()) {
                let connections = self.local.members(home.key(), user_id);
                ensure!(
                    member.connections as usize == connections,
                    "{name}: {user_id} has {connections} connections, not {}",
                    member.connections
                );
            }
        }
        for (user, is_signed_in, is_watched) in self.local.users.users_with_state() {
            let name = user.name();
            ensure!(
                self.home.users.is_online(&user) == is_signed_in,
                "{name}: signed in here {is_signed_in}, and not at home"
            );
            let waits = self.cluster.as_ref().is_some_and(|cluster| cluster.holds_mail_back(&user));
            ensure!(
                self.home.users.is_watched(&user) == is_watched || waits,
                "{name}: watched here {is_watched}, and not at home"
            );
        }
        Ok(())
    }
}

/// Whether something that waits to be sent would never be: it is neither to be flushed nor waiting for room.
pub(super) fn is_forgotten(queue: &SendQueue, dirty: bool, blocked: bool) -> bool {
    !queue.is_empty() && !dirty && !blocked
}
