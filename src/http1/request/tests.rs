//! Tests of the request reader: what real clients send, every refusal, and every way to cut it.

use super::*;
use crate::limits::HTTP_HEADERS_MAX;
use proptest::prelude::*;

const LIMITS: RequestLimits = RequestLimits { request_size_max: 2000 };

/// What a reader made of its input, in comparable form.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    requests: Vec<Summary>,
    refusal: Option<RequestRefusal>,
    rest: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Summary {
    line: [String; 3],
    fields: Vec<String>,
    body: Vec<u8>,
}

const NAMES: [&str; 3] = ["host", "content-length", "x-a"];

/// Feeds the pieces and collects all complete requests.
fn read_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut reader = RequestReader::new(LIMITS);
    let mut buffer = Vec::new();
    let mut outcome = Outcome { requests: Vec::new(), refusal: None, rest: Vec::new() };
    let mut continues = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match reader.read(&mut buffer) {
                Ok(Progress::Complete(request)) => {
                    assert!(reader.is_idle());
                    continues = 0;
                    outcome.requests.push(summary(&request));
                }
                Ok(Progress::Incomplete { continue_expected }) => {
                    continues += usize::from(continue_expected);
                    assert!(continues <= 1, "asked to continue twice");
                    break;
                }
                Err(refusal) => {
                    return Outcome { refusal: Some(refusal), ..outcome };
                }
            }
        }
        assert!(buffer.len() <= LIMITS.request_size_max);
    }
    Outcome { rest: buffer, ..outcome }
}

fn summary(request: &Request) -> Summary {
    let fields = NAMES.iter().flat_map(|name| request.header_values(name));
    Summary {
        line: [request.method(), request.path(), request.query()].map(str::to_owned),
        fields: fields.map(|field| String::from_utf8_lossy(field).into_owned()).collect(),
        body: request.body().to_vec(),
    }
}

fn read_one(bytes: &[u8]) -> Request {
    let mut buffer = bytes.to_vec();
    match RequestReader::new(LIMITS).read(&mut buffer) {
        Ok(Progress::Complete(request)) => request,
        other => panic!("{other:?} for {}", String::from_utf8_lossy(bytes)),
    }
}

/// Whole and byte by byte; both must refuse alike.
fn refusal(bytes: &[u8]) -> Option<RequestRefusal> {
    let whole = read_pieces([bytes]);
    assert_eq!(whole, read_pieces(bytes.chunks(1)), "{}", String::from_utf8_lossy(bytes));
    whole.refusal
}

const PUBLISH: &[u8] = b"POST /apps/1/events?auth_key=k&info[]=a HTTP/1.1\r\nHost: h\r\n\
    Content-Type: application/json\r\nContent-Length: 13\r\nX-A: 1\r\nx-a: 2\r\n\r\n\
    {\"name\":\"ev\"}";

