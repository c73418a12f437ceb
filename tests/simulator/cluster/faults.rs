//! Faults of a cluster: Redis connections are cut, Redis is demoted or does not pass on what a node publishes, and
//! nodes die or end in order.

use super::*;

/// Of a node that reconnects, and of the others.
const RECONNECT_STEPS: usize = 120;

impl Cluster {
    pub(super) fn fault(&mut self) {
        let node = self.below(self.nodes.len());
        self.excuse_cache_misses();
        match self.below(11) {
            0..=1 if self.are_clients_returning => self.reconnect(node),
            0..=1 => {
                let core = self.below(self.nodes[node].process.redis_connections.len());
                self.cut(node, core);
            }
            2 => self.redis_is_away ^= true,
            3 => {
                self.redis.restart();
                self.is_stored_at_rest = false;
            }
            4 if self.nodes.len() > 1 => self.kill(node),
            5 => self.nodes[node].stopped ^= true,
            6 if self.nodes.len() > 1 => self.end_node(node),
            7 => return self.begin_node(),
            // The others think it dead.
            8 if self.nodes.len() > 1 => {
                self.nodes[node].stopped = true;
                self.live_on(LEASE_SECONDS + 2);
                self.nodes[node].stopped = false;
            }
            9 => self.demote(),
            10 if self.nodes.len() > 1 => self.mute(node),
            _ => return,
        }
        self.stirred = true;
        if self.below(4) == 0 {
            self.calm();
        }
    }

    pub(super) fn cut(&mut self, node: usize, core: usize) {
        let executed = self.below(2) == 0;
        let node = &mut self.nodes[node];
        let process = &mut node.process;
        if process.redis_connections[core].connection.is_some() {
            process.redis_connections[core].lose(
                &mut process.cores[core],
                &mut self.redis,
                executed,
            );
            process.tick(core);
        }
    }

    /// The core that has the cache channel reconnects, and its first subscribers return while it catches up. Another
    /// node has published an event during that time.
    fn reconnect(&mut self, node: usize) {
        let label = self.nodes[node].label;
        let is_here = |index: &usize| {
            let Guest { client, node } = &self.guests[*index];
            *node == label && !client.over && client.socket_id.is_some()
        };
        let here: Vec<usize> = (0..self.guests.len()).filter(is_here).collect();
        if self.redis_is_away || self.nodes[node].stopped || here.is_empty() {
            return;
        }
        self.act_on_cache(here[0], |client| client.subscribe(CACHE));
        self.settle();
        let Some(home) = self.nodes[node].core_with_topic(CACHE) else { return };
        for index in &here {
            self.act_on_cache(*index, |client| client.unsubscribe(CACHE));
        }
        self.settle();
        // Nothing of before is on its way, so that a greeting of before is not taken for the new one.
        here.iter().for_each(|index| _ = self.guests[*index].client.left.remove(CACHE));
        self.cut(node, home);
        self.publish_on((node + 1) % self.nodes.len(), 0, CACHE);
        for _ in 0..RECONNECT_STEPS {
            match self.below(8) {
                0 => {
                    let index = here[self.below(here.len())];
                    self.act_on_cache(index, |client| client.subscribe(CACHE));
                }
                1 => self.move_other_connections((node, home)),
                2 => self.run_a_core(),
                _ => self.move_connection((node, home)),
            }
            self.read_all();
        }
        self.settle_now();
    }

    /// A core connects, writes all or reads all, or Redis executes a command of it.
    fn move_connection(&mut self, (node, core): (usize, usize)) {
        let what = self.below(3);
        let process = &mut self.nodes[node].process;
        let redis = &mut process.redis_connections[core];
        match (redis.connection, what) {
            (None, _) => redis.call(&mut self.redis),
            (Some(_), 0) => drop(redis.write(&mut self.redis, usize::MAX)),
            (Some(connection), 1) => drop(self.redis.execute(connection)),
            _ => {
                if redis.read(&mut process.cores[core], &mut self.redis, usize::MAX) {
                    process.tick(core);
                }
            }
        }
    }

