//! Questions of an operator to one core: its channels, subscribers, connections and nodes. PURE.
//!
//! A question is answered in slices, one a tick: a slice looks at `SLICE_ENTRIES_MAX` entries at most, so that a
//! question about all channels of a large core delays no delivery. Entries that appear or go between two slices may be
//! missed or counted twice; the answer is for people. Limits: `CHANNEL_ROWS_MAX` and `ROWS_MAX` for each answer, up to
//! twice that while it is made. Over the limit, the channels with the most subscribers and the connections with the
//! longest queues stay. What is left out is counted, and the asker is shown the number. `worker/inspect.rs` runs it.

mod answer;

use std::sync::Arc;

use super::slots::ChannelSlot;
use super::{Connection, ConnectionKey, NodeId, Shard};
use crate::app::AppIndex;
use crate::pusher::socket_id::SocketId;
use crate::slot::Slot;

/// Entries that a slice looks at.
pub(super) const SLICE_ENTRIES_MAX: u32 = 1_024;
/// Channels of an answer.
pub(super) const CHANNEL_ROWS_MAX: usize = 20_000;
/// Other rows of an answer.
pub(super) const ROWS_MAX: usize = 1_000;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Inspection {
    /// Channels of an app whose name contains a text.
    Channels { app: AppIndex, contains: Box<str> },
    /// The subscribers of a channel, and its members if this core is its home.
    Channel { app: AppIndex, name: Box<str> },
    /// Connections whose socket id or user id contains a text; of one app or of all.
    Connections { app: Option<AppIndex>, contains: Box<str> },
    /// One connection.
    Connection { socket_id: SocketId },
    /// The nodes that this core's cluster session sees.
    Nodes,
}

/// A channel on one core.
#[derive(Clone, Debug)]
pub struct ChannelRow {
    pub name: Arc<str>,
    /// Connections of this core.
    pub subscribers: u32,
    /// Users of all nodes; only the home knows them.
    pub users: u32,
}

/// A connection as a list shows it.
#[derive(Clone, Debug)]
pub struct ConnectionRow {
    pub key: ConnectionKey,
    pub app: AppIndex,
    pub socket_id: SocketId,
    /// The user as whom it is signed in, or in a presence channel.
    pub user: Option<Box<str>>,
    pub channels: u32,
    pub queue_bytes: u64,
    /// For how long it is open, if that is known.
    pub age_seconds: Option<u32>,
    /// Since its last message or frame.
    pub silent_seconds: u32,
}

/// The inside of one connection.
#[derive(Clone, Debug)]
pub struct ConnectionDetails {
    pub connection_row: ConnectionRow,
    /// Names of the channels, `ROWS_MAX` at most.
    pub channels: Vec<Arc<str>>,
    /// Bytes that it makes the server keep.
    pub kept_bytes: u64,
    pub is_closing: bool,
    /// The kernel has no room for what it is sent.
    pub is_blocked: bool,
    /// A ping is unanswered.
    pub is_pinged: bool,
    pub has_signed_in: bool,
}

/// What a core has found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub channels: Vec<ChannelRow>,
    pub connections: Vec<ConnectionRow>,
    pub details: Option<Box<ConnectionDetails>>,
    /// Members of a presence channel: user id, and `user_info` as JSON.
    pub members: Vec<(Box<str>, Box<str>)>,
    /// Other nodes, and the seconds since each was seen.
    pub nodes: Vec<(NodeId, u32)>,
    /// The cluster session is up.
    pub is_session_up: bool,
    /// Rows that are left out. A roster that is left out is not counted: its channel is.
    pub left_out: u64,
    /// Members of a presence channel that are left out.
    pub left_out_members: u64,
    /// Subscriptions of the channels that are left out.
    pub left_out_subscribers: u64,
}

/// A question in progress.
#[derive(Debug)]
pub struct Inspector {
    question: Inspection,
    /// The next entry of the table that it walks over.
    next_slot: u32,
    /// The local table is done.
    walks_homes: bool,
    /// By subscribers.
    channels: BestRows<ChannelRow>,
    /// Channels whose home is this core, by users.
    rosters: BestRows<ChannelRow>,
    /// By the bytes of the queue, then by age.
    connections: BestRows<ConnectionRow>,
    pub findings: Findings,
}

impl Inspector {
    #[must_use]
    pub fn new(question: Inspection) -> Self {
        Self {
            question,
            next_slot: 0,
            walks_homes: false,
            channels: BestRows::new(CHANNEL_ROWS_MAX),
            rosters: BestRows::new(CHANNEL_ROWS_MAX),
            connections: BestRows::new(ROWS_MAX),
            findings: Findings::default(),
        }
    }

