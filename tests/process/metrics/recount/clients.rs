//! Clients and backends that count what they see, and the churn of one thread.

use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;

use crate::support::{Client, Frame, Handshake, Http, Reply, Request, Wire, frame, now};

/// Connections that a thread has open at a time.
pub(super) const HELD: usize = 40;
/// Channels of each kind.
const NAMES: usize = 16;
/// The churn goes on until so many connections were opened: a slow machine needs longer.
pub(super) const CONNECTIONS_MIN: u64 = 3_000;

/// A channel: its kind and its number.
pub(super) type Place = (usize, usize);

fn channel((kind, number): Place) -> String {
    let prefix = ["news", "private-orders", "presence-room"][kind];
    format!("{prefix}-{number}")
}

/// What one client or several have seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) opened: u64,
    pub(super) closed_by_client: u64,
    pub(super) lost: u64,
    pub(super) terminated: u64,
    pub(super) sent_messages: u64,
    pub(super) received_messages: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) client_events: u64,
    /// By kind.
    pub(super) subscribed: [u64; 3],
    pub(super) left: [u64; 3],
    pub(super) published: u64,
    pub(super) calls: u64,
    pub(super) call_bytes: u64,
    pub(super) answer_bytes: u64,
    /// Refusals by reason.
    pub(super) unauthorized: u64,
    pub(super) malformed: u64,
    pub(super) other: u64,
    pub(super) unauthenticated: u64,
    pub(super) invalid_requests: u64,
    pub(super) no_such_app: u64,
    /// Bytes that refused handshakes were sent.
    pub(super) refused_bytes: u64,
}

impl Seen {
    pub(super) fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.opened, other.opened),
            (&mut self.closed_by_client, other.closed_by_client),
            (&mut self.lost, other.lost),
            (&mut self.terminated, other.terminated),
            (&mut self.sent_messages, other.sent_messages),
            (&mut self.received_messages, other.received_messages),
            (&mut self.sent_bytes, other.sent_bytes),
            (&mut self.received_bytes, other.received_bytes),
            (&mut self.client_events, other.client_events),
            (&mut self.published, other.published),
            (&mut self.calls, other.calls),
            (&mut self.call_bytes, other.call_bytes),
            (&mut self.answer_bytes, other.answer_bytes),
            (&mut self.unauthorized, other.unauthorized),
            (&mut self.malformed, other.malformed),
            (&mut self.other, other.other),
            (&mut self.unauthenticated, other.unauthenticated),
            (&mut self.invalid_requests, other.invalid_requests),
            (&mut self.no_such_app, other.no_such_app),
            (&mut self.refused_bytes, other.refused_bytes),
        ];
        pairs.into_iter().for_each(|(sum, part)| *sum += part);
        for kind in 0..3 {
            self.subscribed[kind] += other.subscribed[kind];
            self.left[kind] += other.left[kind];
        }
    }
}

/// A connection that counts.
pub(super) struct Counting {
    client: Client,
    user: usize,
    handshake_bytes: u64,
    pub(super) places: Vec<Place>,
}

impl Counting {
    fn open(server: SocketAddr, user: usize, seen: &mut Seen) -> Self {
        let handshake = Handshake::new();
        let client = Client::open_on(wire(server), &handshake).established();
        seen.opened += 1;
        seen.received_messages += 1;
        let handshake_bytes = handshake.bytes().len() as u64;
        Self { client, user, handshake_bytes, places: Vec::new() }
    }

    /// Reads messages until one has this name.
    fn read_until(&mut self, event: &str, seen: &mut Seen) {
        loop {
            let got = self.client.event();
            seen.received_messages += 1;
            if got["event"] == event {
                return;
            }
        }
    }

    fn send(&mut self, text: &str, seen: &mut Seen) {
        self.client.send(text);
        seen.sent_messages += 1;
    }

    fn subscribe(&mut self, place: Place, seen: &mut Seen) {
        let data = json!({ "user_id": self.user.to_string() }).to_string();
        let data = (place.0 == 2).then_some(&*data);
        let text = self.client.subscribe_message(&channel(place), data);
        self.send(&text, seen);
        self.read_until("pusher_internal:subscription_succeeded", seen);
        seen.subscribed[place.0] += 1;
        self.places.push(place);
    }

