//! A new process takes the connections themselves over from a running one, and no client notices (`--takeover`).

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::support::{
    Client, Finished, Handshake, Http, Request, Server, Setup, Wire, data, eventually, frame, sign,
    small_window, succeeded,
};
use rustix::process::Signal;
use serde_json::{Value, json};

pub(super) const CHANNEL: &str = "news";

pub(super) fn setup(workers: u16) -> Setup {
    Setup::new().workers(workers)
}

/// The server that takes over from this one.
pub(super) fn take_over_with(old: &Server, workers: u16) -> Server {
    take_over_as(old, setup(workers))
}

fn take_over_as(old: &Server, setup: Setup) -> Server {
    setup.reaching(old).arg("--takeover").start_as_configured()
}

/// The old process has ended, and was content.
#[track_caller]
fn ended(old: Server) {
    let Finished { code, stdout, stderr } = old.finish();
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.contains("Another process has taken over, with all connections."), "{stdout}");
}

fn event(channel: &str, number: u32) -> Request {
    let body = json!({"name": "e", "channels": [channel], "data": number.to_string()});
    Request::events(&body.to_string())
}

/// One request on a connection of its own, as PHP does.
#[track_caller]
pub(super) fn publish(address: SocketAddr, channel: &str, number: u32) {
    let mut wire = Wire::new(TcpStream::connect(address).expect("somebody listens"));
    wire.send(&event(channel, number).bytes());
    let reply = wire.reply(true);
    assert_eq!(reply.status, 200, "{number}: {}", reply.body);
}

/// The next event is this one.
#[track_caller]
pub(super) fn expect_event(client: &mut Client, channel: &str, number: u32) {
    let event = client.event();
    assert_eq!(
        (&event["channel"], &event["data"]),
        (&json!(channel), &json!(number.to_string())),
        "{event}"
    );
}

/// Whether the backends are to end.
struct Over(AtomicBool);

/// Ends them, also where the test fails.
struct OverAtLast<'a>(&'a Over);

impl Drop for OverAtLast<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// No client is closed, and every client receives everything once and in order, while a backend publishes all the time
/// over a new connection for each request, another over one that it keeps, and processes follow each other.
fn nobody_notices(workers: &[u16], count: usize) {
    nobody_notices_processes(workers.iter().map(|workers| setup(*workers)), count);
}

