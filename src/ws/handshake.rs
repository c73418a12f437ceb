//! The opening handshake (RFC 6455 section 4.2): is this request an upgrade to WebSocket, and the answer that accepts
//! it. PURE. Owns no state.
//!
//! Takes plain header values, so it depends on no HTTP parser. Never negotiates an extension or a subprotocol. Output:
//! an `AcceptKey` or the refusal. Limits: the head of the request (`http1`). Cost: one SHA-1 of 60 bytes a handshake;
//! the answer is appended to the caller's buffer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Fixed by section 1.3: proves that the answer comes from a WebSocket server.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The sixteen bytes of the key in base64 (section 4.1).
const KEY_LEN: usize = 24;
/// The twenty bytes of a SHA-1 digest in base64.
const ACCEPT_LEN: usize = 28;

/// What the handshake needs of a request. A field is `None` if the request does not have it; `upgrade` and `connection`
/// are comma-separated lists.
#[derive(Clone, Copy, Debug)]
pub struct UpgradeRequest<'a> {
    pub method: &'a str,
    /// A later 1.x counts, too.
    pub http_11: bool,
    pub upgrade: Option<&'a str>,
    pub connection: Option<&'a str>,
    /// `Sec-WebSocket-Version` and `Sec-WebSocket-Key`.
    pub version: Option<&'a str>,
    pub key: Option<&'a str>,
}

/// The value of `Sec-WebSocket-Accept`, in base64. Only `check` makes one, so an answer without a check is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptKey([u8; ACCEPT_LEN]);

impl AcceptKey {
    fn from_key(key: &str) -> Self {
        let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
        let mut accept = [0; ACCEPT_LEN];
        let written = STANDARD.encode_slice(digest, &mut accept);
        debug_assert_eq!(written, Ok(ACCEPT_LEN));
        Self(accept)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Why a request is not upgraded. Each has its status, its text and a header that helps the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeRefusal {
    WrongMethod,
    HttpVersion,
    NotAnUpgrade,
    WrongVersion,
    BadKey,
}

impl HandshakeRefusal {
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::WrongMethod => 405,
            // 426 with `Upgrade` for a plain GET is docs/PROTOCOL.md rule 74.
            Self::HttpVersion | Self::NotAnUpgrade | Self::WrongVersion => 426,
            Self::BadKey => 400,
        }
    }

    #[must_use]
    pub fn body(self) -> &'static str {
        match self {
            Self::WrongMethod => "Method not allowed.",
            Self::HttpVersion => "WebSocket needs HTTP/1.1.",
            Self::NotAnUpgrade => "Upgrade to WebSocket required.",
            Self::WrongVersion => "WebSocket version 13 required.",
            Self::BadKey => "Invalid Sec-WebSocket-Key.",
        }
    }

    /// The header field the status calls for (RFC 9110 sections 15.5.6 and 15.5.22, RFC 6455
    /// section 4.4).
    #[must_use]
    pub fn header(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::WrongMethod => Some(("Allow", "GET")),
            Self::HttpVersion | Self::NotAnUpgrade => Some(("Upgrade", "websocket")),
            Self::WrongVersion => Some(("Sec-WebSocket-Version", "13")),
            Self::BadKey => None,
        }
    }
}

/// Checks the request in the order of section 4.2.1.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(request: &UpgradeRequest<'_>) -> Result<AcceptKey, HandshakeRefusal> {
    if request.method != "GET" {
        return Err(HandshakeRefusal::WrongMethod);
    }
    if !request.http_11 {
        return Err(HandshakeRefusal::HttpVersion);
    }
    if !list_contains(request.upgrade, "websocket") || !list_contains(request.connection, "upgrade")
    {
        return Err(HandshakeRefusal::NotAnUpgrade);
    }
    if request.version.map(str::trim_ascii) != Some("13") {
        return Err(HandshakeRefusal::WrongVersion);
    }
    let key = request
        .key
        .map(str::trim_ascii)
        .filter(|key| is_nonce(key))
        .ok_or(HandshakeRefusal::BadKey)?;
    Ok(AcceptKey::from_key(key))
}

