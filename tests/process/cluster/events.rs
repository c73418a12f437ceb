//! Several nodes that meet in a real Redis (docs/PROTOCOL.md section C11). Needs `redis-server` or `valkey-server`.

use std::io::ErrorKind;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::cluster::{
    channel_topics, event, nodes, redis_connections_are, signed_in, subscribed_nodes,
    subscribers_of, user,
};
use crate::support::{
    Client, DEADLINE, Handshake, Http, Redis, Request, Server, Setup, eventually, json as parse,
};
use serde_json::json;

/// The app next to that of the tests, where there are two.
const TWO_APPS: &str = r#"
    [[apps]]
    id = "1001"
    key = "app-key"
    secret = "app-secret"
    [[apps]]
    id = "1002"
    key = "second"
    secret = "app-secret"
"#;

pub(super) fn publish(server: &Server, body: &serde_json::Value) {
    let reply = server.answer(&Request::events(&body.to_string()));
    assert_eq!(reply, (200, "{}".to_owned()), "{body}");
}

#[test]
fn a_redis_of_the_tests_restarts_on_its_port() {
    let mut redis = Redis::start();
    let port = redis.port();
    assert_eq!(redis.command(&["SET", "name", "two words"]), "+OK\r\n");
    assert_eq!(redis.command(&["GET", "name"]), "$9\r\ntwo words\r\n");
    assert_eq!(redis.command(&["PUBSUB", "NUMSUB", "x"]), "*2\r\n$1\r\nx\r\n:0\r\n");
    assert!(redis.command(&["NONSENSE"]).starts_with("-ERR unknown command"));
    redis.stop();
    let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    redis.restart();
    assert_eq!(redis.port(), port);
    assert_eq!(redis.command(&["GET", "name"]), "$-1\r\n");
    redis.restart();
    assert_eq!(redis.command(&["PING"]), "+PONG\r\n");
}

#[test]
fn a_redis_of_the_tests_pauses_and_resumes() {
    let redis = Redis::start();
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).expect("it listens");
    redis.pause();
    stream.write_all(b"PING\r\n").expect("a connection");
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("SO_RCVTIMEO");
    let silence = stream.read(&mut [0; 16]).expect_err("it is stopped");
    assert_eq!(silence.kind(), ErrorKind::WouldBlock);
    redis.go_on();
    stream.set_read_timeout(Some(DEADLINE)).expect("SO_RCVTIMEO");
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).expect("an answer");
    assert_eq!(&reply, b"+PONG\r\n");
}

#[test]
fn the_start_message_names_redis() {
    let redis = Redis::with_password("hunter2");
    assert_eq!(redis.command(&["PING"]), "+PONG\r\n");
    let mut stranger = TcpStream::connect(("127.0.0.1", redis.port())).expect("it listens");
    stranger.write_all(b"PING\r\nQUIT\r\n").expect("a connection");
    let mut reply = String::new();
    stranger.read_to_string(&mut reply).expect("an answer");
    assert!(reply.starts_with("-NOAUTH"), "{reply}");
    let mut server = Setup::new().meeting_in(&redis).start();
    let line = server.line_with("  scaling  ");
    assert_eq!(line, format!("  scaling  redis 127.0.0.1:{}, prefix reverb", redis.port()));
    assert!(!server.stdout().contains("hunter2"), "{}", server.stdout());
    server.stop();
}

#[test]
fn a_node_subscribes_to_the_topics_of_its_own_subscribers() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [1, 2]);
    assert!(channel_topics(&redis).is_empty());
    let (mut one, mut two, mut three) = (a.connect(), b.connect(), a.connect());
    one.subscribe("news");
    assert_eq!(subscribed_nodes(&redis, "news"), 1);
    two.subscribe("news");
    assert_eq!(subscribed_nodes(&redis, "news"), 2);
    three.subscribe("news");
    assert_eq!(subscribed_nodes(&redis, "news"), 2);
    one.unsubscribe("news");
    one.sync();
    three.subscribe("private-x");
    assert_eq!(subscribed_nodes(&redis, "news"), 2);
    three.close();
    eventually("node a has let go", || (subscribed_nodes(&redis, "news") == 1).then_some(()));
    eventually("of both", || (subscribed_nodes(&redis, "private-x") == 0).then_some(()));
    drop(two);
    eventually("nobody holds anything", || channel_topics(&redis).is_empty().then_some(()));
}

