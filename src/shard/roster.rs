//! Who is in a presence channel (docs/PROTOCOL.md rules 22, 23, 97). PURE.
//!
//! The home's roster holds the users of this node by their connections, and those of other nodes by the nodes that
//! have them. A user is there as long as either is not nothing: `member_added` and `member_removed` go out at the edges
//! of that, to this node's subscribers only, as every node tells its own.

use indexmap::IndexMap;

use super::channel_key::ChannelKey;
use super::cluster::Edge;
use super::envelope::{Body, LinkId, MemberPart};
use super::mail::Join;
use super::{Shard, frame};
use crate::buffer::FrameBytes;
use crate::pusher::error_code::{self, ErrorCode};
use crate::pusher::inbound::UserId;
use crate::pusher::outbound;

/// A user in a presence channel.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id_json: Box<str>,
    pub(super) info: Box<str>,
    /// On this node.
    pub(super) connections: u32,
    /// Other nodes where the user has connections.
    pub(super) nodes: u32,
}

/// Users by the text of their id.
type Members = IndexMap<Box<str>, Member, foldhash::fast::RandomState>;

/// The users of a presence channel, and the frame that tells a new subscriber of them.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: Members,
    /// The acknowledgement with the whole roster. It is kept until a user comes or goes, because it costs as much as
    /// the roster is long, and a subscribe message is short.
    encoded: Option<FrameBytes>,
    /// Its length when it was made last.
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

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Box<str>, &Member)> {
        self.members.iter()
    }

    /// The acknowledgement of a subscription, encoded at most once for each change of the roster.
    pub(super) fn acknowledgement(&mut self, channel: &str) -> FrameBytes {
        let (members, before) = (&self.members, self.encoded_bytes);
        let encode = || {
            let each = members.iter();
            let list: Vec<_> =
                each.map(|(id, member)| (&*member.id_json, &**id, &*member.info)).collect();
            // About as long as before: what a growing vector leaves behind would be as long again.
            let mut text = Vec::with_capacity(before + before / 8 + 1_024);
            outbound::presence_succeeded(channel, list.into_iter(), &mut text);
            frame::encode_text(&text).into()
        };
        let frame = self.encoded.get_or_insert_with(encode).clone();
        self.encoded_bytes = frame.len();
        frame
    }

    /// For counts: who is in the roster, and as what, must stay as it is.
    fn get_mut(&mut self, user_id: &str) -> Option<&mut Member> {
        self.members.get_mut(user_id)
    }

    fn insert(&mut self, user_id: Box<str>, member: Member) {
        self.encoded = None;
        self.members.insert(user_id, member);
    }

    /// In constant time: the last user takes the place.
    fn remove(&mut self, user_id: &str) -> Option<Member> {
        self.encoded = None;
        self.members.swap_remove(user_id)
    }

    /// Keeps the users of this node only.
    fn forget_other_nodes(&mut self) {
        self.encoded = None;
        self.members.retain(|_, member| member.connections > 0);
        self.members.values_mut().for_each(|member| member.nodes = 0);
    }
}

impl FromIterator<(Box<str>, Member)> for Roster {
    fn from_iter<I: IntoIterator<Item = (Box<str>, Member)>>(members: I) -> Self {
        Self { members: members.into_iter().collect(), encoded: None, encoded_bytes: 0 }
    }
}

impl Shard {
    /// Why a user may not join now. A join makes the whole roster be encoded again, for this subscriber alone: while
    /// many join, their messages are short and what they are sent is not.
    pub(super) fn refuses(
        &mut self,
        index: u32,
        channel: &ChannelKey,
        join: &Join,
    ) -> Option<ErrorCode> {
        if self.is_full(index, channel, join) {
            return Some(error_code::TOO_MANY_MEMBERS);
        }
        let roster = self.homes.get(index).roster.as_ref();
        let is_new = roster.is_some_and(|roster| !roster.contains(&join.user.text));
        // The frame, the two copies that it is made from, and room that the allocator cannot use again at once.
        let bytes = roster.filter(|_| is_new).map_or(0, |roster| 4 * roster.encoded_bytes);
        let has_room = self.take_headroom(bytes);
        (!has_room).then_some(error_code::SHORT_OF_MEMORY)
    }

    /// Whether one more user is too many. A user who is in already may bring more connections.
    pub(super) fn is_full(&self, index: u32, channel: &ChannelKey, join: &Join) -> bool {
        let most = self.settings.apps.get(channel.app()).presence_members_max;
        match (most, self.homes.get(index).roster.as_ref()) {
            (Some(most), Some(roster)) => {
                roster.len() >= most as usize && !roster.contains(&join.user.text)
            }
            _ => false,
        }
    }

