//! How much a core keeps of what other nodes have. PURE.
//!
//! Owns an estimate of these bytes, never the entries. A program that can write to Redis can invent nodes, members and
//! leaves. What is kept of them is added to a count. A removal does not change the count. When the count is over the
//! limit, all that is still there is counted again, once a lease second at most.
//!
//! Limit: `REMOTE_BYTES_MAX`. Over it nothing is added: rosters and users of other nodes are incomplete then, and the
//! log says so. Cost: an addition for each entry; a count of everything is one step for each entry, once a lease second
//! at most.

use super::Cluster;
use super::here::Here;
use super::topic_state::PeerSnapshot;
use crate::shard::webhooks::Transitioner;

/// For one core: about 800,000 entries with short texts.
pub(super) const REMOTE_BYTES_MAX: usize = 128 << 20;

const REMOTE_IS_FULL: &str = "what other nodes have takes more than 128 MiB of a worker: not all is kept, and rosters \
    are incomplete. More workers share it (RINGVERB_WORKERS)";

#[derive(Debug, Default)]
pub(super) struct RemoteMemory {
    /// Entries that were removed are still in it until the next count.
    bytes_upper_bound: usize,
    /// The lease second of the last count.
    counted_in_second: u32,
}

impl RemoteMemory {
    /// Of an entry in a set and in the roster, without its texts.
    pub(super) const ENTRY_BYTES: usize = 160;

    pub(super) fn is_full(&self) -> bool {
        self.bytes_upper_bound > REMOTE_BYTES_MAX
    }

    /// Until the next lease second.
    #[cfg(test)]
    pub(super) fn fill(&mut self) {
        self.bytes_upper_bound = REMOTE_BYTES_MAX + 1;
    }

    pub(super) fn bytes_upper_bound(&self) -> usize {
        self.bytes_upper_bound
    }
}

impl Cluster {
    /// Reserves the bytes of one more entry with its texts. `false`: the entry must not be added.
    pub(in crate::shard) fn try_reserve(&mut self, here: &mut Here<'_>, text_bytes: usize) -> bool {
        let lease_second = self.lease_second;
        let remote = &mut self.remote_memory;
        let entry_bytes = RemoteMemory::ENTRY_BYTES + text_bytes;
        remote.bytes_upper_bound = remote.bytes_upper_bound.saturating_add(entry_bytes);
        if remote.is_full() && remote.counted_in_second != lease_second {
            remote.counted_in_second = lease_second;
            self.remote_memory.bytes_upper_bound = self.remote_bytes(here) + entry_bytes;
        }
        let is_full = self.remote_memory.is_full();
        debug_assert!(
            self.remote_memory.counted_in_second <= lease_second,
            "it was counted before now"
        );
        if is_full {
            self.note_refused(here, REMOTE_IS_FULL);
        }
        debug_assert!(
            is_full || self.remote_memory.bytes_upper_bound <= REMOTE_BYTES_MAX,
            "there was room"
        );
        !is_full
    }

    fn remote_bytes(&self, here: &Here<'_>) -> usize {
        let text = |who: &Transitioner| who.as_ref().map_or(0, |id| id.len());
        let of_peer = |peer: &PeerSnapshot| -> usize {
            let members = peer.members.iter().map(|id| RemoteMemory::ENTRY_BYTES + id.len());
            let leaves =
                peer.pending_leaves.iter().map(|who| RemoteMemory::ENTRY_BYTES + text(who));
            RemoteMemory::ENTRY_BYTES + members.sum::<usize>() + leaves.sum::<usize>()
        };
        let peers = self.topics.values().flat_map(|topic| &topic.peers).map(of_peer);
        peers.sum::<usize>() + here.home.elsewhere_bytes()
    }
}

#[cfg(test)]
mod tests {
    use crate::pusher::inbound::UserId;
    use crate::shard::tests::node_alone;
    use crate::shard::{ChannelMessage, FromCluster, MemberSnapshot, NodeId, SessionId, Shard};

    fn session(node: u64) -> SessionId {
        SessionId { node: NodeId(node), core: 0 }
    }

    fn joined(id: &str, user_info: usize) -> ChannelMessage {
        let user = UserId { json: format!("\"{id}\"").into(), text: id.into() };
        let member = MemberSnapshot { user, user_info: "x".repeat(user_info).into() };
        ChannelMessage::Joined { member, channel_data: "{}".into() }
    }

    fn need(shard: &mut Shard, channel: &crate::shard::ChannelKey) {
        let (cluster, mut here) = shard.clustered().unwrap();
        cluster.need_topic(&mut here, channel);
    }

    fn send(
        shard: &mut Shard,
        node: u64,
        channel: &crate::shard::ChannelKey,
        message: ChannelMessage,
    ) {
        let from = session(node);
        shard.on_cluster(FromCluster::Message { from, channel, message, frame: b"" });
    }

    fn seen(shard: &mut Shard, node: u64) -> bool {
        let is_accepted = shard.accepts_node(NodeId(node));
        shard.on_cluster(FromCluster::NodeSeen(NodeId(node)));
        is_accepted
    }

    #[test]
    fn invented_members_take_128_mib_and_their_room_is_free_when_the_node_has_ended() {
        let mut shard = node_alone();
        let channel = shard.channel_key(crate::app::AppIndex(0), "presence-r").unwrap();
        need(&mut shard, &channel);
        for number in 0..3_000 {
            send(&mut shard, 9, &channel, joined(&number.to_string(), 100_000));
        }
        let kept = shard.home.channels.find(&channel).map_or(0, |home| home.user_count());
        assert!((1_300..1_400).contains(&kept), "{kept} of 100 KB each");
        assert!(shard.cluster_refused() >= 1_600);
        shard.on_cluster(FromCluster::Up);
        shard.on_cluster(FromCluster::PeerEnds(NodeId(9)));
        shard.advance(crate::clock::Moment(1_000));
        send(&mut shard, 8, &channel, joined("late", 100));
        assert_eq!(shard.home.channels.find(&channel).map(|home| home.user_count()), Some(1));
    }

    #[test]
    fn a_node_over_the_limit_is_ignored_and_a_known_one_is_not() {
        let mut shard = node_alone();
        let accepted = (0..2_000).filter(|node| seen(&mut shard, *node));
        assert_eq!(accepted.count(), 1_024);
        assert!(seen(&mut shard, 1), "who is known stays known");
        for _ in 0..100_000 {
            shard.on_cluster(FromCluster::PeerUp(session(1)));
        }
        assert!(shard.cluster.as_ref().unwrap().sweeps.len() <= 16_384);
    }
}