#[test]
fn events_reach_every_subscriber_once_and_in_order() {
    const EVENTS: usize = 300;
    let redis = Redis::start();
    let nodes = nodes(&redis, [1, 2, 4]);
    let mut clients: Vec<Client> =
        nodes.iter().flat_map(|node| (0..4).map(|_| node.connect())).collect();
    for client in &mut clients {
        client.subscribe("news");
    }
    let mut publishers = nodes.each_ref().map(Http::new);
    for number in 0..EVENTS {
        let data = format!("{}:{number}", number % 3);
        let body = json!({ "name": "e", "channel": "news", "data": data }).to_string();
        assert_eq!(publishers[number % 3].ask(&Request::events(&body)).status, 200);
    }
    for client in &mut clients {
        let mut due = [0, 1, 2];
        for _ in 0..EVENTS {
            let data = client.event()["data"].as_str().expect("a text").to_owned();
            let (node, number) = data.split_once(':').expect("node and number");
            let [node, number] = [node, number].map(|text| text.parse::<usize>().expect("digits"));
            assert_eq!(number, due[node], "of node {node}");
            due[node] += 3;
        }
    }
    // Whatever came twice would have come before these.
    for node in &nodes {
        node.publish("news", "end", "x");
    }
    for client in &mut clients {
        for _ in 0..3 {
            client.expect(&event("news", "end", "x"));
        }
        client.sync();
    }
}

#[test]
fn the_socket_that_is_left_out_is_left_out_on_every_node() {
    let redis = Redis::start();
    let nodes = nodes(&redis, [2, 1, 1]);
    let mut clients = nodes.each_ref().map(Server::connect);
    for client in &mut clients {
        client.subscribe("private-chat");
    }
    for publisher in &nodes {
        for left_out in 0..3 {
            let id = clients[left_out].socket_id.clone();
            let text = format!("not {left_out}");
            publish(
                publisher,
                &json!({ "name": "e", "channel": "private-chat", "data": text, "socket_id": id }),
            );
            let item =
                json!({ "name": "b", "channel": "private-chat", "data": "x", "socket_id": id });
            let batch = json!({ "batch": [item] }).to_string();
            assert_eq!(publisher.answer(&Request::post("/batch_events", &batch)).0, 200);
            publisher.publish("private-chat", "all", "x");
            for (index, client) in clients.iter_mut().enumerate() {
                if index != left_out {
                    client.expect(&event("private-chat", "e", &text));
                    client.expect(&event("private-chat", "b", "x"));
                }
                client.expect(&event("private-chat", "all", "x"));
            }
        }
    }
}

#[test]
fn client_events_reach_the_others_on_every_node() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [2, 2]);
    let mut clients = [a.connect(), a.connect(), b.connect(), b.connect()];
    for channel in ["private-chat", "presence-chat"] {
        for (index, client) in clients.iter_mut().enumerate() {
            match channel {
                "private-chat" => client.subscribe(channel),
                _ => drop(client.join(channel, &user(index))),
            }
        }
    }
    for (index, client) in clients.iter_mut().enumerate() {
        for _ in index + 1..4 {
            assert_eq!(client.event()["event"], "pusher_internal:member_added");
        }
    }
    for sender in 0..4 {
        let data = json!({ "from": sender, "text": "ä\\/\u{1f600}" });
        for channel in ["private-chat", "presence-chat"] {
            let sent = json!({ "event": "client-typing", "channel": channel, "data": data });
            clients[sender].send(&sent.to_string());
            let mut due = sent;
            if channel == "presence-chat" {
                due["user_id"] = sender.to_string().into();
            }
            for client in clients.iter_mut().enumerate().filter(|(index, _)| *index != sender) {
                assert_eq!(client.1.event(), due);
            }
        }
        clients[sender].sync();
    }
}

#[test]
fn every_kind_of_channel_and_of_publishing() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [2, 1]);
    let mut client = b.connect();
    let long_name = "n".repeat(200);
    let names = ["news", "private-x", "private-encrypted-v", "a-_=@,.;1", &long_name];
    for name in names {
        client.subscribe(name);
    }
    // Nothing between here and the client reads what is in it.
    let sealed = r#"{"nonce":"9Q4=","ciphertext":"\u00e4 / \\ AAAA=="}"#;
    let body = json!({ "name": "App\\Events\\E", "channels": names, "data": sealed });
    publish(&a, &body);
    // Channels have no order among each other.
    let mut next = |name: &str, text: &str| {
        let mut due = names.map(|channel| event(channel, name, text));
        let mut got = names.map(|_| client.text());
        due.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, due);
    };
    next("App\\Events\\E", sealed);
    let long_text = "ä".repeat(800);
    let batch: Vec<_> =
        names.map(|channel| json!({ "name": "b", "channel": channel, "data": long_text })).into();
    let batch = json!({ "batch": batch }).to_string();
    assert_eq!(a.answer(&Request::post("/batch_events", &batch)).0, 200);
    next("b", &long_text);
    client.sync();
}

