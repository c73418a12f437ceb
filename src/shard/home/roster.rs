//! The members of presence channels (docs/PROTOCOL.md rules 22, 23, 97). PURE.
//!
//! Owns rosters: the users of this node by their number of connections, and those of other nodes by the number of nodes
//! that have them. A user is present while they have a connection on this node or on any other. `member_added` and
//! `member_removed` are sent when that becomes true or false, to this node's subscribers only, because every node sends
//! them to its own. Does not know which nodes have a user: `Cluster` does. Limits: `RINGVERB_PRESENCE_MEMBERS_MAX`, and
//! the headroom of the core for the encoded roster. Cost: a join or leave is one look-up in the roster and one message
//! to each interested core. A new subscriber is sent the encoded roster: one copy of its bytes, which are encoded again
//! only after a change.

use indexmap::IndexMap;

use super::Home;
use super::change::Change;
use crate::buffer::FrameBytes;
use crate::pusher::channel_name::Access;
use crate::pusher::error_code::{self, ErrorCode};
use crate::pusher::inbound::UserId;
use crate::pusher::outbound;
use crate::shard::channel_key::ChannelKey;
use crate::shard::context::Context;
use crate::shard::local::memory::MemoryAccount;
use crate::shard::mail::Join;
use crate::shard::node_message::MemberSnapshot;
use crate::shard::outbox::Outbox;
use crate::shard::slots::ChannelSlot;
use crate::ws::frame;

/// `connections` and `nodes` are never both 0: then the member is removed.
#[derive(Debug)]
pub(in crate::shard) struct Member {
    pub(super) id_json: Box<str>,
    pub(super) user_info: Box<str>,
    /// Of the user in this channel, on this node.
    pub(in crate::shard) connections: u32,
    /// How many other nodes have connections of the user in this channel.
    pub(in crate::shard) nodes: u32,
}

/// Commas and a colon for a member of an encoded roster.
const ROSTER_PUNCTUATION_BYTES: usize = 3;

const _: () = assert!(size_of::<Member>() <= 40, "a presence channel has one for each user");

impl Member {
    /// JSON, as the backend signed it.
    pub(in crate::shard) fn user_info(&self) -> &str {
        &self.user_info
    }

    /// About what it adds to the encoded roster: its id is in the list and in the map. Without the escapes of quotes.
    fn encoded_bytes(&self) -> usize {
        2 * self.id_json.len() + self.user_info.len() + ROSTER_PUNCTUATION_BYTES
    }
}

/// By the text of a user's id. An index map, because a listing walks over it, and a removal takes constant time.
type MemberMap = IndexMap<Box<str>, Member, foldhash::fast::RandomState>;

/// Never empty while a channel has it: the channel drops it with the last user.
#[derive(Debug, Default)]
pub(in crate::shard) struct Roster {
    members: MemberMap,
    /// The acknowledgement with the whole roster. It is kept until a user comes or goes, because it costs as much as
    /// the roster is long, and a subscribe message is short.
    encoded: Option<FrameBytes>,
    /// The length of `encoded`. While there is none, an estimate: that of the last one, changed by what came and went,
    /// or the sum of all members if it was never made.
    encoded_bytes: usize,
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn contains(&self, user_id: &str) -> bool {
        self.members.contains_key(user_id)
    }

    pub(super) fn user_ids(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(|id| &**id)
    }

    pub(in crate::shard) fn iter(&self) -> impl ExactSizeIterator<Item = (&Box<str>, &Member)> {
        self.members.iter()
    }

    /// The acknowledgement of a subscription, encoded at most once for each change of the roster.
    pub(super) fn acknowledgement(&mut self, channel: &str) -> FrameBytes {
        debug_assert!(self.encoded.is_none() || self.encoded_bytes > 0, "a frame has bytes");
        let (members, before) = (&self.members, self.encoded_bytes);
        let encode = || {
            let each = members.iter();
            let list: Vec<_> =
                each.map(|(id, member)| (&*member.id_json, &**id, &*member.user_info)).collect();
            // About as long as before: what a growing vector leaves behind would be as long again.
            let mut text = Vec::with_capacity(before + before / 8 + 1_024);
            outbound::presence_succeeded(channel, list.into_iter(), &mut text);
            frame::encode_text(&text).into()
        };
        let frame = self.encoded.get_or_insert_with(encode).clone();
        self.encoded_bytes = frame.len();
        debug_assert!(self.encoded.is_some(), "the next subscriber is sent the same frame");
        frame
    }

