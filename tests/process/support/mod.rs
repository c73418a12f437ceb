//! What the tests of the running server share: the server itself, a WebSocket client, an HTTP client, a Redis.
//!
//! Blocking and plain, so that a test reads as a transcript. Every wait is for a condition and has a deadline, no port
//! is fixed, and each server has a folder and an environment of its own. The encoders here are not the server's: a
//! fault on one side must not cancel itself out on the other.

mod client;
pub(crate) mod cluster;
mod endpoint;
mod gate;
mod http;
mod redis;
mod server;
mod setup;
pub(crate) mod tls;
mod wire;

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringverb::app::Secret;
use ringverb::pusher::signature;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

pub(crate) use client::{Client, Handshake};
pub(crate) use endpoint::{Answer, Endpoint};
pub(crate) use http::{Http, Request};
pub(crate) use redis::Redis;
pub(crate) use server::{Server, connections_in};
pub(crate) use setup::{Finished, Setup};
pub(crate) use wire::{Frame, Head, Reply, Wire, frame};

/// The app of the recorded traffic.
pub(crate) const APP_ID: &str = "1001";
pub(crate) const APP_KEY: &str = "app-key";
pub(crate) const APP_SECRET: &str = "app-secret";

/// How long anything may take on a busy machine. A test that passes never waits that long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The answer to anything malformed.
pub(crate) const INVALID: &str =
    r#"{"event":"pusher:error","data":"{\"code\":4200,\"message\":\"Invalid message format\"}"}"#;
pub(crate) const PING: &str = r#"{"event":"pusher:ping","data":{}}"#;
pub(crate) const PONG: &str = r#"{"event":"pusher:pong"}"#;

#[expect(clippy::disallowed_methods, reason = "a test has no tick to take the time from")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a test has no tick to take the time from")]
pub(crate) fn unix_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("a clock behind 1970").as_secs()
}

/// The pause between two looks at what a test waits for. Without it, the tests that wait would keep the cores from
/// those that run.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Waits until it is worth looking again.
#[expect(clippy::disallowed_methods, reason = "a test has no worker to hold up")]
pub(crate) fn poll_pause() {
    std::thread::sleep(POLL_INTERVAL);
}

/// Waits until this much time is over: for what the server counts in seconds, and for what must not happen.
#[expect(clippy::disallowed_methods, reason = "a test has no worker to hold up")]
pub(crate) fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// Asks again and again, until the answer is what the test waits for.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        poll_pause();
    }
}

/// Stops a process, as one that hangs.
pub(crate) fn pause(child: &Child) {
    kill_process(Pid::from_child(child), Signal::STOP).expect("the process is there");
    // The signal is on its way when `kill` returns.
    eventually("all its threads are stopped", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("a process");
        let mut states = tasks.map(|task| {
            let path = task.expect("a task").path().join("stat");
            let text = std::fs::read_to_string(path).expect("a task of a process that is there");
            // The name before it may hold anything.
            text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
        });
        states.all(|state| state == Some('T')).then_some(())
    });
}

/// Acts, and fails if that took longer.
pub(crate) fn within<T>(limit: Duration, what: &str, act: impl FnOnce() -> T) -> T {
    let start = now();
    let result = act();
    let took = start.elapsed();
    assert!(took < limit, "{what} took {took:?}");
    result
}

/// A connection whose kernel takes little before its reader does.
pub(crate) fn small_window(server: &Server) -> Client {
    Client::open_on(wire_with_small_window(server), &Handshake::new()).established()
}

/// A connection whose client's kernel keeps little for it.
pub(crate) fn wire_with_small_window(server: &Server) -> Wire {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("SO_RCVBUF");
    socket.connect(&server.address.into()).expect("the server accepts");
    Wire::new(TcpStream::from(socket))
}

/// The tests may have as many sockets as this process may.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be as high as the hard one");
}

/// Reads until the server ends the connection, however it does.
pub(crate) fn drain(stream: &mut TcpStream) {
    let mut chunk = [0; 64 * 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "the server holds the connection");
                return;
            }
        }
    }
}

/// The resident set of a process.
pub(crate) fn resident_bytes(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).expect("it runs");
    let pages = text.split(' ').nth(1).and_then(|text| text.parse::<u64>().ok());
    pages.expect("a number of pages") * rustix::param::page_size() as u64
}

/// The processor time of a process so far.
pub(crate) fn processor_time(process: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let (_, behind_name) = text.rsplit_once(") ").expect("a name in brackets");
    let fields: Vec<&str> = behind_name.split(' ').collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("a number of ticks");
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_millis((ticks(11) + ticks(12)) * 1_000 / per_second)
}

/// Signs with the secret of the app of the tests.
pub(crate) fn sign(parts: &[&str]) -> String {
    sign_with(APP_SECRET, parts)
}

pub(crate) fn sign_with(secret: &str, parts: &[&str]) -> String {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    let hex = signature::sign(&Secret::new(secret), &parts);
    String::from_utf8(hex.to_vec()).expect("hex")
}

/// The `auth` of a subscription.
pub(crate) fn channel_auth(socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    let signature = match channel_data {
        None => sign(&[socket_id, ":", channel]),
        Some(data) => sign(&[socket_id, ":", channel, ":", data]),
    };
    format!("{APP_KEY}:{signature}")
}

/// A free port for a server that must know it before it starts. The kernel gives ports of this range to nobody who asks
/// for any port, so none of the tests that run beside this one gets it.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = (0..COUNT).map(|_| {
        // Another run of the tests begins elsewhere.
        let number =
            std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        u16::try_from(FIRST + number % COUNT).expect("a port")
    });
    ports.find(is_free).expect("a free port")
}

/// A JSON text as a value.
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// The value in the `data` string of an event.
pub(crate) fn data(event: &Value) -> Value {
    json(event["data"].as_str().unwrap_or_else(|| panic!("data of {event} is no string")))
}

/// `pusher:error` as Reverb writes it.
pub(crate) fn error_event(code: u16, message: &str) -> String {
    format!(r#"{{"event":"pusher:error","data":"{{\"code\":{code},\"message\":\"{message}\"}}"}}"#)
}

/// `pusher_internal:subscription_succeeded` of a channel without a roster.
pub(crate) fn succeeded(channel: &str) -> String {
    let channel = Value::from(channel);
    format!(
        r#"{{"event":"pusher_internal:subscription_succeeded","data":"{{}}","channel":{channel}}}"#
    )
}

/// All Rust files of a folder, one after the other.
pub(crate) fn rust_text_below(folder: &std::path::Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text.push_str(&rust_text_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).expect("a source file"));
        }
    }
    text
}

/// Makes a file that is to be executed: with `text`, or a copy of `from`.
///
/// Another process writes it. A test that starts a server at that moment would pass a descriptor open for writing to
/// its child until that executes, and the kernel refuses to execute a file that anybody has open for writing.
pub(crate) fn make_program(path: &std::path::Path, content: Content<'_>) {
    let mut command = std::process::Command::new("sh");
    match content {
        Content::Copy(from) => command.args(["-c", "cp \"$1\" \"$2\"", "sh", from]),
        Content::Script(text) => {
            command.args(["-c", "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", text])
        }
    };
    assert!(command.arg(path).status().expect("a shell").success());
}

/// What `make_program` writes.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    Copy(&'a str),
    Script(&'a str),
}
