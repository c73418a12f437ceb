//! A configuration that changes while the shard runs.

use std::sync::Arc;

use serde_json::json;

use super::net::{APP, Client, Net, Received};
use crate::app::{App, AppIndex, Apps, RateLimit, Webhook, WebhookKind, sample};
use crate::shard::ShardConfiguration;

/// Applies a list of apps, the prepared one on all cores first.
fn apply(net: &mut Net, apps: Vec<App>) {
    let changed = net.shards[0].context.settings.apps.change_steps(apps).unwrap();
    for apps in [Arc::new(changed.with_new_apps), Arc::new(changed.without_removed_apps)] {
        for core in 0..net.cores() {
            apply_to(net, core, &apps);
        }
    }
}

fn apply_to(net: &mut Net, core: usize, apps: &Arc<Apps>) {
    let apps = apps.clone();
    net.shards[core].apply(ShardConfiguration { apps, verbose_errors: false, debug: false });
    while net.shards[core].has_unserved() {
        net.shards[core].close_unserved();
    }
    net.post(core);
}

fn app(id: &str) -> App {
    App { id: id.to_owned(), key: format!("key-of-{id}"), ..sample() }
}

fn close_code(received: &[Received]) -> Option<u16> {
    match received.last() {
        Some(Received::Closed(code)) => Some(*code),
        _ => None,
    }
}

fn subscribed(net: &mut Net, core: usize, app: AppIndex, channel: &str) -> Client {
    let client = net.connect_to(app, core);
    let text = json!({"event": "pusher:subscribe", "data": {"channel": channel}});
    net.say(client, &text.to_string());
    net.events(client);
    client
}

#[test]
fn clients_of_a_disabled_app_are_closed_with_4003_and_of_a_removed_one_with_4001() {
    for is_removed in [false, true] {
        let mut net = Net::with_apps(2, vec![app("1"), app("2")]);
        let gone: Vec<Client> =
            (0..2).map(|core| subscribed(&mut net, core, AppIndex(1), "cache-c")).collect();
        let stays = subscribed(&mut net, 1, AppIndex(0), "cache-c");
        let key = net.shards[0].channel_key(AppIndex(1), "cache-c").unwrap();
        net.shards[0].publish(
            key,
            crate::ws::frame::encode_text(b"{\"event\":\"e\"}").into(),
            None,
            true,
        );
        net.post(0);
        for client in &gone {
            net.events(*client);
        }
        let rest = App { is_enabled: false, ..app("2") };
        apply(&mut net, if is_removed { vec![app("1")] } else { vec![app("1"), rest] });
        for client in gone {
            assert_eq!(close_code(&net.events(client)), Some(if is_removed { 4001 } else { 4003 }));
            net.vanish(client);
        }
        net.publish(0, "cache-c", &json!(1), None);
        assert_eq!(net.events(stays).len(), 1, "the other app is served");
        net.settle();
        let apps = net.shards[0].context.settings.apps.clone();
        let open = &apps.get(AppIndex(1)).connections_open;
        assert_eq!(open.load(std::sync::atomic::Ordering::Relaxed), 0);
        // A removed app remembers nothing; the other one has its own event.
        let homes: usize = net.shards.iter().map(|shard| shard.channel_counts().1).sum();
        assert_eq!(homes, if is_removed { 1 } else { 2 });
    }
}

#[test]
fn an_app_keeps_its_index_and_its_counters_and_gets_them_again_when_it_returns() {
    let before = Apps::new(vec![app("1"), app("2")]);
    assert!(before.get(AppIndex(1)).try_count_connection());
    let changed = before.change_steps(vec![app("3"), app("1")]).unwrap();
    assert_eq!(
        changed.with_new_apps.by_id("3"),
        None,
        "nobody may use it before all cores know it"
    );
    assert_eq!(changed.with_new_apps.by_id("2"), Some(AppIndex(1)), "nothing is taken away yet");
    let after = changed.without_removed_apps;
    assert_eq!(
        (after.by_id("1"), after.by_id("2"), after.by_id("3")),
        (Some(AppIndex(0)), None, Some(AppIndex(2)))
    );
    assert_eq!(after.by_key("key-of-2"), None);
    let indexes = |apps: &Apps| ["1", "2", "3", "4"].map(|id| apps.index_of(id));
    let all = [Some(AppIndex(0)), Some(AppIndex(1)), Some(AppIndex(2)), None];
    assert_eq!(indexes(&changed.with_new_apps), all, "messages of other nodes reach all of them");
    assert_eq!(indexes(&after), all);
    let again = after.change_steps(vec![app("2"), app("3")]).unwrap().without_removed_apps;
    assert_eq!((again.by_id("1"), again.by_id("2")), (None, Some(AppIndex(1))));
    let open = again.get(AppIndex(1)).connections_open.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(open, 1, "of the connection that was admitted first");
}

