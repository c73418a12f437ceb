//! What to do about the time without a session: for which senders this session waits, and what they have sent since.
//! PURE, and one state machine (`Stage`); `replay.rs` sends and receives what it decides.
//!
//! Owns what is held for each sender. Does not read or send messages. Redis keeps nothing for a session that is down.
//! So when it is up again, it asks the others to replay what they published during that time, and holds new events of a
//! sender until that sender has replayed the missed ones, which preserves the order of each sender. State has no such
//! order, and is not held. Each session that receives the request answers it once, and Redis replies how many received
//! it, so it is known when all have answered. A sender that was there before and has not answered was down, too: this
//! session waits a little longer for it. Limits: `HELD_BYTES_MAX` of messages, over which waiting is given up; the
//! times of `Stage`. Cost: one look-up a message while it waits; nothing is allocated otherwise.

use hashbrown::{HashMap, HashSet};

use crate::shard::{ANSWER_SECONDS, LEASE_SECONDS, SessionId};

/// Held for all senders together.
const HELD_BYTES_MAX: usize = 16 << 20;
/// Charged for a sender that is waited for, beside its messages.
const SENDER_BYTES: usize = 64;
/// What a held message costs beside its bytes: an entry of a list and two allocations.
const MESSAGE_BYTES: usize = size_of::<HeldMessage>() + 32;

/// A message as it was received: its topic and its payload. An empty payload stands for no message: the stored event of
/// the topic is to be read in its place.
pub(super) type HeldMessage = (Box<[u8]>, Box<[u8]>);

fn bytes_of((topic, payload): &HeldMessage) -> usize {
    MESSAGE_BYTES + topic.len() + payload.len()
}

/// ```text
/// Idle --begin--> Asking --take_request--> Waiting --all answered, or 2 s--> Draining --10 s--> Idle
///                   |                         |                                 |
///                   '---- give_up ----> GivenUp --take_request--> Idle <--------'  (also by give_up)
/// ```
/// `take_request` sends the request; `give_up` may also end `Draining`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The session waits for no sender.
    Idle,
    /// The session is up. The request is sent once all topics are announced, so that what follows it is received.
    Asking,
    /// As `Idle`, but the request is still to be sent.
    GivenUp,
    /// The request is sent. The session waits for all senders until this second.
    Waiting { until: u32 },
    /// All sessions that received the request have answered. Until this second the session waits for senders that were
    /// down as well, and asks each sender that it has not asked.
    Draining { until: u32 },
}

#[derive(Debug)]
pub(super) struct CatchUp {
    stage: Stage,
    /// Answers to come: one of each session that received the request, and the reply of Redis with their number.
    /// Negative while answers precede that reply.
    answers_due: i64,
    held_messages: HashMap<SessionId, Vec<HeldMessage>, foldhash::fast::FixedState>,
    held_bytes: usize,
    /// Have replayed all that this session missed.
    finished_senders: SessionSet,
    /// Were there before, and have not replayed yet.
    absent_senders: SessionSet,
    /// When the session went down, in seconds since 1970: a process that was stopped counts no time of its own. `None`:
    /// all was replayed.
    pub(super) down_since: Option<u64>,
    /// Seconds of the process's own clock without a session.
    pub(super) down_seconds: u32,
    /// When Redis sent something last, in seconds since 1970.
    pub(super) last_received: u64,
    /// There was a session before, or one could not connect. False for a process that has just started: it has missed
    /// nothing.
    pub(super) may_have_missed: bool,
    /// The stored events of cache channels are to be read once the session waits for no sender.
    must_read_stored: bool,
}

type SessionSet = HashSet<SessionId, foldhash::fast::FixedState>;

impl CatchUp {
    pub(super) fn new(unix_seconds: u64) -> Self {
        Self {
            stage: Stage::Idle,
            answers_due: 0,
            held_messages: HashMap::default(),
            held_bytes: 0,
            finished_senders: SessionSet::default(),
            absent_senders: SessionSet::default(),
            down_since: Some(unix_seconds),
            down_seconds: 0,
            last_received: unix_seconds,
            may_have_missed: false,
            must_read_stored: false,
        }
    }

