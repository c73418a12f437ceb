//! One parsed request: its head as it was sent, with spans into it, and what its fields say about the body and the
//! connection. PURE.
//!
//! Owns the bytes of a request, and the rules of framing (RFC 9112 section 6): one length, no length beside a chunked
//! coding, one host. `httparse` finds the fields. Does not know paths, or what a field of the application means.
//!
//! Limits: `limits::HTTP_HEAD_BYTES_MAX`, `HTTP_HEADERS_MAX`; the memory of a body grows with the received bytes and
//! not with the declared length. Cost: one pass over the head, one allocation and one copy for a request; a look-up of
//! a field is linear in the fields, because a head has few.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::refusal::RequestRefusal;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u16,
    end: u16,
}

const _: () = assert!(HTTP_HEAD_BYTES_MAX <= u16::MAX as usize, "spans are 16 bits wide");

impl Span {
    fn len(self) -> usize {
        usize::from(self.end.saturating_sub(self.start))
    }
}

/// A request with its whole body. Owns its bytes.
#[derive(Clone, Debug)]
pub struct Request {
    /// The head, then the table of its fields, then the body. One vector for all three, because most requests are small
    /// and an allocation costs more than they do.
    buffer: Vec<u8>,
    head_bytes: u16,
    fields: u16,
    method: Span,
    path: Span,
    query: Span,
    http_11: bool,
    /// Bits of the fields that `known_field_bit` knows and the request has.
    known_fields: u8,
}

/// Bytes of a field's row in the table: two spans of four 16-bit numbers (`FieldSpans::to_row`).
const ROW_BYTES: usize = 8;

#[derive(Clone, Copy)]
struct FieldSpans {
    name: Span,
    value: Span,
}

impl FieldSpans {
    fn to_row(self) -> [u8; ROW_BYTES] {
        let Self { name, value } = self;
        let [a, b] = name.start.to_le_bytes();
        let [c, d] = name.end.to_le_bytes();
        let [e, f] = value.start.to_le_bytes();
        let [g, h] = value.end.to_le_bytes();
        [a, b, c, d, e, f, g, h]
    }

    fn from_row([a, b, c, d, e, f, g, h]: [u8; ROW_BYTES]) -> Self {
        let span =
            |start, end| Span { start: u16::from_le_bytes(start), end: u16::from_le_bytes(end) };
        Self { name: span([a, b], [c, d]), value: span([e, f], [g, h]) }
    }
}

const HAS_HOST: u8 = 1;
const HAS_CONTENT_LENGTH: u8 = 1 << 1;
const HAS_TRANSFER_ENCODING: u8 = 1 << 2;
const HAS_EXPECT: u8 = 1 << 3;
const HAS_CONNECTION: u8 = 1 << 4;
const HAS_UPGRADE: u8 = 1 << 5;

/// Fields that the server asks every request for. A field that is absent is known by its bit, without a search.
fn known_field_bit(name: &str) -> u8 {
    let (known, bit) = match name.len() {
        4 => ("host", HAS_HOST),
        6 => ("expect", HAS_EXPECT),
        7 => ("upgrade", HAS_UPGRADE),
        10 => ("connection", HAS_CONNECTION),
        14 => ("content-length", HAS_CONTENT_LENGTH),
        17 => ("transfer-encoding", HAS_TRANSFER_ENCODING),
        _ => return 0,
    };
    if name.eq_ignore_ascii_case(known) { bit } else { 0 }
}

/// How the end of the body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

