//! An endpoint of an app's backend: its URL, and which events it wants (docs/PROTOCOL.md C10).
//!
//! Plain values of the configuration. `pusher/webhook_event.rs` has the events, `webhook/` sends them. Does not send
//! anything, and does not check the URL: `config` has.
//!
//! Limits: `config` bounds the endpoints of all apps (`validate::WEBHOOKS_MAX`) and the text of an option. Cost:
//! `wants` is one comparison for each kind and each prefix of the endpoint, without an allocation.

listed! {
    /// The kinds of events that a webhook can send (docs/PROTOCOL.md rule 75). A name is that in the configuration and
    /// in `name` of the posted event.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum WebhookKind {
        ChannelOccupied => "channel_occupied",
        ChannelVacated => "channel_vacated",
        MemberAdded => "member_added",
        MemberRemoved => "member_removed",
        ClientEvent => "client_event",
        CacheMiss => "cache_miss",
        SubscriptionCount => "subscription_count",
    }
}

impl WebhookKind {
    /// The kind that cancels this one in the gate that delays leaves.
    #[must_use]
    pub fn opposite(self) -> Option<Self> {
        match self {
            Self::ChannelOccupied => Some(Self::ChannelVacated),
            Self::ChannelVacated => Some(Self::ChannelOccupied),
            Self::MemberAdded => Some(Self::MemberRemoved),
            Self::MemberRemoved => Some(Self::MemberAdded),
            Self::ClientEvent | Self::CacheMiss | Self::SubscriptionCount => None,
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Begins with `http://` or `https://`.
    pub url: String,
    /// Each once. `config` puts all kinds here if the option is not set.
    pub kinds: Vec<WebhookKind>,
    /// Only channels whose name starts with one of these; empty means all.
    pub channel_prefixes: Vec<String>,
}

impl Webhook {
    #[must_use]
    pub fn wants(&self, kind: WebhookKind, channel: &str) -> bool {
        let prefixes = &self.channel_prefixes;
        self.kinds.contains(&kind)
            && (prefixes.is_empty() || prefixes.iter().any(|prefix| channel.starts_with(prefix)))
    }
}
