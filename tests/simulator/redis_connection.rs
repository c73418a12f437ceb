//! A core's line to the fake Redis, as the worker's socket task drives it.

use std::sync::Arc;

use ringverb::app::Apps;
use ringverb::cluster::{ClusterSession, Login, Lost, SessionLimits};
use ringverb::shard::{SessionId, Shard};
use ringverb::tick::Core;

use crate::kernel::SimKernel;
use crate::redis::FakeRedis;

pub(crate) struct SimRedisConnection {
    pub(crate) session: ClusterSession,
    pub(crate) connection: Option<usize>,
    /// The line asked to be ended; its reader sees it next.
    pub(crate) is_over: bool,
    second: u32,
}

impl SimRedisConnection {
    pub(crate) fn new(own: SessionId, apps: Arc<Apps>, unix_seconds: u64) -> Self {
        let mut session = ClusterSession::new(own, "sim", apps, Login::default(), unix_seconds);
        // So that topics wait, and clients for them.
        session.set_limits(SessionLimits { topics_in_flight: 3, topics_waiting: 4 });
        Self { session, connection: None, is_over: false, second: 0 }
    }

    /// Part of a tick.
    pub(crate) fn carry_out(&mut self, shard: &mut Shard) {
        self.is_over |= self.session.carry_out(shard).is_err();
        assert!(
            self.session.notes.is_empty(),
            "a node complains of its redis: {:?}",
            self.session.notes
        );
        assert_eq!(self.session.dropped_events, 0, "so little was lost for want of room");
    }

    /// Once for each second of the shard's clock, as the worker does in its tick.
    pub(crate) fn each_second(
        &mut self,
        now_seconds: u32,
        unix_seconds: u64,
        speaks: bool,
        shard: &mut Shard,
    ) {
        if std::mem::replace(&mut self.second, now_seconds) != now_seconds {
            self.is_over |= self.session.advance(unix_seconds, speaks, shard).is_err();
        }
    }

    pub(crate) fn call(&mut self, redis: &mut FakeRedis) {
        assert!(self.connection.is_none());
        self.connection = Some(redis.connect());
        self.is_over = false;
        self.session.open();
    }

    /// Some bytes reach Redis; whether there were any.
    pub(crate) fn write(&mut self, redis: &mut FakeRedis, most: usize) -> bool {
        let Some(connection) = self.connection else { return false };
        let count = self.session.output().len().min(most);
        redis.receive(connection, &self.session.output()[..count]);
        self.session.note_sent(count);
        count > 0
    }

    /// Some bytes of Redis are taken in; whether there were any. The core is to tick then.
    pub(crate) fn read(
        &mut self,
        core: &mut Core<SimKernel>,
        redis: &mut FakeRedis,
        most: usize,
    ) -> bool {
        let Some(connection) = self.connection else { return false };
        if self.is_over || !redis.is_connected(connection) {
            self.lose(core, redis, true);
            return true;
        }
        let bytes = redis.take_output(connection, most);
        if bytes.is_empty() {
            return false;
        }
        core.catch_up();
        if let Err(lost) = self.session.receive(&bytes, &mut core.shard) {
            let is_real = matches!(lost, Lost::NotMaster(_) | Lost::OneWay);
            assert!(is_real && redis.is_faulty(), "Redis is understood: {lost:?}");
            self.lose(core, redis, true);
            return true;
        }
        for (from, number, question) in self.session.take_questions() {
            core.begin_node_question(from, number, question);
        }
        true
    }

    /// The connection breaks. `executed`: Redis still carries out what it has received.
    pub(crate) fn lose(
        &mut self,
        core: &mut Core<SimKernel>,
        redis: &mut FakeRedis,
        executed: bool,
    ) {
        if let Some(connection) = self.connection.take() {
            redis.drop_connection(connection, executed);
            self.session.close(&mut core.shard);
        }
    }
}