impl Request {
    /// Memory of head and body, in bytes, for the memory limit of the server.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Parses a complete head, including its blank line. `bytes_after_head`: how many were received after it.
    pub(super) fn parse(
        head: &[u8],
        bytes_after_head: usize,
    ) -> Result<(Self, Framing), RequestRefusal> {
        // Left uninitialized: to clear two kilobytes costs as much as to parse a small request.
        let mut fields = [const { MaybeUninit::uninit() }; HTTP_HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, &mut fields) {
            Ok(httparse::Status::Complete(size)) if size == head.len() => {}
            Ok(_) => return Err(RequestRefusal::BadRequest),
            Err(error) => return Err(refusal_of(error, head)),
        }
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return Err(RequestRefusal::BadRequest);
        };
        let (path, query) = split_target(target).ok_or(RequestRefusal::BadRequest)?;
        let span = |part: &[u8]| span_of(head, part).ok_or(RequestRefusal::BadRequest);
        let (mut known_fields, mut hosts) = (0, 0);
        let mut length = Ok(None);
        for field in parsed.headers.iter() {
            let bit = known_field_bit(field.name);
            known_fields |= bit;
            hosts += usize::from(bit == HAS_HOST);
            if bit == HAS_CONTENT_LENGTH {
                length = length.and_then(|before| merge_lengths(before, field.value));
            }
        }
        // Memory grows with the received bytes, not with the declared length.
        let body_bytes = bytes_after_head
            .min(to_usize_saturating(length.unwrap_or_default().unwrap_or_default()));
        let fields = parsed.headers.len();
        let mut bytes = Vec::with_capacity(head.len() + fields * ROW_BYTES + body_bytes);
        bytes.extend_from_slice(head);
        for field in parsed.headers.iter() {
            let field =
                FieldSpans { name: span(field.name.as_bytes())?, value: span(field.value)? };
            bytes.extend_from_slice(&field.to_row());
        }
        let http_11 = parsed.version == Some(1);
        check_host(hosts, http_11)?;
        let request = Self {
            head_bytes: u16::try_from(head.len()).map_err(|_| RequestRefusal::HeadTooLarge)?,
            fields: u16::try_from(fields).map_err(|_| RequestRefusal::HeadTooLarge)?,
            method: span(method.as_bytes())?,
            path: span(path.as_bytes())?,
            query: span(query.as_bytes())?,
            http_11,
            known_fields,
            buffer: bytes,
        };
        let framing = request.framing(length?)?;
        Ok((request, framing))
    }

    /// Bytes of the head, and of the body without the framing of chunks.
    #[must_use]
    pub fn received_bytes(&self) -> usize {
        usize::from(self.head_bytes) + self.body().len()
    }

    /// The body as far as it has been read; chunks are joined.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.buffer.get(self.body_start()..).unwrap_or_default()
    }

    /// The buffer, to whose end the bytes of the body are appended.
    pub(super) fn body_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn body_start(&self) -> usize {
        usize::from(self.head_bytes) + usize::from(self.fields) * ROW_BYTES
    }

    fn has_known_field(&self, bits: u8) -> bool {
        self.known_fields & bits == bits
    }

    #[must_use]
    pub fn method(&self) -> &str {
        match self.span_bytes(self.method) {
            b"GET" => "GET",
            b"POST" => "POST",
            _ => self.span_text(self.method),
        }
    }

    /// The path as it was sent, percent-encoding and all: signatures are made over it. A target
    /// with scheme and host is reduced to its path.
    #[must_use]
    pub fn path(&self) -> &str {
        match self.span_text(self.path) {
            "" => "/",
            path => path,
        }
    }

    /// What follows `?`, as it was sent: still encoded, and empty if there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        self.span_text(self.query)
    }

    /// The first field of that name, ignoring case. Bytes that are not UTF-8 become U+FFFD, so that a bad byte does not
    /// make a field look absent.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.raw_values(name).next().map(text_of_value)
    }

    /// Every field of that name in order, as the bytes that were sent.
    pub fn header_values<'a>(&'a self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.raw_values(name)
    }

    /// All fields of that name as the one comma-separated list they stand for (RFC 9110 section
    /// 5.3). Bytes that are not UTF-8 become U+FFFD: they spoil one entry, not the list.
    #[must_use]
    pub fn header_list(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.raw_values(name).map(text_of_value);
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
        if !self.has_known_field(HAS_CONNECTION) {
            return self.http_11;
        }
        let closes = self.list_contains("connection", "close");
        !closes && (self.http_11 || self.list_contains("connection", "keep-alive"))
    }

    /// Whether this asks for WebSocket. An offer of something else, as `h2c`, is no such request
    /// and may be ignored (RFC 9110 section 7.8).
    #[must_use]
    pub fn wants_upgrade(&self) -> bool {
        self.has_known_field(HAS_CONNECTION | HAS_UPGRADE)
            && self.list_contains("connection", "upgrade")
            && self.list_contains("upgrade", "websocket")
    }

    /// Whether the client waits for `100 Continue` (RFC 9110 section 10.1.1; unknown to 1.0).
    pub(super) fn expects_continue(&self) -> Result<bool, RequestRefusal> {
        if !self.http_11 || !self.has_known_field(HAS_EXPECT) {
            return Ok(false);
        }
        let mut expected = false;
        for value in self.raw_values("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(RequestRefusal::ExpectationFailed);
            }
            expected = true;
        }
        Ok(expected)
    }

    /// Refuses every request that two readers could frame differently, because that is how requests are smuggled past a
    /// proxy (RFC 9112 sections 6.1 to 6.3).
    fn framing(&self, length: Option<u64>) -> Result<Framing, RequestRefusal> {
        if !self.has_known_field(HAS_TRANSFER_ENCODING) {
            return Ok(Framing::Length(length.unwrap_or(0)));
        }
        let mut codings = self.raw_values("transfer-encoding");
        let Some(coding) = codings.next() else {
            return Ok(Framing::Length(length.unwrap_or(0)));
        };
        if length.is_some() || !self.http_11 {
            return Err(RequestRefusal::BadRequest);
        }
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        if is_chunked {
            Ok(Framing::Chunked)
        } else {
            Err(RequestRefusal::UnsupportedTransferCoding)
        }
    }

    fn raw_values<'a>(&'a self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let table = self.buffer.get(usize::from(self.head_bytes)..self.body_start());
        let (rows, _) = table.unwrap_or_default().as_chunks::<ROW_BYTES>();
        let fields = rows.iter().map(|row| FieldSpans::from_row(*row));
        let is_named = move |field: &FieldSpans| {
            field.name.len() == name.len()
                && self.span_bytes(field.name).eq_ignore_ascii_case(name.as_bytes())
        };
        fields.filter(is_named).map(|field| self.span_bytes(field.value))
    }

    fn list_contains(&self, name: &str, token: &str) -> bool {
        let mut tokens = self.raw_values(name).flat_map(|value| value.split(|&byte| byte == b','));
        tokens.any(|candidate| candidate.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    fn span_bytes(&self, span: Span) -> &[u8] {
        self.buffer.get(usize::from(span.start)..usize::from(span.end)).unwrap_or_default()
    }

    /// The text of a span. Method and target were found to be UTF-8 when the head was parsed.
    fn span_text(&self, span: Span) -> &str {
        simdutf8::basic::from_utf8(self.span_bytes(span)).unwrap_or_default()
    }
}

/// A value as text. Most values are ASCII, and to check that is faster than to search for bytes that are not UTF-8.
fn text_of_value(value: &[u8]) -> Cow<'_, str> {
    simdutf8::basic::from_utf8(value).map_or_else(|_| String::from_utf8_lossy(value), Cow::Borrowed)
}