/// Appends the answer that completes the handshake (section 4.2.2).
pub fn write_response(accept: &AcceptKey, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
        Upgrade: websocket\r\n\
        Connection: Upgrade\r\n\
        Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept.as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
}

/// Whether a comma-separated list contains `token`, ignoring case.
fn list_contains(list: Option<&str>, token: &str) -> bool {
    let mut tokens = list.unwrap_or_default().as_bytes().split(|byte| *byte == b',');
    tokens.any(|candidate| candidate.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether the key is base64 of exactly sixteen bytes (section 4.2.1).
fn is_nonce(key: &str) -> bool {
    // The decoder needs room for whole groups of three.
    let mut nonce = [0; KEY_LEN / 4 * 3];
    key.len() == KEY_LEN && STANDARD.decode_slice(key, &mut nonce) == Ok(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of section 1.3.
    const SAMPLE: UpgradeRequest<'_> = UpgradeRequest {
        method: "GET",
        http_11: true,
        upgrade: Some("websocket"),
        connection: Some("Upgrade"),
        version: Some("13"),
        key: Some("dGhlIHNhbXBsZSBub25jZQ=="),
    };

    #[test]
    fn the_sample_of_the_rfc() {
        let accept = check(&SAMPLE).unwrap();
        let mut out = Vec::new();
        write_response(&accept, &mut out);
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn lists_and_cases_as_browsers_and_proxies_send_them() {
        let request = UpgradeRequest {
            connection: Some("keep-alive, Upgrade"),
            upgrade: Some("WebSocket"),
            ..SAMPLE
        };
        assert!(check(&request).is_ok());
        let request = UpgradeRequest { upgrade: Some("h2c , websocket"), ..SAMPLE };
        assert!(check(&request).is_ok());
    }

    #[test]
    fn each_malformed_upgrade_has_its_refusal() {
        let cases = [
            (HandshakeRefusal::WrongMethod, 405, UpgradeRequest { method: "POST", ..SAMPLE }),
            (HandshakeRefusal::HttpVersion, 426, UpgradeRequest { http_11: false, ..SAMPLE }),
            (HandshakeRefusal::NotAnUpgrade, 426, UpgradeRequest { upgrade: None, ..SAMPLE }),
            (
                HandshakeRefusal::NotAnUpgrade,
                426,
                UpgradeRequest { upgrade: Some("h2c"), ..SAMPLE },
            ),
            (
                HandshakeRefusal::NotAnUpgrade,
                426,
                UpgradeRequest { connection: Some("close"), ..SAMPLE },
            ),
            (HandshakeRefusal::WrongVersion, 426, UpgradeRequest { version: Some("8"), ..SAMPLE }),
            (HandshakeRefusal::WrongVersion, 426, UpgradeRequest { version: None, ..SAMPLE }),
            (HandshakeRefusal::BadKey, 400, UpgradeRequest { key: None, ..SAMPLE }),
            (
                HandshakeRefusal::BadKey,
                400,
                UpgradeRequest { key: Some("dGhlIHNhbXBsZQ=="), ..SAMPLE },
            ),
        ];
        for (refusal, status, request) in cases {
            assert_eq!(check(&request), Err(refusal), "{request:?}");
            assert_eq!(refusal.status(), status);
            assert!(!refusal.body().is_empty());
            assert_eq!(refusal.header().is_some(), status != 400);
        }
    }

    #[test]
    fn a_key_is_base64_of_sixteen_bytes() {
        assert!(is_nonce("AAAAAAAAAAAAAAAAAAAAAA=="));
        for key in [
            "AAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAA=",
            "",
            "!AAAAAAAAAAAAAAAAAAAAA==",
            "AAAAAAAAAAAAAAAAAAAAA===",
            "éAAAAAAAAAAAAAAAAAAAA==",
        ] {
            assert!(!is_nonce(key), "{key}");
        }
    }
}
