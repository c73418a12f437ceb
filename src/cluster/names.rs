//! Names in Redis: the topics that sessions subscribe to, and the keys of stored events. PURE.
//!
//! Owns the mapping between names and what they stand for, both ways; keeps the prefix only. Does not know what is sent
//! under a name. `rv1` is the version of the messages' format: nodes with another one do not meet. The prefix and the
//! app's id are escaped, so that neither contains a colon: a name has one reading, and no two clusters, apps or
//! channels share one. Limit: the length of a channel's name and of the prefix, which `config` checks. Cost: making a
//! name is one allocation (two if the app's id has a colon or `%`); `read` is one look-up by the app's id, and copies
//! only an id with a colon or `%`.

use crate::app::{AppIndex, Apps};
use crate::shard::{ChannelKey, SessionId};

/// What a message is about, by its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic<'a> {
    Channel {
        app: AppIndex,
        name: &'a str,
    },
    /// The topic of all sessions, of the first session of each node, or of one session. They are not distinguished: the
    /// message says whom it is for.
    Sessions,
}

#[derive(Debug)]
pub(super) struct TopicNames {
    /// `PREFIX:rv1:`, with the prefix escaped.
    prefix: String,
}

impl TopicNames {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{}:rv1:", escape(prefix)) }
    }

    pub(super) fn channel(&self, apps: &Apps, channel: &ChannelKey) -> String {
        self.of_channel("c", apps, channel)
    }

    /// The key of the last event of a cache channel, which greets new subscribers.
    pub(super) fn stored_event_key(&self, apps: &Apps, channel: &ChannelKey) -> String {
        self.of_channel("cache", apps, channel)
    }

    fn of_channel(&self, kind: &str, apps: &Apps, channel: &ChannelKey) -> String {
        let app = escape(&apps.get(channel.app()).id);
        format!("{}{kind}:{app}:{}", self.prefix, channel.name())
    }

    pub(super) fn session(&self, session: SessionId) -> String {
        format!("{}link:{:016x}:{}", self.prefix, session.node.0, session.core)
    }

    /// The key of the number of the last event that a session has stored, so that a retransmission is not stored again.
    pub(super) fn stored_number_key(&self, session: SessionId) -> String {
        format!("{}said:{:016x}:{}", self.prefix, session.node.0, session.core)
    }

    pub(super) fn all_sessions(&self) -> String {
        format!("{}all", self.prefix)
    }

    /// Questions and heartbeats for nodes: one session of each receives them, so that Redis counts nodes, not cores.
    pub(super) fn first_sessions(&self) -> String {
        format!("{}ask", self.prefix)
    }

    /// `None`: not a topic of this cluster and format, or of an app that this node does not have.
    pub(super) fn read<'a>(&self, apps: &Apps, topic: &'a [u8]) -> Option<Topic<'a>> {
        let rest = std::str::from_utf8(topic).ok()?.strip_prefix(&self.prefix)?;
        let Some(named) = rest.strip_prefix("c:") else { return Some(Topic::Sessions) };
        let (app, name) = named.split_once(':')?;
        let app = apps.index_of(&unescape(app)?)?;
        Some(Topic::Channel { app, name })
    }
}

/// The topic and key with which `ringverb doctor` tests the rights of the Redis user. No node uses it.
#[must_use]
pub fn probe_name(prefix: &str) -> String {
    TopicNames::new(prefix).prefix + "doctor"
}

fn escape(id: &str) -> std::borrow::Cow<'_, str> {
    if id.contains([':', '%']) {
        id.replace('%', "%25").replace(':', "%3A").into()
    } else {
        id.into()
    }
}

/// `None` for a text that `escape` does not make, so that an id has one name.
fn unescape(escaped: &str) -> Option<std::borrow::Cow<'_, str>> {
    if !escaped.contains('%') {
        return Some(escaped.into());
    }
    let id = escaped.replace("%3A", ":").replace("%25", "%");
    (escape(&id) == escaped).then(|| id.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::sample;
    use crate::shard::{ChannelKeys, NodeId};

    #[test]
    fn a_topic_names_one_channel_of_one_app() {
        let ids = ["1001", "a:b", "a", "a%3Ab", "%"];
        let apps = Apps::new(
            ids.map(|id| crate::app::App { id: id.to_owned(), ..sample() }).into_iter().collect(),
        );
        let names = TopicNames::new("reverb");
        let keys = ChannelKeys::new(1, 2);
        let mut all = std::collections::BTreeSet::new();
        for app in (0..5).map(AppIndex) {
            for name in ["news", "b:news", ":", "private-ä.1", "#server-to-user-1"] {
                let channel = keys.make(app, name).unwrap();
                let topic = names.channel(&apps, &channel);
                assert_eq!(names.read(&apps, topic.as_bytes()), Some(Topic::Channel { app, name }));
                assert!(all.insert(topic) && all.insert(names.stored_event_key(&apps, &channel)));
            }
        }
        let session = SessionId { node: NodeId(7), core: 1 };
        for other in [names.all_sessions(), names.first_sessions(), names.session(session)] {
            assert_eq!(names.read(&apps, other.as_bytes()), Some(Topic::Sessions));
        }
        let foreign = ["reverb", "other:rv1:c:1001:news", "reverb:rv1:c:9:news", "reverb:rv2:all"];
        // Names that a session never makes, beside `%25` and `a%3Ab`.
        let odd = ["reverb:rv1:c:%:news", "reverb:rv1:c:a%3ab:news", "reverb:rv1:c:%31001:news"];
        for foreign in foreign.into_iter().chain(odd) {
            assert_eq!(names.read(&apps, foreign.as_bytes()), None, "{foreign}");
        }
        assert_eq!(names.read(&apps, b"reverb:rv1:\xff"), None);
    }

    /// With `REVERB_SCALING_CHANNEL=reverb:rv1:c:1001:x` all names of a cluster were channels of the cluster `reverb`.
    #[test]
    fn a_prefix_with_colons_shares_no_name_with_another_cluster() {
        let apps = Apps::new(vec![sample()]);
        let prefixes = ["reverb", "reverb:rv1:c:1001:x", "shop:reverb", "shop%3Areverb", "shop"];
        let clusters = prefixes.map(TopicNames::new);
        let channel = ChannelKeys::new(1, 2).make(AppIndex(0), "x:rv1:all").unwrap();
        let session = SessionId { node: NodeId(7), core: 1 };
        for (at, own) in clusters.iter().enumerate() {
            let names = [
                own.channel(&apps, &channel),
                own.all_sessions(),
                own.first_sessions(),
                own.session(session),
            ];
            for (other_at, other) in clusters.iter().enumerate() {
                for name in &names {
                    let read = other.read(&apps, name.as_bytes());
                    assert_eq!(read.is_some(), at == other_at, "{name} in {}", prefixes[other_at]);
                }
            }
        }
    }
}
