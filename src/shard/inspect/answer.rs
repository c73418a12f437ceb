//! What a core has found, as the answer to a question of another node: apps by their ids, and within bounds. PURE.
//!
//! Owns the choice of the rows that fit, and the queue discipline of orders that wait (`Outbox::orders`). Does not send
//! bytes. Inputs: `Findings` of an inspection. Output: `NodeRows` or `NodeConnectionDetails`, by mail to the core that
//! gathers the answers.
//!
//! Limits: `OPERATOR_ORDERS_MAX` questions that wait, for `ORDER_TIME_MS`; `ANSWER_BYTES_MAX` for an answer. Rows over
//! it are left out and counted: the channels with the fewest subscribers and users, and the connections with the
//! shortest queues. Cost: the last slice sorts and copies `ANSWER_ROWS_MAX` channels and `ROWS_MAX` other rows of each
//! kind at most.

use std::cmp::Reverse;

use super::{
    CHANNEL_ROWS_MAX, ChannelRow, ConnectionDetails, ConnectionRow, Findings, Inspection, Inspector,
};
use crate::app::Apps;
use crate::shard::Shard;
use crate::shard::mail::Mail;
use crate::shard::operator::{
    ANSWER_BYTES_MAX, NodeChannelRow, NodeConnectionDetails, NodeConnectionRow, NodeRows,
    OPERATOR_ORDERS_MAX, ORDER_TIME_MS, OperatorAnswer, OperatorOrder, OperatorOutcome,
    OperatorQuestion,
};
use crate::shard::outbox::GatherAnswer;
use crate::shard::query::Answer;

/// The most that the numbers of a row take in the encoded answer.
const ROW_NUMBERS_BYTES: usize = 48;
/// Rows that fit into an answer if their texts are empty. A question of another node keeps no more.
const ANSWER_ROWS_MAX: usize = ANSWER_BYTES_MAX / ROW_NUMBERS_BYTES;
const _: () = assert!(ANSWER_ROWS_MAX <= CHANNEL_ROWS_MAX, "fewer than for this node's operator");
/// Bytes of an address and a port as text, at most: `[` and 39 characters, `]:` and a port.
const ADDRESS_BYTES_MAX: usize = 47;

/// Bytes that are left for rows.
struct AnswerRoom(usize);