    /// A client event to the others of a private channel.
    fn whisper(&mut self, seen: &mut Seen) {
        let Some(place) = self.places.iter().find(|(kind, _)| *kind == 1).copied() else { return };
        let event = json!({ "event": "client-a", "channel": channel(place), "data": { "a": 1 } });
        self.send(&event.to_string(), seen);
        seen.client_events += 1;
    }

    /// Three messages that the server refuses. Each is answered with an error, and the connection stays.
    fn be_refused(&mut self, number: usize, seen: &mut Seen) {
        let text = match number % 3 {
            0 => {
                seen.unauthorized += 1;
                let data = json!({ "channel": "private-other", "auth": "app-key:0000" });
                json!({ "event": "pusher:subscribe", "data": data }).to_string()
            }
            1 => {
                seen.malformed += 1;
                "{\"event\":7}".to_owned()
            }
            _ => {
                // The app does not take client events on public channels.
                seen.other += 1;
                json!({ "event": "client-a", "channel": channel((0, 0)), "data": {} }).to_string()
            }
        };
        self.send(&text, seen);
        loop {
            let got = self.client.event();
            seen.received_messages += 1;
            let event = got["event"].as_str().unwrap_or_default();
            if event == "pusher:error" || event == "pusher:subscription_error" {
                return;
            }
        }
    }

    /// Reads all that the server has sent until now.
    pub(super) fn sync(&mut self, seen: &mut Seen) {
        self.client.send_bytes(&frame::raw(frame::FIN | frame::PING, b""));
        loop {
            let Frame { opcode, .. } = self.client.frame();
            match opcode {
                frame::TEXT => seen.received_messages += 1,
                opcode => {
                    assert_eq!(opcode, frame::PONG);
                    return;
                }
            }
        }
    }

    fn leave(&mut self, count: usize, seen: &mut Seen) {
        for place in self.places.split_off(self.places.len().saturating_sub(count)) {
            self.client.unsubscribe(&channel(place));
            seen.sent_messages += 1;
            seen.left[place.0] += 1;
        }
        self.sync(seen);
    }

    /// Notes bytes at the end of the connection, or of the test.
    pub(super) fn note(&self, seen: &mut Seen) {
        seen.sent_bytes += self.client.wire.sent_bytes - self.handshake_bytes;
        seen.received_bytes += self.client.wire.received_bytes;
    }

    fn note_left(&self, seen: &mut Seen) {
        self.places.iter().for_each(|(kind, _)| seen.left[*kind] += 1);
    }

    /// Closes in order: what was sent before the answer to the close frame arrives.
    fn close(mut self, seen: &mut Seen) {
        self.client.send_bytes(&frame::close(1000, ""));
        while self.client.frame().opcode == frame::TEXT {
            seen.received_messages += 1;
        }
        self.client.wire.ended();
        seen.closed_by_client += 1;
        self.note(seen);
        self.note_left(seen);
    }

    /// Ends without a close frame. It is in no channel, so that nothing is under way.
    fn cut(mut self, seen: &mut Seen) {
        self.leave(usize::MAX, seen);
        self.client.wire.stream.shutdown(Shutdown::Write).expect("a connection");
        self.client.wire.ended();
        seen.lost += 1;
        self.note(seen);
    }

    /// The backend ends the connections of its user.
    fn terminate(mut self, http: &mut Backend, seen: &mut Seen) {
        let path = format!("/users/{}/terminate_connections", self.user);
        assert_eq!(http.ask(&Request::post(&path, ""), seen).status, 200);
        self.read_until("pusher:error", seen);
        assert_eq!(self.client.frame().opcode, frame::CLOSE);
        self.client.wire.ended();
        seen.terminated += 1;
        self.note(seen);
        self.note_left(seen);
    }

    fn end(self, how: usize, http: &mut Backend, seen: &mut Seen) {
        let is_user = self.places.iter().any(|(kind, _)| *kind == 2);
        match how % 3 {
            0 => self.cut(seen),
            1 if is_user => self.terminate(http, seen),
            _ => self.close(seen),
        }
    }
}