/// The sender of webhooks gets the list of the apps after the cores. An event of an app that it does not have would end
/// the process.
#[test]
fn an_app_wants_no_webhooks_before_it_is_served_and_after_it_is_removed() {
    let kinds = crate::app::WebhookKind::ALL.to_vec();
    let webhook = Webhook { url: "http://backend".to_owned(), kinds, channel_prefixes: vec![] };
    let hooked = |id| App { webhooks: vec![webhook.clone()], ..app(id) };
    let before = Apps::new(vec![hooked("1")]);
    let changed = before.change_steps(vec![hooked("2")]).unwrap();
    let counts = |apps: &Apps| apps.iter().map(|app| app.webhooks.len()).collect::<Vec<_>>();
    assert_eq!(counts(&changed.with_new_apps), [1, 0], "the first step takes nothing away");
    assert_eq!(counts(&changed.without_removed_apps), [0, 1]);
    let again = changed.without_removed_apps.change_steps(vec![hooked("1"), hooked("2")]).unwrap();
    assert_eq!(counts(&again.with_new_apps), [0, 1]);
    assert_eq!(counts(&again.without_removed_apps), [1, 1]);
}

#[test]
fn an_app_without_an_index_is_refused() {
    let ids = (0..u16::MAX).map(|id| app(&id.to_string())).collect();
    let full = Apps::new(ids);
    assert!(full.change_steps(vec![app("0"), app("65534")]).is_ok());
    assert!(full.change_steps(vec![app("new")]).is_err());
}

/// One core serves the new app already, and its home does not: the home knows it all the same.
#[test]
fn mail_of_a_new_app_is_understood_by_a_core_that_does_not_serve_it_yet() {
    let mut net = Net::with_apps(2, vec![app("1")]);
    let changed =
        net.shards[0].context.settings.apps.change_steps(vec![app("1"), app("2")]).unwrap();
    let (prepared, wanted) =
        (Arc::new(changed.with_new_apps), Arc::new(changed.without_removed_apps));
    for core in 0..2 {
        apply_to(&mut net, core, &prepared);
    }
    apply_to(&mut net, 0, &wanted);
    for channel in ["a", "b", "c", "d"] {
        let client = net.connect_to(AppIndex(1), 0);
        let text = json!({"event": "pusher:subscribe", "data": {"channel": channel}});
        net.say(client, &text.to_string());
        let received = net.events(client);
        assert_eq!(received[0].event(), "pusher_internal:subscription_succeeded");
    }
}

#[test]
fn numbers_of_subscribers_begin_and_end_with_their_option() {
    let counting = App { sends_subscription_count: true, ..sample() };
    let mut net = Net::new(3);
    let clients: Vec<Client> = (0..3).map(|core| subscribed(&mut net, core, APP, "news")).collect();
    apply(&mut net, vec![counting.clone()]);
    let last = |received: &[Received]| match received.last() {
        Some(Received::Event(event)) => event["data"].to_string(),
        other => format!("{other:?}"),
    };
    net.settle();
    assert!(last(&net.events(clients[0])).contains('3'));
    apply(&mut net, vec![sample()]);
    net.vanish(clients[2]);
    assert_eq!(net.events(clients[0]), []);
    assert!(net.shards.iter().all(|shard| shard.user_and_count_entries() == 0));
    apply(&mut net, vec![counting]);
    assert!(last(&net.events(clients[1])).contains('2'), "no number of before is left");
}

