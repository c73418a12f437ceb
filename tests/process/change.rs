//! A configuration that changes while the server runs: reload, apps over the admin API, secrets that are exchanged,
//! access that a backend takes back.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::admin::AdminClient;
use crate::support::cluster::{nodes, user};
use crate::support::{
    Client, Handshake, Redis, Request, Server, Setup, eventually, json as parse, sign_with,
};

pub(crate) const TOKEN: &str = "0123456789abcdef-token";

/// An app of the file, with further options.
pub(crate) fn app(id: &str, further: &str) -> String {
    format!("[[apps]]\nid = \"{id}\"\nkey = \"key-{id}\"\nsecret = \"secret-{id}\"\n{further}\n")
}

pub(crate) fn with_file(text: &str) -> Setup {
    Setup::bare()
        .env("RINGVERB_ADMIN", "127.0.0.1:0")
        .env("RINGVERB_ADMIN_TOKEN", TOKEN)
        .file("ringverb.toml", text)
}

/// Status and body of a request to the admin API.
pub(crate) fn admin(admin: &AdminClient, method: &str, path: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let reply = admin.send(&format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    ));
    (reply.status, parse(&reply.body))
}

fn connect(server: &Server, id: &str) -> Client {
    Client::open(server, &Handshake::to(&format!("/app/key-{id}?protocol=7"))).established()
}

fn publish(server: &Server, id: &str, secret: &str) -> u16 {
    let body = r#"{"name":"e","channel":"news","data":"1"}"#;
    let request = Request::to("POST", &format!("/apps/{id}/events"))
        .query("auth_key", &format!("key-{id}"))
        .body(body.as_bytes())
        .secret(secret);
    server.answer(&request).0
}

/// A client of an app that is no longer served is sent an error and closed.
fn closed(client: &mut Client) -> u16 {
    client.close_code_behind_events()
}

