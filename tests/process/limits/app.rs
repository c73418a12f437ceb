//! The limits an operator may set for an app, each with its answer on the wire and its line in the log; and which
//! clients receive the reason (docs/PROTOCOL.md rules 24, 29, 44, 90, 91, 106, C18, C20).

use crate::support::{
    Client, Handshake, Request, Server, Setup, channel_auth, data, error_event, frame, sign,
    succeeded,
};
use serde_json::json;

fn with(name: &str, value: &str) -> Server {
    Setup::new().workers(2).env(name, value).start()
}

fn ask(client: &mut Client, channel: &str) -> String {
    client.send_subscribe(channel, None);
    client.text()
}

#[test]
fn names_may_be_bounded() {
    let server = with("RINGVERB_CHANNEL_NAME_LENGTH_MAX", "164");
    let mut client = server.connect();
    let refused =
        error_event(4009, "The channel name is too long or has characters that are not accepted");
    for count in [82, 83, 164, 165, 200, 201] {
        for letter in ["c", "é"] {
            let name = letter.repeat(count);
            let fits = name.len() <= 164;
            let expected = if fits { succeeded(&name) } else { refused.clone() };
            assert_eq!(ask(&mut client, &name), expected, "{count}");
            let body = json!({"name": "e", "channel": name, "data": "x"}).to_string();
            let (status, text) = server.answer(&Request::events(&body));
            assert_eq!(status, if fits { 200 } else { 422 }, "{text}");
            assert_eq!(!fits, text.contains("must not be greater than 164 characters"), "{text}");
            if fits {
                client.event();
            }
        }
    }
}

#[test]
fn names_of_all_kinds_pass_unless_they_may_not() {
    let free = Server::start();
    let strict = with("RINGVERB_CHANNEL_NAMES", "pusher");
    let (mut client, mut bounded) = (free.connect(), strict.connect());
    for name in ["a b", "a/b", "#a", "a%2Cb", "é", "a,b;c=d@e_f-g.h"] {
        assert_eq!(ask(&mut client, name), succeeded(name));
        let body = json!({"name": "e", "channel": name, "data": "x"}).to_string();
        assert_eq!(free.answer(&Request::events(&body)).0, 200);
        assert_eq!(client.event(), json!({"event": "e", "data": "x", "channel": name}));
        let plain = name.starts_with("a,");
        assert_eq!(ask(&mut bounded, name) == succeeded(name), plain, "{name}");
        assert_eq!(strict.answer(&Request::events(&body)).0 == 200, plain, "{name}");
        if plain {
            bounded.event();
        }
    }
    client.sync();
}

#[test]
fn members_may_be_bounded() {
    let server = with("RINGVERB_MEMBER_SIZE_MAX", "40");
    let mut client = server.connect();
    let of = |size: usize| format!(r#"{{"user_id":1,"user_info":"{}"}}"#, "x".repeat(size - 28));
    assert_eq!(of(40).len(), 40);
    client.send_subscribe("presence-r", Some(&of(41)));
    client.expect(&error_event(4301, "The channel_data of the member is too large"));
    assert_eq!(client.join("presence-r", &of(40))["count"], 1);
}

#[test]
fn client_events_may_be_bounded() {
    let server = with("RINGVERB_CLIENT_EVENTS_PER_SECOND_MAX", "3");
    let (mut sender, mut hearer) = (server.connect(), server.connect());
    sender.subscribe("private-x");
    hearer.subscribe("private-x");
    let text = r#"{"event":"client-e","channel":"private-x","data":{}}"#;
    // More than three in any second, and more than three seconds' worth.
    let frames: Vec<u8> = (0..20).flat_map(|_| frame::text(text)).collect();
    sender.send_bytes(&frames);
    sender.expect(&error_event(4301, "Rate limit exceeded"));
    hearer.expect(text);
}

#[test]
fn payloads_may_be_bounded() {
    let mut server = with("RINGVERB_EVENT_PAYLOAD_MAX", "10");
    let body = |data: &str| json!({"name": "e", "channel": "c", "data": data}).to_string();
    assert_eq!(server.answer(&Request::events(&body("1234567890"))).0, 200);
    let (status, text) = server.answer(&Request::events(&body("1234567890\"")));
    assert_eq!(status, 413);
    assert!(text.contains("has 11 bytes, 10 are allowed"), "{text}");
    server.line_with("RINGVERB_EVENT_PAYLOAD_MAX is 10");
}

#[test]
fn publishes_may_be_bounded() {
    let server = with("RINGVERB_PUBLISHES_PER_SECOND_MAX", "5");
    let body = r#"{"name":"e","channels":["a","b","c"],"data":"x"}"#;
    let first = server.ask(&Request::events(body));
    assert_eq!(first.status, 200);
    assert_eq!(first.head.header("x-ratelimit-limit"), Some("5"));
    assert_eq!(first.head.header("x-ratelimit-remaining"), Some("2"));
    // A new second may begin at any time; in one of them there are not enough for two.
    let refused =
        (0..50).map(|_| server.ask(&Request::events(body))).find(|reply| reply.status != 200);
    let refused = refused.expect("fifty are more than a second takes");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.head.header("retry-after"), Some("1"));
    assert_eq!(refused.head.header("x-ratelimit-remaining"), Some("0"));
    assert!(refused.body.contains("RINGVERB_PUBLISHES_PER_SECOND_MAX"), "{}", refused.body);
}

