//! The console's side of the admin listener: the admin API, the event log, and who may change
//! something. The page itself is tested in a browser (tests/e2e/js/console.test.mjs).

mod nodes;
mod top;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::admin::AdminClient;
use crate::support::{
    APP_ID, Answer, Client, Endpoint, Handshake, Reply, Server, Setup, eventually, json as parse,
};

fn start(workers: u16) -> (Server, AdminClient) {
    let setup =
        Setup::new().env("RINGVERB_ADMIN", "127.0.0.1:0").env("RINGVERB_DEVELOPMENT", "true");
    let mut server = setup.workers(workers).start();
    let admin = AdminClient::of(&mut server);
    (server, admin)
}

/// Every user of a host can reach its loopback.
#[test]
fn without_a_token_the_loopback_shows_numbers_only() {
    let token = "0123456789abcdef-token";
    let setup = || Setup::new().env("RINGVERB_ADMIN", "127.0.0.1:0");
    let mut open = setup().start();
    let mut guarded = setup().env("RINGVERB_ADMIN_TOKEN", token).start();
    let (open, guarded) = (AdminClient::of(&mut open), AdminClient::of(&mut guarded));
    let right = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(open.get("/api/overview").status, 200);
    assert_eq!(guarded.get("/api/overview").status, 401);
    for path in [
        "/api/apps",
        "/api/traffic",
        "/api/channels",
        "/api/connections",
        "/api/refusals",
        "/api/nodes",
    ] {
        let refused = open.get(path);
        assert_eq!(
            (refused.status, refused.body.contains("RINGVERB_ADMIN_TOKEN")),
            (403, true),
            "{path}"
        );
        assert_eq!(guarded.get(path).status, 401, "{path}");
        assert_eq!(guarded.get_with(path, &right).status, 200, "{path}");
    }
    assert_eq!(open.get("/api/events").status, 403);
    let event = json!({"name": "e", "channel": "news", "data": "{}"});
    assert_eq!(post(&open, "/api/publish", &event, JSON).status, 403);
    assert_eq!(post(&guarded, "/api/publish", &event, JSON).status, 401);
    let fields = format!("{JSON}{right}");
    assert_eq!(post(&guarded, "/api/publish", &event, &fields).status, 200);
}

#[track_caller]
fn get(admin: &AdminClient, path: &str) -> Value {
    let reply = admin.get(path);
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    parse(&reply.body)
}

