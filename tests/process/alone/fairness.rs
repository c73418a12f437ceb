//! One connection that sends as fast as it can does not hold up the others of its worker. How long they wait is
//! measured by `ringverb-bench fairness`; the bounds here are far above that, and far below what starvation causes.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Client, Http, PING, PONG, Server, Setup, eventually, frame};

/// A starved worker answered after 2 to 30 s. A fair one takes milliseconds, on a busy host some more.
const ANSWER_MAX: Duration = Duration::from_millis(1_000);
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

/// The longest time that a ping and `GET /up` took while a connection of the same worker sent these bytes.
fn longest_under(flooded: &Server, bytes: &[u8]) -> (Duration, Duration) {
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
        let (mut ping, mut up) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..ROUNDS {
            let begin = crate::support::now();
            client.ask(PING, PONG);
            ping = ping.max(begin.elapsed());
            let begin = crate::support::now();
            let reply = Http::new(flooded).ask_raw(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(reply.status, 200);
            up = up.max(begin.elapsed());
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
    let (ping, up) = longest_under(&server, &bytes);
    assert!(ping < ANSWER_MAX, "{what}: a ping of another client took {ping:?}");
    assert!(up < ANSWER_MAX, "{what}: GET /up took {up:?}");
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
