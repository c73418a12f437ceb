//! Tests of the reader: a table of faults, and properties over every way to cut the input.

use super::*;
use proptest::prelude::*;

const LIMITS: FrameLimits = FrameLimits { message_size_max: 1000 };

#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

#[derive(Default)]
struct Recorder {
    events: Vec<Event>,
    stop_after: Option<usize>,
}

impl Recorder {
    fn record(&mut self, event: Event) -> Flow {
        self.events.push(event);
        if self.stop_after == Some(self.events.len()) { Flow::Stop } else { Flow::Continue }
    }
}

impl Sink for Recorder {
    fn message(&mut self, kind: MessageKind, payload: &mut [u8]) -> Flow {
        if kind == MessageKind::Text {
            assert!(std::str::from_utf8(payload).is_ok());
        }
        self.record(Event::Message(kind, payload.to_vec()))
    }
    fn ping(&mut self, payload: &[u8]) -> Flow {
        self.record(Event::Ping(payload.to_vec()))
    }
    fn pong(&mut self, payload: &[u8]) -> Flow {
        self.record(Event::Pong(payload.to_vec()))
    }
    fn close(&mut self, code: Option<u16>, reason: &str) -> Flow {
        self.record(Event::Close(code, reason.to_owned()))
    }
}

type Outcome = (Vec<Event>, Result<Flow, Violation>);

/// Reads the pieces one after the other; checks memory after each, and that the end owns nothing.
fn read_pieces<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    stop_after: Option<usize>,
) -> Outcome {
    let mut partial: Option<Box<Partial>> = None;
    let mut sink = Recorder { stop_after, ..Recorder::default() };
    for piece in pieces {
        let outcome = read(&mut partial, &mut piece.to_vec(), LIMITS, &mut sink);
        let heap = partial.as_ref().map_or(0, |partial| partial.heap_bytes());
        assert!(heap <= size_of::<Partial>() + LIMITS.message_size_max + 256, "{heap} bytes");
        if outcome != Ok(Flow::Continue) {
            assert!(partial.is_none());
            return (sink.events, outcome);
        }
    }
    (sink.events, Ok(Flow::Continue))
}

fn read_whole(bytes: &[u8]) -> Outcome {
    read_pieces([bytes], None)
}