fn post(admin: &AdminClient, path: &str, body: &Value, fields: &str) -> Reply {
    let (body, address) = (body.to_string(), admin.address());
    let length = body.len();
    admin.send(&format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    ))
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn the_api_shows_channels_members_and_connections_of_all_cores() {
    let (server, admin) = start(4);
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.subscribe("news");
        client.join("presence-room", &format!(r#"{{"user_id":"{}"}}"#, number % 3));
    }
    let channels = get(&admin, "/api/channels?sort=name");
    assert_eq!((&channels["total"], &channels["left_out"]), (&json!(2), &json!(0)));
    let news = json!({"name": "news", "subscribers": 8, "users": 0});
    let room = json!({"name": "presence-room", "subscribers": 8, "users": 3});
    assert_eq!(channels["channels"], json!([news, room]));
    let channel = get(&admin, "/api/channel?name=presence-room");
    assert_eq!(channel["members"].as_array().map(Vec::len), Some(3));
    assert_eq!(channel["connections"].as_array().map(Vec::len), Some(8));
    let id = clients[5].socket_id.clone();
    let connection = get(&admin, &format!("/api/connection?socket_id={id}"));
    assert_eq!((&connection["user"], &connection["app"]), (&json!("2"), &json!(APP_ID)));
    assert_eq!(connection["channel_names"], json!(["news", "presence-room"]));
    let peer = clients[5].wire.stream.local_addr().expect("an address").to_string();
    assert_eq!(connection["address"], peer);
    assert!(connection["round_trip_ms"].as_f64().is_some_and(|time| time > 0.0), "{connection}");
    let found = get(&admin, &format!("/api/connections?filter={id}"));
    assert_eq!((&found["total"], &found["connections"][0]["socket_id"]), (&json!(1), &json!(id)));
    let overview = get(&admin, "/api/overview");
    assert_eq!(
        (&overview["connections"], &overview["totals"]["subscriptions"]),
        (&json!(8), &json!(16))
    );
    assert_eq!(overview["workers"].as_array().map(Vec::len), Some(4));
    assert_eq!(get(&admin, "/api/nodes"), json!({"nodes": []}));
}

#[test]
fn a_wrong_parameter_is_answered_with_the_accepted_values() {
    let (_server, admin) = start(1);
    let long = "x".repeat(201);
    for (path, status, part) in [
        ("/api/nothing", 404, "docs/OPERATIONS.md"),
        ("/api/channels?app=none", 404, "no app with the id \"none\""),
        ("/api/channels?sort=size", 400, "name, subscribers or users"),
        ("/api/channels?page=two", 400, "takes a number"),
        (&format!("/api/channels?filter={long}"), 400, "may have 200"),
        ("/api/channel", 400, "name is missing"),
        ("/api/connection?socket_id=x", 400, "two numbers"),
        ("/api/connection?socket_id=1.1", 404, "is open on this node"),
        ("/api/events?kind=all", 400, "connected, disconnected"),
        ("/api/events?socket_id=zz", 400, "two numbers"),
        ("/api/publish", 405, "POST"),
    ] {
        let reply = admin.get(path);
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
        assert!(reply.body.contains(part), "{path}: {}", reply.body);
    }
}

#[test]
fn a_wrong_method_is_answered_with_those_that_the_path_takes() {
    let (_server, admin) = start(1);
    for (method, path, allow) in [
        ("DELETE", "/api/overview", "GET, HEAD"),
        ("POST", "/api/channels?app=1", "GET, HEAD"),
        ("PUT", "/api/nodes", "GET, HEAD"),
        ("HEAD", "/api/events", "GET"),
        ("POST", "/api/events", "GET"),
        ("GET", "/api/disconnect", "POST"),
    ] {
        let address = admin.address();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let reply = admin.send(&request);
        assert_eq!(
            (reply.status, reply.head.header("allow")),
            (405, Some(allow)),
            "{method} {path}"
        );
    }
}

#[test]
fn ten_thousand_channels_are_listed_while_messages_are_served() {
    let (server, admin) = start(2);
    let mut holders: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    for (number, holder) in holders.iter_mut().enumerate() {
        for index in 0..1_000 {
            holder.send_subscribe(&format!("many-{number}-{index:04}"), None);
        }
    }
    eventually("all are there", || {
        (get(&admin, "/api/channels?filter=many-")["total"] == 10_000).then_some(())
    });
    let page = get(&admin, "/api/channels?filter=many-&sort=name&rows=3&page=3334");
    assert_eq!(
        (&page["pages"], &page["channels"][0]["name"]),
        (&json!(3_334), &json!("many-9-0999"))
    );
    let mut client = server.connect();
    client.subscribe("quiet");
    for number in 0..20 {
        get(&admin, "/api/channels?filter=many-");
        server.publish("quiet", "e", &number.to_string());
        assert_eq!(client.event()["event"], "e");
    }
}

#[test]
fn an_operator_publishes_with_the_checks_of_the_http_api() {
    let (server, admin) = start(2);
    let mut client = server.connect();
    client.subscribe("news");
    let event = json!({"name": "hand.made", "channel": "news", "data": "{\"a\":1}"});
    let published = post(&admin, "/api/publish", &event, JSON);
    assert_eq!((published.status, published.body.as_str()), (200, "{}"));
    let received = client.event();
    assert_eq!((&received["event"], &received["data"]), (&json!("hand.made"), &json!("{\"a\":1}")));
    let wrong = post(&admin, "/api/publish", &json!({"name": "e", "data": "{}"}), JSON);
    assert_eq!(wrong.status, 422, "{}", wrong.body);
    let except =
        json!({"name": "e", "channel": "news", "data": "1", "socket_id": client.socket_id});
    assert_eq!(post(&admin, "/api/publish", &except, JSON).status, 200);
    assert_eq!(post(&admin, "/api/publish", &event, JSON).status, 200);
    assert_eq!(client.event()["event"], "hand.made", "the event before was for the others");
}

#[test]
fn a_disconnect_is_logged_and_remembered_with_its_reason() {
    let (mut server, admin) = start(2);
    let mut client = server.connect();
    let body = json!({"socket_id": client.socket_id});
    assert_eq!(post(&admin, "/api/disconnect", &body, JSON).status, 200);
    assert_eq!(client.close_code_behind_events(), 4009);
    let line = server.line_with("cause=disconnected");
    assert!(
        line.contains("INFO a connection was closed because an operator asked for it"),
        "{line}"
    );
    assert_eq!(post(&admin, "/api/disconnect", &body, JSON).status, 404);
    let refusals = get(&admin, &format!("/api/refusals?socket_id={}", client.socket_id));
    assert_eq!(refusals["refusals"][0]["cause"], "disconnected");
    assert_eq!(get(&admin, "/api/refusals?socket_id=1.1"), json!({"refusals": []}));
}

#[test]
fn an_unsubscribe_ends_one_subscription_and_is_named_as_the_overview_counts_it() {
    let (mut server, admin) = start(2);
    let mut client = server.connect();
    client.subscribe("news");
    client.subscribe("other");
    let id = client.socket_id.clone();
    let ask = |body: &Value| {
        let reply = post(&admin, "/api/unsubscribe", body, JSON);
        (reply.status, reply.body)
    };
    assert_eq!(ask(&json!({"socket_id": id, "channel": "news"})).0, 200);
    let told = client.event();
    assert_eq!(
        (&told["event"], &told["channel"]),
        (&json!("pusher:subscription_error"), &json!("news"))
    );
    let inside = get(&admin, &format!("/api/connection?socket_id={id}"));
    assert_eq!(inside["channel_names"], json!(["other"]));
    for (body, status, part) in [
        (json!({"socket_id": id, "channel": "news"}), 404, "is not subscribed to \"news\""),
        (json!({"socket_id": "1.1", "channel": "news"}), 404, "is open on this node"),
        (json!({"socket_id": id}), 400, "channel is missing"),
        (json!({"channel": "news"}), 400, "socket_id is missing"),
    ] {
        let (found, text) = ask(&body);
        assert_eq!((found, text.contains(part)), (status, true), "{body}: {text}");
    }
    let line = server.line_with("cause=subscription_ended");
    assert!(line.contains("because an operator asked for it"), "{line}");
    let refusals = get(&admin, &format!("/api/refusals?socket_id={id}"));
    let refusal = &refusals["refusals"][0];
    assert_eq!(refusal["cause"], "subscription_ended");
    let reason = refusal["reason"].as_str().expect("a reason");
    assert_eq!(get(&admin, "/api/overview")["refused"][reason], 1, "{reason}");
    server.publish("other", "e", "1");
    assert_eq!(client.event()["event"], "e", "the other subscription stays");
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let (server, admin) = start(1);
    let client = server.connect();
    let body = json!({"socket_id": client.socket_id});
    let own = format!("{JSON}Origin: http://{}\r\n", admin.address());
    for (fields, status) in [
        ("", 415),
        ("Content-Type: text/plain\r\n", 415),
        ("Content-Type: application/x-www-form-urlencoded\r\n", 415),
        (&format!("{JSON}Origin: https://evil.test\r\n"), 403),
        (&format!("{JSON}Origin: null\r\n"), 403),
        (&own, 200),
    ] {
        let reply = post(&admin, "/api/disconnect", &body, fields);
        assert_eq!(reply.status, status, "{fields}: {}", reply.body);
    }
    let options = admin.send(&format!(
        "OPTIONS /api/disconnect HTTP/1.1\r\nHost: {}\r\nOrigin: https://evil.test\r\n\r\n",
        admin.address()
    ));
    assert_eq!(options.head.header("access-control-allow-origin"), None);
    assert_ne!(options.status, 200);
}

#[test]
fn the_page_is_for_browsers_and_allows_nothing_from_elsewhere() {
    let (_server, admin) = start(1);
    let page = admin.get_with("/", "Accept: text/html,*/*\r\n");
    assert_eq!(page.head.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.head.header("content-security-policy").expect("a policy");
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part) && !policy.contains("unsafe"), "{policy}");
    }
    assert_eq!(admin.get("/console.css").status, 200);
    // Each script, by the imports of the others.
    let mut scripts = vec!["/console.js".to_owned()];
    let mut next = 0;
    while let Some(path) = scripts.get(next).cloned() {
        let script = admin.get(&path);
        assert_eq!(script.status, 200, "{path}");
        let imports = script.body.split(" from \"./").skip(1);
        for import in imports.filter_map(|rest| rest.split('"').next()) {
            let path = format!("/{import}");
            if !scripts.contains(&path) {
                scripts.push(path);
            }
        }
        next += 1;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/admin/console");
    let files = fs::read_dir(folder).expect("the folder").flatten();
    let files = files.filter(|file| file.path().extension().is_some_and(|end| end == "js"));
    assert_eq!(scripts.len(), files.count(), "{scripts:?}");
    let evil = admin.send("GET /console.js HTTP/1.1\r\nHost: evil.test\r\n\r\n");
    assert_eq!(evil.status, 403);
}

