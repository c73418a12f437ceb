//! Several shards in one thread, joined by the lanes' contract: first-in first-out per ordered pair of cores
//! and lane, with any delay. Clients are what their frames say.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::app::{App, AppIndex, Apps, Secret, sample};
use crate::clock::Moment;
use crate::pusher::outbound;
use crate::pusher::signature;
use crate::pusher::socket_id::SocketId;
use crate::pusher::webhook_event::WebhookEvent;
use crate::shard::{ConnectionKey, Lane, Mail, MemoryLimits, Settings, Shard};
use crate::ws::frame;

pub(super) const APP: AppIndex = AppIndex(0);
/// Connections and channels up to which the invariants are checked after each step.
const INVARIANTS_ENTRIES_MAX: usize = 60;

/// A client, by the core it is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) core: usize,
    pub(super) key: ConnectionKey,
    pub(super) socket_id: SocketId,
}

/// What a client received: an event, or a close frame's code.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Received {
    Event(Value),
    Closed(u16),
    Ping,
    Pong(Vec<u8>),
}

impl Received {
    pub(super) fn event(&self) -> &str {
        match self {
            Self::Event(value) => value["event"].as_str().unwrap_or_default(),
            _ => "",
        }
    }

    pub(super) fn channel(&self) -> &str {
        match self {
            Self::Event(value) => value["channel"].as_str().unwrap_or_default(),
            _ => "",
        }
    }

    /// `data`, decoded when it is a string that holds JSON.
    pub(super) fn data(&self) -> Value {
        let Self::Event(value) = self else { return Value::Null };
        match &value["data"] {
            Value::String(text) => serde_json::from_str(text).unwrap_or(value["data"].clone()),
            other => other.clone(),
        }
    }
}

/// A core of a node of a cluster that has received nothing of other nodes yet.
pub(in crate::shard) fn node_alone() -> Shard {
    let mut net = Net::new(1);
    let shard = net.shards.remove(0);
    Shard::new(Settings { node: Some(crate::shard::NodeId(7)), ..shard.context.settings })
}

pub(super) struct Net {
    pub(super) shards: Vec<Shard>,
    /// By sender, receiver and lane.
    lanes: Vec<VecDeque<Mail>>,
    entropy: u64,
    /// What the apps' backends would have received.
    pub(super) webhooks: Vec<WebhookEvent>,
}

impl Net {
    pub(super) fn new(cores: u16) -> Self {
        Self::with_app(cores, sample())
    }

    pub(super) fn with_app(cores: u16, app: App) -> Self {
        Self::with_queue(cores, app, 1 << 20)
    }

    pub(super) fn with_queue(cores: u16, app: App, send_queue_bytes_max: usize) -> Self {
        Self::with_all(cores, app, send_queue_bytes_max, false)
    }

    pub(super) fn with_all(
        cores: u16,
        app: App,
        send_queue_bytes_max: usize,
        verbose_errors: bool,
    ) -> Self {
        Self::with_settings(cores, vec![app], send_queue_bytes_max, verbose_errors)
    }

    /// The cores of a node of a cluster whose connection to Redis is down.
    pub(super) fn in_cluster(cores: u16, app: App) -> Self {
        let mut net = Self::with_app(cores, app);
        for shard in &mut net.shards {
            let node = Some(crate::shard::NodeId(7));
            *shard = Shard::new(Settings { node, ..shard.context.settings.clone() });
        }
        net
    }

    pub(super) fn with_apps(cores: u16, apps: Vec<App>) -> Self {
        Self::with_settings(cores, apps, 1 << 20, false)
    }

