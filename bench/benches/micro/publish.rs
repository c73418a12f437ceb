//! One signed POST /events on a kept connection: from the bytes of the request to the bytes of the answer. The
//! shard and the socket are left out.

use std::hint::black_box;

use ringverb::api::{Plan, RequestContext, plan, render, target};
use ringverb::app::{Apps, Secret};
use ringverb::cause::LineBudget;
use ringverb::http1::request::{Progress, RequestLimits, RequestReader};
use ringverb::metrics::CoreMetrics;
use ringverb::pusher::json::Validator;
use ringverb::pusher::signature;

use crate::setup::config;

const NOW: u64 = 1_795_455_487;

/// As Laravel's `pusher/pusher-php-server` sends it, with a body of 150 bytes.
fn bytes() -> Vec<u8> {
    let body = format!(
        r#"{{"name":"App\\Events\\OrderShipped","data":"{{\"id\":12345,\"text\":\"{}\"}}","channels":["private-orders.12345"]}}"#,
        "x".repeat(40)
    );
    assert_eq!(body.len(), 150);
    let md5 = signature::body_md5(body.as_bytes());
    let path = "/apps/1001/events";
    let query = format!("auth_key=app-key&auth_timestamp={NOW}&auth_version=1.0&body_md5={md5}");
    let text = format!("POST\n{path}\n{query}");
    let signed = signature::sign(&Secret::new("app-secret"), &[text.as_bytes()]);
    let signed = String::from_utf8_lossy(&signed);
    let head = format!(
        "POST {path}?{query}&auth_signature={signed} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\
         User-Agent: GuzzleHttp/7\r\nContent-Type: application/json\r\n\
         X-Pusher-Library: pusher-http-php 7.2.7\r\nContent-Length: 150\r\n\r\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

pub(super) fn request() -> Box<dyn FnMut()> {
    let bytes = bytes();
    let apps = Apps::new(config().apps);
    let mut reader = RequestReader::new(RequestLimits { request_size_max: 1 << 20 });
    let (mut input, mut output) = (Vec::new(), Vec::new());
    let mut validator = Validator::default();
    let mut lines = LineBudget::default();
    let metrics = CoreMetrics::new(1);
    Box::new(move || {
        input.extend_from_slice(black_box(&bytes));
        let Ok(Progress::Complete(request)) = reader.read(&mut input) else {
            panic!("a whole request")
        };
        let target = target(request.method(), request.path(), "");
        let mut context = RequestContext {
            apps: &apps,
            prefix: "",
            unix_seconds: NOW,
            draining: false,
            validator: &mut validator,
            lines: &mut lines,
            verbose_errors: false,
            debug: false,
            metrics: &metrics,
        };
        let Plan::Publish { publications, reply, .. } = plan(&request, &target, &mut context)
        else {
            panic!("a good request")
        };
        black_box(publications);
        let response = render(&reply, Vec::new());
        output.clear();
        response.write(&mut output, request.keep_alive(), request.method() == "HEAD");
        assert!(black_box(&output).starts_with(b"HTTP/1.1 200 OK"));
    })
}
