//! The HTTP API: endpoints, validation, signatures, in Reverb's words (docs/PROTOCOL.md C7, C9, C13, C19, C20, D). How
//! the bytes come is the business of transport.rs.

use crate::support::{APP_ID, Client, Http, Reply, Request, Server, Setup};
use serde_json::{Value, json};

pub(super) const EVENT: &str = r#"{"name":"e","channel":"news","data":"x"}"#;
const NO_CHANNEL: &str = r#""channels":["The channels field is required when channel is not present."],"channel":["The channel field is required when channels is not present."]"#;
pub(super) const BAD_SIGNATURE: &str = "Authentication signature invalid.";
const NOT_JSON: &str = "Bad request: the body is not a JSON object.";

pub(super) fn ok(body: &str) -> (u16, String) {
    (200, body.to_owned())
}

pub(super) fn is_json(reply: &Reply) -> bool {
    reply.head.header("content-type") == Some("application/json")
}

#[test]
fn events_reach_the_subscribers_as_they_were_published() {
    let server = Setup::new().env("REVERB_MAX_REQUEST_SIZE", "100000").start();
    let mut client = server.connect();
    client.subscribe("news");
    client.subscribe("bad name/é");
    let name = "n".repeat(300);
    let long = "d".repeat(20_000);
    let event = |name: &str, data: &str, channel: &str| {
        format!(r#"{{"event":"{name}","data":"{data}","channel":"{channel}"}}"#)
    };
    let cases = [
        (EVENT.to_owned(), vec![event("e", "x", "news")]),
        (
            r#"{"name":"App\\Events\\Posted","channels":["news","none"],"data":"{\"a\":\"\\u00e9 / 1.0\"}"}"#.to_owned(),
            vec![event(r"App\\Events\\Posted", r#"{\"a\":\"\\u00e9 / 1.0\"}"#, "news")],
        ),
        (
            r#"{"name":"e","data":"\u00e9\/\ud83d\ude00é😀\u0000 \t","channel":"news"}"#.to_owned(),
            vec![event("e", r"\u00e9\/\ud83d\ude00é😀\u0000 \t", "news")],
        ),
        (
            r#"{"name":"e","channels":["news","news"],"data":"x"}"#.to_owned(),
            vec![event("e", "x", "news"); 2],
        ),
        (
            r#"{"name":"e","channel":"news","data":"x","channels":[]}"#.to_owned(),
            vec![event("e", "x", "news")],
        ),
        (
            r#"{"name":"e","channel":"bad name/é","data":"x"}"#.to_owned(),
            vec![event("e", "x", "bad name/é")],
        ),
        (
            r#" { "tags":{}, "unknown":1, "data" : "x" ,"name":"e", "channel":"news" } "#.to_owned(),
            vec![event("e", "x", "news")],
        ),
        (
            format!(r#"{{"name":"{name}","channel":"news","data":"x"}}"#),
            vec![event(&name, "x", "news")],
        ),
        (
            format!(r#"{{"name":"e","channel":"news","data":"{long}"}}"#),
            vec![event("e", &long, "news")],
        ),
    ];
    for (body, events) in cases {
        assert_eq!(server.answer(&Request::events(&body)), ok("{}"), "{body}");
        events.iter().for_each(|event| client.expect(event));
        client.sync();
    }
    let channels: Vec<String> = (0..150).map(|number| format!("ch{number}")).collect();
    let body = json!({"name": "e", "channels": channels, "data": "x"}).to_string();
    assert_eq!(server.answer(&Request::events(&body)), ok("{}"));
}

#[test]
fn the_sender_of_an_event_is_left_out() {
    let server = Setup::new().workers(4).start();
    let mut clients: Vec<Client> = (0..12).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.subscribe("news"));
    let ids: Vec<String> = clients.iter().map(|client| client.socket_id.clone()).collect();
    let unknown = ["1.1", "", "99999999999999999999.1"];
    for id in ids.iter().map(String::as_str).chain(unknown) {
        let data = format!("from {id}");
        let mut http = Http::new(&server);
        let mut body = json!({"name": "e", "channel": "news", "data": data, "socket_id": id});
        assert_eq!(http.ask(&Request::events(&body.to_string())).body, "{}");
        body = json!({"batch": [{"name": "b", "channel": "news", "data": data, "socket_id": id}]});
        let reply = http.ask(&Request::post("/batch_events", &body.to_string()));
        assert_eq!(reply.body, r#"{"batch":{}}"#);
        assert_eq!(http.ask(&Request::events(EVENT)).body, "{}");
        for client in &mut clients {
            if client.socket_id != id {
                assert_eq!(client.event(), json!({"event": "e", "data": data, "channel": "news"}));
                assert_eq!(client.event(), json!({"event": "b", "data": data, "channel": "news"}));
            }
            client.expect(r#"{"event":"e","data":"x","channel":"news"}"#);
        }
    }
}

#[test]
fn events_that_are_not_valid() {
    let server = Server::start();
    let all = format!(
        r#"{{"name":["The name field is required."],"data":["The data field is required."],{NO_CHANNEL}}}"#
    );
    let no_channel = format!("{{{NO_CHANNEL}}}");
    let required = |field: &str| format!(r#"{{"{field}":["The {field} field is required."]}}"#);
    let (no_name, no_data) = (required("name"), required("data"));
    let data_string = r#"{"data":["The data field must be a string."]}"#;
    for (body, problems) in [
        (r#"{"name":"e","channel":"news"}"#, no_data.as_str()),
        (r#"{"name":"e","channel":"news","data":""}"#, &no_data),
        (r#"{"name":"e","channel":"news","data":null}"#, &no_data),
        (r#"{"name":"e","channel":"news","data":{"a":1}}"#, data_string),
        (r#"{"name":"e","channel":"news","data":5}"#, data_string),
        (r#"{"name":"e","channel":"news","data":[]}"#, data_string),
        (r#"{"channel":"news","data":"x"}"#, &no_name),
        (r#"{"name":"","channel":"news","data":"x"}"#, &no_name),
        (
            r#"{"name":5,"channel":"news","data":"x"}"#,
            r#"{"name":["The name field must be a string."]}"#,
        ),
        (
            r#"{"name":"e","channel":"news","data":"x","socket_id":5}"#,
            r#"{"socket_id":["The socket id field must be a string."]}"#,
        ),
        (
            r#"{"name":"e","channel":"news","data":"x","info":5}"#,
            r#"{"info":["The info field must be a string."]}"#,
        ),
        (r#"{"name":"e","data":"x"}"#, &no_channel),
        (r#"{"name":"e","channel":"","data":"x"}"#, &no_channel),
        (r#"{"name":"e","channels":[],"data":"x"}"#, &no_channel),
        (
            r#"{"name":"e","channels":"news","data":"x"}"#,
            r#"{"channels":["The channels field must be an array."]}"#,
        ),
        ("{}", &all),
        ("[]", &all),
    ] {
        let reply = server.ask(&Request::events(body));
        assert_eq!((reply.status, reply.body.as_str()), (422, problems), "{body}");
        assert!(is_json(&reply), "{body}");
    }
    for body in ["null", r#""s""#, "{bad", "", "5", "{}x", "\u{feff}{}"] {
        let reply = server.ask(&Request::events(body));
        assert_eq!((reply.status, reply.body.as_str()), (400, NOT_JSON), "{body}");
        assert!(!is_json(&reply), "{body}");
    }
    let bytes = b"{\"name\":\"e\",\"channel\":\"news\",\"data\":\"\xff\"}";
    assert_eq!(server.answer(&Request::new("POST", "/events").body(bytes)).0, 400);
}

#[test]
fn names_of_the_protocol_are_reserved() {
    let publish = |name: &str| json!({"name": name, "channel": "news", "data": "x"}).to_string();
    let server = Server::start();
    let mut client = server.connect();
    client.subscribe("news");
    for name in ["pusher:fake", "pusher_internal:member_added"] {
        let text = format!(
            "The event name [{name}] is reserved for the protocol: choose another, or set \
             RINGVERB_ALLOW_RESERVED_EVENTS=true."
        );
        assert_eq!(server.answer(&Request::events(&publish(name))), (400, text.clone()));
        let batch = format!(r#"{{"batch":[{EVENT},{}]}}"#, publish(name));
        assert_eq!(server.answer(&Request::post("/batch_events", &batch)), (400, text));
    }
    client.sync();
    let server = Setup::new().env("RINGVERB_ALLOW_RESERVED_EVENTS", "true").start();
    let mut client = server.connect();
    client.subscribe("news");
    assert_eq!(server.answer(&Request::events(&publish("pusher:fake"))), ok("{}"));
    client.expect(r#"{"event":"pusher:fake","data":"x","channel":"news"}"#);
}

#[test]
fn a_batch_is_published_whole_or_refused() {
    let server = Server::start();
    let mut client = server.connect();
    client.subscribe("news");
    let post = |body: &str| server.answer(&Request::post("/batch_events", body));
    let one = r#"{"name":"b1","channel":"news","data":"1"}"#;
    let two = r#"{"name":"b2","channel":"news","data":"2"#;
    assert_eq!(post(&format!(r#"{{"batch":[{one},{two}"}}]}}"#)), ok(r#"{"batch":{}}"#));
    let info = format!(r#"{{"batch":[{one},{two}","info":"subscription_count"}}]}}"#);
    assert_eq!(post(&info), ok(r#"{"batch":[{},{"subscription_count":1}]}"#));
    for number in [1, 2, 1, 2] {
        client.expect(&format!(r#"{{"event":"b{number}","data":"{number}","channel":"news"}}"#));
    }
    let none = r#"{"batch":[{"name":"b","channel":"none","data":"1","info":"user_count,subscription_count"}]}"#;
    assert_eq!(post(none), ok(r#"{"batch":[{}]}"#));
    let many = format!(r#"{{"batch":[{}]}}"#, vec![one; 25].join(","));
    assert_eq!(post(&many), ok(r#"{"batch":{}}"#));
    for _ in 0..25 {
        client.expect(r#"{"event":"b1","data":"1","channel":"news"}"#);
    }
    let required = r#"{"batch":["The batch field is required."]}"#;
    for (body, problems) in [
        (r#"{"batch":[]}"#, required),
        ("{}", required),
        ("[]", required),
        (r#"{"batch":null}"#, required),
        (r#"{"batch":"x"}"#, r#"{"batch":["The batch field must be an array."]}"#),
        (
            r#"{"batch":[{"name":"b1","channel":"news"},{"channel":"news","data":"x"}]}"#,
            r#"{"batch.1.name":["The batch.1.name field is required."],"batch.0.data":["The batch.0.data field is required."]}"#,
        ),
        (
            r#"{"batch":[{"name":"b1","channels":["news","news2"],"data":"1"}]}"#,
            r#"{"batch.0.channel":["The batch.0.channel field is required when channels is not present."]}"#,
        ),
    ] {
        assert_eq!(post(body), (422, problems.to_owned()), "{body}");
    }
    assert_eq!(post("{bad"), (400, NOT_JSON.to_owned()));
    // Nothing of an invalid batch is sent.
    client.sync();
}

#[test]
fn the_size_of_a_batch_may_be_limited() {
    let server = Setup::new().env("RINGVERB_BATCH_EVENTS_MAX", "2").start();
    let batch = |count| format!(r#"{{"batch":[{}]}}"#, vec![EVENT; count].join(","));
    let post = |count| server.answer(&Request::post("/batch_events", &batch(count)));
    assert_eq!(post(2), ok(r#"{"batch":{}}"#));
    let problem = r#"{"batch":["The batch field must not have more than 2 items."]}"#;
    assert_eq!(post(3), (422, problem.to_owned()));
}

/// Three subscribers of `news`, two users on three connections in `presence-r`, one in a cache channel.
fn peopled(server: &Server) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    clients.iter_mut().take(3).for_each(|client| client.subscribe("news"));
    for (index, user) in [(0, "7"), (1, r#""8""#), (2, "7")] {
        clients[index].send_subscribe("presence-r", Some(&format!(r#"{{"user_id":{user}}}"#)));
        while clients[index].event()["event"] != "pusher_internal:subscription_succeeded" {}
    }
    clients[3].subscribe("cache-c");
    assert_eq!(clients[3].event()["event"], "pusher:cache_miss");
    clients
}

#[test]
fn info_attributes_over_four_cores() {
    let server = Setup::new().workers(4).start();
    let _clients = peopled(&server);
    let all = "user_count,subscription_count,cache";
    let get = |path: &str, info: &str| server.answer(&Request::get(path).query("info", info));
    for (path, info, body) in [
        ("/channels/news", all, r#"{"occupied":true,"subscription_count":3}"#),
        ("/channels/presence-r", all, r#"{"occupied":true,"user_count":2}"#),
        ("/channels/cache-c", all, r#"{"occupied":true,"subscription_count":1,"cache":null}"#),
        ("/channels/none", all, r#"{"occupied":false}"#),
        ("/channels/presence-none", all, r#"{"occupied":false}"#),
        ("/channels/news", "bogus", r#"{"occupied":true}"#),
        ("/channels/news", "", r#"{"occupied":true}"#),
        ("/channels", "", r#"{"channels":{"cache-c":{},"news":{},"presence-r":{}}}"#),
        (
            "/channels",
            all,
            r#"{"channels":{"cache-c":{"subscription_count":1},"news":{"subscription_count":3},"presence-r":{"user_count":2}}}"#,
        ),
    ] {
        assert_eq!(get(path, info), ok(body), "{path} {info}");
    }
    let filtered = |prefix: &str| {
        let request = Request::get("/channels").query("filter_by_prefix", prefix);
        server.answer(&request.query("info", "user_count"))
    };
    assert_eq!(filtered("presence-"), ok(r#"{"channels":{"presence-r":{"user_count":2}}}"#));
    assert_eq!(filtered("zzz"), ok(r#"{"channels":{}}"#));
    let body = r#"{"name":"e","channels":["news","none","presence-r","news"],"data":"x","info":"subscription_count,user_count"}"#;
    let told =
        r#"{"channels":{"news":{"subscription_count":3},"none":{},"presence-r":{"user_count":2}}}"#;
    assert_eq!(server.answer(&Request::events(body)), ok(told));
    let body = r#"{"batch":[{"name":"b1","channel":"presence-r","data":"1","info":"user_count"}]}"#;
    let request = Request::post("/batch_events", body);
    assert_eq!(server.answer(&request), ok(r#"{"batch":[{"user_count":2}]}"#));
}

#[test]
fn a_cached_event_is_described_with_the_seconds_that_are_left() {
    let server = Setup::new().workers(2).env("RINGVERB_CACHE_TTL", "100").start();
    server.publish("cache-c", "e", "{}");
    for path in ["/channels/cache-c", "/events"] {
        let request = match path {
            "/events" => {
                Request::events(r#"{"name":"e","channel":"cache-c","data":"{}","info":"cache"}"#)
            }
            path => Request::get(path).query("info", "cache"),
        };
        let (status, text) = server.answer(&request);
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let described = answer.pointer("/channels/cache-c").unwrap_or(&answer);
        let mut cache = described["cache"].clone();
        let ttl = cache["ttl"].take().as_u64().expect("a number");
        assert!((1..=100).contains(&ttl), "{text}");
        let expected = json!({"event": "e", "channel": "cache-c", "data": "{}", "ttl": null});
        assert_eq!(cache, expected);
    }
}

#[test]
fn info_may_be_an_array() {
    let server = Server::start();
    let mut client = server.connect();
    client.subscribe("news");
    let signed = |request: Request, info: &str| {
        let timestamp = request.timestamp().to_owned();
        let text =
            format!("auth_key=app-key&auth_timestamp={timestamp}&auth_version=1.0&info={info}");
        let body = r#"{"occupied":true,"subscription_count":1}"#;
        assert_eq!(server.answer(&request.signed_query(&text)), ok(body), "{info}");
    };
    for name in ["info[]", "info%5B%5D", "info[0]"] {
        // PHP signs an array as its values, joined by commas.
        let request = Request::get("/channels/news").and(name, "subscription_count");
        signed(request.and(name, "user_count"), "subscription_count,user_count");
    }
    // A value is signed decoded.
    let request = Request::get("/channels/news").query("info", "subscription%5Fcount");
    signed(request, "subscription_count");
}

#[test]
fn users_of_a_channel() {
    let server = Setup::new().workers(4).start();
    assert_eq!(server.get("/channels"), r#"{"channels":{}}"#);
    let _clients = peopled(&server);
    let users = server.get("/channels/presence-r/users");
    let mut ids = crate::support::json(&users)["users"].as_array().expect("users").clone();
    ids.sort_by_key(Value::to_string);
    assert_eq!(Value::from(ids), json!([{"id": "7"}, {"id": "8"}]));
    let get = |path: &str| server.answer(&Request::get(path));
    assert_eq!(get("/channels/news/users"), (400, "{}".to_owned()));
    assert_eq!(get("/channels/none/users"), (400, "{}".to_owned()));
    assert_eq!(get("/channels/presence-none/users"), (404, "{}".to_owned()));
    // Four greetings, and seven subscriptions with their answers.
    let traffic = crate::support::json(&server.get("/connections"));
    let (sent, received) = (&traffic["messages_sent"], &traffic["messages_received"]);
    let (sent, received) = (sent.as_u64().expect("sent"), received.as_u64().expect("received"));
    assert!(received == 7 && sent >= 4 + received, "{traffic}");
    server.publish("none", "e", "{}");
    assert_eq!(crate::support::json(&server.get("/connections")), traffic, "nobody received it");
    assert_eq!(server.open_connections(), 4);
}

#[test]
fn names_in_paths_may_be_encoded() {
    let server = Server::start();
    let mut client = server.connect();
    client.subscribe("has space/é#server,a=b;c@d");
    let encoded = "/channels/has%20space%2F%C3%A9%23server%2Ca%3Db%3Bc%40d";
    let request = Request::get(encoded).query("info", "subscription_count");
    let body = ok(r#"{"occupied":true,"subscription_count":1}"#);
    assert_eq!(server.answer(&request), body);
    // Clients differ in what they sign: the path as sent, or decoded.
    let decoded = format!("/apps/{APP_ID}/channels/has space/é#server,a=b;c@d");
    assert_eq!(server.answer(&request.signed_path(&decoded)), body);
}

#[test]
fn connections_of_a_user_are_terminated() {
    let server = Setup::new().workers(4).start();
    let mut clients = peopled(&server);
    // The first and the third are user 7; each receives nothing but its own close.
    let post = |user: &str, body: &str| {
        server.answer(&Request::post(&format!("/users/{user}/terminate_connections"), body))
    };
    assert_eq!(post("99", "{}"), ok("{}"));
    assert_eq!(server.open_connections(), 4);
    assert_eq!(post("7", ""), ok("{}"));
    for index in [2, 0] {
        let mut client = clients.remove(index);
        let message = "Connection terminated by the application";
        let mut text = client.text();
        while text.contains("member_") {
            text = client.text();
        }
        assert_eq!(text, crate::support::error_event(4009, message));
        assert_eq!(client.closed(), (4009, message.to_owned()));
    }
    let mut eight = clients.remove(0);
    let mut event = eight.event();
    while event["event"] == "pusher_internal:member_added" {
        event = eight.event();
    }
    assert_eq!(event["event"], "pusher_internal:member_removed");
    assert_eq!(crate::support::data(&event), json!({"user_id": 7}));
    assert_eq!(server.open_connections(), 2);
    assert_eq!(post("8", "{}"), ok("{}"));
}