    fn with_settings(
        cores: u16,
        apps: Vec<App>,
        send_queue_bytes_max: usize,
        verbose_errors: bool,
    ) -> Self {
        let apps = Arc::new(Apps::new(apps));
        let shards = (0..cores)
            .map(|core| {
                Shard::new(Settings {
                    core,
                    cores,
                    memory: MemoryLimits {
                        send_queue_bytes_max,
                        connection_bytes_max: send_queue_bytes_max + (1 << 20),
                    },
                    verbose_errors,
                    ..Settings::single_core(apps.clone())
                })
            })
            .collect();
        let lanes = (0..usize::from(cores) * usize::from(cores) * 2).map(|_| VecDeque::new());
        Self { shards, lanes: lanes.collect(), entropy: 0, webhooks: Vec::new() }
    }

    pub(super) fn cores(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn connect(&mut self, core: usize) -> Client {
        self.connect_to(APP, core)
    }

    pub(super) fn connect_to(&mut self, app: AppIndex, core: usize) -> Client {
        self.entropy = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        assert!(self.shards[core].context.settings.apps.get(app).try_count_connection());
        let key = self.shards[core].open(app, self.entropy, b"");
        let socket_id = self.shards[core].get(key).unwrap().socket_id;
        assert!(!self.shards[core].get(key).unwrap().is_closing(), "it is open");
        Client { core, key, socket_id }
    }

    pub(super) fn say(&mut self, client: Client, text: &str) {
        self.shards[client.core].on_message(client.key, text.as_bytes());
        self.post(client.core);
    }

    /// Subscribes, signed where that is due; on a presence channel as this user.
    pub(super) fn subscribe(&mut self, client: Client, channel: &str, user: Option<&Value>) {
        let mut data = json!({"channel": channel});
        let channel_data =
            user.map(|id| json!({"user_id": id, "user_info": {"n": id}}).to_string());
        let mut signed = format!("{}:{channel}", client.socket_id);
        if let Some(text) = &channel_data {
            signed.push(':');
            signed.push_str(text);
            data["channel_data"] = json!(text);
        }
        let hex = signature::sign(&Secret::new("app-secret"), &[signed.as_bytes()]);
        data["auth"] = json!(format!("app-key:{}", String::from_utf8_lossy(&hex)));
        self.say(client, &json!({"event": "pusher:subscribe", "data": data}).to_string());
    }

    /// Signs in as a user with a list of others to watch.
    pub(super) fn sign_in(&mut self, client: Client, id: &str, watchlist: &[&str]) {
        let user_data = json!({"id": id, "user_info": {"n": id}, "watchlist": watchlist});
        let user_data = user_data.to_string();
        let signed = format!("{}::user::{user_data}", client.socket_id);
        let hex = signature::sign(&Secret::new("app-secret"), &[signed.as_bytes()]);
        let auth = format!("app-key:{}", String::from_utf8_lossy(&hex));
        let data = json!({"auth": auth, "user_data": user_data});
        self.say(client, &json!({"event": "pusher:signin", "data": data}).to_string());
    }

    pub(super) fn unsubscribe(&mut self, client: Client, channel: &str) {
        let text = json!({"event": "pusher:unsubscribe", "data": {"channel": channel}});
        self.say(client, &text.to_string());
    }

    /// The socket is gone without a word.
    pub(super) fn vanish(&mut self, client: Client) {
        self.shards[client.core].remove(client.key);
        self.post(client.core);
    }

    pub(super) fn publish(
        &mut self,
        core: usize,
        channel: &str,
        data: &Value,
        except: Option<Client>,
    ) {
        let shard = &mut self.shards[core];
        let key = shard.channel_key(APP, channel).unwrap();
        let mut text = Vec::new();
        outbound::event("\"e\"", &json!(data.to_string()).to_string(), channel, &mut text);
        let except = except.map(|client| client.socket_id);
        shard.publish(key, frame::encode_text(&text).into(), except, true);
        self.post(core);
    }

    /// Checks the whole state of a core, unless a test of size has made it so large that this would take most of its
    /// time.
    fn check_invariants(&self, core: usize) {
        let shard = &self.shards[core];
        let (local, home) = shard.channel_counts();
        if shard.connection_count() + local + home <= INVARIANTS_ENTRIES_MAX {
            assert_eq!(shard.check_invariants(&[]), Ok(()));
            assert_eq!(shard.check_sides_agree(), Ok(()));
            assert_eq!(shard.check_gauges(), Ok(()), "the gauges are what they count");
        }
    }

    /// Puts a shard's mail into its lanes.
    pub(super) fn post(&mut self, core: usize) {
        self.shards[core].settle();
        self.check_invariants(core);
        self.webhooks.append(&mut self.shards[core].outbox.webhooks);
        let mails = std::mem::take(&mut self.shards[core].outbox.mails);
        for (to, mail) in mails {
            assert!(usize::from(to) < self.cores(), "a core of this process");
            let lane = usize::from(mail.lane() == Lane::FromHome);
            let cores = self.cores();
            self.lanes[(core * cores + usize::from(to)) * 2 + lane].push_back(mail);
        }
    }

    pub(super) fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// Delivers the next mail of a lane; `false` when it is empty.
    pub(super) fn carry(&mut self, lane: usize) -> bool {
        let Some(mail) = self.lanes[lane].pop_front() else { return false };
        let receiver = lane / 2 % self.cores();
        self.shards[receiver].on_mail(mail);
        assert!(self.shards[receiver].outbox.own_mail.is_empty(), "no call is half done");
        self.post(receiver);
        true
    }

    /// Delivers mail until there is none.
    pub(super) fn settle(&mut self) {
        while (0..self.lane_count()).filter(|lane| self.carry(*lane)).count() > 0 {}
        assert!(self.lanes.iter().all(VecDeque::is_empty), "no mail is under way");
    }

    pub(super) fn advance(&mut self, seconds: u64) {
        for core in 0..self.cores() {
            let now = self.shards[core].now();
            self.shards[core].advance(Moment(now.0 + seconds * 1000));
            assert_eq!(self.shards[core].now(), Moment(now.0 + seconds * 1000));
            self.post(core);
        }
        self.settle();
    }

    /// Everything that waits for a client.
    pub(super) fn read(&mut self, client: Client) -> Vec<Received> {
        let shard = &mut self.shards[client.core];
        if shard.get(client.key).is_none() {
            return Vec::new();
        }
        let _ = shard.unmark_dirty(client.key.slot);
        let mut bytes = Vec::new();
        shard.send_queue(client.key.slot).unwrap().copy_to(&mut bytes, usize::MAX);
        shard.on_sent(client.key.slot, bytes.len(), false);
        shard.note_sent(bytes.len());
        frames(&bytes)
    }

    /// Drops what waits for a client, whatever it is.
    pub(super) fn read_raw(&mut self, client: Client) {
        let shard = &mut self.shards[client.core];
        let waiting = shard.send_queue(client.key.slot).unwrap().bytes();
        let _ = shard.unmark_dirty(client.key.slot);
        shard.on_sent(client.key.slot, waiting, false);
        shard.note_sent(waiting);
    }

    /// `settle`, then `read` without the greeting of the connection itself.
    pub(super) fn events(&mut self, client: Client) -> Vec<Received> {
        self.settle();
        let mut received = self.read(client);
        received.retain(|one| one.event() != "pusher:connection_established");
        received
    }
}

fn frames(mut bytes: &[u8]) -> Vec<Received> {
    let mut received = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        let (length, rest) = match second {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => {
                let (length, rest) = rest.split_at(8);
                (usize::try_from(u64::from_be_bytes(length.try_into().unwrap())).unwrap(), rest)
            }
            short => (usize::from(*short), rest),
        };
        let (payload, rest) = rest.split_at(length);
        received.push(match first & 15 {
            1 => Received::Event(serde_json::from_slice(payload).unwrap()),
            8 => Received::Closed(u16::from_be_bytes([payload[0], payload[1]])),
            9 => Received::Ping,
            10 => Received::Pong(payload.to_vec()),
            other => panic!("opcode {other}"),
        });
        bytes = rest;
    }
    assert!(bytes.is_empty(), "whole frames: {} bytes are left", bytes.len());
    received
}
