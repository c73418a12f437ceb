//! The steps about the end of a connection and about sending.

use ringverb::limits::SENDS_PER_SUBMIT;
use ringverb::tick::kernel::Kernel;
use ringverb::tick::kernel::{Received, Sent};

use super::super::world::{Listener, World};
use super::{Script, connection, name, session};

impl<W: World> Script<W> {
    pub(super) fn ending(&mut self, listener: &Listener<W>) {
        let connection = self.accept(listener, connection(2, 1));
        self.watch(&connection);
        let ended = [(connection.readable(), true)];
        self.world.send(connection.peer, b"bye");
        self.world.end(connection.peer);
        self.expect("the peer's end behind data", &ended, &[&connection]);
        assert_eq!(self.receive(&connection, 100), Ok("bye".into()));
        assert_eq!(self.receive(&connection, 100), Err(Received::Gone));
        assert_eq!(self.send_all(&[(&connection, b"answer")]), [Sent::Whole]);
        assert!(self.kernel().shut_down(&connection.socket));
        assert_eq!(self.world.take(connection.peer, 6), b"answer");
        assert!(self.world.is_ended(connection.peer));
        self.expect("our end behind the peer's", &ended, &[&connection]);
        self.close(connection, false);
        let connection = self.accept(listener, self::connection(2, 3));
        let readable = [(connection.readable(), false)];
        self.watch(&connection);
        assert!(self.kernel().shut_down(&connection.socket));
        self.expect_nothing("our end", &[&connection]);
        assert!(self.world.is_ended(connection.peer));
        self.world.send(connection.peer, b"late");
        self.expect("data behind our end", &readable, &[&connection]);
        assert_eq!(self.receive(&connection, 100), Ok("late".into()));
        let ended = [(connection.readable(), true)];
        self.world.end(connection.peer);
        self.expect("the peer's end behind ours", &ended, &[&connection]);
        assert_eq!(self.receive(&connection, 100), Err(Received::Gone));
        self.close(connection, false);
        let connection = self.accept(listener, self::connection(2, 2));
        self.world.end(connection.peer);
        let ended = [(connection.readable(), true)];
        self.watch(&connection);
        self.expect("an end before the watch", &ended, &[&connection]);
        assert_eq!(self.receive(&connection, 100), Err(Received::Gone));
        self.close(connection, false);
    }

    pub(super) fn resetting(&mut self, listener: &Listener<W>) {
        let connection = self.accept(listener, session(2, 3));
        self.watch(&connection);
        self.world.reset(connection.peer);
        self.expect("a reset", &[(connection.readable(), true)], &[&connection]);
        assert_eq!(self.receive(&connection, 100), Err(Received::Gone));
        assert_eq!(self.send_all(&[(&connection, b"x")]), [Sent::Failed]);
        assert_eq!(self.send_all(&[(&connection, &b"x"[..]); 5]), [Sent::Failed; 5]);
        assert!(!self.kernel().shut_down(&connection.socket));
        self.unwatch(&connection, false);
        let connection = self.accept(listener, session(2, 4));
        self.watch(&connection);
        self.world.send(connection.peer, b"last words");
        self.world.reset(connection.peer);
        let gone = [(connection.readable(), true)];
        self.expect("a reset behind data", &gone, &[&connection]);
        assert_eq!(self.receive(&connection, 4), Ok("last".into()), "a reset discards no input");
        assert_eq!(self.receive(&connection, 100), Ok(" words".into()));
        assert_eq!(self.receive(&connection, 100), Err(Received::Gone));
        self.unwatch(&connection, false);
        let connection = self.accept(listener, session(2, 5));
        self.world.reset(connection.peer);
        self.watch(&connection);
        let gone = [(connection.readable(), true)];
        self.expect("a reset before the watch", &gone, &[&connection]);
        self.kernel().watch_writable(&connection.socket, connection.watched);
        let room = [(connection.writable(), true)];
        self.expect("room after a reset", &room, &[&connection]);
        self.unwatch(&connection, false);
    }

    pub(super) fn sending(&mut self, listener: &Listener<W>) {
        let connections: Vec<_> =
            (0..5).map(|slot| self.accept(listener, connection(slot, 4))).collect();
        assert_eq!(self.send_all(&[]), []);
        for count in [1, 2, 3, 4, SENDS_PER_SUBMIT] {
            let bytes: Vec<Vec<u8>> =
                (0..count).map(|number| format!("<{number}>").into_bytes()).collect();
            let sends: Vec<_> = bytes
                .iter()
                .enumerate()
                .map(|(number, bytes)| (&connections[number % 5], &bytes[..]))
                .collect();
            assert_eq!(self.send_all(&sends), vec![Sent::Whole; count]);
            for (index, connection) in connections.iter().enumerate() {
                let expected: Vec<u8> =
                    bytes.iter().skip(index).step_by(5).flatten().copied().collect();
                assert_eq!(self.world.take(connection.peer, expected.len()), expected);
            }
        }
        for connection in connections {
            self.close(connection, false);
        }
    }

    /// Reports that are not taken when their connection ends come with the old generation, or not at all.
    pub(super) fn reusing_a_slot(&mut self, listener: &Listener<W>) {
        let old = self.accept(listener, connection(3, 7));
        self.watch(&old);
        self.world.send(old.peer, b"late");
        for _ in 0..10 {
            self.kernel().park(Some(20));
        }
        let late = name(old.readable());
        self.kernel().unwatch(&old.socket, old.watched, false);
        self.kernel().submit();
        // Unread data make it a reset.
        drop(old);
        let new = self.accept(listener, connection(3, 8));
        self.watch(&new);
        self.world.send(new.peer, b"new");
        self.kernel().park(Some(1_000));
        self.reap(&[&new], None);
        self.seen.remove(&late);
        self.expect("a slot that was used before", &[(new.readable(), false)], &[&new]);
        assert_eq!(self.receive(&new, 100), Ok("new".into()));
        self.close(new, false);
    }
}
