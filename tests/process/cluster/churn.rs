//! Three nodes on which clients come and go in every way while each node publishes: a client that stays receives
//! everything once and in order, and in the end all nodes know the same, which is the truth (docs/PROTOCOL.md rules 85,
//! 88, 103, 112).

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::cluster::{channel_topics, ids, nodes, redis_connections_are, user, users};
use crate::support::{
    Client, Handshake, Http, PING, Redis, Request, Server, Wire, data, eventually, json as parse,
    raise_descriptor_limit,
};
use serde_json::json;

const EVENTS: usize = 800;
const ROOM: &str = "presence-room";

/// One who stays, and checks each event as it comes.
struct Steady {
    client: Client,
    room: BTreeSet<String>,
    /// The next number of each node.
    due: [usize; 3],
    /// Lines are cut: numbers may be left out, and none comes twice or late.
    is_cut: bool,
}

impl Steady {
    fn start(server: &Server, id: &str, is_cut: bool) -> Self {
        let mut client = server.connect();
        client.subscribe("steady");
        let room = ids(&client.join(ROOM, &user(id))).into_iter().collect();
        Self { client, room, due: [0; 3], is_cut }
    }

    /// Whether this was the last.
    fn take(&mut self) -> bool {
        let event = self.client.event();
        let id = || data(&event)["user_id"].as_str().expect("a text").to_owned();
        match event["event"].as_str().expect("a name") {
            "n" => {
                let text = event["data"].as_str().expect("a text");
                let (node, number) = text.split_once(':').expect("node and number");
                let node: usize = node.parse().expect("a node");
                let number: usize = number.parse().expect("a number");
                let is_due = number == self.due[node] || self.is_cut && number > self.due[node];
                assert!(is_due, "{event}, but {} is due", self.due[node]);
                self.due[node] = number + 1;
            }
            "pusher_internal:member_added" => {
                assert!(self.room.insert(id()), "{event}: a member already");
            }
            "pusher_internal:member_removed" => {
                assert!(self.room.remove(&id()), "{event}: no member");
            }
            "end" => return true,
            _ => panic!("{event}"),
        }
        false
    }
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }
}

/// Waits for the answer to a ping, among whatever comes.
fn round_trip(client: &mut Client) {
    client.send(PING);
    while client.text() != crate::support::PONG {}
}

fn wire(address: SocketAddr) -> Wire {
    Wire::new(TcpStream::connect(address).expect("the server accepts"))
}

/// Comes and goes until it is over; one client stays, and the user whom it is in the room as.
fn churn(nodes: [SocketAddr; 3], seed: usize, over: &AtomicBool) -> (Client, String) {
    let mut dice = Dice(seed as u64 + 1);
    loop {
        let wire = wire(nodes[dice.below(3)]);
        let mut client = Client::open_on(wire, &Handshake::new()).established();
        let id = format!("u{}", dice.below(8));
        let plain = ["steady".to_owned(), format!("news-{}", dice.below(4)), "cache-x".to_owned()];
        let mut unanswered: BTreeSet<&str> =
            plain.iter().filter(|_| dice.below(2) == 0).map(String::as_str).collect();
        for channel in &unanswered {
            client.send_subscribe(channel, None);
        }
        unanswered.insert(ROOM);
        client.send_subscribe(ROOM, Some(&user(&id)));
        if dice.below(4) == 0 {
            client.unsubscribe(ROOM);
            client.send_subscribe(ROOM, Some(&user(&id)));
        }
        if over.load(Ordering::Relaxed) {
            while !unanswered.is_empty() {
                let event = parse(&client.text());
                if event["event"] == "pusher_internal:subscription_succeeded" {
                    unanswered.remove(event["channel"].as_str().expect("a channel"));
                }
            }
            return (client, id);
        }
        for _ in 0..dice.below(4) {
            round_trip(&mut client);
        }
        match dice.below(4) {
            0 => client.close_among_events(),
            1 => {
                client.unsubscribe(ROOM);
                round_trip(&mut client);
            }
            // Cut, at times before anything was answered.
            _ => drop(client),
        }
    }
}

fn publish(address: SocketAddr, node: usize) {
    let mut http = Http { wire: wire(address) };
    for number in 0..EVENTS {
        let data = format!("{node}:{number}");
        let body = json!({ "name": "n", "channel": "steady", "data": data }).to_string();
        assert_eq!(http.ask(&Request::events(&body)).status, 200);
        if number % 20 == 0 {
            let body = json!({ "name": "c", "channels": ["cache-x", "news-1"], "data": data });
            assert_eq!(http.ask(&Request::events(&body.to_string())).status, 200);
        }
    }
}

type Fault<'a> = &'a mut dyn FnMut(&mut Redis);

