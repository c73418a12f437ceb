//! Answers of several cores are added up, and users and connections are described.

use super::{answer, get, post, shown};
use crate::api::{Plan, render};
use crate::shard::{AccessTarget, Answer, Described, MessageCounts, Traffic};

#[test]
fn counts_are_added_up() {
    let part =
        |subscription_count, user_count| Described { subscription_count, user_count, cached: None };
    let rendered = |plan: Plan, answers: Vec<Answer>| match plan {
        Plan::Ask { reply, .. } | Plan::Publish { reply, .. } => shown(&render(&reply, answers)).1,
        other => panic!("{other:?}"),
    };
    let info = [("info", "subscription_count,user_count,cache,bogus")];
    let two = || vec![Answer::Described(vec![part(2, 0)]), Answer::Described(vec![part(1, 4)])];
    assert_eq!(
        rendered(get("channels/news", &info), two()),
        r#"{"occupied":true,"subscription_count":3}"#
    );
    assert_eq!(
        rendered(get("channels/presence-r", &info), two()),
        r#"{"occupied":true,"user_count":4}"#
    );
    assert_eq!(
        rendered(get("channels/cache-c", &info), two()),
        r#"{"occupied":true,"subscription_count":3,"cache":null}"#
    );
    assert_eq!(
        rendered(get("channels/none", &[]), vec![Answer::Described(vec![part(0, 0)])]),
        r#"{"occupied":false}"#
    );
    let frame =
        crate::ws::frame::encode_text(br#"{"event":"e","data":"1","channel":"cache-c"}"#).into();
    let cached = Described { subscription_count: 1, user_count: 0, cached: Some((frame, 1799)) };
    assert_eq!(
        rendered(
            get("channels/cache-c", &[("info", "cache")]),
            vec![Answer::Described(vec![cached])]
        ),
        r#"{"occupied":true,"cache":{"event":"e","data":"1","channel":"cache-c","ttl":1799}}"#
    );
    let list = vec![
        Answer::Channels(vec![("news".into(), part(1, 0)), ("presence-r".into(), part(1, 0))]),
        Answer::Channels(vec![
            ("news".into(), part(1, 0)),
            ("presence-r".into(), part(0, 2)),
            ("presence-gone".into(), part(0, 1)),
        ]),
    ];
    assert_eq!(
        rendered(get("channels", &info), list),
        r#"{"channels":{"news":{"subscription_count":2},"presence-r":{"user_count":2}}}"#
    );
    assert_eq!(rendered(get("channels", &[]), Vec::new()), r#"{"channels":{}}"#);
    let body = r#"{"name":"e","channels":["news","none"],"data":"x","info":"subscription_count"}"#;
    let both = vec![Answer::Described(vec![part(1, 0), part(0, 0)])];
    assert_eq!(
        rendered(post("events", body), both),
        r#"{"channels":{"news":{"subscription_count":1},"none":{}}}"#
    );
    let body = "{\"batch\":[{\"name\":\"a\",\"channel\":\"news\",\"data\":\"1\"},\
        {\"name\":\"b\",\"channel\":\"news\",\"data\":\"2\",\"info\":\"subscription_count\"}]}";
    let both = vec![Answer::Described(vec![part(1, 0), part(1, 0)])];
    assert_eq!(
        rendered(post("batch_events", body), both),
        r#"{"batch":[{},{"subscription_count":1}]}"#
    );
    let body = r#"{"batch":[{"name":"a","channel":"news","data":"1"}]}"#;
    assert_eq!(rendered(post("batch_events", body), Vec::new()), r#"{"batch":{}}"#);
}

#[test]
fn users_and_connections_of_all_cores_are_merged() {
    let Plan::Ask { reply, .. } = get("channels/presence-r/users", &[]) else { panic!() };
    let users = vec![Answer::Users(Vec::new()), Answer::Users(vec!["7".into(), "8".into()])];
    assert_eq!(
        shown(&render(&reply, users)),
        (200, r#"{"users":[{"id":"7"},{"id":"8"}]}"#.to_owned())
    );
    assert_eq!(shown(&render(&reply, Vec::new())), (404, "{}".to_owned()));
    assert_eq!(answer(&get("channels/news/users", &[])), (400, "{}".to_owned()));
    // Each node with a subscriber of the channel names all: a user is named once (rule 112).
    let users = vec![Answer::Users(vec!["7".into(), "8".into()]), Answer::Users(vec!["8".into()])];
    assert_eq!(shown(&render(&reply, users)).1, r#"{"users":[{"id":"7"},{"id":"8"}]}"#);
    let Plan::Ask { reply, .. } = get("connections", &[]) else { panic!() };
    let part = |connections, sent, received| {
        Answer::Traffic(Traffic { connections, messages: Some(MessageCounts { sent, received }) })
    };
    let parts = vec![part(2, 10, 1), part(0, 5, 0), part(1, 0, 0)];
    let sum = r#"{"connections":3,"messages_sent":15,"messages_received":1}"#;
    assert_eq!(shown(&render(&reply, parts)), (200, sum.to_owned()));
    // Another node may send any number.
    let parts = vec![part(2, 1, 1), part(u64::MAX, u64::MAX, u64::MAX)];
    let max = u64::MAX;
    let most =
        format!(r#"{{"connections":{max},"messages_sent":{max},"messages_received":{max}}}"#);
    assert_eq!(shown(&render(&reply, parts)), (200, most));
    // An app beyond those that are counted apart.
    let parts = vec![part(2, 1, 1), Answer::Traffic(Traffic { connections: 1, messages: None })];
    assert_eq!(shown(&render(&reply, parts)), (200, r#"{"connections":3}"#.to_owned()));
    let Plan::EndAccess(command) = post("users/7/terminate_connections", "{}") else {
        panic!("a command")
    };
    assert_eq!(command.target, AccessTarget::User("7".into()));
}
