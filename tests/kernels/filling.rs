//! The part of the contract script about sockets that are full.

use ringverb::tick::kernel::{Kernel, Sent};

use super::{Connection, ROUNDS, Script, connection, name, session};
use crate::world::{Listener, Socket, World};

impl<W: World> Script<W> {
    /// Sends until the socket is full and stays so: what it has taken may still be on its way to the peer.
    pub(super) fn fill(&mut self, connection: &Connection<Socket<W>>) {
        let bytes = vec![b'f'; 64 * 1024];
        let mut full = 0;
        for _ in 0..10_000 {
            match self.send_all(&[(connection, &bytes)])[..] {
                [Sent::Whole] => full = 0,
                [Sent::Part(0)] => {
                    full += 1;
                    if full == 5 {
                        return;
                    }
                    self.kernel().park(Some(20));
                }
                [Sent::Part(count)] => {
                    assert!(count < bytes.len());
                    full = 0;
                }
                ref other => panic!("{other:?}"),
            }
        }
        panic!("a socket without end");
    }

    pub(super) fn filling(&mut self, listener: &Listener<W>) {
        let (full, other) =
            (self.accept(listener, connection(5, 5)), self.accept(listener, connection(6, 5)));
        self.watch(&full);
        self.fill(&full);
        assert_eq!(self.send_all(&[(&full, b"x")]), [Sent::Part(0)]);
        let sends = [(&other, &b"a"[..]), (&full, b"x"), (&other, b"b"), (&other, b"c")];
        let expected = [Sent::Whole, Sent::Part(0), Sent::Whole, Sent::Whole];
        assert_eq!(self.send_all(&sends), expected);
        assert_eq!(self.world.take(other.peer, 3), b"abc");
        self.kernel().watch_writable(&full.socket, full.watched);
        self.expect_nothing("a full socket", &[&full]);
        self.world.send(full.peer, b"in");
        self.expect("data while a socket is full", &[(full.readable(), false)], &[&full]);
        assert_eq!(self.receive(&full, 100), Ok("in".into()));
        let peer = full.peer;
        let drain = |world: &mut W| {
            world.drain(peer);
        };
        let room = [(full.writable(), false)];
        self.expect_while("room in it", &room, &[&full], None, drain);
        while self.world.drain(peer) > 0 {}
        self.world.send(full.peer, b"in");
        let readable = [(full.readable(), false)];
        self.expect("room is reported once", &readable, &[&full]);
        assert_eq!(self.receive(&full, 100), Ok("in".into()));
        assert_eq!(self.send_all(&[(&full, b"x")]), [Sent::Whole]);
        self.kernel().watch_writable(&full.socket, full.watched);
        self.expect("room that is there when it is asked for", &room, &[&full]);
        self.fill(&full);
        while self.world.drain(peer) > 0 {}
        self.expect_nothing("room for which nobody waits", &[&full]);
        self.fill(&full);
        self.kernel().watch_writable(&full.socket, full.watched);
        self.unwatch(&full, true);
        while self.world.drain(peer) > 0 {}
        self.expect_nothing("room after the end of the watch", &[]);
        self.watch(&full);
        self.fill(&full);
        self.kernel().watch_writable(&full.socket, full.watched);
        self.world.reset(full.peer);
        let gone = [(full.readable(), true), (full.writable(), true)];
        self.expect("a reset of a full socket", &gone, &[&full]);
        self.unwatch(&full, false);
        self.close(other, false);
    }

    /// A short send in a larger batch, and a wait for room on a socket that is not read.
    pub(super) fn filling_without_a_read_watch(&mut self, listener: &Listener<W>) {
        let (full, other) =
            (self.accept(listener, session(7, 5)), self.accept(listener, session(8, 5)));
        let big = vec![b'b'; 64 << 20];
        let results = self.send_all(&[(&other, b"a"), (&full, &big), (&other, b"b")]);
        let Sent::Part(count) = results[1] else { panic!("{results:?}") };
        assert!(count > 0 && count < big.len());
        assert_eq!([results[0], results[2]], [Sent::Whole; 2]);
        self.kernel().watch_writable(&full.socket, full.watched);
        let mut taken = 0;
        let peer = full.peer;
        let room = [(full.writable(), false)];
        let drain = |world: &mut W| taken += world.drain(peer);
        self.expect_while("room in a socket that is not read", &room, &[], None, drain);
        if taken < count {
            taken += self.world.take(peer, count - taken).len();
        }
        assert_eq!(taken, count, "as many bytes as the kernel said");
        assert_eq!(self.world.take(other.peer, 2), b"ab");
        self.world.send(full.peer, b"in");
        self.expect_nothing("data on it", &[]);
        self.close(full, false);
        self.close(other, false);
    }

    /// A peer whose half has ended still reads, and the room that it makes is reported.
    pub(super) fn filling_for_a_peer_that_has_ended(&mut self, listener: &Listener<W>) {
        let full = self.accept(listener, session(6, 6));
        self.fill(&full);
        self.world.end(full.peer);
        self.kernel().watch_writable(&full.socket, full.watched);
        let writable = name(full.writable());
        for _ in 0..ROUNDS {
            if self.seen.contains_key(&writable) {
                break;
            }
            self.world.drain(full.peer);
            self.kernel().park(Some(1_000));
            self.reap(&[], None);
        }
        // io_uring reports the peer's end with the room. epoll reports only what was asked for.
        self.seen.entry(writable).and_modify(|end| *end = false);
        let room = [(full.writable(), false)];
        self.expect("room for a peer whose half has ended", &room, &[]);
        self.close(full, false);
    }
}
