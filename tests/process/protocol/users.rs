//! Signing in and being watched, over several workers, at the edges (docs/PROTOCOL.md C6, rules 39 to 43, 70).

use crate::support::{
    Client, INVALID, Request, Server, Setup, data, error_event, eventually, sign,
};
use serde_json::{Value, json};

fn server() -> Server {
    Setup::new().workers(4).start()
}

fn signin(client: &Client, user_data: &str) -> String {
    let auth = format!("app-key:{}", sign(&[&client.socket_id, "::user::", user_data]));
    json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}}).to_string()
}

/// A connection that is signed in; the events of its watchlist follow.
fn signed_in(server: &Server, user_data: &Value) -> Client {
    let mut client = server.connect();
    let user_data = user_data.to_string();
    let message = signin(&client, &user_data);
    client.send(&message);
    let answer = json!({"event": "pusher:signin_success", "data": {"user_data": user_data}});
    assert_eq!(client.event(), answer);
    client
}

fn watched(client: &mut Client) -> Value {
    let event = client.event();
    assert_eq!(event["event"], "pusher_internal:watchlist_events", "{event}");
    data(&event)["events"].clone()
}

#[test]
fn malformed_sign_ins_are_refused() {
    let server = server();
    let mut client = server.connect();
    let unauthorized = error_event(4009, "Connection is unauthorized");
    let good = r#"{"id":"7"}"#;
    let auth = format!("app-key:{}", sign(&[&client.socket_id, "::user::", good]));
    let hex = auth.strip_prefix("app-key:").expect("key and signature").to_owned();
    for (auth, user_data) in [
        (json!(null), good),
        (json!(""), good),
        (json!(hex), good),
        (json!(format!("other:{hex}")), good),
        (json!(auth.to_uppercase()), good),
        (json!(auth), r#"{"id":"8"}"#),
        (json!(auth), r#"{"id":"7" }"#),
    ] {
        let message =
            json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}});
        client.ask(&message.to_string(), &unauthorized);
    }
    for id in ["7", r#""""#, "null", "[]"] {
        let message = signin(&client, &format!(r#"{{"id":{id}}}"#));
        client.ask(&message, &unauthorized);
    }
    for user_data in ["", "no json", "7", "[]"] {
        let message = signin(&client, user_data);
        client.ask(&message, INVALID);
    }
    let subscribe = r##"{"event":"pusher:subscribe","data":{"channel":"#server-to-user-7"}}"##;
    client.ask(subscribe, &unauthorized);
    // Nothing of this has harmed it. Some SDKs encode `data` twice.
    let message = signin(&client, good);
    let inner = crate::support::json(&message)["data"].to_string();
    client.send(&json!({"event": "pusher:signin", "data": inner}).to_string());
    assert_eq!(client.event()["event"], "pusher:signin_success");
    client.subscribe("#server-to-user-7");
    let other = signin(&client, r#"{"id":"8"}"#);
    client.ask(&other, &error_event(4009, "Connection is signed in as another user"));
    server.publish("#server-to-user-7", "e", "x");
    client.expect(r##"{"event":"e","data":"x","channel":"#server-to-user-7"}"##);
}

#[test]
fn an_event_for_a_user_reaches_all_workers_and_no_other_user() {
    let server = server();
    let mut own: Vec<Client> = (0..12).map(|_| signed_in(&server, &json!({"id": "7"}))).collect();
    let mut others: Vec<Client> =
        (0..12).map(|_| signed_in(&server, &json!({"id": "77"}))).collect();
    for client in &mut own {
        client.subscribe("#server-to-user-7");
    }
    for client in &mut others {
        client.subscribe("#server-to-user-77");
    }
    server.publish("#server-to-user-7", "e", "x");
    for client in &mut own {
        client.expect(r##"{"event":"e","data":"x","channel":"#server-to-user-7"}"##);
    }
    others.iter_mut().for_each(Client::sync);
    let mut member = server.connect();
    member.join("presence-r", r#"{"user_id":7}"#);
    let reply = server.answer(&Request::post("/users/7/terminate_connections", ""));
    assert_eq!(reply, (200, "{}".to_owned()));
    for client in own.iter_mut().chain([&mut member]) {
        client.refused(4009, "Connection terminated by the application");
    }
    others.iter_mut().for_each(Client::sync);
    eventually("only the others are left", || (server.open_connections() == 12).then_some(()));
}

#[test]
fn no_client_event_reaches_the_channel_of_a_user() {
    let refused =
        error_event(4301, "Client events are only accepted on private and presence channels.");
    let event = r##"{"event":"client-x","channel":"#server-to-user-7","data":{}}"##;
    for from in ["all", "members"] {
        let setup = Setup::new().workers(2);
        let setup = setup.env("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", from);
        let server = setup.env("RINGVERB_CLIENT_EVENTS_ON_PUBLIC", "true").start();
        let [mut receiver, mut of_the_user] =
            [(); 2].map(|()| signed_in(&server, &json!({"id": "7"})));
        for client in [&mut receiver, &mut of_the_user] {
            client.subscribe("#server-to-user-7");
        }
        let mut stranger = server.connect();
        stranger.ask(event, &refused);
        of_the_user.ask(event, &refused);
        server.publish("#server-to-user-7", "e", "x");
        receiver.expect(r##"{"event":"e","data":"x","channel":"#server-to-user-7"}"##);
    }
}

#[test]
fn users_that_leave_together_are_sent_once() {
    let server = server();
    let watchlist = json!({"id": "w", "watchlist": ["crowd", "w", "crowd", "nobody"]});
    let mut watcher = signed_in(&server, &watchlist);
    let first = watched(&mut watcher);
    let lists = json!([
        {"name": "online", "user_ids": ["w"]},
        {"name": "offline", "user_ids": ["crowd", "nobody"]},
    ]);
    assert_eq!(first, lists);
    let crowd: Vec<Client> =
        (0..100).map(|_| signed_in(&server, &json!({"id": "crowd"}))).collect();
    assert_eq!(watched(&mut watcher), json!([{"name": "online", "user_ids": ["crowd"]}]));
    drop(crowd);
    assert_eq!(watched(&mut watcher), json!([{"name": "offline", "user_ids": ["crowd"]}]));
    eventually("the crowd is gone", || (server.open_connections() == 1).then_some(()));
    watcher.sync();
}

#[test]
fn a_long_watchlist_is_cut() {
    let server = server();
    let ids: Vec<String> = (0..150).map(|id| format!("user-{id}")).collect();
    let mut watcher = signed_in(&server, &json!({"id": "w", "watchlist": ids}));
    let error = json!({"code": 4302, "message": "The watchlist is too long: the first 100 users are watched"});
    assert_eq!(data(&watcher.event()), error);
    let told = watched(&mut watcher);
    assert_eq!(told[0]["user_ids"].as_array().map(Vec::len), Some(100));
    let _beyond = signed_in(&server, &json!({"id": "user-120"}));
    let _within = signed_in(&server, &json!({"id": "user-99"}));
    assert_eq!(watched(&mut watcher), json!([{"name": "online", "user_ids": ["user-99"]}]));
}

#[test]
fn a_user_that_signs_in_and_disconnects_leaves_no_state() {
    let server = server();
    let mut watcher = signed_in(&server, &json!({"id": "w", "watchlist": ["brief"]}));
    watched(&mut watcher);
    for _ in 0..50 {
        let mut client = server.connect();
        let message = signin(&client, r#"{"id":"brief","watchlist":["w","x"]}"#);
        client.send(&message);
        drop(client);
    }
    // Each was online or was not; in the end no user is.
    let mut last = signed_in(&server, &json!({"id": "brief"}));
    last.subscribe("#server-to-user-brief");
    last.close();
    let mut online = None;
    eventually("the last word is that nobody is there", || {
        watcher.send(crate::support::PING);
        loop {
            let event = watcher.event();
            if event["event"] == "pusher:pong" {
                break;
            }
            let told = data(&event)["events"][0]["name"].clone();
            assert_ne!(online.replace(told.clone()), Some(told), "told twice in a row");
        }
        let alone = server.open_connections() == 1;
        (alone && online == Some(json!("offline"))).then_some(())
    });
}

#[test]
fn user_data_over_its_limit_is_refused_and_the_connection_stays() {
    let server = Setup::new().env("RINGVERB_USER_DATA_SIZE_MAX", "100").start();
    let mut client = server.connect();
    let user_data = json!({"id": "7", "user_info": {"name": "x".repeat(100)}}).to_string();
    let message = signin(&client, &user_data);
    client.ask(&message, &error_event(4301, "The user_data of the sign-in is too large"));
    let message = signin(&client, r#"{"id":"7"}"#);
    client.send(&message);
    assert_eq!(client.event()["event"], "pusher:signin_success");
}
