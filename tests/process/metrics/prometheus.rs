//! Prometheus reads the metrics, the alerts and the expressions of the dashboard.

use std::io::Write;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{samples_names, scrape, setup, sum};
use crate::admin::AdminClient;
use crate::support::{Redis, Reply, eventually};

/// The number and the words of what `promtool` finds wrong are its own; it is silent if nothing is.
fn promtool(arguments: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool: tests/run installs it (Debian: prometheus)");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "promtool {arguments:?}: {text}");
}

#[test]
fn prometheus_reads_both_formats() {
    let redis = Redis::start();
    let setup = setup().meeting_in(&redis).workers(2);
    let mut server = setup.env("RINGVERB_WEBHOOK_URL", "http://127.0.0.1:9/").start();
    let admin = AdminClient::of(&mut server);
    let mut client = server.connect();
    client.subscribe("news");
    server.publish("news", "e", "1");
    assert_eq!(client.event()["event"], "e");
    let plain = admin.get("/metrics");
    let of = |reply: &Reply| reply.head.header("content-type").map(str::to_owned);
    assert_eq!(of(&plain).as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
    // sockudo chose a name with an abbreviated unit, of which promtool warns.
    let named_by_sockudo = |line: &&str| line.contains("ringverb_broadcast_latency_ms");
    assert!(plain.body.lines().any(|line| named_by_sockudo(&line)));
    let own: Vec<&str> = plain.body.lines().filter(|line| !named_by_sockudo(line)).collect();
    promtool(&["check", "metrics"], &format!("{}\n", own.join("\n")));
    // The cluster and the webhooks are in it.
    let lag = "ringverb_cluster_lag_seconds_count";
    eventually("a heartbeat came back", || (scrape(&admin)[lag] > 0.0).then_some(()));
    let samples = scrape(&admin);
    assert_eq!(sum(&samples, "ringverb_cluster_up"), 2.0);
    assert!(sum(&samples, "ringverb_cluster_effects_peak") > 0.0);
    assert_eq!(sum(&samples, "ringverb_cluster_effects_discarded_total"), 0.0);
    assert!(sum(&samples, "ringverb_cluster_messages_sent_total") > 0.0);
    eventually("the endpoint fails", || {
        let samples = scrape(&admin);
        let failed = samples["ringverb_webhook_requests_failed_total"] > 0.0;
        (failed && samples["ringverb_webhook_queue_events"] > 0.0).then_some(())
    });
    let open =
        admin.get_with("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(of(&open).as_deref(), Some(content_type));
    assert!(
        open.body.ends_with("\n# EOF\n")
            && open.body.contains("# TYPE ringverb_new_connections counter\n")
    );
    assert!(open.body.contains("# TYPE ringverb_socket_received_bytes unknown\n"), "{}", open.body);
    let names = |text: &str| samples_names(text);
    assert_eq!(names(&plain.body), names(&open.body), "the same samples in both");
    let mut wire = server.wire();
    wire.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(wire.reply(true).status, 404, "clients have no way to the metrics");
    server.signal(Signal::TERM);
    drop(client);
    assert_eq!(server.finish().code, Some(0));
}

fn root(file: &str) -> String {
    format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn prometheus_accepts_the_alerts_and_each_fires_when_it_should() {
    promtool(&["check", "rules", &root("tuning/alerts.yml")], "");
    promtool(&["test", "rules", &root("tests/alerts.yml")], "");
}

/// Every expression of a dashboard, wherever it stands.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| expressions(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn prometheus_reads_every_expression_of_the_dashboard() {
    let text = std::fs::read_to_string(root("tuning/grafana.json")).expect("the dashboard");
    let dashboard = crate::support::json(&text);
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() > 30, "{}", found.len());
    let rules: Vec<Value> = (0..)
        .zip(&found)
        .map(|(number, expression)| {
            let expression = expression.replace("$__rate_interval", "5m");
            json!({ "record": format!("panel:number_{number}"), "expr": expression })
        })
        .collect();
    let groups = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("dashboard-{}.yml", std::process::id()));
    std::fs::write(&path, groups.to_string()).expect("a file of rules; JSON is YAML");
    promtool(&["check", "rules", &path.to_string_lossy()], "");
    std::fs::remove_file(path).expect("the file");
    let panels = dashboard["panels"].as_array().expect("panels");
    let has_help = |panel: &&Value| panel["type"] == "row" || panel["description"].is_string();
    assert!(panels.iter().all(|panel| has_help(&panel)));
}
