//! The bytes of each message, which nodes of two builds must agree on, and bytes that are no message.

use super::*;
use crate::pusher::inbound::UserId;
use proptest::prelude::*;

fn envelope(message: impl Into<NodeMessage>) -> Envelope {
    let from = SessionId { node: NodeId(u64::MAX), core: 3 };
    Envelope { from, number: 1 << 40, message: message.into() }
}

fn event() -> Envelope {
    envelope(ChannelMessage::Event { except: None, cache: true })
}

#[test]
fn an_event_travels_with_its_frame() {
    let frame = frame::encode_text(b"{\"event\":\"e\"}");
    let bytes = encode(event(), &frame);
    assert_eq!(decode(&bytes), Some((event(), &frame[..])));
    assert_eq!(decode(&bytes[..bytes.len() - 1]), None, "half a frame is no event");
    assert_eq!(decode(&[&bytes[..], b"x"].concat()), None);
    let quit = || envelope(ChannelMessage::Quit);
    assert_eq!(decode(&encode(quit(), b"")), Some((quit(), &b""[..])));
    assert_eq!(decode(&encode(quit(), b"x")), None);
}

/// A message, its bytes by the first build that had it, and whether a frame follows.
type Row = (NodeMessage, &'static [u8], bool);

fn snapshot() -> NodeSnapshot {
    let user = UserId { json: "\"u\"".into(), text: "u".into() };
    NodeSnapshot {
        members: vec![MemberSnapshot { user, user_info: "{}".into() }],
        pending_leaves: vec![None, Some("w".into())],
        online: true,
        occupied: false,
        count: 300,
    }
}

fn channel_messages() -> [Row; 10] {
    let member = snapshot().members.remove(0);
    let joined = ChannelMessage::Joined { member, channel_data: "{}".into() };
    let is_final = |who: Option<&str>| ChannelMessage::LeaveFinal { who: who.map(Into::into) };
    [
        (ChannelMessage::Event { except: None, cache: true }.into(), b"\0\0\x01", true),
        (joined.into(), b"\x01\x03\"u\"\x01u\x02{}\x02{}", false),
        (ChannelMessage::Left { user_id: "u".into() }.into(), b"\x02\x01u", false),
        (is_final(None).into(), b"\x03\0", false),
        (is_final(Some("u")).into(), b"\x03\x01\x01u", false),
        (ChannelMessage::Online(true).into(), b"\x04\x01", false),
        (ChannelMessage::Occupied(false).into(), b"\x05\0", false),
        (ChannelMessage::Count(300).into(), b"\x06\xac\x02", false),
        (
            ChannelMessage::Synchronize { ticket: 5, snapshot: snapshot() }.into(),
            b"\x07\x05\x01\x03\"u\"\x01u\x02{}\x02\0\x01\x01w\x01\0\xac\x02",
            false,
        ),
        (ChannelMessage::Restored.into(), b"\x09", false),
    ]
}

fn operator_messages() -> [Row; 4] {
    use crate::shard::{
        NodeChannelRow, NodeConnectionRow, NodeRows, OperatorAnswer, OperatorOutcome,
        OperatorQuestion,
    };
    let socket_id = SocketId::parse("1.2").unwrap();
    let ask = |question| ApiMessage::Ask { id: 4, question: WireQuestion::Operator(question) };
    let find = OperatorQuestion::Connections { app: None, contains: "ada".into() };
    let end = OperatorQuestion::EndAccess { socket_id, channel: Some("news".into()) };
    let until =
        OperatorQuestion::EndAccessUntil { socket_id, channel: None, deadline_unix_ms: 300 };
    let connection = NodeConnectionRow {
        socket_id,
        app: "1".into(),
        user: Some("u".into()),
        channels: 3,
        queue_bytes: 300,
        age_seconds: None,
        silent_seconds: 9,
    };
    let rows = NodeRows {
        channels: vec![NodeChannelRow { name: "news".into(), subscribers: 2, users: 1 }],
        connections: vec![connection],
        members: vec![("u".into(), "{}".into())],
        left_out: 5,
        left_out_members: 6,
        left_out_subscribers: 7,
    };
    let outcome = OperatorOutcome::Rows(rows);
    let answer = OperatorAnswer { node: 300, host: "h".into(), core: 2, outcome };
    let answers = vec![WireAnswer::Operator(Box::new(answer))];
    [
        (ask(find).into(), b"\x13\x04\x05\x02\0\x03ada", false),
        (ask(end).into(), b"\x13\x04\x05\x04\x01\x02\x01\x04news", false),
        (ask(until).into(), b"\x13\x04\x05\x05\x01\x02\0\xac\x02", false),
        (
            ApiMessage::Answer { id: 4, answers }.into(),
            b"\x14\x04\x01\x05\xac\x02\x01h\x02\0\x01\x04news\x02\x01\x01\x01\x02\x011\x01\x01u\x03\xac\x02\0\x09\x01\
              \x01u\x02{}\x05\x06\x07",
            false,
        ),
    ]
}

fn other_messages() -> [Row; 16] {
    let (app, channel) = (|| Box::from("1"), || Box::from("news"));
    let answer = |snapshot| {
        let (app, channel) = (app(), channel());
        SessionMessage::Snapshot { app, channel, ticket: 5, snapshot }
    };
    let empty = answer(Some(NodeSnapshot::default()));
    let terminate = SessionMessage::Terminate { app: app(), user_id: "u".into() };
    let received = vec![(SessionId { node: NodeId(9), core: 1 }, 3)];
    let request = SessionMessage::ReplayRequest { away_seconds: 200, received };
    let replay = |what| {
        let (app, channel) = (app(), channel());
        SessionMessage::Replay { number: 7, app, channel, what }
    };
    let action = || AccessAction::Unsubscribe { channel: "news".into() };
    let withdrawn = SessionMessage::EndAccess {
        app: app(),
        target: AccessTarget::User("u".into()),
        action: action(),
    };
    let socket = AccessTarget::Socket(SocketId::parse("1.2").unwrap());
    let withdrawn_before =
        Replayed::EndAccess { app: app(), target: socket, action: AccessAction::Reconnect };
    let ended = Replayed::Terminate { app: app(), user_id: "u".into() };
    let sent = Replayed::Event { except: None, cache: false };
    let question = WireQuestion::Connections { app: app() };
    let answers = vec![WireAnswer::Connections(2), WireAnswer::Users(vec!["u".into()])];
    let answers = ApiMessage::Answer { id: 4, answers };
    [
        (answer(None).into(), b"\x08\x011\x04news\x05\0", false),
        (empty.into(), b"\x08\x011\x04news\x05\x01\0\0\0\0\0", false),
        (ChannelMessage::Quit.into(), b"\x0a", false),
        (terminate.into(), b"\x0b\x011\x01u", false),
        (SessionMessage::Heartbeat.into(), b"\x0c", false),
        (SessionMessage::SessionUp.into(), b"\x0d", false),
        (request.into(), b"\x0e\xc8\x01\x01\x09\x01\x03", false),
        (replay(ended).into(), b"\x0f\x07\x011\x04news\x0b\x011\x01u", false),
        (replay(sent).into(), b"\x0f\x07\x011\x04news\0\0\0", true),
        (SessionMessage::ReplayDone.into(), b"\x10", false),
        (SessionMessage::NodeEnds.into(), b"\x11", false),
        (SessionMessage::Revive { node: NodeId(300) }.into(), b"\x12\xac\x02", false),
        (ApiMessage::Ask { id: 4, question }.into(), b"\x13\x04\x03\x011", false),
        (answers.into(), b"\x14\x04\x02\x03\x02\x02\x01\x01u", false),
        (withdrawn.into(), b"\x15\x011\0\x01u\x02\x04news", false),
        (replay(withdrawn_before).into(), b"\x0f\x07\x011\x04news\x15\x011\x01\x01\x02\x01", false),
    ]
}

/// Nodes of two builds meet during a rolling restart.
#[test]
fn each_message_keeps_its_bytes() {
    let event = frame::encode_text(b"{}");
    let head = [&[0xff; 9][..], &[1, 3], &[0x80; 5], &[0x20]].concat();
    let rest = other_messages().into_iter().chain(operator_messages());
    for (message, tail, has_frame) in channel_messages().into_iter().chain(rest) {
        let frame = if has_frame { &event[..] } else { b"" };
        let bytes = encode(envelope(message.clone()), frame);
        let expected = [&head[..], tail, frame].concat();
        assert_eq!(bytes, expected, "{message:?}: {}", bytes.escape_ascii());
        assert_eq!(decode(&bytes), Some((envelope(message), frame)));
    }
}

/// A replay held a whole message once, and could nest.
#[test]
fn a_replay_cannot_contain_another_one() {
    let head = [7, 0, 1];
    for depth in [1, 2, 10_000, 1_000_000] {
        let nested = [15, 1, 0, 0].repeat(depth);
        for inner in 0..=21 {
            let bytes = [&head[..], &[15, 1, 0, 0], &nested, &[inner, 0, 0]].concat();
            assert_eq!(decode(&bytes), None, "depth {depth}, kind {inner}");
        }
    }
}

#[test]
fn a_snapshot_over_its_limit_is_refused_before_it_is_decoded() {
    let synchronize = |leaves: usize| {
        let pending_leaves = vec![None; leaves];
        let snapshot = NodeSnapshot { pending_leaves, ..NodeSnapshot::default() };
        encode(envelope(ChannelMessage::Synchronize { ticket: 1, snapshot }), b"")
    };
    assert!(decode(&synchronize(1_000)).is_some());
    assert_eq!(decode(&synchronize(STATE_BYTES_MAX)), None);
    let frame = frame::encode_text(&vec![b' '; STATE_BYTES_MAX + 1]);
    assert!(decode(&encode(event(), &frame)).is_some(), "events have limits of their own");
}

#[test]
fn a_stored_event_is_read_until_it_expires() {
    let frame = frame::encode_text(b"{}");
    let from = event().from;
    let head = StoredHead { expires: 1_000, from, number: 7 };
    let bytes = encode_stored(head, &frame);
    let stored = Stored { frame: frame.into(), seconds: 10, from, number: 7 };
    assert_eq!(decode_stored(&bytes, 990), Some(stored));
    assert_eq!(decode_stored(&bytes, 1_000), None);
    assert_eq!(decode_stored(&bytes[..4], 0), None);
    assert_eq!(decode_stored(&bytes[..bytes.len() - 1], 0), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = decode(&bytes);
        let _ = decode_stored(&bytes, 0);
    }
}
