//! The contract of `tick::kernel::Kernel` as one script of operations, for any kernel over any world.
//!
//! A `World` (`world.rs`) is the other side. The script checks what it reads and sends and what is reported to it. It
//! returns all reports step by step, so that two kernels can be compared.
//!
//! Reports of a step are a map from token to "the end was seen": a kernel may report one arrival as several. A strict
//! world allows no other report. One that is not strict may report a watched socket for no reason, as the contract
//! permits. A watch that ends (not `is_armed`) is armed again, as every caller does.

mod ending;
mod filling;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringverb::shard::ConnectionKey;
use ringverb::slot::Slot;
use ringverb::tick::kernel::{
    Accepted, Kernel, KernelEvent, Received, Send, Sent, SessionKey, Token, Watched,
};

use super::world::{Listener, Socket, World};

/// By token, as text: whether the end was seen.
type Reports = BTreeMap<String, bool>;

fn name(token: Token) -> String {
    format!("{token:?}")
}

fn reports(expected: &[(Token, bool)]) -> Reports {
    expected.iter().map(|(token, end)| (name(*token), *end)).collect()
}

struct Script<W: World> {
    world: W,
    transcript: Vec<(&'static str, Reports)>,
    events: Vec<KernelEvent>,
    /// Of the step.
    seen: Reports,
    /// Writable reports of the step.
    rooms: Vec<Token>,
    connected: usize,
}

/// A watched socket with its peer.
struct Connection<S> {
    socket: S,
    peer: usize,
    watched: Watched,
}

impl<S> Connection<S> {
    fn readable(&self) -> Token {
        Token::Readable(self.watched)
    }

    fn writable(&self) -> Token {
        Token::Writable(self.watched)
    }
}

/// Rounds of waiting for a report, at up to 1 s each, before it counts as lost.
const ROUNDS: u32 = 60;
const LISTENER: u32 = 2;
const LISTENS: Token = Token::Readable(Watched::Listener(LISTENER));

fn connection(slot: u32, generation: u32) -> Watched {
    Watched::Connection(ConnectionKey { slot: Slot::new(slot), generation })
}

fn session(slot: u32, generation: u32) -> Watched {
    Watched::Session(SessionKey { slot: Slot::new(slot), generation })
}

/// Runs the script; what was reported in each step.
pub(crate) fn run<W: World>(world: W) -> Vec<(&'static str, Reports)> {
    let mut script = Script {
        world,
        transcript: Vec::new(),
        events: Vec::new(),
        seen: Reports::new(),
        rooms: Vec::new(),
        connected: 0,
    };
    script.doorbell();
    let listener = script.world.listener();
    script.listening(&listener);
    script.waiting(&listener);
    script.reading(&listener);
    script.unwatching(&listener);
    script.watching_once(&listener);
    script.ending(&listener);
    script.resetting(&listener);
    script.sending(&listener);
    script.filling(&listener);
    script.filling_without_a_read_watch(&listener);
    script.filling_for_a_peer_that_has_ended(&listener);
    script.reusing_a_slot(&listener);
    script.transcript
}

impl<W: World> Script<W> {
    fn kernel(&mut self) -> &mut W::Kernel {
        self.world.kernel()
    }

    /// Reaps once. `sockets` are watched for reading.
    fn reap(&mut self, sockets: &[&Connection<Socket<W>>], listener: Option<&Listener<W>>) {
        let mut events = std::mem::take(&mut self.events);
        self.kernel().reap(&mut events);
        for event in events.drain(..) {
            let KernelEvent { token, is_armed, has_end, has_failed } = event;
            assert!(!has_failed, "{event:?}");
            *self.seen.entry(name(token)).or_default() |= has_end;
            if let Token::Writable(_) = token {
                self.rooms.push(token);
                continue;
            }
            if is_armed {
                continue;
            }
            match token {
                Token::Doorbell => self.world.watch_doorbell(),
                LISTENS => {
                    if let Some(listener) = listener {
                        self.kernel().watch_listener(listener, LISTENER);
                    }
                }
                _ => {
                    let found = sockets.iter().find(|connection| connection.readable() == token);
                    if let Some(found) = found {
                        self.kernel().watch_readable(&found.socket, found.watched);
                    }
                }
            }
        }
        self.events = events;
    }

