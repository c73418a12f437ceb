//! How much a core keeps of what other nodes have. PURE.
//!
//! Whoever can write to Redis can invent nodes, members and leavings. What is kept of them is counted when it is added
//! and only then; when the count is over the bound, what is there is counted anew, once a beat at most. Over the bound
//! nothing is added: rosters and users of other nodes are incomplete then, and the log says so.

use super::Peer;
use crate::shard::Shard;

/// For one core.
pub(super) const REMOTE_BYTES_MAX: usize = 128 << 20;

const REMOTE_IS_FULL: &str = "what other nodes have takes more than 128 MiB of a worker: not all is kept, and rosters \
    are incomplete. More workers share it (RINGVERB_WORKERS)";

/// What is kept of other nodes.
#[derive(Debug, Default)]
pub(super) struct Remote {
    /// Never less than it is.
    bytes: usize,
    counted_in_beat: u32,
}

impl Remote {
    /// An entry of a set and a table, without its text.
    pub(super) const ENTRY_BYTES: usize = 160;

    pub(super) fn is_full(&self) -> bool {
        self.bytes > REMOTE_BYTES_MAX
    }
}

impl Shard {
    /// Takes room for one more entry with a text of so many bytes; whether there is any.
    pub(in crate::shard) fn take_remote_room(&mut self, text_bytes: usize) -> bool {
        let beat = self.cluster.beat;
        let remote = &mut self.cluster.remote;
        remote.bytes = remote.bytes.saturating_add(Remote::ENTRY_BYTES + text_bytes);
        if remote.is_full() && remote.counted_in_beat != beat {
            remote.counted_in_beat = beat;
            self.cluster.remote.bytes = self.remote_bytes() + Remote::ENTRY_BYTES + text_bytes;
        }
        let is_full = self.cluster.remote.is_full();
        if is_full {
            self.note_refused(REMOTE_IS_FULL);
        }
        !is_full
    }

    fn remote_bytes(&self) -> usize {
        let text = |who: &Option<Box<str>>| who.as_ref().map_or(0, |id| id.len());
        let of_peer = |peer: &Peer| -> usize {
            let members = peer.members.iter().map(|id| Remote::ENTRY_BYTES + id.len());
            let lingering = peer.lingering.iter().map(|who| Remote::ENTRY_BYTES + text(who));
            Remote::ENTRY_BYTES + members.sum::<usize>() + lingering.sum::<usize>()
        };
        let subjects = self.cluster.subjects.values();
        let peers = subjects.flat_map(|subject| &subject.peers).map(of_peer);
        let rosters = self.homes.iter().filter_map(|home| home.roster.as_ref());
        let members = rosters.flat_map(|roster| roster.iter().map(|(_, it)| it));
        let members = members.filter(|it| it.nodes > 0);
        peers.sum::<usize>() + members.map(|it| it.id_json.len() + it.info.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use crate::pusher::inbound::UserId;
    use crate::shard::envelope::{Body, LinkId, MemberPart, NodeId};
    use crate::shard::tests::node_alone;

    fn link(node: u64) -> LinkId {
        LinkId { node: NodeId(node), core: 0 }
    }

    fn joined(id: &str, info: usize) -> Body {
        let user = UserId { json: format!("\"{id}\"").into(), text: id.into() };
        let member = MemberPart { user, info: "x".repeat(info).into() };
        Body::Joined { member, channel_data: "{}".into() }
    }

    #[test]
    fn invented_members_take_so_much_and_no_more_and_room_comes_back() {
        let mut shard = node_alone();
        let channel = shard.channel_key(crate::app::AppIndex(0), "presence-r").unwrap();
        shard.hold(&channel);
        for number in 0..3_000 {
            shard.on_envelope(link(9), &channel, joined(&number.to_string(), 100_000), b"");
        }
        let kept = shard.homes.find(&channel).map_or(0, |home| home.user_count());
        assert!((1_300..1_400).contains(&kept), "{kept} of 100 KB each");
        assert!(shard.cluster_refused() >= 1_600);
        shard.cluster.is_up = true;
        shard.on_bye(NodeId(9));
        shard.beat();
        shard.on_envelope(link(8), &channel, joined("late", 100), b"");
        assert_eq!(shard.homes.find(&channel).map(|home| home.user_count()), Some(1));
    }

    #[test]
    fn one_node_more_than_a_cluster_has_is_ignored() {
        let mut shard = node_alone();
        let heard = (0..2_000).filter(|node| shard.on_node_heard(NodeId(*node)));
        assert_eq!(heard.count(), 1_024);
        assert!(shard.on_node_heard(NodeId(1)), "who is known stays known");
        for _ in 0..100_000 {
            shard.on_peer_line_up(link(1));
        }
        assert!(shard.cluster.sweeps.len() <= 16_384);
    }
}
