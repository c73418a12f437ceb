//! The command `doctor` on this host: each finding has a verdict, a reason and a command, and the exit status is the
//! worst verdict. What a host of another kind would get is tested beside `server/doctor/host.rs`.

use serde_json::Value;

use crate::support::{Content, Finished, Redis, Setup, free_port, json, make_program};

/// Few connections, so that the host of the tests can serve them.
fn doctor(setup: Setup) -> (Option<i32>, Value) {
    let Finished { code, stdout, stderr } =
        setup.args(&["doctor", "--connections", "10", "--json"]).run();
    assert!(stdout.starts_with('{'), "{stdout}{stderr}");
    (code, json(&stdout))
}

fn on_a_free_port() -> Setup {
    Setup::new().env("REVERB_SERVER_PORT", &free_port().to_string())
}

/// The findings about this.
fn about<'a>(report: &'a Value, what: &str) -> Vec<&'a Value> {
    let findings = report["findings"].as_array().expect("a list");
    findings.iter().filter(|finding| finding["what"] == what).collect()
}

#[test]
fn the_exit_status_is_the_worst_verdict_and_each_finding_has_reason_and_command() {
    let (code, report) = doctor(on_a_free_port());
    let findings = report["findings"].as_array().expect("a list");
    assert!(findings.len() > 8, "{report}");
    let rank = |verdict: &Value| match verdict.as_str() {
        Some("good") => 0,
        Some("warning") => 1,
        Some("problem") => 2,
        _ => panic!("{verdict}"),
    };
    let worst = findings.iter().map(|finding| rank(&finding["verdict"])).max();
    assert_eq!((code, worst), (Some(rank(&report["verdict"])), code), "{report}");
    for finding in findings {
        for member in ["what", "reason", "command"] {
            assert!(finding[member].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
        }
    }
    assert!(report["limit"]["connections"].as_u64().is_some_and(|most| most > 10), "{report}");
    for what in ["descriptors", "memory", "port", "configuration", "clock", "ntp"] {
        assert_eq!(about(&report, what).len(), 1, "{what}: {report}");
    }
}

#[test]
fn too_many_connections_for_any_host_are_a_problem() {
    let finished = on_a_free_port().args(&["doctor", "--connections", "100000000"]).run();
    assert_eq!(finished.code, Some(2));
    assert!(finished.stdout.contains("problem  descriptors: "), "{}", finished.stdout);
    assert!(finished.stdout.contains("-> LimitNOFILE="), "{}", finished.stdout);
}

#[test]
fn a_wrong_configuration_is_a_problem_and_the_host_is_examined_anyway() {
    let (code, report) = doctor(on_a_free_port().env("RINGVERB_LOG_FORMAT", "xml"));
    assert_eq!(code, Some(2));
    let configuration = about(&report, "configuration");
    assert!(
        configuration[0]["reason"].as_str().is_some_and(|why| why.contains("RINGVERB_LOG_FORMAT"))
    );
    assert_eq!(about(&report, "descriptors").len(), 1, "{report}");
}

#[test]
fn a_server_that_runs_is_no_problem_and_another_program_on_the_port_is() {
    let server = Setup::new().start();
    let (_, report) = doctor(Setup::client_of(&server));
    let port = about(&report, "port");
    assert_eq!(port[0]["verdict"], "good", "{report}");
    assert!(port[0]["reason"].as_str().is_some_and(|why| why.contains(&server.id().to_string())));
    server.stop();

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port().to_string();
    let setup = Setup::new().env("REVERB_SERVER_HOST", "127.0.0.1");
    let (code, report) = doctor(setup.env("REVERB_SERVER_PORT", &port));
    assert_eq!(
        (code, &about(&report, "port")[0]["verdict"]),
        (Some(2), &"problem".into()),
        "{report}"
    );
}

/// A server lets no process of its user look at its descriptors, and it is found all the same.
#[test]
fn a_server_is_found_by_the_user_who_runs_it() {
    const USER: u32 = 61_234;
    assert!(rustix::process::geteuid().is_root(), "this test acts as another user: run it as root");
    let folder = std::env::temp_dir().join(format!("ringverb-doctor-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a new folder");
    let program = folder.join("ringverb");
    make_program(&program, Content::Copy(env!("CARGO_BIN_EXE_ringverb")));
    let of_user = |setup: Setup| setup.program(&program).user(USER).without_runtime_directory();
    let server = of_user(Setup::new()).start();
    let (_, report) = doctor(of_user(Setup::client_of(&server)));
    std::fs::remove_dir_all(&folder).expect("the folder of the test");
    let port = about(&report, "port");
    assert_eq!(port[0]["verdict"], "good", "{report}");
    let why = port[0]["reason"].as_str().expect("a reason");
    assert!(why.contains(&server.id().to_string()), "{why}");
}

#[test]
fn each_right_of_a_node_in_redis_is_tried_and_nothing_is_left_there() {
    let redis = Redis::start();
    let rights = || {
        let (code, report) = doctor(on_a_free_port().meeting_in(&redis));
        let found = about(&report, "rights").first().map(|finding| (*finding).clone());
        (code, found.unwrap_or_else(|| panic!("no finding: {report}")))
    };
    let (_, found) = rights();
    assert_eq!(found["verdict"], "good", "{found}");
    assert_eq!(redis.command(&["KEYS", "*"]), "*0\r\n");

    // Without a password, a node is the default user.
    let refused = redis.command(&["ACL", "SETUSER", "default", "-eval", "-publish"]);
    assert_eq!(refused, "+OK\r\n");
    let (code, found) = rights();
    assert_eq!((code, &found["verdict"]), (Some(2), &"problem".into()));
    let reason = found["reason"].as_str().expect("text");
    for part in ["eval (NOPERM)", "publish (NOPERM)", "~reverb:rv1:*"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert!(!reason.contains("get (") && !reason.contains("subscribe ("), "{reason}");
}