#[test]
fn a_connection_without_authorization_is_closed_after_its_time() {
    let server = with("RINGVERB_AUTHORIZE_WITHIN", "1");
    let (mut idle, mut public) = (server.connect(), server.connect());
    let (mut private, mut user) = (server.connect(), server.connect());
    private.subscribe("private-x");
    let user_data = r#"{"id":"7"}"#;
    let auth = format!("app-key:{}", sign(&[&user.socket_id, "::user::", user_data]));
    let signin = json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}});
    user.send(&signin.to_string());
    assert_eq!(user.event()["event"], "pusher:signin_success");
    public.subscribe("news");
    for late in [&mut idle, &mut public] {
        late.refused(4009, "Connection not authorized within timeout");
    }
    private.sync();
    user.sync();
}

/// docs/PROTOCOL.md rule 91: around the limit, in pieces of TCP and of WebSocket.
#[test]
fn a_message_at_the_limit_may_come_in_pieces() {
    let mut server = Server::start();
    let message = |size: usize| {
        let around = r#"{"event":"client-e","channel":"private-x","data":""}"#.len();
        format!(
            r#"{{"event":"client-e","channel":"private-x","data":"{}"}}"#,
            "x".repeat(size - around)
        )
    };
    let mut hearer = server.connect();
    hearer.subscribe("private-x");
    for size in [9_999, 10_000, 10_001] {
        let text = message(size);
        let fragments: Vec<u8> = {
            let (first, rest) = text.split_at(4_000);
            let first = frame::raw(frame::TEXT, first.as_bytes());
            first.into_iter().chain(frame::raw(frame::FIN, rest.as_bytes())).collect()
        };
        for bytes in [frame::text(&text), fragments] {
            let mut sender = server.connect();
            sender.subscribe("private-x");
            for piece in bytes.chunks(1_460) {
                sender.wire.send_to_closing(piece);
            }
            if size <= 10_000 {
                hearer.expect(&text);
                sender.close();
            } else {
                assert_eq!(sender.closed().0, 1009);
            }
        }
    }
    server.line_with("REVERB_APP_MAX_MESSAGE_SIZE");
    hearer.sync();
}

/// The reason is always in the log, and on the wire with verbose errors.
#[test]
fn a_refused_subscription_names_the_wrong_part() {
    for development in [false, true] {
        let mut server = with("RINGVERB_DEVELOPMENT", if development { "true" } else { "false" });
        let mut client = server.connect();
        let signed = channel_auth(&client.socket_id, "private-x", None);
        let hex = signed.strip_prefix("app-key:").expect("key and signature");
        for (fields, part) in [
            (json!({}), "no signature came with it"),
            (json!({"auth": "nothing"}), "is not KEY:SIGNATURE"),
            (json!({"auth": format!("other-key:{hex}")}), "REVERB_APP_KEY"),
            (json!({"auth": "app-key:0000"}), "REVERB_APP_SECRET"),
            (json!({"auth": signed, "channel_data": "{}"}), "not part of what was signed"),
        ] {
            let mut message = json!({"event": "pusher:subscribe", "data": fields});
            message["data"]["channel"] = "private-x".into();
            client.send(&message.to_string());
            let error = client.event();
            let text = data(&error)["message"].as_str().expect("a message").to_owned();
            assert!(text.starts_with("Connection is unauthorized"), "{text}");
            assert_eq!(text.contains(part), development, "{text}");
            server.line_with(part);
        }
        client.close();
        server.signal(rustix::process::Signal::TERM);
        let finished = server.finish();
        assert!(!finished.stdout.contains("app-secret") && !finished.stderr.contains("app-secret"));
    }
}

