//! What the server writes never hurts it: whatever becomes of standard output and standard error, it starts, serves and
//! ends; what is lost is counted; and no peer decides how long a line is or what it does to a terminal.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::support::{
    Client, DEADLINE, Finished, Handshake, Http, Request, Server, Setup, eventually, frame, json,
    now, within,
};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;

/// From the signal to the end. The server waits 1 s for lines that no process reads.
const END: Duration = Duration::from_secs(5);
const LOST: &str = "log lines were lost:";

pub(super) fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    fcntl_setpipe_size(&writer, 4096).expect("a small pipe");
    (reader, writer)
}

/// The lines of a stream, read from now on.
pub(super) fn read(stream: File) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
    });
    lines
}

pub(super) fn find(lines: &Receiver<String>, text: &str) -> String {
    loop {
        let line = lines.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no line with {text:?}"));
        if line.contains(text) {
            return line;
        }
    }
}

fn copy(file: &OwnedFd) -> OwnedFd {
    file.try_clone().expect("a descriptor")
}

/// Shows each message, so that every one is written.
fn verbose() -> Setup {
    Setup::new().workers(2).arg("--debug").env("RINGVERB_ALLOWED_ORIGINS", "https://good.test")
}

fn good() -> Handshake {
    Handshake::new().header("Origin", "https://good.test")
}

fn connect(server: &Server) -> Client {
    Client::open(server, &good()).established()
}

/// Much is written, and everybody is served in time all the same.
fn serve_under_load(server: &Server) {
    let mut clients: Vec<Client> = (0..8).map(|_| connect(server)).collect();
    clients.iter_mut().for_each(|client| client.subscribe("news"));
    let mut http = Http::new(server);
    for number in 0..200 {
        // Shown as a line for each.
        let data = format!("[{number}{}]", ",1".repeat(400));
        let body = json!({"name": "e", "channel": "news", "data": data}).to_string();
        let reply =
            within(Duration::from_secs(3), "a publish", || http.ask(&Request::events(&body)));
        assert_eq!(reply.status, 200);
        if number % 10 == 0 {
            let mut refused = Client::open(server, &Handshake::new());
            refused.event();
        }
    }
    for client in &mut clients {
        for number in 0..200 {
            let event = within(Duration::from_secs(3), "an event", || client.event());
            assert!(event["data"].as_str().expect("a text").starts_with(&format!("[{number},")));
        }
        client.sync();
    }
    assert_eq!(http.ask_raw(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
}

/// Ends in time with clients connected, and with 0.
fn end(server: Server) {
    let mut client = connect(&server);
    server.signal(Signal::TERM);
    client.closed();
    drop(client);
    assert_eq!(server.ends_within(END), Some(0));
}

#[test]
fn a_closed_pipe_blocks_no_client() {
    let (reader, writer) = pipe();
    drop(reader);
    let server = verbose().start_onto(copy(&writer), writer);
    serve_under_load(&server);
    end(server);
}

#[test]
fn a_pipe_that_closes_later_blocks_no_client() {
    let (reader, writer) = pipe();
    let server = verbose().start_onto(copy(&writer), writer);
    let mut reader = BufReader::new(File::from(reader));
    reader.read_line(&mut String::new()).expect("the start message");
    drop(reader);
    serve_under_load(&server);
    end(server);
}

#[test]
fn a_full_disk_blocks_no_client_and_is_reported_at_once_and_at_the_end() {
    let full = || File::options().write(true).open("/dev/full").expect("/dev/full");
    let server = verbose().start_onto(full(), full());
    serve_under_load(&server);
    end(server);
    let (reader, writer) = pipe();
    let server = verbose().start_onto(full(), writer);
    let lines = read(File::from(reader));
    serve_under_load(&server);
    let while_it_runs = find(&lines, LOST);
    end(server);
    for report in [while_it_runs, find(&lines, LOST)] {
        assert!(report.contains("No space left on device"), "{report}");
    }
}

/// The kernel's signal for it would end the process.
#[test]
fn a_log_file_at_its_size_limit_blocks_no_client() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("log-{}", std::process::id()));
    let file = File::create(&path).expect("a file");
    let (reader, writer) = pipe();
    let server = verbose().ulimit("-f 16").start_onto(file, writer);
    serve_under_load(&server);
    end(server);
    let length = std::fs::metadata(&path).expect("the file").len();
    std::fs::remove_file(&path).expect("the file");
    assert!((1..=16 * 1024).contains(&length), "{length}");
    let mut told = String::new();
    File::from(reader).read_to_string(&mut told).expect("text");
    assert!(told.contains(LOST) && told.contains("File too large"), "{told}");
}