/// A backend that counts.
struct Backend(Http);

impl Backend {
    fn ask(&mut self, request: &Request, seen: &mut Seen) -> Reply {
        let wire = &mut self.0.wire;
        let (sent, received) = (wire.sent_bytes, wire.received_bytes);
        let reply = self.0.ask(request);
        seen.calls += 1;
        seen.call_bytes += self.0.wire.sent_bytes - sent;
        seen.answer_bytes += self.0.wire.received_bytes - received;
        reply
    }

    fn publish(&mut self, places: &[Place], seen: &mut Seen) {
        let channels: Vec<String> = places.iter().map(|place| channel(*place)).collect();
        let body = json!({ "name": "e", "channels": channels, "data": "{}" }).to_string();
        assert_eq!(self.ask(&Request::events(&body), seen).status, 200);
        seen.published += places.len() as u64;
    }

    fn publish_batch(&mut self, places: &[Place], seen: &mut Seen) {
        let event = |place: &Place| json!({ "name": "e", "channel": channel(*place), "data": "1" });
        let batch: Vec<_> = places.iter().map(event).collect();
        let body = json!({ "batch": batch }).to_string();
        assert_eq!(self.ask(&Request::post("/batch_events", &body), seen).status, 200);
        seen.published += places.len() as u64;
    }

    /// A request with a wrong signature, or one without an event's name.
    fn be_refused(&mut self, number: usize, seen: &mut Seen) {
        if number.is_multiple_of(2) {
            seen.unauthenticated += 1;
            let wrong = Request::get("/channels").secret("another secret");
            assert_eq!(self.ask(&wrong, seen).status, 401);
        } else {
            seen.invalid_requests += 1;
            let nameless = Request::events("{\"channel\":\"news-1\",\"data\":\"1\"}");
            assert_eq!(self.ask(&nameless, seen).status, 422);
        }
    }
}

fn wire(server: SocketAddr) -> Wire {
    Wire::new(TcpStream::connect(server).expect("the server accepts"))
}

/// A handshake for an app that is not there: its connection is not counted as one.
fn knock(server: SocketAddr, seen: &mut Seen) {
    let handshake = Handshake::to("/app/another-key?protocol=7");
    let mut client = Client::open_on(wire(server), &handshake);
    assert_eq!(client.event()["event"], "pusher:error");
    assert_eq!(client.frame().opcode, frame::CLOSE);
    client.wire.ended();
    seen.no_such_app += 1;
    seen.refused_bytes += client.wire.received_bytes;
}

/// One thread of the churn. Connections that stay open are returned.
pub(super) fn churn(
    server: SocketAddr,
    thread: usize,
    until: Instant,
    opened: &AtomicU64,
) -> (Seen, VecDeque<Counting>) {
    let mut seen = Seen::default();
    let mut http = Backend(Http { wire: wire(server) });
    let mut held = VecDeque::new();
    for round in 0.. {
        if now() >= until && opened.load(Ordering::Relaxed) >= CONNECTIONS_MIN {
            break;
        }
        opened.fetch_add(1, Ordering::Relaxed);
        // A user of its own, so that terminating one ends one.
        let mut one = Counting::open(server, thread * 10_000_000 + round, &mut seen);
        let number = |step: usize| (round * step + thread) % NAMES;
        for (kind, step) in [(0, 1), (1, 3), (2, 5)] {
            if !(round + kind + thread).is_multiple_of(4) {
                one.subscribe((kind, number(step)), &mut seen);
            }
        }
        one.whisper(&mut seen);
        match round % 5 {
            0 => http.publish(&[(0, number(1)), (1, number(7)), (2, number(11))], &mut seen),
            1 => http.publish_batch(&[(1, number(3)), (2, number(5))], &mut seen),
            2 => one.be_refused(round / 5, &mut seen),
            3 => http.be_refused(round / 5, &mut seen),
            _ => knock(server, &mut seen),
        }
        if round.is_multiple_of(7) {
            one.leave(1, &mut seen);
        }
        held.push_back(one);
        if held.len() > HELD {
            let oldest = held.pop_front().expect("it is full");
            oldest.end(round, &mut http, &mut seen);
        }
    }
    (seen, held)
}