    fn reset(&mut self, stage: Stage) {
        self.stage = stage;
        self.answers_due = 0;
        self.held_messages = HashMap::default();
        self.held_bytes = 0;
        self.finished_senders = SessionSet::default();
        self.absent_senders = SessionSet::default();
    }

    /// The session is down. What was held is replayed on the next one.
    pub(super) fn on_down(&mut self, was_up: bool, silent_seconds: u32) {
        if was_up && self.down_since.is_none() {
            self.down_since = Some(self.last_received);
            self.down_seconds = silent_seconds;
        }
        self.reset(Stage::Idle);
    }

    /// The session is up. `known`: senders that were there before. Returns whether something may have been missed.
    pub(super) fn on_up(&mut self, known: impl Iterator<Item = SessionId>) -> bool {
        self.must_read_stored = true;
        let may_have_missed = std::mem::replace(&mut self.may_have_missed, true);
        if may_have_missed {
            self.reset(Stage::Asking);
            self.absent_senders.extend(known);
        }
        debug_assert!(self.held_bytes == 0, "nothing is held before the session is up");
        may_have_missed
    }

    /// All topics are announced. Returns whether the request is to be sent now.
    pub(super) fn take_request(&mut self, now: u32) -> bool {
        match self.stage {
            Stage::Asking => {
                self.answers_due += 1;
                self.stage = Stage::Waiting { until: now + ANSWER_SECONDS };
                true
            }
            Stage::GivenUp => {
                self.stage = Stage::Idle;
                true
            }
            Stage::Idle | Stage::Waiting { .. } | Stage::Draining { .. } => false,
        }
    }

    /// Redis has counted the receivers of the request, this session among them.
    pub(super) fn on_request_sent(&mut self, receivers: u32) {
        debug_assert!(self.stage != Stage::Asking, "the request was taken before it was sent");
        self.answers_due += i64::from(receivers.saturating_sub(1)) - 1;
    }

    /// Whether new events of this sender are to be held.
    pub(super) fn waits_for(&self, sender: SessionId) -> bool {
        !self.waits_for_none() && !self.finished_senders.contains(&sender)
    }

    /// Whether a sender did not receive the request, or may not have, and is to be asked by itself. It counts as asked
    /// then. `is_new`: it says that its session is new.
    pub(super) fn must_ask_sender(&mut self, sender: SessionId, is_new: bool) -> bool {
        let was_asked = match self.stage {
            Stage::Waiting { .. } => true,
            Stage::Draining { .. } => self.held_messages.contains_key(&sender),
            Stage::Idle | Stage::Asking | Stage::GivenUp => return false,
        };
        debug_assert!(!self.waits_for_none(), "senders are asked while they are waited for");
        let must_ask = is_new || !was_asked && !self.absent_senders.contains(&sender);
        if must_ask {
            self.held_messages.entry(sender).or_default();
            self.answers_due += 1;
        }
        must_ask
    }

    /// The session waits for no sender, and asks none.
    pub(super) fn waits_for_none(&self) -> bool {
        matches!(self.stage, Stage::Idle | Stage::GivenUp)
    }

    /// All sessions that received the request have answered.
    pub(super) fn has_all_answers(&self) -> bool {
        !matches!(self.stage, Stage::Asking | Stage::Waiting { .. })
            && self.absent_senders.is_empty()
    }

    /// Whether the stored events are to be read now. True once.
    pub(super) fn take_must_read_stored(&mut self) -> bool {
        self.has_all_answers() && std::mem::take(&mut self.must_read_stored)
    }

    pub(super) fn must_read_stored(&self) -> bool {
        self.must_read_stored
    }

    /// Senders without messages take as much memory as messages may.
    pub(super) fn has_too_many_senders(&self) -> bool {
        (self.held_messages.len() + self.finished_senders.len()) * SENDER_BYTES > HELD_BYTES_MAX
    }

    /// Keeps a message of a sender that is waited for. `false`: it is kept, and the limit is exceeded, so the caller
    /// gives up waiting, which delivers it.
    pub(super) fn try_hold(&mut self, sender: SessionId, topic: &[u8], payload: &[u8]) -> bool {
        debug_assert!(self.waits_for(sender), "what nobody waits for is delivered at once");
        let message = (topic.into(), payload.into());
        self.held_bytes += bytes_of(&message);
        self.held_messages.entry(sender).or_default().push(message);
        self.held_bytes <= HELD_BYTES_MAX
    }

