//! A simulated client that speaks HTTP: an app's backend, a probe, or an attacker.
//!
//! It writes requests one behind the other and sends them in any pieces, also together with its end. Each answer is
//! read by `http` and compared with the request that is due: one answer each, in order, and nothing behind one that
//! says that the connection ends. What its publishes mean for subscribers goes out as `Effect`s.

mod requests;

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use crate::http::{self, Answer};
use crate::kernel::Wire;
use crate::process::KEEPALIVE_SECONDS;

/// Time for a request, or for a client to read an answer, in seconds: the default.
const REQUEST_SECONDS: u64 = 10;
/// Time for the first byte of a connection.
const FIRST_BYTE_SECONDS: u64 = 5;
/// Requests of a burst whose answers do not fit what is sent before the next request is looked at.
const BURST: usize = 200;

/// What is known of published events in all of a world.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Some client has got it.
    pub(crate) received: BTreeSet<u64>,
    /// No subscriber may receive it.
    pub(crate) void: BTreeSet<u64>,
}

/// And there the publisher, whose events are in order: a backend, or the model itself.
pub(crate) const NUMBERS_PER_STREAM: u64 = 1 << 20;

pub(crate) type Ledger = Rc<RefCell<Book>>;

impl Book {
    /// An event was not published: no subscriber may have received it, or receive it.
    pub(crate) fn note_void(&mut self, number: u64) {
        assert!(!self.received.contains(&number), "{number} was published, unanswered");
        self.void.insert(number);
    }
}

/// What a backend has done, or has seen, that concerns subscribers.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Its last byte is on its way: each subscriber of this moment receives it.
    Sent { number: u64, channel: &'static str, except: Option<String> },
    /// It was answered: it comes before what is sent from now on.
    GatherAnswer(u64),
    /// It was not carried out: no subscriber receives it.
    Void(u64),
    /// It is not known.
    Unknown(u64),
}

#[derive(Clone, Debug)]
enum What {
    Publish {
        events: Vec<(u64, &'static str)>,
        except: Option<String>,
    },
    /// A publish that is refused.
    Refused(u64),
    Question,
    Other,
}

/// A request that is not answered, and where it is in the script.
#[derive(Debug)]
struct Asked {
    start: usize,
    end: usize,
    what: What,
    is_head: bool,
    /// The client asks for the end of the connection.
    closes: bool,
    /// The connection ends with the answer, which may come before the request is whole.
    is_fatal: bool,
    expects_continue: bool,
    continued: bool,
    statuses: &'static [u16],
    announced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Orderly,
    /// Never reads.
    Deaf,
    /// Never ends its last request.
    Endless,
    /// Never sends.
    Silent,
}

/// What the server waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    FirstByte,
    /// The rest of the request that begins there.
    Rest(usize),
    /// The same, behind an empty line, which is no part of it.
    EmptyLine(usize),
    /// Room in the socket.
    AnswerRoom,
    /// The request that begins there.
    Next(usize),
}

