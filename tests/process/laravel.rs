//! `--laravel-config`: the configuration that the package for Laravel writes, from the start to a new program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use crate::support::{Request, Setup, free_port};
use rustix::process::Signal;

const FILE: &str = "framework/ringverb/server.json";

/// The file as the package writes it, for servers on this port with these apps.
fn config(port: u16, ids: &[&str]) -> String {
    let app = |id: &&str| {
        json!({
            "app_id": id,
            "key": "app-key".to_owned() + if *id == "1001" { "" } else { id },
            "secret": "app-secret",
            "allowed_origins": ["*"],
            "options": {"host": "localhost", "useTLS": false},
        })
    };
    let apps: Vec<_> = ids.iter().map(app).collect();
    json!({"server": {"host": "127.0.0.1", "port": port, "hostname": null}, "apps": apps})
        .to_string()
}

fn write(path: &Path, text: &str, mode: u32) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).expect("its owner's");
    fs::rename(new, path).expect("renamed");
}

fn folder(port: u16, mode: u32) -> Setup {
    let setup = Setup::bare().file(FILE, "").args(&["start", "--laravel-config", FILE]);
    write(&setup.path(FILE), &config(port, &["1001"]), mode);
    setup
}

#[test]
fn a_file_that_others_can_read_or_that_is_missing_is_refused() {
    let finished = folder(8080, 0o640).run();
    assert_eq!(finished.code, Some(2), "{finished:?}");
    let part = "it has secrets, and others can use it (mode 0640): chmod 600 it";
    assert!(
        finished.stderr.contains(part) && !finished.stderr.contains("app-secret"),
        "{finished:?}"
    );
    let finished = Setup::new().args(&["--laravel-config", "none.json"]).run();
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("cannot read none.json"), "{finished:?}");
}

#[test]
fn the_file_counts_without_the_environment_and_is_read_again_for_a_new_program() {
    let port = free_port();
    let setup = folder(port, 0o600).env("REVERB_SERVER_PORT", "1").env("REVERB_APP_KEY", "stale");
    let path = setup.path(FILE);
    let mut server = setup.start_as_configured();
    let mut client = server.connect();
    client.subscribe("news");
    let of_another_app = Request::to("GET", "/apps/7/channels");
    assert_eq!(server.answer(&of_another_app).0, 404);
    write(&path, &config(port, &["1001", "7"]), 0o600);
    server.signal(Signal::USR2);
    server.line_with("SIGUSR2 complete: 1 connection kept");
    server.line_with("  address  ");
    server.publish("news", "e", "text");
    client.expect(r#"{"event":"e","data":"text","channel":"news"}"#);
    // The app is known now, and wants a signature of its own.
    assert_eq!(server.answer(&of_another_app).0, 401);
}

#[test]
fn a_wrong_file_leaves_the_old_program_in_place() {
    let port = free_port();
    let setup = folder(port, 0o600);
    let path = setup.path(FILE);
    let mut server = setup.start_as_configured();
    let mut client = server.connect();
    client.subscribe("news");
    write(&path, "{\"apps\": []}", 0o600);
    server.signal(Signal::USR2);
    server.line_with("has ended: exit code 2");
    server.publish("news", "e", "text");
    client.expect(r#"{"event":"e","data":"text","channel":"news"}"#);
}