#[test]
fn the_log_names_refused_subscriptions_and_never_the_secret() {
    let mut server = Setup::new()
        .env("RINGVERB_ALLOWED_ORIGINS", "good.test")
        .env("RINGVERB_ALLOW_MISSING_ORIGIN", "true")
        .env("RINGVERB_DEVELOPMENT", "true")
        .start();
    let mut page = Client::open(&server, &Handshake::new().header("Origin", "https://evil.test"));
    let why =
        r#"Origin "https://evil.test" refused. Allowed: good.test (RINGVERB_ALLOWED_ORIGINS)"#;
    // A text in a text.
    let why = why.replace('"', r#"\\\""#);
    page.expect(&error_event(4009, &format!("Origin not allowed. {why}")));
    assert_eq!(page.closed(), (4009, "Origin not allowed".to_owned()));
    let line = server.line_with("evil.test");
    assert!(line.contains("good.test") && line.contains("RINGVERB_ALLOWED_ORIGINS"), "{line}");
    let mut client = server.connect();
    client.subscribe("news");
    client.send(r#"{"event":"client-e","channel":"news","data":{}}"#);
    assert_eq!(data(&client.event())["code"], 4301);
    server.line_with("RINGVERB_CLIENT_EVENTS_ON_PUBLIC");
    let forged = Request::events("{}").signature(&"0".repeat(64));
    assert_eq!(server.answer(&forged).0, 401);
    let line = server.line_with("API signature does not match");
    assert!(line.contains("POST") && line.contains("/apps/1001/events"), "{line}");
    server.publish("private-nobody", "e", "x");
    server.line_with("event \"e\" was published to \"private-nobody\", which has no subscribers");
    let large = "x".repeat(10_000);
    assert_eq!(server.answer(&Request::events(&large)).0, 413);
    server.line_with("REVERB_MAX_REQUEST_SIZE");
    client.close();
    server.signal(rustix::process::Signal::TERM);
    let finished = server.finish();
    assert!(!finished.stdout.contains("app-secret") && !finished.stderr.contains("app-secret"));
}

#[test]
fn event_names_may_be_bounded() {
    let server = with("RINGVERB_EVENT_NAME_LENGTH_MAX", "200");
    let mut clients = [server.connect(), server.connect()];
    for client in &mut clients {
        client.subscribe("private-room");
    }
    let [sender, receiver] = &mut clients;
    for (count, fits) in [(193, true), (194, false)] {
        let name = format!("client-{}", "é".repeat(count));
        let event = json!({"event": name, "channel": "private-room", "data": {}}).to_string();
        sender.send(&event);
        if fits {
            assert_eq!(receiver.event()["event"], json!(name));
        } else {
            sender.expect(&error_event(4301, "The name of the client event is too long"));
        }
        let body = json!({"name": name, "channel": "news", "data": "x"}).to_string();
        let (status, text) = server.answer(&Request::events(&body));
        assert_eq!(status, if fits { 200 } else { 422 }, "{text}");
        assert_eq!(!fits, text.contains("name field must not be greater than 200 characters"));
    }
}

#[test]
fn a_disabled_app_refuses_its_clients_and_its_backend() {
    let by_environment = with("RINGVERB_APP_ENABLED", "false");
    let file = r#"
        [[apps]]
        id = "1001"
        key = "app-key"
        secret = "app-secret"
        enabled = false
        [[apps]]
        id = "2"
        key = "second"
        secret = "app-secret"
        "#;
    let by_file = Setup::bare().workers(2).file("ringverb.toml", file).start();
    let body = json!({"name": "e", "channel": "news", "data": "x"}).to_string();
    for server in [&by_environment, &by_file] {
        let handshake = Handshake::to("/app/app-key?protocol=7");
        Client::open(server, &handshake).refused(4003, "Application disabled");
        let answer = server.answer(&Request::events(&body));
        assert_eq!(answer, (403, "Application disabled.".to_owned()));
    }
    Client::open(&by_file, &Handshake::to("/app/second?protocol=7")).established().close();
    by_environment.signal(rustix::process::Signal::TERM);
    let log = by_environment.finish().stdout;
    assert!(log.contains("app \"1001\" is disabled"), "{log}");
    by_file.stop();
}

/// Some backends send the same fields for every channel.
#[test]
fn channel_data_that_is_no_object_is_refused_for_presence_channels_only() {
    let server = Server::start();
    let mut client = server.connect();
    for data in [json!("no json"), json!([1]), json!({"user_id": 1}), json!("[]")] {
        let ask = |channel: &str, auth: &str| {
            let data = json!({"channel": channel, "auth": auth, "channel_data": data});
            json!({"event": "pusher:subscribe", "data": data}).to_string()
        };
        client.ask(&ask("news", ""), &succeeded("news"));
        client.unsubscribe("news");
        let text = data.as_str();
        let auth = channel_auth(&client.socket_id, "private-a", text);
        client.ask(&ask("private-a", &auth), &succeeded("private-a"));
        client.unsubscribe("private-a");
        let auth = channel_auth(&client.socket_id, "presence-a", text);
        client.ask(&ask("presence-a", &auth), &error_event(4200, "Invalid message format"));
    }
}
