//! Access that a backend takes back (docs/PROTOCOL.md C9).

use serde_json::json;

use super::net::{APP, Client, Net, Received};
use crate::pusher::webhook_event::Happening;
use crate::shard::{AccessAction, AccessCommand, AccessTarget};

fn unsubscribe(target: AccessTarget, channel: &str) -> AccessCommand {
    AccessCommand {
        app: APP,
        target,
        action: AccessAction::Unsubscribe { channel: channel.into() },
    }
}

fn end(net: &mut Net, core: usize, command: AccessCommand) {
    net.shards[core].end_access(command);
    net.post(core);
}

/// The names of events, and codes of closes.
fn received_events(net: &mut Net, client: Client) -> Vec<String> {
    let name = |received: &Received| match received {
        Received::Closed(code) => code.to_string(),
        other => other.event().to_owned(),
    };
    net.events(client).iter().map(name).collect()
}

fn subscribers(net: &Net, channel: &str) -> usize {
    let names = vec![channel.to_owned()];
    let question = crate::shard::Question::Describe { app: APP, names };
    let count = |shard: &crate::shard::Shard| match shard.answer(&question) {
        crate::shard::Answer::Described(parts) => parts[0].subscription_count,
        other => panic!("{other:?}"),
    };
    net.shards.iter().map(count).sum()
}

#[test]
fn a_user_loses_one_channel_on_all_cores_and_keeps_the_others() {
    let mut app = crate::app::sample();
    app.webhooks = vec![crate::app::Webhook {
        url: "http://127.0.0.1/".to_owned(),
        kinds: crate::app::WebhookKind::ALL.to_vec(),
        channel_prefixes: Vec::new(),
    }];
    let mut net = Net::with_app(3, app);
    let [anna, anna_again, ben] = [0, 1, 2].map(|core| net.connect(core));
    for (client, user) in [(anna, "7"), (anna_again, "7"), (ben, "8")] {
        net.subscribe(client, "presence-r", Some(&json!(user)));
        net.subscribe(client, "private-a", None);
        net.settle();
    }
    for client in [anna, anna_again, ben] {
        net.events(client);
    }
    net.webhooks.clear();
    end(&mut net, 2, unsubscribe(AccessTarget::User("7".into()), "presence-r"));
    for client in [anna, anna_again] {
        assert_eq!(received_events(&mut net, client), ["pusher:subscription_error"]);
    }
    assert_eq!(received_events(&mut net, ben), ["pusher_internal:member_removed"]);
    assert_eq!((subscribers(&net, "presence-r"), subscribers(&net, "private-a")), (1, 3));
    let removed = net.webhooks.iter().filter(|event| match &event.happening {
        Happening::MemberRemoved { user_id } => &**user_id == "7",
        _ => false,
    });
    assert_eq!(removed.count(), 1);
    net.publish(0, "presence-r", &json!(1), None);
    assert_eq!(received_events(&mut net, anna), [""; 0]);
    assert_eq!(received_events(&mut net, ben), ["e"]);
    // Nothing forbids it to subscribe again: the backend signs, or does not.
    net.subscribe(anna, "presence-r", Some(&json!("7")));
    assert_eq!(received_events(&mut net, anna), ["pusher_internal:subscription_succeeded"]);
}

#[test]
fn a_subscription_that_its_home_has_not_answered_is_ended_and_never_acknowledged() {
    let mut net = Net::new(2);
    for (number, channel) in ["private-a", "private-b", "presence-r"].into_iter().enumerate() {
        let client = net.connect(number % 2);
        net.events(client);
        let user = json!("7");
        net.subscribe(client, channel, channel.starts_with("presence-").then_some(&user));
        // The answer, if it is of another core, is still under way.
        let is_answered = subscribers(&net, channel) == 1;
        end(&mut net, client.core, unsubscribe(AccessTarget::Socket(client.socket_id), channel));
        let received_events = received_events(&mut net, client);
        let expected: &[&str] =
            &["pusher_internal:subscription_succeeded", "pusher:subscription_error"];
        assert_eq!(received_events, expected[usize::from(!is_answered)..], "{channel}");
        net.settle();
        assert_eq!(subscribers(&net, channel), 0, "{channel}");
        net.vanish(client);
    }
    net.settle();
    for shard in &net.shards {
        assert_eq!(shard.channel_counts(), (0, 0));
    }
}

#[test]
fn disconnect_closes_one_connection_of_a_user_with_the_wanted_code() {
    for (action, code) in [(AccessAction::Reconnect, "4200"), (AccessAction::Terminate, "4009")] {
        let mut net = Net::new(2);
        let [one, other] = [0, 1].map(|core| net.connect(core));
        for client in [one, other] {
            net.subscribe(client, "presence-r", Some(&json!("7")));
            net.events(client);
        }
        let target = AccessTarget::Socket(one.socket_id);
        end(&mut net, 1, AccessCommand { app: APP, target, action });
        assert_eq!(received_events(&mut net, one).last().map(String::as_str), Some(code));
        assert_eq!(received_events(&mut net, other), [""; 0]);
        assert_eq!(subscribers(&net, "presence-r"), 1);
    }
}

#[test]
fn a_command_for_an_absent_user_or_another_app_changes_nothing() {
    let apps = ["1001", "1002"].map(|id| {
        let key = format!("key-of-{id}");
        crate::app::App { id: id.to_owned(), key, ..crate::app::sample() }
    });
    let mut net = Net::with_apps(2, apps.into());
    let client = net.connect(0);
    net.say(client, &json!({"event": "pusher:subscribe", "data": {"channel": "news"}}).to_string());
    net.events(client);
    let other_app = AccessCommand {
        app: crate::app::AppIndex(1),
        ..unsubscribe(AccessTarget::Socket(client.socket_id), "news")
    };
    let of_nobody = unsubscribe(AccessTarget::User("nobody".into()), "news");
    let elsewhere = unsubscribe(AccessTarget::Socket(client.socket_id), "other");
    for command in [other_app, of_nobody, elsewhere] {
        end(&mut net, 1, command);
        assert_eq!(received_events(&mut net, client), [""; 0]);
    }
    assert_eq!(subscribers(&net, "news"), 1);
}