    /// The next entries, if the table has any left.
    fn next_slice(&mut self, end: u32) -> Option<std::ops::Range<u32>> {
        let from = self.next_slot;
        self.next_slot = from.saturating_add(SLICE_ENTRIES_MAX).min(end);
        (from < end).then_some(from..self.next_slot)
    }

    /// Moves the rows of tables to the findings.
    fn finish(&mut self) {
        let Self { channels, rosters, connections, findings, .. } = self;
        for best in [&mut *channels, rosters] {
            best.drop_lower();
            findings.channels.extend(best.rows.drain(..).map(|(_, row)| row));
        }
        connections.drop_lower();
        findings.connections.extend(connections.rows.drain(..).map(|(_, row)| row));
        findings.left_out += channels.left_out + connections.left_out;
        findings.left_out_subscribers += channels.left_out_rank_sum;
    }
}

/// The rows of the highest ranks, `most` of them. It keeps up to twice as many and then drops the lower half, so that a
/// row costs constant time on average. A rank is a number, and another one that decides between equals.
#[derive(Debug)]
struct BestRows<R> {
    rows: Vec<((u64, u32), R)>,
    rows_max: usize,
    /// No row of this rank or a lower one can be among the highest.
    lowest_rank: Option<(u64, u32)>,
    left_out: u64,
    /// The first numbers of the ranks of what is left out.
    left_out_rank_sum: u64,
}

impl<R> BestRows<R> {
    fn new(rows_max: usize) -> Self {
        Self { rows: Vec::new(), rows_max, lowest_rank: None, left_out: 0, left_out_rank_sum: 0 }
    }

    fn add(&mut self, rank: (u64, u32), row: impl FnOnce() -> R) {
        if self.lowest_rank.is_some_and(|floor| rank <= floor) {
            self.left_out += 1;
            self.left_out_rank_sum += rank.0;
            return;
        }
        self.rows.push((rank, row()));
        if self.rows.len() >= 2 * self.rows_max {
            self.drop_lower();
        }
    }

    fn drop_lower(&mut self) {
        if self.rows.len() <= self.rows_max {
            return;
        }
        self.rows
            .select_nth_unstable_by_key(self.rows_max - 1, |(rank, _)| std::cmp::Reverse(*rank));
        for ((number, _), _) in self.rows.drain(self.rows_max..) {
            self.left_out += 1;
            self.left_out_rank_sum += number;
        }
        self.lowest_rank = self.rows.last().map(|(rank, _)| *rank);
    }
}

impl Shard {
    /// Answers a slice of a question. `true`: the answer is complete.
    pub fn inspect(&self, inspector: &mut Inspector) -> bool {
        let is_complete = self.inspect_slice(inspector);
        if is_complete {
            inspector.finish();
        }
        is_complete
    }

