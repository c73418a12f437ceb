//! Questions of an operator to one core: its channels, subscribers, connections and nodes. PURE.
//!
//! Owns the state of one question (`Inspector`); changes nothing in the shard. A question is answered in slices, one a
//! tick, so that a question about all channels of a large core delays no delivery. Entries that appear or go between
//! two slices may be missed or counted twice; the answer is for people. `worker/inspect.rs` runs it.
//!
//! Limits: a slice looks at `SLICE_ENTRIES_MAX` entries, or moves as many rows to the answer; an answer has
//! `CHANNEL_ROWS_MAX` channels, rosters included, or `ROWS_MAX` of each other kind. The channels with the most
//! subscribers or users and the connections with the longest queues stay; the others are counted. Cost: a few steps for
//! each entry, and one allocation for the user of a row.

mod answer;
mod best_rows;

use std::sync::Arc;

use super::channel_key::ChannelKey;
use super::slots::ChannelSlot;
use super::{Connection, ConnectionKey, NodeId, Shard};
use crate::app::AppIndex;
use crate::pusher::socket_id::SocketId;
use crate::slot::Slot;
use best_rows::BestRows;

/// Entries that a slice looks at, or rows that it moves. A connection also counts for each of its subscriptions, of
/// which it is looked at as many.
pub(super) const SLICE_ENTRIES_MAX: u32 = 1_024;
/// Channels of an answer: those with subscribers on the core, and those of its home that only have users.
pub(super) const CHANNEL_ROWS_MAX: usize = 20_000;
/// Other rows of an answer, of each kind.
pub(super) const ROWS_MAX: usize = 1_000;
const _: () = assert!(ROWS_MAX <= SLICE_ENTRIES_MAX as usize, "members are one slice");

#[derive(Clone, Debug)]
pub enum Inspection {
    /// Channels of an app whose name contains a text.
    Channels {
        app: AppIndex,
        contains: Box<str>,
    },
    /// The subscribers of a channel, and its members if this core is its home.
    Channel {
        app: AppIndex,
        name: Box<str>,
    },
    /// Connections whose socket id or user id contains a text; of one app or of all.
    Connections {
        app: Option<AppIndex>,
        contains: Box<str>,
    },
    Connection {
        socket_id: SocketId,
    },
    /// The nodes that this core's cluster session sees.
    Nodes,
}

/// One core's share of a channel: the asker adds up the rows of all cores.
#[derive(Clone, Debug)]
pub struct ChannelRow {
    pub name: Arc<str>,
    pub subscribers: u32,
    /// Users of all nodes; only the home knows them.
    pub users: u32,
}

const _: () = assert!(size_of::<ChannelRow>() <= 24, "an answer has 20,000 of them");

/// `key` finds the connection again for an operator's action or its details.
#[derive(Clone, Debug)]
pub struct ConnectionRow {
    pub key: ConnectionKey,
    pub app: AppIndex,
    pub socket_id: SocketId,
    /// The user as whom it is signed in, or in a presence channel.
    pub user: Option<Box<str>>,
    pub channels: u32,
    pub queue_bytes: u64,
    /// `None` in the second in which it was opened (`local/openings.rs`).
    pub age_seconds: Option<u32>,
    /// Since its last message or control frame.
    pub silent_seconds: u32,
}

#[derive(Clone, Debug)]
pub struct ConnectionDetails {
    pub row: ConnectionRow,
    /// Names, `ROWS_MAX` at most. `ConnectionRow::channels` has their true number.
    pub channels: Vec<Arc<str>>,
    /// See `Local::kept_bytes`.
    pub kept_bytes: u64,
    pub is_closing: bool,
    /// Its socket's send buffer is full: the client does not read, or its network is slow.
    pub is_blocked: bool,
    /// It is closed if no pong comes.
    pub is_pinged: bool,
    pub has_signed_in: bool,
}

/// One core's answer, so far.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub channels: Vec<ChannelRow>,
    pub connections: Vec<ConnectionRow>,
    pub details: Option<Box<ConnectionDetails>>,
    /// Members of a presence channel: user id, and `user_info` as JSON.
    pub members: Vec<(Box<str>, Box<str>)>,
    /// Other nodes, and the seconds since each was seen.
    pub nodes: Vec<(NodeId, u32)>,
    pub is_session_up: bool,
    /// Channels or connections over the limit of rows.
    pub left_out: u64,
    /// Members of a presence channel that are left out.
    pub left_out_members: u64,
    /// Subscriptions of the channels that are left out.
    pub left_out_subscribers: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InspectorStage {
    /// Channels or connections of this core.
    Local,
    /// Channels whose home this core is.
    Home,
    /// The rows that were found, on their way to `Findings`.
    Rows,
}

