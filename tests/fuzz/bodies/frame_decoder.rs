//! The WebSocket reader: the same bytes, whole and in pieces, give the same events and the same
//! verdict, and what it keeps between pieces stays within the limit.

use ringverb::ws::reader::{Flow, FrameLimits, MessageKind, Partial, Sink, Violation, read};

const LIMITS: FrameLimits = FrameLimits { message_size_max: 1024 };

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

#[derive(Default)]
struct Recorder(Vec<Event>);

impl Sink for Recorder {
    fn message(&mut self, kind: MessageKind, payload: &mut [u8]) -> Flow {
        assert!(payload.len() <= LIMITS.message_size_max);
        assert!(kind == MessageKind::Binary || std::str::from_utf8(payload).is_ok());
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
        self.0.push(Event::Close(code, reason.to_owned()));
        Flow::Stop
    }
}

/// The first byte is the size of the pieces, the rest is the stream.
pub(crate) fn check(data: &[u8]) {
    let Some((&size, stream)) = data.split_first() else { return };
    let whole = read_pieces(stream, stream.len().max(1));
    assert_eq!(whole, read_pieces(stream, usize::from(size).max(1)));
}

fn read_pieces(stream: &[u8], size: usize) -> (Vec<Event>, Result<Flow, Violation>) {
    let mut partial = None;
    let mut sink = Recorder::default();
    for piece in stream.chunks(size) {
        let outcome = read(&mut partial, &mut piece.to_vec(), LIMITS, &mut sink);
        let heap = partial.as_deref().map_or(0, Partial::heap_bytes);
        assert!(heap <= LIMITS.message_size_max + 512, "{heap} bytes kept");
        if outcome != Ok(Flow::Continue) {
            assert!(partial.is_none());
            return (sink.0, outcome);
        }
    }
    (sink.0, Ok(Flow::Continue))
}
