//! A line that was away hears what it has missed before what is new. PURE.
//!
//! From the moment it is up, the events that anybody tells of are held until that sender has repeated what was
//! missed, so that its order holds; what nodes have is no matter of order, and not held. Whoever hears the question
//! answers it once, and Redis tells how many heard it, so it is known when all have. A sender that was there before
//! and has not heard it is away, too: it is waited for until it is back. Bounds: `HELD_BYTES_MAX`, and the times that
//! the caller gives them.

use hashbrown::{HashMap, HashSet};

use crate::shard::LinkId;

/// Held for all senders together; over it nobody is waited for any more.
const HELD_BYTES_MAX: usize = 16 << 20;
/// What a sender that is waited for costs, without a message.
const SENDER_BYTES: usize = 64;

/// A message as it came: its subject and its payload. An empty one: what is stored for the subject is to be asked for.
pub(super) type Message = (Box<[u8]>, Box<[u8]>);

#[derive(Debug, Default)]
pub(super) struct CatchUp {
    is_on: bool,
    /// Answers to come: of those who heard, and the reply that says how many they are.
    due: i64,
    held: HashMap<LinkId, Vec<Message>, foldhash::fast::FixedState>,
    bytes: usize,
    /// Senders who have repeated all.
    done: Links,
    /// Senders who were there before, and have not.
    missing: Links,
    /// Whoever is heard for the first time is asked, too: it may have begun while this line was away.
    asks_strangers: bool,
}

type Links = HashSet<LinkId, foldhash::fast::FixedState>;

impl CatchUp {
    /// `known`: who was there before.
    pub(super) fn begin(&mut self, known: impl Iterator<Item = LinkId>) {
        let missing = known.collect();
        *self = Self { is_on: true, asks_strangers: true, missing, ..Self::default() };
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether what this sender says is to be held.
    pub(super) fn waits_for(&self, sender: LinkId) -> bool {
        (self.is_on || self.asks_strangers) && !self.done.contains(&sender)
    }

    /// Whether a sender was not among those who were asked, or may not have been; it is now.
    pub(super) fn is_stranger(&mut self, sender: LinkId, says_it_is_new: bool) -> bool {
        let is_known = self.is_on || self.held.contains_key(&sender);
        let is_stranger = says_it_is_new || !is_known && !self.missing.contains(&sender);
        if is_stranger {
            self.held.entry(sender).or_default();
        }
        is_stranger
    }

    /// Strangers are no strangers any more.
    pub(super) fn is_closed(&self) -> bool {
        !self.asks_strangers
    }

    /// Nobody is waited for.
    pub(super) fn is_over(&self) -> bool {
        !self.is_on && self.missing.is_empty()
    }

    /// More senders are kept than messages might be.
    pub(super) fn has_too_many(&self) -> bool {
        (self.held.len() + self.done.len()) * SENDER_BYTES > HELD_BYTES_MAX
    }

    /// Keeps what a sender says that is waited for; `false` when there is no room for it any more.
    pub(super) fn hold(&mut self, sender: LinkId, subject: &[u8], payload: &[u8]) -> bool {
        self.bytes += subject.len() + payload.len();
        self.held.entry(sender).or_default().push((subject.into(), payload.into()));
        self.bytes <= HELD_BYTES_MAX
    }

    /// So many more are to answer.
    pub(super) fn expect_answers(&mut self, answers: i64) {
        self.due += answers;
    }

    /// A sender has repeated all, or is not waited for any more: what it has said meanwhile.
    pub(super) fn end(&mut self, sender: LinkId) -> Vec<Message> {
        self.missing.remove(&sender);
        self.done.insert(sender);
        let held = self.held.remove(&sender).unwrap_or_default();
        let bytes = held.iter().map(|(subject, payload)| subject.len() + payload.len());
        self.bytes -= bytes.sum::<usize>();
        held
    }

    /// All who were asked have answered.
    pub(super) fn is_answered(&self) -> bool {
        self.due <= 0
    }

    /// From here on only those are waited for who are away. Who is not, and has something held, is returned.
    pub(super) fn wait_for_missing_only(&mut self) -> Vec<LinkId> {
        self.is_on = false;
        self.held.keys().filter(|sender| !self.missing.contains(*sender)).copied().collect()
    }

    /// Nobody is waited for any more. Who has something held is returned.
    pub(super) fn give_up(&mut self) -> Vec<LinkId> {
        self.missing.clear();
        self.asks_strangers = false;
        self.wait_for_missing_only()
    }
}
