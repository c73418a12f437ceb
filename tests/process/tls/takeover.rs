//! A new process takes over connections with TLS, with their keys. Clients notice nothing.

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::support::{Finished, Http, Request, Server, Setup, tls};

fn succeed(old: Server, setup: Setup) -> Server {
    let new = setup.reaching(&old).arg("--takeover").start_as_configured();
    let Finished { code, stdout, stderr } = old.finish();
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.contains("Another process has taken over, with all connections."), "{stdout}");
    new
}

#[test]
fn connections_move_with_their_keys_and_update_them_afterwards() {
    let mut server = Setup::new().secure().workers(2).start();
    let versions: [&[_]; 2] = [&[&TLS13], &[&TLS12]];
    let mut clients: Vec<_> = versions
        .into_iter()
        .cycle()
        .take(60)
        .map(|versions| {
            server.trust = Some(tls::client_of(versions));
            let mut client = server.connect();
            client.subscribe("a");
            client
        })
        .collect();
    let trust = tls::client_of(&[&TLS13]);
    server.trust = Some(trust.clone());
    let mut kept = Http::new(&server);
    assert_eq!(kept.ask(&Request::get("/channels")).status, 200);
    for round in 0..3_u16 {
        let new = succeed(server, Setup::new().secure().workers(1 + round));
        server = new;
        server.trust = Some(trust.clone());
        server.publish("a", "e", &round.to_string());
        for client in &mut clients {
            assert_eq!(client.event()["data"], round.to_string());
            let secure = client.wire.secure.as_mut().expect("TLS");
            // TLS 1.2 has none.
            let _ = secure.refresh_traffic_keys();
            client.sync();
        }
        let reply = kept.ask(&Request::get("/channels"));
        assert_eq!(reply.status, 200);
        // The new process opens the tickets of the old one.
        let mut http = Http::new(&server);
        assert_eq!(http.ask(&Request::get("/channels")).status, 200);
        let kind = http.wire.secure.as_ref().expect("TLS").handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Resumed));
    }
    clients.into_iter().for_each(crate::support::Client::close);
}
