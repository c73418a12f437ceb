//! Encoded frames: bytes that are built once and shared.
//!
//! Within a core a frame is shared by `Rc`, so a delivery costs no atomic operation. Between cores the bytes travel in
//! one `Arc`. Plain values: they own their bytes and cannot change them. Knows no WebSocket and no channel.
//!
//! No limit: the makers of frames bound them, and `MemoryLimits::send_queue_bytes_max` those that wait. Cost: one
//! allocation of the bytes, and one of the `Rc` for each core that delivers them; a clone is one count without an
//! atomic.

use std::rc::Rc;
use std::sync::Arc;

/// The bytes of one or more complete WebSocket frames, header included, as they go on the wire. Mail between cores has
/// these, because a `Frame` cannot leave its thread.
pub type FrameBytes = Arc<[u8]>;

/// A frame in the send queues of one core: a reference count without atomics around the shared bytes.
#[derive(Clone, Debug)]
pub struct Frame(Rc<FrameBytes>);

impl Frame {
    #[must_use]
    pub fn new(bytes: FrameBytes) -> Self {
        Self(Rc::new(bytes))
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a frame has at least its two header bytes")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<&[u8]> for Frame {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes.into())
    }
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes.into())
    }
}
