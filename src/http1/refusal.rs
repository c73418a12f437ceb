//! Errors of a request that are found before its path is read: one small value per error, with its status and text.
//! PURE.
//!
//! Owns the statuses and texts, which are plain, as in docs/PROTOCOL.md rule 59. Does not find the errors: `request.rs`
//! and `head.rs` do, and the session answers and closes, because where the next request would begin is not known. No
//! limits: values without a heap. Cost: one look-up in a match, no allocation.

listed! {
    /// The request is not read to its end: answer with `status` and `body`, then close the connection,
    /// because where the next request starts is not known.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum RequestRefusal {
        /// Not HTTP, or framed in a way that two readers could understand differently.
        BadRequest,
        /// HTTP/1.1 without a Host field, or any request with several (RFC 9112 section 3.2).
        Host,
        /// Head and body together exceed the configured limit.
        TooLarge,
        /// The head exceeds its own bounds (`limits::HTTP_HEAD_BYTES_MAX`, `HTTP_HEADERS_MAX`).
        HeadTooLarge,
        /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
        ExpectationFailed,
        /// A transfer coding other than `chunked` (RFC 9112 section 6.1).
        UnsupportedTransferCoding,
        /// HTTP, but neither 1.0 nor 1.1.
        VersionNotSupported,
    }
}

impl RequestRefusal {
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::Host => 400,
            Self::TooLarge => 413,
            Self::HeadTooLarge => 431,
            Self::ExpectationFailed => 417,
            Self::UnsupportedTransferCoding => 501,
            Self::VersionNotSupported => 505,
        }
    }

    #[must_use]
    pub fn body(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad request.",
            Self::Host => "Bad request: HTTP/1.1 needs exactly one Host header field.",
            Self::TooLarge => "Payload too large.",
            Self::HeadTooLarge => "Request header fields too large.",
            Self::ExpectationFailed => "Expectation failed.",
            Self::UnsupportedTransferCoding => "Transfer coding not supported.",
            Self::VersionNotSupported => "HTTP version not supported.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_people_know_are_kept() {
        assert_eq!(
            (RequestRefusal::TooLarge.status(), RequestRefusal::TooLarge.body()),
            (413, "Payload too large.")
        );
        assert_eq!(
            (RequestRefusal::BadRequest.status(), RequestRefusal::BadRequest.body()),
            (400, "Bad request.")
        );
    }

    #[test]
    fn every_refusal_is_an_error_with_a_text_of_its_own() {
        for (index, refusal) in RequestRefusal::ALL.iter().enumerate() {
            assert!((400..600).contains(&refusal.status()));
            let others = RequestRefusal::ALL.iter().skip(index + 1);
            assert!(others.into_iter().all(|other| other.body() != refusal.body()));
        }
    }
}