    /// Callers may change counts only, not the set of users or their data.
    fn get_mut(&mut self, user_id: &str) -> Option<&mut Member> {
        self.members.get_mut(user_id)
    }

    fn insert(&mut self, user_id: Box<str>, member: Member) {
        debug_assert!(member.connections > 0 || member.nodes > 0, "a user is somewhere");
        debug_assert!(!self.contains(&user_id), "a user is in a roster once");
        self.encoded = None;
        self.encoded_bytes += member.encoded_bytes();
        self.members.insert(user_id, member);
        debug_assert!(self.encoded.is_none(), "the list of users has changed");
    }

    /// The last user takes the place, so the order of the others may change.
    fn remove(&mut self, user_id: &str) -> Option<Member> {
        debug_assert!(self.contains(user_id), "only a user in the roster leaves it");
        self.encoded = None;
        let removed = self.members.swap_remove(user_id);
        let bytes = removed.as_ref().map_or(0, Member::encoded_bytes);
        self.encoded_bytes = self.encoded_bytes.saturating_sub(bytes);
        removed
    }

    /// As another process would have it after a take-over.
    #[cfg(test)]
    pub(in crate::shard) fn into_transferred(self) -> Self {
        self.members.into_iter().collect()
    }

    fn forget_other_nodes(&mut self) {
        self.encoded = None;
        self.members.retain(|_, member| member.connections > 0);
        self.members.values_mut().for_each(|member| member.nodes = 0);
        self.encoded_bytes = self.members.values().map(Member::encoded_bytes).sum();
        debug_assert!(
            self.members.values().all(|member| member.connections > 0 && member.nodes == 0),
            "the users of this node are left"
        );
    }
}

impl FromIterator<(Box<str>, Member)> for Roster {
    fn from_iter<I: IntoIterator<Item = (Box<str>, Member)>>(members: I) -> Self {
        let members: MemberMap = members.into_iter().collect();
        let encoded_bytes = members.values().map(Member::encoded_bytes).sum();
        Self { members, encoded: None, encoded_bytes }
    }
}

impl Home {
    /// Why a user may not join now. A join of a new user causes a new encoding of the whole roster, which only this
    /// subscriber receives, so short messages cause long answers. A further connection of a user in the roster also
    /// causes one, if other users joined or left since the last encoding. `memory` is charged for both. A repeated join
    /// of one connection is never refused, and nothing is charged for its encoding.
    pub(super) fn join_refusal(
        &self,
        context: &Context,
        memory: &mut MemoryAccount,
        index: ChannelSlot,
        channel: &ChannelKey,
        join: &Join,
    ) -> Option<ErrorCode> {
        debug_assert_eq!(self.channels.get(index).key(), channel, "the index is the channel's");
        // Its subscriber is in the channel, which a refusal would not change. There is one such request at a time.
        if join.is_repeated {
            return None;
        }
        if self.is_full(context, index, channel, join) {
            return Some(error_code::TOO_MANY_MEMBERS);
        }
        let roster = self.channels.get(index).roster.as_ref();
        debug_assert!(
            roster.is_none_or(|roster| !roster.is_empty()),
            "a channel without users has no roster"
        );
        // The frame, the two copies that it is made from, and room that the allocator cannot use again at once.
        let to_encode =
            roster.filter(|roster| roster.encoded.is_none() || !roster.contains(&join.user.text));
        let bytes = to_encode.map_or(0, |roster| 4 * roster.encoded_bytes);
        let has_room = memory.reserve_headroom(bytes);
        (!has_room).then_some(error_code::SHORT_OF_MEMORY)
    }

    /// Never for a user in the roster, because further connections of that user may join.
    fn is_full(
        &self,
        context: &Context,
        index: ChannelSlot,
        channel: &ChannelKey,
        join: &Join,
    ) -> bool {
        let most = context.app(channel.app()).presence_members_max;
        match (most, self.channels.get(index).roster.as_ref()) {
            (Some(most), Some(roster)) => {
                roster.len() >= most as usize && !roster.contains(&join.user.text)
            }
            _ => false,
        }
    }