    /// Bytes of the messages that are held.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// A sender has replayed all, or is no longer waited for. Returns what it has sent since.
    pub(super) fn finish_sender(&mut self, sender: SessionId) -> Vec<HeldMessage> {
        self.absent_senders.remove(&sender);
        self.finished_senders.insert(sender);
        let held = self.held_messages.remove(&sender).unwrap_or_default();
        let bytes = held.iter().map(bytes_of).sum::<usize>();
        debug_assert!(bytes <= self.held_bytes, "`try_hold` has counted them");
        self.held_bytes -= bytes;
        debug_assert!(
            !self.held_messages.is_empty() || self.held_bytes == 0,
            "the sum of what is held"
        );
        held
    }

    pub(super) fn on_answer(&mut self) {
        debug_assert!(!self.waits_for_none(), "no answer is awaited after that");
        self.answers_due -= 1;
    }

    /// Continues if all sessions that received the request have answered. Returns the senders for which this session no
    /// longer waits.
    pub(super) fn drain_if_answered(&mut self) -> Option<Vec<SessionId>> {
        match self.stage {
            Stage::Waiting { until } if self.answers_due <= 0 => Some(self.drain(until)),
            _ => None,
        }
    }

    fn drain(&mut self, until: u32) -> Vec<SessionId> {
        debug_assert_eq!(self.stage, Stage::Waiting { until }, "the time of the wait");
        self.stage = Stage::Draining { until: until + LEASE_SECONDS };
        self.held_messages
            .keys()
            .filter(|sender| !self.absent_senders.contains(*sender))
            .copied()
            .collect()
    }

    /// A second has passed. Returns the senders that are no longer waited for, if that has changed.
    pub(super) fn expire(&mut self, now: u32) -> Option<Vec<SessionId>> {
        match self.stage {
            Stage::Waiting { until } if until + LEASE_SECONDS <= now => Some(self.give_up()),
            Stage::Waiting { until } if until <= now => Some(self.drain(until)),
            Stage::Draining { until } if until <= now => Some(self.give_up()),
            _ => None,
        }
    }

