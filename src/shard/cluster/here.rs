//! What the cluster side reads and changes on its core. PURE.
//!
//! Methods of `Cluster` get it as one argument: the home side whose channels they complete, the context (clock,
//! settings), and the outbox. Owns nothing. The local side is missing on purpose, because the cluster never touches
//! connections: it sends mail.
//!
//! Limit: none of its own; each table of this type states its limit. Cost: three references, 24 bytes on the stack.

use hashbrown::HashMap;

use crate::shard::context::Context;
use crate::shard::home::Home;
use crate::shard::outbox::Outbox;

pub(super) type FastMap<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

pub(in crate::shard) struct Here<'a> {
    pub(in crate::shard) home: &'a mut Home,
    pub(in crate::shard) context: &'a Context,
    pub(in crate::shard) out: &'a mut Outbox,
}
