//! Locked memory, as an ordinary user: Debian and systemd allow 8 MiB for all processes of a user together, and
//! io_uring charges its rings to that.

use std::path::PathBuf;

use crate::support::{Content, DEADLINE, Finished, PING, PONG, Setup, make_program, within};

/// The limit is a user's, so each test has a user of its own.
const NOBODY: u32 = 65_534;
const POOR: u32 = 64_101;
const CHECKER: u32 = 64_102;
const REPLACER: u32 = 64_103;
const FRUGAL: u32 = 64_104;
const CROWDED: u32 = 64_105;

/// A copy of the program for other users: the target folder may be out of their reach.
struct Program(PathBuf);

impl Program {
    fn copy(name: &str) -> Self {
        let name = format!("ringverb-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        make_program(&path, Content::Copy(env!("CARGO_BIN_EXE_ringverb")));
        Self(path)
    }

    /// An ordinary user who may lock so much.
    fn run_by(&self, user: u32, kib: u32) -> Setup {
        let setup = Setup::new().program(&self.0).user(user).without_runtime_directory();
        setup.ulimit(&format!("-l {kib}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn sixty_four_workers_and_their_take_over_fit_the_usual_limit() {
    let program = Program::copy("many");
    let start = || program.run_by(NOBODY, 8_192).workers(64).arg("--io=io_uring");
    let old = start().start();
    let mut clients: Vec<_> = (0..64).map(|_| old.connect()).collect();
    clients.iter_mut().for_each(|client| client.subscribe("news"));
    let new = start().reaching(&old).arg("--takeover").start_as_configured();
    let Finished { code, stdout, .. } = old.finish();
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("Another process has taken over, with all connections."), "{stdout}");
    all_hear(&new, clients);
    new.stop();
}

/// Each connection has moved: it gets an event, is answered, and closes.
fn all_hear(server: &crate::support::Server, mut clients: Vec<crate::support::Client>) {
    server.publish("news", "e", "1");
    for client in &mut clients {
        client.expect(r#"{"event":"e","data":"1","channel":"news"}"#);
        client.ask(PING, PONG);
    }
    clients.into_iter().for_each(crate::support::Client::close);
}

/// Of the three programs of an exchange, two have rings at a time.
#[test]
fn thirty_two_workers_replace_their_program_within_the_usual_limit() {
    let program = Program::copy("replaced");
    let setup = program.run_by(REPLACER, 8_192).workers(32);
    let port = crate::support::free_port().to_string();
    let mut server = setup.args(&["--host", "127.0.0.1", "--port", &port]).start_as_configured();
    let mut clients: Vec<_> = (0..64).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.subscribe("news"));
    server.signal(rustix::process::Signal::USR2);
    server.line_with("serves while this process loads the new program");
    server.line_with("  address  ");
    all_hear(&server, clients);
    server.stop();
}

/// The server does not announce an address, and the error says how much is missing and how to get it.
#[test]
fn a_server_that_must_use_io_uring_and_gets_too_little_does_not_start_and_names_the_limit() {
    let program = Program::copy("poor");
    for (kib, workers, needed) in [(128, 8, "224"), (16, 1, "28"), (0, 1, "28")] {
        let run = program.run_by(POOR, kib).workers(workers).arg("--io=io_uring");
        let run = run.arg("--host").arg("127.0.0.1").arg("--port").arg("0");
        let Finished { code, stdout, stderr } = within(DEADLINE, "the end", || run.run());
        assert_eq!(code, Some(1), "{kib} KiB: {stdout} {stderr}");
        assert!(!stdout.contains("  address  "), "it said that it listens: {stdout}");
        for part in [
            "io_uring gets too little locked memory",
            &format!("{workers} workers need {needed} KiB"),
            &format!("may lock {kib} KiB"),
            "RLIMIT_MEMLOCK",
            "LimitMEMLOCK=",
            "ulimit -l",
            "RINGVERB_WORKERS",
            "RINGVERB_IO=auto",
        ] {
            assert!(stderr.contains(part), "{part}\nnot in {stderr}");
        }
    }
}

/// Docker's default limit is 64 KiB in some versions.
#[test]
fn with_too_little_locked_memory_a_server_uses_epoll_and_logs_the_reason_once() {
    let program = Program::copy("frugal");
    let mut server = program.run_by(FRUGAL, 64).workers(3).env("RINGVERB_IO", "auto").start();
    server.line_with("Press Ctrl+C to stop");
    let kernel = ", epoll (too little locked memory for io_uring)\n";
    assert!(server.stdout().contains(kernel), "{}", server.stdout());
    all_hear(
        &server,
        vec![{
            let mut client = server.connect();
            client.subscribe("news");
            client
        }],
    );
    server.signal(rustix::process::Signal::TERM);
    let Finished { code, stdout, stderr } = server.finish();
    assert_eq!(code, Some(0), "{stdout}");
    let notes = stderr.lines().filter(|line| line.contains("io_uring"));
    let notes: Vec<&str> = notes.collect();
    assert_eq!(notes.len(), 1, "{stderr}");
    for part in [
        "note: io_uring cannot be used, so this server uses epoll",
        "3 workers need 84 KiB",
        "ulimit -l",
    ] {
        assert!(notes[0].contains(part), "{part}\nnot in {stderr}");
    }
}

/// By the limit each server may have a large ring of 140 KiB, but the limit counts for all of them together. So one of
/// the first five finds no room for it. It is unknown which, because the kernel frees the ring of a probe some time
/// after its close.
#[test]
fn a_server_without_room_for_large_rings_takes_small_ones_and_the_log_and_the_start_message_say_so()
{
    let program = Program::copy("crowded");
    let mut servers: Vec<crate::support::Server> = Vec::new();
    let is_large = loop {
        let setup = program.run_by(CROWDED, 640).workers(1).arg("--io=io_uring");
        let mut server = setup.start();
        server.line_with("Press Ctrl+C to stop");
        let kernel = |rings: &str| format!("io_uring with {rings} completions a ring\n");
        let is_large = server.stdout().contains(&kernel("8192"));
        assert!(is_large || server.stdout().contains(&kernel("1024")), "{}", server.stdout());
        servers.push(server);
        if !is_large || servers.len() > 5 {
            break is_large;
        }
    };
    assert!(!is_large, "{} servers have large rings", servers.len());
    let server = servers.pop().expect("the one with a small ring");
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.subscribe("news"));
    all_hear(&server, clients);
    server.signal(rustix::process::Signal::TERM);
    let Finished { stdout, .. } = server.finish();
    let text = "1 of 1 workers have rings with 1024 completions in place of 8192";
    assert!(stdout.contains(text), "{stdout}");
    servers.into_iter().for_each(crate::support::Server::stop);
}

#[test]
fn check_shows_locked_memory_and_warns_where_it_is_too_little() {
    let program = Program::copy("check");
    let check = |kib, workers: u16, code| {
        let setup = program.run_by(CHECKER, kib).args(&["check", "--port", "0"]);
        let finished = setup.workers(workers).run();
        assert_eq!(finished.code, Some(code), "{finished:?}");
        finished.stdout
    };
    let text = check(8_192, 4, 0);
    let told = "ok       locked   4 workers need 560 KiB of locked memory, and this user may lock 8192 KiB";
    assert!(text.contains(told), "{text}");
    assert!(text.contains("Rings have 8192 completions"), "{text}");
    assert!(text.contains(" with io_uring\n"), "{text}");
    // Small rings, and what the large ones need.
    let text = check(512, 4, 0);
    let told =
        "ok       locked   4 workers need 112 KiB of locked memory, and this user may lock 512 KiB";
    assert!(text.contains(told), "{text}");
    for part in ["Rings have 1024 completions", "need 1120 KiB", "raise RLIMIT_MEMLOCK"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = check(256, 8, 0);
    assert!(text.contains("which is too little for a take-over"), "{text}");
    let text = check(256, 128, 0);
    let told = " with epoll (too little locked memory for io_uring): io_uring cannot be used";
    assert!(text.contains(told), "{text}");
    assert!(text.contains("128 workers need 3584 KiB") && !text.contains(" locked   "), "{text}");
    // Root has no limit.
    let setup = Setup::new().ulimit("-l 64").args(&["check", "--port", "0"]);
    let text = setup.workers(4).run().stdout;
    assert!(text.contains("and this user may lock any amount"), "{text}");
}