    /// Waits until all of it was reported, and checks that nothing else was. Before each wait the peer may act.
    fn expect_while(
        &mut self,
        step: &'static str,
        expected: &[(Token, bool)],
        sockets: &[&Connection<Socket<W>>],
        listener: Option<&Listener<W>>,
        mut act: impl FnMut(&mut W),
    ) {
        let expected = reports(expected);
        for round in 0.. {
            let has_all = expected
                .iter()
                .all(|(token, end)| self.seen.get(token).is_some_and(|seen| *seen || !*end));
            if has_all {
                break;
            }
            assert!(round < ROUNDS, "{step}: {expected:?} expected, {:?} reported", self.seen);
            act(&mut self.world);
            self.kernel().park(Some(1_000));
            self.reap(sockets, listener);
        }
        let mut seen = std::mem::take(&mut self.seen);
        if self.world.is_strict() {
            assert_eq!(seen, expected, "{step}: reported (left) and expected (right)");
        } else {
            seen.retain(|token, _| expected.contains_key(token));
        }
        let mut rooms: Vec<String> =
            std::mem::take(&mut self.rooms).into_iter().map(name).collect();
        rooms.sort();
        let count = rooms.len();
        rooms.dedup();
        assert_eq!(rooms.len(), count, "{step}: room is reported once");
        self.transcript.push((step, seen));
    }

    fn expect(
        &mut self,
        step: &'static str,
        expected: &[(Token, bool)],
        sockets: &[&Connection<Socket<W>>],
    ) {
        self.expect_while(step, expected, sockets, None, |_| {});
    }

    /// Nothing is reported but the doorbell, which rings after all that has happened.
    fn expect_nothing(&mut self, step: &'static str, sockets: &[&Connection<Socket<W>>]) {
        self.world.ring();
        self.expect(step, &[(Token::Doorbell, false)], sockets);
    }

    fn connect(&mut self) -> (usize, SocketAddr) {
        let address = self.world.connect();
        self.connected += 1;
        (self.connected - 1, address)
    }

    /// A new connection, accepted.
    fn accept(&mut self, listener: &Listener<W>, watched: Watched) -> Connection<Socket<W>> {
        let (peer, address) = self.connect();
        for _ in 0..ROUNDS {
            match self.kernel().accept(listener) {
                Accepted::Socket(socket, from) => {
                    assert_eq!(from, address);
                    // The listener is not watched in this step.
                    return Connection { socket, peer, watched };
                }
                Accepted::Nothing => self.kernel().park(Some(100)),
                Accepted::Failed if !self.world.is_strict() => {}
                other => panic!("{:?}", std::mem::discriminant(&other)),
            }
        }
        panic!("a connection that was made is not accepted");
    }

    fn watch(&mut self, connection: &Connection<Socket<W>>) {
        self.kernel().watch_readable(&connection.socket, connection.watched);
    }

    fn unwatch(&mut self, connection: &Connection<Socket<W>>, writable_too: bool) {
        self.kernel().unwatch(&connection.socket, connection.watched, writable_too);
        self.kernel().submit();
        // What was on its way may still come; nothing after that.
        self.kernel().park(Some(0));
        self.reap(&[], None);
        self.seen.remove(&name(connection.readable()));
        self.seen.remove(&name(connection.writable()));
        self.rooms.retain(|token| *token != connection.writable());
    }

    /// Ends the watches and closes; the peer sees the end.
    fn close(&mut self, connection: Connection<Socket<W>>, writable_too: bool) {
        self.unwatch(&connection, writable_too);
        let peer = connection.peer;
        drop(connection);
        assert!(self.world.is_ended(peer), "nothing holds a socket open that was closed");
    }