/// Clients come and go while each node publishes, and `fault` is done again and again: those who stay.
fn come_and_go(
    redis: &mut Redis,
    nodes: &[Server; 3],
    steady: Vec<Steady>,
    mut fault: Option<Fault<'_>>,
) -> (Vec<Steady>, Vec<(Client, String)>) {
    let over = &AtomicBool::new(false);
    let addresses = nodes.each_ref().map(|node| node.address);
    std::thread::scope(|scope| {
        let read = |mut one: Steady| {
            while !one.take() {}
            one
        };
        let readers: Vec<_> =
            steady.into_iter().map(|one| scope.spawn(move || read(one))).collect();
        let churn = |seed| scope.spawn(move || churn(addresses, seed, over));
        let churners: Vec<_> = (0..6).map(churn).collect();
        let publish = |node| scope.spawn(move || publish(addresses[node], node));
        let publishers: Vec<_> = (0..3).map(publish).collect();
        while publishers.iter().any(|publisher| !publisher.is_finished()) {
            if let Some(fault) = &mut fault {
                fault(redis);
            }
            redis_connections_are(redis, 7);
        }
        over.store(true, Ordering::Relaxed);
        let stayed: Vec<(Client, String)> =
            churners.into_iter().map(|churner| churner.join().expect("a churner")).collect();
        nodes[0].publish("steady", "end", "x");
        let steady: Vec<Steady> =
            readers.into_iter().map(|reader| reader.join().expect("a reader")).collect();
        (steady, stayed)
    })
}

/// All nodes come to know who is in the room, and say so to everybody who asks or is there.
fn agree(nodes: &[Server; 3], steady: &mut [Steady], truth: &BTreeSet<String>) {
    let all: Vec<String> = truth.iter().cloned().collect();
    let request = Request::get("/channels").query("info", "user_count,subscription_count");
    let first = eventually("the first node agrees", || {
        let body = parse(&nodes[0].ask(&request).body);
        let count = body["channels"][ROOM]["user_count"].as_u64();
        let open = nodes[0].open_connections();
        let is_truth = count == Some(all.len() as u64) && open == 12;
        is_truth.then_some(body)
    });
    // What a node said of the room comes before what it publishes there.
    let mut rounds = 0;
    eventually("all rooms agree", || {
        nodes.iter().for_each(|node| node.publish(ROOM, "end", "x"));
        for one in &mut *steady {
            for _ in 0..3 {
                while !one.take() {}
            }
        }
        rounds = if steady.iter().all(|one| one.room == *truth) { rounds + 1 } else { 0 };
        (rounds == 3).then_some(())
    });
    for node in nodes {
        assert_eq!(users(node, ROOM), all);
        assert_eq!(parse(&node.ask(&request).body), first);
        let mut late = node.connect();
        assert_eq!(ids(&late.join(ROOM, &user("steady 0"))), all);
        late.close();
    }
    for one in steady {
        one.client.sync();
    }
}

fn scenario(redis: &mut Redis, fault: Option<Fault<'_>>) {
    raise_descriptor_limit();
    let nodes = nodes(redis, [1, 2, 4]);
    let is_cut = fault.is_some();
    let name = |index: usize| format!("steady {index}");
    let start = |index: usize| Steady::start(&nodes[index % 3], &name(index), is_cut);
    let steady: Vec<Steady> = (0..6).map(start).collect();
    let (mut steady, stayed) = come_and_go(redis, &nodes, steady, fault);
    for one in steady.iter_mut().filter(|_| !is_cut) {
        while one.due != [EVENTS; 3] {
            one.take();
        }
    }
    let truth = (0..6).map(name).chain(stayed.iter().map(|(_, id)| id.clone())).collect();
    agree(&nodes, &mut steady, &truth);
    drop((steady, stayed));
    eventually("nobody holds anything", || channel_topics(redis).is_empty().then_some(()));
    for node in &nodes {
        assert_eq!(node.get("/channels"), r#"{"channels":{}}"#);
        assert_eq!(node.open_connections(), 0);
    }
}

#[test]
fn after_churn_all_nodes_agree_and_subscribers_have_received_every_event() {
    scenario(&mut Redis::start(), None);
}

#[test]
fn nodes_agree_after_their_redis_connections_were_cut() {
    let mut round = 0;
    let mut cut = |redis: &mut Redis| {
        round += 1;
        match round % 3 {
            0 => redis.restart(),
            1 => drop(redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"])),
            _ => {
                let list = redis.command(&["CLIENT", "LIST", "TYPE", "pubsub"]);
                let id =
                    list.split("id=").nth(1 + round % 7).and_then(|rest| rest.split(' ').next());
                redis.command(&["CLIENT", "KILL", "ID", id.expect("an id")]);
            }
        }
    };
    scenario(&mut Redis::start(), Some(&mut cut));
}
