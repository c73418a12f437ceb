//! Sizes of TLS records (RFC 8446 section 5.1, RFC 5246 section 6.2). PURE.
//!
//! Plain values. The record layer, the handshake and the reactor's buffer use them; a record that is larger ends the
//! connection with `record_overflow`.

/// Most bytes of a record's content (RFC 8446 section 5.1).
pub const CONTENT_BYTES_MAX: usize = 1 << 14;

/// Most bytes of a record with its header. TLS 1.2 allows 2,048 bytes of expansion, TLS 1.3 allows 256.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + CONTENT_BYTES_MAX + 2048;

/// Bytes of a record's header: type, version and length.
pub const HEADER_BYTES: usize = 5;
