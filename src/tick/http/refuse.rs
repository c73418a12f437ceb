//! Refused requests and handshakes: counts them, queues the log line and, with verbose errors, adds the same line to
//! the answer. PURE.
//!
//! Owns the texts of a few answers; `cause` has those of the log, and limits the lines. The status and body for clients
//! follow Reverb (docs/PROTOCOL.md). Does not decide what is refused, and does not close a socket.
//!
//! Limits: those of `LineBudget`. Cost: one count, and one allocation for a line that the budget has room for.

use super::about::RefusalContext;
use super::session::Session;
use super::{Http, LinePeer};
use crate::cause::{Cause, Detail, NotedRefusal};
use crate::http1::refusal::RequestRefusal;
use crate::http1::response::{ContentType, Response};
use crate::limits;
use crate::proxy_header::HeaderFault;
use crate::pusher::json;
use crate::text::two_sentences;

impl Session {
    /// Counts a refusal and queues its line: see `Http::refuse`.
    pub(super) fn refuse(
        &self,
        http: &mut Http,
        about: RefusalContext<'_>,
        cause: Cause,
        values: &[Detail<'_>],
    ) -> Option<String> {
        http.refuse(cause, values, |http| self.line_peer(http, about))
    }

    /// `refuse` for a request that gets an answer, which is returned: with verbose errors it has the line, too.
    pub(super) fn refusal_response(
        &self,
        http: &mut Http,
        about: RefusalContext<'_>,
        response: Response,
        cause: Cause,
        values: &[Detail<'_>],
    ) -> Response {
        with_explanation(response, self.refuse(http, about, cause, values))
    }

    /// `refusal_response` for a line that is formatted already.
    pub(super) fn noted_refusal_response(
        &self,
        http: &mut Http,
        about: RefusalContext<'_>,
        response: Response,
        noted: NotedRefusal,
    ) -> Response {
        with_explanation(response, http.refuse_noted(noted, |http| self.line_peer(http, about)))
    }

    /// Refuses a client that broke a rule of TLS, or ended it with an alert. It gets no answer.
    pub(in crate::tick) fn refuse_secure(&self, http: &mut Http, cause: Cause, why: &'static str) {
        self.refuse(http, RefusalContext::default(), cause, &[Detail::Own(why)]);
    }

    /// Refuses a client that speaks plain HTTP to a TLS port. It gets an answer in plain HTTP.
    pub(in crate::tick) fn refuse_plain(&mut self, http: &mut Http) {
        let text = "This port is TLS: use https:// or wss://.";
        let response = Response::text(400, text);
        let cause = match recognize_protocol(self.input()) {
            Cause::ProxyProtocol => Cause::ProxyProtocol,
            _ => Cause::PlainOnTlsPort,
        };
        let response = self.refusal_response(http, RefusalContext::default(), response, cause, &[]);
        self.close_with(&response, false);
        debug_assert!(self.is_closing(), "what follows on this port makes no sense in HTTP");
    }

    /// Refuses a peer that must begin with a header of the PROXY protocol and did not.
    pub(in crate::tick) fn refuse_header(&mut self, http: &mut Http, fault: HeaderFault) {
        let response = Response::text(400, "A header of the PROXY protocol must come first.");
        let why = [Detail::Own(fault.text())];
        let response = self.refusal_response(
            http,
            RefusalContext::default(),
            response,
            Cause::ProxyHeader,
            &why,
        );
        self.close_with(&response, false);
        debug_assert!(self.is_closing(), "without its header no byte can be trusted");
    }

    pub(super) fn line_peer(&self, http: &Http, about: RefusalContext<'_>) -> LinePeer {
        let admission = &http.overload.admission;
        let client = about.request.map(|request| {
            admission.client_address(self.peer.ip(), request.header_values("x-forwarded-for"))
        });
        LinePeer { client, peer: Some(self.peer), app: about.app }
    }

    /// Whether the head of the request ends within `REVERB_MAX_REQUEST_SIZE`, so that the body is what is too large.
    fn has_whole_head(&self, http: &Http) -> bool {
        let head = self.input().get(..http.rules.request_size_max).unwrap_or(self.input());
        memchr::memmem::find(head, b"\r\n\r\n").is_some()
    }

    /// Refuses bytes that are no acceptable request. `is_in_body`: the head was read before.
    pub(super) fn refuse_bytes(
        &self,
        http: &mut Http,
        refusal: RequestRefusal,
        is_in_body: bool,
    ) -> Response {
        let size_max = Detail::count(http.rules.request_size_max);
        debug_assert!((400..600).contains(&refusal.status()), "a refusal has a status of errors");
        let first = match is_in_body {
            true => Detail::Own("a head in order, and goes on with a body that is not"),
            false => Detail::text(without_query(first_line(self.input()))),
        };
        let response = Response::text(refusal.status(), refusal.body());
        let (cause, values) = match refusal {
            RequestRefusal::TooLarge if !is_in_body && !self.has_whole_head(http) => {
                (Cause::HeadOverRequestSize, [size_max, Detail::Nothing])
            }
            RequestRefusal::TooLarge => (Cause::RequestTooLarge, [size_max, Detail::Nothing]),
            RequestRefusal::HeadTooLarge => {
                let most = [limits::HTTP_HEAD_BYTES_MAX, limits::HTTP_HEADERS_MAX];
                (Cause::HeadTooLarge, most.map(Detail::count))
            }
            RequestRefusal::BadRequest if is_in_body => {
                (Cause::BadRequest, [first, Detail::Nothing])
            }
            RequestRefusal::BadRequest => {
                (recognize_protocol(self.input()), [first, Detail::Nothing])
            }
            RequestRefusal::Host => (Cause::Host, [first, Detail::Nothing]),
            RequestRefusal::ExpectationFailed => (Cause::Expectation, [first, Detail::Nothing]),
            RequestRefusal::UnsupportedTransferCoding => {
                (Cause::TransferCoding, [first, Detail::Nothing])
            }
            RequestRefusal::VersionNotSupported if self.input().starts_with(b"PRI * HTTP/2") => {
                (Cause::Http2, [Detail::Nothing; 2])
            }
            RequestRefusal::VersionNotSupported => (Cause::HttpVersion, [first, Detail::Nothing]),
        };
        self.refusal_response(http, RefusalContext::default(), response, cause, &values)
    }
}

/// Adds the line to an answer, with verbose errors. The member `error` of a 422 answer stands beside Laravel's fields.
fn with_explanation(mut response: Response, line: Option<String>) -> Response {
    let Some(line) = line else { return response };
    match response.content_type {
        ContentType::Json if response.body == b"{}" => {
            response.body = b"{\"error\":".to_vec();
            json::write_string(&line, &mut response.body);
            response.body.push(b'}');
        }
        ContentType::Json if response.status == 422 && response.body.ends_with(b"}") => {
            response.body.pop();
            response.body.extend_from_slice(b",\"error\":");
            json::write_string(&line, &mut response.body);
            response.body.push(b'}');
        }
        ContentType::Text => {
            let reason = String::from_utf8_lossy(&response.body);
            response.body = two_sentences(&reason, &line).into_bytes();
        }
        _ => {}
    }
    response
}

/// The cause for bytes that are not HTTP: the protocol that they probably belong to.
fn recognize_protocol(input: &[u8]) -> Cause {
    const TLS_HANDSHAKE: u8 = 0x16;
    /// Part of the signature of the PROXY protocol's second version. It may follow the empty lines that any request may
    /// begin with.
    const PROXY_V2: &[u8] = b"\0\r\nQUIT";
    let after_lines = input.strip_prefix(b"\r\n\r\n").unwrap_or(input);
    match input {
        [TLS_HANDSHAKE, ..] => Cause::TlsOnPlainPort,
        _ if input.starts_with(b"PROXY ") || after_lines.starts_with(PROXY_V2) => {
            Cause::ProxyProtocol
        }
        _ if memchr::memmem::find(first_line(input), b" HTTP/").is_none() => Cause::NotHttp,
        _ => Cause::BadRequest,
    }
}

fn first_line(input: &[u8]) -> &[u8] {
    let end = input.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    input.get(..end.unwrap_or(input.len())).unwrap_or_default()
}

/// The query is cut off, because it may contain a signature.
fn without_query(line: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'?', line).unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_recognized_by_their_first_bytes() {
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
            assert_eq!(recognize_protocol(input), cause, "{}", input.escape_ascii());
        }
        assert_eq!(without_query(first_line(b"GET /a?auth_signature=1 HTTP/1.1\r\n")), b"GET /a");
    }

    #[test]
    fn answers_are_explained_where_they_do_not_explain_themselves() {
        let body = |response: Response| String::from_utf8(response.body).unwrap();
        let why = || Some("say \"why\"".to_owned());
        let text = Response::text(404, "Not found.");
        assert_eq!(body(with_explanation(text.clone(), why())), "Not found. Say \"why\"");
        assert_eq!(body(with_explanation(text, None)), "Not found.");
        let empty = with_explanation(Response::json(400, "{}"), why());
        assert_eq!(body(empty), r#"{"error":"say \"why\""}"#);
        let listed = Response::json(422, r#"{"name":["The name field is required."]}"#);
        assert_eq!(
            body(with_explanation(listed.clone(), why())),
            r#"{"name":["The name field is required."],"error":"say \"why\""}"#
        );
        assert_eq!(with_explanation(listed.clone(), None), listed);
    }
}