/// A request of HTTP/1.1 names its host exactly once, and no request names two (RFC 9112 section 3.2): a proxy and a
/// server that pick different ones would see different sites.
fn check_host(hosts: usize, http_11: bool) -> Result<(), RequestRefusal> {
    match hosts {
        1 => Ok(()),
        0 if !http_11 => Ok(()),
        _ => Err(RequestRefusal::Host),
    }
}

fn to_usize_saturating(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// Where in `head` the slice `part` of it lies. An empty part may lie anywhere. `None` if it is no part of `head`.
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
    let at = memchr::memchr(b'?', local.as_bytes());
    Some(at.map_or((local, ""), |at| (&local[..at], &local[at + 1..])))
}

fn refusal_of(error: httparse::Error, head: &[u8]) -> RequestRefusal {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    match error {
        httparse::Error::TooManyHeaders => RequestRefusal::HeadTooLarge,
        httparse::Error::Version if memchr::memmem::find(line, b" HTTP/").is_some() => {
            RequestRefusal::VersionNotSupported
        }
        _ => RequestRefusal::BadRequest,
    }
}

/// Digits only: no sign, no blank, no list. What exceeds 64 bits exceeds every limit.
fn parse_length(value: &[u8]) -> Result<u64, RequestRefusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(RequestRefusal::BadRequest);
    }
    let add =
        |length: u64, digit: &u8| length.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    value.iter().try_fold(0, add).ok_or(RequestRefusal::TooLarge)
}

/// Adds one more Content-Length. Several are one if they are equal; different ones are refused (RFC 9112 section 6.3).
fn merge_lengths(before: Option<u64>, value: &[u8]) -> Result<Option<u64>, RequestRefusal> {
    let length = parse_length(value)?;
    if before.is_some_and(|before| before != length) {
        return Err(RequestRefusal::BadRequest);
    }
    Ok(Some(length))
}