/// A question under way: which entries the next slice looks at, and what was found so far.
#[derive(Debug)]
pub struct Inspector {
    question: Inspection,
    stage: InspectorStage,
    /// Where the next slice begins; each stage begins at 0.
    next_slot: u32,
    /// By subscribers or users, whichever is more, then by subscribers.
    channels: BestRows<ChannelRow>,
    /// By the bytes of the queue, then by age.
    connections: BestRows<ConnectionRow>,
    pub findings: Findings,
}

impl Inspector {
    #[must_use]
    pub fn new(question: Inspection) -> Self {
        Self::with_rows(question, CHANNEL_ROWS_MAX)
    }

    fn with_rows(question: Inspection, channel_rows_max: usize) -> Self {
        debug_assert!((1..=CHANNEL_ROWS_MAX).contains(&channel_rows_max), "rows of an answer");
        Self {
            question,
            stage: InspectorStage::Local,
            next_slot: 0,
            channels: BestRows::new(channel_rows_max),
            connections: BestRows::new(ROWS_MAX),
            findings: Findings::default(),
        }
    }

    /// `end`: of the table now, because it may have grown since the last slice. `None`: none is left.
    fn next_slice(&mut self, end: u32) -> Option<std::ops::Range<u32>> {
        let from = self.next_slot;
        debug_assert!(from <= end, "a table does not get shorter");
        self.next_slot = from.saturating_add(SLICE_ENTRIES_MAX).min(end);
        debug_assert!(self.next_slot - from <= SLICE_ENTRIES_MAX, "the rest is for later ticks");
        (from < end).then_some(from..self.next_slot)
    }

    fn enter(&mut self, stage: InspectorStage) {
        debug_assert!(self.stage != stage, "a stage is entered once");
        self.stage = stage;
        self.next_slot = 0;
    }

    /// Moves a slice of the rows to the findings, lowest first. `true`: none is left.
    fn move_rows(&mut self) -> bool {
        let Self { channels, connections, findings, .. } = self;
        debug_assert!(channels.is_empty() || connections.is_empty(), "a question has one kind");
        findings.channels.extend(channels.drain_lowest(SLICE_ENTRIES_MAX as usize));
        findings.connections.extend(connections.drain_lowest(SLICE_ENTRIES_MAX as usize));
        debug_assert!(
            findings.channels.len() <= CHANNEL_ROWS_MAX && findings.connections.len() <= ROWS_MAX,
            "rows of an answer"
        );
        if !channels.is_empty() || !connections.is_empty() {
            return false;
        }
        findings.left_out += channels.left_out() + connections.left_out();
        findings.left_out_subscribers += channels.left_out_rank_sum();
        true
    }
}

impl Shard {
    /// Answers a slice of a question. `true`: the answer is complete. Do not call it again then.
    pub fn inspect(&self, inspector: &mut Inspector) -> bool {
        debug_assert!(
            inspector.findings.details.is_none(),
            "a connection that was found completes the answer"
        );
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        if inspector.stage == InspectorStage::Rows {
            return inspector.move_rows();
        }
        match inspector.question.clone() {
            Inspection::Channels { app, contains } if inspector.stage == InspectorStage::Home => {
                if self.inspect_homes(inspector, app, &contains) {
                    inspector.enter(InspectorStage::Rows);
                }
                false
            }
            Inspection::Channels { app, contains } => {
                if self.inspect_channels(inspector, app, &contains) {
                    inspector.enter(InspectorStage::Home);
                }
                false
            }
            Inspection::Channel { app, name } => {
                let Ok(key) = self.context.keys.make(app, &name) else { return true };
                if inspector.stage == InspectorStage::Home {
                    self.inspect_members(inspector, &key);
                    return true;
                }
                if self.inspect_subscribers(inspector, &key) {
                    inspector.enter(InspectorStage::Home);
                }
                false
            }
            Inspection::Connections { app, contains } => {
                if self.inspect_connections(inspector, app, &contains) {
                    inspector.enter(InspectorStage::Rows);
                }
                false
            }
            Inspection::Connection { socket_id } => {
                let found = self.find_in_slice(inspector, socket_id);
                if let Some(key) = found.and_then(Result::ok) {
                    inspector.findings.details = self.details(key).map(Box::new);
                }
                found.is_some()
            }
            Inspection::Nodes => {
                if let Some(cluster) = &self.cluster {
                    inspector.findings.is_session_up = cluster.is_up;
                    inspector.findings.nodes = cluster.seen_nodes();
                }
                true
            }
        }
    }

