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
        Some("good" | "note") => 0,
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

/// A folder with the program under another name.
struct Renamed(std::path::PathBuf);

impl Renamed {
    fn make(name: &str) -> (Self, std::path::PathBuf) {
        let folder = format!("ringverb-doctor-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir(&folder).expect("a new folder");
        let program = folder.join(name);
        make_program(&program, Content::Copy(env!("CARGO_BIN_EXE_ringverb")));
        (Self(folder), program)
    }
}

impl Drop for Renamed {
    fn drop(&mut self) {
        // Left over, it is in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// As two apps of one user on a host. Neither the name of the program nor the number of servers counts.
#[test]
fn each_of_two_servers_of_a_user_is_found_at_its_own_port_under_any_name() {
    const USER: u32 = 61_235;
    assert!(rustix::process::geteuid().is_root(), "this test acts as another user: run it as root");
    for name in ["ringverb", "rvb"] {
        let (_folder, program) = Renamed::make(name);
        let of_user = |setup: Setup| setup.program(&program).user(USER).without_runtime_directory();
        let servers = [(); 2].map(|()| of_user(Setup::new()).start());
        for server in &servers {
            let (_, report) = doctor(of_user(Setup::client_of(server)));
            let process = format!("process {}", server.id());
            for what in ["port", "descriptors"] {
                let why = about(&report, what)[0]["reason"].as_str().expect("a reason");
                assert!(why.contains(&process), "{name}, {process}: {why}");
            }
            assert_eq!(about(&report, "port")[0]["verdict"], "good", "{report}");
        }
    }
}

/// Such a server hides what it is: its answers show it.
#[test]
fn a_renamed_server_of_another_user_is_known_by_its_answer() {
    let (_folder, program) = Renamed::make("rvb-other");
    let server = Setup::new().program(&program).user(61_236).without_runtime_directory().start();
    let (_, report) = doctor(Setup::client_of(&server).user(61_237).without_runtime_directory());
    let port = about(&report, "port")[0];
    assert_eq!(port["verdict"], "good", "{report}");
    assert!(port["reason"].as_str().is_some_and(|why| why.ends_with("is served by ringverb")));
    let descriptors = about(&report, "descriptors")[0]["reason"].as_str().expect("a reason");
    assert!(descriptors.starts_with("a server that is started from here"), "{descriptors}");
}

#[test]
fn the_own_server_is_recognized_at_its_admin_socket_with_and_without_a_token() {
    for token in [None, Some("0123456789abcdef0123456789abcdef")] {
        let setup = Setup::new();
        let place = format!("unix:{}", setup.path("admin.sock").display());
        let with = |setup: Setup| {
            let setup = setup.env("RINGVERB_ADMIN", &place);
            match token {
                Some(token) => setup.env("RINGVERB_ADMIN_TOKEN", token),
                None => setup,
            }
        };
        let server = with(setup).start();
        let (_, report) = doctor(with(Setup::client_of(&server)));
        let admin = about(&report, "admin")[0];
        assert_eq!(admin["verdict"], "good", "{report}");
        let why = admin["reason"].as_str().expect("a reason");
        assert!(why.starts_with(&format!("{place} is served by ringverb")), "{why}");
        assert_eq!(why.contains(&format!("process {}", server.id())), token.is_none(), "{why}");
    }

    let setup = on_a_free_port();
    let path = setup.path("admin.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let (code, report) = doctor(setup.env("RINGVERB_ADMIN", &format!("unix:{}", path.display())));
    assert_eq!((code, &about(&report, "admin")[0]["verdict"]), (Some(2), &"problem".into()));
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
