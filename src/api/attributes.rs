//! Which attributes of channels a request asks for (`info`, docs/PROTOCOL.md rule 111).
//!
//! Owns the list of known attributes. Input: the text of `info`. Unknown names are ignored, as in Reverb. `events.rs`
//! and `channels.rs` use it; does not know which kind of channel has which attribute (`channels.rs`). No limit: the
//! head or the body of the request bounds the text. Cost: three passes over the text, no allocation.

#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    pub(super) user_count: bool,
    pub(super) subscription_count: bool,
    pub(super) cache: bool,
}

impl Attributes {
    pub(super) fn read(info: &str) -> Self {
        let is_asked = |name: &str| info.split(',').any(|attribute| attribute.trim() == name);
        Self {
            user_count: is_asked("user_count"),
            subscription_count: is_asked("subscription_count"),
            cache: is_asked("cache"),
        }
    }
}
