//! Messages of other nodes, and what Redis stores: whatever comes through a session's topics is taken or refused, never
//! crashes the node, and keeps no more than its bounds.
//!
//! The input is a list of messages: a byte that chooses the topic, a byte with the number of bytes of the payload (a
//! high bit: in units of 64), a byte for how often a nested head is repeated in front of the payload, in units of 40,
//! and the payload.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use ringverb::app::{AppIndex, Apps};
use ringverb::clock::Moment;
use ringverb::cluster::{ClusterSession, Login};
use ringverb::config::validate::{DevelopmentApp, build_config};
use ringverb::config::{Sources, merge};
use ringverb::shard::{MemoryLimits, NodeId, SessionId, Settings, Shard};

const OWN: SessionId = SessionId { node: NodeId(7), core: 0 };
const TOPICS: [&str; 6] = [
    "reverb:rv1:all",
    "reverb:rv1:link:0000000000000007:0",
    "reverb:rv1:c:1001:presence-r",
    "reverb:rv1:c:1001:cache-c",
    "reverb:rv1:c:1001:#server-to-user-1",
    "reverb:rv1:ask",
];
/// The head of a retransmission without its content: what nested once.
const NESTED: [u8; 4] = [15, 1, 0, 0];
/// Nodes and subjects that a few messages can make a node know of.
const ENTRIES_MAX: usize = 64;

pub(crate) fn check(data: &[u8]) {
    let (mut link, mut shard) = node();
    let mut rest = data;
    let mut number = 0_u64;
    while let Some((&[topic, length, nested], after)) = rest.split_first_chunk::<3>() {
        let unit = if length & 0x80 == 0 { 1 } else { 64 };
        let length = usize::from(length & 0x7f) * unit;
        let (tail, after) = after.split_at(length.min(after.len()));
        rest = after;
        let mut payload = Vec::new();
        if nested > 0 {
            number += 1;
            payload.extend([9, 0, u8::try_from(number & 0x7f).unwrap_or_default()]);
            (0..usize::from(nested) * 40).for_each(|_| payload.extend(NESTED));
        }
        payload.extend_from_slice(tail);
        let topic = TOPICS[usize::from(topic) % TOPICS.len()];
        let mut push =
            format!(">3\r\n$7\r\nmessage\r\n${}\r\n{topic}\r\n${}\r\n", topic.len(), payload.len())
                .into_bytes();
        push.extend_from_slice(&payload);
        push.extend_from_slice(b"\r\n");
        if link.receive(&push, &mut shard).is_err() {
            // Only a node whose messages arrive, and that receives none, ends a session by what it sends.
            link.close(&mut shard);
            return;
        }
        let questions = link.take_questions();
        assert!(questions.len() <= 1, "one message asks one question");
        if link.carry_out(&mut shard).is_err() {
            link.close(&mut shard);
            return;
        }
        assert!(link.notes.len() <= 16, "notes are bounded");
        link.notes.clear();
        link.note_sent(link.output().len());
    }
    for second in 1..=12 {
        shard.advance(Moment(second * 1_000));
        if link.advance(1_000 + second, true, &mut shard).is_err() {
            break;
        }
        let _ = link.carry_out(&mut shard);
        link.note_sent(link.output().len());
    }
    let (subjects, nodes) = shard.cluster_entries();
    assert!(
        subjects <= ENTRIES_MAX && nodes <= data.len() + 1,
        "{subjects} subjects, {nodes} nodes"
    );
    link.close(&mut shard);
}

static APPS: LazyLock<Arc<Apps>> = LazyLock::new(|| {
    let names = [("ID", "1001"), ("KEY", "app-key"), ("SECRET", "app-secret")];
    let variable = |(name, value): (&str, &str)| (format!("REVERB_APP_{name}"), value.to_owned());
    let environment: HashMap<String, String> = names.into_iter().map(variable).collect();
    let merged = merge(&Sources { environment, ..Sources::default() });
    let unused = || String::from("unused");
    let development = DevelopmentApp { id: unused(), key: unused(), secret: unused() };
    Arc::new(Apps::new(build_config(&merged, &development).expect("a good one").apps))
});

/// A node with subscribers, whose session is up.
fn node() -> (ClusterSession, Shard) {
    let apps = APPS.clone();
    let mut shard = Shard::new(Settings {
        memory: MemoryLimits { send_queue_bytes_max: 1 << 20, connection_bytes_max: 1 << 20 },
        node: Some(OWN.node),
        pending_leave_seconds: 1,
        topic_idle_seconds: 5,
        ..Settings::single_core(apps.clone())
    });
    let mut link = ClusterSession::new(OWN, "reverb", apps.clone(), Login::default(), 1_000);
    link.open();
    let greeting = b"%1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";
    assert!(link.receive(greeting, &mut shard).is_ok() && link.is_up());
    assert!(apps.get(AppIndex(0)).try_count_connection());
    let key = shard.open(AppIndex(0), 7, b"");
    for channel in ["cache-c", "news"] {
        let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#);
        shard.on_message(key, text.as_bytes());
    }
    assert!(link.carry_out(&mut shard).is_ok());
    link.note_sent(link.output().len());
    (link, shard)
}
