//! The memory budget: who is refused over it, who has to go, and that all of it ends when there is room again.

use crate::support::{
    Client, Finished, Frame, Handshake, Http, PING, PONG, Request, Server, Setup, eventually,
    frame, resident_bytes, small_window,
};

const SHORT: &str = "The server is short of memory";
const MIB: u64 = 1 << 20;

/// A server that may have so much more than it has at its start.
fn with_room_for(mib: u64, setup: impl Fn() -> Setup) -> Server {
    let setup = || {
        let setup = setup().workers(2).env("REVERB_MAX_REQUEST_SIZE", "2000000");
        setup.env("REVERB_APP_PING_INTERVAL", "3600")
    };
    let plain = setup().start();
    plain.connect().close();
    let budget = (resident_bytes(plain.id()) + mib * MIB).max(16 * MIB);
    plain.stop();
    setup().env("RINGVERB_MEMORY_MAX", &budget.to_string()).start()
}

fn event(channel: &str, number: usize, bytes: usize) -> Request {
    let data = format!("{number} {}", "x".repeat(bytes));
    let body = serde_json::json!({ "name": "e", "channel": channel, "data": data });
    Request::events(&body.to_string())
}

/// Whether a new client is accepted; if not, it receives the reason.
fn is_taken(server: &Server) -> bool {
    let mut client = Client::open(server, &Handshake::new());
    let text = client.text();
    if text.contains("connection_established") {
        return true;
    }
    assert_eq!(text, crate::support::error_event(4100, SHORT));
    assert_eq!(client.closed(), (4100, SHORT.to_owned()));
    false
}

/// Remembered events are not in anybody's queue: nothing can be shed, so it lasts until they are too old.
///
/// The allocator returns what is freed only while the process allocates much. A server that accepts no client does not,
/// and once was over its budget for ever. So this test lets it alone until its memory is smaller.
#[test]
fn over_the_memory_limit_connections_are_refused_and_far_over_it_publishes() {
    let mut server = with_room_for(12, || Setup::new().env("RINGVERB_CACHE_TTL", "8"));
    let mut here = server.connect();
    here.subscribe("news");
    let mut http = Http::new(&server);
    let refused = (0..1_000).find_map(|number| {
        let reply = http.ask(&event(&format!("cache-{number}"), number, 1_000_000));
        (reply.status != 200).then_some(reply)
    });
    let refused = refused.expect("publishes are refused before 1,000 MB are remembered");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(
        refused.body,
        "The server is short of memory: the event was not published; try again."
    );
    assert_eq!(refused.head.header("retry-after"), Some("1"));
    assert!(!is_taken(&server), "a newcomer is taken in far over the budget");
    // Connected clients, and requests that only ask, are served.
    here.ask(PING, PONG);
    assert_eq!(server.open_connections(), 1);
    // A line in ten seconds; no request arrives during that time.
    server.line_with("connections are accepted again");
    eventually("room again", || is_taken(&server).then_some(()));
    eventually("publishes again", || {
        (server.ask(&event("news", 1, 1)).status == 200).then_some(())
    });
    here.expect(r#"{"event":"e","data":"1 x","channel":"news"}"#);
    here.close();
    server.signal(rustix::process::Signal::TERM);
    let Finished { stdout, .. } = server.finish();
    for part in [
        "RINGVERB_MEMORY_MAX is",
        "Raise the limit",
        " by memory, ",
        " by memory_publish",
        "a connection was refused because the server is short of memory: RINGVERB_MEMORY_MAX sets the limit \
         cause=memory peer=127.0.0.1:",
        "a publish was refused because the server is far over RINGVERB_MEMORY_MAX cause=memory_publish peer=127.0.0.1:",
    ] {
        assert!(stdout.contains(part), "{part} not in {stdout}");
    }
    let lines = stdout.lines().filter(|line| line.contains("MiB resident")).count();
    assert!(lines <= 3, "a line in ten seconds: {stdout}");
}

#[test]
fn slow_consumers_are_closed_first_over_the_memory_limit() {
    let server = with_room_for(32, || Setup::new().env("RINGVERB_SEND_QUEUE_BYTES_MAX", "128M"));
    let mut slow: Vec<Client> = (0..3).map(|_| small_window(&server)).collect();
    slow.iter_mut().for_each(|client| client.subscribe("news"));
    let mut reader = server.connect();
    // Of the long events one that is just being sent to it would count against it, too.
    reader.subscribe("short");
    let mut idle = server.connect();
    let mut number = 0;
    // A request that is refused for want of memory ends its connection.
    eventually("those who do not read are gone", || {
        for _ in 0..5 {
            if server.ask(&event("news", number, 1_000_000)).status == 200 {
                number += 1;
            }
            if server.ask(&event("short", number, 100)).status == 200 {
                assert!(reader.text().starts_with(&format!(r#"{{"event":"e","data":"{number} x"#)));
            }
        }
        (server.open_connections() == 2).then_some(())
    });
    for mut client in slow {
        // What it got is whole and in order, up to the end; then it receives the reason.
        for expected in 0.. {
            let Frame { opcode, payload } = client.frame();
            if opcode == frame::CLOSE {
                assert_eq!(payload, [&4100_u16.to_be_bytes()[..], SHORT.as_bytes()].concat());
                break;
            }
            let text = String::from_utf8(payload).expect("text");
            assert!(text.starts_with(&format!(r#"{{"event":"e","data":"{expected} x"#)));
        }
    }
    eventually("room again", || is_taken(&server).then_some(()));
    idle.ask(PING, PONG);
    reader.sync();
    drop((idle, reader));
    server.signal(rustix::process::Signal::TERM);
    let Finished { stdout, .. } = server.finish();
    assert!(stdout.contains(" 3 by shed"), "{stdout}");
    assert_eq!(
        stdout
            .matches("because the server is short of memory (RINGVERB_MEMORY_MAX) cause=shed")
            .count(),
        3
    );
}

/// Without the option nothing of it happens.
#[test]
fn without_a_memory_limit_nothing_is_measured() {
    let setup = Setup::new().env("REVERB_MAX_REQUEST_SIZE", "2000000");
    let server = setup.start();
    let mut http = Http::new(&server);
    for number in 0..60 {
        assert_eq!(http.ask(&event(&format!("cache-{number}"), number, 1_000_000)).status, 200);
    }
    assert!(is_taken(&server));
    server.stop();
}
