//! A new process takes the connections themselves over from a running one, and no client notices (`--takeover`).

mod support;

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::process::Signal;
use serde_json::json;
use support::{Client, Finished, Request, Server, Setup, Wire};

const CHANNEL: &str = "news";

fn setup(workers: u16) -> Setup {
    Setup::new().workers(workers)
}

/// The server that takes over from this one.
fn successor(old: &Server, workers: u16) -> Server {
    setup(workers).reaching(old).arg("--takeover").start_as_configured()
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
fn publish(address: SocketAddr, channel: &str, number: u32) {
    let mut wire = Wire::new(TcpStream::connect(address).expect("somebody listens"));
    wire.send(&event(channel, number).bytes());
    let reply = wire.reply(true);
    assert_eq!(reply.status, 200, "{number}: {}", reply.body);
}

/// The next event is this one.
#[track_caller]
fn hears(client: &mut Client, channel: &str, number: u32) {
    let event = client.event();
    assert_eq!(
        (&event["channel"], &event["data"]),
        (&json!(channel), &json!(number.to_string())),
        "{event}"
    );
}

/// Nobody is closed, and everybody hears everything once and in order, while a backend publishes all the time over a new
/// connection for each request, another over one that it keeps, and processes follow each other.
fn nobody_notices(workers: &[u16], count: usize) {
    let mut server = setup(workers[0]).start();
    let mut clients: Vec<Client> = (0..count)
        .map(|_| {
            let mut client = server.connect();
            client.subscribe(CHANNEL);
            client.subscribe("kept");
            client
        })
        .collect();
    let address = server.address;
    let over = AtomicBool::new(false);
    let heard_of = AtomicU32::new(0);
    let (published, kept) = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut published = 0;
            while !over.load(Ordering::Relaxed) {
                publish(address, CHANNEL, published);
                published += 1;
                heard_of.store(published, Ordering::Relaxed);
            }
            published
        });
        let keeper = scope.spawn(|| {
            let mut wire = Wire::new(TcpStream::connect(address).expect("somebody listens"));
            let mut published = 0;
            while !over.load(Ordering::Relaxed) {
                wire.send(&event("kept", published).bytes());
                assert_eq!(wire.reply(true).status, 200);
                published += 1;
            }
            published
        });
        for workers in &workers[1..] {
            let before = heard_of.load(Ordering::Relaxed);
            while heard_of.load(Ordering::Relaxed) < before + 20 {
                std::thread::yield_now();
            }
            let new = successor(&server, *workers);
            ended(std::mem::replace(&mut server, new));
        }
        over.store(true, Ordering::Relaxed);
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
    // They are where they were told to be, and can do all that they could.
    publish(address, CHANNEL, published);
    for client in &mut clients {
        hears(client, CHANNEL, published);
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
fn nobody_notices_one_worker() {
    nobody_notices(&[1, 1], 20);
}

#[test]
fn nobody_notices_three_times() {
    nobody_notices(&[2, 2, 2, 2], 200);
}

#[test]
fn nobody_notices_other_numbers_of_workers() {
    nobody_notices(&[1, 3, 2, 4, 1], 60);
}
