//! Messages of clients: accepted forms, faults, and linear cost.

use super::*;
use proptest::prelude::*;

fn check(text: &str, expected: &Result<Inbound<'_>, MalformedMessage>) {
    assert_eq!(&parse(text.as_bytes(), &mut Validator::default()), expected, "{text}");
}

fn subscribed(channel: &str) -> Subscribe {
    Subscribe { channel: channel.to_owned(), auth: None, channel_data: None }
}

#[test]
#[rustfmt::skip]
fn malformed_messages_have_fault_and_value() {
    for (text, fault, value) in [
        ("not json", MessageFault::NotJson, "not json"),
        ("", MessageFault::NotJson, ""),
        ("null", MessageFault::NotJson, "null"),
        ("1", MessageFault::NotJson, "1"),
        ("\"str\"", MessageFault::NotJson, "\"str\""),
        ("[]", MessageFault::NotJson, "[]"),
        ("{}", MessageFault::NoEvent, "missing"),
        ("{\"event\":null}", MessageFault::NoEvent, "null"),
        ("{\"event\":5,\"data\":{}}", MessageFault::NoEvent, "5"),
        ("{\"event\":\"\"}", MessageFault::EventWithoutChannel, ""),
        ("{\"event\":[\"pusher:ping\"]}", MessageFault::NoEvent, "[\"pusher:ping\"]"),
        ("{\"data\":{}}", MessageFault::NoEvent, "missing"),
        ("{\"event\":\"whatever\",\"data\":{}}", MessageFault::EventWithoutChannel, "whatever"),
        ("{\"event\":\"pusher:nothing\",\"data\":{}}", MessageFault::UnknownEvent, "pusher:nothing"),
        ("{\"event\":\"pusher:signin\",\"data\":{}}", MessageFault::SignInData, ""),
        ("{\"event\":\"pusher:signin\",\"data\":{\"user_data\":{\"id\":\"7\"}}}", MessageFault::SignInData, ""),
        ("{\"event\":\"pusher:signin\",\"data\":{\"user_data\":\"7\"}}", MessageFault::SignInData, ""),
        ("{\"event\":\"pusher:ping\"} trailing", MessageFault::NotJson, "{\"event\":\"pusher:ping\"} trailing"),
        ("\u{feff}{\"event\":\"pusher:ping\"}", MessageFault::NotJson, "\u{feff}{\"event\":\"pusher:ping\"}"),
        ("{\"event\":\"pusher:subscribe\"}", MessageFault::SubscribeData, "pusher:subscribe"),
        (
            "{\"event\":\"pusher:subscribe\",\"data\":{}}",
            MessageFault::SubscribeChannel,
            "pusher:subscribe has no channel",
        ),
        ("{\"event\":\"pusher:subscribe\",\"data\":null}", MessageFault::SubscribeData, "pusher:subscribe"),
        ("{\"event\":\"pusher:subscribe\",\"data\":\"x\"}", MessageFault::SubscribeData, "pusher:subscribe"),
        (
            "{\"event\":\"pusher:subscribe\",\"data\":{\"channel\":\"\"}}",
            MessageFault::SubscribeChannel,
            "pusher:subscribe has channel \"\"",
        ),
        (
            "{\"event\":\"pusher:subscribe\",\"data\":{\"channel\":null}}",
            MessageFault::SubscribeChannel,
            "pusher:subscribe has channel null",
        ),
        (
            "{\"event\":\"pusher:subscribe\",\"data\":{\"channel\":[\"x\"]}}",
            MessageFault::SubscribeChannel,
            "pusher:subscribe has channel [\"x\"]",
        ),
        (
            "{\"event\":\"pusher:subscribe\",\"channel\":\"top-level\",\"data\":{}}",
            MessageFault::SubscribeChannel,
            "pusher:subscribe has no channel",
        ),
        (
            "{\"event\":\"pusher:subscribe\",\"data\":{\"channel\":\"presence-x\",\"channel_data\":\"nojson\"}}",
            MessageFault::ChannelData,
            r#"subscription to "presence-x" refused: channel_data "nojson""#,
        ),
        (
            "{\"event\":\"pusher:subscribe\",\"data\":{\"channel\":\"presence-x\",\"channel_data\":{\"user_id\":1}}}",
            MessageFault::ChannelData,
            r#"subscription to "presence-x" refused: channel_data "{\"user_id\":1}""#,
        ),
        (
            "{\"event\":\"pusher:unsubscribe\",\"data\":{}}",
            MessageFault::SubscribeChannel,
            "pusher:unsubscribe has no channel",
        ),
        ("{\"event\":\"client-x\",\"data\":{}}", MessageFault::EventWithoutChannel, "client-x"),
        ("{\"event\":\"client-x\",\"channel\":7,\"data\":{}}", MessageFault::EventWithoutChannel, "client-x"),
    ] {
        check(text, &Err(MalformedMessage { fault, value: value.into() }));
    }
    let long = parse("é".repeat(5_000).as_bytes(), &mut Validator::default()).unwrap_err();
    assert_eq!(&*long.value, "é".repeat(20));
}

#[test]
fn pings_and_pongs_need_no_data() {
    for data in ["", ",\"data\":{}", ",\"data\":\"{}\"", ",\"data\":[]", ",\"extra\":1"] {
        check(&format!("{{\"event\":\"pusher:ping\"{data}}}"), &Ok(Inbound::Ping));
    }
    check("{\"event\":\"pusher:pong\",\"data\":{}}", &Ok(Inbound::Pong));
    check("{\"\\u0065vent\":\"pusher:\\u0070ong\"}", &Ok(Inbound::Pong));
}

