//! One request to the admin listener of a server on this host, over TCP or a socket file.
//!
//! The listener closes after its answer, so the answer is all that comes. Limits: `ANSWER_BYTES_MAX`, `TIMEOUT_ADMIN`.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::CommandFailure;
use crate::config::admin::{Admin, AdminPlace};

/// An answer lists 65,535 apps at most.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Longer than the server takes for a change.
const TIMEOUT_ADMIN: Duration = Duration::from_secs(25);

/// An answer as JSON.
pub(super) struct AdminAnswer {
    pub(super) status: u16,
    pub(super) body: serde_json::Value,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// `None`: the server has no admin listener, or none answers there.
pub(super) fn ask(
    admin: &Admin,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Option<AdminAnswer>, CommandFailure> {
    let place = &admin.place;
    let stream = match place {
        AdminPlace::Off => return Ok(None),
        AdminPlace::Tcp(address) => {
            TcpStream::connect_timeout(address, TIMEOUT_ADMIN).and_then(|stream| {
                stream.set_read_timeout(Some(TIMEOUT_ADMIN))?;
                stream.set_write_timeout(Some(TIMEOUT_ADMIN))?;
                Ok(Box::new(stream) as Box<dyn Stream>)
            })
        }
        AdminPlace::Unix(path) => UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(TIMEOUT_ADMIN))?;
            stream.set_write_timeout(Some(TIMEOUT_ADMIN))?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        }),
    };
    let failed = |error: &io::Error| {
        CommandFailure::Server(format!(
            "the admin listener at {place} (RINGVERB_ADMIN) cannot be asked: {error}"
        ))
    };
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed(&error)),
    };
    let host = match place {
        AdminPlace::Tcp(address) => address.to_string(),
        _ => "localhost".to_owned(),
    };
    let token = admin.token.as_ref();
    let token = token.map(|token| format!("Authorization: Bearer {}\r\n", token.reveal()));
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        token.unwrap_or_default(),
        body.len()
    );
    stream.write_all(request.as_bytes()).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    parse(&bytes).map(Some).ok_or_else(|| {
        CommandFailure::Server(format!(
            "{place} (RINGVERB_ADMIN) was reached, but its answer is no answer of the admin API: does an older ringverb, \
             or another program, listen there?"
        ))
    })
}

fn parse(bytes: &[u8]) -> Option<AdminAnswer> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = head.parse(bytes) else { return None };
    let body = bytes.get(length..)?;
    let status = head.code?;
    let body = serde_json::from_slice(body).or_else(|error| match status {
        // 401 and 403 come from the listener itself, as text.
        200..400 => Err(error),
        _ => Ok(serde_json::json!({ "error": String::from_utf8_lossy(body).trim() })),
    });
    Some(AdminAnswer { status, body: body.ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let json = parse(b"HTTP/1.1 201 Created\r\nA: b\r\n\r\n{\"a\":1}\n").unwrap();
        assert_eq!((json.status, json.body["a"].as_u64()), (201, Some(1)));
        let text = parse(b"HTTP/1.1 401 Unauthorized\r\n\r\ntoken!\n").unwrap();
        assert_eq!((text.status, text.body["error"].as_str()), (401, Some("token!")));
        for bytes in [&b""[..], b"SSH-2.0", b"HTTP/1.1 200 OK\r\n\r\n# metrics"] {
            assert!(parse(bytes).is_none());
        }
    }
}