/// A stream of the event log.
struct EventStream(BufReader<TcpStream>);

impl EventStream {
    fn open(admin: &AdminClient, query: &str) -> Self {
        let mut stream = TcpStream::connect(admin.address()).expect("the admin listener");
        let address = admin.address();
        let request = format!("GET /api/events?{query} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while !line.starts_with(": the event log") {
            line.clear();
            assert!(reader.read_line(&mut line).expect("a line") > 0, "the stream begins");
        }
        Self(reader)
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).expect("a line") > 0, "the stream goes on");
            if let Some(data) = line.strip_prefix("data: ") {
                return parse(data);
            }
        }
    }
}

#[test]
fn the_event_log_shows_events_with_their_connection() {
    let (server, admin) = start(2);
    let mut all = EventStream::open(&admin, "");
    let mut refused = EventStream::open(&admin, "kind=refused");
    eventually("both look", || (get(&admin, "/api/overview")["viewers"] == 2).then_some(()));
    let mut client = server.connect();
    let id = client.socket_id.clone();
    client.join("presence-room", r#"{"user_id":"7"}"#);
    server.publish("presence-room", "order.shipped", "{}");
    assert_eq!(client.event()["event"], "order.shipped");
    client.send(r#"{"event":"client-typing","channel":"presence-room","data":{}}"#);
    client.send("nonsense");
    client.event();
    client.unsubscribe("presence-room");
    client.close();
    // Events of two workers come in no order.
    let kinds = [
        "connected",
        "subscribed",
        "api_event",
        "client_event",
        "refused",
        "unsubscribed",
        "disconnected",
    ];
    let mut seen: Vec<Value> = Vec::new();
    while !kinds.iter().all(|kind| seen.iter().any(|event| event["kind"] == *kind)) {
        seen.push(all.next());
    }
    let of =
        |kind: &str| seen.iter().find(|event| event["kind"] == kind).cloned().unwrap_or_default();
    assert_eq!(
        (&of("subscribed")["text"], &of("subscribed")["socket_id"]),
        (&json!("as user 7"), &json!(id))
    );
    assert_eq!(of("api_event")["channel"], "presence-room");
    assert!(of("client_event")["text"].as_str().is_some_and(|text| text.contains("client-typing")));
    assert_eq!(of("disconnected")["cause"], "closed");
    let event = refused.next();
    assert_eq!((&event["kind"], &event["cause"]), (&json!("refused"), &json!("not_json")));
    let mut server = server;
    let line = server.line_with("cause=not_json");
    assert!(line.contains(event["text"].as_str().expect("a line")), "{line}\n{event}");
    drop((all, refused));
    eventually("nobody looks", || (get(&admin, "/api/overview")["viewers"] == 0).then_some(()));
}

#[test]
fn the_event_log_names_an_app_that_was_added_at_run_time() {
    let setup = Setup::new().workers(2).env("RINGVERB_APPS_FILE", "apps.toml");
    let setup = setup.env("RINGVERB_ADMIN", "127.0.0.1:0").env("RINGVERB_DEVELOPMENT", "true");
    let mut server = setup.start();
    let admin = AdminClient::of(&mut server);
    let mut all = EventStream::open(&admin, "");
    let mut of_app = EventStream::open(&admin, "app=2&kind=connected");
    eventually("both look", || (get(&admin, "/api/overview")["viewers"] == 2).then_some(()));
    let app = json!({"id": "2", "key": "key-2", "secret": "s"});
    assert_eq!(post(&admin, "/api/apps", &app, JSON).status, 201);
    let client = Client::open(&server, &Handshake::to("/app/key-2?protocol=7")).established();
    for stream in [&mut all, &mut of_app] {
        let event = stream.next();
        assert_eq!(
            (&event["kind"], &event["app"], &event["socket_id"]),
            (&json!("connected"), &json!("2"), &json!(client.socket_id))
        );
    }
    let found = get(&admin, &format!("/api/connection?socket_id={}", client.socket_id));
    assert_eq!(found["app"], "2");
    assert_eq!(get(&admin, "/api/channels?app=2")["total"], 0);
}

#[test]
fn webhooks_and_their_answers_are_in_the_event_log() {
    let endpoint = Endpoint::deciding(|_| Answer::Status(500, ""));
    let file = format!(
        "[[apps]]\nid = \"1001\"\nkey = \"app-key\"\nsecret = \"app-secret\"\n\
         webhooks = [{{ url = \"{}\", events = [\"channel_occupied\"] }}]\n",
        endpoint.url
    );
    let setup = Setup::bare().file("ringverb.toml", &file).env("RINGVERB_DEVELOPMENT", "true");
    let mut server = setup.env("RINGVERB_ADMIN", "127.0.0.1:0").start();
    let admin = AdminClient::of(&mut server);
    let mut stream = EventStream::open(&admin, "kind=webhook&channel=hooked");
    eventually("it looks", || (get(&admin, "/api/overview")["viewers"] == 1).then_some(()));
    let mut client = server.connect();
    client.subscribe("hooked-channel");
    let event = stream.next();
    assert_eq!((&event["cause"], &event["channel"]), (&json!("failed"), &json!("hooked-channel")));
    assert!(
        event["text"]
            .as_str()
            .is_some_and(|text| text.contains("channel_occupied") && text.contains("500")),
        "{event}"
    );
}

#[test]
fn viewers_and_their_waiting_events_are_bounded() {
    let (server, admin) = start(1);
    let mut viewers: Vec<EventStream> = (0..8).map(|_| EventStream::open(&admin, "")).collect();
    let refused = admin.get("/api/events");
    assert_eq!((refused.status, refused.body.contains("8 viewers")), (503, true));
    let mut client = server.connect();
    for index in 0..1_000 {
        client.send_subscribe(&format!("c-{index}"), None);
    }
    while client.event()["channel"] != "c-999" {}
    // It leaves all channels in one tick.
    drop(client);
    let last = loop {
        let event = viewers[0].next();
        if event["kind"] == "disconnected" || event["kind"] == "lost" {
            break event;
        }
    };
    assert!(last["kind"] == "disconnected" || last["count"].as_u64() > Some(0), "{last}");
}
