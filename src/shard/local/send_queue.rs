//! HOT: frames that wait for one socket. PURE.
//!
//! The usual case is one frame, enqueued and flushed in the same tick: it needs no allocation. More frames go to a
//! boxed queue that is freed when it runs empty. Frames are shared, so a slow consumer holds references, not copies.
//!
//! Limit: `MemoryLimits::send_queue_bytes_max`, checked by `Connection::try_reserve_queue` before each push. A
//! connection over it is closed and counted (`slow_consumer`). Cost: a push of the first frame is a store of it and no
//! allocation; the second one of a tick allocates a list. To send one frame copies nothing, several frames are copied
//! once to the arena.

use std::collections::VecDeque;

use crate::buffer::Frame;

/// Memory of a waiting frame beside its bytes: two reference counts, their allocations, and its place in the queue.
pub(super) const FRAME_BYTES: usize = 72;

/// First in, first out. `first_frame_sent` bytes of the first frame are already with the kernel.
///
/// Invariants: `first_frame_sent` is below the length of `first_frame`, and zero without it. `bytes` is the length of
/// all frames less `first_frame_sent`. It fits 32 bits, because `try_reserve_queue` admits 2^31 bytes at most, or one
/// frame.
#[derive(Debug, Default)]
pub struct SendQueue {
    first_frame: Option<Frame>,
    #[expect(
        clippy::box_collection,
        reason = "a connection pays 8 bytes for a queue it seldom has, not 32"
    )]
    more_frames: Option<Box<VecDeque<Frame>>>,
    first_frame_sent: u32,
    bytes: u32,
}

const _: () = assert!(size_of::<SendQueue>() <= 24, "each connection has one");