    fn receive(
        &mut self,
        connection: &Connection<Socket<W>>,
        room: usize,
    ) -> Result<String, Received> {
        let mut buffer = vec![0; room];
        match self.kernel().receive(&connection.socket, &mut buffer) {
            Received::Bytes(count) => {
                assert!((1..=room).contains(&count));
                Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
            }
            other => Err(other),
        }
    }

    fn send_all(&mut self, sends: &[(&Connection<Socket<W>>, &[u8])]) -> Vec<Sent> {
        let mut results = vec![Sent::Failed; 2];
        let sends =
            sends.iter().map(|(connection, bytes)| Send { socket: &connection.socket, bytes });
        self.kernel().send_all(sends, &mut results);
        results
    }

    fn doorbell(&mut self) {
        self.world.ring();
        self.world.watch_doorbell();
        let rung = [(Token::Doorbell, false)];
        self.expect("a doorbell that rang before its watch", &rung, &[]);
        for _ in 0..3 {
            self.world.ring();
            self.expect("each ring after it", &rung, &[]);
        }
        self.world.ring_later();
        self.kernel().park(None);
        self.expect("a ring during a wait", &rung, &[]);
    }

    fn listening(&mut self, listener: &Listener<W>) {
        assert!(matches!(self.kernel().accept(listener), Accepted::Nothing));
        let listens = [(LISTENS, false)];
        let expect = |script: &mut Self, step| {
            script.expect_while(step, &listens, &[], Some(listener), |_| {});
        };
        let mut expected = vec![self.connect().1];
        self.kernel().watch_listener(listener, LISTENER);
        expect(self, "a connection that waits when the listener is watched");
        self.accept_all(listener, &mut expected);
        expected.push(self.connect().1);
        expect(self, "a connection that comes later");
        self.accept_all(listener, &mut expected);
        expected.extend((0..3).map(|_| self.connect().1));
        expect(self, "several connections");
        self.accept_all(listener, &mut expected);
        self.kernel().unwatch_listener(listener, LISTENER);
        self.kernel().submit();
        expected.push(self.connect().1);
        self.expect_nothing("a listener that is not watched any more", &[]);
        self.kernel().watch_listener(listener, LISTENER);
        expect(self, "a listener that is watched again");
        self.accept_all(listener, &mut expected);
        self.kernel().unwatch_listener(listener, LISTENER);
        self.kernel().submit();
        self.expect_nothing("a listener at which nobody waits", &[]);
    }

    /// Accepts these, in any order, and finds no other.
    fn accept_all(&mut self, listener: &Listener<W>, expected: &mut Vec<SocketAddr>) {
        for _ in 0..ROUNDS {
            match self.kernel().accept(listener) {
                Accepted::Socket(_, from) => {
                    let known = expected.iter().position(|address| *address == from);
                    expected.swap_remove(known.expect("a peer that has connected"));
                }
                Accepted::Nothing if expected.is_empty() => {
                    // Further edges of connections that were accepted already.
                    self.kernel().park(Some(0));
                    self.reap(&[], Some(listener));
                    self.seen.remove(&name(LISTENS));
                    return;
                }
                Accepted::Nothing => self.kernel().park(Some(100)),
                Accepted::Failed if !self.world.is_strict() => {}
                other => panic!("{:?}", std::mem::discriminant(&other)),
            }
        }
        panic!("{expected:?} were not accepted");
    }

    fn waiting(&mut self, listener: &Listener<W>) {
        let connection = self.accept(listener, session(1, 1));
        self.watch(&connection);
        // A wait may end early now and then, and a kernel that never waits would take the processor.
        let start = self.kernel().stamp();
        let mut waits = 0;
        while self.kernel().stamp() < start + 50_000_000 {
            self.kernel().park(Some(50));
            waits += 1;
            assert!(waits < 20, "it does not wait");
        }
        self.kernel().park(Some(0));
        self.reap(&[&connection], None);
        self.expect("waits without a report", &[], &[&connection]);
        self.world.send(connection.peer, b"x");
        for _ in 0..ROUNDS {
            self.kernel().park(Some(100));
        }
        // A report waits to be taken: a wait for ever ends at once.
        self.kernel().park(None);
        self.expect("waits with a report", &[(connection.readable(), false)], &[&connection]);
        self.close(connection, false);
    }