impl Stage {
    fn seconds(self) -> u64 {
        match self {
            Self::FirstByte => FIRST_BYTE_SECONDS,
            Self::Rest(_) => REQUEST_SECONDS,
            // It may be full and all is sent.
            Self::AnswerRoom | Self::EmptyLine(_) | Self::Next(_) => KEEPALIVE_SECONDS.into(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) wire: usize,
    pub(crate) manner: Manner,
    script: Vec<u8>,
    sent: usize,
    /// Where it waits for `100 Continue`.
    gates: VecDeque<usize>,
    requests: VecDeque<Asked>,
    input: Vec<u8>,
    /// Its half ends with the last byte of the script.
    ends_behind: bool,
    /// The last answer has come.
    is_last: bool,
    /// It has sent bytes behind a request that asks for the end: the answer may be lost.
    is_rash: bool,
    /// Its process gives connections to another one and keeps this one: its request is refused, or not answered.
    is_left: bool,
    /// The server has ended the connection with an answer, and the client had not asked for that.
    is_dismissed: bool,
    /// What was sent from there on came after the server's end.
    late_from: Option<usize>,
    pub(crate) over: bool,
    next_number: u64,
    /// What the server waits for, and since when.
    stage: Option<(Stage, u64)>,
    /// Answers to questions whose truth is looked at.
    pub(crate) answers: Vec<Answer>,
}

impl Backend {
    /// Its events have numbers of their own, from `first` on.
    pub(crate) fn new(wire: usize, manner: Manner, first: u64) -> Self {
        Self {
            wire,
            manner,
            script: Vec::new(),
            sent: 0,
            gates: VecDeque::new(),
            requests: VecDeque::new(),
            input: Vec::new(),
            ends_behind: false,
            is_last: false,
            is_rash: false,
            is_left: false,
            is_dismissed: false,
            late_from: None,
            over: false,
            next_number: first,
            stage: None,
            answers: Vec::new(),
        }
    }

    pub(crate) fn reads(&self) -> bool {
        self.manner != Manner::Deaf
    }

    pub(crate) fn unsent(&self) -> usize {
        self.script.len() - self.sent
    }

    /// Whether it can say more.
    pub(crate) fn may_ask(&self) -> bool {
        let says = matches!(self.manner, Manner::Orderly | Manner::Deaf);
        says && !self.over && !self.is_last && !self.ends_behind
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        assert!(!self.next_number.is_multiple_of(NUMBERS_PER_STREAM), "a stream is over");
        self.next_number
    }

    /// Takes in bytes of the server, cut anywhere. `may_drain`: it may end the connection by itself.
    pub(crate) fn receive_bytes(
        &mut self,
        bytes: &[u8],
        may_drain: bool,
        effects: &mut Vec<Effect>,
    ) {
        self.input.extend_from_slice(bytes);
        loop {
            if self.is_last {
                assert!(self.input.is_empty(), "bytes behind the last answer");
                return;
            }
            let Some(asked) = self.requests.front_mut() else {
                assert!(self.input.is_empty(), "an answer that nobody has asked for");
                return;
            };
            let Some(answer) = http::take_answer(&mut self.input, asked.is_head) else { return };
            assert!(asked.start < self.sent, "{answer:?} comes before its request");
            if answer.status == 100 {
                assert!(asked.expects_continue && !asked.continued, "100 for nobody");
                asked.continued = true;
                let at = self.gates.front().copied();
                if at.is_some_and(|at| at > asked.start && at < asked.end) {
                    self.gates.pop_front();
                }
                continue;
            }
            // A request that a process has read in part when it gave its connections to another one.
            let is_refused = self.is_left && answer.status == 503 && answer.closes;
            assert!(asked.announced || asked.is_fatal || is_refused, "{answer:?} comes too early");
            let is_expected = is_refused || asked.statuses.contains(&answer.status);
            assert!(is_expected, "{answer:?} to {:?}", asked.what);
            let must_close = asked.closes || asked.is_fatal || is_refused;
            assert!(answer.closes || !must_close, "{answer:?} goes on");
            assert!(!answer.closes || must_close || may_drain, "{answer:?} ends the connection");
            let asked = self.requests.pop_front().expect("the first one");
            self.is_last = answer.closes;
            self.is_dismissed = answer.closes && !asked.closes;
            match asked.what {
                What::Publish { .. } if is_refused => {
                    effects.extend(asked.numbers().map(Effect::Void));
                }
                What::Publish { events, .. } => {
                    effects.extend(events.iter().map(|(number, _)| Effect::GatherAnswer(*number)));
                }
                What::Question => self.answers.push(answer),
                What::Refused(_) | What::Other => {}
            }
            if self.is_last {
                for asked in std::mem::take(&mut self.requests) {
                    effects.extend(asked.numbers().map(Effect::Void));
                }
            }
        }
    }

    /// A client that has not asked for the end may have sent its next request. If the server closed its socket at once,
    /// that request would reset the connection, and the answer could be lost.
    pub(crate) fn check_dismissal(&self, wire: &Wire) {
        // With a cipher the announcement of the end follows the answer, and may wait for room. A process that ends at a
        // take-over does not send it afterwards.
        let may_follow = wire.is_secure() && (!wire.closed || wire.closed_by_exit);
        let is_right = wire.shut || !self.is_dismissed || may_follow;
        assert!(is_right, "backend {}: closed at once", self.wire);
    }

    /// The server has ended the connection. `may_make_room`: it may have done so for another one.
    pub(crate) fn note_end(&mut self, may_make_room: bool, effects: &mut Vec<Effect>) {
        self.over = true;
        let may_lose = self.is_rash || self.is_left || self.late_from.is_some() || !self.reads();
        assert!(may_lose || self.input.is_empty(), "the connection ends within an answer");
        for asked in std::mem::take(&mut self.requests).into_iter().filter(|asked| asked.announced)
        {
            let is_late = self.late_from.map(|from| asked.end > from);
            let effect: fn(u64) -> Effect = match is_late {
                Some(true) => Effect::Void,
                Some(false) => Effect::Unknown,
                None if self.is_rash || self.is_left || !self.reads() => Effect::Unknown,
                None => {
                    assert!(may_make_room, "backend {}: no answer to {asked:?}", self.wire);
                    Effect::Void
                }
            };
            effects.extend(asked.numbers().map(effect));
        }
    }

    /// It has reset the connection, or its server is gone with it.
    pub(crate) fn abandon(&mut self, effects: &mut Vec<Effect>) {
        self.over = true;
        for asked in std::mem::take(&mut self.requests).into_iter().filter(|asked| asked.announced)
        {
            effects.extend(asked.numbers().map(Effect::Unknown));
        }
    }

    /// Whether a whole request of it is not answered.
    pub(crate) fn waits(&self) -> bool {
        !self.over && self.requests.front().is_some_and(|asked| asked.announced)
    }

    /// What must hold when nothing moves, and all that can be read was.
    pub(crate) fn check(&self, wire: &Wire) {
        if self.over || wire.room == 0 {
            return;
        }
        assert!(wire.to_server.is_empty(), "backend {} was not read", self.wire);
        if !self.reads() {
            return;
        }
        let waits = self.requests.front().filter(|asked| asked.announced);
        assert!(waits.is_none(), "backend {} waits for the answer to {waits:?}", self.wire);
        let gate = self.gates.front().copied();
        assert!(gate != Some(self.sent), "backend {} waits for 100 Continue", self.wire);
    }

    /// Notes what the server waits for at this second. All is quiet.
    pub(crate) fn note_stage(&mut self, wire: &Wire, seconds: u64) {
        let stage = self.stage(wire);
        if self.stage.map(|(stage, _)| stage) != stage {
            self.stage = stage.map(|stage| (stage, seconds));
        }
    }

    fn stage(&self, wire: &Wire) -> Option<Stage> {
        if self.over || wire.closed || wire.shut {
            return None;
        }
        let start = |asked: &&Asked| asked.start <= self.sent && asked.end > self.sent;
        let next = self.requests.iter().find(start).map_or(self.script.len(), |asked| asked.start);
        let part = &self.script[next..self.sent];
        Some(match part {
            _ if wire.room == 0 => Stage::AnswerRoom,
            [] if next == 0 => Stage::FirstByte,
            [] => Stage::Next(next),
            b"\r\n" => Stage::EmptyLine(next),
            _ => Stage::Rest(next),
        })
    }

    /// Its process, which gives connections to another one, keeps this one or does not.
    pub(crate) fn set_left(&mut self, is_left: bool) {
        self.is_left = is_left;
    }

    /// Another process has taken its connection in, where its time begins again.
    pub(crate) fn forget_stage(&mut self) {
        self.stage = None;
    }

    /// Time has passed, and all is quiet again: no client for which the server waited too long is still connected.
    pub(crate) fn check_time(&mut self, wire: &Wire, seconds: u64) {
        if let Some((stage, since)) = self.stage
            && self.stage(wire) == Some(stage)
        {
            let waited = seconds - since;
            // Deadlines are whole seconds of the clock.
            let most = stage.seconds() + 1;
            assert!(waited < most, "backend {}: {stage:?} for {waited} seconds", self.wire);
        }
    }
}

impl Asked {
    fn numbers(&self) -> impl Iterator<Item = u64> + use<> {
        let events = match &self.what {
            What::Publish { events, .. } if self.announced => events.clone(),
            _ => Vec::new(),
        };
        events.into_iter().map(|(number, _)| number)
    }
}
