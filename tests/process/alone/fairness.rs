//! One connection that sends as fast as it can does not hold up the others of its worker. How long they wait is
//! measured by `ringverb-bench fairness`. Here the wait is the number of bytes of the flood that the server takes until
//! it answers another client: a host that stands still for a second changes it little.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Client, Http, PING, PONG, Server, Setup, eventually, frame};

/// A fair worker took 1.3 MB of the flood at most until it answered. A worker that starved others answered after 2 to
/// 30 s, in which it reads 18 MB at least.
const FLOOD_BYTES_MAX: usize = 8 << 20;
const ROUNDS: usize = 40;

/// Sends the same bytes again and again until it is stopped, and never waits for an answer.
fn flood(mut stream: TcpStream, bytes: &[u8], stop: &AtomicBool, sent: &AtomicUsize) {
    // The server reads a little of it at a time; a write that waits looks at `stop` this often.
    stream.set_write_timeout(Some(Duration::from_millis(20))).expect("SO_SNDTIMEO");
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        match stream.write(&bytes[at..]) {
            Ok(count) => {
                sent.fetch_add(count, Ordering::Relaxed);
                at = (at + count) % bytes.len();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("the server cut the flood off: {error}"),
        }
    }
}

/// Stops the flood, also where an assertion fails: the scope would wait for it otherwise.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The most bytes of the flood that the server took while it answered a ping and `GET /up`, on the flood's own worker.
fn most_taken_during(flooded: &Server, bytes: &[u8]) -> (usize, usize) {
    let mut client = flooded.connect();
    let flooder: Client = flooded.connect();
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let flood = scope.spawn(|| flood(flooder.wire.stream, bytes, &stop, &sent));
        // More than the kernel's buffers keep: from here on the server reads it.
        eventually("a flood", || {
            (sent.load(Ordering::Relaxed) > bytes.len() || flood.is_finished()).then_some(())
        });
        let before = sent.load(Ordering::Relaxed);
        let (mut ping, mut up) = (0, 0);
        for _ in 0..ROUNDS {
            let begin = sent.load(Ordering::Relaxed);
            client.ask(PING, PONG);
            let between = sent.load(Ordering::Relaxed);
            let reply = Http::new(flooded).ask_raw(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(reply.status, 200);
            ping = ping.max(between - begin);
            up = up.max(sent.load(Ordering::Relaxed) - between);
        }
        // It goes on through all rounds: the server reads on, although others are served, too.
        eventually("the flood goes on", || {
            (sent.load(Ordering::Relaxed) > before || flood.is_finished()).then_some(())
        });
        drop(stopping);
        flood.join().expect("the flood goes on to the end");
        (ping, up)
    })
}

fn others_are_served(what: &str, message: &[u8]) {
    let server = Setup::new().workers(1).start();
    let bytes = message.repeat((256 * 1024 / message.len()).max(1));
    let (ping, up) = most_taken_during(&server, &bytes);
    for (answered, taken) in [("a ping", ping), ("GET /up", up)] {
        assert!(taken < FLOOD_BYTES_MAX, "{what}: {answered} was answered after {taken} bytes");
    }
}

#[test]
fn a_flood_of_small_messages_does_not_starve_others() {
    let leave = frame::text(r#"{"event":"pusher:unsubscribe","data":{"channel":"x"}}"#);
    others_are_served("small messages", &leave);
}

#[test]
fn a_flood_of_large_messages_does_not_starve_others() {
    let text = format!(
        r#"{{"event":"pusher:unsubscribe","data":{{"channel":"x","pad":"{}"}}}}"#,
        "a".repeat(9_000)
    );
    others_are_served("large messages", &frame::text(&text));
}

#[test]
fn a_flood_of_empty_frames_does_not_starve_others() {
    others_are_served("empty frames", &frame::raw(frame::FIN | frame::PONG, b""));
}
