//! Nodes that share a Redis, and what that Redis shows of them.
//!
//! Owns no process: a test owns the nodes and the Redis. Does not look into a node: all is read from Redis by PUBSUB,
//! or received by clients. Limit: `time::DEADLINE` for each wait. Cost: a command of Redis for each look.

use std::collections::BTreeSet;

use super::{Client, Redis, Server, Setup, eventually, json};

/// What all names in Redis start with, unless a test says otherwise.
pub(crate) const PREFIX: &str = "reverb";

/// Nodes with so many workers each, whose connections to this Redis are up.
pub(crate) fn nodes<const N: usize>(redis: &Redis, workers: [u16; N]) -> [Server; N] {
    nodes_with(redis, workers, |setup| setup)
}

/// `nodes`, with further configuration by `each`.
pub(crate) fn nodes_with<const N: usize>(
    redis: &Redis,
    workers: [u16; N],
    each: impl Fn(Setup) -> Setup,
) -> [Server; N] {
    let before = redis_connections(redis);
    let node = |count| each(Setup::new().workers(count).meeting_in(redis)).start();
    let nodes = workers.map(node);
    redis_connections_are(
        redis,
        before + workers.iter().map(|count| usize::from(*count)).sum::<usize>(),
    );
    nodes
}

/// Waits until so many workers of all nodes are connected to Redis.
pub(crate) fn redis_connections_are(redis: &Redis, count: usize) {
    eventually("each worker has its Redis connection", || {
        (redis_connections(redis) == count).then_some(())
    });
}

fn redis_connections(redis: &Redis) -> usize {
    subscribers_of(redis, &format!("{PREFIX}:rv1:all"))
}

/// The topic of a channel of the tests' app (docs/CLUSTER.md).
pub(crate) fn topic_of(channel: &str) -> String {
    format!("{PREFIX}:rv1:c:{}:{channel}", super::APP_ID)
}

/// How many Redis connections are subscribed to a topic.
pub(crate) fn subscribers_of(redis: &Redis, topic: &str) -> usize {
    let reply = redis.command(&["PUBSUB", "NUMSUB", topic]);
    let count = reply.trim_end().rsplit_once(':').expect("a number behind the name").1;
    count.parse().expect("a number")
}

/// How many nodes are subscribed to a channel's topic.
pub(crate) fn subscribed_nodes(redis: &Redis, channel: &str) -> usize {
    subscribers_of(redis, &topic_of(channel))
}

pub(crate) fn topics(redis: &Redis) -> BTreeSet<String> {
    let reply = redis.command(&["PUBSUB", "CHANNELS"]);
    let names = reply.lines().filter(|line| !line.starts_with(['*', '$']));
    names.map(str::to_owned).collect()
}

/// `topics` without those of sessions.
pub(crate) fn channel_topics(redis: &Redis) -> BTreeSet<String> {
    topics(redis).into_iter().filter(|name| name.contains(":rv1:c:")).collect()
}

/// A `presence-r` event as it is sent to the others.
pub(crate) fn member_added(channel_data: &str) -> String {
    let data = serde_json::Value::from(channel_data);
    format!(r#"{{"event":"pusher_internal:member_added","data":{data},"channel":"presence-r"}}"#)
}

/// `member_removed` of `presence-r`; `id` as JSON.
pub(crate) fn member_removed(id: &str) -> String {
    let data = serde_json::Value::from(format!(r#"{{"user_id":{id}}}"#));
    format!(r#"{{"event":"pusher_internal:member_removed","data":{data},"channel":"presence-r"}}"#)
}

/// `channel_data` of a user without further properties.
pub(crate) fn user(id: impl std::fmt::Display) -> String {
    format!(r#"{{"user_id":"{id}","user_info":{{"name":"user {id}"}}}}"#)
}

/// Ids of a roster, sorted.
pub(crate) fn ids(roster: &serde_json::Value) -> Vec<String> {
    let list = roster["ids"].as_array().expect("ids");
    let mut ids: Vec<String> =
        list.iter().map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned)).collect();
    ids.sort_unstable();
    assert_eq!(roster["count"].to_string(), ids.len().to_string(), "{roster}");
    assert_eq!(roster["hash"].as_object().map(serde_json::Map::len), Some(ids.len()), "{roster}");
    ids
}

/// Users of a presence channel by the HTTP API, sorted; none if there is no such channel.
pub(crate) fn users(server: &Server, channel: &str) -> Vec<String> {
    let (status, body) = server.answer(&super::Request::get(&format!("/channels/{channel}/users")));
    if status == 404 {
        return Vec::new();
    }
    assert_eq!(status, 200, "{body}");
    let list = json(&body)["users"].clone();
    let id = |user: &serde_json::Value| user["id"].as_str().expect("an id as text").to_owned();
    let mut ids: Vec<String> = list.as_array().expect("a list").iter().map(id).collect();
    ids.sort_unstable();
    ids
}

/// An event on a channel, as subscribers get it.
pub(crate) fn event(channel: &str, name: &str, data: &str) -> String {
    let [name, data, channel] = [name, data, channel].map(serde_json::Value::from);
    format!(r#"{{"event":{name},"data":{data},"channel":{channel}}}"#)
}

/// A connection that is signed in; the events of its watchlist follow.
pub(crate) fn signed_in(server: &Server, user_data: &serde_json::Value) -> Client {
    let mut client = server.connect();
    let user_data = user_data.to_string();
    let auth = super::sign(&[&client.socket_id, "::user::", &user_data]);
    let data = serde_json::json!({ "auth": format!("app-key:{auth}"), "user_data": user_data });
    client.send(&serde_json::json!({ "event": "pusher:signin", "data": data }).to_string());
    let data = serde_json::json!({ "user_data": user_data });
    let answer = serde_json::json!({ "event": "pusher:signin_success", "data": data });
    assert_eq!(client.event(), answer);
    client
}

/// The next event that a client that watches receives.
pub(crate) fn watched(client: &mut Client) -> serde_json::Value {
    let event = client.event();
    assert_eq!(event["event"], "pusher_internal:watchlist_events", "{event}");
    super::data(&event)["events"].clone()
}
