//! The secret of an app: what signs webhooks, and verifies signatures of the API, channels and users.
//!
//! The type is the mask: `Debug` shows stars, and only `reveal` has the text. Owns the text and an HMAC that has
//! processed it. Does not compare signatures; that is `pusher/signature.rs`, in constant time.
//!
//! Limit: `config` accepts 200 bytes. Cost: two hash blocks (SHA-256) once for each secret; a signature then copies the
//! state of the HMAC, with no allocation.

use std::fmt;

use hmac::{Hmac, KeyInit};
use sha2::Sha256;

#[derive(Clone)]
pub struct Secret {
    text: String,
    /// Has processed the key. A copy of it saves two of the hash blocks of each signature.
    keyed: Hmac<Sha256>,
}

impl Secret {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
        let keyed = Hmac::new_from_slice(text.as_bytes()).expect("any key length");
        Self { text, keyed }
    }

    /// Only for code that shows or sends credentials to their owner.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn hmac(&self) -> Hmac<Sha256> {
        self.keyed.clone()
    }
}

/// For comparisons of configurations. Not in constant time, so no text of a peer may be compared by it.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("********")
    }
}
