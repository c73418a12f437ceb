//! Requests in, plans and answers out: signatures, statuses and texts (docs/PROTOCOL.md C9, C20).

mod authentication;
mod bounds;
mod limits;
mod queries;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::{Plan, RequestContext, plan, target};
use crate::app::{Apps, Secret, sample};
use crate::cause::LineBudget;
use crate::http1::request::{Progress, Request, RequestLimits, RequestReader};
use crate::http1::response::Response;
use crate::metrics::CoreMetrics;
use crate::pusher::json::Validator;
use crate::pusher::signature;

const NOW: u64 = 1_795_455_487;

fn apps() -> Apps {
    let mut app = sample();
    app.connections_open = Arc::new(AtomicU32::new(3));
    app.batch_events_max = Some(3);
    Apps::new(vec![app])
}

fn request(text: &str) -> Request {
    let mut reader = RequestReader::new(RequestLimits { request_size_max: 200_000 });
    match reader.read(&mut text.as_bytes().to_vec()) {
        Ok(Progress::Complete(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn run(request: &Request, prefix: &str) -> Plan {
    run_for(&apps(), request, prefix)
}

fn run_for(apps: &Apps, request: &Request, prefix: &str) -> Plan {
    let mut context = RequestContext {
        apps,
        prefix,
        unix_seconds: NOW,
        draining: false,
        validator: &mut Validator::default(),
        lines: &mut LineBudget::default(),
        verbose_errors: false,
        debug: false,
        metrics: &CoreMetrics::new(1),
    };
    plan(request, &target(request.method(), request.path(), prefix), &mut context)
}

/// Signs as the official libraries do; `path` is what is signed.
fn signed(
    method: &str,
    path: &str,
    signed_path: &str,
    query: &[(&str, &str)],
    body: &str,
) -> Request {
    let mut pairs: Vec<(String, String)> =
        query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for (name, value) in [("auth_key", "app-key"), ("auth_version", "1.0")] {
        pairs.push((name.to_owned(), value.to_owned()));
    }
    if !pairs.iter().any(|(name, _)| name == "auth_timestamp") {
        pairs.push(("auth_timestamp".to_owned(), NOW.to_string()));
    }
    if !body.is_empty() {
        pairs.push(("body_md5".to_owned(), signature::body_md5(body.as_bytes())));
    }
    pairs.sort();
    let text: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let text = text.join("&");
    let parts = format!("{method}\n{signed_path}\n{text}");
    let hex = signature::sign(&Secret::new("app-secret"), &[parts.as_bytes()]);
    let hex = String::from_utf8_lossy(&hex).into_owned();
    let length = body.len();
    request(&format!(
        "{method} {path}?{text}&auth_signature={hex} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
}

fn post(path: &str, body: &str) -> Plan {
    let path = format!("/apps/1001/{path}");
    run(&signed("POST", &path, &path, &[], body), "")
}

fn get(path: &str, query: &[(&str, &str)]) -> Plan {
    let path = format!("/apps/1001/{path}");
    run(&signed("GET", &path, &path, query, ""), "")
}

fn answer(plan: &Plan) -> (u16, String) {
    match plan {
        Plan::Respond(response) => shown(response),
        Plan::Refuse(denied) | Plan::Unauthenticated(denied) => shown(&denied.response),
        other => panic!("{other:?}"),
    }
}

fn shown(response: &Response) -> (u16, String) {
    (response.status, String::from_utf8(response.body.clone()).unwrap())
}

#[test]
fn recorded_laravel_requests_are_understood() {
    let text = "POST /apps/1001/events?auth_key=app-key&auth_timestamp=1795455487&auth_version=1.0\
        &body_md5=27e75a49a628f1443081d1c5b1ddfa07\
        &auth_signature=c6457c408fe1bae3868aab47f1b98b4cedd7052e54cdb154b24e68fcba914570 HTTP/1.1\r\n\
        Host: 127.0.0.1:9055\r\nUser-Agent: GuzzleHttp/7\r\nContent-Type: application/json\r\n\
        X-Pusher-Library: pusher-http-php 7.2.6\r\nContent-Length: 101\r\n\r\n\
        {\"name\":\"App\\\\Events\\\\ArticlePublished\",\"data\":\"{\\\"title\\\":\\\"Hello\\\"}\",\
        \"channels\":[\"news\",\"archive\"]}";
    let Plan::Publish { publications, info: None, .. } = run(&request(text), "") else { panic!() };
    let channels: Vec<&str> = publications.iter().map(|one| &*one.channel).collect();
    assert_eq!(channels, ["news", "archive"]);
    let expected = r#"{"event":"App\\Events\\ArticlePublished","data":"{\"title\":\"Hello\"}","channel":"news"}"#;
    assert!(publications[0].frame.ends_with(expected.as_bytes()));
}

#[test]
fn data_is_passed_on_byte_for_byte() {
    let body = r#"{"name":"e\/\u0041","channel":"news","data":"{\"a\":\"\u00e9 \/ 1.0\"}","socket_id":"1.2"}"#;
    let Plan::Publish { publications, .. } = post("events", body) else { panic!() };
    let expected = r#"{"event":"e\/\u0041","data":"{\"a\":\"\u00e9 \/ 1.0\"}","channel":"news"}"#;
    assert!(publications[0].frame.ends_with(expected.as_bytes()));
    assert_eq!(publications[0].excluded_socket_id.unwrap().to_string(), "1.2");
}

#[test]
fn validation_speaks_laravels_words() {
    let channel_required = "\"channels\":[\"The channels field is required when channel is not present.\"],\
        \"channel\":[\"The channel field is required when channels is not present.\"]";
    let all_required = format!(
        "{{\"name\":[\"The name field is required.\"],\"data\":[\"The data field is required.\"],{channel_required}}}"
    );
    let cases = [
        ("{}", all_required.clone()),
        ("[]", all_required),
        (
            r#"{"name":"e","channel":"news"}"#,
            r#"{"data":["The data field is required."]}"#.to_owned(),
        ),
        (
            r#"{"name":"e","channel":"news","data":""}"#,
            r#"{"data":["The data field is required."]}"#.to_owned(),
        ),
        (
            r#"{"name":"e","channel":"news","data":{"a":1}}"#,
            r#"{"data":["The data field must be a string."]}"#.to_owned(),
        ),
        (
            r#"{"name":"","channel":"news","data":"x"}"#,
            r#"{"name":["The name field is required."]}"#.to_owned(),
        ),
        (r#"{"name":"e","channel":"","data":"x"}"#, format!("{{{channel_required}}}")),
        (r#"{"name":"e","channels":[],"data":"x"}"#, format!("{{{channel_required}}}")),
        (
            r#"{"name":"e","channels":"news","data":"x"}"#,
            r#"{"channels":["The channels field must be an array."]}"#.to_owned(),
        ),
        (
            r#"{"name":"e","channel":"news","data":"x","socket_id":5}"#,
            r#"{"socket_id":["The socket id field must be a string."]}"#.to_owned(),
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(answer(&post("events", body)), (422, expected), "{body}");
    }
    let cases = [
        ("{}", r#"{"batch":["The batch field is required."]}"#),
        (r#"{"batch":[]}"#, r#"{"batch":["The batch field is required."]}"#),
        (r#"{"batch":"x"}"#, r#"{"batch":["The batch field must be an array."]}"#),
        (
            r#"{"batch":[1,2,3,4]}"#,
            r#"{"batch":["The batch field must not have more than 3 items."]}"#,
        ),
        (
            r#"{"batch":[{"name":"b1","channel":"news"},{"channel":"news","data":"x"}]}"#,
            "{\"batch.1.name\":[\"The batch.1.name field is required.\"],\
             \"batch.0.data\":[\"The batch.0.data field is required.\"]}",
        ),
        (
            r#"{"batch":[{"name":"b1","channels":["news","news2"],"data":"1"}]}"#,
            r#"{"batch.0.channel":["The batch.0.channel field is required when channels is not present."]}"#,
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(answer(&post("batch_events", body)), (422, expected.to_owned()), "{body}");
    }
    for body in ["null", "\"s\"", "{bad", "5"] {
        assert_eq!(answer(&post("events", body)).0, 400, "{body}");
    }
}

#[test]
fn a_malformed_socket_id_is_refused_and_an_unknown_one_is_not() {
    let publish = |id: &str| {
        let id = serde_json::to_string(id).unwrap();
        post("events", &format!(r#"{{"name":"e","channel":"c","data":"x","socket_id":{id}}}"#))
    };
    for id in [
        "undefined",
        "null",
        "1",
        "1.",
        ".2",
        "1.2.3",
        " 1.2",
        "1.2 ",
        "-1.2",
        "1,2",
        "1.2\n",
        "१.२",
    ] {
        assert_eq!(answer(&publish(id)).0, 422, "{id:?}");
    }
    for id in ["", "1.2", "0.0", "123456789012345678901234567890.1"] {
        assert!(matches!(publish(id), Plan::Publish { .. }), "{id:?}");
    }
    let invalid = r#"{"socket_id":["The socket id field format is invalid."]}"#;
    assert_eq!(answer(&publish("undefined")), (422, invalid.to_owned()));
    let batch = r#"{"batch":[{"name":"e","channel":"c","data":"x","socket_id":"1.2\n"}]}"#;
    let invalid = r#"{"batch.0.socket_id":["The batch.0.socket id field format is invalid."]}"#;
    assert_eq!(answer(&post("batch_events", batch)), (422, invalid.to_owned()));
    let batch = r#"{"batch":[{"name":"e","channel":"c","data":"x","socket_id":"1.2"}]}"#;
    let Plan::Publish { publications, .. } = post("batch_events", batch) else { panic!("{batch}") };
    assert!(publications[0].excluded_socket_id.is_some());
}

#[test]
fn reserved_names_are_refused() {
    for name in ["pusher:fake", "pusher_internal:member_added"] {
        let body = format!(r#"{{"name":"{name}","channel":"news","data":"x"}}"#);
        let (status, text) = answer(&post("events", &body));
        assert_eq!(status, 400);
        assert!(text.contains(name) && text.contains("RINGVERB_ALLOW_RESERVED_EVENTS"), "{text}");
        let batch = format!(r#"{{"batch":[{body}]}}"#);
        assert_eq!(answer(&post("batch_events", &batch)).0, 400);
    }
}

#[test]
fn requests_without_valid_authentication_are_refused() {
    let path = "/apps/1001/channels";
    let invalid = (401, "Authentication signature invalid.".to_owned());
    assert_eq!(
        answer(&run(&request("GET /apps/1001/channels HTTP/1.1\r\nHost: h\r\n\r\n"), "")),
        invalid
    );
    assert_eq!(answer(&run(&signed("GET", path, "/apps/1001/other", &[], ""), "")), invalid);
    let unknown = run(&signed("GET", "/apps/nope/channels", "/apps/nope/channels", &[], ""), "");
    assert_eq!(answer(&unknown), (404, "No matching application for ID [nope].".to_owned()));
    for (timestamp, status) in
        [(NOW - 599, 200), (NOW + 599, 200), (NOW - 601, 401), (NOW + 601, 401)]
    {
        let query = [("auth_timestamp", timestamp.to_string())];
        let query: Vec<(&str, &str)> =
            query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let plan = run(&signed("GET", path, path, &query, ""), "");
        let accepted = matches!(plan, Plan::Ask { .. });
        assert_eq!(accepted, status == 200, "{timestamp}");
        if !accepted {
            let (given, text) = answer(&plan);
            assert_eq!(given, status);
            assert!(text.contains("601 s") && text.contains("RINGVERB_AUTH_WINDOW"), "{text}");
        }
    }
    // PyPI `pusher` signs a body_md5 on GET too.
    let plan = run(
        &signed("GET", path, path, &[("body_md5", "d41d8cd98f00b204e9800998ecf8427e")], ""),
        "",
    );
    assert!(matches!(plan, Plan::Ask { .. }));
}

#[test]
fn a_refused_signature_is_explained_in_the_log() {
    let path = "/apps/1001/channels";
    let request = signed("GET", path, "/somewhere/else", &[], "");
    let mut context = RequestContext {
        apps: &apps(),
        prefix: "",
        unix_seconds: NOW,
        draining: false,
        validator: &mut Validator::default(),
        lines: &mut LineBudget::default(),
        verbose_errors: false,
        debug: true,
        metrics: &CoreMetrics::new(1),
    };
    let plan = plan(&request, &target("GET", path, ""), &mut context);
    let Plan::Unauthenticated(denied) = plan else { panic!("{plan:?}") };
    assert_eq!((denied.response.status, denied.log_line.left_out), (401, Some(0)));
    let line = denied.log_line.line.unwrap();
    // With `--debug` it has the text that should have been signed.
    assert!(line.contains("GET\\n/apps/1001/channels\\nauth_key=app-key"), "{line}");
    assert!(line.contains("REVERB_APP_SECRET") && !line.contains("app-secret"), "{line}");
}

#[test]
fn a_body_that_was_changed_on_the_way_is_refused() {
    let path = "/apps/1001/events";
    let body = r#"{"name":"e","channel":"a","data":"x"}"#;
    let good = signed("POST", path, path, &[], body);
    assert!(matches!(run(&good, ""), Plan::Publish { .. }));
    let changed = format!(
        "POST {path}?{} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}",
        good.query(),
        body.len(),
        body.replace("\"a\"", "\"b\"")
    );
    assert_eq!(answer(&run(&request(&changed), "")).0, 401);
}

#[test]
fn the_path_may_be_signed_with_or_without_the_prefix_encoded_or_not() {
    let path = "/ws/apps/1001/channels/a%20b";
    for signed_path in
        [path, "/apps/1001/channels/a%20b", "/ws/apps/1001/channels/a b", "/apps/1001/channels/a b"]
    {
        let plan = run(&signed("GET", path, signed_path, &[], ""), "/ws");
        assert!(matches!(plan, Plan::Ask { .. }), "{signed_path}");
    }
}

/// A base without a slash at its end loses its last segment, and proxies remove prefixes.
#[test]
fn the_api_is_served_below_the_prefix_beside_it_and_without_it() {
    let all = ["/a/b/apps/1001/channels", "/a/apps/1001/channels", "/apps/1001/channels"];
    for sent in all {
        for signed_path in [sent, "/apps/1001/channels", "/a/b/apps/1001/channels"] {
            let plan = run(&signed("GET", sent, signed_path, &[], ""), "/a/b");
            assert!(matches!(plan, Plan::Ask { .. }), "{sent} signed as {signed_path}");
        }
        let plan = run(&signed("GET", sent, "/b/apps/1001/channels", &[], ""), "/a/b");
        assert_eq!(answer(&plan).0, 401, "{sent}");
    }
    // What else is served is below the prefix only, and a prefix may be named like a part of the API.
    for (path, prefix, status) in [
        ("/up", "/ws", 404),
        ("/ws/up", "/ws", 200),
        ("/wsapps/1001/channels", "/ws", 404),
        ("/b/apps/1001/channels", "/a/b", 404),
        ("/apps/up", "/apps", 200),
    ] {
        let line = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(answer(&run(&request(&line), prefix)).0, status, "{path}");
    }
    let plan = run(&signed("GET", all[2], all[2], &[], ""), "/apps");
    assert!(matches!(plan, Plan::Ask { .. }));
}

#[test]
fn unknown_paths_are_404_and_wrong_methods_are_405() {
    let cases = [
        ("GET / HTTP/1.1", 404, "Not found."),
        ("GET /apps/1001/channels/ HTTP/1.1", 404, "Not found."),
        ("POST /apps/1001/events/ HTTP/1.1", 404, "Not found."),
        ("GET /apps/1001/events HTTP/1.1", 405, "Method not allowed."),
        ("POST /up HTTP/1.1", 405, "Method not allowed."),
        ("OPTIONS /apps/1001/events HTTP/1.1", 405, "Method not allowed."),
        ("GET /up HTTP/1.1", 200, "{\"health\":\"OK\"}"),
        ("HEAD /up HTTP/1.1", 200, "{\"health\":\"OK\"}"),
    ];
    for (line, status, body) in cases {
        assert_eq!(
            answer(&run(&request(&format!("{line}\r\nHost: x\r\n\r\n")), "")),
            (status, body.to_owned()),
            "{line}"
        );
    }
}

/// A browser that shows `/up` asks for it. Another unknown path is a refusal, which is logged and counted.
#[test]
fn the_icon_that_browsers_ask_for_is_404_and_no_refusal() {
    for prefix in ["", "/ws"] {
        let plan_with = |method: &str, path: &str, fields: &str| {
            let text = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
            run(&request(&text), prefix)
        };
        let plan = |path: &str| plan_with("GET", path, "");
        let icon = plan("/favicon.ico");
        assert!(matches!(icon, Plan::Respond(_)), "{prefix}");
        assert_eq!(answer(&icon), (404, "Not found.".to_owned()));
        assert!(matches!(plan("/favicon.png"), Plan::Refuse(_)), "{prefix}");
        let others = [("POST", ""), ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\n")];
        for (method, fields) in others {
            let other = plan_with(method, "/favicon.ico", fields);
            assert!(matches!(other, Plan::Refuse(_)), "{prefix}: {method} {fields}");
        }
    }
}
