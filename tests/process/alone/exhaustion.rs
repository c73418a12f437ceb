//! The host has no more: descriptors run out. Accepting pauses, who is there is served, nothing spins, and who waited
//! is taken in when there is room again.

use std::io::ErrorKind;
use std::time::Duration;

use crate::support::{
    Client, DEADLINE, Finished, Handshake, Http, PING, PONG, Request, Server, Setup, Wire,
    connections_in, eventually, now, processor_time,
};
use rustix::process::Signal;

/// Connects until the server accepts no more; the established connections, and one that waits.
fn fill(server: &Server) -> (Vec<Client>, Wire) {
    let mut clients = Vec::new();
    loop {
        assert!(clients.len() < 1_000, "the server's descriptors do not run out");
        let wire = knock(server);
        let within = |limit| wire.stream.set_read_timeout(Some(limit)).expect("SO_RCVTIMEO");
        // Long for an answer that comes: a machine that is this slow has fewer clients here, and nothing else changes.
        within(Duration::from_secs(2));
        let answer = wire.stream.peek(&mut [0]);
        within(DEADLINE);
        match answer {
            Ok(_) => clients.push(Client::upgraded(wire).0.established()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                return (clients, wire);
            }
        }
    }
}

fn knock(server: &Server) -> Wire {
    let mut wire = server.wire();
    wire.send(&Handshake::new().bytes());
    wire
}

#[test]
fn without_descriptors_connections_are_served_and_new_ones_wait() {
    let setup = Setup::new().workers(1).descriptors(80);
    let server = setup.env("REVERB_APP_PING_INTERVAL", "3600").start();
    let mut http = Http::new(&server);
    assert_eq!(http.ask(&Request::get("/connections")).status, 200);
    let (mut clients, first) = fill(&server);
    assert!((20..80).contains(&clients.len()), "{}", clients.len());
    let mut waiting = vec![first];
    waiting.extend((0..50).map(|_| knock(&server)));

    // No client is closed, nothing is late, and all of it costs next to nothing.
    let (start, used) = (now(), processor_time(server.id()));
    for client in &mut clients {
        client.subscribe("news");
    }
    let mut published = 0;
    while start.elapsed() < Duration::from_secs(3) {
        let body = format!(r#"{{"name":"e","channel":"news","data":"{published}"}}"#);
        assert_eq!(http.ask(&Request::events(&body)).status, 200);
        for client in &mut clients {
            client.expect(&format!(r#"{{"event":"e","data":"{published}","channel":"news"}}"#));
        }
        published += 1;
        // The next event after a while in which there is nothing to do but to pause.
        let pause = Duration::from_millis(300);
        clients[0].wire.stream.set_read_timeout(Some(pause)).expect("SO_RCVTIMEO");
        let nothing = clients[0].wire.stream.peek(&mut [0]).expect_err("nothing comes");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        clients[0].wire.stream.set_read_timeout(Some(DEADLINE)).expect("SO_RCVTIMEO");
    }
    let (elapsed, used) = (start.elapsed(), processor_time(server.id()) - used);
    // A loop that spins would take all of it.
    assert!(used < elapsed / 3, "{used:?} of {elapsed:?}");

    // Room for some, then for all.
    clients.truncate(clients.len() - 10);
    let mut taken: Vec<Client> = Vec::new();
    for (index, wire) in waiting.into_iter().enumerate() {
        if index == 10 {
            clients.clear();
        }
        let mut client = Client::upgraded(wire).0.established();
        client.ask(PING, PONG);
        taken.push(client);
        if taken.len() > 30 {
            taken.clear();
        }
    }
    clients.clear();
    taken.clear();
    eventually("all are gone", || {
        let body = http.ask(&Request::get("/connections")).body;
        (connections_in(&body) == 0).then_some(())
    });
    server.connect().ask(PING, PONG);
    let seconds = start.elapsed().as_secs() + 4;
    server.signal(Signal::TERM);
    let Finished { code, stdout, .. } = server.finish();
    assert_eq!(code, Some(0), "{stdout}");
    let lines: Vec<&str> =
        stdout.lines().filter(|line| line.contains("accepting pauses")).collect();
    assert!(!lines.is_empty() && lines.len() as u64 <= 20 + seconds, "{seconds} s: {lines:#?}");
    assert!(lines[0].contains("LimitNOFILE"), "{lines:#?}");
    assert!(stdout.contains(" by accept_paused"), "{stdout}");
}

/// The server can be stopped, and stops in order, while it has no descriptor left.
#[test]
fn a_server_without_descriptors_drains() {
    let server = Setup::new().workers(1).descriptors(60).start();
    let (clients, waiting) = fill(&server);
    server.signal(Signal::TERM);
    for mut client in clients {
        assert_eq!(client.closed(), (4100, "Server is shutting down".to_owned()));
    }
    drop(waiting);
    let Finished { code, stdout, .. } = server.finish();
    assert_eq!(code, Some(0), "{stdout}");
}
