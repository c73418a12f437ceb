//! What a node knows of one channel that it holds, or of one user by their own channel. PURE.

use std::ops::Deref;

use hashbrown::HashSet;

use super::edges::{Who, Whose};
use crate::shard::channel_key::ChannelKey;
use crate::shard::envelope::{LinkId, NodeId};
use crate::shard::mail::Mail;

/// Comings and goings that are noted while parts are waited for. Of what is not noted a backend may hear twice.
const HEARD_MAX: usize = 4_096;
/// Senders of events that a channel's subscribers were greeted with. What is forgotten may be heard twice.
const GREETED_MAX: usize = 32;

/// A subject that is held. A plain channel has no details once Redis has confirmed it.
#[derive(Debug, Default)]
pub(super) struct Subject(Option<Box<Details>>);

const _: () = assert!(size_of::<(ChannelKey, Subject)>() <= 40, "a node may hold a million");

#[derive(Debug)]
pub(super) struct Details {
    pub(super) waiting: Option<Waiting>,
    pub(super) peers: Vec<Peer>,
    /// Its SUBSCRIBE is not sent yet, and has this ticket.
    pub(super) unsent: Option<u32>,
    /// Nobody here needs it since that beat. It is in `ClusterTable::idle`.
    pub(super) idle_since: Option<u32>,
    /// The event stored for a cache channel is asked for by this ticket, and none was published since.
    pub(super) fetching: Option<(u32, Fetch)>,
    /// The events that were fetched, and that whoever came next was greeted with: the newest of each sender.
    greeted: Vec<(LinkId, u64)>,
    /// Edges of this node that are under way to Redis: see `edges.rs`.
    pub(super) unconfirmed: u32,
    /// Who is on this node, as far as Redis's order goes.
    pub(super) said: Whose,
}

static NO_DETAILS: Details = Details::NONE;

/// Why the stored event is asked for, and so what it means if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetch {
    /// The channel was not held before: what this node remembers of it is nothing to go by.
    First,
    /// The line was lost: perhaps Redis has forgotten what this node remembers.
    Again,
    /// This node has stored what it remembers, unless another one was first.
    Restored,
}

/// What cannot be answered before the others have spoken.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: u32,
    /// Replies of Redis and answers of nodes that are still due.
    pub(super) missing: i64,
    pub(super) mails: Vec<Mail>,
    /// Whose comings and goings were heard of meanwhile; with a node: of what lingers there only.
    heard: HashSet<(Option<NodeId>, Who), foldhash::fast::FixedState>,
}

/// Another node's part, as far as it was told.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    /// When it was told whole.
    pub(super) told: Told,
    pub(super) online: bool,
    pub(super) occupied: bool,
    pub(super) count: u32,
    pub(super) members: HashSet<Box<str>, foldhash::fast::FixedState>,
    /// Who has just left it, and backends do not know.
    pub(super) lingering: Whose,
}

/// Which lines were there when something was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) line: u32,
    pub(super) by: LinkId,
    pub(super) renewals: u32,
}

impl Details {
    const NONE: Self = Self {
        waiting: None,
        peers: Vec::new(),
        unsent: None,
        idle_since: None,
        fetching: None,
        greeted: Vec::new(),
        unconfirmed: 0,
        said: HashSet::with_hasher(foldhash::fast::FixedState::with_seed(0)),
    };

    fn is_empty(&self) -> bool {
        self.waiting.is_none()
            && self.peers.is_empty()
            && self.unsent.is_none()
            && self.idle_since.is_none()
            && self.fetching.is_none()
            && self.greeted.is_empty()
            && self.unconfirmed == 0
            && self.said.is_empty()
    }

    pub(super) fn note_greeted(&mut self, (from, number): (LinkId, u64)) {
        self.greeted.retain(|(link, _)| *link != from);
        if self.greeted.len() >= GREETED_MAX {
            self.greeted.remove(0);
        }
        self.greeted.push((from, number));
    }

    /// Whether subscribers were greeted with this event of a sender, or with a later one.
    pub(super) fn was_greeted(&self, from: LinkId, number: u64) -> bool {
        self.greeted.iter().any(|(link, newest)| *link == from && number <= *newest)
    }

    pub(super) fn find(&self, node: NodeId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.node == node)
    }

    pub(super) fn was_heard(&self, node: NodeId, who: &Who) -> bool {
        let there =
            |of| self.waiting.as_ref().is_some_and(|it| it.heard.contains(&(of, who.clone())));
        there(None) || there(Some(node))
    }
}

/// Reading needs no details of its own.
impl Deref for Subject {
    type Target = Details;

    fn deref(&self) -> &Details {
        self.0.as_deref().unwrap_or(&NO_DETAILS)
    }
}

impl Subject {
    /// To be changed, if there are any.
    pub(super) fn known(&mut self) -> Option<&mut Details> {
        self.0.as_deref_mut()
    }

    /// To be changed.
    pub(super) fn details(&mut self) -> &mut Details {
        self.0.get_or_insert_with(|| Box::new(Details::NONE))
    }

    /// After something has ended.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.0 = None;
        }
    }

    /// Whoever asks is answered when so many replies and answers have come.
    pub(super) fn wait(&mut self, ticket: u32, missing: i64) {
        let (mails, heard) = (Vec::new(), HashSet::default());
        self.details().waiting = Some(Waiting { ticket, missing, mails, heard });
    }

    /// While parts are waited for: what was heard of them in order is newer than what any part says; `node`: of what
    /// lingers there only.
    pub(super) fn note_heard(&mut self, node: Option<NodeId>, who: &Who) {
        if let Some(waiting) = self.known().and_then(|details| details.waiting.as_mut())
            && waiting.heard.len() < HEARD_MAX
        {
            waiting.heard.insert((node, who.clone()));
        }
    }

    pub(super) fn peer(&mut self, told: Told) -> &mut Peer {
        let node = told.by.node;
        let peers = &mut self.details().peers;
        if let Some(at) = peers.iter().position(|peer| peer.node == node) {
            return &mut peers[at];
        }
        let (members, lingering) = (HashSet::default(), HashSet::default());
        let peer =
            Peer { node, told, online: false, occupied: false, count: 0, members, lingering };
        peers.push_mut(peer)
    }
}
