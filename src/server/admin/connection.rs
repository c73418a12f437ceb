//! One connection of the admin listener: one request, one answer, then the end.
//!
//! Limits: `REQUEST_BYTES_MAX`, a deadline for the whole request, one for the whole answer, and one for the peer's own
//! end. Connections are not kept: a scrape comes every few seconds, and idle connections would use up the limit of
//! connections. A socket is shut down before it is closed, because a worker's descriptor table may have a copy.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use monoio::time::timeout;
use socket2::Socket;

use super::routes::AdminState;
use crate::http1::request::{Progress, Request, RequestLimits, RequestReader, RequestRefusal};
use crate::http1::response::{CONTINUE, Response};
use crate::server::control::Readable;

/// Head and body of one request.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// For the peer to close after the answer. A close with unread input would reset the connection and may destroy it.
const END_TIME_MAX: Duration = Duration::from_secs(1);

/// What came of a request.
enum Asked {
    Request(Request),
    Refused(RequestRefusal),
    /// The peer has closed, or failed.
    Gone,
}

pub(super) async fn serve(socket: &Socket, state: &AdminState) {
    if let Ok(readable) = prepare(socket) {
        converse(socket, &readable, state).await;
    }
    let _ = socket.shutdown(Shutdown::Both);
}

fn prepare(socket: &Socket) -> io::Result<Readable> {
    socket.set_nonblocking(true)?;
    Readable::of(socket)
}

/// One connection too many: the answer, if the kernel takes it at once.
pub(super) fn refuse(socket: &Socket, connections_max: usize) {
    let text = format!(
        "The admin listener has {connections_max} connections already, which is its limit. Try again.\n"
    );
    let _ = socket.set_nonblocking(true);
    let mut answer = Vec::new();
    Response::text(503, &text).write(&mut answer, false, false);
    let _ = (&*socket).write(&answer);
    let _ = socket.shutdown(Shutdown::Both);
}

async fn converse(socket: &Socket, readable: &Readable, state: &AdminState) {
    let asked = timeout(REQUEST_TIME_MAX, read_request(socket, readable)).await;
    let (response, head_only) = match asked {
        Ok(Asked::Request(request)) => (state.respond(&request).await, request.method() == "HEAD"),
        Ok(Asked::Refused(refusal)) => (Response::text(refusal.status(), refusal.body()), false),
        Ok(Asked::Gone) => return,
        Err(_) => (Response::text(408, "The request was not complete within 5 s.\n"), false),
    };
    let mut answer = Vec::new();
    response.write(&mut answer, false, head_only);
    let written = timeout(ANSWER_TIME_MAX, write(socket, readable, &answer)).await;
    if matches!(written, Ok(Ok(()))) && socket.shutdown(Shutdown::Write).is_ok() {
        let _ = timeout(END_TIME_MAX, read_to_end(socket, readable)).await;
    }
}

async fn read_request(socket: &Socket, readable: &Readable) -> Asked {
    let mut reader = RequestReader::new(RequestLimits { request_size_max: REQUEST_BYTES_MAX });
    let mut input = Vec::new();
    let mut chunk = [0; 2048];
    loop {
        readable.wait().await;
        match (&*socket).read(&mut chunk) {
            Ok(0) => return Asked::Gone,
            Ok(count) => input.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return Asked::Gone,
        }
        match reader.read(&mut input) {
            Ok(Progress::Complete(request)) => return Asked::Request(request),
            // A peer that does not read this does not read its answer either.
            Ok(Progress::Incomplete { continue_expected: true }) => {
                let _ = (&*socket).write(CONTINUE);
            }
            Ok(Progress::Incomplete { .. }) => {}
            Err(refusal) => return Asked::Refused(refusal),
        }
    }
}

async fn write(socket: &Socket, readable: &Readable, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match (&*socket).write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                readable.wait_for_room().await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn read_to_end(socket: &Socket, readable: &Readable) {
    let mut chunk = [0; 2048];
    loop {
        readable.wait().await;
        match (&*socket).read(&mut chunk) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
