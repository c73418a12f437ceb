//! A channel's identity: app, name and kind, hashed once. PURE.
//!
//! Keys are made where a name comes in, checked by `pusher/channel_name.rs`, and travel in mail and tables by reference
//! count. The hash chooses the home core (`ChannelKeys::home`). Its seed is the same on all cores of a process, and
//! unknown outside, so that no client can choose names that fall on one core or into one bucket. Limit: 32 bytes for a
//! key (asserted); the name is shared. Cost: a key of a new name is one allocation and one hash of the name; a copy of
//! a key is one atomic increment.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::app::AppIndex;
use crate::pusher::channel_name::{ChannelKind, ChannelName, NameError};

/// Names a channel in mail and tables. Cloning shares the name.
#[derive(Clone, Debug)]
pub struct ChannelKey {
    name: Arc<str>,
    hash: u64,
    app: AppIndex,
    pub kind: ChannelKind,
}

const _: () = assert!(size_of::<ChannelKey>() <= 32);

impl ChannelKey {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    #[must_use]
    pub fn app(&self) -> AppIndex {
        self.app
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}

impl PartialEq for ChannelKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.app == other.app && self.name == other.name
    }
}

impl Eq for ChannelKey {}

impl Hash for ChannelKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Makes keys: hashes are alike on all cores of a process, and unknown to the outside.
#[derive(Clone, Debug)]
pub struct ChannelKeys {
    state: FixedState,
    cores: u16,
}

impl ChannelKeys {
    #[must_use]
    pub fn new(seed: u64, cores: u16) -> Self {
        debug_assert!(cores > 0, "each channel has a home");
        Self { state: FixedState::with_seed(seed), cores }
    }

    /// The key of a checked name. Shares the name's text.
    #[must_use]
    pub fn of(&self, app: AppIndex, name: &ChannelName) -> ChannelKey {
        debug_assert!(!name.is_empty(), "a name has a character");
        ChannelKey { name: name.shared(), hash: self.hash(app, name), app, kind: name.kind() }
    }

    /// # Errors
    /// When the text is no channel name.
    pub fn make(&self, app: AppIndex, text: &str) -> Result<ChannelKey, NameError> {
        Ok(self.of(app, &ChannelName::parse(text)?))
    }

    pub(super) fn hash(&self, app: AppIndex, name: &str) -> u64 {
        let mut hasher = self.state.build_hasher();
        app.hash(&mut hasher);
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    /// The core that holds the channel's global state. Uses the upper half of the hash: tables use the lower.
    #[expect(clippy::cast_possible_truncation, reason = "a product's upper half is below cores")]
    #[must_use]
    pub fn home(&self, key: &ChannelKey) -> u16 {
        debug_assert_eq!(key.hash, self.hash(key.app, &key.name), "a key of this process");
        (((key.hash >> 32) * u64::from(self.cores)) >> 32) as u16
    }
}
