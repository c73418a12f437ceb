//! The HTTP agent for endpoints over TLS. It exists when the certificate authorities of the host have been read.
//!
//! One thread reads them when the first request needs them, because a file system may take long, or for ever, to
//! answer. A request waits for the thread no longer than its own timeout, and fails. The thread goes on, and a later
//! request uses what it has read. The end of the process does not wait for it.
//!
//! Owns the agent and the thread. Does not send, retry, or know an endpoint. Limits: one such thread for each
//! `TlsAgent`, one warning about it. Cost: one lock for each request over TLS.

use std::io;
use std::sync::{Arc, Condvar, MutexGuard, PoisonError};
use std::time::Duration;

use ureq::Agent;

use crate::webhook::time::WebhookClock;

/// A load that takes longer is reported, or one for which a request has waited in vain. Certificates of a local file
/// system are read in milliseconds.
const REPORT_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum LoadState {
    /// No request has needed the agent, or no thread could be started for it.
    NotStarted,
    /// A thread reads the authorities.
    Loading {
        is_reported: bool,
    },
    Loaded(Agent),
    /// No request begins any longer.
    Closed,
}

#[expect(
    clippy::disallowed_types,
    reason = "between senders, the loading thread and the dispatcher, none of them a worker"
)]
type StateLock = std::sync::Mutex<LoadState>;

struct TlsAgentShared {
    /// One lock orders a close and the end of a load: either `close` finds the agent and shuts it down, or the loading
    /// thread finds `Closed` and drops its agent. No request can get an agent that stays open after `close`.
    state: StateLock,
    changed: Condvar,
    load: Box<dyn Fn() -> Agent + Send + Sync>,
}

#[derive(Clone)]
pub(super) struct TlsAgent(Arc<TlsAgentShared>);

#[derive(Debug)]
pub(super) enum NoAgent {
    /// The authorities are still being read.
    NotLoaded,
    NoThread(io::Error),
    Closed,
}

impl TlsAgent {
    /// `load` is called once, on a thread of its own, when a request needs the agent.
    pub(super) fn new(load: impl Fn() -> Agent + Send + Sync + 'static) -> Self {
        Self(Arc::new(TlsAgentShared {
            state: StateLock::new(LoadState::NotStarted),
            changed: Condvar::new(),
            load: Box::new(load),
        }))
    }

    /// The agent, if it is there within the timeout. `places` names where the authorities are, for the warning.
    ///
    /// # Errors
    /// When it is not there in time, or will not be.
    pub(super) fn get(
        &self,
        timeout: Duration,
        places: impl FnOnce() -> String,
    ) -> Result<Agent, NoAgent> {
        let clock = WebhookClock::start();
        let mut state = self.lock();
        if matches!(*state, LoadState::NotStarted) {
            self.start_load().map_err(NoAgent::NoThread)?;
            *state = LoadState::Loading { is_reported: false };
        }
        state = self.wait(state, timeout.min(REPORT_AFTER));
        if let LoadState::Loading { is_reported: is_reported @ false } = &mut *state {
            *is_reported = true;
            drop(state);
            warn_of_slow_load(&places());
            state = self.lock();
        }
        state = self.wait(state, timeout.saturating_sub(clock.elapsed()));
        match &*state {
            LoadState::Loaded(agent) => Ok(agent.clone()),
            LoadState::Closed => Err(NoAgent::Closed),
            LoadState::NotStarted | LoadState::Loading { .. } => Err(NoAgent::NotLoaded),
        }
    }

    pub(super) fn is_loading(&self) -> bool {
        matches!(*self.lock(), LoadState::Loading { .. })
    }

    /// Ends the requests under way and the waits for the agent, and lets no new request begin. Does not wait for the
    /// loading thread.
    pub(super) fn close(&self) {
        let before = std::mem::replace(&mut *self.lock(), LoadState::Closed);
        self.0.changed.notify_all();
        if let LoadState::Loaded(agent) = before {
            agent.shutdown();
        }
    }

    fn start_load(&self) -> io::Result<()> {
        let this = self.clone();
        let run = move || {
            let agent = (this.0.load)();
            let mut state = this.lock();
            if matches!(*state, LoadState::Loading { .. }) {
                *state = LoadState::Loaded(agent);
                this.0.changed.notify_all();
            }
        };
        std::thread::Builder::new().name("webhook-certs".to_owned()).spawn(run).map(drop)
    }

    /// Waits until the load or the time is over.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, LoadState>,
        time: Duration,
    ) -> MutexGuard<'a, LoadState> {
        let is_loading = |state: &mut LoadState| matches!(state, LoadState::Loading { .. });
        let waited = self.0.changed.wait_timeout_while(state, time, is_loading);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, LoadState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for TlsAgent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("TlsAgent").field(&self.0.state).finish()
    }
}

fn warn_of_slow_load(places: &str) {
    tracing::warn!(
        event = "webhook_authorities",
        "the certificate authorities of this host ({places}) are still being read, and webhooks over TLS wait for \
         them. Check that their file system answers"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const PATIENCE: Duration = Duration::from_secs(60);

    /// An agent whose load goes on until another thread is at the barrier, and the number of loads.
    fn hanging() -> (TlsAgent, Arc<Barrier>, Arc<AtomicUsize>) {
        let (barrier, loads) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
        let (of_load, count) = (barrier.clone(), loads.clone());
        let load = move || {
            count.fetch_add(1, Ordering::SeqCst);
            of_load.wait();
            Agent::new_with_defaults()
        };
        (TlsAgent::new(load), barrier, loads)
    }

    fn get(agent: &TlsAgent, timeout: Duration) -> Result<Agent, NoAgent> {
        agent.get(timeout, || "a store".to_owned())
    }

    #[test]
    fn requests_end_in_time_while_one_thread_loads_and_a_later_one_has_the_agent() {
        let (agent, barrier, loads) = hanging();
        let clock = WebhookClock::start();
        for _ in 0..3 {
            assert!(matches!(get(&agent, SHORT), Err(NoAgent::NotLoaded)));
        }
        let taken = clock.elapsed();
        assert!(3 * SHORT <= taken && taken < PATIENCE / 2, "{taken:?}");
        assert!(agent.is_loading());
        std::thread::scope(|scope| {
            let waits: Vec<_> =
                (0..4).map(|_| scope.spawn(|| get(&agent, PATIENCE).is_ok())).collect();
            barrier.wait();
            assert!(waits.into_iter().all(|wait| wait.join().unwrap()));
        });
        assert!(get(&agent, Duration::ZERO).is_ok() && !agent.is_loading());
        assert_eq!(loads.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_slow_load_is_reported_once() {
        let (agent, barrier, _) = hanging();
        let mut reports = 0;
        for _ in 0..3 {
            let waited = agent.get(SHORT, || {
                reports += 1;
                "a store".to_owned()
            });
            assert!(waited.is_err());
        }
        assert_eq!(reports, 1);
        barrier.wait();
    }

    #[test]
    fn a_close_wakes_the_waits_and_what_is_loaded_later_is_not_used() {
        let (agent, barrier, _) = hanging();
        let clock = WebhookClock::start();
        std::thread::scope(|scope| {
            let wait = scope.spawn(|| get(&agent, PATIENCE));
            while !agent.is_loading() {
                std::thread::yield_now();
            }
            agent.close();
            assert!(matches!(wait.join().unwrap(), Err(NoAgent::Closed)));
        });
        assert!(clock.elapsed() < PATIENCE / 2, "nothing waits for the load");
        barrier.wait();
        assert!(matches!(get(&agent, PATIENCE), Err(NoAgent::Closed)));
    }
}
