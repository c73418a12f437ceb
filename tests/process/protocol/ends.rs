//! A peer may end or stall at any point: other clients are not affected, and the server keeps no state of it.
//!
//! Every stage of a connection's life, and every way to end it there: a reset, the end of one half, a socket that is
//! closed with something unread in it. And peers that go on for ever, a byte at a time.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::support::{
    Client, DEADLINE, Handshake, PING, PONG, Request, Server, Setup, Wire, drain, eventually,
    frame, now,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connected,
    /// In the middle of a handshake, wherever.
    HalfAHandshake,
    HalfAHead,
    HalfABody,
    HalfAChunkedBody,
    /// A request whose answer the client does not read.
    Asked,
    /// A handshake whose answer the client does not read.
    Shaken,
    Established,
    /// A frame of which a part is there: its header, or its payload.
    HalfAFrame,
    BetweenFragments,
    Subscribed,
    /// More waits for it than it reads.
    Behind,
    /// It broke a rule, and does not read the answer.
    Refused,
    /// It said that it closes, and does not read the answer.
    Closing,
}

use Stage::*;

const STAGES: [Stage; 14] = [
    Connected,
    HalfAHandshake,
    HalfAHead,
    HalfABody,
    HalfAChunkedBody,
    Asked,
    Shaken,
    Established,
    HalfAFrame,
    BetweenFragments,
    Subscribed,
    Behind,
    Refused,
    Closing,
];

#[derive(Clone, Copy, Debug)]
enum End {
    /// Everything is gone at once, for both sides.
    Reset,
    /// It says nothing more, but reads to the end.
    Half,
    /// It is closed with whatever is unread in it, which resets it if there is something.
    Close,
}

fn event(size: usize) -> String {
    let data = "x".repeat(size);
    serde_json::json!({"name": "e", "channels": ["crowd"], "data": data}).to_string()
}

/// A part of these bytes, but not all.
fn part(bytes: &[u8], cut: u16) -> &[u8] {
    &bytes[..1 + usize::from(cut) % (bytes.len() - 1)]
}

/// Brings a connection to a stage.
fn reach(server: &Server, stage: Stage, cut: u16) -> TcpStream {
    let mut wire = server.wire();
    let request = Request::events(&event(2_000));
    let bytes = match stage {
        Connected => return wire.stream,
        HalfAHandshake => part(&Handshake::new().bytes(), cut).to_vec(),
        HalfAHead => part(&Request::get("/channels").bytes(), cut).to_vec(),
        HalfABody => {
            let bytes = request.bytes();
            bytes[..bytes.len() - 1 - usize::from(cut) % 2_000].to_vec()
        }
        HalfAChunkedBody => {
            let bytes = request.chunked_bytes(100);
            bytes[..bytes.len() - 1 - usize::from(cut) % 2_000].to_vec()
        }
        Asked => Request::get("/channels").bytes(),
        Shaken => Handshake::new().bytes(),
        _ => return reach_established(server, wire, stage, cut),
    };
    wire.send(&bytes);
    wire.stream
}

