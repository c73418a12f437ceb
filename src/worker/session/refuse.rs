//! Refused requests and handshakes: the line in the log and, in development mode, the same line in the answer.

use super::Session;
use crate::app::AppIndex;
use crate::cause::{Cause, Detail, Noted};
use crate::http1::refusal::Refusal;
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::limits;
use crate::worker::notes::{Who, explained, peer_of};
use crate::worker::sys;

/// What is known of a refused request beside its session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About<'a> {
    /// The request, which may name the client behind a proxy.
    pub(super) request: Option<&'a Request>,
    pub(super) app: Option<AppIndex>,
}

impl<'a> About<'a> {
    pub(super) fn request(request: &'a Request) -> Self {
        Self { request: Some(request), app: None }
    }
}

impl Session {
    /// Counts a refusal and writes its line: see `Worker::refuse`.
    pub(super) fn refuse(
        &self,
        about: About<'_>,
        cause: Cause,
        values: &[Detail<'_>],
    ) -> Option<String> {
        self.worker.refuse(cause, values, || self.who(about))
    }

    /// `refuse` for a request that is answered. Returns the answer.
    pub(super) fn refused(
        &self,
        about: About<'_>,
        response: Response,
        cause: Cause,
        values: &[Detail<'_>],
    ) -> Response {
        explained(response, self.refuse(about, cause, values))
    }

    /// `refused` for a line that is formatted already.
    pub(super) fn refused_as(
        &self,
        about: About<'_>,
        response: Response,
        noted: Noted,
    ) -> Response {
        explained(response, self.worker.write_noted(noted, || self.who(about)))
    }

    fn who(&self, about: About<'_>) -> Who {
        let admission = &self.worker.shared.overload.admission;
        let client = about
            .request
            .map(|request| admission.address(self.peer, request.header_values("x-forwarded-for")));
        Who { client, peer: peer_of(sys::borrow(&self.stream)), app: about.app, socket_id: None }
    }

    /// Whether the header of the request ends within `REVERB_MAX_REQUEST_SIZE`.
    fn has_whole_head(&self) -> bool {
        let most = self.worker.shared.config.request_size_max.min(self.input.len());
        memchr::memmem::find(&self.input[..most], b"\r\n\r\n").is_some()
    }

    /// Refuses bytes that are no acceptable request. `is_in_body`: the head was read before.
    pub(super) fn refuse_bytes(&self, refusal: Refusal, is_in_body: bool) -> Response {
        let size_max = Detail::count(self.worker.shared.config.request_size_max);
        let first = match is_in_body {
            true => Detail::Own("a head in order, and goes on with a body that is not"),
            false => Detail::text(without_query(first_line(&self.input))),
        };
        let response = Response::text(refusal.status(), refusal.body());
        let (cause, values) = match refusal {
            Refusal::TooLarge if !is_in_body && !self.has_whole_head() => {
                (Cause::HeadOverRequestSize, [size_max, Detail::Nothing])
            }
            Refusal::TooLarge => (Cause::RequestTooLarge, [size_max, Detail::Nothing]),
            Refusal::HeadTooLarge => {
                let most = [limits::HTTP_HEAD_BYTES_MAX, limits::HTTP_HEADERS_MAX];
                (Cause::HeadTooLarge, most.map(Detail::count))
            }
            Refusal::BadRequest if is_in_body => (Cause::BadRequest, [first, Detail::Nothing]),
            Refusal::BadRequest => (what_it_is(&self.input), [first, Detail::Nothing]),
            Refusal::Host => (Cause::Host, [first, Detail::Nothing]),
            Refusal::ExpectationFailed => (Cause::Expectation, [first, Detail::Nothing]),
            Refusal::UnsupportedTransferCoding => (Cause::TransferCoding, [first, Detail::Nothing]),
            Refusal::VersionNotSupported if self.input.starts_with(b"PRI * HTTP/2") => {
                (Cause::Http2, [Detail::Nothing; 2])
            }
            Refusal::VersionNotSupported => (Cause::HttpVersion, [first, Detail::Nothing]),
        };
        self.refused(About::default(), response, cause, &values)
    }
}

/// Recognizes other protocols by their first bytes.
fn what_it_is(input: &[u8]) -> Cause {
    const TLS_HANDSHAKE: u8 = 0x16;
    /// Of the PROXY protocol's second version, behind the empty lines that any request may begin with.
    const PROXY_2: &[u8] = b"\0\r\nQUIT";
    match input {
        [TLS_HANDSHAKE, ..] => Cause::TlsOnPlainPort,
        _ if input.starts_with(b"PROXY ") || input.starts_with(PROXY_2) => Cause::ProxyProtocol,
        _ if memchr::memmem::find(first_line(input), b" HTTP/").is_none() => Cause::NotHttp,
        _ => Cause::BadRequest,
    }
}

fn first_line(input: &[u8]) -> &[u8] {
    let end = input.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    input.get(..end.unwrap_or(input.len())).unwrap_or_default()
}

/// The query is cut off, because it may hold a signature.
fn without_query(line: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'?', line).unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_http_is_recognized_by_its_first_bytes() {
        for (input, cause) in [
            (&b"\x16\x03\x01\x02\0\x01"[..], Cause::TlsOnPlainPort),
            (b"\x16", Cause::TlsOnPlainPort),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n", Cause::ProxyProtocol),
            (b"\0\r\nQUIT\n\x21\x11", Cause::ProxyProtocol),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Cause::NotHttp),
            (b"\0\x01", Cause::NotHttp),
            (b"", Cause::NotHttp),
            (b"GET /a?b=c HTTP/1.1\nHost: x\n\n", Cause::BadRequest),
        ] {
            assert_eq!(what_it_is(input), cause, "{}", input.escape_ascii());
        }
        assert_eq!(without_query(first_line(b"GET /a?auth_signature=1 HTTP/1.1\r\n")), b"GET /a");
    }
}
