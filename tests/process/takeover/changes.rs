//! Changes of the configuration during a take-over: none that was answered is lost, and a configuration without apps
//! takes over from no server with apps.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use serde_json::Value;

use super::failures::{meeting_point, message, receive};
use crate::admin::AdminClient;
use crate::change::{TOKEN, admin, app, with_file};
use crate::support::{Client, Handshake, Server, Setup, Wire, eventually, free_port};

/// A server with an app of the apps file, and its admin listener.
fn start() -> (Server, AdminClient, String) {
    let setup = with_file("").workers(2).file("apps.toml", &app("one", "max_connections = 1"));
    let path = setup.path("apps.toml").display().to_string();
    let mut server = setup.env("RINGVERB_APPS_FILE", &path).start();
    let api = AdminClient::of(&mut server);
    (server, api, path)
}

fn limit_body(limit: u32) -> String {
    format!("{{\"max_connections\":{limit}}}")
}

/// A change that has been sent.
fn send_change(api: &AdminClient, limit: u32) -> Wire {
    let body = limit_body(limit);
    let length = body.len();
    let mut wire = api.wire();
    let request = format!(
        "PATCH /api/apps/one HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    wire.send(request.as_bytes());
    wire
}

fn limit(api: &AdminClient) -> Value {
    admin(api, "GET", "/api/apps/one", "").1["app"]["max_connections"].clone()
}

/// A false new process that has the listeners.
fn begin_take_over(server: &Server) -> UnixStream {
    let mut stream = UnixStream::connect(meeting_point(server.address)).expect("it offers");
    stream.write_all(&message("take over 3")).expect("it reads");
    assert!(receive(&mut stream).starts_with("listeners "));
    stream
}

/// Connections that wait until this server accepts a new process.
fn waiting_connections(server: &Server) -> usize {
    // The server binds another name, which ends with its process id, and renames the file.
    let name = format!("-{}.", server.address);
    let sockets = fs::read_to_string("/proc/net/unix").expect("the sockets");
    // The sixth column is the state: 02 is a connection that is not accepted yet.
    let is_waiting =
        |line: &&str| line.contains(&name) && line.split_ascii_whitespace().nth(5) == Some("02");
    sockets.lines().filter(is_waiting).count()
}

/// The new process has read the apps file, and the old process then changes it.
#[test]
fn a_change_between_the_start_of_a_new_process_and_its_take_over_is_in_use_afterwards() {
    let (old, api, path) = start();
    // The old process serves one process at a time, so the new one waits while this one sends nothing.
    let silent = UnixStream::connect(meeting_point(old.address)).expect("it offers");
    eventually("the old process accepts", || (waiting_connections(&old) == 0).then_some(()));
    let new = with_file("").workers(2).env("RINGVERB_APPS_FILE", &path).reaching(&old);
    let mut new =
        new.env("RINGVERB_ADMIN", &api.address().to_string()).arg("--takeover").starting();
    eventually("the new process has read the file", || {
        (waiting_connections(&old) == 1).then_some(())
    });
    assert_eq!(admin(&api, "PATCH", "/api/apps/one", &limit_body(7)).0, 200);
    let added = r#"{"id":"two","key":"key-two","secret":"secret-two"}"#;
    assert_eq!(admin(&api, "POST", "/api/apps", added).0, 201);
    let mut client = Client::open(&old, &Handshake::to("/app/key-two?protocol=7")).established();
    drop(silent);
    new.listens();
    assert_eq!(old.finish().code, Some(0));
    assert_eq!(limit(&api), 7);
    client.sync();
    new.stop();
}

#[test]
fn a_change_during_a_take_over_waits_and_is_carried_out_if_the_take_over_fails() {
    let (mut server, api, path) = start();
    let stream = begin_take_over(&server);
    let mut waiting = send_change(&api, 7);
    server.signal(Signal::HUP);
    for _ in 0..20 {
        assert_eq!(limit(&api), 1);
    }
    drop(stream);
    server.line_with("a take-over failed, and this process continues");
    server.line_with("app one changed over the admin API");
    assert_eq!(waiting.reply(true).status, 200);
    assert_eq!(limit(&api), 7);
    assert!(fs::read_to_string(&path).expect("the file").contains("max_connections = 7"));
    assert_eq!(admin(&api, "PATCH", "/api/apps/one", &limit_body(8)).0, 200);
    server.stop();
}

#[test]
fn a_change_during_a_take_over_that_succeeds_is_refused_and_changes_nothing() {
    let (server, api, path) = start();
    let mut stream = begin_take_over(&server);
    let mut waiting = send_change(&api, 7);
    for _ in 0..20 {
        assert_eq!(limit(&api), 1);
    }
    stream.write_all(&message("accepting")).expect("it reads");
    assert_eq!(receive(&mut stream), "retiring");
    let reply = waiting.reply(true);
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(
        reply.body.contains("another process takes over, and nothing was changed"),
        "{reply:?}"
    );
    assert!(fs::read_to_string(&path).expect("the file").contains("max_connections = 1"));
    drop(stream);
    assert_eq!(server.finish().code, Some(0));
}

/// The folder of a configuration may be missing for a moment.
#[test]
fn a_new_process_without_apps_does_not_take_over_from_a_server_with_apps() {
    let port = free_port().to_string();
    let setup = Setup::bare().workers(1).args(&["--host", "127.0.0.1", "--port", &port]);
    let setup = setup.file(".env", "REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=s\n");
    let (path, away) = (setup.path(".env"), setup.path("away"));
    let mut server = setup.start_as_configured();
    let mut client = Client::open(&server, &Handshake::to("/app/k?protocol=7")).established();
    let refused = Setup::bare().workers(1).reaching(&server).arg("--takeover").run();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in ["which continues", "has configured apps", "Put the configuration back"] {
        assert!(refused.stderr.contains(part), "{refused:?}");
    }
    server.line_with("a take-over failed, and this process continues: the running server has");
    fs::rename(&path, &away).expect("moved");
    server.signal(Signal::USR2);
    server.line_with("which was to take over, has ended");
    client.sync();
    Client::open(&server, &Handshake::to("/app/k?protocol=7")).established().sync();
    fs::rename(&away, &path).expect("moved");
    server.signal(Signal::USR2);
    server.line_with("SIGUSR2 complete");
    client.sync();
    server.stop();
}
