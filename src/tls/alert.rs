//! Alerts of TLS (RFC 8446 section 6): the numbers that this server sends, and texts for all that peers send. PURE.
//!
//! Plain values. The texts are for log lines: they say what the peer did or reports, in words that an operator can
//! search for. A number without a text has a general one. Does not encrypt or send.
//!
//! No limits: a table of constants. Cost: one look-up in a match, no allocation.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert(pub u8);

impl Alert {
    pub const CLOSE_NOTIFY: Self = Self(0);
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    pub const BAD_RECORD_MAC: Self = Self(20);
    pub const RECORD_OVERFLOW: Self = Self(22);
    pub const ILLEGAL_PARAMETER: Self = Self(47);
    pub const DECODE_ERROR: Self = Self(50);
    pub const PROTOCOL_VERSION: Self = Self(70);
    pub const INTERNAL_ERROR: Self = Self(80);
    /// TLS 1.2 only: the answer to a renegotiation. It is a warning and does not end the connection.
    pub const NO_RENEGOTIATION: Self = Self(100);

    /// The level that goes with the number: 1 is a warning, 2 is fatal.
    pub(super) fn level(self) -> u8 {
        if matches!(self, Self::CLOSE_NOTIFY | Self::NO_RENEGOTIATION) { 1 } else { 2 }
    }

    /// What this server refused, as the rest of a sentence about the peer, for the log.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::UNEXPECTED_MESSAGE => "it sent a message that has no place there",
            Self::BAD_RECORD_MAC => "it sent a record that does not decrypt",
            Self::RECORD_OVERFLOW => "it sent a record over 16,384 bytes",
            Self::ILLEGAL_PARAMETER => "it sent a message with a forbidden value",
            Self::DECODE_ERROR => "it sent a message that cannot be read",
            Self::PROTOCOL_VERSION => "it sent a record of another TLS version",
            Self::INTERNAL_ERROR => "its keys are used up",
            _ => "it broke a rule of TLS",
        }
    }

    /// Why the peer ended the connection, as the rest of a sentence about it, for the log.
    #[must_use]
    pub fn text_of_peer(self) -> &'static str {
        match self.0 {
            10 => "it ended the connection: unexpected_message",
            20 => "it ended the connection: bad_record_mac",
            22 => "it ended the connection: record_overflow",
            40 => "it ended the connection: handshake_failure",
            42 => "it ended the connection: bad_certificate",
            43 => "it ended the connection: unsupported_certificate",
            44 => "it ended the connection: certificate_revoked",
            45 => "it ended the connection: certificate_expired",
            46 => "it ended the connection: certificate_unknown",
            47 => "it ended the connection: illegal_parameter",
            48 => "it ended the connection: unknown_ca",
            50 => "it ended the connection: decode_error",
            51 => "it ended the connection: decrypt_error",
            70 => "it ended the connection: protocol_version",
            80 => "it ended the connection: internal_error",
            90 => "it ended the connection: user_canceled",
            112 => "it ended the connection: unrecognized_name",
            _ => "it ended the connection with an alert",
        }
    }
}
