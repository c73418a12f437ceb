//! One request to the admin listener of a server on this host, over TCP or a socket file.
//!
//! Owns one socket during a request. The listener closes after its answer, so the answer is all that comes. Does not
//! know what the paths mean, or retry. Input: method, path and body. Output: status and body.
//! Limits: `ANSWER_BYTES_MAX`, `TIMEOUT_ADMIN`. Cost: one connection; the answer's bytes are in memory as a whole.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::outcome::CommandFailure;
use crate::config::admin::{Admin, AdminPlace};

/// The longest answer lists 65,535 apps, of some hundred bytes each.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Longer than the listener waits for the outcome of a change (`ANSWER_TIME_MAX` of `server/admin/changes.rs`).
const TIMEOUT_ADMIN: Duration = Duration::from_secs(35);

/// A refusal of the listener itself, which is text, is in `error` of the body.
pub(super) struct AdminResponse {
    pub(super) status: u16,
    pub(super) body: serde_json::Value,
}

/// `None`: the server has no admin listener, or none answers there.
pub(super) fn ask(
    admin: &Admin,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Option<AdminResponse>, CommandFailure> {
    let place = &admin.place;
    let limits = ExchangeLimits { time: TIMEOUT_ADMIN, answer_bytes: ANSWER_BYTES_MAX };
    let bytes = match exchange(admin, method, path, body, limits) {
        Ok(bytes) => bytes,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(CommandFailure::Server(format!(
                "the admin listener at {place} (RINGVERB_ADMIN) cannot be asked: {error}"
            )));
        }
    };
    parse(&bytes).map(Some).ok_or_else(|| {
        CommandFailure::Server(format!(
            "{place} (RINGVERB_ADMIN) was reached, but its answer is no answer of the admin API: does an older \
             ringverb, or another program, listen there?"
        ))
    })
}

/// The server whose admin listener answers at a place.
pub(in crate::server) struct AdminIdentity {
    /// As it names itself: another container has other numbers. `None`: it does so only with the token.
    pub(in crate::server) process: Option<u32>,
}

/// The server that answers there, for `ringverb doctor`. The token is not sent: any program may listen there.
pub(in crate::server) fn identify(place: &AdminPlace) -> Option<AdminIdentity> {
    /// An overview has some hundred bytes for each worker.
    const OVERVIEW_BYTES_MAX: u64 = 4 << 20;
    const TIMEOUT: Duration = Duration::from_secs(3);
    let admin = Admin { place: place.clone(), is_explicit: true, token: None };
    let limits = ExchangeLimits { time: TIMEOUT, answer_bytes: OVERVIEW_BYTES_MAX };
    let get = |path| exchange(&admin, "GET", path, "", limits).ok();
    let overview = get("/api/overview")?;
    if let Some(AdminResponse { status: 200, body }) = parse(&overview)
        && body["version"].is_string()
        && let Some(process) = body["pid"].as_u64()
    {
        return Some(AdminIdentity { process: u32::try_from(process).ok() });
    }
    let live = get("/live")?;
    let is_live = matches!(status_and_body(&live)?, (200, b"live\n"));
    is_live.then_some(AdminIdentity { process: None })
}

/// `doctor` waits less and reads less than a command, because any program may listen at the place.
#[derive(Clone, Copy)]
pub(super) struct ExchangeLimits {
    /// For the connection, and for each wait on it.
    pub(super) time: Duration,
    pub(super) answer_bytes: u64,
}

/// One request, on a connection of its own. Returns the whole answer. The error is `NotFound` if there is no listener.
pub(super) fn exchange(
    admin: &Admin,
    method: &str,
    path: &str,
    body: &str,
    limits: ExchangeLimits,
) -> io::Result<Vec<u8>> {
    let time = Some(limits.time);
    let token = admin.token.as_ref();
    let token = token.map(|token| format!("Authorization: Bearer {}\r\n", token.reveal()));
    let token = token.unwrap_or_default();
    let length = body.len();
    let request = |host: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{token}Content-Type: application/json\r\nContent-Length: \
             {length}\r\n\r\n{body}"
        )
    };
    match &admin.place {
        AdminPlace::Off => Err(io::ErrorKind::NotFound.into()),
        AdminPlace::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, limits.time)?;
            stream.set_read_timeout(time)?;
            stream.set_write_timeout(time)?;
            converse(stream, &request(&address.to_string()), limits)
        }
        AdminPlace::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(time)?;
            stream.set_write_timeout(time)?;
            converse(stream, &request("localhost"), limits)
        }
    }
}

fn converse(
    mut stream: impl Read + Write,
    request: &str,
    limits: ExchangeLimits,
) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(limits.answer_bytes).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Status and body of an answer. `None`: it is not HTTP.
pub(super) fn status_and_body(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = head.parse(answer) else { return None };
    Some((head.code?, answer.get(length..)?))
}

fn parse(answer: &[u8]) -> Option<AdminResponse> {
    let (status, body) = status_and_body(answer)?;
    let body = serde_json::from_slice(body).or_else(|error| match status {
        // 401 and 403 come from the listener itself, as text.
        200..400 => Err(error),
        _ => Ok(serde_json::json!({ "error": String::from_utf8_lossy(body).trim() })),
    });
    Some(AdminResponse { status, body: body.ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_admin_api_is_parsed_or_refused() {
        let json = parse(b"HTTP/1.1 201 Created\r\nA: b\r\n\r\n{\"a\":1}\n").unwrap();
        assert_eq!((json.status, json.body["a"].as_u64()), (201, Some(1)));
        let text = parse(b"HTTP/1.1 401 Unauthorized\r\n\r\ntoken!\n").unwrap();
        assert_eq!((text.status, text.body["error"].as_str()), (401, Some("token!")));
        for bytes in [&b""[..], b"SSH-2.0", b"HTTP/1.1 200 OK\r\n\r\n# metrics"] {
            assert!(parse(bytes).is_none());
        }
    }
}
