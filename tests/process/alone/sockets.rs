//! Sockets before they are WebSockets: how many there may be, and that they do not take the descriptors of others.

use std::time::Duration;

use crate::support::{Client, Handshake, PING, PONG, Server, Setup, Wire, eventually, now};

const UP: &[u8] = b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n";
const ATTACKER: [u8; 4] = [127, 0, 0, 9];

fn open(wires: &[Wire]) -> usize {
    wires.iter().filter(|wire| !wire.is_closed()).count()
}

/// A newcomer from this address is served at once.
fn is_served(server: &Server, source: [u8; 4]) {
    let begin = now();
    let mut client = Client::open_on(server.wire_from(source), &Handshake::new()).established();
    client.ask(PING, PONG);
    client.close();
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}: it had to wait for others to time out");
}

fn few_descriptors() -> Setup {
    Setup::new().workers(1).descriptors(400)
}

#[test]
fn silent_connections_do_not_keep_others_out() {
    let server = few_descriptors().start();
    let silent: Vec<Wire> = (0..600).map(|_| server.wire_from(ATTACKER)).collect();
    is_served(&server, [127, 0, 0, 1]);
    is_served(&server, ATTACKER);
    // They reach the server after a second, because the kernel waits for their first bytes.
    eventually("100 of 400 descriptors at most", || (open(&silent) <= 100).then_some(()));
    is_served(&server, ATTACKER);
}

#[test]
fn connections_that_are_kept_alive_do_not_keep_others_out() {
    let server = few_descriptors().start();
    let mut wires = Vec::new();
    for _ in 0..300 {
        let mut wire = server.wire_from(ATTACKER);
        wire.send(UP);
        assert_eq!(wire.reply(true).status, 200);
        wires.push(wire);
    }
    for _ in 0..3 {
        wires.iter_mut().for_each(|wire| wire.send_to_closing(UP));
        is_served(&server, [127, 0, 0, 1]);
    }
    assert!(open(&wires) <= 100, "{} of 400 descriptors", open(&wires));
}

#[test]
fn an_address_has_a_number_of_sockets_and_its_newest_ones_stay() {
    let server = Setup::new().workers(2).env("RINGVERB_CONNECTIONS_PER_IP_MAX", "5").start();
    let wires: Vec<Wire> = (0..200).map(|_| server.wire_from(ATTACKER)).collect();
    eventually("some are closed", || (open(&wires) <= 140).then_some(()));
    let mut newest = server.wire_from(ATTACKER);
    newest.send(UP);
    assert_eq!(newest.reply(true).status, 200);
    // Another client is not affected.
    is_served(&server, [127, 0, 0, 1]);
    is_served(&server, ATTACKER);
}

#[test]
fn clients_of_a_proxy_are_counted_separately_and_the_proxy_is_not() {
    let setup = Setup::new().workers(1).env("RINGVERB_CONNECTIONS_PER_IP_MAX", "5");
    let server = setup.env("RINGVERB_TRUSTED_PROXIES", "127.0.0.9").start();
    let ask = |client: &str| {
        let mut wire = server.wire_from(ATTACKER);
        let head = format!("GET /up HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n\r\n");
        wire.send(head.as_bytes());
        (wire.reply(true).status, wire)
    };
    let mut wires = Vec::new();
    for client in 0..150 {
        let (status, wire) = ask(&format!("192.0.2.{client}"));
        assert_eq!(status, 200, "{client}");
        wires.push(wire);
    }
    let statuses: Vec<u16> = (0..80)
        .map(|_| {
            let (status, wire) = ask("198.51.100.1");
            wires.push(wire);
            status
        })
        .collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!((served, statuses.last()), (64, Some(&429)));
}