impl AnswerRoom {
    fn reserve(&mut self, texts: usize) -> bool {
        let left = self.0.checked_sub(texts + ROW_NUMBERS_BYTES);
        debug_assert!(left.is_none_or(|left| left < self.0), "a row takes room");
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

impl OperatorQuestion {
    /// What a core looks for. `None`: this node does not have the app.
    #[must_use]
    pub fn inspection(&self, apps: &Apps) -> Option<Inspection> {
        Some(match self.clone() {
            Self::Channels { app, contains } => {
                Inspection::Channels { app: apps.by_id(&app)?, contains }
            }
            Self::Channel { app, name } => Inspection::Channel { app: apps.by_id(&app)?, name },
            Self::Connections { app: None, contains } => {
                Inspection::Connections { app: None, contains }
            }
            Self::Connections { app: Some(app), contains } => {
                Inspection::Connections { app: Some(apps.by_id(&app)?), contains }
            }
            Self::Connection { socket_id }
            | Self::EndAccess { socket_id, .. }
            | Self::EndAccessUntil { socket_id, .. } => Inspection::Connection { socket_id },
        })
    }
}

impl Inspector {
    /// For a question of another node: keeps only as many channels as its answer has room for.
    #[must_use]
    pub fn for_node(question: Inspection) -> Self {
        Self::with_rows(question, ANSWER_ROWS_MAX)
    }
}

impl ConnectionRow {
    #[must_use]
    pub fn to_node_answer(&self, apps: &Apps) -> NodeConnectionRow {
        NodeConnectionRow {
            socket_id: self.socket_id,
            app: apps.id_of(self.app).into(),
            user: self.user.clone(),
            channels: self.channels,
            queue_bytes: self.queue_bytes,
            age_seconds: self.age_seconds,
            silent_seconds: self.silent_seconds,
        }
    }
}

impl ConnectionDetails {
    /// The worker adds the address, the round trip and TLS, which only it and the kernel know.
    #[must_use]
    pub fn to_node_answer(self, apps: &Apps) -> NodeConnectionDetails {
        let row = self.row.to_node_answer(apps);
        let mut room = AnswerRoom(ANSWER_BYTES_MAX);
        // The largest of an app's id, a user and an address is a few KiB, so these always find room.
        let texts = row.text_bytes() + ADDRESS_BYTES_MAX;
        let has_room = room.reserve(texts);
        debug_assert!(has_room, "{texts} bytes of a row");
        let names = self.channels.iter().take_while(|name| room.reserve(name.len()));
        NodeConnectionDetails {
            row,
            channel_names: names.map(|name| (&**name).into()).collect(),
            address: None,
            round_trip: None,
            kept_bytes: self.kept_bytes,
            is_tls: false,
            is_closing: self.is_closing,
            is_blocked: self.is_blocked,
            is_pinged: self.is_pinged,
            has_signed_in: self.has_signed_in,
        }
    }
}

impl Findings {
    /// As many rows as fit; the others are counted.
    #[must_use]
    pub fn to_node_answer(mut self, apps: &Apps) -> NodeRows {
        let mut rows = NodeRows {
            left_out: self.left_out,
            left_out_members: self.left_out_members,
            left_out_subscribers: self.left_out_subscribers,
            ..NodeRows::default()
        };
        // A third each at most, if there are several kinds.
        let mut room = AnswerRoom(ANSWER_BYTES_MAX / 3);
        for (id, info) in self.members {
            if room.reserve(id.len() + info.len()) {
                rows.members.push((id, info));
            } else {
                rows.left_out_members += 1;
            }
        }
        room = AnswerRoom(room.0 + ANSWER_BYTES_MAX / 3);
        // By what is more: of a channel whose subscribers are on other nodes, this core may have the users only.
        self.channels.sort_by_key(|row| Reverse((row.subscribers.max(row.users), row.subscribers)));
        for ChannelRow { name, subscribers, users } in self.channels {
            if room.reserve(name.len()) {
                rows.channels.push(NodeChannelRow { name: (&*name).into(), subscribers, users });
            } else {
                rows.left_out += 1;
                rows.left_out_subscribers += u64::from(subscribers);
            }
        }
        room = AnswerRoom(room.0 + ANSWER_BYTES_MAX / 3);
        self.connections.sort_by_key(|row| Reverse((row.queue_bytes, row.age_seconds)));
        for connection in self.connections {
            let row = connection.to_node_answer(apps);
            if room.reserve(row.text_bytes()) {
                rows.connections.push(row);
            } else {
                rows.left_out += 1;
            }
        }
        let count = rows.members.len() + rows.channels.len() + rows.connections.len();
        debug_assert!(count <= ANSWER_ROWS_MAX, "{count} rows fit into an answer");
        rows
    }
}

impl Shard {
    /// For the worker, which answers in slices. Over the limit the answer is `Busy` at once.
    pub fn queue_operator_order(&mut self, order: OperatorOrder) {
        let metrics = self.context.metrics();
        if self.outbox.orders.len() < OPERATOR_ORDERS_MAX {
            self.outbox.orders.push_back(order);
            debug_assert!(self.outbox.orders.len() <= OPERATOR_ORDERS_MAX, "there was room");
            return metrics.operator_orders.set(self.outbox.orders.len() as u64);
        }
        metrics.operator_orders_refused.add(1);
        if let Some((cluster, mut here)) = self.clustered() {
            let why = format!(
                "more than {OPERATOR_ORDERS_MAX} questions of operators wait: one was refused"
            );
            cluster.note_refused(&mut here, &why);
        }
        self.answer_operator_order(&order, "", OperatorOutcome::Busy);
    }

    /// The oldest order whose asker still waits. A late one is not carried out: the operator was answered without this
    /// node, so a connection must not be ended then. The core that gathers the answers needs one all the same.
    pub fn next_operator_order(&mut self, unix_ms: u64) -> Option<OperatorOrder> {
        let now = self.now();
        while let Some(order) = self.outbox.orders.pop_front() {
            let metrics = self.context.metrics();
            metrics.operator_orders.set(self.outbox.orders.len() as u64);
            if !order.is_late(now, unix_ms) {
                return Some(order);
            }
            self.refuse_late_operator_order(&order, unix_ms);
        }
        None
    }

    /// Answers `Busy`, because the core that gathers the answers needs one from each core. An action that came late by
    /// the clocks of the two hosts has a line, of one core for all: if their clocks differ, every action of that node
    /// ends here.
    pub fn refuse_late_operator_order(&mut self, order: &OperatorOrder, unix_ms: u64) {
        debug_assert!(order.is_late(self.now(), unix_ms), "only a late one is refused");
        self.context.metrics().operator_orders_refused.add(1);
        let age_ms = order.question.overdue_age_ms(unix_ms);
        if let Some(age_ms) = age_ms.filter(|_| order.gathering_core == self.context.core()) {
            let (seconds, tenths) = (age_ms / 1_000, age_ms % 1_000 / 100);
            self.outbox.log_line(format!(
                "an operator of another node wanted to end a connection or a subscription, and this was not done: by \
                 the clocks of both hosts the request is {seconds}.{tenths} s old, and the limit is {} s. If this \
                 happens to every such request, the clocks differ by about that time: run NTP on both hosts",
                ORDER_TIME_MS / 1_000
            ));
        }
        self.answer_operator_order(order, "", OperatorOutcome::Busy);
    }

    /// Sends this core's one answer to the core that gathers them. `host`: empty where the shard answers by itself.
    pub fn answer_operator_order(
        &mut self,
        order: &OperatorOrder,
        host: &str,
        outcome: OperatorOutcome,
    ) {
        let core = self.context.core();
        debug_assert!(order.gathering_core < self.context.settings.cores, "a core of this node");
        let node = self.context.settings.node.map_or(0, |node| node.0);
        let answer = OperatorAnswer { node, host: host.into(), core, outcome };
        debug_assert!(!answer.had_no_memory(), "only a node that asks says so of itself");
        let answer = Answer::Operator(Box::new(answer));
        if order.gathering_core == core {
            self.outbox.answered.push(GatherAnswer::Core { id: order.question_number, answer });
        } else {
            self.outbox
                .mails
                .push((order.gathering_core, Mail::Answer { id: order.question_number, answer }));
        }
    }
}
