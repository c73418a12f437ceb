//! The bytes of an envelope: who sends it, its number, its body, and behind it the frame of an event. PURE.

use serde::{Deserialize, Serialize};

use crate::shard::{Body, LinkId, Retransmitted, Stored};
use crate::ws::frame;

/// Bytes of a body that is no event. Decoded, a list may take 16 times the bytes it has here: one byte of the
/// sender's is an entry of a vector.
pub(super) const STATE_BYTES_MAX: usize = 16 << 20;

/// First bytes of the bodies that a frame follows.
const EVENT: u8 = 0;
const REPEAT: u8 = 15;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Envelope {
    pub(super) from: LinkId,
    /// Grows with each envelope of a link, over all its lines.
    pub(super) number: u64,
    pub(super) body: Body,
}

/// `frame` is that of an event, and empty otherwise.
pub(super) fn encode(envelope: &Envelope, frame: &[u8]) -> Vec<u8> {
    // Only a serializer that runs out of room can fail, and a vector does not.
    let mut bytes = postcard::to_allocvec(envelope).unwrap_or_default();
    bytes.extend_from_slice(frame);
    bytes
}

/// `None`: not from a node of this version, and not to be trusted.
pub(super) fn decode(bytes: &[u8]) -> Option<(Envelope, &[u8])> {
    let (_, body) = postcard::take_from_bytes::<(LinkId, u64)>(bytes).ok()?;
    let has_frame = matches!(body.first(), Some(&(EVENT | REPEAT)));
    if !has_frame && body.len() > STATE_BYTES_MAX {
        return None;
    }
    let (envelope, frame) = postcard::take_from_bytes::<Envelope>(bytes).ok()?;
    let is_good = match &envelope.body {
        // It goes to clients as it is.
        Body::Event { .. } | Body::Repeat { what: Retransmitted::Event { .. }, .. } => {
            frame::is_server_text(frame)
        }
        _ => frame.is_empty(),
    };
    is_good.then_some((envelope, frame))
}

/// What is stored of a cache channel, ahead of the event's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredHead {
    /// Seconds since 1970.
    pub(super) expires: u64,
    /// Who published it, by which number.
    pub(super) from: LinkId,
    pub(super) number: u64,
}

pub(super) fn encode_stored(head: StoredHead, frame: &[u8]) -> Vec<u8> {
    let mut bytes = postcard::to_allocvec(&head).unwrap_or_default();
    bytes.extend_from_slice(frame);
    bytes
}

pub(super) fn decode_stored(bytes: &[u8], unix_seconds: u64) -> Option<Stored> {
    let (head, frame) = postcard::take_from_bytes::<StoredHead>(bytes).ok()?;
    let left = head.expires.checked_sub(unix_seconds).filter(|left| *left > 0)?;
    let seconds = u32::try_from(left).unwrap_or(u32::MAX);
    let StoredHead { from, number, .. } = head;
    frame::is_server_text(frame).then(|| Stored { frame: frame.into(), seconds, from, number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::NodeId;
    use proptest::prelude::*;

    fn event() -> Envelope {
        let from = LinkId { node: NodeId(u64::MAX), core: 3 };
        Envelope { from, number: 1 << 40, body: Body::Event { except: None, cache: true } }
    }

    #[test]
    fn an_event_travels_with_its_frame() {
        let frame = frame::encode_text(b"{\"event\":\"e\"}");
        let bytes = encode(&event(), &frame);
        assert_eq!(decode(&bytes), Some((event(), &frame[..])));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None, "half a frame is no event");
        assert_eq!(decode(&[&bytes[..], b"x"].concat()), None);
        let quit = Envelope { body: Body::Quit, ..event() };
        assert_eq!(decode(&encode(&quit, b"")), Some((quit.clone(), &b""[..])));
        assert_eq!(decode(&encode(&quit, b"x")), None);
    }

    /// A `Repeat` held a whole `Body` once, and could nest.
    #[test]
    fn a_retransmission_has_the_bytes_it_always_had_and_holds_no_other() {
        let frame = frame::encode_text(b"{}");
        let repeat = |what| {
            let (app, channel) = ("1".into(), "news".into());
            Envelope { body: Body::Repeat { number: 7, app, channel, what }, ..event() }
        };
        let ended = Retransmitted::Terminate { app: "1".into(), user_id: "u".into() };
        let sent = Retransmitted::Event { except: None, cache: false };
        for (envelope, tail, frame) in [
            (repeat(ended), &b"\x0f\x07\x011\x04news\x0b\x011\x01u"[..], &b""[..]),
            (repeat(sent), &b"\x0f\x07\x011\x04news\x00\x00\x00"[..], &frame[..]),
        ] {
            let bytes = encode(&envelope, frame);
            assert!(bytes.ends_with(&[tail, frame].concat()), "{}", bytes.escape_ascii());
            assert_eq!(decode(&bytes), Some((envelope, frame)));
        }
        let head = [7, 0, 1];
        for depth in [1, 2, 10_000, 1_000_000] {
            let nested = [15, 1, 0, 0].repeat(depth);
            for inner in 0..=20 {
                let bytes = [&head[..], &[15, 1, 0, 0], &nested, &[inner, 0, 0]].concat();
                assert_eq!(decode(&bytes), None, "depth {depth}, kind {inner}");
            }
        }
    }

    #[test]
    fn a_snapshot_over_its_limit_is_refused_before_it_is_decoded() {
        let snapshot = |lingering: usize| {
            let part = crate::shard::Part {
                lingering: vec![None; lingering],
                ..crate::shard::Part::default()
            };
            encode(&Envelope { body: Body::Sync { ticket: 1, part }, ..event() }, b"")
        };
        assert!(decode(&snapshot(1_000)).is_some());
        assert_eq!(decode(&snapshot(STATE_BYTES_MAX)), None);
        let frame = frame::encode_text(&vec![b' '; STATE_BYTES_MAX + 1]);
        assert!(decode(&encode(&event(), &frame)).is_some(), "events have limits of their own");
    }

    #[test]
    fn what_is_stored_ends_when_it_said() {
        let frame = frame::encode_text(b"{}");
        let from = event().from;
        let head = StoredHead { expires: 1_000, from, number: 7 };
        let bytes = encode_stored(head, &frame);
        let stored = Stored { frame: frame.into(), seconds: 10, from, number: 7 };
        assert_eq!(decode_stored(&bytes, 990), Some(stored));
        assert_eq!(decode_stored(&bytes, 1_000), None);
        assert_eq!(decode_stored(&bytes[..4], 0), None);
        assert_eq!(decode_stored(&bytes[..bytes.len() - 1], 0), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            let _ = decode_stored(&bytes, 0);
        }
    }
}
