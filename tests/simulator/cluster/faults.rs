//! Faults of a cluster: Redis connections are cut, Redis is demoted or does not pass on what a node publishes, and
//! nodes die or end in order.

use super::*;

impl Cluster {
    pub(super) fn fault(&mut self) {
        let node = self.below(self.nodes.len());
        match self.below(11) {
            0..=1 => {
                let core = self.below(self.nodes[node].process.redis_connections.len());
                self.cut(node, core);
            }
            2 => self.redis_is_away ^= true,
            3 => self.redis.restart(),
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
