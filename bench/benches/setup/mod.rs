//! A server's configuration and one of its cores, without sockets: what the benchmarks of this folder start from.
#![allow(dead_code, reason = "each benchmark uses its part")]

pub(crate) mod tls;

use std::collections::HashMap;
use std::sync::Arc;

use ringverb::app::{AppIndex, Apps};
use ringverb::config::Config;
use ringverb::config::validate::{DevelopmentApp, build_config};
use ringverb::config::{Sources, merge};
use ringverb::shard::{ConnectionKey, MemoryLimits, Settings, Shard};
use ringverb::tick::http::Rules;

pub(crate) const APP: AppIndex = AppIndex(0);

/// The default configuration with one app.
pub(crate) fn config() -> Config {
    config_with(&[])
}

/// The configuration with these variables of the environment.
pub(crate) fn config_with(more: &[(&str, &str)]) -> Config {
    let names = [("ID", "1001"), ("KEY", "app-key"), ("SECRET", "app-secret")];
    let variable = |(name, value): (&str, &str)| (format!("REVERB_APP_{name}"), value.to_owned());
    let mut environment: HashMap<String, String> = names.into_iter().map(variable).collect();
    environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let merged = merge(&Sources { environment, ..Sources::default() });
    let unused = || String::from("unused");
    let development = DevelopmentApp { id: unused(), key: unused(), secret: unused() };
    build_config(&merged, &development).expect("a plain configuration")
}

/// Rules of HTTP for so many connections.
pub(crate) fn rules(connections_max: usize) -> Rules {
    Rules {
        request_size_max: config().request_size_max,
        request_seconds: 10,
        keepalive_seconds: 75,
        prefix: String::new(),
        verbose_errors: false,
        debug: false,
        print_events: false,
        connections_max,
    }
}

/// A lone core.
pub(crate) fn shard() -> Shard {
    shard_with(config())
}

pub(crate) fn shard_with(config: Config) -> Shard {
    Shard::new(Settings {
        memory: MemoryLimits {
            send_queue_bytes_max: config.send_queue_bytes_max,
            connection_bytes_max: config.connection_bytes_max,
        },
        ..Settings::single_core(Arc::new(Apps::new(config.apps)))
    })
}

pub(crate) fn connect(shard: &mut Shard, entropy: u64) -> ConnectionKey {
    let key = shard.open(APP, entropy.wrapping_mul(0x9e37_79b9_7f4a_7c15), b"");
    flush(shard);
    key
}

pub(crate) fn subscribe(shard: &mut Shard, key: ConnectionKey, channel: &str) {
    let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#);
    shard.on_message(key, text.as_bytes());
    flush(shard);
}

/// What the worker does at the end of a tick, with a kernel that takes everything.
pub(crate) fn flush(shard: &mut Shard) {
    shard.settle();
    let mut dirty = std::mem::take(&mut shard.outbox.dirty);
    for &slot in &dirty {
        if shard.unmark_dirty(slot).is_some() {
            let bytes = shard.send_queue(slot).map_or(0, |queue| queue.bytes());
            shard.on_sent(slot, bytes, false);
        }
    }
    dirty.clear();
    shard.outbox.dirty = dirty;
}
