//! What the server does to bytes and state, in small pieces: each case is set up once and then run
//! over and over. No socket, no clock: timing and counting are the callers' business.

mod handshake;
mod publish;

use std::hint::black_box;
use std::sync::Arc;

use ringverb::clock::Moment;
use ringverb::mailbox::{Mailbox, mesh};
use ringverb::pusher::inbound;
use ringverb::pusher::json::Validator;
use ringverb::pusher::outbound;
use ringverb::pusher::signature::{check_channel, sign};
use ringverb::shard::ConnectionKey;
use ringverb::ws::frame::{self, Header};
use ringverb::ws::mask::unmask;
use ringverb::ws::reader::{self, Flow, FrameLimits, MessageKind};

use crate::setup::{APP, config, connect, flush, shard, subscribe};

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Things that one run does.
    pub(crate) items: usize,
    pub(crate) set_up: fn() -> Box<dyn FnMut()>,
}

pub(crate) const CASES: &[Case] = &[
    Case { name: "frame_header_decode", items: 1, set_up: frame_header_decode },
    Case { name: "frame_read_100_bytes", items: 1, set_up: frame_read },
    Case { name: "frame_encode_100_bytes", items: 1, set_up: frame_encode },
    Case { name: "unmask_64_bytes", items: 1, set_up: || unmask_case(64) },
    Case { name: "unmask_4096_bytes", items: 1, set_up: || unmask_case(4096) },
    Case { name: "parse_client_event", items: 1, set_up: || parse_case(CLIENT_EVENT) },
    Case { name: "parse_subscribe", items: 1, set_up: || parse_case(SUBSCRIBE) },
    Case { name: "encode_event", items: 1, set_up: encode_event },
    Case { name: "signature_check", items: 1, set_up: signature_check },
    Case { name: "publish_request", items: 1, set_up: publish::request },
    Case { name: "fan_out_to_1000", items: 1000, set_up: || fan_out(1000) },
    Case { name: "flush_to_1000", items: 1000, set_up: || handshake::flush_to(1000) },
    Case { name: "churn_of_one_connection", items: 1, set_up: churn },
    Case { name: "handshake", items: handshake::CONNECTIONS, set_up: handshake::handshakes },
    Case { name: "channel_lookup_in_10000", items: 1, set_up: || channel_lookup(10_000) },
    Case { name: "ring_transfer_of_256", items: 256, set_up: || ring_transfer(256) },
    Case { name: "timer_wheel_of_10000", items: 10_000, set_up: || timer_wheel(10_000) },
];

const CLIENT_EVENT: &str =
    r#"{"event":"client-typing","channel":"private-room-12","data":{"name":"somebody","at":12}}"#;
const SUBSCRIBE: &str = concat!(
    r#"{"event":"pusher:subscribe","data":{"channel":"private-room-12","#,
    r#""auth":"app-key:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"}}"#,
);

