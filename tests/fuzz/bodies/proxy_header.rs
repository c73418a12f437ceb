//! The reader of PROXY headers: the same bytes, whole and in pieces, have the same outcome; nothing beyond the header
//! is used, and a header that names a client is written as a line and read again.

use ringverb::proxy_header::{HeaderFault, ProxyHeader, ProxyHeaderReader};
use std::net::SocketAddr;

type Outcome = Result<Option<(Option<SocketAddr>, usize)>, HeaderFault>;

/// The first byte is the size of the pieces and the versions that are accepted, the rest is the stream.
pub(crate) fn check(data: &[u8]) {
    let Some((&first, stream)) = data.split_first() else { return };
    let accepts = [first & 1 == 0 || first & 2 == 0, first & 1 == 0 || first & 2 != 0];
    let whole = read_pieces(accepts, stream, stream.len().max(1));
    assert_eq!(whole, read_pieces(accepts, stream, usize::from(first >> 2) + 1));
    if let Ok(Some((client, used))) = whole {
        assert!(used <= stream.len());
        assert_eq!(read_pieces(accepts, &stream[..used], 1), whole);
        assert_eq!(read_pieces(accepts, &stream[..used - 1], 1), Ok(None));
        if let Some(client) = client {
            let (version, any) = if client.is_ipv4() { (4, "0.0.0.0") } else { (6, "::") };
            let line = format!("PROXY TCP{version} {} {any} {} 0\r\n", client.ip(), client.port());
            let again = read_pieces([true, true], line.as_bytes(), line.len());
            assert_eq!(again, Ok(Some((Some(client), line.len()))));
        }
    }
}

fn read_pieces(accepts: [bool; 2], stream: &[u8], size: usize) -> Outcome {
    let mut reader = ProxyHeaderReader::new(accepts);
    for (number, piece) in stream.chunks(size).enumerate() {
        if let Some(ProxyHeader { client, used }) = reader.read(piece)? {
            return Ok(Some((client, number * size + used)));
        }
    }
    Ok(None)
}
