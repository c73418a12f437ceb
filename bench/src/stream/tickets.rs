//! Session tickets of the client, and how many sessions were resumed.
//!
//! Owns the tickets of one server. Does not expire them. rustls' own store keeps 8 tickets of TLS 1.3 for a server.
//! Each may be used once, so of 64 handshakes in flight most would be full ones. This one keeps as many as the server
//! sends; a server sends one or two for each handshake. Limit: the handshakes of `connect`, which are limited. Cost: a
//! lock that is never contended, and one entry of a queue a handshake.

use std::collections::VecDeque;
#[expect(
    clippy::disallowed_types,
    reason = "rustls shares the store, the one thread never waits"
)]
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

static RESUMED: AtomicU64 = AtomicU64::new(0);

pub(super) fn note_resumed() {
    RESUMED.fetch_add(1, Ordering::Relaxed);
}

/// Handshakes of this process that have resumed a session.
pub(crate) fn resumed() -> u64 {
    RESUMED.load(Ordering::Relaxed)
}

/// All tickets are of one server.
#[expect(clippy::disallowed_types, reason = "rustls shares the store, the one thread never waits")]
#[derive(Default)]
pub(super) struct Tickets(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
}

impl Tickets {
    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Tickets")
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.with(|kept| kept.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(|kept| kept.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.with(|kept| kept.tls12 = Some(value));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.with(|kept| kept.tls12.clone())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.with(|kept| kept.tls12 = None);
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.with(|kept| kept.tls13.push_back(value));
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.with(|kept| kept.tls13.pop_front())
    }
}
