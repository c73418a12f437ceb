//! The response writer. PURE.
//!
//! Owns no state. Every answer has its length and states whether the connection stays open, so a client never has to
//! guess (RFC 9112 sections 6.2 and 9.3). Control bytes of a header value are not written, so that no value can end its
//! line. The usual answer, 200 with JSON, is written from a constant. Does not decide a status or a text.
//!
//! Limit: none of its own; the caller bounds the body and names the fields. Cost: one copy of the body into the
//! caller's buffer, and an allocation only if that buffer has no room.

/// The interim answer to `Expect: 100-continue` (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    Json,
    Text,
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// The format of OpenMetrics 1.0.0: that of Prometheus with stricter rules for names.
    OpenMetrics,
    Html,
    Css,
    JavaScript,
}

impl ContentType {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Css => "text/css; charset=utf-8",
            Self::JavaScript => "text/javascript; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub content_type: ContentType,
    /// Header fields beside type, length and connection. Control bytes in a value are not written: none can end its
    /// line.
    pub header_fields: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    #[must_use]
    pub fn new(status: u16, content_type: ContentType, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type, header_fields: Vec::new(), body: body.into() }
    }

    #[must_use]
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, ContentType::Json, body)
    }

    #[must_use]
    pub fn text(status: u16, body: &str) -> Self {
        Self::new(status, ContentType::Text, body)
    }

    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.header_fields.push((name, value.into()));
        self
    }

    /// Appends the response. `head_only` answers HEAD: the length is that of the body, which is not sent (RFC 9110
    /// section 9.3.2).
    pub fn write(&self, out: &mut Vec<u8>, keep_alive: bool, head_only: bool) {
        let mut digits = itoa::Buffer::new();
        out.reserve(HEAD_BYTES_USUAL + self.body.len());
        if self.status == 200 && self.content_type == ContentType::Json {
            out.extend_from_slice(JSON_HEAD);
        } else {
            out.extend_from_slice(b"HTTP/1.1 ");
            out.extend_from_slice(digits.format(self.status).as_bytes());
            out.push(b' ');
            out.extend_from_slice(reason_phrase(self.status).as_bytes());
            out.extend_from_slice(b"\r\nContent-Type: ");
            out.extend_from_slice(self.content_type.as_str().as_bytes());
        }
        out.extend_from_slice(b"\r\nContent-Length: ");
        out.extend_from_slice(digits.format(self.body.len()).as_bytes());
        let connection: &[u8] = match keep_alive {
            true => b"\r\nConnection: keep-alive\r\n",
            false => b"\r\nConnection: close\r\n",
        };
        out.extend_from_slice(connection);
        for (name, value) in &self.header_fields {
            write_field(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
        if !head_only {
            out.extend_from_slice(&self.body);
        }
    }
}

/// The start of the usual answer, so that it is one copy.
const JSON_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json";
/// About the bytes of a head without further fields: the buffer grows at most once.
const HEAD_BYTES_USUAL: usize = 160;

fn write_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().filter(|byte| !byte.is_ascii_control()));
    out.extend_from_slice(b"\r\n");
}

/// The phrase of a status; empty for one that this server does not send (RFC 9112 section 4 allows it).
#[must_use]
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(response: &Response, keep_alive: bool, head_only: bool) -> String {
        let mut out = Vec::new();
        response.write(&mut out, keep_alive, head_only);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_with_its_length() {
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
            Content-Length: 2\r\nConnection: keep-alive\r\n\r\n{}";
        assert_eq!(written(&Response::json(200, "{}"), true, false), expected);
    }

    #[test]
    fn text_with_extra_fields_for_a_head_request() {
        let response = Response::text(405, "Method not allowed.").with_header("Allow", "GET");
        let expected = "HTTP/1.1 405 Method Not Allowed\r\n\
            Content-Type: text/plain; charset=utf-8\r\nContent-Length: 19\r\n\
            Connection: close\r\nAllow: GET\r\n\r\n";
        assert_eq!(written(&response, false, true), expected);
    }

    #[test]
    fn each_status_that_is_answered_has_a_reason_phrase() {
        let sent = [200, 201, 400, 401, 403, 404, 405, 408, 409, 413, 415, 417, 422, 426, 429, 431];
        for status in sent.into_iter().chain([500, 501, 503, 505]) {
            assert_ne!(reason_phrase(status), "", "{status}");
        }
    }

    #[test]
    fn a_value_cannot_start_a_line() {
        let response = Response::text(200, "").with_header("Server", "x\r\nSet-Cookie: y");
        assert!(written(&response, false, false).contains("Server: xSet-Cookie: y\r\n"));
    }

    #[test]
    fn every_refusal_has_a_phrase() {
        for refusal in crate::http1::refusal::RequestRefusal::ALL {
            assert!(!reason_phrase(refusal.status()).is_empty(), "{refusal:?}");
        }
        assert_eq!(reason_phrase(299), "");
    }
}
