//! A worker whose Redis is a socket of the test.

use crate::shard::NodeId;
use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use super::*;
use crate::admission::overload::Overload;
use crate::app::Apps;
use crate::config::Config;
use crate::config::validate::{DevelopmentApp, build_config};
use crate::config::{Sources, merge};
use crate::event_log::EventLog;
use crate::mailbox::mesh;
use crate::metrics::CoreMetrics;
use crate::operator_requests::OperatorQueues;
use crate::phase::Phase;
use crate::running_configuration::{
    ConfigurationLink, CurrentConfiguration, MissingReports, RunningConfiguration,
    SentConfiguration, UnappliedConfigurations,
};
use crate::tick::kernel::Kernel;
use crate::worker::kernel::{Choice, Epoll};
use crate::worker::time::Clock;
use crate::worker::transfer::Transfer;

/// Ticks until the worker has its connection, each of at most 20 ms.
const TICKS_MAX: usize = 3_000;

fn config(redis: &TcpListener) -> Config {
    let port = redis.local_addr().unwrap().port().to_string();
    let environment: HashMap<String, String> = [
        ("REVERB_APP_ID", "1"),
        ("REVERB_APP_KEY", "key"),
        ("REVERB_APP_SECRET", "secret"),
        ("REVERB_SCALING_ENABLED", "true"),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", &port),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let merged = merge(&Sources { environment, ..Sources::default() });
    let unused = || String::from("unused");
    let development = DevelopmentApp { id: unused(), key: unused(), secret: unused() };
    build_config(&merged, &development).unwrap()
}

fn worker(redis: &TcpListener) -> Worker<Epoll> {
    let mut config = config(redis);
    let apps = Arc::new(Apps::new(std::mem::take(&mut config.apps)));
    let current_configuration =
        CurrentConfiguration::new(Arc::new(RunningConfiguration::new(1, apps, &config)));
    let (applied, _) = std::sync::mpsc::channel();
    let link = ConfigurationLink::new(SentConfiguration {
        configuration: current_configuration.get(),
        applied,
        missing: MissingReports::none(&Arc::default()),
    });
    let clock = Clock::start();
    let zeros = || [AtomicU64::new(0)].into();
    let shared = Shared {
        kernel_interface: Choice::Epoll(None),
        smaller_rings: AtomicUsize::new(0),
        overload: Arc::new(Overload::default()),
        operator_queues: OperatorQueues::new(1),
        event_log: Arc::new(EventLog::new(1)),
        metrics: [Arc::new(CoreMetrics::new(1))].into(),
        current_configuration,
        unapplied_configurations: Arc::new(UnappliedConfigurations::default()),
        unready: AtomicBool::new(false),
        phase: Phase::default(),
        transfer: Transfer::new(1, None),
        redis: config.scaling.clone().map(|scaling| RedisConnections::new(NodeId(1), scaling, 1)),
        config,
        drained_workers: AtomicUsize::new(0),
        drained_ticks: zeros(),
        heartbeats: zeros(),
        unstartable: OnceLock::new(),
        start_barrier: std::sync::Barrier::new(1),
        listeners_closed: AtomicUsize::new(0),
        clock,
        channel_hash_seed: 1,
        sockets_reserved: 16,
    };
    let mailbox = mesh(1).unwrap().remove(0);
    Worker::new(Arc::new(shared), Epoll::new(clock).unwrap(), mailbox, None, link)
}

fn is_serving(worker: &Worker<Epoll>) -> bool {
    matches!(worker.redis.as_ref().unwrap().state, RedisState::Serving(_))
}

/// Input that is left for the next tick, or a report that comes late, asks for another tick. Once the connection is
/// lost, the worker reads neither.
#[test]
fn a_redis_connection_that_ended_with_unread_input_is_retried_later() {
    let redis = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut worker = worker(&redis);
    for _ in 0..TICKS_MAX {
        let wait_ms = worker.tick();
        if is_serving(&worker) {
            break;
        }
        worker.core.reactor.kernel.park(Some(wait_ms.min(CONNECTING_POLL_MS)));
    }
    assert!(is_serving(&worker), "no connection to a listener that is there");
    // As `read_some` leaves it when there is more than one tick reads.
    worker.core.reactor.cluster.readable = true;
    let number = worker.core.reactor.cluster.number;
    worker.end_serving("the test ends it");
    assert!(!worker.core.reactor.cluster.readable, "nobody reads what is left");
    assert_ne!(
        worker.core.reactor.cluster.number, number,
        "reports of the socket are late from here on"
    );
    // No call of this loop waits, so a core that wants no wait at all shows.
    let busy = (0..20).filter(|_| worker.tick() == 0).count();
    assert!(busy < 5, "{busy} of 20 ticks ask for another one at once");
    worker.core.reactor.cluster.readable = true;
    let busy = (0..20).filter(|_| worker.tick() == 0).count();
    assert!(busy < 5, "{busy} of 20 ticks ask for another one at once, because of a late report");
}