    /// Ends the wait, because of its time or its memory: what is still to be replayed may arrive out of order. Returns
    /// the senders of which something is held.
    pub(super) fn give_up(&mut self) -> Vec<SessionId> {
        self.absent_senders.clear();
        let is_asked = self.stage != Stage::Asking && self.stage != Stage::GivenUp;
        self.stage = if is_asked { Stage::Idle } else { Stage::GivenUp };
        debug_assert!(self.waits_for_none() && self.has_all_answers(), "no sender is waited for");
        self.held_messages.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::NodeId;

    fn sender(node: u64) -> SessionId {
        SessionId { node: NodeId(node), core: 0 }
    }

    enum Step {
        Up(&'static [u64]),
        Down,
        Request(u32, bool),
        Sent(u32),
        Answer(u64),
        Ask(u64, bool, bool),
        Second(u32),
        GiveUp,
    }
    use Step::*;

    fn run(steps: &[Step]) -> CatchUp {
        let mut catch_up = CatchUp::new(1_000);
        catch_up.may_have_missed = true;
        for step in steps {
            match *step {
                Up(known) => assert!(catch_up.on_up(known.iter().map(|node| sender(*node)))),
                Down => catch_up.on_down(true, 1),
                Request(now, sent) => assert_eq!(catch_up.take_request(now), sent),
                Sent(receivers) => {
                    catch_up.on_request_sent(receivers);
                    catch_up.drain_if_answered();
                }
                Answer(node) => {
                    catch_up.finish_sender(sender(node));
                    catch_up.on_answer();
                    catch_up.drain_if_answered();
                }
                Ask(node, is_new, asked) => {
                    assert_eq!(
                        catch_up.must_ask_sender(sender(node), is_new),
                        asked,
                        "node {node}"
                    );
                }
                Second(now) => drop(catch_up.expire(now)),
                GiveUp => drop(catch_up.give_up()),
            }
        }
        catch_up
    }

    /// Each row: events in, the stage after them, and whether nodes 1 and 2 are waited for.
    #[test]
    fn each_event_leads_to_the_stage_that_the_diagram_shows() {
        let rows: [(&[Step], Stage, [bool; 2]); 13] = [
            (&[], Stage::Idle, [false, false]),
            (&[Up(&[1])], Stage::Asking, [true, true]),
            (&[Up(&[1]), Second(99)], Stage::Asking, [true, true]),
            (&[Up(&[1]), Request(5, true)], Stage::Waiting { until: 7 }, [true, true]),
            (&[Up(&[]), Request(5, true), Sent(1)], Stage::Draining { until: 17 }, [true, true]),
            (&[Up(&[1]), Request(5, true), Sent(2)], Stage::Waiting { until: 7 }, [true, true]),
            (
                &[Up(&[1]), Request(5, true), Sent(2), Answer(1)],
                Stage::Draining { until: 17 },
                [false, true],
            ),
            // An answer may come before the reply that says how many there will be.
            (
                &[Up(&[1]), Request(5, true), Answer(1), Sent(2)],
                Stage::Draining { until: 17 },
                [false, true],
            ),
            (
                &[Up(&[1]), Request(5, true), Sent(2), Second(7)],
                Stage::Draining { until: 17 },
                [true, true],
            ),
            (
                &[Up(&[1]), Request(5, true), Sent(1), Second(16)],
                Stage::Draining { until: 17 },
                [true, true],
            ),
            (&[Up(&[1]), Request(5, true), Sent(1), Second(17)], Stage::Idle, [false, false]),
            (&[Up(&[1]), GiveUp, Request(5, true), Request(5, false)], Stage::Idle, [false, false]),
            (&[Up(&[1]), Request(5, true), Down, Request(5, false)], Stage::Idle, [false, false]),
        ];
        for (number, (steps, stage, waits)) in rows.into_iter().enumerate() {
            let catch_up = run(steps);
            assert_eq!(catch_up.stage, stage, "row {number}");
            let waited_for = [1, 2].map(|node| catch_up.waits_for(sender(node)));
            assert_eq!(waited_for, waits, "row {number}");
        }
    }

    #[test]
    fn a_sender_that_did_not_receive_the_request_is_asked_once() {
        // While this session waits for all senders, only a sender whose session is new has missed the request.
        run(&[
            Up(&[1]),
            Request(5, true),
            Ask(1, false, false),
            Ask(2, false, false),
            Ask(2, true, true),
        ]);
        let drained: [Step; 3] = [Up(&[1]), Request(5, true), Sent(1)];
        let mut catch_up = run(&drained);
        assert!(!catch_up.has_all_answers(), "node 1 was there before and has not answered");
        assert!(
            !catch_up.must_ask_sender(sender(1), false),
            "it says that it is new when it is back"
        );
        assert!(
            catch_up.must_ask_sender(sender(2), false)
                && !catch_up.must_ask_sender(sender(2), false)
        );
        assert!(catch_up.must_ask_sender(sender(1), true));
        catch_up.finish_sender(sender(1));
        assert!(catch_up.has_all_answers() && !catch_up.waits_for_none());
    }

    #[test]
    fn messages_of_a_sender_are_kept_within_a_limit_and_returned_in_order() {
        let mut catch_up = run(&[Up(&[1])]);
        assert!(
            catch_up.try_hold(sender(1), b"t", b"one")
                && catch_up.try_hold(sender(1), b"t", b"two")
        );
        let held = catch_up.finish_sender(sender(1));
        assert_eq!(
            held.iter().map(|(_, payload)| &**payload).collect::<Vec<_>>(),
            [b"one", b"two"]
        );
        assert_eq!(catch_up.held_bytes, 0);
        assert!(!catch_up.try_hold(sender(2), b"", &vec![0; HELD_BYTES_MAX + 1]));
        assert_eq!(catch_up.give_up(), [sender(2)]);
    }

    #[test]
    fn stored_events_are_read_once_when_no_node_is_awaited() {
        let mut catch_up = run(&[Up(&[])]);
        assert!(!catch_up.take_must_read_stored());
        catch_up.take_request(0);
        catch_up.on_request_sent(1);
        assert!(catch_up.drain_if_answered().is_some());
        assert!(catch_up.take_must_read_stored() && !catch_up.take_must_read_stored());
    }
}
