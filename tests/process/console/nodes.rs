//! The admin API over the nodes of a cluster: lists, one connection, and actions, and a node that does not answer.

use rustix::process::Signal;
use serde_json::json;

use super::{AdminClient, JSON, get, post};
use crate::support::{APP_ID, Client, Redis, Server, Setup, eventually, json as parse};

fn two_nodes(redis: &Redis) -> ([Server; 2], [AdminClient; 2]) {
    let setup = || {
        let setup = Setup::new().env("RINGVERB_ADMIN", "127.0.0.1:0");
        setup.env("RINGVERB_DEVELOPMENT", "true").meeting_in(redis).workers(2)
    };
    let mut nodes = [0, 1].map(|_| setup().start());
    let admins = nodes.each_mut().map(AdminClient::of);
    (nodes, admins)
}

#[test]
fn in_a_cluster_lists_and_actions_reach_all_nodes() {
    let redis = Redis::start();
    let (nodes, admins) = two_nodes(&redis);
    let mut clients: Vec<Client> = [0, 0, 1].map(|node: usize| nodes[node].connect()).into();
    clients.iter_mut().for_each(|client| client.subscribe("news"));
    clients[2].subscribe("elsewhere");
    clients[2].join("presence-room", r#"{"user_id":"ada"}"#);
    let other = get(&admins[1], "/api/nodes")["own"].clone();
    let news =
        json!({"name": "news", "subscribers": 2, "users": 0, "all_nodes": 3, "nodes": [other]});
    let page = eventually("the first node has the answer of the second", || {
        let page = get(&admins[0], "/api/channels?sort=subscribers");
        (page["channels"][0] == news).then_some(page)
    });
    let names = page["channels"].as_array().expect("rows").iter().map(|row| row["name"].clone());
    assert_eq!(names.collect::<Vec<_>>(), ["news", "elsewhere", "presence-room"]);
    assert_eq!((&page["total"], &page["subscribers"]), (&json!(3), &json!(5)));
    assert_eq!((&page["nodes"][1]["node"], &page["silent_nodes"]), (&other, &json!([])));
    let found = get(&admins[0], "/api/channels?filter=elsew");
    assert_eq!((&found["channels"][0]["nodes"], &found["total"]), (&json!([other]), &json!(1)));
    let inside = get(&admins[0], "/api/channel?name=news");
    assert_eq!((&inside["subscribers"], &inside["all_nodes"]), (&json!(2), &json!(3)));
    assert_eq!(inside["connections"].as_array().map(Vec::len), Some(3));
    let room = get(&admins[0], "/api/channel?name=presence-room");
    assert_eq!(room["members"][0]["id"], "ada", "only the other node has the channel");
    assert_eq!(get(&admins[1], "/api/channels?filter=nothing")["channels"], json!([]));

    // A connection and a user of the other node.
    let id = clients[2].socket_id.clone();
    for filter in [&id, "ada"] {
        let found = get(&admins[0], &format!("/api/connections?filter={filter}"));
        let row = &found["connections"][0];
        assert_eq!(
            (&row["socket_id"], &row["node"], &found["total"]),
            (&json!(id), &other, &json!(1))
        );
        assert!(row["host"].as_str().is_some_and(|host| !host.is_empty()), "{row}");
    }
    assert_eq!(get(&admins[0], &format!("/api/connections?app={APP_ID}"))["total"], 3);
    let connection = get(&admins[0], &format!("/api/connection?socket_id={id}"));
    assert_eq!((&connection["node"], &connection["app"]), (&other, &json!(APP_ID)));
    assert_eq!(connection["channel_names"], json!(["news", "elsewhere", "presence-room"]));
    let peer = clients[2].wire.stream.local_addr().expect("an address").to_string();
    assert_eq!(connection["address"], peer);
    let end = json!({"socket_id": id, "channel": "elsewhere"});
    assert_eq!(post(&admins[0], "/api/unsubscribe", &end, JSON).status, 200);
    assert_eq!(clients[2].event()["event"], "pusher:subscription_error");
    let again = post(&admins[0], "/api/unsubscribe", &end, JSON);
    assert_eq!((again.status, again.body.contains("is not subscribed")), (404, true));
    let end = json!({"socket_id": id});
    let ended = post(&admins[0], "/api/disconnect", &end, JSON);
    assert_eq!((ended.status, &parse(&ended.body)["node"]), (200, &other));
    assert_eq!(clients[2].close_code_behind_events(), 4009);
    let gone = post(&admins[0], "/api/disconnect", &end, JSON);
    assert_eq!((gone.status, gone.body.contains("on any node")), (404, true), "{}", gone.body);
}

#[test]
fn a_node_that_does_not_answer_an_operator_is_named() {
    let redis = Redis::start();
    let (nodes, admins) = two_nodes(&redis);
    let mut own = nodes[0].connect();
    let mut theirs = nodes[1].connect();
    own.subscribe("news");
    theirs.subscribe("news");
    let other = get(&admins[1], "/api/nodes")["own"].clone();
    eventually("the first node sees the second", || {
        (get(&admins[0], "/api/connections")["total"] == 2).then_some(())
    });
    nodes[1].pause();
    let page = get(&admins[0], "/api/channels");
    assert_eq!((&page["silent_nodes"][0]["node"], &page["total"]), (&other, &json!(1)));
    assert_eq!(page["channels"][0]["all_nodes"], 1, "its own subscriber is there");
    let found = get(&admins[0], "/api/connections");
    assert_eq!((&found["silent_nodes"][0]["node"], &found["total"]), (&other, &json!(1)));
    let body = json!({"socket_id": theirs.socket_id});
    let ended = post(&admins[0], "/api/disconnect", &body, JSON);
    let names_it = other.as_str().is_some_and(|node| ended.body.contains(node));
    assert_eq!((ended.status, names_it), (503, true), "{}", ended.body);
    nodes[1].signal(Signal::CONT);
    // It receives the action after its deadline. The operator was answered without it, so the connection stays.
    eventually("the second node refuses the late action", || {
        let metrics = admins[1].get("/metrics").body;
        let refused = |line: &str| {
            line.starts_with("ringverb_operator_orders_refused_total{") && !line.ends_with(" 0")
        };
        (metrics.lines().filter(|line| refused(line)).count() == 2).then_some(())
    });
    let page = get(&admins[1], "/api/connections");
    let socket_ids = page["connections"].as_array().expect("rows").iter();
    let mut socket_ids = socket_ids.map(|row| row["socket_id"].clone());
    assert!(socket_ids.any(|socket_id| socket_id == theirs.socket_id.as_str()), "{page}");
}