/// A client frame, masked; the length form is the shortest.
fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0xa5, 0x01, 0xff, 0x3c];
    let mut bytes = vec![(u8::from(fin) << 7) | opcode];
    match u16::try_from(payload.len()).unwrap() {
        length @ 0..=125 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

fn text(payload: &str) -> Event {
    Event::Message(MessageKind::Text, payload.as_bytes().to_vec())
}

#[test]
fn complete_messages_leave_no_partial_state() {
    let mut bytes = frame(true, 1, "héllo".as_bytes());
    bytes.extend(frame(true, 2, &[0xff; 300]));
    bytes.extend(frame(true, 9, b"p"));
    bytes.extend(frame(true, 10, b""));
    bytes.extend(frame(true, 1, b""));
    let mut partial = None;
    let mut sink = Recorder::default();
    assert_eq!(read(&mut partial, &mut bytes, LIMITS, &mut sink), Ok(Flow::Continue));
    assert!(partial.is_none());
    let expected = [
        text("héllo"),
        Event::Message(MessageKind::Binary, vec![0xff; 300]),
        Event::Ping(b"p".to_vec()),
        Event::Pong(Vec::new()),
        text(""),
    ];
    assert_eq!(sink.events, expected);
}

/// Fragments with control frames between them, a character split over two, a close at the end.
fn busy_stream() -> Vec<u8> {
    let mut bytes = frame(true, 1, b"one");
    bytes.extend(frame(false, 1, b"a\xe2\x82"));
    bytes.extend(frame(true, 9, b"are you there"));
    bytes.extend(frame(false, 0, b""));
    bytes.extend(frame(false, 0, b"\xac"));
    bytes.extend(frame(true, 10, b""));
    bytes.extend(frame(true, 0, b"z"));
    bytes.extend(frame(false, 2, b"\xff\xfe"));
    bytes.extend(frame(true, 0, &[7; 200]));
    bytes.extend(frame(true, 8, b"\x03\xe8bye"));
    bytes
}

#[test]
fn every_cut_gives_the_same_events() {
    let bytes = busy_stream();
    let (events, outcome) = read_whole(&bytes);
    assert_eq!(outcome, Ok(Flow::Stop));
    assert_eq!(events.len(), 6);
    assert_eq!(events[2..4], [Event::Pong(Vec::new()), text("a€z")]);
    assert_eq!(events[5], Event::Close(Some(1000), "bye".to_owned()));
    for first in 0..=bytes.len() {
        let (front, back) = bytes.split_at(first);
        assert_eq!(read_pieces([front, back], None), (events.clone(), outcome), "cut at {first}");
    }
    for size in 1..20 {
        assert_eq!(read_pieces(bytes.chunks(size), None), (events.clone(), outcome));
    }
}

#[test]
fn partial_exists_exactly_inside_frames_and_messages() {
    let mut bytes = frame(true, 1, b"ab");
    let boundary = bytes.len();
    bytes.extend(frame(false, 1, b"c"));
    bytes.extend(frame(true, 9, b"d"));
    bytes.extend(frame(true, 0, b"e"));
    let mut partial = None;
    for (index, byte) in bytes.iter().enumerate() {
        let mut sink = Recorder::default();
        assert_eq!(read(&mut partial, &mut [*byte], LIMITS, &mut sink), Ok(Flow::Continue));
        let fed = index + 1;
        assert_eq!(partial.is_none(), fed == boundary || fed == bytes.len(), "after {fed} bytes");
    }
}

#[test]
fn empty_input_changes_nothing() {
    let mut partial = None;
    let mut sink = Recorder::default();
    for piece in [&frame(true, 1, b"abc")[..7], b"", &frame(true, 1, b"abc")[7..]] {
        assert_eq!(read(&mut partial, &mut piece.to_vec(), LIMITS, &mut sink), Ok(Flow::Continue));
    }
    assert_eq!(sink.events, [text("abc")]);
    assert_eq!(read(&mut partial, &mut [], LIMITS, &mut sink), Ok(Flow::Continue));
    assert!(partial.is_none());
}

#[test]
fn stop_drops_the_rest() {
    let bytes = [frame(true, 9, b"1"), frame(true, 9, b"2"), frame(true, 9, b"3")].concat();
    let (events, outcome) = read_pieces([&bytes[..]], Some(2));
    assert_eq!((events.len(), outcome), (2, Ok(Flow::Stop)));
}

#[test]
fn nothing_is_read_after_close() {
    let bytes = [frame(true, 8, b""), vec![0xff; 50]].concat();
    let (events, outcome) = read_whole(&bytes);
    assert_eq!((events, outcome), (vec![Event::Close(None, String::new())], Ok(Flow::Stop)));
}

#[test]
fn each_violation_of_the_framing_is_named() {
    let too_long = [0x82, 0xfe, 0x03, 0xe9, 0, 0, 0, 0];
    let huge = [0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4];
    let cases: Vec<(Violation, Vec<u8>)> = vec![
        (Violation::ReservedBits, vec![0xc1]),
        (Violation::ReservedOpcode, vec![0x83]),
        (Violation::Unmasked, vec![0x81, 0x01, b'x']),
        (Violation::ControlFragmented, frame(false, 9, b"")),
        (Violation::ControlTooLong, frame(true, 9, &[0; 126])),
        (Violation::LengthForm, vec![0x81, 0xfe, 0, 5]),
        (Violation::LengthForm, vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        (Violation::ContinuationWithoutStart, frame(true, 0, b"x")),
        (Violation::MessageInsideMessage, [frame(false, 1, b"x"), frame(true, 1, b"y")].concat()),
        (Violation::ClosePayload, frame(true, 8, &[3])),
        (Violation::CloseCode, frame(true, 8, &1005_u16.to_be_bytes())),
        (Violation::InvalidUtf8, frame(true, 8, b"\x03\xe8\xff")),
        (Violation::InvalidUtf8, frame(true, 1, b"\xe2\x82")),
        (Violation::InvalidUtf8, [frame(false, 1, b"\xe2"), frame(true, 0, b"x")].concat()),
        (Violation::InvalidUtf8, [frame(false, 1, b"\xe2"), frame(true, 0, b"")].concat()),
        (Violation::MessageTooBig, too_long.to_vec()),
        (Violation::MessageTooBig, huge.to_vec()),
        (Violation::MessageTooBig, [frame(false, 2, &[0; 999]), frame(true, 0, &[0; 2])].concat()),
    ];
    for (violation, bytes) in &cases {
        assert_eq!(read_whole(bytes), (Vec::new(), Err(*violation)), "{bytes:x?}");
        assert_eq!(read_pieces(bytes.chunks(1), None), (Vec::new(), Err(*violation)));
    }
    for violation in Violation::ALL {
        assert!(cases.iter().any(|(covered, _)| *covered == violation), "{violation:?} untested");
    }
}

#[test]
fn bad_text_fails_before_it_is_complete() {
    let bytes = frame(true, 1, &[b"good \xff".as_slice(), &[b'x'; 500]].concat());
    assert_eq!(read_whole(&bytes[..8 + 5]).1, Ok(Flow::Continue));
    assert_eq!(read_whole(&bytes[..8 + 6]).1, Err(Violation::InvalidUtf8));
}

#[test]
fn the_limit_itself_is_accepted() {
    let bytes = frame(true, 2, &[1; 1000]);
    assert_eq!(read_whole(&bytes).0, [Event::Message(MessageKind::Binary, vec![1; 1000])]);
    let halves = [frame(false, 2, &[1; 500]), frame(true, 0, &[1; 500])].concat();
    assert_eq!(read_whole(&halves).0, [Event::Message(MessageKind::Binary, vec![1; 1000])]);
    assert_eq!(read_pieces(halves.chunks(3), None).0.len(), 1);
}

#[test]
fn a_control_frame_may_exceed_the_message_limit() {
    let mut sink = Recorder::default();
    let mut bytes = frame(true, 9, &[1; 125]);
    let limits = FrameLimits { message_size_max: 10 };
    assert_eq!(read(&mut None, &mut bytes, limits, &mut sink), Ok(Flow::Continue));
    assert_eq!(sink.events.len(), 1);
}

#[test]
fn a_declared_length_reserves_nothing() {
    let limits = FrameLimits { message_size_max: 1 << 40 };
    let mut bytes = vec![0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, b'x'];
    let mut partial = None;
    let mut sink = Recorder::default();
    assert_eq!(read(&mut partial, &mut bytes, limits, &mut sink), Ok(Flow::Continue));
    assert!(partial.is_some_and(|partial| partial.heap_bytes() < 256));
}

/// Frames that form a legal stream: messages in up to four fragments, control frames among them.
fn valid_stream() -> impl Strategy<Value = Vec<u8>> {
    let control = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..126).prop_map(|payload| frame(true, 9, &payload)),
        proptest::collection::vec(any::<u8>(), 0..126)
            .prop_map(|payload| frame(true, 10, &payload)),
    ];
    let payload = prop_oneof![
        proptest::collection::vec(any::<char>(), 0..60)
            .prop_map(|text| (1, text.into_iter().collect::<String>().into_bytes())),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| (2, bytes)),
    ];
    let between = proptest::collection::vec(proptest::option::of(control), 4);
    let message = (payload, 1_usize..5, between).prop_map(|((opcode, payload), count, between)| {
        let size = payload.len().div_ceil(count).max(1);
        let mut pieces: Vec<&[u8]> = payload.chunks(size).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        let last = pieces.len() - 1;
        let mut bytes = Vec::new();
        for (index, piece) in pieces.into_iter().enumerate() {
            bytes.extend(frame(index == last, if index == 0 { opcode } else { 0 }, piece));
            bytes.extend(between[index].iter().flatten());
        }
        bytes
    });
    proptest::collection::vec(message, 1..6).prop_map(|messages| messages.concat())
}

fn random_pieces<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at(bytes.len().min(*size));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(1_usize..200, 1..8)
}

proptest! {
    #[test]
    fn valid_streams_survive_any_cut(bytes in valid_stream(), sizes in sizes()) {
        let whole = read_whole(&bytes);
        prop_assert_eq!(whole.1, Ok(Flow::Continue));
        prop_assert_eq!(&read_pieces(random_pieces(&bytes, &sizes), None), &whole);
        prop_assert_eq!(read_pieces(bytes.chunks(1), None), whole);
    }

    #[test]
    fn damaged_streams_give_the_same_verdict_in_any_cut(
        bytes in valid_stream(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        sizes in sizes(),
    ) {
        let mut bytes = bytes;
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assert_eq!(read_pieces(random_pieces(&bytes, &sizes), None), read_whole(&bytes));
    }

    #[test]
    fn noise_gives_the_same_verdict_in_any_cut(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        sizes in sizes(),
    ) {
        prop_assert_eq!(read_pieces(random_pieces(&bytes, &sizes), None), read_whole(&bytes));
    }
}
