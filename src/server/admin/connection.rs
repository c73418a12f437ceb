//! One connection of the admin listener: one request, one answer, then the end.
//!
//! Owns one socket and its buffers; does not know the paths. Connections are not kept: a scrape comes every few
//! seconds, and idle connections would use up the limit of connections. A socket is shut down before it is closed,
//! because a worker's descriptor table may have a copy.
//! Limits: `REQUEST_BYTES_MAX`, a deadline for the whole request, one for the whole answer, and one for the peer's own
//! end. Cost: one task and one buffer of the request's bytes; the answer is one more, written once.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use monoio::time::{sleep, timeout};
use socket2::Socket;

use super::owed::{ANSWERS_TIME_MAX, OwedAnswer};
use super::routes::{AdminAnswer, AdminState};
use super::slots::AdminConnection;
use super::viewers::Viewer;
use crate::http1::request::{Progress, Request, RequestLimits, RequestReader, RequestRefusal};
use crate::http1::response::{CONTINUE, Response};
use crate::server::control::Readable;

/// Head and body of one request: the largest is a publish of the console, or an app with its webhooks.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
const _: () = assert!(REQUEST_TIME_MAX.as_secs() <= ANSWERS_TIME_MAX.as_secs());
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// For the peer to close after the answer. A close with unread input would reset the connection and may destroy it.
const END_TIME_MAX: Duration = Duration::from_secs(1);

/// Between two looks at the event log: a person sees no delay, and a quiet log costs seven looks a second.
const VIEW_INTERVAL: Duration = Duration::from_millis(150);
const COMMENT_INTERVAL: Duration = Duration::from_secs(10);
const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\
    Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n\r\n\
    : the event log of ringverb\n\n";

/// How the wait for a request ended.
enum RequestOutcome {
    Request(Request),
    Refused(RequestRefusal),
    /// The peer has closed, or the network failed: no answer can be sent.
    Gone,
}

/// `owed` is dropped once the answer is sent, which is what the end of the process waits for.
pub(super) async fn serve(
    connection: &AdminConnection,
    owed: Option<OwedAnswer>,
    state: &AdminState,
) {
    let socket = connection.socket();
    if let Ok(readable) = prepare(socket) {
        converse(connection, &readable, owed, state).await;
    }
    // If the peer has closed, nothing is left to shut down.
    socket.shutdown(Shutdown::Both).ok();
}

fn prepare(socket: &Socket) -> io::Result<Readable> {
    socket.set_nonblocking(true)?;
    Readable::of(socket)
}

async fn converse(
    connection: &AdminConnection,
    readable: &Readable,
    owed: Option<OwedAnswer>,
    state: &AdminState,
) {
    let socket = connection.socket();
    let received = timeout(REQUEST_TIME_MAX, read_request(socket, readable, owed.as_ref())).await;
    if !connection.begin_answer() {
        return;
    }
    let (response, head_only) = match received {
        Ok(RequestOutcome::Request(request)) => match state.answer(&request).await {
            AdminAnswer::Whole(response) => (response, request.method() == "HEAD"),
            AdminAnswer::Stream(viewer) => {
                connection.leave_slot();
                drop(owed);
                return stream_events(socket, readable, &viewer).await;
            }
        },
        Ok(RequestOutcome::Refused(refusal)) => {
            (Response::text(refusal.status(), refusal.body()), false)
        }
        Ok(RequestOutcome::Gone) => return,
        Err(_) => (Response::text(408, "The request was not complete within 5 s.\n"), false),
    };
    let mut answer = Vec::new();
    response.write(&mut answer, false, head_only);
    let written = timeout(ANSWER_TIME_MAX, write_all(socket, readable, &answer)).await;
    if matches!(written, Ok(Ok(()))) && socket.shutdown(Shutdown::Write).is_ok() {
        connection.set_answered();
        drop(owed);
        // The answer is sent, whatever the peer does with its half.
        timeout(END_TIME_MAX, read_to_end(socket, readable)).await.ok();
    }
}

/// Sends events to a viewer until it closes or no longer reads. The head has no length: the end of the connection is
/// the end of the stream.
async fn stream_events(socket: &Socket, readable: &Readable, viewer: &Viewer) {
    let mut bytes = STREAM_HEAD.to_vec();
    let mut quiet = Duration::ZERO;
    loop {
        let written = timeout(ANSWER_TIME_MAX, write_all(socket, readable, &bytes)).await;
        if !matches!(written, Ok(Ok(()))) || has_closed(socket) {
            return;
        }
        sleep(VIEW_INTERVAL).await;
        quiet += VIEW_INTERVAL;
        bytes = viewer.next_events();
        if !bytes.is_empty() {
            quiet = Duration::ZERO;
        } else if quiet >= COMMENT_INTERVAL {
            // A comment. Without it, neither side notices that the other one has closed.
            bytes.extend_from_slice(b":\n\n");
            quiet = Duration::ZERO;
        }
    }
}

/// What a viewer sends is ignored: server-sent events go one way.
fn has_closed(socket: &Socket) -> bool {
    match (&*socket).read(&mut [0; 256]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

async fn read_request(
    socket: &Socket,
    readable: &Readable,
    owed: Option<&OwedAnswer>,
) -> RequestOutcome {
    let mut reader = RequestReader::new(RequestLimits { request_size_max: REQUEST_BYTES_MAX });
    let mut input = Vec::new();
    let mut chunk = [0; 2048];
    loop {
        readable.wait().await;
        match (&*socket).read(&mut chunk) {
            Ok(0) => return RequestOutcome::Gone,
            Ok(count) => {
                owed.inspect(|owed| owed.note_begun());
                input.extend_from_slice(&chunk[..count]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return RequestOutcome::Gone,
        }
        match reader.read(&mut input) {
            Ok(Progress::Complete(request)) => return RequestOutcome::Request(request),
            // A peer that does not read this does not read its answer either.
            Ok(Progress::Incomplete { continue_expected: true }) => {
                // If the peer has closed, no task waits for this.
                (&*socket).write_all(CONTINUE).ok();
            }
            Ok(Progress::Incomplete { .. }) => {}
            Err(refusal) => return RequestOutcome::Refused(refusal),
        }
    }
}

async fn write_all(socket: &Socket, readable: &Readable, mut bytes: &[u8]) -> io::Result<()> {
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