    /// A channel whose home is this core, too, has its users in the same row.
    fn inspect_channels(&self, inspector: &mut Inspector, app: AppIndex, contains: &str) -> bool {
        debug_assert!(inspector.stage == InspectorStage::Local, "channels of this core come first");
        let table = &self.local.channels;
        let Some(slice) = inspector.next_slice(table.slots_end().number()) else { return true };
        for channel in slice.filter_map(|slot| table.get(ChannelSlot::new(slot))) {
            let key = &channel.key;
            let is_asked = key.app() == app && !channel.subscribers.is_empty();
            if is_asked && key.name().contains(contains) {
                let subscribers = count_of(channel.subscribers.len());
                let home = self.home.channels.find(key);
                let users = home.map_or(0, |home| count_of(home.user_count()));
                let row = || ChannelRow { name: key.shared_name(), subscribers, users };
                inspector.channels.add((subscribers.max(users).into(), subscribers), row);
            }
        }
        false
    }

    fn inspect_homes(&self, inspector: &mut Inspector, app: AppIndex, contains: &str) -> bool {
        debug_assert!(inspector.stage == InspectorStage::Home, "after the channels of this core");
        debug_assert!(inspector.connections.is_empty(), "a question has one kind of rows");
        let table = &self.home.channels;
        let Some(slice) = inspector.next_slice(table.slots_end().number()) else { return true };
        for home in slice.filter_map(|slot| table.get_if_used(ChannelSlot::new(slot))) {
            let (key, users) = (home.key(), count_of(home.user_count()));
            let is_asked = users > 0 && key.app() == app && key.name().contains(contains);
            if is_asked && !self.has_subscribers(key) {
                let row = || ChannelRow { name: key.shared_name(), subscribers: 0, users };
                inspector.channels.add((users.into(), 0), row);
            }
        }
        false
    }

    fn has_subscribers(&self, key: &ChannelKey) -> bool {
        let found = self.local.channels.find_key(key);
        found.is_some_and(|slot| !self.local.channels[slot].subscribers.is_empty())
    }

    fn inspect_members(&self, inspector: &mut Inspector, key: &ChannelKey) {
        let findings = &mut inspector.findings;
        debug_assert!(findings.members.is_empty(), "a roster is read once");
        if let Some(roster) = self.home.channels.find(key).and_then(|home| home.roster.as_ref()) {
            let each = roster.iter().take(ROWS_MAX);
            findings.members =
                each.map(|(id, member)| (id.clone(), member.user_info().into())).collect();
            findings.left_out_members = roster.iter().skip(ROWS_MAX).len() as u64;
            debug_assert_eq!(
                findings.members.len() as u64 + findings.left_out_members,
                roster.iter().len() as u64,
                "each member is shown or counted"
            );
        }
    }

    fn inspect_subscribers(&self, inspector: &mut Inspector, key: &ChannelKey) -> bool {
        let Some(slot) = self.local.channels.find_key(key) else { return true };
        let subscribers = &self.local.channels[slot].subscribers;
        let Inspector { findings, next_slot, .. } = inspector;
        if *next_slot == 0 {
            let (name, count) = (key.shared_name(), count_of(subscribers.len()));
            findings.channels.push(ChannelRow { name, subscribers: count, users: 0 });
            findings.left_out += subscribers.len().saturating_sub(ROWS_MAX) as u64;
        }
        let mut looked_at = 0;
        for subscriber in subscribers.iter().take(ROWS_MAX).skip(*next_slot as usize) {
            if looked_at >= SLICE_ENTRIES_MAX {
                return false;
            }
            *next_slot += 1;
            let Some(found) = self.local.connections.get(subscriber.slot) else { continue };
            looked_at += 1 + count_of(found.subscriptions.len());
            let at = subscriber.subscription_index as usize;
            debug_assert!(at < found.subscriptions.len(), "both sides name each other's place");
            let member = found.subscriptions.get(at).and_then(|one| one.member.as_deref());
            let user = member.map(|user| &*user.text).or_else(|| user_id_of(found));
            findings.connections.push(self.connection_row(subscriber.slot, found, user));
        }
        debug_assert!(inspector.findings.connections.len() <= ROWS_MAX, "rows of an answer");
        true
    }

