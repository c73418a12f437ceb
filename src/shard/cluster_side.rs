//! The shard's interface to its session with Redis. PURE.
//!
//! Owns and decides nothing: it hands on to `Cluster`. Reports come in as `FromCluster`, and effects leave through
//! `Outbox::cluster`. What the session must know to accept a message is asked here, and so are the high-water marks of
//! the cluster side. Without a cluster there is no session: every question has its empty answer, and nothing happens.
//!
//! Limits: those of `Cluster`. Cost: a step for each call, no allocation.

use super::cluster::{FromCluster, TransitionCounts};
use super::node_message::{NodeId, SessionId};
use super::{ChannelKey, Shard};

impl Shard {
    /// For each report, in the order in which Redis sent it.
    pub fn on_cluster(&mut self, event: FromCluster<'_>) {
        debug_assert!(self.outbox.own_mail.is_empty(), "each call takes out what it causes");
        if let FromCluster::EndAccess(command) = event {
            self.local.end_access(&self.context, &mut self.outbox, command);
        } else if let Some((cluster, mut here)) = self.clustered() {
            cluster.on_event(&mut here, event);
        }
        self.drain_own_mail();
    }

    #[must_use]
    pub fn has_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// If not, a question to all nodes is answered by this one alone.
    #[must_use]
    pub fn is_cluster_up(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.is_up)
    }

    /// See `Cluster::accepts_node`.
    #[must_use]
    pub fn accepts_node(&self, node: NodeId) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.accepts_node(node))
    }

    /// See `Cluster::is_in_greeting`.
    #[must_use]
    pub fn was_greeted(&self, channel: &ChannelKey, from: SessionId, number: u64) -> bool {
        let cluster = self.cluster.as_ref();
        cluster.is_some_and(|cluster| cluster.is_in_greeting(channel, from, number))
    }

    /// See `Cluster::is_refetch`.
    #[must_use]
    pub fn is_refetch(&self, channel: &ChannelKey, ticket: u32) -> bool {
        debug_assert!(channel.kind.cached, "only cache channels have a stored event");
        self.cluster.as_ref().is_some_and(|cluster| cluster.is_refetch(channel, ticket))
    }

    /// Whether this core is subscribed to the channel's topic, or is about to be.
    #[must_use]
    pub fn has_topic(&self, channel: &ChannelKey) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.has_topic(channel))
    }

    /// See `Cluster::has_unannounced`.
    #[must_use]
    pub fn has_unannounced(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.has_unannounced())
    }

    /// See `Cluster::has_topics_to_send`.
    #[must_use]
    pub fn has_topics_to_send(&self) -> bool {
        let cluster = self.cluster.as_ref();
        cluster.is_some_and(|cluster| cluster.has_topics_to_send(&self.context))
    }

    /// See `Cluster::mail_held`.
    #[must_use]
    pub fn mail_held(&self) -> usize {
        debug_assert!(
            self.cluster.as_ref().is_none_or(|cluster| cluster.is_up || cluster.mail_held() == 0),
            "without a session no mail waits for other nodes"
        );
        self.cluster.as_ref().map_or(0, |cluster| cluster.mail_held())
    }

    /// See `Cluster::topics_waiting`.
    #[must_use]
    pub fn topics_waiting(&self) -> usize {
        debug_assert!(
            self.cluster
                .as_ref()
                .is_none_or(|cluster| cluster.is_up || cluster.topics_waiting() == 0),
            "without a session no topic waits for its SUBSCRIBE"
        );
        self.cluster.as_ref().map_or(0, |cluster| cluster.topics_waiting())
    }

    /// See `Cluster::remote_bytes_counted`.
    #[must_use]
    pub fn remote_bytes_counted(&self) -> usize {
        self.cluster.as_ref().map_or(0, |cluster| cluster.remote_bytes_counted())
    }

    /// True on each core while the session of any core has more to send than Redis takes, because clients of one core
    /// cause traffic of others.
    pub fn set_cluster_congested(&mut self, is_congested: bool) {
        debug_assert!(!is_congested || self.has_cluster(), "a session is congested");
        self.local.set_cluster_congested(is_congested);
    }

    /// See `Cluster::entry_counts`; both are 0 without a cluster.
    #[must_use]
    pub fn cluster_entries(&self) -> (usize, usize) {
        debug_assert!(
            self.cluster.is_some() || self.outbox.cluster.is_empty(),
            "a node of no cluster has nothing to send to others"
        );
        self.cluster.as_ref().map_or((0, 0), |cluster| cluster.entry_counts())
    }

    /// Transitions that Redis has not confirmed, and pending leaves: none without a cluster.
    #[must_use]
    pub fn transition_counts(&self) -> TransitionCounts {
        self.cluster.as_ref().map(|cluster| cluster.transitions().counts()).unwrap_or_default()
    }

    /// How often something of other nodes was over a limit and was dropped.
    #[must_use]
    pub fn cluster_refused(&self) -> u64 {
        self.cluster.as_ref().map_or(0, |cluster| cluster.refused_count())
    }
}
