//! What one signed request may become, and that its cost grows with its length.

use super::limits::post_to;
use super::*;
use crate::api::render;
use crate::shard::{Answer, Described, Question};

fn event_for(channels: &[String], data: &str, more: &str) -> String {
    let channels = serde_json::to_string(channels).unwrap();
    format!(r#"{{"name":"e","channels":{channels},"data":"{data}"{more}}}"#)
}

fn many_channels(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("c{number:05}")).collect()
}

#[test]
fn an_event_for_twenty_times_the_channels_costs_about_twenty_times_as_much() {
    let cost = |count: usize| {
        let body = event_for(&many_channels(count), "x", r#","info":"subscription_count""#);
        let request = signed("POST", "/apps/1001/events", "/apps/1001/events", &[], &body);
        let apps = apps();
        crate::clock::fastest(3, || {
            let Plan::Publish { publications, info: Some(_), reply, .. } =
                run_for(&apps, &request, "")
            else {
                panic!("accepted")
            };
            assert_eq!(publications.len(), count);
            let parts = vec![Described::default(); count];
            assert_eq!(render(&reply, vec![Answer::Described(parts)]).status, 200);
        })
    };
    let (small, large) = (cost(700), cost(14_000));
    assert!(large < small * 60, "{large:?} against {small:?}");
}

#[test]
fn a_channel_that_is_named_twice_gets_two_events_and_is_described_once() {
    let names = ["a", "b", "a"].map(str::to_owned);
    let body = event_for(&names, "x", r#","info":"subscription_count""#);
    let Plan::Publish { publications, info: Some(Question::Describe { names, .. }), reply, .. } =
        post("events", &body)
    else {
        panic!("accepted")
    };
    let published: Vec<&str> = publications.iter().map(|one| &*one.channel).collect();
    assert_eq!(published, ["a", "b", "a"]);
    assert_eq!(names, ["a", "b"]);
    let part = |subscription_count| Described { subscription_count, ..Described::default() };
    let answer = render(&reply, vec![Answer::Described(vec![part(1), part(2)])]);
    assert_eq!(
        shown(&answer).1,
        r#"{"channels":{"a":{"subscription_count":1},"b":{"subscription_count":2}}}"#
    );
}

#[test]
fn an_app_may_bound_the_channels_of_an_event() {
    let mut app = sample();
    app.event_channels_max = Some(100);
    let apps = Apps::new(vec![app]);
    let publish = |count| post_to(&apps, "events", &event_for(&many_channels(count), "x", ""));
    assert!(matches!(publish(100), Plan::Publish { .. }));
    let expected = r#"{"channels":["The channels field must not have more than 100 items."]}"#;
    assert_eq!(answer(&publish(101)), (422, expected.to_owned()));
}

#[test]
fn an_app_may_bound_the_characters_of_an_event_name() {
    let mut app = sample();
    app.event_name_length_max = Some(200);
    let apps = Apps::new(vec![app]);
    let event = |name: &str| format!(r#"{{"name":"{name}","channel":"c","data":"x"}}"#);
    let batch = |name: &str| format!(r#"{{"batch":[{}]}}"#, event(name));
    // Escaped or not, a character is one.
    for name in ["é".repeat(200), "\\u00e9".repeat(200), "x".repeat(200)] {
        assert!(matches!(post_to(&apps, "events", &event(&name)), Plan::Publish { .. }), "{name}");
        let batch = batch(&name);
        assert!(matches!(post_to(&apps, "batch_events", &batch), Plan::Publish { .. }), "{name}");
    }
    for name in ["é".repeat(201), "\\u00e9".repeat(201), "x".repeat(10_000)] {
        let expected = r#"{"name":["The name field must not be greater than 200 characters."]}"#;
        assert_eq!(answer(&post_to(&apps, "events", &event(&name))), (422, expected.to_owned()));
        let (status, text) = answer(&post_to(&apps, "batch_events", &batch(&name)));
        assert!(status == 422 && text.contains("batch.0.name"), "{text}");
    }
    assert!(matches!(post("events", &event(&"x".repeat(1_000))), Plan::Publish { .. }));
}

#[test]
fn a_disabled_app_refuses_signed_requests_only_with_403() {
    let mut app = sample();
    app.is_enabled = false;
    let apps = Apps::new(vec![app]);
    let event = event_for(&["c".to_owned()], "x", "");
    for path in ["events", "batch_events"] {
        let expected = (403, "Application disabled.".to_owned());
        assert_eq!(answer(&post_to(&apps, path, &event)), expected);
    }
    let unsigned = request("GET /apps/1001/channels HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(answer(&run_for(&apps, &unsigned, "")).0, 401);
}

#[test]
fn the_expansion_of_one_request_is_bounded() {
    // 34,100 bytes of data for 490 channels fit into 16 MiB, for 500 they do not.
    let body = |count| event_for(&many_channels(count), &"x".repeat(34_100), "");
    assert!(body(500).len() < 40_000);
    assert!(matches!(post("events", &body(490)), Plan::Publish { .. }));
    let (status, text) = answer(&post("events", &body(500)));
    assert!(status == 413 && text.contains("500 channels") && text.contains("16777216"), "{text}");
}

#[test]
fn an_answer_lists_the_first_hundred_problems() {
    let mut app = sample();
    app.batch_events_max = None;
    let apps = Apps::new(vec![app]);
    let batch = format!(r#"{{"batch":[{}{{}}]}}"#, "{},".repeat(3_000));
    let channels = format!(r#"{{"name":"e","data":"x","channels":[{}1]}}"#, "1,".repeat(3_000));
    for (path, body) in [("batch_events", batch), ("events", channels)] {
        let (status, text) = answer(&post_to(&apps, path, &body));
        let listed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, listed.as_object().unwrap().len()), (422, 100), "{path}");
    }
}

#[test]
fn names_that_are_signed_have_no_colon() {
    let event = |channel: &str| event_for(&[channel.to_owned()], "x", "");
    for channel in ["private-a:b", "presence-a:b", "private-encrypted-:", "private-cache-a:{}"] {
        let (status, text) = answer(&post("events", &event(channel)));
        assert!(status == 422 && text.contains("must not contain a colon"), "{channel}: {text}");
    }
    for channel in ["a:b", "cache-a:b", "#server-to-user-a:b"] {
        assert!(matches!(post("events", &event(channel)), Plan::Publish { .. }), "{channel}");
    }
}
