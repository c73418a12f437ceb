//! What the cluster must know of a change at this node's homes. PURE.
//!
//! `Home` makes these in clusters only, and `Cluster` publishes them to the other nodes. Without a cluster the home
//! sends webhooks itself.

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
    /// The number of this node's subscribers.
    Count(u64),
    /// This node no longer needs the channel.
    Unneeded,
}