#[test]
fn a_reader_that_never_reads_blocks_no_client() {
    let (_reader, writer) = pipe();
    let server = verbose().start_onto(copy(&writer), writer);
    serve_under_load(&server);
    end(server);
}

#[test]
fn lines_that_a_slow_reader_missed_are_counted_in_one_line() {
    let (reader, writer) = pipe();
    let server = verbose().start_onto(copy(&writer), writer);
    // More than the queue takes.
    for _ in 0..3 {
        serve_under_load(&server);
    }
    let lines = read(File::from(reader));
    let report = find(&lines, LOST);
    let count = report.split("unread=").nth(1).and_then(|count| count.trim().parse().ok());
    assert!(count.unwrap_or(0_u64) > 0, "{report}");
    // It is read again, so nothing more is lost.
    let mut client = connect(&server);
    client.subscribe("the-last-channel");
    drop(client);
    end(server);
    let rest: Vec<String> = lines.iter().collect();
    assert!(rest.iter().any(|line| line.contains("the-last-channel")), "{rest:#?}");
    assert!(!rest.iter().any(|line| line.contains(LOST)), "{rest:#?}");
}

/// Both ends of a terminal, with Ctrl-S pressed when `stopped`.
fn terminal(stopped: bool) -> (File, OwnedFd) {
    let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
    let keyboard = keyboard.expect("a terminal");
    grantpt(&keyboard).and_then(|()| unlockpt(&keyboard)).expect("its other end");
    let name = ptsname(&keyboard, Vec::new()).expect("its name").into_string().expect("UTF-8");
    let screen = File::options().read(true).write(true).open(name).expect("its other end");
    let mut keyboard = File::from(keyboard);
    if stopped {
        keyboard.write_all(b"\x13").expect("Ctrl-S");
    }
    (keyboard, screen.into())
}

#[test]
fn a_terminal_stopped_before_the_start_blocks_no_client() {
    let (_keyboard, screen) = terminal(true);
    let server = verbose().start_onto(copy(&screen), screen);
    serve_under_load(&server);
    end(server);
}

#[test]
fn a_terminal_stopped_for_a_while_blocks_no_client() {
    let (mut keyboard, screen) = terminal(true);
    let server = verbose().start_onto(copy(&screen), screen);
    for _ in 0..3 {
        serve_under_load(&server);
    }
    keyboard.write_all(b"\x11").expect("Ctrl-Q");
    let lines = read(keyboard.try_clone().expect("a descriptor"));
    find(&lines, LOST);
    keyboard.write_all(b"\x13").expect("Ctrl-S");
    serve_under_load(&server);
    end(server);
}

/// Another process that shares the terminal or pipe may set O_NONBLOCK on it.
#[test]
fn a_non_blocking_stream_blocks_no_client() {
    let (reader, writer) = pipe();
    rustix::io::ioctl_fionbio(&writer, true).expect("O_NONBLOCK");
    let server = verbose().start_onto(copy(&writer), writer);
    serve_under_load(&server);
    find(&read(File::from(reader)), "Message Handled");
    end(server);
}

/// The reader is slow, but reads: nothing that was accepted is lost at the end.
#[test]
fn all_that_waits_is_written_at_the_end() {
    let (reader, writer) = pipe();
    let server = verbose().start_onto(copy(&writer), writer);
    let mut client = connect(&server);
    for number in 0..500 {
        client.subscribe(&format!("channel-{number}-end"));
    }
    server.signal(Signal::TERM);
    client.closed();
    drop(client);
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).expect("text");
    assert_eq!(server.ends_within(END), Some(0));
    for number in 0..500 {
        assert!(text.contains(&format!("channel-{number}-end")), "{number} in {text}");
    }
    assert!(text.contains("terminating connections") && !text.contains(LOST), "{text}");
}