    /// Counts one more connection of a user; the first one is announced.
    pub(super) fn home_join(&mut self, index: u32, channel: &ChannelKey, join: &Join) {
        if join.again {
            return;
        }
        let roster = self.homes.get_mut(index).roster.get_or_insert_default();
        let is_first_here = match roster.get_mut(&join.user.text) {
            Some(member) => {
                member.connections = member.connections.saturating_add(1);
                member.connections == 1
            }
            None => {
                let (id_json, info) = (join.user.json.clone(), join.info.clone());
                let member = Member { id_json, info, connections: 1, nodes: 0 };
                roster.insert(join.user.text.clone(), member);
                self.announce_added(channel, &join.channel_data);
                true
            }
        };
        if is_first_here {
            let who = Some(join.user.text.clone());
            self.edge(channel, who, Edge::Came, || Body::Joined {
                member: MemberPart { user: join.user.clone(), info: join.info.clone() },
                channel_data: join.channel_data.clone(),
            });
        }
    }

    /// A member's connection is out; the user's last one is announced.
    pub(super) fn home_leave(&mut self, channel: &ChannelKey, user_id: &str) {
        let Some(index) = self.homes.find_index(channel) else { return };
        let Some(roster) = &mut self.homes.get_mut(index).roster else { return };
        let Some(member) = roster.get_mut(user_id) else { return };
        debug_assert!(member.connections > 0, "whoever leaves has joined");
        member.connections = member.connections.saturating_sub(1);
        if member.connections > 0 {
            return;
        }
        if member.nodes == 0 {
            self.remove_member(index, channel, user_id);
        }
        let who = Some(user_id.into());
        self.edge(channel, who, Edge::Left, || Body::Left { user_id: user_id.into() });
    }

    /// A user came in on another node.
    pub(super) fn remote_joined(
        &mut self,
        channel: &ChannelKey,
        from: LinkId,
        member: MemberPart,
        channel_data: Option<&str>,
    ) {
        let MemberPart { user, info } = member;
        if !self.take_remote_room(user.text.len() + user.json.len() + info.len()) {
            return;
        }
        if !self.cluster.note_member(channel, from, &user.text, true) {
            return;
        }
        let index = self.homes.find_or_insert(channel);
        let roster = self.homes.get_mut(index).roster.get_or_insert_default();
        if let Some(member) = roster.get_mut(&user.text) {
            member.nodes += 1;
            return;
        }
        let UserId { json, text } = user;
        let made;
        let channel_data = match channel_data {
            Some(given) => given,
            None => {
                made = format!("{{\"user_id\":{json},\"user_info\":{info}}}");
                &made
            }
        };
        roster.insert(text, Member { id_json: json, info, connections: 0, nodes: 1 });
        self.announce_added(channel, channel_data);
    }

    /// A user is not on another node any more.
    pub(super) fn remote_left(&mut self, channel: &ChannelKey, from: LinkId, user_id: &str) {
        if !self.cluster.note_member(channel, from, user_id, false) {
            return;
        }
        let Some(index) = self.homes.find_index(channel) else { return };
        let Some(roster) = &mut self.homes.get_mut(index).roster else { return };
        let Some(member) = roster.get_mut(user_id) else { return };
        member.nodes = member.nodes.saturating_sub(1);
        if member.nodes == 0 && member.connections == 0 {
            self.remove_member(index, channel, user_id);
        }
    }

    /// Forgets what other nodes have, without a word: nobody is here to hear it.
    pub(super) fn forget_remote_members(&mut self, channel: &ChannelKey) {
        let Some(index) = self.homes.find_index(channel) else { return };
        let roster = &mut self.homes.get_mut(index).roster;
        if let Some(members) = roster {
            members.forget_other_nodes();
            if members.is_empty() {
                *roster = None;
            }
        }
        self.homes.drop_if_unused(index);
    }

    fn announce_added(&mut self, channel: &ChannelKey, channel_data: &str) {
        self.text.clear();
        outbound::member_added(channel.name(), channel_data, &mut self.text);
        let frame = frame::encode_text(&self.text).into();
        self.home_deliver(channel, &frame, None);
    }

    fn remove_member(&mut self, index: u32, channel: &ChannelKey, user_id: &str) {
        let home = self.homes.get_mut(index);
        let Some(roster) = &mut home.roster else { return };
        let Some(member) = roster.remove(user_id) else { return };
        if roster.is_empty() {
            home.roster = None;
        }
        self.text.clear();
        outbound::member_removed(channel.name(), &member.id_json, &mut self.text);
        let frame = frame::encode_text(&self.text).into();
        self.home_deliver(channel, &frame, None);
        // `home_deliver` changes no home state, so the index is still this channel's.
        self.homes.drop_if_unused(index);
    }
}