impl SendQueue {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        debug_assert_eq!(self.first_frame.is_none(), self.bytes == 0, "the frames are what waits");
        self.first_frame.is_none()
    }

    /// Bytes that still have to be sent.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Memory of the queue, in bytes: frames at their true size. A frame that others have too counts in full.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let frames = usize::from(self.first_frame.is_some())
            + self.more_frames.as_ref().map_or(0, |rest| rest.len());
        debug_assert!(frames > 0 || self.bytes == 0, "without a frame no byte waits");
        self.bytes as usize + frames * FRAME_BYTES
    }

    #[inline]
    pub(super) fn push(&mut self, frame: &Frame) {
        self.push_sized(frame, u32::try_from(frame.len()).unwrap_or(u32::MAX));
    }

    /// `push` of a frame whose length the caller has looked up once for many queues.
    #[inline]
    pub(super) fn push_sized(&mut self, frame: &Frame, bytes: u32) {
        debug_assert_eq!(bytes as usize, frame.len(), "the length of this frame");
        if self.first_frame.is_some() {
            return self.push_further(frame, bytes);
        }
        debug_assert!(self.more_frames.is_none(), "a queue without a first frame is empty");
        debug_assert_eq!(
            (self.first_frame_sent, self.bytes),
            (0, 0),
            "an empty queue has nothing to send"
        );
        self.bytes = bytes;
        self.first_frame = Some(frame.clone());
    }

    /// Apart, so that the usual case is small enough to be part of the loop over all subscribers.
    #[inline(never)]
    fn push_further(&mut self, frame: &Frame, bytes: u32) {
        debug_assert!(self.bytes > 0, "frames wait before it");
        self.bytes = self.bytes.saturating_add(bytes);
        self.more_frames.get_or_insert_default().push_back(frame.clone());
    }

    /// Enqueues the first frame, less its first byte, as one that has begun to be sent: no close drops it. The byte
    /// stands for what the kernel has had.
    pub(super) fn push_begun(&mut self, frame: &Frame) {
        debug_assert!(self.is_empty(), "only a first frame can have begun");
        self.push(frame);
        let is_taken = self.remove_sent(1);
        debug_assert!(is_taken, "that byte waits");
        debug_assert_eq!(self.bytes() + 1, frame.len(), "all but that byte waits");
    }

    /// Drops what has not begun to be sent and enqueues this as the last frame: a close frame of a slow
    /// consumer must not wait behind a megabyte, and may not cut a frame in two.
    pub(super) fn replace_unsent(&mut self, frame: &Frame) {
        debug_assert!(
            self.first_frame_sent == 0 || self.first_frame.is_some(),
            "what has begun to be sent is a frame"
        );
        self.more_frames = None;
        if self.first_frame_sent == 0 {
            self.first_frame = None;
        }
        let head = self.first_frame.as_ref().map_or(0, Frame::len);
        self.bytes = u32::try_from(head).unwrap_or(u32::MAX) - self.first_frame_sent;
        self.push(frame);
        debug_assert_eq!(
            self.bytes(),
            self.begun_frame_rest().len() + frame.len(),
            "one begun frame at most"
        );
    }

    /// What is left of a frame that has begun to be sent.
    pub(super) fn begun_frame_rest(&self) -> &[u8] {
        debug_assert!(
            self.first_frame_sent == 0 || self.first_frame.is_some(),
            "what has begun to be sent is a frame"
        );
        match &self.first_frame {
            Some(first) if self.first_frame_sent > 0 => {
                &first.bytes()[self.first_frame_sent as usize..]
            }
            _ => &[],
        }
    }

    /// A queue as another process left it: what was left of a frame that had begun, and what was after it.
    pub(super) fn restored(begun: &[u8], waiting: Vec<u8>) -> Self {
        let mut queue = Self::default();
        let bytes = begun.len() + waiting.len();
        if !begun.is_empty() {
            queue.push_begun(&[&[0], begun].concat().into());
        }
        if !waiting.is_empty() {
            queue.push(&waiting.into());
        }
        debug_assert_eq!(queue.bytes(), bytes, "what the other process had not sent");
        queue
    }

    /// The queue when it is one whole frame: it can be sent from where it lies, without a copy.
    #[must_use]
    pub fn single_frame(&self) -> Option<&[u8]> {
        debug_assert!(self.first_frame_sent == 0 || self.bytes > 0, "a sent frame does not wait");
        if self.more_frames.is_some() {
            return None;
        }
        self.first_frame.as_ref().map(|frame| &frame.bytes()[self.first_frame_sent as usize..])
    }

    /// Appends what waits to `out`, whole queue or `bytes_max`, whichever is less.
    pub fn copy_to(&self, out: &mut Vec<u8>, bytes_max: usize) {
        let before = out.len();
        let mut room = bytes_max;
        let mut skip = self.first_frame_sent as usize;
        let rest = self.more_frames.iter().flat_map(|rest| rest.iter());
        for frame in self.first_frame.iter().chain(rest) {
            let bytes = &frame.bytes()[skip..];
            let taken = bytes.len().min(room);
            out.extend_from_slice(&bytes[..taken]);
            room -= taken;
            skip = 0;
            if room == 0 {
                break;
            }
        }
        debug_assert_eq!(
            out.len() - before,
            self.bytes().min(bytes_max),
            "as much as there is room for"
        );
    }

    /// The usual case of `sent`, short enough to be inlined: the kernel took the only frame, or what was left of it.
    /// `false`: nothing is changed, and `sent` is to be called.
    #[inline]
    pub(super) fn remove_sent_single(&mut self, count: usize) -> bool {
        let is_single = self.more_frames.is_none() && count == self.bytes();
        if is_single {
            self.first_frame = None;
            (self.first_frame_sent, self.bytes) = (0, 0);
        }
        debug_assert!(!is_single || self.is_empty(), "the only frame was sent");
        is_single
    }

    /// The kernel took `count` bytes. `false`, and nothing is changed: there were not so many.
    #[must_use]
    pub fn remove_sent(&mut self, count: usize) -> bool {
        if count > self.bytes() {
            return false;
        }
        let mut left = count;
        while let Some(first) = &self.first_frame {
            let waiting = first.len() - self.first_frame_sent as usize;
            if left < waiting {
                break;
            }
            left -= waiting;
            self.first_frame_sent = 0;
            self.first_frame = self.more_frames.as_mut().and_then(|rest| rest.pop_front());
        }
        self.first_frame_sent += u32::try_from(left).unwrap_or(u32::MAX);
        self.bytes -= u32::try_from(count).unwrap_or(u32::MAX);
        if self.more_frames.as_ref().is_some_and(|rest| rest.is_empty()) {
            self.more_frames = None;
        }
        debug_assert_eq!(self.first_frame.is_none(), self.bytes == 0, "the frames are what waits");
        debug_assert!(
            self.first_frame
                .as_ref()
                .is_none_or(|first| (self.first_frame_sent as usize) < first.len())
        );
        debug_assert!(
            self.first_frame.is_some() || self.more_frames.is_none(),
            "the rest follows a first frame"
        );
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the kernel takes at a time, the peer gets the concatenation of all frames.
        #[test]
        fn any_short_sends_lose_nothing(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9), 0..12),
            takes in prop::collection::vec(1usize..20, 1..40),
        ) {
            let mut queue = SendQueue::default();
            let expected: Vec<u8> = frames.concat();
            for frame in frames {
                queue.push(&frame.into());
            }
            let mut received = Vec::new();
            for take in takes.into_iter().chain(std::iter::repeat(7)) {
                if queue.is_empty() {
                    break;
                }
                let mut out = Vec::new();
                queue.copy_to(&mut out, take);
                if let Some(single) = queue.single_frame() {
                    prop_assert!(single.starts_with(&out));
                }
                // As `Local::on_sent` does.
                prop_assert!(queue.remove_sent_single(out.len()) || queue.remove_sent(out.len()));
                received.extend_from_slice(&out);
            }
            prop_assert_eq!(received, expected);
            prop_assert_eq!(queue.bytes(), 0);
            prop_assert!(queue.more_frames.is_none());
        }
    }

    #[test]
    fn a_last_frame_drops_frames_that_have_not_begun() {
        let mut queue = SendQueue::default();
        for text in [b"aaaa", b"bbbb"] {
            queue.push(&text.to_vec().into());
        }
        assert!(queue.remove_sent(1));
        queue.replace_unsent(&b"zz".to_vec().into());
        let mut out = Vec::new();
        queue.copy_to(&mut out, 100);
        assert_eq!(out, b"aaazz");
        assert_eq!(queue.bytes(), 5);
    }

    #[test]
    fn sent_single_refuses_a_part_of_a_frame_and_a_queue_of_several() {
        let mut queue = SendQueue::default();
        queue.push(&b"aaaa".to_vec().into());
        assert!(!queue.remove_sent_single(3) && !queue.remove_sent_single(5));
        assert_eq!(queue.single_frame(), Some(&b"aaaa"[..]));
        queue.push(&b"bb".to_vec().into());
        assert!(!queue.remove_sent_single(4) && !queue.remove_sent_single(6));
        assert!(queue.remove_sent(5));
        assert_eq!(
            (queue.single_frame(), queue.memory_bytes()),
            (Some(&b"b"[..]), 1 + FRAME_BYTES)
        );
        assert!(queue.remove_sent_single(1) && queue.is_empty());
        assert_eq!((queue.bytes(), queue.begun_frame_rest()), (0, &b""[..]));
    }

    #[test]
    fn a_count_over_the_waiting_bytes_is_refused_and_changes_nothing() {
        let mut queue = SendQueue::default();
        assert!(!queue.remove_sent(1));
        queue.push(&b"aaaa".to_vec().into());
        assert!(queue.remove_sent(3) && !queue.remove_sent(2));
        assert_eq!(queue.single_frame(), Some(&b"a"[..]));
    }
}