#[test]
fn a_subscriber_misses_no_event_after_its_acknowledgement() {
    let redis = Redis::start();
    let nodes = nodes(&redis, [2, 1, 2]);
    let mut publishers = nodes.each_ref().map(Http::new);
    for round in 0..60 {
        // The first on its node, and now and then of the cluster; on a fresh channel and on one that was just left.
        let channel = format!("news-{}", round % 7);
        let mut client = nodes[round % 3].connect();
        client.subscribe(&channel);
        for (index, publisher) in publishers.iter_mut().enumerate() {
            let data = format!("{round} {index}");
            let body = json!({ "name": "e", "channel": channel, "data": data }).to_string();
            assert_eq!(publisher.ask(&Request::events(&body)).status, 200);
        }
        let mut got: Vec<String> = (0..3).map(|_| client.text()).collect();
        got.sort_unstable();
        let due = [0, 1, 2].map(|index| event(&channel, "e", &format!("{round} {index}")));
        assert_eq!(got, due);
    }
}

#[test]
fn the_last_event_of_a_cache_channel_outlives_its_node() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [2, 1]);
    let miss = |channel: &str| format!(r#"{{"event":"pusher:cache_miss","channel":"{channel}"}}"#);
    let mut early = b.connect();
    for channel in ["cache-x", "private-cache-x"] {
        early.subscribe(channel);
        early.expect(&miss(channel));
        for (node, data) in [(&a, "1"), (&b, "2"), (&a, "3"), (&a, "4")] {
            node.publish(channel, "e", data);
            early.expect(&event(channel, "e", data));
        }
    }
    early.close();
    for node in [&a, &b] {
        let mut late = node.connect();
        for channel in ["cache-x", "private-cache-x"] {
            late.subscribe(channel);
            late.expect(&event(channel, "e", "4"));
        }
        late.subscribe("cache-y");
        late.expect(&miss("cache-y"));
        late.sync();
    }
    a.stop();
    drop(b);
    redis_connections_are(&redis, 0);
    let [c] = nodes(&redis, [4]);
    let mut late = c.connect();
    late.subscribe("cache-x");
    late.expect(&event("cache-x", "e", "4"));
    let body = c.ask(&Request::get("/channels/cache-x").query("info", "cache")).body;
    assert!(body.contains(r#""event":"e""#) || body.contains(r#"\"event\":\"e\""#), "{body}");
}

#[test]
fn users_are_reached_and_ended_on_every_node() {
    let redis = Redis::start();
    let nodes = nodes(&redis, [1, 2, 2]);
    let mut own: Vec<Client> =
        nodes.iter().map(|node| signed_in(node, &json!({ "id": "7" }))).collect();
    let mut other = signed_in(&nodes[1], &json!({ "id": "8" }));
    other.subscribe("#server-to-user-8");
    for client in &mut own {
        client.subscribe("#server-to-user-7");
    }
    for (index, node) in nodes.iter().enumerate() {
        node.publish("#server-to-user-7", "e", &index.to_string());
        for client in &mut own {
            client.expect(&event("#server-to-user-7", "e", &index.to_string()));
        }
    }
    // A connection that is in a presence channel as that user is meant, too.
    let mut member = nodes[2].connect();
    member.join("presence-r", &user(7));
    let reply = nodes[0].answer(&Request::post("/users/7/terminate_connections", ""));
    assert_eq!(reply, (200, "{}".to_owned()));
    for client in own.iter_mut().chain([&mut member]) {
        client.refused(4009, "Connection terminated by the application");
    }
    nodes[2].publish("#server-to-user-8", "e", "x");
    other.expect(&event("#server-to-user-8", "e", "x"));
    other.sync();
}

#[test]
fn the_http_api_speaks_for_all_nodes() {
    let redis = Redis::start();
    let nodes = nodes(&redis, [1, 2, 4]);
    let counts = Request::get("/channels").query("info", "subscription_count,user_count");
    let mut clients: Vec<Client> =
        nodes.iter().flat_map(|node| (0..3).map(|_| node.connect())).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.subscribe("news");
        // Each user is on every node.
        client.join("presence-r", &user(index % 3));
    }
    let mut lone = nodes[2].connect();
    lone.subscribe("only.there");
    let presence = Request::get("/channels").query("filter_by_prefix", "presence-");
    for node in &nodes {
        assert_eq!(
            parse(&node.ask(&counts).body),
            json!({ "channels": {
                "news": { "subscription_count": 9 },
                "only.there": { "subscription_count": 1 },
                "presence-r": { "user_count": 3 },
            } })
        );
        let reply = node.ask(&presence.clone().query("info", "user_count"));
        assert_eq!(
            parse(&reply.body),
            json!({ "channels": { "presence-r": { "user_count": 3 } } })
        );
        assert_eq!(node.open_connections(), 10);
        let one = |name: &str, info: &str| {
            parse(&node.ask(&Request::get(&format!("/channels/{name}")).query("info", info)).body)
        };
        let all = "subscription_count,user_count";
        assert_eq!(one("news", all), json!({ "occupied": true, "subscription_count": 9 }));
        assert_eq!(one("only.there", "user_count"), json!({ "occupied": true }));
        assert_eq!(one("presence-r", all), json!({ "occupied": true, "user_count": 3 }));
        assert_eq!(one("nobody", "user_count"), json!({ "occupied": false }));
        assert_eq!(crate::support::cluster::users(node, "presence-r"), ["0", "1", "2"]);
        assert_eq!(node.answer(&Request::get("/channels/presence-q/users")).0, 404);
        let body =
            json!({ "name": "e", "channels": ["news", "presence-r"], "data": "x", "info": all });
        let reply = node.answer(&Request::events(&body.to_string()));
        let due = json!({ "channels": {
            "news": { "subscription_count": 9 }, "presence-r": { "user_count": 3 },
        } });
        assert_eq!((reply.0, parse(&reply.1)), (200, due));
    }
}

#[test]
fn events_of_an_app_do_not_reach_another_app_of_the_cluster() {
    let redis = Redis::start();
    let setup = |workers| Setup::bare().workers(workers).meeting_in(&redis);
    let [a, b] = [1, 2].map(|workers| setup(workers).file("ringverb.toml", TWO_APPS).start());
    // It knows one of them only.
    let c = Setup::new().workers(1).meeting_in(&redis).start();
    redis_connections_are(&redis, 4);
    let of_second = |server: &Server| {
        Client::open(server, &Handshake::to("/app/second?protocol=7")).established()
    };
    let (mut first, mut second, mut third) = (b.connect(), of_second(&b), c.connect());
    for client in [&mut first, &mut second, &mut third] {
        client.subscribe("news");
        client.subscribe("cache-x");
        assert_eq!(client.event()["event"], "pusher:cache_miss");
    }
    for channel in ["news", "cache-x"] {
        a.publish(channel, "e", "of the first");
        let body = json!({ "name": "e", "channel": channel, "data": "of the second" }).to_string();
        let request = Request::to("POST", "/apps/1002/events").query("auth_key", "second");
        assert_eq!(a.answer(&request.body(body.as_bytes())), (200, "{}".to_owned()));
        first.expect(&event(channel, "e", "of the first"));
        third.expect(&event(channel, "e", "of the first"));
        second.expect(&event(channel, "e", "of the second"));
    }
    let info = Request::to("GET", "/apps/1002/channels").query("auth_key", "second");
    for node in [&a, &b] {
        let body = node.ask(&info.clone().query("info", "subscription_count")).body;
        assert!(body.contains(r#""news":{"subscription_count":1}"#), "{body}");
        assert_eq!(node.open_connections(), 2);
    }
    let reply = a.answer(&Request::post("/users/7/terminate_connections", ""));
    assert_eq!(reply.0, 200);
    [first, second, third].iter_mut().for_each(Client::sync);
}

#[test]
fn events_of_a_cluster_do_not_reach_one_with_another_prefix() {
    let redis = Redis::start();
    let [a] = nodes(&redis, [1]);
    let other = |_: u16| {
        let setup = Setup::new().workers(1).meeting_in(&redis);
        setup.env("REVERB_SCALING_CHANNEL", "reverb:rv1:c:1001").start()
    };
    let others = [0, 1].map(other);
    let mut client = a.connect();
    client.join("presence-r", &user(1));
    client.subscribe("news");
    client.subscribe("cache-x");
    client.expect(r#"{"event":"pusher:cache_miss","channel":"cache-x"}"#);
    let mut theirs = others[0].connect();
    eventually("the others have met", || {
        (subscribers_of(&redis, "reverb%3Arv1%3Ac%3A1001:rv1:all") == 2).then_some(())
    });
    theirs.subscribe("news");
    others[1].publish("news", "theirs", "x");
    theirs.expect(&event("news", "theirs", "x"));
    assert_eq!(theirs.join("presence-r", &user(2))["count"].to_string(), "1");
    others[1].publish("cache-x", "e", "x");
    for channel in ["presence-r", "news", "cache-x"] {
        a.publish(channel, "end", "x");
        client.expect(&event(channel, "end", "x"));
    }
    theirs.sync();
    assert_eq!(a.open_connections(), 1);
}