#[test]
fn a_reload_applies_apps_and_limits_and_keeps_connections() {
    let both = format!("{}{}", app("1", ""), app("2", ""));
    let setup = with_file(&both).workers(2);
    let path = setup.path("ringverb.toml");
    let mut server = setup.start();
    let api = AdminClient::of(&mut server);
    let (mut stays, mut goes) = (connect(&server, "1"), connect(&server, "2"));
    stays.subscribe("news");
    goes.subscribe("news");
    let next = format!(
        "[server]\nport = 1\nmax_request_size = 600\n{}{}",
        app("1", "allowed_origins = [\"shop.test\"]\nevent_name_length_max = 3"),
        app("3", "")
    );
    fs::write(&path, next).expect("a file");
    let (status, body) = admin(&api, "POST", "/api/reload", "");
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["apps"], json!({"added": ["3"], "changed": ["1"], "removed": ["2"]}));
    assert_eq!(body["changed"], json!(["REVERB_MAX_REQUEST_SIZE"]));
    assert_eq!(body["needs_takeover"], json!([]), "the port is given by a flag: {body}");
    assert_eq!(body["configuration"], 2);
    assert_eq!(closed(&mut goes), 4001);
    server.line_so_far_with("cause=app_removed");
    // The connection stays, and new limits hold.
    stays.sync();
    assert_eq!(publish(&server, "1", "secret-1"), 200);
    stays.expect(r#"{"event":"e","data":"1","channel":"news"}"#);
    let long = Request::to("POST", "/apps/1/events")
        .query("auth_key", "key-1")
        .body(br#"{"name":"long","channel":"news","data":"1"}"#)
        .secret("secret-1");
    assert_eq!(server.answer(&long).0, 422);
    assert_eq!(publish(&server, "2", "secret-2"), 404);
    let mut new = connect(&server, "3");
    new.subscribe("news");
    let mut refused = Client::open(&server, &Handshake::to("/app/key-1?protocol=7"));
    assert_eq!(refused.event()["data"].as_str().map(|data| data.contains("4009")), Some(true));
    let large = Request::to("POST", "/apps/3/events").query("auth_key", "key-3");
    let body = format!("{{\"name\":\"e\",\"channel\":\"news\",\"data\":\"{}\"}}", "x".repeat(700));
    assert_eq!(server.answer(&large.body(body.as_bytes()).secret("secret-3")).0, 413);
    server.line_so_far_with(
        "configuration 2 is in use: 1 app added, 1 changed, 1 removed; 1 option changed",
    );
}

#[test]
fn sighup_reloads_and_an_invalid_file_is_refused_whole_with_all_its_reasons() {
    let setup = with_file(&app("1", "")).workers(1);
    let path = setup.path("ringverb.toml");
    let mut server = setup.start();
    let api = AdminClient::of(&mut server);
    let mut client = connect(&server, "1");
    let wrong = format!("[server]\nwebhook_retry = \"x\"\n{}", app("2", "max_connections = 0"));
    fs::write(&path, wrong).expect("a file");
    server.signal(Signal::HUP);
    let line = server.line_with("the configuration was refused, and the one before stays in use");
    assert!(line.contains("webhook_retry") && line.contains("max_connections"), "{line}");
    let (status, body) = admin(&api, "POST", "/api/reload", "");
    assert_eq!((status, body["problems"].as_array().map(Vec::len)), (422, Some(2)), "{body}");
    assert_eq!(publish(&server, "1", "secret-1"), 200);
    assert_eq!(publish(&server, "2", "secret-2"), 404);
    fs::write(&path, "").expect("a file");
    let (status, body) = admin(&api, "POST", "/api/reload", "");
    assert_eq!(status, 422, "no development mode out of the blue: {body}");
    client.sync();
    fs::write(&path, format!("[server]\nwebhook_retry = 7\n{}{}", app("1", ""), app("2", "")))
        .expect("a file");
    server.signal(Signal::HUP);
    let line =
        server.line_with("options that cannot change while the server runs keep their values");
    assert!(line.contains("RINGVERB_WEBHOOK_RETRY"), "{line}");
    server.line_with("configuration 2 is in use");
    assert_eq!(publish(&server, "2", "secret-2"), 200);
    client.sync();
}

/// Those that wait together are one reload, and each of them has its outcome.
#[test]
fn a_storm_of_reloads_over_the_api_is_answered_request_by_request() {
    let mut server = with_file(&app("1", "")).start();
    let place = AdminClient::of(&mut server);
    let numbers: Vec<u64> = std::thread::scope(|scope| {
        let one = || {
            let (status, answer) = admin(&place, "POST", "/api/reload", "");
            assert_eq!(status, 200, "{answer}");
            answer["configuration"].as_u64().expect("a number")
        };
        let threads: Vec<_> = (0..24).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    let most = numbers.iter().max().copied().unwrap_or_default();
    assert!((2..=25).contains(&most), "{numbers:?}");
    assert!(numbers.iter().all(|number| (2..=most).contains(number)), "{numbers:?}");
    let (status, answer) = admin(&place, "GET", "/api/apps", "");
    assert_eq!((status, answer["configuration"].as_u64()), (200, Some(most)));
}

#[test]
fn a_reload_cannot_take_the_token_of_a_listener_that_other_hosts_reach() {
    let text = |admin: &str| format!("[server]\n{admin}\n{}", app("1", ""));
    let public = format!("admin = \"0.0.0.0:0\"\nadmin_token = \"{TOKEN}\"");
    // Empty: the file names the place.
    let setup = Setup::bare().env("RINGVERB_ADMIN", "").file("ringverb.toml", &text(&public));
    let setup = setup.workers(1);
    let path = setup.path("ringverb.toml");
    let mut server = setup.start();
    let api = AdminClient::of(&mut server);
    for next in ["admin = \"127.0.0.1:0\"", "admin = \"off\"", "admin = \"unix:/run/x.sock\""] {
        fs::write(&path, text(next)).expect("a file");
        let (status, body) = admin(&api, "POST", "/api/reload", "");
        let problems = body["problems"].to_string();
        assert_eq!((status, problems.contains("RINGVERB_ADMIN_TOKEN")), (422, true), "{body}");
        assert_eq!(api.get("/metrics").status, 401, "{next}");
    }
    let other = public.replace(TOKEN, "another-token-0123456789");
    fs::write(&path, text(&other)).expect("a file");
    assert_eq!(admin(&api, "POST", "/api/reload", "").0, 200, "another token is no harm");
    let old = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(api.get_with("/metrics", &old).status, 401);
}

#[test]
fn apps_are_added_changed_disabled_and_removed_over_the_admin_api_and_survive_a_restart() {
    let setup = with_file(&app("1", "")).env("RINGVERB_APPS_FILE", "apps.toml").workers(2);
    let path = setup.path("apps.toml");
    let mut server = setup.start();
    let api = AdminClient::of(&mut server);
    let (status, body) =
        admin(&api, "POST", "/api/apps", r#"{"id":"2","key":"key-2","max_connections":1}"#);
    assert_eq!((status, body["app"]["id"].as_str()), (201, Some("2")), "{body}");
    let secret = body["app"]["secret"].as_str().expect("shown once").to_owned();
    assert_eq!(secret.len(), 20);
    assert_eq!(fs::metadata(&path).expect("written").permissions().mode() & 0o777, 0o600);
    let (_, body) = admin(&api, "GET", "/api/apps/2", "");
    assert_eq!(body["app"]["secret"], "********", "{body}");
    let mut client = connect(&server, "2");
    client.subscribe("news");
    assert_eq!(publish(&server, "2", &secret), 200);
    client.event();
    let (_, body) = admin(&api, "GET", "/api/apps", "");
    let row = |index: usize| {
        (
            &body["apps"][index]["id"],
            &body["apps"][index]["connections"],
            &body["apps"][index]["can_change"],
        )
    };
    assert_eq!(row(0), (&json!("1"), &json!(0), &json!(false)), "{body}");
    assert_eq!(row(1), (&json!("2"), &json!(1), &json!(true)), "{body}");
    // Its limit, raised.
    let (status, body) = admin(&api, "PATCH", "/api/apps/2", r#"{"max_connections":2}"#);
    assert_eq!((status, &body["app"]["max_connections"]), (200, &json!(2)), "{body}");
    let mut second = connect(&server, "2");
    let (status, body) =
        admin(&api, "PATCH", "/api/apps/2", r#"{"max_connections":-1,"nonsense":1}"#);
    assert_eq!(status, 422, "{body}");
    assert!(body["problems"].to_string().contains("nonsense"), "{body}");
    for (method, path, expected) in [
        ("PATCH", "/api/apps/1", 409),
        ("DELETE", "/api/apps/9", 404),
        ("POST", "/api/apps/2/nothing", 404),
    ] {
        assert_eq!(admin(&api, method, path, "{}").0, expected, "{method} {path}");
    }
    assert_eq!(admin(&api, "POST", "/api/apps", r#"{"id":"2"}"#).0, 409);
    assert_eq!(admin(&api, "POST", "/api/apps/2/disable", "").0, 200);
    assert_eq!((closed(&mut client), closed(&mut second)), (4003, 4003));
    server.line_so_far_with("cause=app_switched_off");
    assert_eq!(publish(&server, "2", &secret), 403);
    assert_eq!(admin(&api, "POST", "/api/apps/2/enable", "").0, 200);
    let mut client = connect(&server, "2");
    let text = fs::read_to_string(&path).expect("the file");
    assert!(text.contains("max_connections = 2") && text.contains(&secret), "{text}");
    let (status, body) = admin(&api, "DELETE", "/api/apps/2", "");
    assert_eq!((status, &body["removed"]), (200, &json!("2")), "{body}");
    assert_eq!(closed(&mut client), 4001);
    assert_eq!(publish(&server, "2", &secret), 404);
    assert_eq!(
        admin(&api, "POST", "/api/apps", r#"{"id":"2","key":"key-2","secret":"new"}"#).0,
        201
    );
    assert_eq!(publish(&server, "2", "new"), 200, "an app of a known id, again");
    let text = fs::read_to_string(&path).expect("the file");
    let again =
        with_file(&app("1", "")).file("apps.toml", &text).env("RINGVERB_APPS_FILE", "apps.toml");
    let again = again.start();
    assert_eq!(publish(&again, "2", "new"), 200);
    let metrics = api.get_with("/metrics", &format!("Authorization: Bearer {TOKEN}\r\n")).body;
    assert!(metrics.contains("app_id=\"2\""), "an app that came later has its rows");
}

#[test]
fn an_apps_file_that_vanishes_is_no_list_without_apps() {
    let setup = with_file(&app("1", "")).env("RINGVERB_APPS_FILE", "apps.toml");
    let setup = setup.file("apps.toml", &app("2", ""));
    let path = setup.path("apps.toml");
    let mut server = setup.start();
    let api = AdminClient::of(&mut server);
    let mut client = connect(&server, "2");
    fs::remove_file(&path).expect("the file");
    let new = r#"{"id":"3","key":"key-3","secret":"s"}"#;
    for (path, body) in [("/api/reload", ""), ("/api/apps", new)] {
        let (status, body) = admin(&api, "POST", path, body);
        let problems = body["problems"].to_string();
        assert_eq!((status, problems.contains("no longer exists")), (422, true), "{body}");
    }
    client.sync();
    assert!(!path.exists(), "nothing was written");
    fs::write(&path, "").expect("an empty file");
    assert_eq!(admin(&api, "POST", "/api/reload", "").0, 200);
    assert_eq!(closed(&mut client), 4001);
}

/// The configuration is a pipe, so the start waits for it, before any signal has a handler.
#[test]
fn sighup_before_the_server_listens_is_a_reload_and_does_not_end_it() {
    let setup = with_file("").workers(1).args(&["--host", "127.0.0.1", "--port", "0"]);
    let path = setup.path("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    let mut server = setup.arg("--config").arg("pipe").starting();
    // Opens once the server reads.
    let mut pipe = fs::File::options().write(true).open(&path).expect("the pipe");
    for _ in 0..3 {
        server.signal(Signal::HUP);
    }
    pipe.write_all(app("1", "").as_bytes()).expect("the configuration");
    drop(pipe);
    server.listens();
    connect(&server, "1").sync();
    server.line_so_far_with("pipe is no regular file and was read at the start");
}

#[test]
fn without_a_file_for_apps_they_cannot_be_changed_and_a_write_that_fails_changes_nothing() {
    let mut server = with_file(&app("1", "")).start();
    let api = AdminClient::of(&mut server);
    let (status, body) = admin(&api, "POST", "/api/apps", "{}");
    assert_eq!(status, 409);
    assert!(body["error"].as_str().is_some_and(|text| text.contains("RINGVERB_APPS_FILE")));
    let setup = with_file(&app("1", "")).env("RINGVERB_APPS_FILE", "missing/apps.toml").workers(2);
    let (path, folder) = (setup.path("ringverb.toml"), setup.path("missing"));
    let mut server = setup.start();
    let api = AdminClient::of(&mut server);
    let second = json!({"id": "2", "key": "key-2", "secret": "s"}).to_string();
    let (status, body) = admin(&api, "POST", "/api/apps", &second);
    assert_eq!(status, 422, "{body}");
    assert_eq!(publish(&server, "2", "s"), 404);
    assert_eq!(admin(&api, "GET", "/api/apps/2", "").0, 404);
    // The write failed before the cores knew the app.
    for (text, added) in [(app("1", ""), json!([])), (app("1", "") + &app("3", ""), json!(["3"]))] {
        fs::write(&path, text).expect("a file");
        let (status, body) = admin(&api, "POST", "/api/reload", "");
        assert_eq!((status, &body["apps"]["added"]), (200, &added), "{body}");
    }
    assert_eq!((publish(&server, "3", "secret-3"), publish(&server, "2", "s")), (200, 404));
    fs::create_dir(folder).expect("a folder");
    assert_eq!(admin(&api, "POST", "/api/apps", &second).0, 201);
    connect(&server, "2").subscribe("news");
    assert_eq!((publish(&server, "3", "secret-3"), publish(&server, "2", "s")), (200, 200));
}

#[test]
fn a_web_page_changes_nothing() {
    let mut server = Setup::new().env("RINGVERB_ADMIN", "127.0.0.1:0").start();
    let api = AdminClient::of(&mut server);
    let post = |fields: &str| {
        api.send(&format!(
            "POST /api/reload HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}Content-Length: 0\r\n\r\n"
        ))
    };
    assert_eq!(post("").status, 415);
    assert_eq!(post("Content-Type: text/plain\r\n").status, 415);
    assert_eq!(post("Content-Type: text/plain\r\nOrigin: http://evil.test\r\n").status, 403);
    let json = "Content-Type: application/json\r\n";
    assert_eq!(post(&format!("{json}Origin: http://evil.test\r\n")).status, 403);
    assert_eq!(post(&format!("{json}Origin: http://127.0.0.1\r\n")).status, 200);
    assert_eq!(post(json).status, 200);
    let preflight = api.send(
        "OPTIONS /api/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.test\r\n\r\n",
    );
    assert!(preflight.status >= 400 && !preflight.body.contains("Access-Control"));
    let mut server = with_file(&app("1", "")).start();
    let refused = AdminClient::of(&mut server).send(&format!(
        "POST /api/reload HTTP/1.1\r\nHost: 127.0.0.1\r\n{json}Content-Length: 0\r\n\r\n"
    ));
    assert_eq!(refused.status, 401);
}

/// Each step of an exchange is a change of its own, and a request with a secret that was announced never fails.
#[test]
fn a_secret_is_exchanged_without_a_request_that_fails() {
    let setup = with_file(&app("1", "")).env("RINGVERB_APPS_FILE", "apps.toml").workers(2);
    let mut server = setup.file("apps.toml", &app("2", "")).start();
    let api = AdminClient::of(&mut server);
    let subscribe = |secret: &str| {
        let mut client = connect(&server, "2");
        let signed = sign_with(secret, &[&client.socket_id, ":", "private-a"]);
        let data = json!({"channel": "private-a", "auth": format!("key-2:{signed}")});
        client.send(&json!({"event": "pusher:subscribe", "data": data}).to_string());
        client.event()["event"] == "pusher_internal:subscription_succeeded"
    };
    let works = |secret: &str| {
        let is_signed = publish(&server, "2", secret) == 200;
        assert_eq!(is_signed, subscribe(secret), "both kinds of signatures");
        is_signed
    };
    assert_eq!(["secret-2", "new"].map(works), [true, false]);
    let both = r#"{"secret":"new","second_secret":"secret-2"}"#;
    assert_eq!(admin(&api, "PATCH", "/api/apps/2", both).0, 200);
    assert_eq!(["secret-2", "new"].map(works), [true, true]);
    assert_eq!(admin(&api, "PATCH", "/api/apps/2", r#"{"second_secret":null}"#).0, 200);
    assert_eq!(["secret-2", "new"].map(works), [false, true]);
}

#[test]
fn commands_change_a_running_server() {
    let setup = with_file(&app("1", "")).env("RINGVERB_APPS_FILE", "apps.toml");
    let mut server = setup.start();
    let _ = AdminClient::of(&mut server);
    let line = server.line_so_far_with("  admin    http://");
    let place = line
        .trim_start_matches("  admin    http://")
        .split(',')
        .next()
        .expect("an address")
        .to_owned();
    let run = |arguments: &[&str]| {
        let setup = with_file(&app("1", "")).args(arguments).arg("--admin").arg(&place);
        let finished = setup.run();
        (finished.code, finished.stdout, finished.stderr)
    };
    let (code, out, err) = run(&["app", "add", "id=2", "key=key-2", "max_connections=3"]);
    assert_eq!(code, Some(0), "{err}");
    let secret =
        out.lines().find_map(|line| line.strip_prefix("REVERB_APP_SECRET=")).expect("a secret");
    assert_eq!(publish(&server, "2", secret), 200);
    let (_, out, _) = run(&["app", "list"]);
    assert!(out.contains("\n2   key-2  enabled            0  apps.toml\n"), "{out}");
    assert_eq!(run(&["app", "set", "2", "secret=s", "rate_limiting.enabled=true"]).0, Some(0));
    assert_eq!(publish(&server, "2", "s"), 200);
    assert_eq!(run(&["app", "disable", "2"]).0, Some(0));
    assert_eq!(publish(&server, "2", "s"), 403);
    assert_eq!(run(&["app", "remove", "2"]).0, Some(0));
    assert_eq!(publish(&server, "2", "s"), 404);
    let (code, _, err) = run(&["app", "remove", "1"]);
    assert!(code == Some(1) && err.contains("ringverb reload"), "{err}");
    let (code, out, _) = run(&["reload"]);
    assert!(code == Some(0) && out.contains("is in use"), "{out}");
}

fn post(server: &Server, path: &str, body: &str) -> (u16, String) {
    server.answer(&Request::post(path, body))
}

#[test]
fn a_backend_takes_access_back_and_wrong_requests_are_named() {
    let mut server = Setup::new().workers(2).start();
    let [mut anna, mut ben] = [(); 2].map(|()| server.connect());
    anna.join("presence-r", &user(7));
    ben.join("presence-r", &user(8));
    anna.event();
    let unsubscribe = r#"{"channel":"presence-r"}"#;
    assert_eq!(post(&server, "/users/7/unsubscribe", unsubscribe), (200, "{}".to_owned()));
    let error = anna.event();
    assert_eq!(error["event"], "pusher:subscription_error", "{error}");
    assert_eq!(
        (&error["channel"], &error["data"]["type"]),
        (&json!("presence-r"), &json!("AuthError"))
    );
    let text = error["data"]["error"].as_str().unwrap_or_default();
    assert!(text.contains("Access to the channel was withdrawn by the application"), "{error}");
    assert_eq!(ben.event()["event"], "pusher_internal:member_removed");
    anna.sync();
    assert_eq!(
        post(&server, &format!("/connections/{}/unsubscribe", ben.socket_id), unsubscribe).0,
        200
    );
    assert_eq!(ben.event()["event"], "pusher:subscription_error");
    assert_eq!(
        post(&server, &format!("/connections/{}/force_reconnect", ben.socket_id), "").0,
        200
    );
    let reconnect = "The application asks the client to connect again".to_owned();
    assert_eq!(ben.closed(), (4200, reconnect));
    assert_eq!(post(&server, &format!("/connections/{}/terminate", anna.socket_id), "{}").0, 200);
    assert_eq!(anna.close_code_behind_events(), 4009);
    for cause in ["access_withdrawn", "reconnect_forced", "connection_terminated"] {
        server.line_so_far_with(&format!("cause={cause}"));
    }
    for (path, body, status) in [
        ("/users/7/unsubscribe", "{}", 422),
        ("/users/7/unsubscribe", r#"{"channel":7}"#, 422),
        ("/users/7/unsubscribe", "no JSON", 400),
        ("/connections/x/force_reconnect", "{}", 422),
        ("/users/7/nothing", "{}", 404),
    ] {
        assert_eq!(post(&server, path, body).0, status, "{path} {body}");
    }
    let unsigned = Request::post("/users/7/force_reconnect", "{}").secret("wrong");
    assert_eq!(server.answer(&unsigned).0, 401);
}

#[test]
fn access_is_taken_back_on_all_nodes() {
    let redis = Redis::start();
    let [here, there] = nodes(&redis, [1, 2]);
    let mut clients = [here.connect(), there.connect(), there.connect()];
    for (client, id) in clients.iter_mut().zip([7, 7, 8]) {
        client.join("presence-r", &user(id));
    }
    // Both nodes know all members before one of them leaves.
    eventually("all members are known", || {
        (crate::support::cluster::users(&here, "presence-r") == ["7", "8"]).then_some(())
    });
    let [one, other, witness] = &mut clients;
    assert_eq!(post(&here, "/users/7/unsubscribe", r#"{"channel":"presence-r"}"#).0, 200);
    for client in [one, other] {
        let error = loop {
            let event = client.event();
            if event["event"] != "pusher_internal:member_added" {
                break event;
            }
        };
        assert_eq!(error["event"], "pusher:subscription_error", "{error}");
    }
    let removed = loop {
        let event = witness.event();
        if event["event"] != "pusher_internal:member_added" {
            break event;
        }
    };
    assert_eq!(removed["event"], "pusher_internal:member_removed", "{removed}");
    let socket_id = witness.socket_id.clone();
    assert_eq!(post(&here, &format!("/connections/{socket_id}/force_reconnect"), "").0, 200);
    assert_eq!(witness.close_code_behind_events(), 4200);
}
