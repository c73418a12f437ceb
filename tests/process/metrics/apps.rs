//! Rows of apps that come while the server runs: 64 have one of their own, and no app reads what another one's counts.

use serde_json::Value;

use crate::admin::AdminClient;
use crate::change::{TOKEN, admin, app, with_file};
use crate::support::{Client, Handshake, Request, Server};

/// Apps that come at run time and have a row of their own.
const ROWS_TO_COME: usize = 64;

fn add(api: &AdminClient, id: &str) -> (u16, Value) {
    let body = format!("{{\"id\":\"{id}\",\"key\":\"key-{id}\",\"secret\":\"secret-{id}\"}}");
    admin(api, "POST", "/api/apps", &body)
}

fn has_own_row(api: &AdminClient, id: &str) -> bool {
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    api.send(&request).body.contains(&format!("ringverb_connected{{app_id=\"{id}\"}} 0"))
}

/// A core never forgets an app, and only the first 64 that come at run time have rows of their own.
#[test]
fn an_addition_that_the_disk_refuses_uses_up_no_index() {
    let setup = with_file(&app("1", "")).env("RINGVERB_APPS_FILE", "missing/apps.toml").workers(1);
    let folder = setup.path("missing");
    let mut server = setup.start();
    let api = AdminClient::of(&mut server);
    for _ in 0..=ROWS_TO_COME {
        let (status, body) = admin(&api, "POST", "/api/apps", "{}");
        assert_eq!(status, 422, "{body}");
    }
    std::fs::create_dir(folder).expect("a folder");
    assert_eq!(add(&api, "late").0, 201);
    assert!(has_own_row(&api, "late"));
}

/// A file that is a mount can be read and written, and others can be made beside it, but no file can take its name.
#[test]
fn an_addition_whose_file_cannot_be_replaced_uses_up_no_index() {
    let setup = with_file(&app("1", "")).env("RINGVERB_APPS_FILE", "apps.toml");
    let setup = setup.file("apps.toml", "").program("unshare".as_ref());
    let mount = "mount --bind apps.toml apps.toml && exec \"$0\" \"$@\"";
    let server = env!("CARGO_BIN_EXE_ringverb");
    let (path, folder) = (setup.path("apps.toml"), setup.path("."));

    let mut server = setup.args(&["--mount", "sh", "-c", mount, server]).workers(1).start();
    let api = AdminClient::of(&mut server);
    let files = || std::fs::read_dir(&folder).expect("a folder").count();
    let before = files();
    for _ in 0..=ROWS_TO_COME {
        let (status, body) = admin(&api, "POST", "/api/apps", "{}");
        assert_eq!(status, 422, "{body}");
    }
    let refused = admin(&api, "POST", "/api/apps", "{}").1.to_string();
    assert!(refused.contains("mount its folder instead"), "{refused}");
    assert_eq!(files(), before, "nothing is left beside it");
    let mut inside = std::process::Command::new("nsenter");
    inside.args(["--mount", "--target", &server.id().to_string(), "umount"]).arg(&path);
    assert!(inside.status().expect("nsenter, of util-linux").success());
    assert_eq!(add(&api, "late").0, 201);
    assert!(has_own_row(&api, "late"), "the others have used up no row");
    server.stop();
}

fn ask_connections(server: &Server, id: &str) -> Value {
    let request = Request::to("GET", &format!("/apps/{id}/connections"));
    let request = request.query("auth_key", &format!("key-{id}")).secret(&format!("secret-{id}"));
    let (status, body) = server.answer(&request);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// All further apps share one row, and its sum is for no backend.
#[test]
fn an_app_without_a_row_of_its_own_reads_no_counts_of_others() {
    let setup = with_file(&app("1", "")).env("RINGVERB_APPS_FILE", "apps.toml").workers(1);
    let mut server = setup.start();
    let api = AdminClient::of(&mut server);
    let ids: Vec<String> = (0..ROWS_TO_COME + 2).map(|number| format!("new{number}")).collect();
    for id in &ids {
        assert_eq!(add(&api, id).0, 201);
    }
    let (last_with_row, rest) = (&ids[ROWS_TO_COME - 1], &ids[ROWS_TO_COME..]);
    for id in &rest[..1] {
        let handshake = Handshake::to(&format!("/app/key-{id}?protocol=7"));
        Client::open(&server, &handshake).established().sync();
    }
    assert_eq!(ask_connections(&server, last_with_row)["messages_sent"], 0);
    let traffic = admin(&api, "GET", "/api/traffic", "").1;
    let totals = |id: &str| {
        let apps = traffic["apps"].as_array().expect("a list");
        apps.iter().find(|app| app["id"] == id).expect("the app")["totals"].clone()
    };
    assert_eq!(totals(last_with_row)["messages_sent"], 0);
    for id in rest {
        let answer = ask_connections(&server, id);
        assert!(answer["connections"].is_u64() && answer["messages_sent"].is_null(), "{answer}");
        assert_eq!(totals(id), Value::Null, "{id}");
    }
    server.stop();
}
