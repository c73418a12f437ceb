//! The secret of an app: what signs webhooks, and verifies signatures of the API, channels and users.
//!
//! The type is the mask: `Debug` shows stars, and only `reveal` has the text. It does not compare signatures; that is
//! `pusher/signature.rs`, in constant time. Limit: `config` accepts 200 bytes.

use std::fmt;

use hmac::{Hmac, KeyInit};
use sha2::Sha256;

/// An app secret. It is never printed: `Debug` shows a mask.
#[derive(Clone)]
pub struct Secret {
    text: String,
    /// An HMAC that has processed the key. A copy of it saves two of the hash blocks of each signature.
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

    /// The secret as text, for code that shows or sends credentials to their owner.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// An HMAC with this secret as its key.
    #[must_use]
    pub fn hmac(&self) -> Hmac<Sha256> {
        self.keyed.clone()
    }
}

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
