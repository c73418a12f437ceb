//! The secrets of TLS 1.3 that rustls derives in a handshake. PURE.
//!
//! rustls passes them only to a key log, and within the call that derives them. Without the traffic secrets no key
//! update is possible after the handshake; without that of the client's handshake, early data could not be recognized.
//! Nothing is logged. Secrets are zeroed when the handshake ends. No limits: a fixed number of secrets for each
//! handshake.

use std::cell::Cell;

use rustls::KeyLog;
use zeroize::Zeroize;

use super::direction::SECRET_BYTES_MAX;

type TrafficSecret = [u8; SECRET_BYTES_MAX];
const NO_SECRETS: [TrafficSecret; 3] = [[0; SECRET_BYTES_MAX]; 3];

thread_local! {
    /// What rustls has derived in the current call, in the order of `index_of_label`.
    static DERIVED: Cell<[TrafficSecret; 3]> = const { Cell::new(NO_SECRETS) };
}

/// The key log of all handshakes.
#[derive(Debug)]
pub(super) struct SecretTap;

impl KeyLog for SecretTap {
    fn will_log(&self, label: &str) -> bool {
        index_of_label(label).is_some()
    }

    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let Some(place) = index_of_label(label) else { return };
        let mut derived = DERIVED.get();
        let place = derived.get_mut(place).and_then(|place| place.get_mut(..secret.len()));
        if let Some(place) = place {
            place.copy_from_slice(secret);
        }
        DERIVED.set(derived);
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
    /// The first traffic secrets of client and server.
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
    /// Takes what the last call of rustls has derived.
    pub(super) fn keep_derived(&mut self) {
        let mut derived = DERIVED.replace(NO_SECRETS);
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

    /// `None`: the server has not answered yet, or this is TLS 1.2.
    pub(super) fn client_handshake(&self) -> Option<TrafficSecret> {
        (self.client_handshake != [0; SECRET_BYTES_MAX]).then_some(self.client_handshake)
    }
}
