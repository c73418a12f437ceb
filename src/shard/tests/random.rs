//! Everything at once, in random order, from one seed; then what must hold whatever happened.
//!
//! Connects, subscribes, unsubscribes, publishes, client events, disconnects and re-acknowledgements on
//! several cores, while mail travels at random speeds. A failure prints its seed: `RINGVERB_SEED=n cargo test
//! --lib shard::tests::random`.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

use super::net::{Client, Net, Received};
use crate::app::sample;

const CHANNELS: [&str; 5] = ["news", "private-p", "cache-c", "presence-r", "presence-cache-s"];

/// A client and what it may expect of one channel at a time.
struct Actor {
    client: Client,
    user: Value,
    /// Channels asked for and not left, with the requests that have no acknowledgement yet.
    asked: HashMap<&'static str, u32>,
    /// Channels whose acknowledgement it holds.
    acknowledged: HashSet<&'static str>,
    /// Cache channels whose acknowledgement came without the cached event or `cache_miss` that belongs to it.
    half_greeted: HashSet<&'static str>,
    /// Events it must get, by channel: published after its acknowledgement, not its own.
    due: HashMap<&'static str, BTreeSet<u64>>,
    got: HashMap<&'static str, Vec<u64>>,
    roster: HashMap<&'static str, BTreeSet<String>>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

struct World {
    net: Net,
    random: Random,
    actors: Vec<Actor>,
    published: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let cores = u16::try_from(1 + random.below(5)).unwrap();
        let mut app = sample();
        app.presence_members_max = (random.below(2) == 0).then_some(2);
        app.subscription_errors = true;
        Self { net: Net::with_app(cores, app), random, actors: Vec::new(), published: 0 }
    }

    fn act(&mut self) {
        match self.random.below(20) {
            0..=1 if self.actors.len() < 12 => self.connect(),
            2..=5 => self.with_actor(Self::subscribe),
            6..=7 => self.with_actor(Self::unsubscribe),
            8..=11 => self.publish(),
            12 => self.with_actor(Self::client_event),
            13 => self.with_actor(Self::vanish),
            _ => {
                for _ in 0..4 {
                    let lane = self.random.below(self.net.lane_count());
                    self.net.carry(lane);
                }
            }
        }
        for index in 0..self.actors.len() {
            self.read(index);
        }
    }

    fn with_actor(&mut self, act: impl FnOnce(&mut Self, usize)) {
        if !self.actors.is_empty() {
            let index = self.random.below(self.actors.len());
            act(self, index);
        }
    }

    fn connect(&mut self) {
        let core = self.random.below(self.net.cores());
        let client = self.net.connect(core);
        let user = self.random.below(4);
        let user = if user == 0 { json!(user) } else { json!(user.to_string()) };
        self.actors.push(Actor {
            client,
            user,
            asked: HashMap::new(),
            acknowledged: HashSet::new(),
            half_greeted: HashSet::new(),
            due: HashMap::new(),
            got: HashMap::new(),
            roster: HashMap::new(),
        });
    }

    fn subscribe(&mut self, index: usize) {
        let channel = CHANNELS[self.random.below(CHANNELS.len())];
        let actor = &mut self.actors[index];
        *actor.asked.entry(channel).or_default() += 1;
        let user = channel.starts_with("presence-").then(|| actor.user.clone());
        let client = actor.client;
        self.net.subscribe(client, channel, user.as_ref());
    }

    fn unsubscribe(&mut self, index: usize) {
        let channel = CHANNELS[self.random.below(CHANNELS.len())];
        self.read(index);
        let actor = &mut self.actors[index];
        actor.asked.remove(channel);
        actor.acknowledged.remove(channel);
        actor.due.remove(channel);
        actor.got.remove(channel);
        actor.roster.remove(channel);
        let client = actor.client;
        self.net.unsubscribe(client, channel);
    }

    fn publish(&mut self) {
        let channel = CHANNELS[self.random.below(CHANNELS.len())];
        let core = self.random.below(self.net.cores());
        let except = if self.actors.is_empty() || self.random.below(3) > 0 {
            None
        } else {
            Some(self.actors[self.random.below(self.actors.len())].client)
        };
        self.expect(channel, except);
        self.net.publish(core, channel, &json!(self.published), except);
    }

    fn client_event(&mut self, index: usize) {
        let channel = CHANNELS[self.random.below(CHANNELS.len())];
        let actor = &self.actors[index];
        if !actor.acknowledged.contains(channel) || !channel.starts_with("pr") {
            return;
        }
        let client = actor.client;
        self.expect(channel, Some(client));
        let text = json!({"event": "client-e", "channel": channel, "data": self.published});
        self.net.say(client, &text.to_string());
    }

    /// Numbers the next event and notes who must get it.
    fn expect(&mut self, channel: &'static str, except: Option<Client>) {
        self.published += 1;
        for actor in &mut self.actors {
            if actor.acknowledged.contains(channel) && Some(actor.client) != except {
                actor.due.entry(channel).or_default().insert(self.published);
            }
        }
    }

    fn vanish(&mut self, index: usize) {
        let actor = self.actors.swap_remove(index);
        self.net.vanish(actor.client);
    }