#[test]
fn subscriptions_are_read_from_objects_and_strings() {
    let news = Ok(Inbound::Subscribe(subscribed("news")));
    check("{\"event\":\"pusher:subscribe\",\"data\":{\"channel\":\"news\"}}", &news);
    check("{\"event\":\"pusher:subscribe\",\"data\":\"{\\\"channel\\\":\\\"news\\\"}\"}", &news);
    check(
        "{\"event\":\"pusher:subscribe\",\"data\":{\"channel\":\"news\",\"auth\":5,\"channel_data\":null}}",
        &Ok(Inbound::Subscribe(Subscribe {
            auth: Some(Auth::Other("a number")),
            ..subscribed("news")
        })),
    );
    check(
        "{\"event\":\"pusher:unsubscribe\",\"data\":{\"channel\":\"nope\"}}",
        &Ok(Inbound::Unsubscribe { channel: "nope".to_owned() }),
    );
}

#[test]
fn channel_data_keeps_its_text() {
    let cases = [
        (r#"{"user_id":7,"user_info":{"n":"A"}}"#, Some(("7", "7")), r#"{"n":"A"}"#),
        (r#"{"user_id":"8"}"#, Some(("\"8\"", "8")), "null"),
        (
            r#"{"user_id":12345678901234567890}"#,
            Some(("12345678901234567890", "12345678901234567890")),
            "null",
        ),
        (r#"{"user_id":""}"#, None, "null"),
        (r#"{"user_id":[1]}"#, None, "null"),
        (r#"{"user_info":{}}"#, None, "{}"),
    ];
    for (text, user_id, user_info) in cases {
        let data = serde_json::json!({"event": "pusher:subscribe",
            "data": {"channel": "presence-r", "auth": "k:s", "channel_data": text}});
        let mut expected = subscribed("presence-r");
        expected.auth = Some(Auth::Text("k:s".to_owned()));
        expected.channel_data = Some(ChannelData {
            text: text.to_owned(),
            user_id: user_id.map(|(json, text)| UserId { json: json.into(), text: text.into() }),
            user_info: user_info.to_owned(),
        });
        check(&data.to_string(), &Ok(Inbound::Subscribe(expected)));
    }
}

#[test]
fn channel_data_counts_where_there_are_members() {
    for (channel, data, text) in [
        ("news", r#""nojson""#, Some("nojson")),
        ("private-x", r#""[1]""#, Some("[1]")),
        ("private-x", r#"{"user_id":1}"#, None),
        ("news", "[]", None),
        ("news", "5", None),
        ("news", r#""""#, None),
    ] {
        let mut expected = subscribed(channel);
        expected.channel_data = text.map(|text| ChannelData {
            text: text.to_owned(),
            user_id: None,
            user_info: "null".to_owned(),
        });
        let message = format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel_data":{data},"channel":"{channel}"}}}}"#
        );
        check(&message, &Ok(Inbound::Subscribe(expected)));
    }
}

#[test]
fn client_events_keep_their_bytes() {
    let text = r#"{"event":"client-x","channel":"private-a","data":{"f":1.0,"big":12345678901234567890,"e":{}}}"#;
    let expected = ClientEvent {
        event: "\"client-x\"",
        channel: Cow::Borrowed("private-a"),
        data: r#"{"f":1.0,"big":12345678901234567890,"e":{}}"#,
    };
    check(text, &Ok(Inbound::ClientEvent(expected)));
    let expected =
        ClientEvent { event: "\"client-\"", channel: Cow::Borrowed("private-a"), data: "null" };
    check(r#"{"event":"client-","channel":"private-a"}"#, &Ok(Inbound::ClientEvent(expected)));
    let ignored = |event| Ok(Inbound::Ignored { event });
    check(r#"{"event":"whatever","channel":"c","data":{}}"#, &ignored(r#""whatever""#));
    check(r#"{"event":"client","channel":"c","data":{}}"#, &ignored(r#""client""#));
    check(
        r#"{"event":"pusher_internal:foo","data":{},"channel":"c"}"#,
        &ignored(r#""pusher_internal:foo""#),
    );
}

#[test]
fn ids_in_a_watchlist_cost_the_same_however_many_are_known() {
    let cost = |users: usize| {
        let ids: Vec<String> =
            (0..WATCHLIST_READ_MAX).map(|at: usize| at.min(users - 1).to_string()).collect();
        let list = format!("[{}]", ids.join(","));
        crate::clock::fastest(5, || assert_eq!(read_watchlist(&list).len(), users))
    };
    let (few, many) = (cost(1), cost(WATCHLIST_MAX));
    assert!(many < few * 3, "{many:?} against {few:?}");
}

proptest! {
    #[test]
    fn arbitrary_json_never_panics(text in "[\\[\\]{}:,\" \\\\a-z0-9_-]{0,80}") {
        let _ = parse(text.as_bytes(), &mut Validator::default());
    }

    #[test]
    fn mutated_messages_never_panic(at in 0usize..120, byte: u8) {
        let mut text = concat!(
            r#"{"event":"pusher:subscribe","data":{"channel":"presence-r","#,
            r#""auth":"k:s","channel_data":"{\"user_id\":7}"}}"#
        )
        .as_bytes()
        .to_vec();
        let at = at % text.len();
        text[at] = byte;
        let _ = parse(&text, &mut Validator::default());
    }
}
