//! Conversations of frames, by their structure: what must be received and how it must end is worked out a second time,
//! from RFC 6455 alone, and the reader agrees, however the bytes are cut.

use arbitrary::{Arbitrary, Result, Unstructured};
use ringverb::ws::reader::{Flow, FrameLimits, MessageKind, Sink, read};

const LIMITS: FrameLimits = FrameLimits { message_size_max: 700 };

/// Close codes on both sides of every limit.
#[rustfmt::skip]
const CODES: [u16; 16] = [
    0, 999, 1000, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 1016, 2999, 3000, 4999, 5000, 65535,
];

/// What is wrong with a frame's own header.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    ReservedBits(u8),
    ReservedOpcode(u8),
    Unmasked,
    LongForm,
    Fragmented,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
    Continuation,
    Ping,
    Pong,
    Close,
}

#[derive(Debug)]
struct Frame {
    kind: Kind,
    last: bool,
    payload: Vec<u8>,
    mask: [u8; 4],
    fault: Option<Fault>,
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, Vec<u8>),
}

/// How it ends: not yet, by a close frame, or with this code; 0 is any code, where two rules are broken at once.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Open,
    Closed,
    Violation(u16),
}

impl<'a> Arbitrary<'a> for Frame {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let kinds = [
            Kind::Text,
            Kind::Binary,
            Kind::Continuation,
            Kind::Continuation,
            Kind::Ping,
            Kind::Pong,
            Kind::Close,
        ];
        let kind = *input.choose(&kinds)?;
        let is_control = matches!(kind, Kind::Ping | Kind::Pong | Kind::Close);
        let longest = if is_control { 130 } else { 400 };
        let length = input.int_in_range(0..=longest)?;
        let payload = match input.int_in_range(0..=5)? {
            0 => input.bytes(length.min(input.len()))?.to_vec(),
            1 if kind == Kind::Close => input.choose(&CODES)?.to_be_bytes().to_vec(),
            2 if kind == Kind::Close => u16::arbitrary(input)?.to_be_bytes().to_vec(),
            3 if kind == Kind::Close => b"\x03\xe8why".to_vec(),
            // Characters of all lengths, cut anywhere.
            _ => "aé€𝄞".as_bytes().iter().copied().cycle().take(length).collect(),
        };
        let fault = if input.ratio(1, 12)? { Some(Fault::arbitrary(input)?) } else { None };
        Ok(Self {
            kind,
            last: is_control || input.ratio(2, 3)?,
            payload,
            mask: input.arbitrary()?,
            fault,
        })
    }
}

impl Frame {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut opcode = match self.kind {
            Kind::Continuation => 0,
            Kind::Text => 1,
            Kind::Binary => 2,
            Kind::Close => 8,
            Kind::Ping => 9,
            Kind::Pong => 10,
        };
        let (mut last, mut bits, mut mask_bit, mut long_form) = (self.last, 0, 0x80, false);
        match self.fault {
            Some(Fault::ReservedBits(which)) => bits = (which % 7 + 1) << 4,
            Some(Fault::ReservedOpcode(which)) => {
                opcode = [3, 4, 5, 6, 7, 11, 12, 13, 14, 15][usize::from(which) % 10]
            }
            Some(Fault::Unmasked) => mask_bit = 0,
            Some(Fault::LongForm) => long_form = true,
            Some(Fault::Fragmented) if opcode >= 8 => last = false,
            Some(Fault::Fragmented) | None => {}
        }
        out.push(u8::from(last) << 7 | bits | opcode);
        let length = self.payload.len();
        if long_form {
            out.push(mask_bit | 127);
            out.extend((length as u64).to_be_bytes());
        } else if length < 126 {
            out.push(mask_bit | u8::try_from(length).unwrap());
        } else {
            out.push(mask_bit | 126);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        let mask = if mask_bit == 0 { [0; 4] } else { self.mask };
        if mask_bit != 0 {
            out.extend(mask);
        }
        out.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }

    /// Whether its header alone breaks a rule.
    fn is_faulty(&self) -> bool {
        let is_control = matches!(self.kind, Kind::Ping | Kind::Pong | Kind::Close);
        match self.fault {
            None => is_control && self.payload.len() > 125,
            Some(Fault::Fragmented) => is_control,
            Some(_) => true,
        }
    }
}