fn reach_established(server: &Server, wire: Wire, stage: Stage, cut: u16) -> TcpStream {
    let mut client = Client::open_on(wire, &Handshake::new()).established();
    let long =
        frame::text(&format!(r#"{{"event":"pusher:ping","data":{{}},"x":"{}"}}"#, "y".repeat(200)));
    match stage {
        HalfAFrame => client.send_bytes(part(&long, cut)),
        BetweenFragments => {
            client.send_bytes(&frame::raw(frame::TEXT, part(PING.as_bytes(), cut)));
        }
        Subscribed => client.subscribe("crowd"),
        Behind => {
            client.subscribe("crowd");
            server.publish("crowd", "e", &"z".repeat(9_000));
        }
        Refused => client.send_bytes(&frame::unmasked(frame::FIN | frame::TEXT, b"{}")),
        Closing => client.send_bytes(&frame::close(1000, "")),
        _ => {}
    }
    client.wire.stream
}

fn end(mut stream: TcpStream, how: End) {
    match how {
        End::Reset => {
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        }
        End::Half => {
            // It may have been ended already.
            let _ = stream.shutdown(Shutdown::Write);
            drain(&mut stream);
        }
        End::Close => {}
    }
}

/// Descriptors over all tables of a process: each worker has one of its own.
fn descriptors(process: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let count = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread may end during this.
        let folder = task.ok().map(|task| task.path().join("fd"));
        folder.and_then(|folder| std::fs::read_dir(folder).ok()).map_or(0, Iterator::count)
    };
    tasks.map(count).sum()
}

/// A server, and a client that is connected all the time and receives everything.
struct Scene {
    server: Server,
    bystander: Client,
    descriptors: usize,
    published: u32,
}

impl Scene {
    fn start(setup: Setup) -> Self {
        let server = setup.workers(2).start();
        let mut bystander = server.connect();
        bystander.subscribe("bystander");
        // Requests leave their connections to the server for a moment.
        let mut scene = Self { server, bystander, descriptors: 0, published: 0 };
        scene.check();
        let (mut before, id) = (0, scene.server.id());
        scene.descriptors = eventually("quiet", || {
            let now = descriptors(id);
            let same = now == std::mem::replace(&mut before, now);
            (same && scene.server.open_connections() == 1).then_some(now)
        });
        scene
    }

    fn check(&mut self) {
        self.published += 1;
        let number = self.published.to_string();
        self.server.publish("bystander", "e", &number);
        self.bystander
            .expect(&format!(r#"{{"event":"e","data":"{number}","channel":"bystander"}}"#));
        self.bystander.ask(PING, PONG);
    }

    fn finish(mut self) {
        self.check();
        eventually("the others are gone", || (self.server.open_connections() == 1).then_some(()));
        assert_eq!(self.server.get("/channels"), r#"{"channels":{"bystander":{}}}"#);
        let id = self.server.id();
        eventually("their descriptors are gone", || {
            (descriptors(id) <= self.descriptors).then_some(())
        });
        self.bystander.close();
        self.server.stop();
    }
}

#[test]
fn every_end_at_every_stage() {
    let mut scene = Scene::start(Setup::new());
    for stage in STAGES {
        for how in [End::Reset, End::Half, End::Close] {
            // An answered close or a refusal that is never read: the server waits for its end, but not for ever.
            for cut in [0, 7, 60, 199, 1_999] {
                end(reach(&scene.server, stage, cut), how);
            }
            scene.check();
        }
    }
    scene.finish();
}

/// Many at once, in any mixture; how they end is random too. A case that fails is printed, reduced.
#[test]
fn any_crowd_may_end_in_any_way() {
    let stage = prop::sample::select(STAGES.to_vec());
    let how = prop_oneof![3 => Just(End::Reset), 1 => Just(End::Half), 2 => Just(End::Close)];
    let crowd = prop::collection::vec((stage, how, any::<u16>()), 1..60);
    let scene = std::cell::RefCell::new(Scene::start(Setup::new()));
    let config =
        Config { cases: 40, failure_persistence: None, max_shrink_iters: 50, ..Config::default() };
    let result = TestRunner::new(config).run(&crowd, |crowd| {
        let mut scene = scene.borrow_mut();
        let reached: Vec<_> = crowd
            .into_iter()
            .map(|(stage, how, cut)| (reach(&scene.server, stage, cut), how))
            .collect();
        for (stream, how) in reached {
            end(stream, how);
        }
        scene.check();
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    scene.into_inner().finish();
}

/// A byte now and a byte then keeps nothing open: a request has its time from its first byte, and half a frame is no
/// sign of life.
#[test]
fn a_byte_at_a_time_ends_too() {
    let setup = Setup::new().env("RINGVERB_HANDSHAKE_TIMEOUT", "1");
    let setup = setup.env("REVERB_APP_PING_INTERVAL", "1").env("RINGVERB_PONG_TIMEOUT", "1");
    let server = setup.workers(2).start();
    let endless = |start: &str| start.as_bytes().to_vec();
    let slow = [
        endless("GET /app/app-key HTTP/1.1\r\nHost: x\r\nX-Long: "),
        endless("POST /apps/1001/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n"),
        endless(
            "POST /apps/1001/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n",
        ),
    ];
    let mut streams: Vec<TcpStream> = slow
        .iter()
        .map(|start| {
            let mut wire = server.wire();
            wire.send(start);
            wire.stream
        })
        .collect();
    let mut client = server.connect();
    client.send_bytes(&frame::header(frame::FIN | frame::TEXT, 9_000));
    streams.push(client.wire.stream);
    let start = now();
    while !streams.is_empty() {
        assert!(start.elapsed() < DEADLINE, "{} are still there", streams.len());
        streams.retain_mut(|stream| stream.write_all(b"x").is_ok());
        // Others are served at the same time.
        assert_eq!(server.get("/channels"), r#"{"channels":{}}"#);
    }
    server.stop();
}
