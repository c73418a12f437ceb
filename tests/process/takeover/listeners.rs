//! A new process takes the port over from a running one: no client is refused, every client is back
//! (`--takeover=listeners`).

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{
    Client, Finished, Handshake, Request, Setup, Wire, now, raise_descriptor_limit,
};
use rustix::process::Signal;

const CHANNEL: &str = "news";
/// Clients stay with the old server, and come back.
const LISTENERS: &str = "--takeover=listeners";
/// The event that every client receives that is back.
const LAST: u32 = u32::MAX;
/// The default. A host that is busy with other things makes clients slower, not the server's promise longer.
const GRACE_SECONDS: u64 = 10;

fn setup(workers: u16) -> Setup {
    Setup::new().workers(workers).env("RINGVERB_SHUTDOWN_GRACE", &GRACE_SECONDS.to_string())
}

/// One request on a connection of its own.
fn publish(address: SocketAddr, number: u32) -> Result<(), String> {
    let body = serde_json::json!({"name": "e", "channels": [CHANNEL], "data": number.to_string()});
    let stream = TcpStream::connect(address).map_err(|error| format!("{number}: {error}"))?;
    let mut wire = Wire::new(stream);
    wire.send(&Request::events(&body.to_string()).bytes());
    let reply = wire.reply(true);
    (reply.status == 200).then_some(()).ok_or(format!("{number}: {} {}", reply.status, reply.body))
}

/// What pusher-js does: closed with 4200, it connects again at once.
fn come_back(address: SocketAddr, channel: &str, mut client: Client) -> Client {
    assert_eq!(client.close_code_behind_events(), 4200);
    drop(client);
    let wire = Wire::new(TcpStream::connect(address).expect("somebody listens"));
    let mut client = Client::open_on(wire, &Handshake::new()).established();
    client.subscribe(channel);
    client
}

/// One of so many listens to what is published; the others only come back: who has to read everything is late for
/// reasons of its own.
const LISTENS: usize = 50;

fn channel(number: usize) -> &'static str {
    if number.is_multiple_of(LISTENS) { CHANNEL } else { "quiet" }
}

/// Clients of the old server come back to the new one while a backend publishes all the time, over a connection for
/// each request as PHP does. Each finds a server at every moment.
fn swap(old_workers: u16, new_workers: u16, count: usize) {
    raise_descriptor_limit();
    let old = setup(old_workers).start();
    let clients: Vec<Client> = (0..count)
        .map(|number| {
            let mut client = old.connect();
            client.subscribe(channel(number));
            client
        })
        .collect();
    let address = old.address;
    let over = AtomicBool::new(false);
    let (new, back) = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut published = 0;
            while !over.load(Ordering::Relaxed) {
                publish(address, published).expect("somebody always answers");
                published += 1;
            }
            published
        });
        let start = now();
        let new = setup(new_workers).reaching(&old).arg(LISTENERS).start_as_configured();
        // Several at a time: people do not wait for each other.
        let mut parts: Vec<Vec<(usize, Client)>> = (0..4).map(|_| Vec::new()).collect();
        for (number, client) in clients.into_iter().enumerate() {
            parts[number % 4].push((number, client));
        }
        let come = move |(number, client)| (number, come_back(address, channel(number), client));
        let threads: Vec<_> = parts
            .into_iter()
            .map(|part| scope.spawn(move || part.into_iter().map(come).collect::<Vec<_>>()))
            .collect();
        let back: Vec<(usize, Client)> =
            threads.into_iter().flat_map(|part| part.join().expect("all are back")).collect();
        assert!(start.elapsed() < Duration::from_secs(GRACE_SECONDS + 2), "{:?}", start.elapsed());
        over.store(true, Ordering::Relaxed);
        assert!(publisher.join().expect("the publisher") > 0);
        (new, back)
    });
    let Finished { code, stdout, stderr } = old.finish();
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.contains("Another process has taken over"), "{stdout}");
    publish(new.address, LAST).expect("the new server publishes");
    assert_eq!(back.len(), count);
    let last = LAST.to_string();
    for (_, mut client) in back.into_iter().filter(|(number, _)| channel(*number) == CHANNEL) {
        while client.event()["data"] != *last {}
    }
}

#[test]
fn a_new_process_takes_over() {
    swap(2, 2, 5_000);
}

#[test]
fn the_new_process_may_have_fewer_workers() {
    swap(4, 1, 100);
}

#[test]
fn the_new_process_may_have_more_workers() {
    swap(1, 3, 100);
}

#[test]
fn one_take_over_after_the_other() {
    let first = setup(2).start();
    let second = setup(2).reaching(&first).arg(LISTENERS).start_as_configured();
    assert_eq!(first.finish().code, Some(0));
    let third = setup(2).reaching(&second).arg(LISTENERS).start_as_configured();
    assert_eq!(second.finish().code, Some(0));
    third.connect().sync();
}

#[test]
fn without_an_old_process_a_take_over_starts_as_usual() {
    let server = setup(1).arg(LISTENERS).start();
    server.connect().sync();
    let Finished { code, stdout, .. } = {
        server.signal(Signal::TERM);
        server.finish()
    };
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("starting as usual"), "{stdout}");
}

#[test]
fn a_start_that_fails_leaves_the_old_process_serving() {
    let old = setup(1).start();
    let mut client = old.connect();
    let failed = Setup::new().env("REVERB_APP_ID", "").reaching(&old).arg(LISTENERS).run();
    assert_eq!(failed.code, Some(2), "{}", failed.stderr);
    client.sync();
    publish(old.address, 1).expect("it serves on");
}
