//! What holds at the homes between two calls: see `shard/invariants.rs`. PURE.
//!
//! Owns nothing and changes nothing. Walks over all channels of this home and their rosters, so its cost is that of the
//! whole state. Only tests, the simulator and debug builds call it. Checks that nothing is kept without a reason, and
//! that each channel is found by its key. Limits: the state that it walks over. Cost: a step for each channel and each
//! member.

use super::Home;
use crate::shard::invariants::ensure;

impl Home {
    pub(in crate::shard) fn check_invariants(&self) -> Result<(), String> {
        for (index, home) in self.channels.entries() {
            let name = home.key().name();
            // A transferred number comes before the subscribers, which other cores send.
            let is_kept = !home.is_unused() || self.channels.counts.has_delayed_send(index);
            ensure!(is_kept, "{name} is kept for nobody");
            ensure!(
                self.channels.find_index(home.key()) == Some(index),
                "{name} is not in its index"
            );
            if let Some(roster) = &home.roster {
                ensure!(!roster.is_empty(), "{name} has a roster without users");
            }
            for (user_id, member) in home.roster.iter().flat_map(|roster| roster.iter()) {
                let is_present = member.connections > 0 || member.nodes > 0;
                ensure!(is_present, "{name}: {user_id} is in the roster and nowhere else");
            }
        }
        self.channels.check_cache()?;
        self.channels.counts.check_invariants(|index| self.channels.contains(index))?;
        self.users.check_invariants()
    }
}