    fn inspect_slice(&self, inspector: &mut Inspector) -> bool {
        match inspector.question.clone() {
            Inspection::Channels { app, contains } if inspector.walks_homes => {
                self.inspect_homes(inspector, app, &contains)
            }
            Inspection::Channels { app, contains } => {
                inspector.walks_homes = self.inspect_channels(inspector, app, &contains);
                inspector.next_slot *= u32::from(!inspector.walks_homes);
                false
            }
            Inspection::Channel { app, name } => self.inspect_channel(inspector, app, &name),
            Inspection::Connections { app, contains } => {
                self.inspect_connections(inspector, app, &contains)
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

    fn inspect_channels(&self, inspector: &mut Inspector, app: AppIndex, contains: &str) -> bool {
        let table = &self.local.channels;
        let Some(slice) = inspector.next_slice(table.slots_end().number()) else { return true };
        for channel in slice.filter_map(|slot| table.get(ChannelSlot::new(slot))) {
            let key = &channel.key;
            let is_asked = key.app() == app && !channel.subscribers.is_empty();
            if is_asked && key.name().contains(contains) {
                let subscribers = u32::try_from(channel.subscribers.len()).unwrap_or(u32::MAX);
                let row = || ChannelRow { name: key.shared_name(), subscribers, users: 0 };
                inspector.channels.add((subscribers.into(), 0), row);
            }
        }
        false
    }

    fn inspect_homes(&self, inspector: &mut Inspector, app: AppIndex, contains: &str) -> bool {
        let table = &self.home.channels;
        let Some(slice) = inspector.next_slice(table.slots_end().number()) else { return true };
        for home in slice.filter_map(|slot| table.get_if_used(ChannelSlot::new(slot))) {
            let (key, users) = (home.key(), home.user_count());
            if users > 0 && key.app() == app && key.name().contains(contains) {
                let users = u32::try_from(users).unwrap_or(u32::MAX);
                let row = || ChannelRow { name: key.shared_name(), subscribers: 0, users };
                inspector.rosters.add((users.into(), 0), row);
            }
        }
        false
    }

    fn inspect_channel(&self, inspector: &mut Inspector, app: AppIndex, name: &str) -> bool {
        let Ok(key) = self.context.keys.make(app, name) else { return true };
        let findings = &mut inspector.findings;
        if let Some(roster) = self.home.channels.find(&key).and_then(|home| home.roster.as_ref()) {
            let each = roster.iter().take(ROWS_MAX);
            findings.members =
                each.map(|(id, member)| (id.clone(), member.user_info().into())).collect();
            findings.left_out_members = roster.iter().skip(ROWS_MAX).len() as u64;
        }
        if let Some(slot) = self.local.channels.find_key(&key) {
            let subscribers = &self.local.channels[slot].subscribers;
            let name = key.shared_name();
            let count = u32::try_from(subscribers.len()).unwrap_or(u32::MAX);
            findings.channels.push(ChannelRow { name, subscribers: count, users: 0 });
            for subscriber in subscribers.iter().take(ROWS_MAX) {
                let Some(found) = self.local.connections.get(subscriber.slot) else { continue };
                let at = subscriber.subscription_index as usize;
                let member = found.subscriptions.get(at).and_then(|one| one.member.as_deref());
                let user = member.map(|user| user.text.clone());
                let row = self.connection_row(subscriber.slot, found);
                findings.connections.push(ConnectionRow { user: user.or(row.user), ..row });
            }
            findings.left_out += subscribers.len().saturating_sub(ROWS_MAX) as u64;
        }
        true
    }

    fn inspect_connections(
        &self,
        inspector: &mut Inspector,
        app: Option<AppIndex>,
        contains: &str,
    ) -> bool {
        let table = &self.local.connections;
        let Some(slice) = inspector.next_slice(table.slots_end().number()) else { return true };
        for (slot, found) in slice.map(Slot::new).filter_map(|slot| Some((slot, table.get(slot)?)))
        {
            if !found.is_counted() || app.is_some_and(|app| app != found.app) {
                continue;
            }
            let is_asked = contains.is_empty()
                || user_id_of(found).is_some_and(|user| user.contains(contains))
                || found.socket_id.to_string().contains(contains);
            if is_asked {
                let rank =
                    (found.send_queue.bytes() as u64, self.age_seconds_of(found).unwrap_or(0));
                inspector.connections.add(rank, || self.connection_row(slot, found));
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
        let channels = found.subscriptions.iter().take(ROWS_MAX);
        let channels = channels.filter_map(|one| self.local.channels.get(one.channel));
        Some(ConnectionDetails {
            connection_row: self.connection_row(key.slot, found),
            channels: channels.map(|channel| channel.key.shared_name()).collect(),
            kept_bytes: self.kept_bytes(key) as u64,
            is_closing: found.closing,
            is_blocked: found.blocked,
            is_pinged: found.awaits_pong,
            has_signed_in: found.signed_in().is_some(),
        })
    }

    /// In seconds.
    fn age_seconds_of(&self, found: &Connection) -> Option<u32> {
        let opened = self.local.openings.opened_second(found.generation)?;
        Some(self.context.now_seconds.saturating_sub(opened))
    }

    fn connection_row(&self, slot: Slot, found: &Connection) -> ConnectionRow {
        let now = self.context.now_seconds;
        ConnectionRow {
            key: ConnectionKey { slot, generation: found.generation },
            app: found.app,
            socket_id: found.socket_id,
            user: user_id_of(found).map(Into::into),
            channels: u32::try_from(found.subscriptions.len()).unwrap_or(u32::MAX),
            queue_bytes: found.send_queue.bytes() as u64,
            age_seconds: self.age_seconds_of(found),
            silent_seconds: now.saturating_sub(found.last_inbound_seconds),
        }
    }
}

fn user_id_of(connection: &Connection) -> Option<&str> {
    let signed_in = connection.signed_in().map(|signed_in| &*signed_in.user.text);
    let mut members = connection.subscriptions.iter().filter_map(|one| one.member.as_deref());
    signed_in.or_else(|| members.next().map(|user| &*user.text))
}