/// They were counted for a webhook before.
#[test]
fn subscribers_are_sent_the_number_that_was_counted_for_webhooks_when_that_option_begins() {
    let kinds = vec![WebhookKind::SubscriptionCount];
    let webhook = Webhook { url: "http://backend".to_owned(), kinds, channel_prefixes: vec![] };
    let hooked = App { webhooks: vec![webhook], ..sample() };
    let mut net = Net::with_apps(2, vec![hooked.clone()]);
    let clients: Vec<Client> = (0..2).map(|core| subscribed(&mut net, core, APP, "news")).collect();
    net.settle();
    net.webhooks.clear();
    apply(&mut net, vec![App { sends_subscription_count: true, ..hooked }]);
    net.settle();
    for client in clients {
        let received = net.events(client);
        assert_eq!(received.len(), 1, "{received:?}");
        assert!(received[0].data().to_string().contains('2'), "{received:?}");
    }
    assert_eq!(net.webhooks, [], "the backend has the number");
}

/// One core has the new option before the home of the channel, another one after it.
#[test]
fn numbers_of_subscribers_are_whole_in_whichever_order_the_cores_begin_to_count() {
    let counting = App { sends_subscription_count: true, ..sample() };
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [0, 2, 1], [2, 0, 1]] {
        for channel in ["a", "b", "c", "d"] {
            let mut net = Net::new(3);
            let clients: Vec<Client> =
                (0..2).map(|core| subscribed(&mut net, core, APP, channel)).collect();
            let changed = net.shards[0].context.settings.apps.change_steps(vec![counting.clone()]);
            let apps = Arc::new(changed.unwrap().without_removed_apps);
            for core in order {
                apply_to(&mut net, core, &apps);
                net.settle();
            }
            for client in clients {
                let received = net.events(client);
                let last = received.last().map(|received| received.data().to_string());
                assert!(
                    last.as_ref().is_some_and(|data| data.contains('2')),
                    "{order:?} {channel}: {last:?}"
                );
            }
            // The first core ceases, and the others send a change before they know.
            let plain = net.shards[0].context.settings.apps.change_steps(vec![sample()]);
            let plain = Arc::new(plain.unwrap().without_removed_apps);
            apply_to(&mut net, order[0], &plain);
            let late: Vec<Client> =
                (0..3).map(|core| subscribed(&mut net, core, APP, channel)).collect();
            order.into_iter().for_each(|core| apply_to(&mut net, core, &plain));
            net.settle();
            late.into_iter().for_each(|client| net.vanish(client));
            order.into_iter().for_each(|core| apply_to(&mut net, core, &apps));
            let client = subscribed(&mut net, 2, APP, channel);
            net.settle();
            let received = net.events(client);
            let last = received.last().map(|received| received.data().to_string());
            assert!(
                last.as_ref().is_none_or(|data| data.contains('3')),
                "{order:?} {channel}: {last:?}"
            );
        }
    }
}

/// The time of before is longer, so the first connection must not hold up the second.
#[test]
fn a_lowered_authorize_within_closes_new_connections_in_time_and_a_removed_one_none() {
    let within = |seconds| vec![App { authorize_within_seconds: seconds, ..app("1") }];
    let mut net = Net::with_apps(1, within(Some(600)));
    let before = net.connect(0);
    apply(&mut net, within(Some(5)));
    let after = net.connect(0);
    net.events(before);
    net.events(after);
    net.advance(4);
    assert!(net.events(after).is_empty(), "it has another second");
    net.advance(1);
    assert_eq!(close_code(&net.events(after)), Some(4009));
    assert!(net.events(before).is_empty(), "it keeps its time");
    let waits = net.connect(0);
    net.events(waits);
    apply(&mut net, within(None));
    net.advance(6);
    assert_eq!(close_code(&net.events(waits)), None, "the option was removed");
}

#[test]
fn a_client_over_a_lowered_rate_receives_one_error_in_the_window() {
    let limited = |attempts_max| {
        let limit = RateLimit { attempts_max, decay_seconds: 10, terminate_on_limit: false };
        vec![App { rate_limit: Some(limit), ..app("1") }]
    };
    let mut net = Net::with_apps(1, limited(10));
    let client = net.connect(0);
    let ping = "{\"event\":\"pusher:ping\"}";
    (0..7).for_each(|_| net.say(client, ping));
    net.events(client);
    apply(&mut net, limited(5));
    for expected in [1, 0, 0] {
        net.say(client, ping);
        let received = net.events(client);
        assert_eq!(received.len(), expected, "{received:?}");
        assert!(received.iter().all(|one| one.event() == "pusher:error"), "{received:?}");
    }
    net.advance(10);
    net.say(client, ping);
    assert_eq!(net.events(client)[0].event(), "pusher:pong", "a new window");
}
