//! Look-ups of host names, each within the time of its request.
//!
//! The system's resolver blocks, and waits for a name server that does not answer for as long as `resolv.conf` says,
//! which may be more than `RINGVERB_WEBHOOK_TIMEOUT`. So a thread calls it, and a request waits for the thread no
//! longer than its own timeout, and fails. The thread goes on. A later request for the same host and port waits for the
//! same thread. If the system starts no thread, the request fails. ureq has such a resolver, but it starts a thread for
//! each request, and panics where none can be started.
//!
//! Owns the look-ups under way. Keeps no answer, once the requests that waited have it. Does not send. Limits: one
//! thread for each host and port; `LOOK_UPS_MAX` threads, because a look-up can outlast its request and its endpoint.
//! Cost: one thread for a new connection to a name, none for one to an address.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, MutexGuard, PoisonError};
use std::time::Duration;

use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Error, Timeout};

/// Addresses of one name that are tried (`ResolvedSocketAddrs` has that many places).
const ADDRESSES_MAX: usize = 16;
/// Look-ups under way. Over it, a request fails and is tried again: so many at once means that name servers do not
/// answer.
const LOOK_UPS_MAX: usize = 1_024;

/// What the system's resolver returns.
type FoundAddresses = io::Result<Vec<SocketAddr>>;

/// `FoundAddresses` with the error in its parts, because several requests may receive it.
type LookUpOutcome = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;

#[derive(Debug, Default)]
struct LookUp {
    waiting_requests: usize,
    /// `None`: its thread waits for the system.
    outcome: Option<LookUpOutcome>,
}

/// By host and port.
type LookUps = HashMap<String, LookUp>;

#[expect(
    clippy::disallowed_types,
    reason = "between senders and the threads that look names up, none of them a worker"
)]
type LookUpsLock = std::sync::Mutex<LookUps>;

struct ResolverShared {
    under_way: LookUpsLock,
    finished: Condvar,
    look_up: Box<dyn Fn(&str) -> FoundAddresses + Send + Sync>,
    start_thread: fn(Box<dyn FnOnce() + Send>) -> io::Result<()>,
}

fn start_thread(run: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    std::thread::Builder::new().name("webhook-name".to_owned()).spawn(run).map(drop)
}

/// A clone shares the look-ups under way.
#[derive(Clone)]
pub(super) struct TimedResolver(Arc<ResolverShared>);

impl TimedResolver {
    pub(super) fn new() -> Self {
        let look_up = |host_and_port: &str| {
            host_and_port.to_socket_addrs().map(|found| found.take(ADDRESSES_MAX).collect())
        };
        Self::with(look_up, start_thread)
    }

