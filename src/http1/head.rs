//! One parsed request: its head as it was sent, with spans into it, and what its fields say about
//! the body and the connection. Header lookups are linear: a head has few fields.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::refusal::Refusal;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};

/// A stretch of the head.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u16,
    end: u16,
}

const _: () = assert!(HTTP_HEAD_BYTES_MAX <= u16::MAX as usize, "spans are 16 bits wide");

/// A request with its whole body. Owns its bytes.
#[derive(Clone, Debug)]
pub struct Request {
    head: Vec<u8>,
    method: Span,
    path: Span,
    query: Span,
    fields: Vec<(Span, Span)>,
    http_11: bool,
    pub body: Vec<u8>,
}

/// How the end of the body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

impl Request {
    /// Memory of head and body, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let fields = self.fields.capacity() * size_of::<(Span, Span)>();
        self.head.capacity() + self.body.capacity() + fields
    }

    /// Parses a head that is complete, blank line included.
    pub(super) fn parse(head: &[u8]) -> Result<Self, Refusal> {
        // Left uninitialized: to clear two kilobytes costs as much as to parse a small request.
        let mut fields = [const { MaybeUninit::uninit() }; HTTP_HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, &mut fields) {
            Ok(httparse::Status::Complete(size)) if size == head.len() => {}
            Ok(_) => return Err(Refusal::BadRequest),
            Err(error) => return Err(refusal_of(error, head)),
        }
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return Err(Refusal::BadRequest);
        };
        let (path, query) = split_target(target).ok_or(Refusal::BadRequest)?;
        let span = |part: &[u8]| span_of(head, part).ok_or(Refusal::BadRequest);
        let mut spans = Vec::with_capacity(parsed.headers.len());
        for field in parsed.headers.iter() {
            spans.push((span(field.name.as_bytes())?, span(field.value)?));
        }
        let request = Self {
            method: span(method.as_bytes())?,
            path: span(path.as_bytes())?,
            query: span(query.as_bytes())?,
            fields: spans,
            http_11: parsed.version == Some(1),
            head: head.to_vec(),
            body: Vec::new(),
        };
        request.check_host()?;
        Ok(request)
    }

    #[must_use]
    pub fn method(&self) -> &str {
        self.text(self.method)
    }

    /// The path as it was sent, percent-encoding and all: signatures are made over it. A target
    /// with scheme and host is reduced to its path.
    #[must_use]
    pub fn path(&self) -> &str {
        match self.text(self.path) {
            "" => "/",
            path => path,
        }
    }

    /// What follows `?`, as it was sent.
    #[must_use]
    pub fn query(&self) -> &str {
        self.text(self.query)
    }

    /// The first field of that name, whatever its case. Bytes that are not UTF-8 become U+FFFD, so that
    /// a bad byte does not make a field look absent.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.raw_values(name).next().map(String::from_utf8_lossy)
    }

    /// Every field of that name in order, as the bytes that were sent.
    pub fn header_values<'a>(&'a self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.raw_values(name)
    }

    /// All fields of that name as the one comma-separated list they stand for (RFC 9110 section
    /// 5.3). Bytes that are not UTF-8 become U+FFFD: they spoil one entry, not the list.
    #[must_use]
    pub fn header_list(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.raw_values(name).map(String::from_utf8_lossy);
        let mut list = values.next()?;
        for value in values {
            let joined = list.to_mut();
            joined.push_str(", ");
            joined.push_str(&value);
        }
        Some(list)
    }

    #[must_use]
    pub fn http_11(&self) -> bool {
        self.http_11
    }

    /// Whether the client wants to send another request (RFC 9112 section 9.3).
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        let closes = self.lists("connection", "close");
        !closes && (self.http_11 || self.lists("connection", "keep-alive"))
    }

    /// Whether this asks for WebSocket. An offer of something else, as `h2c`, is no such request
    /// and may be ignored (RFC 9110 section 7.8).
    #[must_use]
    pub fn wants_upgrade(&self) -> bool {
        self.lists("connection", "upgrade") && self.lists("upgrade", "websocket")
    }

    /// Whether the client waits for `100 Continue` (RFC 9110 section 10.1.1; unknown to 1.0).
    pub(super) fn expects_continue(&self) -> Result<bool, Refusal> {
        if !self.http_11 {
            return Ok(false);
        }
        let mut expected = false;
        for value in self.raw_values("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::ExpectationFailed);
            }
            expected = true;
        }
        Ok(expected)
    }

    /// Refuses whatever two readers could frame differently: that is how requests are smuggled
    /// past a proxy (RFC 9112 sections 6.1 to 6.3).
    pub(super) fn framing(&self) -> Result<Framing, Refusal> {
        let mut length = None;
        for value in self.raw_values("content-length") {
            let value = parse_length(value)?;
            if length.is_some_and(|length| length != value) {
                return Err(Refusal::BadRequest);
            }
            length = Some(value);
        }
        let mut codings = self.raw_values("transfer-encoding");
        let Some(coding) = codings.next() else {
            return Ok(Framing::Length(length.unwrap_or(0)));
        };
        if length.is_some() || !self.http_11 {
            return Err(Refusal::BadRequest);
        }
        let supported = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        if supported { Ok(Framing::Chunked) } else { Err(Refusal::UnsupportedTransferCoding) }
    }

    /// A request of HTTP/1.1 names its host exactly once, and no request names two (RFC 9112 section
    /// 3.2): a proxy and a server that pick different ones would see different sites.
    fn check_host(&self) -> Result<(), Refusal> {
        match self.raw_values("host").count() {
            1 => Ok(()),
            0 if !self.http_11 => Ok(()),
            _ => Err(Refusal::Host),
        }
    }

    fn raw_values<'a>(&'a self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let fields = self.fields.iter().map(|(name, value)| (self.bytes(*name), *value));
        let named = fields.filter(move |(field, _)| field.eq_ignore_ascii_case(name.as_bytes()));
        named.map(|(_, value)| self.bytes(value))
    }

    fn lists(&self, name: &str, token: &str) -> bool {
        let mut tokens = self.raw_values(name).flat_map(|value| value.split(|&byte| byte == b','));
        tokens.any(|candidate| candidate.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    fn bytes(&self, span: Span) -> &[u8] {
        self.head.get(usize::from(span.start)..usize::from(span.end)).unwrap_or_default()
    }

    /// Method and target were found to be UTF-8 when the head was parsed.
    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.bytes(span)).unwrap_or_default()
    }
}