/// A text frame of a client. The mask is zero, so that reading it leaves it as it was.
fn client_frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match u8::try_from(payload.len()) {
        Ok(short @ 0..=125) => bytes.push(0x80 | short),
        _ => {
            let length = u16::try_from(payload.len()).expect("a short payload");
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

fn frame_header_decode() -> Box<dyn FnMut()> {
    let bytes = client_frame(&[b'x'; 64]);
    Box::new(move || {
        black_box(Header::decode(black_box(&bytes)).is_ok());
    })
}

/// Counts what it is handed.
struct Counter(usize);

impl reader::Sink for Counter {
    fn message(&mut self, _: MessageKind, payload: &mut [u8]) -> Flow {
        self.0 += payload.len();
        Flow::Continue
    }

    fn ping(&mut self, _: &[u8]) -> Flow {
        Flow::Continue
    }

    fn pong(&mut self, _: &[u8]) -> Flow {
        Flow::Continue
    }

    fn close(&mut self, _: Option<u16>, _: &str) -> Flow {
        Flow::Stop
    }
}

fn frame_read() -> Box<dyn FnMut()> {
    let mut bytes = client_frame(&[b'x'; 100]);
    let limits = FrameLimits { message_size_max: 10_000 };
    Box::new(move || {
        let mut counter = Counter(0);
        let flow = reader::read(&mut None, black_box(&mut bytes), limits, &mut counter);
        assert!(flow.is_ok() && counter.0 == 100);
    })
}

fn frame_encode() -> Box<dyn FnMut()> {
    let payload = [b'x'; 100];
    Box::new(move || {
        black_box(frame::encode_text(black_box(&payload)));
    })
}

fn unmask_case(length: usize) -> Box<dyn FnMut()> {
    let mut payload = vec![b'x'; length];
    Box::new(move || unmask(black_box(&mut payload), [1, 2, 3, 4], 0))
}

fn parse_case(text: &'static str) -> Box<dyn FnMut()> {
    let mut validator = Validator::default();
    Box::new(move || {
        assert!(inbound::parse(black_box(text.as_bytes()), &mut validator).is_ok());
    })
}

fn encode_event() -> Box<dyn FnMut()> {
    let data = format!("\"{}\"", "x".repeat(64));
    let mut text = Vec::new();
    Box::new(move || {
        text.clear();
        outbound::event("\"event\"", black_box(&data), "private-room-12", &mut text);
        black_box(frame::encode_text(&text));
    })
}

fn signature_check() -> Box<dyn FnMut()> {
    let app = config().apps.pop().expect("one app");
    let signed = sign(&app.secret, &[b"123.456:private-room-12"]);
    let auth = format!("app-key:{}", String::from_utf8_lossy(&signed));
    Box::new(move || {
        let auth = Some(black_box(auth.as_str()));
        assert!(check_channel(&app, "123.456", "private-room-12", None, auth).is_ok());
    })
}

/// One publish, and the flush of everybody it goes to.
fn fan_out(subscribers: u64) -> Box<dyn FnMut()> {
    let mut shard = shard();
    for number in 0..subscribers {
        let key = connect(&mut shard, number);
        subscribe(&mut shard, key, "news");
    }
    let channel = shard.channel_key(APP, "news").expect("a channel name");
    let frame = frame::encode_text(&[b'x'; 100]);
    Box::new(move || {
        shard.publish(channel.clone(), black_box(&frame).clone().into(), None, false);
        assert_eq!(shard.outbox.dirty.len() as u64, subscribers);
        flush(&mut shard);
    })
}

/// A connection that opens, subscribes to three channels and is gone.
fn churn() -> Box<dyn FnMut()> {
    let mut shard = shard();
    let mut number = 0;
    Box::new(move || {
        number += 1;
        let key = connect(&mut shard, black_box(number));
        for channel in ["news", "sports", "weather"] {
            subscribe(&mut shard, key, channel);
        }
        shard.remove(key);
    })
}

/// A publish to one of many channels with one subscriber each, by name, in turn.
fn channel_lookup(channels: u64) -> Box<dyn FnMut()> {
    let mut shard = shard();
    let name = |number: u64| format!("channel-{number}");
    for number in 0..channels {
        let key = connect(&mut shard, number);
        subscribe(&mut shard, key, &name(number));
    }
    let names: Vec<String> = (0..channels).map(name).collect();
    let frame: Arc<[u8]> = frame::encode_text(&[b'x'; 100]).into();
    // A stride that is no divisor, so that no two lookups are neighbors.
    let mut places = (0..names.len()).cycle().step_by(7919);
    Box::new(move || {
        let name = &names[places.next().expect("endless")];
        let channel = shard.channel_key(APP, name).expect("a channel name");
        shard.publish(channel, frame.clone(), None, false);
        assert_eq!(shard.outbox.dirty.len(), 1);
        flush(&mut shard);
    })
}

fn ring_transfer(count: u64) -> Box<dyn FnMut()> {
    let mut mailboxes: Vec<Mailbox<u64>> = mesh(2).expect("two event descriptors");
    let mut right = mailboxes.pop().expect("two mailboxes");
    let mut left = mailboxes.pop().expect("two mailboxes");
    let mut received = Vec::new();
    Box::new(move || {
        for number in 0..count {
            left.send(1, 0, number, number);
        }
        received.clear();
        right.receive_ordered(0, u64::MAX, &mut received);
        assert_eq!(received.len() as u64, count);
    })
}

/// A minute of connections that give a sign of life every 20 seconds: each comes up on the wheel
/// about once and is put further on.
fn timer_wheel(connections: u64) -> Box<dyn FnMut()> {
    let mut shard = shard();
    let keys: Vec<ConnectionKey> =
        (0..connections).map(|number| connect(&mut shard, number)).collect();
    Box::new(move || {
        for _ in 0..3 {
            shard.advance(Moment(shard.now().0 + 20_000));
            for key in &keys {
                shard.on_pong_frame(*key);
            }
        }
        assert!(shard.outbox.dirty.is_empty(), "nobody was silent");
    })
}