    fn inspect_connections(
        &self,
        inspector: &mut Inspector,
        app: Option<AppIndex>,
        contains: &str,
    ) -> bool {
        debug_assert!(inspector.stage == InspectorStage::Local, "connections are in one table");
        let table = &self.local.connections;
        let Some(slice) = inspector.next_slice(table.slots_end().number()) else { return true };
        let mut looked_at = 0;
        for number in slice {
            if looked_at >= SLICE_ENTRIES_MAX {
                inspector.next_slot = number;
                break;
            }
            looked_at += 1;
            let slot = Slot::new(number);
            let Some(found) = table.get(slot) else { continue };
            if !found.is_counted() || app.is_some_and(|app| app != found.app) {
                continue;
            }
            looked_at += count_of(found.subscriptions.len());
            let user = user_id_of(found);
            let is_asked = contains.is_empty()
                || user.is_some_and(|user| user.contains(contains))
                || found.socket_id.to_string().contains(contains);
            if is_asked {
                let rank =
                    (found.send_queue.bytes() as u64, self.age_seconds_of(found).unwrap_or(0));
                inspector.connections.add(rank, || self.connection_row(slot, found, user));
            }
        }
        false
    }

    /// Looks for a connection in one slice: `None` if it may be in a later one, `Err` if there is none.
    pub fn find_in_slice(
        &self,
        inspector: &mut Inspector,
        socket_id: SocketId,
    ) -> Option<Result<ConnectionKey, ()>> {
        debug_assert!(inspector.stage == InspectorStage::Local, "connections are in one table");
        let table = &self.local.connections;
        let Some(slice) = inspector.next_slice(table.slots_end().number()) else {
            return Some(Err(()));
        };
        let mut each = slice.map(Slot::new).filter_map(|slot| Some((slot, table.get(slot)?)));
        let (slot, found) = each.find(|(_, one)| one.is_counted() && one.socket_id == socket_id)?;
        Some(Ok(ConnectionKey { slot, generation: found.generation }))
    }

    fn details(&self, key: ConnectionKey) -> Option<ConnectionDetails> {
        let found = self.local.get(key)?;
        debug_assert!(
            !found.is_closing || found.subscriptions.is_empty(),
            "a closing connection is in no channel"
        );
        let channels = found.subscriptions.iter().take(ROWS_MAX);
        let channels = channels.filter_map(|one| self.local.channels.get(one.channel));
        Some(ConnectionDetails {
            row: self.connection_row(key.slot, found, user_id_of(found)),
            channels: channels.map(|channel| channel.key.shared_name()).collect(),
            kept_bytes: self.kept_bytes(key) as u64,
            is_closing: found.is_closing,
            is_blocked: found.is_blocked,
            is_pinged: found.awaits_pong,
            has_signed_in: found.signed_in().is_some(),
        })
    }

    fn age_seconds_of(&self, found: &Connection) -> Option<u32> {
        let opened = self.local.openings.opened_second(found.generation)?;
        debug_assert!(opened <= self.context.now_seconds, "it was opened before now");
        Some(self.context.now_seconds.saturating_sub(opened))
    }

    fn connection_row(&self, slot: Slot, found: &Connection, user: Option<&str>) -> ConnectionRow {
        debug_assert!(found.is_counted(), "an open connection");
        let now = self.context.now_seconds;
        ConnectionRow {
            key: ConnectionKey { slot, generation: found.generation },
            app: found.app,
            socket_id: found.socket_id,
            user: user.map(Into::into),
            channels: count_of(found.subscriptions.len()),
            queue_bytes: found.send_queue.bytes() as u64,
            age_seconds: self.age_seconds_of(found),
            silent_seconds: now.saturating_sub(found.last_inbound_seconds),
        }
    }
}

fn user_id_of(connection: &Connection) -> Option<&str> {
    let signed_in = connection.signed_in().map(|signed_in| &*signed_in.user.text);
    let looked_at = connection.subscriptions.iter().take(SLICE_ENTRIES_MAX as usize);
    let mut members = looked_at.filter_map(|one| one.member.as_deref());
    signed_in.or_else(|| members.next().map(|user| &*user.text))
}

fn count_of(entries: usize) -> u32 {
    u32::try_from(entries).unwrap_or(u32::MAX)
}
