//! What a core has found, as the answer to a question of another node: apps by their ids, and within bounds. PURE.
//!
//! Inputs: `Findings` of an inspection. Output: `NodeRows` or `NodeConnectionDetails`, by mail to the core that gathers
//! the answers. Limits: `OPERATOR_ORDERS_MAX` questions that wait, `ANSWER_BYTES_MAX` for an answer. Rows over it are
//! left out and counted: the channels with the fewest subscribers, and the connections with the shortest queues.

use std::cmp::Reverse;

use super::{ChannelRow, ConnectionDetails, ConnectionRow, Findings, Inspection};
use crate::app::Apps;
use crate::shard::Shard;
use crate::shard::mail::Mail;
use crate::shard::operator::{
    ANSWER_BYTES_MAX, NodeChannelRow, NodeConnectionDetails, NodeConnectionRow, NodeRows,
    OPERATOR_ORDERS_MAX, OperatorAnswer, OperatorOrder, OperatorOutcome, OperatorQuestion,
};
use crate::shard::outbox::GatherAnswer;
use crate::shard::query::Answer;

/// Bytes of the numbers of a row, at most.
const ROW_NUMBERS_BYTES: usize = 48;

/// The room that is left for rows.
struct AnswerRoom(usize);

impl AnswerRoom {
    fn reserve(&mut self, texts: usize) -> bool {
        let left = self.0.checked_sub(texts + ROW_NUMBERS_BYTES);
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
            Self::Connection { socket_id } | Self::EndAccess { socket_id, .. } => {
                Inspection::Connection { socket_id }
            }
        })
    }
}

impl ConnectionRow {
    /// The row as other nodes read it.
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
    /// The inside as other nodes read it, without what only the kernel knows.
    #[must_use]
    pub fn to_node_answer(self, apps: &Apps) -> NodeConnectionDetails {
        let row = self.connection_row.to_node_answer(apps);
        let mut room = AnswerRoom(ANSWER_BYTES_MAX);
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
    /// The rows as other nodes read them, as many as fit.
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
        self.channels.sort_by_key(|row| Reverse((row.subscribers, row.users)));
        for ChannelRow { name, subscribers, users } in self.channels {
            if room.reserve(name.len()) {
                rows.channels.push(NodeChannelRow { name: (&*name).into(), subscribers, users });
            } else if subscribers > 0 {
                // A roster is no row of its own: its channel is.
                rows.left_out += 1;
                rows.left_out_subscribers += u64::from(subscribers);
            }
        }
        room = AnswerRoom(room.0 + ANSWER_BYTES_MAX / 3);
        self.connections.sort_by_key(|row| Reverse((row.queue_bytes, row.age_seconds)));
        for connection in self.connections {
            let row = connection.to_node_answer(apps);
            if room.reserve(row.app.len() + row.user.as_ref().map_or(0, |user| user.len())) {
                rows.connections.push(row);
            } else {
                rows.left_out += 1;
            }
        }
        rows
    }
}

impl Shard {
    /// A question of another node's operator, for the worker. Over the limit it is answered at once.
    pub fn queue_operator_order(&mut self, order: OperatorOrder) {
        if self.outbox.orders.len() < OPERATOR_ORDERS_MAX {
            return self.outbox.orders.push_back(order);
        }
        if let Some((cluster, mut here)) = self.clustered() {
            let why = format!(
                "more than {OPERATOR_ORDERS_MAX} questions of operators wait: one was refused"
            );
            cluster.note_refused(&mut here, &why);
        }
        self.answer_operator_order(&order, "", OperatorOutcome::Busy);
    }

    /// Sends this core's answer to the core that gathers them.
    pub fn answer_operator_order(
        &mut self,
        order: &OperatorOrder,
        host: &str,
        outcome: OperatorOutcome,
    ) {
        let core = self.context.core();
        let node = self.context.settings.node.map_or(0, |node| node.0);
        let answer = OperatorAnswer { node, host: host.into(), core, outcome };
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