    fn read(&mut self, index: usize) {
        let client = self.actors[index].client;
        for received in self.net.read(client) {
            self.actors[index].note(&received);
        }
    }

    fn check_end(&mut self) {
        self.net.settle();
        for index in 0..self.actors.len() {
            self.read(index);
        }
        for actor in &self.actors {
            let asked: HashSet<&str> = actor.asked.keys().copied().collect();
            assert_eq!(asked, actor.acknowledged, "every request is acknowledged");
            for (channel, due) in &actor.due {
                let got: BTreeSet<u64> =
                    actor.got.get(channel).into_iter().flatten().copied().collect();
                assert!(due.is_subset(&got), "{channel}: due {due:?} got {got:?}");
            }
        }
        self.check_order();
        self.check_rosters();
        while let Some(actor) = self.actors.pop() {
            self.net.vanish(actor.client);
        }
        self.net.settle();
        self.net.advance(31 * 60);
        for shard in &self.net.shards {
            assert_eq!(shard.channel_counts(), (0, 0), "nothing is left when all have left");
            assert_eq!(shard.connection_count(), 0);
            assert_eq!(shard.user_and_count_entries(), 0, "nobody's user is known");
            assert_eq!(shard.counts_waiting(), 0, "no number has a receiver");
            assert_eq!(shard.http_bytes(), 0, "no request's bytes are held");
            assert_eq!(shard.account_fault(), None, "what was charged is what is kept");
            let (_, to_authorize) = shard.deadline_counts();
            assert_eq!(to_authorize, 0, "no connection is to be authorized");
            assert_eq!(shard.cached().0, 0, "half an hour is longer than events are cached");
        }
    }

    /// All subscribers of a channel see one order (docs/decisions/0003).
    fn check_order(&self) {
        for channel in CHANNELS {
            let lists: Vec<&Vec<u64>> =
                self.actors.iter().filter_map(|actor| actor.got.get(channel)).collect();
            for left in &lists {
                for right in &lists {
                    let common = |one: &[u64], other: &[u64]| -> Vec<u64> {
                        one.iter().copied().filter(|number| other.contains(number)).collect()
                    };
                    assert_eq!(common(left, right), common(right, left), "{channel}");
                }
            }
        }
    }

    /// What members have received is what is true.
    fn check_rosters(&self) {
        for channel in CHANNELS.into_iter().filter(|name| name.starts_with("presence-")) {
            let inside = self.actors.iter().filter(|actor| actor.asked.contains_key(channel));
            let truth: BTreeSet<String> = inside.clone().map(|actor| text(&actor.user)).collect();
            for actor in inside {
                assert_eq!(actor.roster[channel], truth, "{channel}");
            }
        }
    }
}

fn text(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

impl Actor {
    fn note(&mut self, received: &Received) {
        if received.event() == "pusher:error" {
            assert_eq!(received.data()["code"], json!(4100), "{received:?}");
            return;
        }
        let Some(channel) = CHANNELS.into_iter().find(|name| *name == received.channel()) else {
            assert_eq!(received.event(), "pusher:connection_established", "{received:?}");
            return;
        };
        let data = received.data();
        match received.event() {
            "pusher_internal:subscription_succeeded" => {
                let unanswered =
                    self.asked.get_mut(channel).expect("acknowledged what was not asked");
                *unanswered =
                    unanswered.checked_sub(1).expect("acknowledged more often than asked");
                self.acknowledged.insert(channel);
                if channel.contains("cache-") {
                    self.half_greeted.insert(channel);
                }
                if let Some(ids) = data["presence"]["ids"].as_array() {
                    self.roster.insert(channel, ids.iter().map(text).collect());
                }
            }
            "pusher_internal:member_added" => {
                let new = self.roster.get_mut(channel).unwrap().insert(text(&data["user_id"]));
                assert!(new, "added twice");
            }
            "pusher_internal:member_removed" => {
                let was = self.roster.get_mut(channel).unwrap().remove(&text(&data["user_id"]));
                assert!(was, "removed without being there");
            }
            "pusher:cache_miss" => {
                assert!(self.half_greeted.remove(channel), "a miss without a greeting")
            }
            // The cached event is older than the subscription; it is no part of the channel's order from here on.
            "e" if self.half_greeted.remove(channel) => {}
            "pusher:subscription_error" => {
                assert!(self.asked.remove(channel).is_some(), "refused what was not asked");
                assert!(!self.acknowledged.contains(channel), "refused after its acknowledgement");
            }
            _ => {
                assert!(self.acknowledged.contains(channel), "an event before its acknowledgement");
                let number = data.as_u64().unwrap();
                let list = self.got.entry(channel).or_default();
                assert!(!list.contains(&number), "{channel}: {number} twice");
                list.push(number);
            }
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..300 {
        world.act();
    }
    world.check_end();
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a failing seed is replayed by name")]
fn invariants_hold_for_any_interleaving() {
    if let Ok(seed) = std::env::var("RINGVERB_SEED") {
        return run(seed.parse().expect("a number"));
    }
    for seed in 0..400 {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed}: run it alone with RINGVERB_SEED={seed}");
    }
}