/// Where in `head` the slice `part` of it lies. An empty part may lie anywhere.
fn span_of(head: &[u8], part: &[u8]) -> Option<Span> {
    if part.is_empty() {
        return Some(Span::default());
    }
    let start = part.as_ptr().addr().checked_sub(head.as_ptr().addr())?;
    let end = start + part.len();
    Some(Span { start: start.try_into().ok()?, end: end.try_into().ok()? })
}

/// Path and query of a request target (RFC 9112 section 3.2): `/path?query`, the same with scheme
/// and host in front, or `*`. The form of CONNECT has no path and no meaning here.
fn split_target(target: &str) -> Option<(&str, &str)> {
    let local = if target.starts_with('/') || target == "*" {
        target
    } else {
        let (scheme, rest) = target.split_once("://")?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return None;
        }
        rest.get(rest.find(['/', '?']).unwrap_or(rest.len())..)?
    };
    Some(local.split_once('?').unwrap_or((local, "")))
}

fn refusal_of(error: httparse::Error, head: &[u8]) -> Refusal {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    match error {
        httparse::Error::TooManyHeaders => Refusal::HeadTooLarge,
        httparse::Error::Version if memchr::memmem::find(line, b" HTTP/").is_some() => {
            Refusal::VersionNotSupported
        }
        _ => Refusal::BadRequest,
    }
}

/// Digits only: no sign, no blank, no list. What exceeds 64 bits exceeds every limit.
fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::BadRequest);
    }
    let digits = std::str::from_utf8(value).unwrap_or_default();
    digits.parse().map_err(|_| Refusal::TooLarge)
}