fn print_events(server: &Server, count: u32) {
    let mut http = Http::new(server);
    for number in 0..count {
        let data = format!("{number} {}", "x".repeat(9_000));
        let body = json!({"name": "e", "channel": "news", "data": data}).to_string();
        let reply =
            within(Duration::from_secs(3), "a publish", || http.ask(&Request::events(&body)));
        assert_eq!(reply.status, 200);
    }
}

#[test]
fn unread_printed_events_are_dropped_whole_and_counted() {
    let ((reader, writer), (errors, error_writer)) = (pipe(), pipe());
    let setup = Setup::new().args(&["--print-events", "json"]).workers(2);
    let server = setup.start_onto(writer, error_writer);
    let log = std::thread::spawn(move || {
        BufReader::new(File::from(errors)).lines().map(|line| line.expect("text")).collect()
    });
    // 8 MiB wait; 1,000 of these are more.
    print_events(&server, 1_500);
    server.connect().sync();
    let lines = read(File::from(reader));
    let next = || lines.recv_timeout(DEADLINE).expect("an event");
    let number = |line: String| -> u32 {
        let data = json(&line)["data"].as_str().expect("a text").to_owned();
        data.split(' ').next().and_then(|text| text.parse().ok()).expect("its number")
    };
    let mut printed = vec![number(next())];
    server.publish("news", "e", "4000 last");
    while *printed.last().expect("some") != 4_000 {
        printed.push(number(next()));
    }
    assert!(printed.is_sorted() && printed.len() < 1_400, "{}", printed.len());
    server.signal(Signal::TERM);
    assert_eq!(server.ends_within(END), Some(0));
    let log: Vec<String> = log.join().expect("the log");
    let count =
        |line: &String| line.split("unread=").nth(1)?.split(' ').next()?.parse::<usize>().ok();
    let lost: usize =
        log.iter().filter(|line| line.contains("events of --print-events")).filter_map(count).sum();
    assert_eq!(lost + printed.len(), 1_501, "each event is printed or counted: {log:?}");
}

#[test]
fn printed_events_for_a_closed_pipe_block_no_client() {
    let (reader, writer) = pipe();
    drop(reader);
    let setup = Setup::new().args(&["--print-events", "json"]).workers(1);
    let server = setup.start_onto(copy(&writer), writer);
    print_events(&server, 200);
    server.signal(Signal::TERM);
    assert_eq!(server.ends_within(END), Some(0));
}

/// Texts that would make long lines, end them, or steer a terminal.
fn hostile_texts() -> Vec<String> {
    let steering = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\n2026-01-01 ERROR forged\u{9b}31m\u{202e}\0";
    vec![
        steering.to_owned(),
        "x".repeat(7_000),
        "\u{7f}".repeat(3_000),
        format!("{steering}{}", "é\u{2028}\"\\".repeat(700)),
    ]
}