#[test]
fn the_parts_of_a_request() {
    let request = read_one(PUBLISH);
    assert_eq!(request.method(), "POST");
    assert_eq!(request.path(), "/apps/1/events");
    assert_eq!(request.query(), "auth_key=k&info[]=a");
    assert_eq!(request.header("CONTENT-TYPE").as_deref(), Some("application/json"));
    assert_eq!(request.header("missing"), None);
    assert_eq!(request.header_values("X-a").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(request.header_list("x-a").as_deref(), Some("1, 2"));
    assert_eq!(request.body(), b"{\"name\":\"ev\"}");
    assert!(request.http_11() && request.keep_alive() && !request.wants_upgrade());
}

#[test]
fn targets_are_reduced_to_their_path() {
    let cases = [
        ("/", "/", ""),
        ("/a%20b?c=d?e", "/a%20b", "c=d?e"),
        ("http://host/path?q", "/path", "q"),
        ("HTTPS://host:80", "/", ""),
        ("http://host?q=/", "/", "q=/"),
        ("*", "*", ""),
    ];
    for (target, path, query) in cases {
        let request = read_one(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        assert_eq!((request.path(), request.query()), (path, query), "{target}");
    }
    for target in ["path", "ftp://host/x", "host:80", "**"] {
        let bytes = format!("CONNECT {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(refusal(bytes.as_bytes()), Some(RequestRefusal::BadRequest), "{target}");
    }
}

#[test]
fn keep_alive_by_version_and_header() {
    let cases = [
        ("HTTP/1.1\r\nHost: h\r\n", true),
        ("HTTP/1.1\r\nHost: h\r\nConnection: close\r\n", false),
        ("HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n", false),
        ("HTTP/1.0\r\n", false),
        ("HTTP/1.0\r\nConnection: Keep-Alive\r\n", true),
        ("HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n", false),
    ];
    for (rest, expected) in cases {
        let request = read_one(format!("GET / {rest}\r\n").as_bytes());
        assert_eq!(request.keep_alive(), expected, "{rest}");
    }
}

#[test]
fn upgrades_to_websocket_only() {
    let upgrade = |connection: &str, upgrade: &str| {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\n\r\n"
        );
        read_one(head.as_bytes()).wants_upgrade()
    };
    assert!(upgrade("keep-alive, Upgrade", "WebSocket"));
    assert!(!upgrade("Upgrade, HTTP2-Settings", "h2c"));
    assert!(!upgrade("keep-alive", "websocket"));
}

#[test]
fn bytes_after_a_request_stay_in_the_input() {
    let mut reader = RequestReader::new(LIMITS);
    let mut buffer = [PUBLISH, b"\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n\x81\x80"].concat();
    assert!(matches!(reader.read(&mut buffer), Ok(Progress::Complete(_))));
    assert!(reader.is_idle());
    match reader.read(&mut buffer) {
        Ok(Progress::Complete(request)) => assert_eq!(request.path(), "/next"),
        other => panic!("{other:?}"),
    }
    assert_eq!(buffer, b"\x81\x80");
}

#[test]
fn idle_until_a_byte_was_seen() {
    let mut reader = RequestReader::new(LIMITS);
    let mut buffer = Vec::new();
    assert!(matches!(reader.read(&mut buffer), Ok(Progress::Incomplete { .. })));
    assert!(reader.is_idle());
    buffer.extend_from_slice(b"\r\n");
    assert!(reader.read(&mut buffer).is_ok() && reader.is_idle() && buffer.is_empty());
    buffer.push(b'G');
    assert!(reader.read(&mut buffer).is_ok() && !reader.is_idle());
    buffer.extend_from_slice(b"ET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n");
    assert!(reader.read(&mut buffer).is_ok() && !reader.is_idle() && buffer.is_empty());
}

#[test]
fn continue_is_asked_for_once() {
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n";
    let mut reader = RequestReader::new(LIMITS);
    let mut buffer = head.to_vec();
    let progress = reader.read(&mut buffer);
    assert!(matches!(progress, Ok(Progress::Incomplete { continue_expected: true })));
    buffer.push(b'a');
    let progress = reader.read(&mut buffer);
    assert!(matches!(progress, Ok(Progress::Incomplete { continue_expected: false })));
    buffer.push(b'b');
    assert!(matches!(reader.read(&mut buffer), Ok(Progress::Complete(_))));

    // Nothing to wait for: the body is there already, or the client speaks 1.0.
    assert_eq!(read_one(&[&head[..], b"ab"].concat()).body(), b"ab");
    let mut buffer = b"POST / HTTP/1.0\r\nExpect: x\r\nContent-Length: 2\r\n\r\n".to_vec();
    let progress = RequestReader::new(LIMITS).read(&mut buffer);
    assert!(matches!(progress, Ok(Progress::Incomplete { continue_expected: false })));
}

#[test]
fn chunked_bodies_are_joined_and_bounded() {
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n".as_slice();
    let bytes = [head, b"3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: 1\r\n\r\nGET"].concat();
    let outcome = read_pieces([&bytes[..]]);
    assert_eq!((&outcome.requests[0].body[..], &outcome.rest[..]), (&b"abcde"[..], &b"GET"[..]));
    let bytes = [head, b"7d0\r\n"].concat();
    assert_eq!(refusal(&bytes), Some(RequestRefusal::TooLarge));
    let bytes = [head, b"xyz\r\n"].concat();
    assert_eq!(refusal(&bytes), Some(RequestRefusal::BadRequest));
}

#[test]
fn bytes_that_are_not_utf8_hide_no_field() {
    let request = read_one(b"GET / HTTP/1.1\r\nHost: h\r\nX: \xff\r\nX: b\r\nY: \xc3\xa9\r\n\r\n");
    assert_eq!(request.header("x").as_deref(), Some("\u{fffd}"));
    assert_eq!(request.header_values("x").collect::<Vec<_>>(), [&b"\xff"[..], b"b"]);
    assert_eq!(request.header_list("x").as_deref(), Some("\u{fffd}, b"));
    assert_eq!(request.header("y").as_deref(), Some("é"));
}

#[test]
fn http_11_needs_exactly_one_host() {
    for (head, fits) in [
        ("GET /up HTTP/1.1\r\nHost: a", true),
        ("GET /up HTTP/1.1\r\nhOST:", true),
        ("GET /up HTTP/1.1\r\nX-Host: a", false),
        ("GET /up HTTP/1.1\r\nHost: a\r\nHost: a", false),
        ("GET /up HTTP/1.1\r\nHost: a\r\nX: y\r\nhost: b", false),
        ("GET http://a/up HTTP/1.1\r\nX: y", false),
        ("GET /up HTTP/1.0\r\nX: y", true),
        ("GET /up HTTP/1.0\r\nHost: a", true),
        ("GET /up HTTP/1.0\r\nHost: a\r\nHost: b", false),
    ] {
        let expected = if fits { None } else { Some(RequestRefusal::Host) };
        assert_eq!(refusal(format!("{head}\r\n\r\n").as_bytes()), expected, "{head}");
    }
    assert_eq!(RequestRefusal::Host.status(), 400);
    assert!(RequestRefusal::Host.body().contains("exactly one Host"));
}

#[test]
fn each_malformed_request_has_its_refusal() {
    let fields = "X: y\r\n".repeat(HTTP_HEADERS_MAX + 1);
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n", "a".repeat(2000));
    let cases: &[(RequestRefusal, &[u8])] = &[
        (RequestRefusal::HeadTooLarge, many.as_bytes()),
        (RequestRefusal::TooLarge, long.as_bytes()),
        (RequestRefusal::TooLarge, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1990\r\n\r\n"),
        (RequestRefusal::TooLarge, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n"),
        (RequestRefusal::BadRequest, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n"),
        (RequestRefusal::BadRequest, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\n"),
        (RequestRefusal::BadRequest, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n"),
        (RequestRefusal::BadRequest, b"P / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        (
            RequestRefusal::BadRequest,
            b"P / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (RequestRefusal::BadRequest, b"P / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (RequestRefusal::UnsupportedTransferCoding, b"P / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n"),
        (RequestRefusal::UnsupportedTransferCoding, b"P / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \xff\r\n\r\n"),
        (
            RequestRefusal::UnsupportedTransferCoding,
            b"P / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (RequestRefusal::UnsupportedTransferCoding, b"P / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n"),
        (RequestRefusal::ExpectationFailed, b"P / HTTP/1.1\r\nHost: h\r\nExpect: magic\r\n\r\n"),
        (RequestRefusal::VersionNotSupported, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (RequestRefusal::Host, b"GET / HTTP/1.1\r\nX: y\r\n\r\n"),
        (RequestRefusal::BadRequest, b"GET / GOPHER\r\n\r\n"),
        (RequestRefusal::BadRequest, b"GET / HTTP/1.1\n\n"),
        (RequestRefusal::BadRequest, b"GET / HTTP/1.1\r\nHost: h\r\nA: b\n\r\n"),
        (RequestRefusal::BadRequest, b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n folded\r\n\r\n"),
        (RequestRefusal::BadRequest, b"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n"),
        (RequestRefusal::BadRequest, b"GET / HTTP/1.1\r\nHost: h\r\nA: b\x00\r\n\r\n"),
        (RequestRefusal::BadRequest, b"GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n"),
        (RequestRefusal::BadRequest, b"\x16\x03\x01"),
        (RequestRefusal::BadRequest, b"\r\n\r\n\r\n"),
        (RequestRefusal::BadRequest, b"\rGET"),
    ];
    for (expected, bytes) in cases {
        assert_eq!(refusal(bytes), Some(*expected), "{}", String::from_utf8_lossy(bytes));
    }
    for refusal in RequestRefusal::ALL {
        assert!(cases.iter().any(|(covered, _)| *covered == refusal), "{refusal:?} untested");
    }
}

#[test]
fn a_repeated_equal_length_is_one_length() {
    let bytes = b"P / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na";
    assert_eq!(read_one(bytes).body(), b"a");
}

#[test]
fn the_limit_counts_head_and_body_and_includes_itself() {
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n";
    for (limit, fits) in [(head.len() + 10, true), (head.len() + 9, false)] {
        let mut buffer = [&head[..], b"0123456789"].concat();
        let mut reader = RequestReader::new(RequestLimits { request_size_max: limit });
        let progress = reader.read(&mut buffer);
        assert_eq!(matches!(progress, Ok(Progress::Complete(_))), fits);
        assert_eq!(matches!(progress, Err(RequestRefusal::TooLarge)), !fits);
    }
}

#[test]
fn a_wide_limit_does_not_widen_the_head() {
    let mut buffer = vec![b'a'; HTTP_HEAD_BYTES_MAX];
    let mut reader = RequestReader::new(RequestLimits { request_size_max: 1 << 20 });
    assert!(matches!(reader.read(&mut buffer), Err(RequestRefusal::HeadTooLarge)));
}

/// A valid request, its body framed one way or the other.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..200);
    // Smaller chunks would be more framing than the tests' size limit has room for.
    let chunk = 4_usize..50;
    (body, chunk, any::<bool>(), any::<bool>()).prop_map(|(body, chunk, chunked, expect)| {
        let mut bytes = b"POST /apps/1?a=b HTTP/1.1\r\nHost: h\r\nX-A: v\r\n".to_vec();
        if expect {
            bytes.extend_from_slice(b"Expect: 100-continue\r\n");
        }
        if !chunked {
            bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
            bytes.extend(body);
            return bytes;
        }
        bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(chunk) {
            bytes.extend(format!("{:x};e=1\r\n", piece.len()).into_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\nT: x\r\n\r\n");
        bytes
    })
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(request(), 1..4).prop_map(|requests| requests.concat())
}

#[test]
fn every_cut_gives_the_same_request() {
    let chunked =
        b"P /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for bytes in [PUBLISH, chunked.as_slice()] {
        let whole = read_pieces([bytes]);
        assert_eq!(whole.requests.len(), 1);
        for cut in 0..=bytes.len() {
            let (front, back) = bytes.split_at(cut);
            assert_eq!(read_pieces([front, back]), whole, "cut at {cut}");
        }
    }
}

proptest! {
    #[test]
    fn valid_requests_survive_any_cut(bytes in requests(), size in 1_usize..100) {
        let whole = read_pieces([&bytes[..]]);
        prop_assert_eq!(whole.refusal, None);
        prop_assert!(whole.rest.is_empty());
        prop_assert_eq!(&read_pieces(bytes.chunks(size)), &whole);
        prop_assert_eq!(read_pieces(bytes.chunks(1)), whole);
    }

    #[test]
    fn damaged_requests_give_the_same_verdict_in_any_cut(
        bytes in requests(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        size in 1_usize..100,
    ) {
        let mut bytes = bytes;
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assert_eq!(read_pieces(bytes.chunks(size)), read_pieces([&bytes[..]]));
    }

    #[test]
    fn noise_gives_the_same_verdict_in_any_cut(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        size in 1_usize..50,
    ) {
        prop_assert_eq!(read_pieces(bytes.chunks(size)), read_pieces([&bytes[..]]));
    }
}
