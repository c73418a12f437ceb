//! One event of a webhook and its JSON (docs/PROTOCOL.md rule 75). PURE. Plain values.
//!
//! The shard creates events and `webhook` delivers them. Owns their JSON; does not know batches, signatures or
//! endpoints. Names and texts are those of the channel or client event; the caller has limited them. Limits: those of
//! the channel's name, of a user id and of a client event's data. Cost: `write` is linear in the texts, which it
//! copies, and makes at most three small allocations.

use std::sync::Arc;

use super::json;
use super::socket_id::SocketId;
use crate::app::{AppIndex, WebhookKind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookEvent {
    pub app: AppIndex,
    pub channel: Arc<str>,
    pub happening: Happening,
}

/// Transitions are those of all nodes together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The first subscriber joined.
    Occupied,
    /// The last subscriber left.
    Vacated,
    /// A user's first connection joined.
    MemberAdded {
        user_id: Box<str>,
    },
    /// A user's last connection left.
    MemberRemoved {
        user_id: Box<str>,
    },
    /// A connection subscribed to a cache channel without a cached event.
    CacheMiss,
    /// The number of subscribers changed.
    SubscriptionCount {
        count: u64,
    },
    ClientEvent(Box<ClientEventReport>),
}

/// A client event that was sent to the other subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientEventReport {
    /// Name and data as raw JSON spans of the client's message.
    pub event: Box<str>,
    pub data: Box<str>,
    pub socket_id: SocketId,
    /// The sender's user id: only of a presence channel.
    pub user_id: Option<Box<str>>,
}

impl WebhookEvent {
    #[must_use]
    pub fn kind(&self) -> WebhookKind {
        match self.happening {
            Happening::Occupied => WebhookKind::ChannelOccupied,
            Happening::Vacated => WebhookKind::ChannelVacated,
            Happening::MemberAdded { .. } => WebhookKind::MemberAdded,
            Happening::MemberRemoved { .. } => WebhookKind::MemberRemoved,
            Happening::CacheMiss => WebhookKind::CacheMiss,
            Happening::SubscriptionCount { .. } => WebhookKind::SubscriptionCount,
            Happening::ClientEvent(_) => WebhookKind::ClientEvent,
        }
    }

    /// Appends the event as an object. `data` of a client event is a string, as Pusher posts it: any other value is put
    /// into one.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut member = |name: &str, value: &str| {
            out.extend_from_slice(name.as_bytes());
            json::write_string(value, out);
        };
        member("{\"name\":", self.kind().name());
        member(",\"channel\":", &self.channel);
        match &self.happening {
            Happening::Occupied | Happening::Vacated | Happening::CacheMiss => {}
            Happening::MemberAdded { user_id } | Happening::MemberRemoved { user_id } => {
                member(",\"user_id\":", user_id);
            }
            Happening::SubscriptionCount { count } => {
                out.extend_from_slice(format!(",\"subscription_count\":{count}").as_bytes());
            }
            Happening::ClientEvent(report) => {
                member(",\"event\":", &json::string(&report.event).unwrap_or_default());
                member(",\"data\":", &json::string(&report.data).unwrap_or((&*report.data).into()));
                member(",\"socket_id\":", &report.socket_id.to_string());
                if let Some(user_id) = &report.user_id {
                    member(",\"user_id\":", user_id);
                }
            }
        }
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(what: Happening, expected: &str) {
        let event =
            WebhookEvent { app: AppIndex(0), channel: "presence-a\"b".into(), happening: what };
        let mut out = Vec::new();
        event.write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn webhook_events_are_those_of_pusher() {
        check(Happening::Occupied, r#"{"name":"channel_occupied","channel":"presence-a\"b"}"#);
        check(Happening::Vacated, r#"{"name":"channel_vacated","channel":"presence-a\"b"}"#);
        check(Happening::CacheMiss, r#"{"name":"cache_miss","channel":"presence-a\"b"}"#);
        check(
            Happening::MemberAdded { user_id: "7".into() },
            r#"{"name":"member_added","channel":"presence-a\"b","user_id":"7"}"#,
        );
        check(
            Happening::SubscriptionCount { count: 3 },
            r#"{"name":"subscription_count","channel":"presence-a\"b","subscription_count":3}"#,
        );
        let report = ClientEventReport {
            event: "\"client-x\"".into(),
            data: "{\"a\":\"b\"}".into(),
            socket_id: SocketId::parse("1.2").unwrap(),
            user_id: Some("7".into()),
        };
        check(
            Happening::ClientEvent(Box::new(report.clone())),
            concat!(
                r#"{"name":"client_event","channel":"presence-a\"b","event":"client-x","#,
                r#""data":"{\"a\":\"b\"}","socket_id":"1.2","user_id":"7"}"#
            ),
        );
        let report = ClientEventReport { data: r#""te\"xt""#.into(), user_id: None, ..report };
        check(
            Happening::ClientEvent(Box::new(report)),
            r#"{"name":"client_event","channel":"presence-a\"b","event":"client-x","data":"te\"xt","socket_id":"1.2"}"#,
        );
    }
}