    /// Redis executes all that the others have sent so far, and they read all.
    fn move_other_connections(&mut self, but: (usize, usize)) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].stopped {
                continue;
            }
            for core in 0..self.nodes[node].process.cores.len() {
                let process = &mut self.nodes[node].process;
                let redis = &mut process.redis_connections[core];
                let Some(connection) = redis.connection.filter(|_| (node, core) != but) else {
                    continue;
                };
                redis.write(&mut self.redis, usize::MAX);
                while self.redis.execute(connection) {}
                if redis.read(&mut process.cores[core], &mut self.redis, usize::MAX) {
                    process.tick(core);
                }
            }
        }
    }

    fn act_on_cache(&mut self, index: usize, action: impl FnOnce(&mut Client) -> Option<Vec<u8>>) {
        let client = &mut self.guests[index].client;
        if !client.over
            && let Some(bytes) = action(client)
        {
            self.expect_greeting(index, CACHE);
            self.send(index, &bytes);
        }
    }

    /// A failover that no connection notices by itself: Redis is a replica from here on.
    pub(super) fn demote(&mut self) {
        if self.redis_is_away || self.nodes.iter().any(|node| node.stopped) {
            return;
        }
        self.redis.set_replica(true);
        self.live_on(NOTICED_SECONDS);
        for node in &self.nodes {
            let is_up = node.process.redis_connections.iter().any(|redis| redis.session.is_up());
            assert!(!is_up, "node {} publishes on a replica", node.label);
        }
        self.redis.set_replica(false);
    }

    /// One node receives messages of the others, and none of them receives its messages.
    pub(super) fn mute(&mut self, node: usize) {
        if self.redis_is_away || self.nodes.iter().any(|node| node.stopped) {
            return;
        }
        // Each has sent a few messages before.
        self.live_on(NOTICED_SECONDS);
        let redis_connections = &self.nodes[node].process.redis_connections;
        let Some(speaker) =
            redis_connections[0].connection.filter(|_| redis_connections[0].session.is_up())
        else {
            return;
        };
        let connections = redis_connections.iter().filter_map(|redis| redis.connection).collect();
        let label = self.nodes[node].label;
        let others = |node: &Node| node.label != label && node.is_up(&self.redis);
        if !self.nodes.iter().any(others) {
            return;
        }
        self.redis.set_partition(connections);
        self.live_on(NOTICED_SECONDS);
        assert!(
            !self.redis.is_connected(speaker),
            "node {label} does not notice that it reaches no node"
        );
        self.redis.set_partition(BTreeSet::new());
        // What it has published during the partition is lost for the others.
        for guest in self.guests.iter_mut().filter(|guest| guest.node != label) {
            for place in guest.client.places.values_mut() {
                place.due_from_elsewhere.retain(|number| number / NUMBERS_PER_NODE != label);
            }
        }
    }

    pub(super) fn kill(&mut self, node: usize) {
        let mut node = self.nodes.remove(node);
        for redis in &mut node.process.redis_connections {
            if let Some(connection) = redis.connection.take() {
                self.redis.drop_connection(connection, self.world.borrow().random.one_in(2));
            }
        }
        for index in 0..self.guests.len() {
            if self.guests[index].node == node.label {
                self.forget(index);
            }
        }
        // What it published and did not hand to Redis is gone with it.
        for guest in &mut self.guests {
            for place in guest.client.places.values_mut() {
                let from = |number: &u64| number / NUMBERS_PER_NODE;
                place.due_from_elsewhere.retain(|number| from(number) != node.label);
            }
        }
        self.asked.retain(|(asker, ..)| *asker != node.label);
        self.forget_backends(node.label);
        node.process.exit();
    }

    /// As by SIGTERM: connections first, then the last word.
    pub(super) fn end_node(&mut self, node: usize) {
        if self.nodes[node].stopped {
            return;
        }
        for index in 0..self.guests.len() {
            if self.guests[index].node == self.nodes[node].label && !self.guests[index].client.over
            {
                let wire = self.guests[index].client.wire;
                self.world.borrow_mut().reset(wire);
                self.forget(index);
            }
        }
        self.nodes[node].process.settle();
        let process = &mut self.nodes[node].process;
        if let Some(redis) =
            process.redis_connections.iter_mut().find(|redis| redis.session.is_up())
        {
            redis.session.send_node_ends();
        }
        for redis in &mut process.redis_connections {
            redis.write(&mut self.redis, usize::MAX);
        }
        self.kill(node);
    }
}
