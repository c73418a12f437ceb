//! A take-over while a client has sent a part of its request only.

use crate::support::{Finished, Request, Setup};

const EVENT: &str = r#"{"name":"e","channels":["news"],"data":"x"}"#;

#[test]
fn a_request_with_a_late_body_is_refused_at_a_take_over_and_can_be_sent_again() {
    let old = Setup::new().workers(2).start();
    let mut late = old.wire();
    let request = Request::events(EVENT).header("Expect", "100-continue").bytes();
    let head_bytes = request.len() - EVENT.len();
    late.send(&request[..head_bytes]);
    // The old process has read the head, so the new one cannot go on with the request.
    assert_eq!(late.head().status, 100);
    late.send(&request[head_bytes..request.len() - 1]);

    let new = Setup::new().workers(1).reaching(&old).arg("--takeover").start_as_configured();
    let Finished { code, stdout, stderr } = old.finish();
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.contains(" cause=take_over "), "{stdout}");
    let reply = late.reply(true);
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.head.header("connection"), Some("close"));
    assert_eq!(reply.head.header("retry-after"), Some("1"));
    assert!(reply.body.contains("was not carried out"), "{}", reply.body);
    new.publish("news", "e", "x");
}
