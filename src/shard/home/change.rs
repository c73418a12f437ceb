//! What the cluster must know of a change at this node's homes. PURE.
//!
//! Plain values. `Home` makes these in clusters only, and `Cluster` publishes them to the other nodes. Without a
//! cluster the home sends webhooks itself. Knows nothing of other nodes.
//!
//! Limit: none of its own, because `OwnMail` is empty between two calls. Cost: a copy of the member's texts for a join.

use crate::shard::node_message::MemberSnapshot;

/// A change of what this node has of a channel, or of a user by the user's own channel.
#[derive(Debug)]
pub(in crate::shard) enum Change {
    /// The node has its first subscriber, or has lost its last one.
    Occupied(bool),
    /// A user's first connection on this node has joined.
    Joined { member: MemberSnapshot, channel_data: Box<str> },
    /// The user's last connection on this node has left.
    Left { user_id: Box<str> },
    /// The user has signed in on this node, or has no connection here any longer.
    Online(bool),
    /// The absolute number of this node's subscribers, of all cores.
    Count(u64),
    /// No core of this node has subscribers, or the user is neither signed in nor watched: the topic may go.
    Unneeded,
}
