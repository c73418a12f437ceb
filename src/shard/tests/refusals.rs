//! Lines about refusals that take a server without memory, or one with odd limits (tests/process/refusals has the
//! others).

use serde_json::json;

use super::net::{APP, Client, Net};
use crate::app::sample;
use crate::cause::Cause;
use crate::shard::access::AccessCommand;

/// The lines since the last call.
fn lines(net: &mut Net) -> Vec<(Cause, String)> {
    let refusals = std::mem::take(&mut net.shards[0].outbox.refusals);
    refusals
        .into_iter()
        .map(|refusal| {
            assert_eq!(refusal.app, Some(APP));
            (refusal.cause, refusal.line)
        })
        .collect()
}

fn subscribe(net: &mut Net, client: Client) {
    net.subscribe(client, "news", None);
}

#[test]
fn without_memory_each_line_names_the_option() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    net.shards[0].set_headroom(0);
    subscribe(&mut net, client);
    net.sign_in(client, "7", &[]);
    let because =
        "refused because the server is short of memory: RINGVERB_MEMORY_MAX sets the limit";
    let expected = [
        (Cause::MemorySubscription, format!("subscription to \"news\" {because}")),
        (Cause::MemorySubscription, format!("sign-in {because}")),
    ];
    assert_eq!(lines(&mut net), expected);
    net.shards[0].note_input(client.key, 0, 5_000);
    let line = "a connection was closed in the middle of a message of 5000 bytes or more because the server is short \
                of memory (RINGVERB_MEMORY_MAX)";
    assert_eq!(lines(&mut net), [(Cause::InputMemory, line.to_owned())]);
}

#[test]
fn a_connection_that_is_shed_is_logged_with_its_bytes() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    subscribe(&mut net, client);
    let kept = net.shards[0].kept_bytes(client.key) + 100_000;
    net.shards[0].shed(0..10, |_| 100_000);
    let line = format!(
        "a connection that kept {kept} bytes was closed because the server is short of memory (RINGVERB_MEMORY_MAX)"
    );
    assert_eq!(lines(&mut net), [(Cause::Shed, line)]);
}

#[test]
fn an_id_that_is_too_long_for_a_channel_is_named_with_its_length() {
    let mut app = sample();
    app.user_data_size_max = 100_000;
    let mut net = Net::with_app(1, app);
    let client = net.connect(0);
    net.sign_in(client, &"x".repeat(10_000), &[]);
    let line =
        "sign-in refused: the id of the user has 10000 bytes, which is too long for a channel name";
    assert_eq!(lines(&mut net), [(Cause::UserIdTooLong, line.to_owned())]);
}

/// A message of a closing connection is not looked at, so that it has no lines either.
#[test]
fn a_connection_that_is_closed_has_one_line() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    net.sign_in(client, "7", &[]);
    net.shards[0].end_access(AccessCommand::terminate(APP, "7"));
    net.say(client, "nonsense");
    let line = "a connection of user \"7\" was closed because the app's backend asked for it (terminate_connections)";
    assert_eq!(lines(&mut net), [(Cause::Terminated, line.to_owned())]);
}

#[test]
fn a_refusal_beyond_the_lines_of_its_cause_costs_no_text() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    for _ in 0..1_000 {
        net.say(client, &json!({"event": "pusher:nothing"}).to_string());
    }
    assert_eq!(lines(&mut net).len(), 20);
    assert!(net.shards[0].note_refusal(client.key.slot, Cause::UnknownEvent, &[]).is_none());
}