/// The second opinion.
fn expect(frames: &[Frame]) -> (Vec<Event>, End) {
    let mut events = Vec::new();
    let mut message: Option<(MessageKind, Vec<u8>)> = None;
    for frame in frames {
        if frame.is_faulty() {
            // It may be too long, or out of place, as well.
            return (events, End::Violation(0));
        }
        match frame.kind {
            Kind::Ping => events.push(Event::Ping(frame.payload.clone())),
            Kind::Pong => events.push(Event::Pong(frame.payload.clone())),
            Kind::Close => return close(&frame.payload, events),
            Kind::Continuation if message.is_none() => return (events, End::Violation(1002)),
            Kind::Text | Kind::Binary if message.is_some() => {
                return (events, End::Violation(1002));
            }
            Kind::Text | Kind::Binary | Kind::Continuation => {
                let kind =
                    if frame.kind == Kind::Text { MessageKind::Text } else { MessageKind::Binary };
                let (kind, mut bytes) = message.take().unwrap_or((kind, Vec::new()));
                if bytes.len() + frame.payload.len() > LIMITS.message_size_max {
                    return (events, End::Violation(1009));
                }
                bytes.extend_from_slice(&frame.payload);
                if kind == MessageKind::Text && !may_be_text(&bytes, frame.last) {
                    return (events, End::Violation(1007));
                }
                if frame.last {
                    events.push(Event::Message(kind, bytes));
                } else {
                    message = Some((kind, bytes));
                }
            }
        }
    }
    (events, End::Open)
}

fn may_be_text(bytes: &[u8], is_whole: bool) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => true,
        // Without a length the error is only that more is to come.
        Err(error) => !is_whole && error.error_len().is_none(),
    }
}

fn close(payload: &[u8], mut events: Vec<Event>) -> (Vec<Event>, End) {
    let code = match payload {
        [] => None,
        [_] => return (events, End::Violation(1002)),
        [high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
    };
    // RFC 6455 section 7.4, and what was registered since.
    let known = |code: u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if code.is_some_and(|code| !known(code)) {
        return (events, End::Violation(1002));
    }
    let reason = payload.get(2..).unwrap_or_default();
    if std::str::from_utf8(reason).is_err() {
        return (events, End::Violation(1007));
    }
    events.push(Event::Close(code, reason.to_vec()));
    (events, End::Closed)
}

#[derive(Default)]
struct Recorder(Vec<Event>);

impl Sink for Recorder {
    fn message(&mut self, kind: MessageKind, payload: &mut [u8]) -> Flow {
        self.0.push(Event::Message(kind, payload.to_vec()));
        Flow::Continue
    }
    fn ping(&mut self, payload: &[u8]) -> Flow {
        self.0.push(Event::Ping(payload.to_vec()));
        Flow::Continue
    }
    fn pong(&mut self, payload: &[u8]) -> Flow {
        self.0.push(Event::Pong(payload.to_vec()));
        Flow::Continue
    }
    fn close(&mut self, code: Option<u16>, reason: &str) -> Flow {
        self.0.push(Event::Close(code, reason.as_bytes().to_vec()));
        Flow::Stop
    }
}

fn hear(bytes: &[u8], cuts: &mut dyn Iterator<Item = usize>) -> (Vec<Event>, End) {
    let (mut partial, mut sink, mut rest) = (None, Recorder::default(), bytes);
    while !rest.is_empty() {
        let size = cuts.next().unwrap_or(rest.len()).clamp(1, rest.len());
        let (piece, behind) = rest.split_at(size);
        rest = behind;
        match read(&mut partial, &mut piece.to_vec(), LIMITS, &mut sink) {
            Ok(Flow::Continue) => {}
            Ok(Flow::Stop) => return (sink.0, End::Closed),
            Err(violation) => return (sink.0, End::Violation(violation.close_code())),
        }
    }
    (sink.0, End::Open)
}

/// Frames, and where their bytes are cut.
pub(crate) fn check(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(cuts) = Vec::<u8>::arbitrary(&mut input) else { return };
    let mut frames = Vec::new();
    while !input.is_empty() && frames.len() < 40 {
        let Ok(frame) = Frame::arbitrary(&mut input) else { break };
        frames.push(frame);
    }
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    let (events, end) = expect(&frames);
    let cuts = || cuts.iter().map(|cut| usize::from(*cut));
    for cuts in [
        &mut cuts() as &mut dyn Iterator<Item = usize>,
        &mut std::iter::empty(),
        &mut std::iter::repeat(1),
    ] {
        let (heard, ended) = hear(&bytes, cuts);
        assert_eq!(heard, events, "{frames:?}");
        match (&end, &ended) {
            (End::Violation(0), End::Violation(_)) => {}
            _ => assert_eq!(ended, end, "{frames:?}"),
        }
    }
}
