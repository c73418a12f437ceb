//! The payload of a close frame (RFC 6455 sections 5.5.1 and 7.4). PURE. Owns no state.
//!
//! Encodes the server's and checks the peer's: the code is one that may be sent, the reason is UTF-8. Does not choose a
//! code: those that answer a fault are in `violation.rs`. Limit: `REASON_BYTES_MAX`, at which a reason of the server is
//! cut between characters. Cost: one allocation and a copy of at most 123 bytes, once at the end of a connection.

use super::violation::Violation;
pub use super::violation::{INVALID_DATA, NORMAL, PROTOCOL_ERROR, TOO_BIG};
use crate::limits::CONTROL_PAYLOAD_MAX;

/// The code takes two bytes of the 125.
pub const REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_MAX - 2;

/// A reason that does not fit is cut at a character boundary, because a close frame is a control frame (section 5.5).
#[must_use]
pub fn encode_payload(code: u16, reason: &str) -> Vec<u8> {
    let end = reason.floor_char_boundary(REASON_BYTES_MAX);
    let reason = reason.as_bytes().get(..end).unwrap_or_default();
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason);
    payload
}

/// Code and reason of a close frame; `None` for an empty payload, which is allowed.
///
/// # Errors
/// A single byte, a code that must not be sent, a reason that is not UTF-8.
pub fn decode_payload(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::ClosePayload) };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(Violation::CloseCode);
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok(Some((code, reason))),
        Err(_) => Err(Violation::InvalidUtf8),
    }
}

/// 1004 to 1006 and 1015 are reserved for local use; 1012 to 1014 were registered later; 3000 to
/// 4999 belong to libraries and applications (section 7.4.2).
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_payload_is_decoded_as_it_was_encoded() {
        let payload = encode_payload(4200, "Reconnect ☂");
        assert_eq!(decode_payload(&payload), Ok(Some((4200, "Reconnect ☂"))));
        assert_eq!(encode_payload(NORMAL, ""), [0x03, 0xe8]);
        assert_eq!(decode_payload(&[]), Ok(None));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let payload = encode_payload(NORMAL, &"x".repeat(500));
        assert_eq!(payload.len(), CONTROL_PAYLOAD_MAX);
        // 41 three-byte characters are 123 bytes; one byte in front moves the cut inside the 41st.
        let payload = encode_payload(NORMAL, &format!("x{}", "€".repeat(41)));
        assert_eq!(payload.len(), 2 + 1 + 40 * 3);
        assert!(decode_payload(&payload).is_ok());
    }

    #[test]
    fn each_fault_of_a_close_payload_is_named() {
        assert_eq!(decode_payload(&[3]), Err(Violation::ClosePayload));
        assert_eq!(decode_payload(&1005_u16.to_be_bytes()), Err(Violation::CloseCode));
        assert_eq!(decode_payload(b"\x03\xe8\xff"), Err(Violation::InvalidUtf8));
    }

    #[test]
    fn codes_that_may_be_sent() {
        let allowed = [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4000, 4999];
        let refused = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535];
        for code in allowed {
            assert!(decode_payload(&encode_payload(code, "")).is_ok(), "{code}");
        }
        for code in refused {
            let payload = encode_payload(code, "");
            assert_eq!(decode_payload(&payload), Err(Violation::CloseCode), "{code}");
        }
    }
}
