//! Just enough HTTP/1.1 for the publishing side: one request out, one response in. PURE: bytes only.
//!
//! Owns no state. Does not decode chunked bodies: no server measured here sends one in answer to the API. Limit: none
//! of its own; the caller bounds the bytes. Cost: a request is some allocations; a response is searched again with each
//! piece that arrives, which is quadratic only for answers in many pieces, and copies no bytes.

/// What a request asks the server to do with the connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Keep,
    /// `Connection: close`, as PHP's clients do: each of its processes publishes on a new connection.
    Close,
}

/// Appends a request. An empty body is left out, as the Pusher libraries do for GET.
pub(crate) fn encode(
    method: &str,
    target: &str,
    host: &str,
    body: &[u8],
    after: After,
    out: &mut Vec<u8>,
) {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    if after == After::Close {
        head.push_str("Connection: close\r\n");
    }
    if !body.is_empty() {
        head.push_str("Content-Type: application/json\r\n");
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body);
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    /// The server closes the connection after this response: `Connection: close`, or HTTP/1.0.
    pub(crate) last: bool,
    pub(crate) body: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The first response in `bytes` and how many bytes it takes, or `None` while it is incomplete.
/// `closed` says that no more bytes will come, which ends a body without a declared length.
pub(crate) fn decode(
    bytes: &[u8],
    closed: bool,
) -> Result<Option<(Response<'_>, usize)>, Malformed> {
    let Some(head_end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..head_end]).map_err(|_| Malformed)?;
    let mut lines = head.split("\r\n");
    let mut status_line = lines.next().ok_or(Malformed)?.split(' ');
    let version = status_line.next().ok_or(Malformed)?;
    let status = status_line.next().and_then(|code| code.parse().ok()).ok_or(Malformed)?;
    let mut last = version == "HTTP/1.0";
    let mut length: Option<usize> = None;
    let mut chunked = false;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Malformed)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.parse().map_err(|_| Malformed)?);
        } else if name.eq_ignore_ascii_case("connection") {
            last = value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = true;
        }
    }
    let body_start = head_end + 4;
    let rest = &bytes[body_start..];
    let body_length = match length {
        // No server measured here answers the API in chunks.
        _ if chunked => return Err(Malformed),
        Some(length) if rest.len() >= length => length,
        Some(_) => return Ok(None),
        None if last && closed => rest.len(),
        None if last => return Ok(None),
        None => 0,
    };
    let body = &rest[..body_length];
    Ok(Some((Response { status, last, body }, body_start + body_length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_declares_its_body() {
        let mut out = Vec::new();
        encode("POST", "/a?b=c", "127.0.0.1:1", b"{}", After::Keep, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "POST /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Type: application/json\r\n\
             Content-Length: 2\r\n\r\n{}"
        );
    }

    #[test]
    fn a_request_can_be_the_last_of_its_connection() {
        let mut out = Vec::new();
        encode("GET", "/up", "127.0.0.1:1", b"", After::Close, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "GET /up HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_response_is_complete_at_its_last_byte() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 404";
        for cut in 0..bytes.len() {
            let got = decode(&bytes[..cut], false).unwrap();
            let complete = bytes.len() - "HTTP/1.1 404".len();
            assert_eq!(got.is_some(), cut >= complete, "cut at {cut}");
            if let Some((response, used)) = got {
                assert_eq!(response, Response { status: 200, last: false, body: b"{}" });
                assert_eq!(used, complete);
            }
        }
    }

    #[test]
    fn a_body_without_length_ends_with_the_connection() {
        let bytes = b"HTTP/1.0 401 Unauthorized\r\n\r\nno";
        assert_eq!(decode(bytes, false), Ok(None));
        let (response, _) = decode(bytes, true).unwrap().unwrap();
        assert_eq!(response, Response { status: 401, last: true, body: b"no" });
    }
}
