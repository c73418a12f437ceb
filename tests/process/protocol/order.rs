//! The order of events on one connection, and of publishes and subscriptions.

use serde_json::json;

use super::transcripts::without_ttl;
use crate::support::{Client, Http, PING, PONG, Request, Setup, frame, succeeded};

#[test]
fn pipelined_messages_keep_their_order() {
    let server = Setup::new().workers(1).start();
    let mut client = server.connect();
    let mut bytes = Vec::new();
    let channels: Vec<String> = (0..200).map(|number| format!("c-{number}")).collect();
    for channel in &channels {
        bytes.extend(frame::text(&client.subscribe_message(channel, None)));
        bytes.extend(frame::text(PING));
    }
    client.send_bytes(&bytes);
    for channel in &channels {
        client.expect(&succeeded(channel));
        client.expect(PONG);
    }
}

fn numbers_come_in_order(clients: &mut [Client], count: usize) {
    for client in clients {
        for number in 0..count {
            client.expect(&format!(r#"{{"event":"e","data":"{number}","channel":"news"}}"#));
        }
        client.sync();
    }
}

#[test]
fn publishes_of_one_http_connection_reach_all_subscribers_in_order() {
    let server = Setup::new().workers(4).start();
    let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.subscribe("news"));
    let mut http = Http::new(&server);
    for number in 0..100 {
        let body = json!({"name": "e", "channel": "news", "data": number.to_string()}).to_string();
        assert_eq!(http.ask(&Request::events(&body)).body, "{}");
    }
    numbers_come_in_order(&mut clients, 100);
}

/// PHP opens a connection for each request, so consecutive publishes come in on different cores. One that was
/// answered before the next was sent must not be overtaken by it (rule 103).
#[test]
fn publishes_that_were_answered_are_not_overtaken() {
    let server = Setup::new().workers(4).start();
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.subscribe("news"));
    for number in 0..300 {
        server.publish("news", "e", &number.to_string());
    }
    numbers_come_in_order(&mut clients, 300);
}

/// A question knows of what was answered before it, whichever cores the two came in on.
#[test]
fn questions_know_of_publishes_that_were_answered() {
    let server = Setup::new().workers(4).start();
    let mut subscriber = server.connect();
    let channels: Vec<String> = (0..8).map(|number| format!("cache-{number}")).collect();
    for channel in &channels {
        subscriber.subscribe(channel);
        subscriber.expect(&format!(r#"{{"event":"pusher:cache_miss","channel":"{channel}"}}"#));
    }
    for number in 0..400 {
        let channel = &channels[number % channels.len()];
        server.publish(channel, "e", &number.to_string());
        let request = Request::get(&format!("/channels/{channel}")).query("info", "cache");
        let (_, body) = server.answer(&request);
        let event = format!(r#"{{"event":"e","data":"{number}","channel":"{channel}"}}"#);
        assert_eq!(without_ttl(&body), format!(r#"{{"occupied":true,"cache":{event}}}"#));
    }
}

/// An event that was answered before a subscription was asked for is not delivered to it (rule 98).
#[test]
fn a_subscriber_receives_no_event_from_before_its_subscription() {
    let server = Setup::new().workers(4).start();
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for number in 0..200 {
        let channel = format!("c-{number}");
        let client = &mut clients[number % 4];
        // The channel has a subscriber, so that its home knows it.
        server.connect().subscribe(&channel);
        server.publish(&channel, "e", "before");
        client.subscribe(&channel);
        server.publish(&channel, "e", "behind");
        client.expect(&format!(r#"{{"event":"e","data":"behind","channel":"{channel}"}}"#));
    }
}

#[test]
fn a_vanished_subscriber_leaves_its_channels() {
    let server = Setup::new().workers(4).start();
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.subscribe("news"));
    // Some close in order, some do not.
    for (index, mut client) in clients.into_iter().enumerate() {
        match index % 3 {
            0 => client.close(),
            1 => drop(client),
            _ => {
                client.wire.stream.shutdown(std::net::Shutdown::Write).expect("half closed");
                client.wire.ended();
            }
        }
    }
    crate::support::eventually("everybody is gone", || {
        (server.get("/channels") == r#"{"channels":{}}"#).then_some(())
    });
    assert_eq!(server.open_connections(), 0);
}

/// One connection's messages may be pipelined: an event behind the subscription it depends on.
#[test]
fn a_client_event_may_follow_its_subscription_at_once() {
    let server = Setup::new().workers(4).start();
    for number in 0..20 {
        let channel = format!("private-{number}");
        let mut receiver = server.connect();
        receiver.subscribe(&channel);
        let mut sender = server.connect();
        let event = format!(r#"{{"event":"client-x","channel":"{channel}","data":{number}}}"#);
        let subscribe = frame::text(&sender.subscribe_message(&channel, None));
        sender.send_bytes(&[subscribe, frame::text(&event)].concat());
        sender.expect(&succeeded(&channel));
        receiver.expect(&event);
    }
}