    /// Subscribers are sent `member_added` for the first connection of a user only, and not for a user who is on
    /// another node.
    pub(in crate::shard) fn join(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        index: ChannelSlot,
        channel: &ChannelKey,
        join: &Join,
    ) {
        debug_assert_eq!(channel.kind.access, Access::Presence, "only these have members");
        if join.is_repeated {
            return;
        }
        let roster = self.channels.get_mut(index).roster.get_or_insert_default();
        let is_first_here = match roster.get_mut(&join.user.text) {
            Some(member) => {
                member.connections = member.connections.saturating_add(1);
                debug_assert!(
                    member.connections > 1 || member.nodes > 0,
                    "who was in the roster was somewhere"
                );
                member.connections == 1
            }
            None => {
                let (id_json, user_info) = (join.user.json.clone(), join.user_info.clone());
                let member = Member { id_json, user_info, connections: 1, nodes: 0 };
                roster.insert(join.user.text.clone(), member);
                self.announce_added(context, out, channel, &join.channel_data);
                true
            }
        };
        debug_assert!(
            self.channels.get(index).has_user(&join.user.text),
            "the user is in the roster"
        );
        if !is_first_here {
            return;
        }
        if context.is_clustered() {
            out.report_change(context, channel, || Change::Joined {
                member: MemberSnapshot {
                    user: join.user.clone(),
                    user_info: join.user_info.clone(),
                },
                channel_data: join.channel_data.clone(),
            });
        } else {
            out.send_transition(context, channel, Some(&join.user.text), true);
        }
    }

    fn find_member(
        &mut self,
        channel: &ChannelKey,
        user_id: &str,
    ) -> Option<(ChannelSlot, &mut Member)> {
        let index = self.channels.find_index(channel)?;
        let roster = self.channels.get_mut(index).roster.as_mut()?;
        debug_assert!(!roster.is_empty(), "a channel without users has no roster");
        Some((index, roster.get_mut(user_id)?))
    }

    /// The reverse of `join`: subscribers are sent `member_removed` when no connection on any node is left.
    pub(in crate::shard) fn leave(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        user_id: &str,
    ) {
        debug_assert_eq!(context.keys.home(channel), context.core(), "this core is its home");
        let Some((index, member)) = self.find_member(channel, user_id) else { return };
        debug_assert!(member.connections > 0, "who leaves has joined");
        member.connections = member.connections.saturating_sub(1);
        if member.connections > 0 {
            return;
        }
        if member.nodes == 0 {
            self.remove_member(context, out, index, channel, user_id);
        }
        debug_assert!(
            self.channels.find(channel).and_then(|home| home.roster.as_ref()).is_none_or(
                |roster| {
                    roster.len() > crate::limits::ASSERTED_LEN_MAX
                        || roster
                            .iter()
                            .all(|(_, member)| member.connections > 0 || member.nodes > 0)
                }
            ),
            "who is nowhere is not in the roster"
        );
        if context.is_clustered() {
            out.report_change(context, channel, || Change::Left { user_id: user_id.into() });
        } else {
            out.send_transition(context, channel, Some(user_id), false);
        }
    }

    /// Call it once for each node that has the user: the roster only counts nodes, and the caller knows which they are.
    /// `channel_data`: `None` if the user came with a snapshot.
    pub(in crate::shard) fn add_elsewhere(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        member: MemberSnapshot,
        channel_data: Option<&str>,
    ) {
        debug_assert_eq!(context.keys.home(channel), context.core(), "this core is its home");
        let MemberSnapshot { user, user_info } = member;
        let index = self.channels.find_or_insert(channel);
        let roster = self.channels.get_mut(index).roster.get_or_insert_default();
        if let Some(member) = roster.get_mut(&user.text) {
            member.nodes += 1;
            debug_assert!(
                member.nodes > 1 || member.connections > 0,
                "who was in the roster was somewhere"
            );
            return;
        }
        let UserId { json, text } = user;
        let made;
        let channel_data = match channel_data {
            Some(given) => given,
            None => {
                made = format!("{{\"user_id\":{json},\"user_info\":{user_info}}}");
                &made
            }
        };
        roster.insert(text, Member { id_json: json, user_info, connections: 0, nodes: 1 });
        self.announce_added(context, out, channel, channel_data);
    }