    fn reading(&mut self, listener: &Listener<W>) {
        let connection = self.accept(listener, session(1, 2));
        let readable = [(connection.readable(), false)];
        self.world.send(connection.peer, b"one");
        self.watch(&connection);
        self.expect("data that waits when a socket is watched", &readable, &[&connection]);
        assert_eq!(self.receive(&connection, 100), Ok("one".into()));
        assert_eq!(self.receive(&connection, 100), Err(Received::Nothing));
        self.expect_nothing("a socket that was read", &[&connection]);
        for _ in 0..3 {
            self.world.send(connection.peer, b"two");
            self.expect("data that comes later", &readable, &[&connection]);
            assert_eq!(self.receive(&connection, 3), Ok("two".into()));
        }
        self.world.send(connection.peer, b"three");
        self.expect("more data than is read", &readable, &[&connection]);
        assert_eq!(self.receive(&connection, 2), Ok("th".into()));
        self.expect_nothing("the rest is not reported", &[&connection]);
        self.world.send(connection.peer, b"!");
        self.expect("data behind a rest", &readable, &[&connection]);
        assert_eq!(self.receive(&connection, 100), Ok("ree!".into()));
        self.close(connection, false);
    }

    fn unwatching(&mut self, listener: &Listener<W>) {
        let mut connection = self.accept(listener, session(1, 3));
        self.watch(&connection);
        self.unwatch(&connection, false);
        self.world.send(connection.peer, b"quiet");
        self.expect_nothing("data after the end of a watch", &[]);
        assert_eq!(self.receive(&connection, 100), Ok("quiet".into()));
        self.watch(&connection);
        self.world.send(connection.peer, b"again");
        let readable = [(connection.readable(), false)];
        self.expect("a socket that is watched again", &readable, &[&connection]);
        assert_eq!(self.receive(&connection, 2), Ok("ag".into()));
        // As an upgrade does it: what is left is reported, because a watch reports level at first.
        self.kernel().unwatch(&connection.socket, connection.watched, false);
        connection.watched = self::connection(9, u32::MAX);
        self.watch(&connection);
        let readable = [(connection.readable(), false)];
        self.expect("a socket that is watched as another one", &readable, &[&connection]);
        assert_eq!(self.receive(&connection, 100), Ok("ain".into()));
        self.world.send(connection.peer, b"more");
        self.expect("and goes on so", &readable, &[&connection]);
        self.close(connection, false);
    }

    /// The watch of a session in its handshake of TLS: whether it ends with its report differs.
    fn watching_once(&mut self, listener: &Listener<W>) {
        let mut connection = self.accept(listener, session(1, 4));
        self.kernel().watch_readable_once(&connection.socket, connection.watched);
        self.expect_nothing("a socket that is watched once, without data", &[]);
        self.world.send(connection.peer, b"first");
        let mut events = Vec::new();
        let event = (0..ROUNDS).find_map(|_| {
            self.kernel().park(Some(1_000));
            self.kernel().reap(&mut events);
            events.drain(..).find(|event| event.token == connection.readable())
        });
        let event = event.expect("a report");
        assert!(!event.has_failed, "{event:?}");
        if event.is_armed {
            self.unwatch(&connection, false);
        }
        assert_eq!(self.receive(&connection, 100), Ok("first".into()));
        // As an upgrade does it.
        connection.watched = self::connection(10, 7);
        self.watch(&connection);
        self.world.send(connection.peer, b"second");
        let readable = [(connection.readable(), false)];
        self.expect("a watch after one that has ended", &readable, &[&connection]);
        assert_eq!(self.receive(&connection, 100), Ok("second".into()));
        self.close(connection, false);
    }
}