    fn with(
        look_up: impl Fn(&str) -> FoundAddresses + Send + Sync + 'static,
        start_thread: fn(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> Self {
        let (under_way, finished) = (LookUpsLock::default(), Condvar::new());
        let look_up = Box::new(look_up);
        Self(Arc::new(ResolverShared { under_way, finished, look_up, start_thread }))
    }

    /// `None`: the time is over.
    fn find(&self, host_and_port: &str, time: Duration) -> Option<LookUpOutcome> {
        if let Ok(address) = host_and_port.parse() {
            return Some(Ok(vec![address]));
        }
        let mut under_way = self.lock();
        if !under_way.contains_key(host_and_port) {
            let refused = |text: String| Some(Err((io::ErrorKind::Other, text)));
            if under_way.len() >= LOOK_UPS_MAX {
                return refused(format!(
                    "{LOOK_UPS_MAX} look-ups of host names are under way, which is the limit; check that the name \
                     servers of /etc/resolv.conf answer"
                ));
            }
            // The system is not asked here: without a thread its answer would have no time limit.
            if let Err(error) = self.start(host_and_port) {
                return refused(format!(
                    "the system starts no thread to look up the host name ({error}); raise the limit of processes \
                     (ulimit -u, pids.max, TasksMax)"
                ));
            }
            under_way.insert(host_and_port.to_owned(), LookUp::default());
        }
        if let Some(found) = under_way.get_mut(host_and_port) {
            found.waiting_requests += 1;
        }
        let is_running =
            |all: &mut LookUps| all.get(host_and_port).is_some_and(|found| found.outcome.is_none());
        let waited = self.0.finished.wait_timeout_while(under_way, time, is_running);
        let mut under_way = waited.unwrap_or_else(PoisonError::into_inner).0;
        let found = under_way.get_mut(host_and_port)?;
        found.waiting_requests -= 1;
        let outcome = found.outcome.clone();
        if outcome.is_some() && found.waiting_requests == 0 {
            under_way.remove(host_and_port);
        }
        outcome
    }

    fn start(&self, host_and_port: &str) -> io::Result<()> {
        let (this, host_and_port) = (self.clone(), host_and_port.to_owned());
        let run = move || {
            let outcome = this.0.look_up_now(&host_and_port);
            let mut under_way = this.lock();
            match under_way.get_mut(&host_and_port) {
                Some(found) if found.waiting_requests > 0 => found.outcome = Some(outcome),
                // All requests have given up.
                _ => drop(under_way.remove(&host_and_port)),
            }
            this.0.finished.notify_all();
        };
        (self.0.start_thread)(Box::new(run))
    }

    fn lock(&self) -> MutexGuard<'_, LookUps> {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolverShared {
    fn look_up_now(&self, host_and_port: &str) -> LookUpOutcome {
        (self.look_up)(host_and_port).map_err(|error| (error.kind(), error.to_string()))
    }
}

impl Resolver for TimedResolver {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        _config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let origin = uri.scheme().zip(uri.authority());
        let host_and_port =
            origin.and_then(|(scheme, host)| DefaultResolver::host_and_port(scheme, host));
        let host_and_port = host_and_port.ok_or(Error::HostNotFound)?;
        let found = self.find(&host_and_port, *timeout.after);
        let found = found.ok_or(Error::Timeout(Timeout::Resolve))?;
        let found = found.map_err(|(kind, text)| Error::Io(io::Error::new(kind, text)))?;
        let mut addresses = self.empty();
        found.into_iter().take(ADDRESSES_MAX).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

impl std::fmt::Debug for TimedResolver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("TimedResolver").field(&self.0.under_way).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::webhook::time::WebhookClock;

    const SHORT: Duration = Duration::from_millis(20);
    const PATIENCE: Duration = Duration::from_secs(60);
    const NAME: &str = "backend.test:443";

    /// A system whose look-up goes on until another thread is at the barrier, and the number of look-ups.
    fn hanging(answer: fn() -> FoundAddresses) -> (TimedResolver, Arc<Barrier>, Arc<AtomicUsize>) {
        let (barrier, count) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
        let (of_system, counted) = (barrier.clone(), count.clone());
        let look_up = move |_: &str| {
            counted.fetch_add(1, Ordering::SeqCst);
            of_system.wait();
            answer()
        };
        (TimedResolver::with(look_up, start_thread), barrier, count)
    }

    fn one_address() -> FoundAddresses {
        Ok(vec![([192, 0, 2, 1], 443).into()])
    }

    fn wait_until_empty(resolver: &TimedResolver) {
        while !resolver.lock().is_empty() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_request_whose_name_server_does_not_answer_ends_in_its_own_time() {
        let (resolver, barrier, count) = hanging(one_address);
        let clock = WebhookClock::start();
        for _ in 0..3 {
            assert_eq!(resolver.find(NAME, SHORT), None);
        }
        let taken = clock.elapsed();
        assert!(3 * SHORT <= taken && taken < PATIENCE / 2, "{taken:?}");
        let address = "192.0.2.7:80".parse().unwrap();
        assert_eq!(resolver.find("192.0.2.7:80", SHORT), Some(Ok(vec![address])), "no name");
        assert_eq!(count.load(Ordering::SeqCst), 1, "one thread for the name");
        barrier.wait();
        wait_until_empty(&resolver);
    }

    /// Where a thread is refused, the system is not asked, because its answer may take longer than the request has.
    #[test]
    fn a_request_fails_at_once_if_the_system_starts_no_thread() {
        let refuse = |_| Err(io::Error::other("no more threads"));
        let resolver = TimedResolver::with(|_| unreachable!("no look-up without a thread"), refuse);
        let (_, text) = resolver.find(NAME, PATIENCE).expect("in time").unwrap_err();
        assert!(text.contains("no more threads") && text.contains("ulimit -u"), "{text}");
        assert!(resolver.lock().is_empty());
        assert!(
            resolver.find("192.0.2.7:80", SHORT).unwrap().is_ok(),
            "an address needs no thread"
        );
    }

    #[test]
    fn look_ups_over_the_limit_are_refused_until_others_end() {
        // No thread runs, so no look-up ends by itself.
        let resolver = TimedResolver::with(|_| one_address(), |_| Ok(()));
        let find = |number: usize| resolver.find(&format!("{number}.test:443"), Duration::ZERO);
        for number in 0..LOOK_UPS_MAX {
            assert_eq!(find(number), None, "its name server does not answer");
        }
        assert_eq!(find(0), None, "it waits for the look-up that is under way");
        let (_, text) = find(LOOK_UPS_MAX).expect("at once").unwrap_err();
        assert!(text.contains("1024 look-ups") && text.contains("resolv.conf"), "{text}");
        resolver.lock().remove("7.test:443");
        assert_eq!(find(LOOK_UPS_MAX), None, "there is room again");
    }

    #[test]
    fn requests_for_one_name_wait_for_one_look_up_and_leave_no_entry() {
        let (resolver, barrier, count) = hanging(one_address);
        std::thread::scope(|scope| {
            let find = || resolver.find(NAME, PATIENCE);
            let waits: Vec<_> = (0..4).map(|_| scope.spawn(find)).collect();
            while resolver.lock().get(NAME).is_none_or(|found| found.waiting_requests < 4) {
                std::thread::yield_now();
            }
            barrier.wait();
            for wait in waits {
                assert_eq!(wait.join().unwrap(), Some(Ok(one_address().unwrap())));
            }
        });
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(resolver.lock().is_empty(), "the next request looks the name up again");
    }

    #[test]
    fn the_error_of_the_system_is_that_of_the_request() {
        let (resolver, barrier, _) = hanging(|| Err(io::Error::other("no such name")));
        std::thread::scope(|scope| {
            let wait = scope.spawn(|| resolver.find(NAME, PATIENCE));
            barrier.wait();
            let refused = (io::ErrorKind::Other, "no such name".to_owned());
            assert_eq!(wait.join().unwrap(), Some(Err(refused)));
        });
    }
}
