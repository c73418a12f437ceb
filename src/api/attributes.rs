//! Which attributes of channels a request asks for (`info`, docs/PROTOCOL.md rule 111).
//!
//! Owns the list of known attributes. Input: the text of `info`. Unknown names are ignored, as in Reverb. `events.rs`
//! and `channels.rs` use it. Limit: none, because it keeps three flags.

/// Which attributes were asked for. Unknown ones are ignored as in Reverb (rule 111).
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    pub(super) user_count: bool,
    pub(super) subscription_count: bool,
    pub(super) cache: bool,
}

impl Attributes {
    pub(super) fn read(info: &str) -> Self {
        let asked = |name: &str| info.split(',').any(|attribute| attribute.trim() == name);
        Self {
            user_count: asked("user_count"),
            subscription_count: asked("subscription_count"),
            cache: asked("cache"),
        }
    }
}
