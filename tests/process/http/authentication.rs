//! Routes, signatures, timestamps and prefixes of the HTTP API, and the separation of apps.

use serde_json::json;

use super::api::{BAD_SIGNATURE, EVENT, is_json, ok};
use crate::support::{APP_ID, Client, Handshake, Http, Request, Server, Setup, unix_seconds};

#[test]
fn unknown_routes_and_wrong_methods_are_refused() {
    let server = Server::start();
    let ask = |text: &str| {
        Http::new(&server).ask_raw(format!("{text} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
    };
    for (line, status, body, allow) in [
        ("GET /up", 200, r#"{"health":"OK"}"#, None),
        ("GET /", 404, "Not found.", None),
        ("GET /nope", 404, "Not found.", None),
        ("GET /apps/1001", 404, "Not found.", None),
        ("GET /apps/1001/channels/", 404, "Not found.", None),
        ("GET /up/", 404, "Not found.", None),
        ("POST /apps/1001/events/", 404, "Not found.", None),
        ("GET /apps/1001/nope", 404, "Not found.", None),
        ("GET /apps/1001/events", 405, "Method not allowed.", Some("POST")),
        ("OPTIONS /apps/1001/events", 405, "Method not allowed.", Some("POST")),
        ("POST /up", 405, "Method not allowed.", Some("GET, HEAD")),
        ("POST /apps/1001/channels", 405, "Method not allowed.", Some("GET, HEAD")),
        ("GET /apps/1001/users/7/terminate_connections", 405, "Method not allowed.", Some("POST")),
        ("GET /apps/nope/channels", 404, "No matching application for ID [nope].", None),
        ("POST /apps/n%20pe/events", 404, "No matching application for ID [n pe].", None),
        ("GET /apps/1001/channels", 401, BAD_SIGNATURE, None),
        ("GET /apps/1001/connections", 401, BAD_SIGNATURE, None),
    ] {
        let reply = ask(line);
        assert_eq!((reply.status, reply.body.as_str()), (status, body), "{line}");
        assert_eq!(reply.head.header("allow"), allow, "{line}");
        assert_eq!(is_json(&reply), status == 200, "{line}");
    }
}

#[test]
fn requests_with_a_wrong_signature_are_refused() {
    let server = Server::start();
    let event = || Request::events(EVENT);
    let good = event();
    let signature = good.target().rsplit('=').next().expect("a signature").to_owned();
    assert_eq!(server.answer(&good), ok("{}"));
    assert_eq!(server.answer(&event().query("auth_version", "9.9")), ok("{}"));
    assert_eq!(server.answer(&event().without("auth_version")), ok("{}"));
    for (name, request) in [
        ("none", event().signature("")),
        ("another", event().signature(&"0".repeat(64))),
        ("in capitals", good.clone().signature(&signature.to_uppercase())),
        ("cut", good.clone().signature(&signature[..63])),
        ("of another body", good.signature(&signature).body(b"{}")),
        ("of another path", event().signed_path("/apps/1001/batch_events")),
        ("of another key", event().query("auth_key", "wrong")),
        ("without a key", event().without("auth_key")),
        ("with a wrong body_md5", event().body_md5(Some("0123456789abcdef0123456789abcdef"))),
        ("without the body_md5", event().body_md5(None)),
    ] {
        let reply = server.ask(&request);
        assert_eq!((reply.status, reply.body.as_str()), (401, BAD_SIGNATURE), "{name}");
        assert!(!is_json(&reply));
    }
    let get = Request::get("/channels");
    let md5 = "d41d8cd98f00b204e9800998ecf8427e";
    assert_eq!(server.answer(&get.clone().body_md5(Some(md5))), ok(r#"{"channels":{}}"#));
    // Leftovers of a framework's router are not signed.
    let text = get.target();
    let text = text.split('?').nth(1).and_then(|text| text.split("&auth_signature").next());
    let leftovers = get.signed_query(text.expect("a query")).and("appId", "1001");
    assert_eq!(server.answer(&leftovers.and("channelName", "x")), ok(r#"{"channels":{}}"#));
}

#[test]
fn requests_outside_of_the_time_window_are_refused() {
    let stamp = |seconds: u64| Request::events(EVENT).query("auth_timestamp", &seconds.to_string());
    let server = Server::start();
    for seconds in [unix_seconds() - 590, unix_seconds() + 590] {
        assert_eq!(server.answer(&stamp(seconds)), ok("{}"));
    }
    for seconds in [unix_seconds() - 660, unix_seconds() + 660, 1_000_000_000, 0] {
        let (status, body) = server.answer(&stamp(seconds));
        assert_eq!(status, 401, "{seconds}: {body}");
        assert!(body.starts_with("Authentication timestamp is "), "{body}");
    }
    let missing = Request::events(EVENT).without("auth_timestamp");
    for request in [missing.clone(), missing.query("auth_timestamp", "soon")] {
        assert_eq!(server.answer(&request).0, 401);
    }
    // A client without the secret learns nothing of the server's clock.
    let (status, body) = server.answer(&stamp(0).signature("x"));
    assert_eq!((status, body.as_str()), (401, BAD_SIGNATURE));

    let server = Setup::new().env("RINGVERB_AUTH_WINDOW", "0").start();
    assert_eq!(server.answer(&stamp(1_000_000_000)), ok("{}"));
    let request = Request::events(EVENT).without("auth_timestamp");
    assert_eq!(server.answer(&request), ok("{}"));
}

#[test]
fn a_path_prefix_may_be_sent_and_signed_or_not() {
    let server = Setup::new().env("REVERB_SERVER_PATH", "/ws").start();
    let mut client = Client::open(&server, &Handshake::to("/ws/app/app-key")).established();
    client.subscribe("news");
    let (sent, bare) = (format!("/ws/apps/{APP_ID}/events"), format!("/apps/{APP_ID}/events"));
    let request = Request::to("POST", &sent).body(EVENT.as_bytes());
    assert_eq!(server.answer(&request), ok("{}"));
    assert_eq!(server.answer(&request.clone().signed_path(&bare)), ok("{}"));
    assert_eq!(server.answer(&request.signed_path("/events")).0, 401);
    // Laravel with REVERB_SERVER_PATH=/ws resolves apps/... against http://host/ws, and loses the last segment.
    let request = Request::to("POST", &bare).body(EVENT.as_bytes());
    assert_eq!(server.answer(&request), ok("{}"));
    assert_eq!(server.answer(&request.clone().signed_path(&sent)), ok("{}"));
    assert_eq!(server.answer(&request.signed_path("/events")).0, 401);
    for _ in 0..4 {
        client.expect(r#"{"event":"e","data":"x","channel":"news"}"#);
    }
    client.sync();
    for elsewhere in ["/w/apps/1001/events", "/wsapps/1001/events", "//apps/1001/events"] {
        let request = Request::to("POST", elsewhere).body(EVENT.as_bytes());
        assert_eq!(server.answer(&request).0, 404, "{elsewhere}");
    }
}

#[test]
fn an_app_reaches_only_its_own_channels() {
    let toml = "[[apps]]\nid = \"2\"\nkey = \"key-2\"\nsecret = \"secret-2\"\n";
    let server = Setup::new().file("ringverb.toml", toml).start();
    let mut own = server.connect();
    own.subscribe("news");
    let mut other = Client::open(&server, &Handshake::to("/app/key-2")).established();
    other.subscribe("news");
    server.publish("news", "e", "x");
    own.expect(r#"{"event":"e","data":"x","channel":"news"}"#);
    other.sync();
    // Right key and secret, another app's path.
    assert_eq!(server.answer(&Request::to("GET", "/apps/2/channels")).0, 401);
    // Another app's key, signed with the own secret.
    let data = json!({"channel": "private-p", "auth": crate::support::channel_auth(&other.socket_id, "private-p",
        None)});
    let message = json!({"event": "pusher:subscribe", "data": data}).to_string();
    other.ask(&message, &crate::support::error_event(4009, "Connection is unauthorized"));
}
