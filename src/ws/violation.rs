//! What a peer can do wrong on an established connection: one small value per fault. PURE. Plain values.
//!
//! Owns the close code and its wording: they are decided here and nowhere else. Does not find faults: `reader.rs` and
//! `close.rs` do. The shard closes the connection with the code, and counts and logs it by the value. No limits: one
//! value. Cost: a step and no allocation, once at the end of a connection.

pub const NORMAL: u16 = 1000;
pub const PROTOCOL_ERROR: u16 = 1002;
/// Bytes that do not fit the message type: text that is not UTF-8.
pub const INVALID_DATA: u16 = 1007;
pub const TOO_BIG: u16 = 1009;

listed! {
    /// A fault of the peer. The connection ends with `close_code` and `reason`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Violation {
        /// A reserved bit is set, but no extension was negotiated (RFC 6455 section 5.2).
        ReservedBits,
        /// Opcode 3-7 or 11-15 (section 5.2).
        ReservedOpcode,
        /// A client frame without a mask (section 5.1).
        Unmasked,
        /// A control frame without FIN (section 5.5).
        ControlFragmented,
        /// A control frame of more than 125 bytes (section 5.5).
        ControlTooLong,
        /// A length not in its shortest form, or with the top bit set (section 5.2).
        LengthForm,
        /// A continuation frame while no message is in progress (section 5.4).
        ContinuationWithoutStart,
        /// A new text or binary frame inside a fragmented message (section 5.4).
        MessageInsideMessage,
        /// A close payload of one byte (section 5.5.1).
        ClosePayload,
        /// A close code that may not be sent (section 7.4).
        CloseCode,
        /// Text, or a close reason, that is not UTF-8 (section 8.1).
        InvalidUtf8,
        /// More payload bytes than the limit, declared or added up over fragments.
        MessageTooBig,
    }
}

impl Violation {
    /// The code the connection is closed with (docs/PROTOCOL.md rule 57).
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            Self::InvalidUtf8 => INVALID_DATA,
            Self::MessageTooBig => TOO_BIG,
            _ => PROTOCOL_ERROR,
        }
    }

    /// The reason of the close frame: English, for the developer of the client.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "Reserved bits are set",
            Self::ReservedOpcode => "Unknown opcode",
            Self::Unmasked => "Frame is not masked",
            Self::ControlFragmented => "Control frame is fragmented",
            Self::ControlTooLong => "Control frame is too long",
            Self::LengthForm => "Malformed frame length",
            Self::ContinuationWithoutStart => "Nothing to continue",
            Self::MessageInsideMessage => "Previous message is not finished",
            Self::ClosePayload => "Malformed close frame",
            Self::CloseCode => "Invalid close code",
            Self::InvalidUtf8 => "Invalid UTF-8",
            Self::MessageTooBig => "Maximum message size exceeded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CONTROL_PAYLOAD_MAX;

    #[test]
    fn codes_are_those_of_the_rfc() {
        for violation in Violation::ALL {
            let expected = match violation {
                Violation::InvalidUtf8 => 1007,
                Violation::MessageTooBig => 1009,
                _ => 1002,
            };
            assert_eq!(violation.close_code(), expected, "{violation:?}");
        }
    }

    #[test]
    fn reasons_are_distinct_and_fit_a_close_frame() {
        for (index, violation) in Violation::ALL.iter().enumerate() {
            let reason = violation.reason();
            assert!(reason.len() + 2 <= CONTROL_PAYLOAD_MAX);
            assert!(Violation::ALL.iter().skip(index + 1).all(|other| other.reason() != reason));
        }
    }
}