/// Sends these texts wherever a peer can put one.
fn send_everywhere(server: &Server, text: &str) {
    // What HTTP does not let through as it is.
    let header: String = text.chars().filter(|char| !matches!(char, '\r' | '\n' | '\0')).collect();
    let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let short: String = encoded.chars().take(6_000).collect();
    let raw = |head: String| {
        let mut wire = server.wire();
        wire.send(head.as_bytes());
        crate::support::drain(&mut wire.stream);
    };
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let target = format!("/app/{}?protocol=7", crate::support::APP_KEY);
    raw(format!("GET {target} HTTP/1.1\r\nHost: x\r\nOrigin: {header}\r\n{handshake}\r\n"));
    raw(format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {header}\r\nConnection: close\r\n\r\n"
    ));
    raw(format!("GET /app/{short}?protocol=7 HTTP/1.1\r\nHost: x\r\n{handshake}\r\n"));
    raw(format!("GET /{short} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    raw(format!("{header} / HTTP/1.1\r\n\r\n"));
    for path in ["/apps/1001/events", "/apps/1001/channels"] {
        let target = format!("{path}?auth_key={short}&auth_signature={short}");
        raw(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    }
    raw(format!("GET /apps/{short}/channels HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    for body in [
        json!({"name": text, "channel": "news", "data": text}),
        json!({"name": "e", "channel": text, "data": "{}"}),
        json!({"name": "e", "channel": "news", "data": "", "socket_id": text}),
        json!({"name": "e", "channel": "news", "data": "", "info": text}),
    ] {
        server.ask(&Request::events(&body.to_string()));
    }
    send_messages(&mut connect(server), text);
}

fn send_messages(client: &mut Client, text: &str) {
    for message in [
        json!({"event": "pusher:subscribe", "data": {"channel": format!("private-{text}"), "auth": text}}),
        json!({"event": "pusher:subscribe", "data": {"channel": format!("presence-{text}"), "auth": text,
            "channel_data": text}}),
        json!({"event": "pusher:subscribe", "data": {"channel": text}}),
        json!({"event": "pusher:signin", "data": {"auth": text, "user_data": text}}),
        json!({"event": format!("client-{text}"), "channel": "news", "data": text}),
        json!({"event": "client-e", "channel": text, "data": text}),
        json!({"event": text, "data": text}),
    ] {
        client.send(&message.to_string());
    }
    client.send(text);
    client.wire.send(&frame::raw(frame::FIN | frame::PING, b"sync"));
    while client.frame().opcode != frame::PONG {}
    client.wire.send(&frame::close(4000, &text.chars().take(30).collect::<String>()));
    crate::support::drain(&mut client.wire.stream);
}

/// What may be in a line of a log that is read at a terminal.
fn is_harmless(line: &str) -> bool {
    !line.chars().any(|char| char.is_control() || matches!(char, '\u{2028}'..='\u{202e}'))
}

#[test]
fn no_text_of_a_peer_makes_a_line_long_or_steers_a_terminal() {
    for level in ["info", "trace"] {
        let setup = Setup::new().workers(1).env("RUST_LOG", level);
        let server = setup
            .env("RINGVERB_ALLOWED_ORIGINS", "https://good.test")
            .env("REVERB_MAX_REQUEST_SIZE", "100000")
            .env("REVERB_APP_MAX_MESSAGE_SIZE", "100000")
            .start();
        for text in hostile_texts() {
            send_everywhere(&server, &text);
            // The rate of lines is limited by the second.
            let since = now();
            eventually("a second is over", || (since.elapsed().as_millis() > 1_100).then_some(()));
        }
        server.signal(Signal::TERM);
        let Finished { stdout, stderr, .. } = server.finish();
        assert!(stdout.lines().filter(|line| line.contains(" WARN ")).count() > 10, "{stdout}");
        for line in stdout.lines().chain(stderr.lines()) {
            assert!(line.len() <= 512, "{} bytes: {line}", line.len());
            assert!(is_harmless(line), "{line:?}");
            assert!(!line.starts_with("2026-01-01 ERROR forged"), "{line}");
        }
    }
}

#[test]
fn peers_cannot_fill_a_disk_with_log_lines() {
    let setup = Setup::new().workers(4).env("RINGVERB_ALLOWED_ORIGINS", "https://good.test");
    let server = setup.start();
    let origin = "https://".to_owned() + &"x".repeat(8_000);
    let handshake = Handshake::new().header("Origin", &origin);
    let start = now();
    while start.elapsed() < Duration::from_secs(4) {
        Client::open(&server, &handshake).event();
    }
    server.signal(Signal::TERM);
    let Finished { stdout, .. } = server.finish();
    // The burst, the rate, and what is said once.
    let most = 64 * 1024 + 8 * 2_048 + 8 * 1024;
    assert!(stdout.len() < most, "{} bytes in 4 s", stdout.len());
    assert!(
        stdout.contains("refused. Allowed: https://good.test (RINGVERB_ALLOWED_ORIGINS)"),
        "{stdout}"
    );
}
