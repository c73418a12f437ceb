//! Names in Redis: the subjects that lines subscribe to, and the keys of stored events. PURE.
//!
//! `rv1` is the form of the envelopes: nodes of another form do not meet. The prefix and the app's id are escaped, so
//! that neither holds a colon: a name has one reading, and no two clusters, apps or channels share one.

use crate::app::{AppIndex, Apps};
use crate::shard::{ChannelKey, LinkId};

/// What a message came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    Channel {
        app: AppIndex,
        name: &'a str,
    },
    /// All links, all first links, or this one.
    Links,
}

#[derive(Debug)]
pub(super) struct Names {
    /// Up to the colon before the kind.
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{}:rv1:", escape(prefix)) }
    }

    pub(super) fn channel(&self, apps: &Apps, channel: &ChannelKey) -> String {
        self.of_channel("c", apps, channel)
    }

    /// The key of the channel's stored event.
    pub(super) fn stored(&self, apps: &Apps, channel: &ChannelKey) -> String {
        self.of_channel("cache", apps, channel)
    }

    fn of_channel(&self, kind: &str, apps: &Apps, channel: &ChannelKey) -> String {
        let app = escape(&apps.get(channel.app()).id);
        format!("{}{kind}:{app}:{}", self.prefix, channel.name())
    }

    /// The subject of one link.
    pub(super) fn link(&self, link: LinkId) -> String {
        format!("{}link:{:016x}:{}", self.prefix, link.node.0, link.core)
    }

    /// The key of the last number by which a link has stored an event.
    pub(super) fn said(&self, link: LinkId) -> String {
        format!("{}said:{:016x}:{}", self.prefix, link.node.0, link.core)
    }

    /// The subject of all links.
    pub(super) fn all(&self) -> String {
        format!("{}all", self.prefix)
    }

    /// The subject of one link of each node.
    pub(super) fn questions(&self) -> String {
        format!("{}ask", self.prefix)
    }

    /// `None`: no subject of ours, or of an app that this node does not have.
    pub(super) fn read<'a>(&self, apps: &Apps, subject: &'a [u8]) -> Option<Subject<'a>> {
        let rest = std::str::from_utf8(subject).ok()?.strip_prefix(&self.prefix)?;
        let Some(named) = rest.strip_prefix("c:") else { return Some(Subject::Links) };
        let (app, name) = named.split_once(':')?;
        let app = apps.iter().position(|known| escape(&known.id) == app)?;
        Some(Subject::Channel { app: AppIndex(u16::try_from(app).ok()?), name })
    }
}

fn escape(id: &str) -> std::borrow::Cow<'_, str> {
    if id.contains([':', '%']) {
        id.replace('%', "%25").replace(':', "%3A").into()
    } else {
        id.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::sample;
    use crate::shard::{ChannelKeys, NodeId};

    #[test]
    fn a_subject_names_one_channel_of_one_app() {
        let ids = ["1001", "a:b", "a", "a%3Ab", "%"];
        let apps = Apps::new(
            ids.map(|id| crate::app::App { id: id.to_owned(), ..sample() }).into_iter().collect(),
        );
        let names = Names::new("reverb");
        let keys = ChannelKeys::new(1, 2);
        let mut all = std::collections::BTreeSet::new();
        for app in (0..5).map(AppIndex) {
            for name in ["news", "b:news", ":", "private-ä.1", "#server-to-user-1"] {
                let channel = keys.make(app, name).unwrap();
                let subject = names.channel(&apps, &channel);
                assert_eq!(
                    names.read(&apps, subject.as_bytes()),
                    Some(Subject::Channel { app, name })
                );
                assert!(all.insert(subject) && all.insert(names.stored(&apps, &channel)));
            }
        }
        let link = LinkId { node: NodeId(7), core: 1 };
        for other in [names.all(), names.questions(), names.link(link)] {
            assert_eq!(names.read(&apps, other.as_bytes()), Some(Subject::Links));
        }
        for foreign in ["reverb", "other:rv1:c:1001:news", "reverb:rv1:c:9:news", "reverb:rv2:all"]
        {
            assert_eq!(names.read(&apps, foreign.as_bytes()), None, "{foreign}");
        }
        assert_eq!(names.read(&apps, b"reverb:rv1:\xff"), None);
    }

    /// With `REVERB_SCALING_CHANNEL=reverb:rv1:c:1001:x` all names of a cluster were channels of the cluster `reverb`.
    #[test]
    fn a_prefix_with_colons_shares_no_name_with_another_cluster() {
        let apps = Apps::new(vec![sample()]);
        let prefixes = ["reverb", "reverb:rv1:c:1001:x", "shop:reverb", "shop%3Areverb", "shop"];
        let clusters = prefixes.map(Names::new);
        let channel = ChannelKeys::new(1, 2).make(AppIndex(0), "x:rv1:all").unwrap();
        let link = LinkId { node: NodeId(7), core: 1 };
        for (at, own) in clusters.iter().enumerate() {
            let names = [own.channel(&apps, &channel), own.all(), own.questions(), own.link(link)];
            for (other_at, other) in clusters.iter().enumerate() {
                for name in &names {
                    let read = other.read(&apps, name.as_bytes());
                    assert_eq!(read.is_some(), at == other_at, "{name} in {}", prefixes[other_at]);
                }
            }
        }
    }
}
