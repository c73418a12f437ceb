//! Limits of an app for names, payloads and rates.

use super::{answer, run_for, signed};
use crate::api::Plan;
use crate::app::{Apps, sample};
use crate::http1::response::Response;

pub(super) fn post_to(apps: &Apps, path: &str, body: &str) -> Plan {
    let path = format!("/apps/1001/{path}");
    run_for(apps, &signed("POST", &path, &path, &[], body), "")
}

#[test]
fn an_app_may_bound_names_and_payloads() {
    let mut app = sample();
    app.channel_name_length_max = 164;
    app.channel_names_are_pushers = true;
    app.event_payload_max = Some(4);
    let apps = Apps::new(vec![app]);
    let event = |channel: &str, data: &str| {
        format!(r#"{{"name":"e","channels":["{channel}"],"data":"{data}"}}"#)
    };
    assert!(matches!(
        post_to(&apps, "events", &event(&"c".repeat(164), "1234")),
        Plan::Publish { .. }
    ));
    assert_eq!(
        answer(&post_to(&apps, "events", &event(&"c".repeat(165), "1"))),
        (
            422,
            r#"{"channels.0":["The channels.0 field must not be greater than 164 characters."]}"#
                .to_owned()
        )
    );
    let (status, text) = answer(&post_to(&apps, "events", &event("a b", "1")));
    assert!(status == 422 && text.contains("must only contain letters"), "{text}");
    let (status, text) = answer(&post_to(&apps, "events", &event("a", "12345")));
    assert!(status == 413 && text.contains("has 5 bytes, 4 are allowed"), "{text}");
    let batch = r#"{"batch":[{"name":"e","channel":"a","data":"1"},{"name":"e","channel":"a","data":"12345"}]}"#;
    assert_eq!(answer(&post_to(&apps, "batch_events", batch)).0, 413);
}

#[test]
fn an_app_may_publish_so_much_a_second() {
    let mut app = sample();
    app.publishes_per_second_max = Some(3);
    let apps = Apps::new(vec![app]);
    let Plan::Publish { quota: Some(quota), .. } =
        post_to(&apps, "events", r#"{"name":"e","channels":["a","b"],"data":"1"}"#)
    else {
        panic!("accepted")
    };
    let answer_with_quota = quota.add_to(Response::json(200, b"{}".to_vec()));
    assert_eq!(
        answer_with_quota.header_fields,
        [("X-RateLimit-Limit", "3".to_owned()), ("X-RateLimit-Remaining", "1".to_owned())]
    );
    let batch = r#"{"batch":[{"name":"e","channel":"a","data":"1"},{"name":"e","channel":"a","data":"2"}]}"#;
    let Plan::Refuse(denied) = post_to(&apps, "batch_events", batch) else { panic!("refused") };
    let refused = denied.response;
    assert_eq!(refused.status, 429);
    assert!(
        refused.header_fields.contains(&("Retry-After", "1".to_owned())),
        "{:?}",
        refused.header_fields
    );
    assert!(matches!(
        post_to(&apps, "events", r#"{"name":"e","channel":"a","data":"1"}"#),
        Plan::Publish { .. }
    ));
}