fn nobody_notices_processes(mut setups: impl Iterator<Item = Setup>, count: usize) {
    let mut server = setups.next().expect("a process").start();
    let mut clients: Vec<Client> = (0..count)
        .map(|_| {
            let mut client = server.connect();
            client.subscribe(CHANNEL);
            client.subscribe("kept");
            client
        })
        .collect();
    let address = server.address;
    let over = Over(AtomicBool::new(false));
    let heard_of = AtomicU32::new(0);
    let (published, kept) = std::thread::scope(|scope| {
        let over_at_last = OverAtLast(&over);
        let publisher = scope.spawn(|| {
            let mut published = 0;
            while !over.0.load(Ordering::Relaxed) {
                publish(address, CHANNEL, published);
                published += 1;
                heard_of.store(published, Ordering::Relaxed);
            }
            published
        });
        let keeper = scope.spawn(|| {
            let mut wire = Wire::new(TcpStream::connect(address).expect("somebody listens"));
            let mut published = 0;
            while !over.0.load(Ordering::Relaxed) {
                wire.send(&event("kept", published).bytes());
                assert_eq!(wire.reply(true).status, 200);
                published += 1;
            }
            published
        });
        for setup in setups {
            let before = heard_of.load(Ordering::Relaxed);
            eventually("20 events are published", || {
                (heard_of.load(Ordering::Relaxed) >= before + 20).then_some(())
            });
            let new = take_over_as(&server, setup);
            ended(std::mem::replace(&mut server, new));
        }
        drop(over_at_last);
        (
            publisher.join().expect("the publisher"),
            keeper.join().expect("the one with a kept connection"),
        )
    });
    for client in &mut clients {
        let (mut next, mut next_kept) = (0, 0);
        while next < published || next_kept < kept {
            let event = client.event();
            let of_kept = event["channel"] == "kept";
            let expected = if of_kept { &mut next_kept } else { &mut next };
            assert_eq!(event["data"], expected.to_string(), "{event}");
            *expected += 1;
        }
        client.sync();
    }
    // They have the subscriptions that were acknowledged, and can do all that they could.
    publish(address, CHANNEL, published);
    for client in &mut clients {
        expect_event(client, CHANNEL, published);
        client.unsubscribe(CHANNEL);
        client.sync();
    }
    let occupied = server.get("/channels");
    assert_eq!(occupied, r#"{"channels":{"kept":{}}}"#);
    clients.into_iter().for_each(Client::close);
    server.signal(Signal::TERM);
    assert_eq!(server.finish().code, Some(0));
}

#[test]
fn a_take_over_with_one_worker_loses_and_repeats_nothing() {
    nobody_notices(&[1, 1], 20);
}

#[test]
fn three_take_overs_in_a_row_lose_and_repeat_nothing() {
    nobody_notices(&[2, 2, 2, 2], 200);
}

#[test]
fn take_overs_between_other_numbers_of_workers_lose_and_repeat_nothing() {
    nobody_notices(&[3, 1, 2, 4, 1], 60);
}

/// Sockets move between processes that wait for them in different ways.
#[test]
fn take_overs_between_io_uring_and_epoll_lose_and_repeat_nothing() {
    let ways = ["io_uring", "epoll", "io_uring", "epoll"];
    nobody_notices_processes(ways.iter().map(|io| setup(2).env("RINGVERB_IO", io)), 60);
}

fn member(id: &str) -> String {
    json!({"user_id": id, "user_info": {"name": id}}).to_string()
}

fn signed_in(server: &Server, id: &str, watchlist: &[&str]) -> Client {
    let mut client = server.connect();
    let user_data = json!({"id": id, "watchlist": watchlist}).to_string();
    let auth = format!("app-key:{}", sign(&[&client.socket_id, "::user::", &user_data]));
    let data = json!({"auth": auth, "user_data": user_data});
    client.send(&json!({"event": "pusher:signin", "data": data}).to_string());
    assert_eq!(client.event()["event"], "pusher:signin_success");
    client
}

/// The next event of a watcher: the name of the event and the users.
fn watched(client: &mut Client) -> (Value, Value) {
    let event = client.event();
    assert_eq!(event["event"], "pusher_internal:watchlist_events", "{event}");
    let event = &data(&event)["events"][0];
    (event["name"].clone(), event["user_ids"].clone())
}

#[test]
fn rosters_users_and_cached_events_are_transferred() {
    let old = setup(2).start();
    let (mut one, mut two) = (old.connect(), old.connect());
    one.join("presence-room", &member("1"));
    two.join("presence-room", &member("2"));
    assert_eq!(one.event()["event"], "pusher_internal:member_added");
    let there = signed_in(&old, "there", &[]);
    let mut watcher = signed_in(&old, "watcher", &["there", "nobody"]);
    assert_eq!(watched(&mut watcher), (json!("online"), json!(["there"])));
    old.publish("cache-news", "e", "cached");
    let before = old.get("/channels/presence-room/users");
    let server = take_over_with(&old, 3);
    ended(old);
    assert_eq!(server.get("/channels/presence-room/users"), before);
    for client in [&mut one, &mut two, &mut watcher] {
        client.sync();
    }

    let mut three = server.connect();
    let roster = three.join("presence-room", &member("3"));
    assert_eq!(roster["ids"], json!(["1", "2", "3"]));
    for client in [&mut one, &mut two] {
        let added = client.event();
        assert_eq!(added["event"], "pusher_internal:member_added", "{added}");
        assert_eq!(data(&added)["user_id"], "3");
    }
    two.send(r#"{"event":"client-hello","channel":"presence-room","data":"x"}"#);
    for client in [&mut one, &mut three] {
        let hello = client.event();
        assert_eq!((&hello["event"], &hello["user_id"]), (&json!("client-hello"), &json!("2")));
    }
    two.close();
    for client in [&mut one, &mut three] {
        let removed = client.event();
        assert_eq!(removed["event"], "pusher_internal:member_removed", "{removed}");
        assert_eq!(data(&removed)["user_id"], "2");
    }

    let mut late = server.connect();
    late.subscribe("cache-news");
    late.expect(r#"{"event":"e","data":"cached","channel":"cache-news"}"#);
    there.close();
    assert_eq!(watched(&mut watcher), (json!("offline"), json!(["there"])));
    let ends = Request::post("/users/watcher/terminate_connections", "");
    assert_eq!(server.ask(&ends).status, 200);
    assert_eq!(watcher.close_code_behind_events(), 4009);

    // toOthers(): a socket id is worth in the new process what it was in the old one.
    let body = json!({"name": "e", "channels": ["presence-room"], "data": "x", "socket_id": one.socket_id});
    assert_eq!(server.ask(&Request::events(&body.to_string())).status, 200);
    three.expect(r#"{"event":"e","data":"x","channel":"presence-room"}"#);
    one.sync();
}

/// What was sent is not sent again, and who comes and goes later is counted with those who came before.
#[test]
fn subscription_counts_are_transferred() {
    let counting = |setup: Setup| setup.env("RINGVERB_SUBSCRIPTION_COUNT", "true");
    let counted = |client: &mut Client, count: u32| {
        let event = client.event();
        assert_eq!(event["event"], "pusher_internal:subscription_count", "{event}");
        assert_eq!(data(&event)["subscription_count"], count);
    };
    let old = counting(setup(3)).start();
    let mut clients: Vec<Client> = Vec::new();
    for count in 1..=3 {
        let mut client = old.connect();
        client.subscribe(CHANNEL);
        clients.push(client);
        clients.iter_mut().for_each(|client| counted(client, count));
    }
    let server = counting(setup(2)).reaching(&old).arg("--takeover").start_as_configured();
    ended(old);
    clients.iter_mut().for_each(Client::sync);
    let mut late = server.connect();
    late.subscribe(CHANNEL);
    clients.push(late);
    clients.iter_mut().for_each(|client| counted(client, 4));
    clients.remove(0).close();
    clients.iter_mut().for_each(|client| counted(client, 3));
}

#[test]
fn incomplete_frames_and_requests_continue_after_a_take_over() {
    let old = setup(2).start();
    let mut framed = old.connect();
    let subscribe = frame::text(&framed.subscribe_message(CHANNEL, None));
    framed.send_bytes(&subscribe[..subscribe.len() / 2]);
    let mut in_fragments = old.connect();
    let message = in_fragments.subscribe_message(CHANNEL, None);
    let (first, rest) = message.as_bytes().split_at(20);
    in_fragments.send_bytes(&frame::raw(frame::TEXT, first));
    in_fragments.sync();
    let mut asking = old.wire();
    let request = event("nobody", 1).bytes();
    asking.send(&request[..request.len() / 3]);
    let mut shaking = old.wire();
    let handshake = Handshake::new().bytes();
    shaking.send(&handshake[..handshake.len() - 1]);
    let silent = old.wire();
    let mut kept = Http::new(&old);
    assert_eq!(kept.ask(&Request::get("/channels")).status, 200);
    // Told that it closes, it does not answer yet.
    let mut closing = old.connect();
    closing.send_bytes(&[0x81, 1, b'x']);

    let server = take_over_with(&old, 3);
    ended(old);
    framed.send_bytes(&subscribe[subscribe.len() / 2..]);
    framed.expect(&succeeded(CHANNEL));
    in_fragments.send_bytes(&frame::raw(frame::FIN, rest));
    in_fragments.expect(&succeeded(CHANNEL));
    asking.send(&request[request.len() / 3..]);
    assert_eq!(asking.reply(true).status, 200);
    shaking.send(&handshake[handshake.len() - 1..]);
    let mut shaking = Client::upgraded(shaking).0.established();
    shaking.sync();
    Client::open_on(silent, &Handshake::new()).established().sync();
    assert_eq!(kept.ask(&Request::get("/channels")).status, 200);
    assert_eq!(closing.close_code_behind_events(), 1002);
    server.publish(CHANNEL, "e", "x");
    for client in [&mut framed, &mut in_fragments] {
        client.expect(r#"{"event":"e","data":"x","channel":"news"}"#);
    }
}

/// More waits for it than the kernel holds, so the middle of a frame is with the kernel and the rest is not.
#[test]
fn the_send_queue_of_a_slow_reader_is_transferred() {
    const EVENTS: usize = 900;
    let roomy = |setup: Setup| setup.env("RINGVERB_SEND_QUEUE_BYTES_MAX", "67108864");
    let old = roomy(setup(1)).start();
    let mut slow = small_window(&old);
    slow.subscribe(CHANNEL);
    let text = "x".repeat(9_000);
    for number in 0..EVENTS {
        old.publish(CHANNEL, "e", &format!("{number} {text}"));
    }
    let server = roomy(setup(2)).reaching(&old).arg("--takeover").start_as_configured();
    ended(old);
    server.publish(CHANNEL, "e", &format!("{EVENTS} {text}"));
    for number in 0..=EVENTS {
        let event = slow.event();
        assert_eq!(event["data"].as_str().expect("text"), format!("{number} {text}"));
    }
    slow.sync();
}

#[test]
fn limits_of_an_address_are_transferred() {
    let limited = |setup: Setup| setup.env("RINGVERB_CONNECTIONS_PER_IP_MAX", "3");
    let old = limited(setup(2)).start();
    let clients: Vec<Client> = (0..3).map(|_| old.connect()).collect();
    let server = limited(setup(2)).reaching(&old).arg("--takeover").start_as_configured();
    ended(old);
    let mut refused = Client::open(&server, &Handshake::new());
    assert_eq!(refused.close_code_behind_events(), 4100);
    clients.into_iter().for_each(Client::close);
    (0..3).for_each(|_| {
        crate::support::eventually("a place", || {
            let mut client = Client::open(&server, &Handshake::new());
            (client.event()["event"] == "pusher:connection_established").then_some(())
        })
    });
}

/// The new process knows other apps: clients of removed apps are refused as at any handshake, the others continue.
#[test]
fn connections_of_a_removed_app_are_closed_after_a_take_over() {
    let old = setup(1).start();
    let mut client = old.connect();
    client.subscribe(CHANNEL);
    let other = setup(1).env("REVERB_APP_ID", "1002").env("REVERB_APP_KEY", "other-key");
    let mut server = other.reaching(&old).arg("--takeover").start_as_configured();
    ended(old);
    assert_eq!(client.event()["event"], "pusher:error");
    assert_eq!(client.close_code_behind_events(), 4001);
    let line = server.line_so_far_with("cause=app_gone");
    let told = "a connection of app \"1001\" was closed after the take-over: this process has no such app \
                cause=app_gone peer=127.0.0.1:";
    assert!(
        line.contains(told) && line.ends_with(&format!("socket={}", client.socket_id)),
        "{line}"
    );
    drop(client);
    let mut other =
        Client::open(&server, &Handshake::to("/app/other-key?protocol=7")).established();
    other.sync();
}
