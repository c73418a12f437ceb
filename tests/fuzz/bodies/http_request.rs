//! The HTTP request reader: the same bytes, whole and in pieces, give the same requests and the
//! same refusal; no accessor of a request panics.

use ringverb::http1::query::{parse_query, percent_decode};
use ringverb::http1::request::{Progress, Request, RequestLimits, RequestReader, RequestRefusal};

const LIMITS: RequestLimits = RequestLimits { request_size_max: 4096 };

#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    requests: Vec<(Vec<String>, Vec<u8>)>,
    refusal: Option<RequestRefusal>,
}

/// The first byte is the size of the pieces, the rest is the stream.
pub(crate) fn check(data: &[u8]) {
    let Some((&size, stream)) = data.split_first() else { return };
    let whole = read_pieces(stream, stream.len().max(1));
    assert_eq!(whole, read_pieces(stream, usize::from(size).max(1)));
}

fn read_pieces(stream: &[u8], size: usize) -> Seen {
    let mut reader = RequestReader::new(LIMITS);
    let mut buffer = Vec::new();
    let mut seen = Seen::default();
    let mut continues = 0;
    for piece in stream.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            match reader.read(&mut buffer) {
                Ok(Progress::Complete(request)) => {
                    assert!(reader.is_idle());
                    continues = 0;
                    seen.requests.push(describe(&request));
                }
                Ok(Progress::Incomplete { continue_expected }) => {
                    continues += usize::from(continue_expected);
                    assert!(continues <= 1, "asked to continue twice");
                    break;
                }
                Err(refusal) => {
                    seen.refusal = Some(refusal);
                    return seen;
                }
            }
        }
        assert!(buffer.len() < LIMITS.request_size_max, "more kept than a request may have");
    }
    seen
}

fn describe(request: &Request) -> (Vec<String>, Vec<u8>) {
    assert!(request.path().starts_with('/') || request.path() == "*");
    assert!(request.body().len() <= LIMITS.request_size_max);
    let mut words = vec![
        request.method().to_owned(),
        request.path().to_owned(),
        String::from_utf8_lossy(&percent_decode(request.path())).into_owned(),
        format!("{:?}", parse_query(request.query())),
        format!("{} {} {}", request.http_11(), request.keep_alive(), request.wants_upgrade()),
        format!("{:?} {:?}", request.header("host"), request.header_list("connection")),
    ];
    words.extend(request.header_values("x").map(|value| value.escape_ascii().to_string()));
    (words, request.body().to_vec())
}
