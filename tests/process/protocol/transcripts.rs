//! Golden transcripts: what is said on a connection and what comes back, byte for byte (docs/PROTOCOL.md C4, C5, C13,
//! C15, D). Presence has a file of its own.

use crate::support::{
    INVALID, PING, PONG, Request, Server, Setup, channel_auth, error_event, succeeded,
};
use serde_json::json;

const NOT_A_MEMBER: &str = "The client is not a member of the specified channel.";
const UNAUTHORIZED: &str = "Connection is unauthorized";

pub(super) fn subscribe(data: &str) -> String {
    format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#)
}

#[test]
fn the_transcript_of_a_public_channel() {
    let server = Setup::new().workers(1).start();
    let mut client = server.connect();
    client.ask(&subscribe(r#"{"auth":"","channel":"news"}"#), &succeeded("news"));
    server.publish("news", r"App\Events\Posted", r#"{"id":1}"#);
    client.expect(r#"{"event":"App\\Events\\Posted","data":"{\"id\":1}","channel":"news"}"#);
    client.ask(PING, PONG);
    client.unsubscribe("news");
    client.sync();
    server.publish("news", "e", "nobody hears this");
    // Its answer comes behind whatever the publish had sent.
    client.ask(&subscribe(r#"{"channel":"news"}"#), &succeeded("news"));
    server.publish("news", "e", "x");
    client.expect(r#"{"event":"e","data":"x","channel":"news"}"#);
}

#[test]
fn pings_are_answered_and_other_messages_are_not() {
    let server = Server::start();
    let mut client = server.connect();
    for data in ["", r#","data":{}"#, r#","data":"{}""#, r#","data":[]"#, r#","data":{},"extra":1"#]
    {
        client.ask(&format!(r#"{{"event":"pusher:ping"{data}}}"#), PONG);
    }
    client.ask("\n {\"event\" :\t\"pusher:\\u0070ing\"}\r\n", PONG);
    for silent in [
        r#"{"event":"pusher:pong","data":{}}"#,
        r#"{"event":"pusher_internal:foo","data":{},"channel":"c"}"#,
        r#"{"event":"whatever","channel":"c","data":{}}"#,
        r#"{"event":"client","channel":"private-p","data":{}}"#,
        r#"{"event":"pusher:unsubscribe","data":{"channel":"never"}}"#,
        r#"{"event":"pusher:unsubscribe","data":{"channel":""}}"#,
    ] {
        client.send(silent);
        client.sync();
    }
}

/// What is answered with 4200.
const MALFORMED: &[&str] = &[
    "not json",
    "",
    " ",
    "null",
    "1",
    r#""str""#,
    "[]",
    "[{}]",
    "{}",
    "{",
    r#"{"event":"pusher:ping""#,
    r#"{"event":"pusher:ping",}"#,
    r#"{event:"pusher:ping"}"#,
    r#"{'event':'pusher:ping'}"#,
    r#"{"event":null}"#,
    r#"{"event":5,"data":{}}"#,
    r#"{"event":""}"#,
    r#"{"event":["pusher:ping"]}"#,
    r#"{"data":{}}"#,
    r#"{"event":"pusher:nothing","data":{}}"#,
    r#"{"event":"pusher:signin"}"#,
    r#"{"event":"pusher:signin","data":{"auth":"x"}}"#,
    r#"{"event":"pusher:signin","data":{"auth":"x","user_data":{}}}"#,
    r#"{"event":"pusher:signin","data":{"auth":"x","user_data":"nojson"}}"#,
    r#"{"event":"pusher:connection_established","data":{}}"#,
    r#"{"event":"pusher:error","data":{"code":1}}"#,
    r#"{"event":"whatever","data":{}}"#,
    r#"{"event":"whatever","channel":5}"#,
    r#"{"event":"pusher:ping"} trailing"#,
    r#"{"event":"pusher:ping"}{"event":"pusher:ping"}"#,
    "\u{feff}{\"event\":\"pusher:ping\"}",
    "{\"event\":\"pusher:ping\",\"x\":\"\u{1}\"}",
    "{\"event\":\"pusher:ping\"}\0",
    r#"{"event":"pusher:ping","x":"\x"}"#,
    r#"{"event":"pusher:ping","x":01}"#,
    r#"{"event":"pusher:ping","x":NaN}"#,
    r#"{"event":"pusher:subscribe"}"#,
    r#"{"event":"pusher:subscribe","data":{}}"#,
    r#"{"event":"pusher:subscribe","data":null}"#,
    r#"{"event":"pusher:subscribe","data":"x"}"#,
    r#"{"event":"pusher:subscribe","data":[]}"#,
    r#"{"event":"pusher:subscribe","data":{"channel":""}}"#,
    r#"{"event":"pusher:subscribe","data":{"channel":null}}"#,
    r#"{"event":"pusher:subscribe","data":{"channel":["x"]}}"#,
    r#"{"event":"pusher:subscribe","channel":"top-level","data":{}}"#,
    r#"{"event":"pusher:subscribe","data":{"channel":"presence-x","channel_data":"nojson"}}"#,
    r#"{"event":"pusher:subscribe","data":{"channel":"presence-x","channel_data":{"user_id":1}}}"#,
    r#"{"event":"pusher:unsubscribe","data":{}}"#,
    r#"{"event":"client-x","data":{}}"#,
    r#"{"event":"client-x","channel":7,"data":{}}"#,
];

/// The description of a cache channel without the `ttl` of its event, which changes while the test runs.
pub(super) fn without_ttl(body: &str) -> String {
    let (before, after) =
        body.split_once(",\"ttl\":").expect("the seconds that the event has left");
    format!("{before}{}", after.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

#[test]
fn malformed_messages_get_an_error_and_the_connection_stays_open() {
    let server = Server::start();
    let (mut client, mut other) = (server.connect(), server.connect());
    other.subscribe("news");
    for text in MALFORMED {
        client.ask(text, INVALID);
        client.sync();
        other.sync();
    }
    let deep = format!("{{\"event\":\"pusher:ping\",\"x\":{}", "[".repeat(9_000));
    client.ask(&deep, INVALID);
    client.ask(PING, PONG);
    server.publish("news", "e", "x");
    other.expect(r#"{"event":"e","data":"x","channel":"news"}"#);
}

/// PHP reads 512 levels, so a backend in PHP sends no more; deeper text may be refused, but not more than that.
#[test]
fn deep_json_is_passed_on_or_refused() {
    let server = Server::start();
    let (mut sender, mut receiver) = (server.connect(), server.connect());
    sender.subscribe("private-p");
    receiver.subscribe("private-p");
    for (open, inner, close) in [("[", "", "]"), (r#"{"a":"#, "1", "}")] {
        for depth in [512, 1_500] {
            let deep = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
            let text = format!(r#"{{"event":"client-x","channel":"private-p","data":{deep}}}"#);
            sender.send(&text);
            sender.send(&text.replace("client-x", "client-y"));
            if depth == 512 {
                receiver.expect(&text);
                receiver.expect(&text.replace("client-x", "client-y"));
            } else {
                sender.expect(INVALID);
                sender.expect(INVALID);
            }
            sender.sync();
            receiver.sync();
        }
    }
}

#[test]
fn subscriptions_to_each_kind_of_channel_succeed() {
    let server = Server::start();
    let mut client = server.connect();
    let long = "c".repeat(200);
    for (data, channel) in [
        (r#"{"channel":"news"}"#, "news"),
        (r#"{"channel":"news"}"#, "news"),
        (r#"{"auth":"","channel":"news2"}"#, "news2"),
        (r#""{\"channel\":\"news3\"}""#, "news3"),
        (r#"{"channel":"news4","channel_data":"{\"user_id\":\"1\"}"}"#, "news4"),
        (r#"{"channel":"news5","channel_data":null,"auth":5}"#, "news5"),
        (r#"{"channel":"0"}"#, "0"),
        (r#"{"channel":"has space\/\u00e9#server"}"#, "has space/é#server"),
        (r#"{"channel":"a\"b\\c\u0001"}"#, "a\"b\\c\u{1}"),
        (r#"{"channel":"privateer"}"#, "privateer"),
        (r#"{"channel":"presence"}"#, "presence"),
        (r#"{"channel":"cachet"}"#, "cachet"),
        (&format!(r#"{{"channel":"{long}"}}"#), &long),
    ] {
        client.send(&subscribe(data));
        let event = client.event();
        let name = json!("pusher_internal:subscription_succeeded");
        assert_eq!((&event["event"], &event["data"]), (&name, &json!("{}")), "{data}");
        assert_eq!(event["channel"], channel, "{data}");
        client.sync();
    }
}

#[test]
fn private_channels_need_their_signature() {
    let server = Server::start();
    let mut client = server.connect();
    let refused = error_event(4009, UNAUTHORIZED);
    let id = client.socket_id.clone();
    let good = channel_auth(&id, "private-p", None);
    let hex = good.split(':').nth(1).expect("a signature");
    let other_channel = channel_auth(&id, "private-q", None);
    let other_socket = channel_auth("1.1", "private-p", None);
    for auth in [
        "app-key:bad",
        "",
        hex,
        &format!(":{hex}"),
        &format!("other-key:{hex}"),
        &format!("app-key:{}", hex.to_uppercase()),
        &format!("{good}0"),
        &good[..good.len() - 1],
        &other_channel,
        &other_socket,
    ] {
        let data = json!({"channel": "private-p", "auth": auth}).to_string();
        client.ask(&subscribe(&data), &refused);
    }
    client.ask(&subscribe(r#"{"channel":"private-p"}"#), &refused);
    client.ask(&subscribe(r#"{"channel":"private-p","auth":5}"#), &refused);
    // Signed without the channel_data that it sends, and the other way round.
    let data = json!({"channel": "private-p", "auth": good, "channel_data": r#"{"a":1}"#});
    client.ask(&subscribe(&data.to_string()), &refused);
    let with_data = channel_auth(&id, "private-p", Some(r#"{"a":1}"#));
    let data = json!({"channel": "private-p", "auth": with_data});
    client.ask(&subscribe(&data.to_string()), &refused);
    // Users cannot sign in, so no connection may read their channel.
    client.ask(&subscribe(r##"{"channel":"#server-to-user-7"}"##), &refused);

    let list = r#"{"channels":{}}"#;
    assert_eq!(server.get("/channels"), list, "a refused subscription leaves no channel");
    client.subscribe("private-p");
    let data = json!({"channel": "private-q", "auth": channel_auth(&id, "private-q", Some("{}")),
        "channel_data": "{}"});
    client.ask(&subscribe(&data.to_string()), &succeeded("private-q"));
}

#[test]
fn subscription_errors_may_be_sent_on_the_channel_too() {
    let server = Setup::new().env("RINGVERB_SUBSCRIPTION_ERRORS", "true").start();
    let mut client = server.connect();
    client.ask(&subscribe(r#"{"channel":"private-p"}"#), &error_event(4009, UNAUTHORIZED));
    client.expect(
        r#"{"event":"pusher:subscription_error","channel":"private-p","data":{"type":"AuthError","error":"Connection is unauthorized","status":401}}"#,
    );
}

#[test]
fn encrypted_channels_pass_their_payload_on() {
    let server = Server::start();
    let (mut client, mut other) = (server.connect(), server.connect());
    client.subscribe("private-encrypted-e");
    other.subscribe("private-encrypted-e");
    server.publish("private-encrypted-e", "e", r#"{"nonce":"bm9uY2U=","ciphertext":"YQ=="}"#);
    let event = r#"{"event":"e","data":"{\"nonce\":\"bm9uY2U=\",\"ciphertext\":\"YQ==\"}","channel":"private-encrypted-e"}"#;
    client.expect(event);
    other.expect(event);
    client.send(r#"{"event":"client-e","channel":"private-encrypted-e","data":{}}"#);
    other.expect(r#"{"event":"client-e","channel":"private-encrypted-e","data":{}}"#);
    client.sync();
}

/// What a member sends as `data` and the other member gets: the same bytes.
#[test]
fn client_events_are_passed_on_byte_for_byte() {
    let server = Setup::new().workers(4).start();
    let (mut sender, mut receiver) = (server.connect(), server.connect());
    sender.subscribe("private-p");
    receiver.subscribe("private-p");
    let digits = "1234567890".repeat(30);
    let long = "x".repeat(9_000);
    for data in [
        r#"{"on":true,"f":1.0,"big":12345678901234567890,"e":{},"l":[],"u":"é/","nul":null}"#,
        r#"{"f":1.0,"g":0.1,"i":9007199254740993,"dup":1,"dup":2}"#,
        r#"{"big":123456789012345678901234567890,"neg":-9223372036854775809}"#,
        r#"[-0,-0.0,1E5,1e-7,1.10,0.1000000000000000055511151231257827]"#,
        &format!(r#"{{"digits":{digits}}}"#),
        r#""{\"s\":1}""#,
        r#""plain""#,
        "5",
        "null",
        "true",
        "[1,2]",
        r#"{ "spaces" : [ 1 ,	2 ] }"#,
        r#""\u00e9\/\ud83d\ude00 \" \\ \b\f\n\r\t""#,
        r#"{"é😀":"😀é"}"#,
        &format!(r#"{{"long":"{long}"}}"#),
    ] {
        let text = format!(r#"{{"event":"client-x","channel":"private-p","data":{data}}}"#);
        sender.send(&text);
        receiver.expect(&text);
        sender.sync();
    }
}

#[test]
fn a_client_event_is_rebuilt_from_its_known_members() {
    let server = Server::start();
    let (mut sender, mut receiver) = (server.connect(), server.connect());
    sender.subscribe("private-p");
    receiver.subscribe("private-p");
    let name = "e".repeat(300);
    for (sent, got) in [
        // No data, extra names, another order, the last of two.
        (
            r#"{"event":"client-x","channel":"private-p"}"#,
            r#"{"event":"client-x","channel":"private-p","data":null}"#,
        ),
        (
            r#"{"event":"client-x","channel":"private-p","data":[1],"user_id":"spoof","extra":1}"#,
            r#"{"event":"client-x","channel":"private-p","data":[1]}"#,
        ),
        (
            r#"{"data":{"a": 1},"channel":"private-p","event":"client-x"}"#,
            r#"{"event":"client-x","channel":"private-p","data":{"a": 1}}"#,
        ),
        (
            r#"{"event":"client-x","channel":"nope","channel":"private-p","data":1,"data":2}"#,
            r#"{"event":"client-x","channel":"private-p","data":2}"#,
        ),
        (
            r#"{"event":"client-","channel":"private\u002dp","data":{}}"#,
            r#"{"event":"client-","channel":"private-p","data":{}}"#,
        ),
        (
            &format!(r#"{{"event":"client-{name}","channel":"private-p","data":0}}"#),
            &format!(r#"{{"event":"client-{name}","channel":"private-p","data":0}}"#),
        ),
    ] {
        sender.send(sent);
        receiver.expect(got);
        sender.sync();
    }
}

#[test]
fn client_events_are_refused_without_the_right_to_send_them() {
    let public = "Client events are only accepted on private and presence channels.";
    let disabled = "The app does not have client messaging enabled.";
    let event =
        |channel: &str| format!(r#"{{"event":"client-x","channel":"{channel}","data":{{}}}}"#);
    let cases = [
        (None, "private-other", Some((4009, NOT_A_MEMBER))),
        (None, "news", Some((4301, public))),
        (
            Some(("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "none")),
            "private-p",
            Some((4301, disabled)),
        ),
        (
            Some(("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "none")),
            "private-q",
            Some((4301, disabled)),
        ),
        (Some(("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "all")), "private-q", None),
        (Some(("RINGVERB_CLIENT_EVENTS_ON_PUBLIC", "true")), "news", None),
    ];
    for (option, channel, error) in cases {
        let setup = Setup::new();
        let server = match option {
            Some((name, value)) => setup.env(name, value).start(),
            None => setup.start(),
        };
        let (mut sender, mut receiver) = (server.connect(), server.connect());
        for channel in ["private-p", "news"] {
            sender.subscribe(channel);
        }
        for channel in ["private-p", "private-q", "news"] {
            receiver.subscribe(channel);
        }
        sender.send(&event(channel));
        match error {
            Some((code, message)) => sender.expect(&error_event(code, message)),
            None => receiver.expect(&event(channel)),
        }
        sender.ask(PING, PONG);
        receiver.sync();
    }
}

#[test]
fn a_member_that_left_may_not_send() {
    let server = Server::start();
    let mut client = server.connect();
    client.subscribe("private-p");
    client.unsubscribe("private-p");
    client.ask(
        r#"{"event":"client-x","channel":"private-p","data":{}}"#,
        &error_event(4009, NOT_A_MEMBER),
    );
}

#[test]
fn a_cache_channel_sends_its_last_event_to_new_subscribers() {
    let server = Setup::new().workers(4).start();
    for channel in ["cache-c", "private-cache-c", "private-encrypted-cache-c"] {
        let miss = format!(r#"{{"event":"pusher:cache_miss","channel":"{channel}"}}"#);
        let first = format!(r#"{{"event":"e","data":"{{\"v\":1}}","channel":"{channel}"}}"#);
        let second = format!(r#"{{"event":"f","data":"2","channel":"{channel}"}}"#);
        let mut a = server.connect();
        a.subscribe(channel);
        a.expect(&miss);
        server.publish(channel, "e", r#"{"v":1}"#);
        a.expect(&first);
        let mut b = server.connect();
        b.subscribe(channel);
        b.expect(&first);
        // Again: acknowledged again, and counted once.
        a.subscribe(channel);
        a.expect(&first);
        let described = server.get(&format!("/channels/{channel}"));
        assert_eq!(described, r#"{"occupied":true}"#);
        server.publish(channel, "f", "2");
        a.expect(&second);
        b.expect(&second);
        // Client events are not cached (rule 37), and what was cached outlives all subscribers (rule 32).
        if channel != "cache-c" {
            let event = format!(r#"{{"event":"client-c","channel":"{channel}","data":1}}"#);
            a.send(&event);
            b.expect(&event);
        }
        a.close();
        b.close();
        let mut c = server.connect();
        c.subscribe(channel);
        c.expect(&second);
        c.sync();
        let request = Request::get(&format!("/channels/{channel}")).query("info", "cache");
        let (status, body) = server.answer(&request);
        assert_eq!(
            (status, without_ttl(&body)),
            (200, format!(r#"{{"occupied":true,"cache":{second}}}"#))
        );
    }
}

#[test]
fn a_cached_event_may_come_before_any_subscriber() {
    let server = Server::start();
    server.publish("cache-early", "e", "x");
    let mut client = server.connect();
    client.subscribe("cache-early");
    client.expect(r#"{"event":"e","data":"x","channel":"cache-early"}"#);
}