    /// Once for each `add_elsewhere`.
    pub(in crate::shard) fn remove_elsewhere(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        user_id: &str,
    ) {
        debug_assert_eq!(context.keys.home(channel), context.core(), "this core is its home");
        let Some((index, member)) = self.find_member(channel, user_id) else { return };
        debug_assert!(member.nodes > 0, "the caller noted that the node had the user");
        member.nodes = member.nodes.saturating_sub(1);
        if member.nodes == 0 && member.connections == 0 {
            self.remove_member(context, out, index, channel, user_id);
        }
    }

    /// Forgets what other nodes have, and sends nothing: the channel has no subscribers here.
    pub(in crate::shard) fn forget_elsewhere(&mut self, channel: &ChannelKey) {
        let Some(index) = self.channels.find_index(channel) else { return };
        self.channels.counts.set_elsewhere(index, 0);
        let roster = &mut self.channels.get_mut(index).roster;
        if let Some(members) = roster {
            members.forget_other_nodes();
            if members.is_empty() {
                *roster = None;
            }
        }
        self.channels.drop_if_unused(index);
        debug_assert!(
            self.channels
                .find(channel)
                .is_none_or(|home| home.roster.is_none() || home.user_count() > 0),
            "no empty roster is kept"
        );
    }

    /// Without users that only other nodes have.
    pub(in crate::shard) fn user_ids_here(
        &self,
        channel: &ChannelKey,
    ) -> impl Iterator<Item = &str> {
        let roster = self.channels.find(channel).and_then(|home| home.roster.as_ref());
        let all = roster.into_iter().flat_map(|roster| roster.iter());
        all.filter(|(_, member)| member.connections > 0).map(|(text, _)| &**text)
    }

    /// For this node's snapshot: users that only other nodes have are left out.
    pub(in crate::shard) fn members_here(&self, channel: &ChannelKey) -> Vec<MemberSnapshot> {
        let roster = self.channels.find(channel).and_then(|home| home.roster.as_ref());
        let all = roster.into_iter().flat_map(|roster| roster.iter());
        let here = all.filter(|(_, member)| member.connections > 0);
        here.map(|(text, member)| MemberSnapshot {
            user: UserId { json: member.id_json.clone(), text: text.clone() },
            user_info: member.user_info.clone(),
        })
        .collect()
    }

    /// For the count of `remote_memory.rs`: texts of members that other nodes have, by a walk over all rosters.
    pub(in crate::shard) fn elsewhere_bytes(&self) -> usize {
        let rosters = self.channels.iter().filter_map(|home| home.roster.as_ref());
        let members = rosters.flat_map(|roster| roster.iter().map(|(_, member)| member));
        let elsewhere = members.filter(|member| member.nodes > 0);
        elsewhere.map(|member| member.id_json.len() + member.user_info.len()).sum()
    }

    fn announce_added(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        channel_data: &str,
    ) {
        debug_assert_eq!(context.keys.home(channel), context.core(), "this core is its home");
        let frame = frame::write_text_frame(&mut self.text_buffer, |text| {
            outbound::member_added(channel.name(), channel_data, text)
        })
        .into();
        self.deliver(context, out, channel, &frame, None);
    }

    fn remove_member(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        index: ChannelSlot,
        channel: &ChannelKey,
        user_id: &str,
    ) {
        debug_assert_eq!(context.keys.home(channel), context.core(), "this core is its home");
        let home = self.channels.get_mut(index);
        debug_assert_eq!(home.key(), channel, "the index is the channel's");
        let Some(roster) = &mut home.roster else { return };
        let Some(member) = roster.remove(user_id) else { return };
        debug_assert_eq!((member.connections, member.nodes), (0, 0), "the user is nowhere");
        if roster.is_empty() {
            home.roster = None;
        }
        debug_assert!(!home.has_user(user_id), "the user has left");
        let frame = frame::write_text_frame(&mut self.text_buffer, |text| {
            outbound::member_removed(channel.name(), &member.id_json, text)
        })
        .into();
        self.deliver(context, out, channel, &frame, None);
        self.channels.drop_if_unused(index);
        debug_assert!(
            self.channels.find(channel).is_none_or(|home| !home.has_user(user_id)),
            "the user is in the roster no longer"
        );
    }
}
