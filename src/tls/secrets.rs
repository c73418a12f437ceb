//! The secrets of TLS 1.3 that rustls derives in a handshake. PURE.
//!
//! Owns the secrets of one handshake. rustls passes them only to a key log, and within the call that derives them.
//! Without the traffic secrets no key update is possible after the handshake; without that of the client's handshake,
//! early data could not be recognized. Never logs one, and zeroes them when the handshake ends.
//!
//! No limits: three secrets for each handshake. Cost: 144 bytes for a handshake, and copies of as many bytes for each
//! call of rustls.

use std::cell::Cell;

use rustls::KeyLog;
use zeroize::Zeroize;

use super::direction::SECRET_BYTES_MAX;

type TrafficSecret = [u8; SECRET_BYTES_MAX];
const NO_SECRETS: [TrafficSecret; 3] = [[0; SECRET_BYTES_MAX]; 3];

thread_local! {
    /// The secrets that rustls has derived in the current call, in the order of `index_of_label`.
    static DERIVED_SECRETS: Cell<[TrafficSecret; 3]> = const { Cell::new(NO_SECRETS) };
}

/// The key log of all handshakes: rustls has no other way to pass a secret on.
#[derive(Debug)]
pub(super) struct SecretTap;

impl KeyLog for SecretTap {
    fn will_log(&self, label: &str) -> bool {
        index_of_label(label).is_some()
    }

    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let Some(index) = index_of_label(label) else { return };
        let mut derived = DERIVED_SECRETS.get();
        let slot = derived.get_mut(index).and_then(|slot| slot.get_mut(..secret.len()));
        if let Some(slot) = slot {
            slot.copy_from_slice(secret);
        }
        DERIVED_SECRETS.set(derived);
        derived.zeroize();
    }
}

fn index_of_label(label: &str) -> Option<usize> {
    match label {
        "CLIENT_TRAFFIC_SECRET_0" => Some(0),
        "SERVER_TRAFFIC_SECRET_0" => Some(1),
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET" => Some(2),
        _ => None,
    }
}

/// The secrets of one handshake; zeros in TLS 1.2, and before the server's answer.
pub(super) struct Secrets {
    /// The first traffic secrets of client and server, from which key updates derive the next ones.
    traffic: [TrafficSecret; 2],
    client_handshake: TrafficSecret,
}

impl Default for Secrets {
    fn default() -> Self {
        let [client, server, client_handshake] = NO_SECRETS;
        Self { traffic: [client, server], client_handshake }
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.traffic.zeroize();
        self.client_handshake.zeroize();
    }
}

impl Secrets {
    /// Moves the secrets that the last call of rustls has derived into this handshake. Called after each call, on the
    /// same thread.
    pub(super) fn keep_derived(&mut self) {
        let mut derived = DERIVED_SECRETS.replace(NO_SECRETS);
        if derived != NO_SECRETS {
            let [client, server, client_handshake] = derived;
            self.traffic = [client, server];
            self.client_handshake = client_handshake;
            derived.zeroize();
        }
    }

    pub(super) fn traffic(&self) -> &[TrafficSecret; 2] {
        &self.traffic
    }

    /// `None` in TLS 1.2, and before the server has answered.
    pub(super) fn client_handshake(&self) -> Option<TrafficSecret> {
        (self.client_handshake != [0; SECRET_BYTES_MAX]).then_some(self.client_handshake)
    }
}
