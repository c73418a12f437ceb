//! The messages of a take-over: lines of `MESSAGE_BYTES` bytes over a Unix stream, a word and up to four numbers.
//!
//! Owns their words, their length, the time that a side waits for one, and the errors of a conversation. Does not know
//! which side sends what in which order (`mod.rs`).
//! Limits: `MESSAGE_BYTES` for a message, `PATIENCE` for a side that waits, `LISTENERS_MAX` listeners. Cost: one system
//! call for each message, one allocation for a received one.

use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use crate::limits::WORKERS_MAX;

/// Every message is as long as this, filled up with spaces, so that a reader needs no delimiter and no buffer.
pub(super) const MESSAGE_BYTES: usize = 64;
/// With the version of the conversation: processes of different versions do not take over from each other.
pub(super) const TAKE_OVER: &str = "take over 3";
/// The same, of a process without a configured app, which would be a development server.
pub(super) const TAKE_OVER_WITHOUT_APPS: &str = "take over 3 without apps";
/// The answer to that of a server with configured apps.
pub(super) const SERVES_APPS: &str = "serves apps";
pub(super) const LISTENERS: &str = "listeners";
pub(super) const ACCEPTING: &str = "accepting";
pub(super) const BRING: &str = "bring";
pub(super) const FAILED: &str = "failed";
pub(super) const TAKEN: &str = "taken";
pub(super) const RETIRING: &str = "retiring";

/// How long a side waits for the next message. The old process serves one peer at a time, so a silent peer delays the
/// next one by as much.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The kernel's own bound of descriptors in a message. There is one for each worker and port, and the admin listener;
/// where there are more, a new process binds the others itself.
pub(super) const LISTENERS_MAX: usize = 253;

pub(super) fn set_timeouts(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

pub(super) fn message(text: &str) -> [u8; MESSAGE_BYTES] {
    debug_assert!(text.len() <= MESSAGE_BYTES, "a word and four numbers");
    let mut message = [b' '; MESSAGE_BYTES];
    message.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
    message
}

pub(super) fn send_text(stream: &UnixStream, text: &str) -> io::Result<()> {
    (&*stream).write_all(&message(text))
}

pub(super) fn receive_text(stream: &UnixStream) -> io::Result<String> {
    let mut received = [0; MESSAGE_BYTES];
    (&*stream).read_exact(&mut received)?;
    Ok(text_of(&received))
}

pub(super) fn text_of(message: &[u8; MESSAGE_BYTES]) -> String {
    String::from_utf8_lossy(message).trim_end().to_owned()
}

pub(super) fn expect_message(stream: &UnixStream, text: &str) -> io::Result<()> {
    if receive_text(stream)? == text { Ok(()) } else { Err(wrong_peer_error()) }
}

/// `None` unless there are exactly `COUNT` numbers: another count is another version of the protocol.
pub(super) fn numbers<const COUNT: usize>(received: &str, word: &str) -> Option<[u64; COUNT]> {
    let mut parts = received.strip_prefix(word)?.split_ascii_whitespace();
    let mut numbers = [0; COUNT];
    for number in &mut numbers {
        *number = parts.next()?.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// A number of workers that the other side has named. Who meets whom is computed from it (`Rendezvous::receivers_of`),
/// so zero or a huge number is refused.
pub(super) fn worker_count(named: u64) -> io::Result<usize> {
    let count = usize::try_from(named).ok().filter(|count| (1..=WORKERS_MAX).contains(count));
    count.ok_or_else(wrong_peer_error)
}

/// Describes the end of a conversation where the kernel only reports that the other side has closed it.
pub(in crate::server) fn explain_error(error: &io::Error, closed: &str) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => closed.to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut if error.raw_os_error().is_some() => {
            format!("the other process gave no answer within {} s", PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}

pub(super) fn wrong_peer_error() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the other process has another version of take-over")
}

/// A process without a configured app does not take over from a server that has some, because every client would be
/// refused. A configuration that is missing for a moment looks the same.
#[derive(Debug)]
pub(in crate::server) struct ServesAppsError;

impl fmt::Display for ServesAppsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the running server has configured apps, and the new process has none")
    }
}

impl Error for ServesAppsError {}

/// Whether the other side has sent something, or has closed, by now.
pub(super) fn is_readable(stream: &UnixStream) -> io::Result<bool> {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let ready = retry_on_intr(|| poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&at_once)))?;
    Ok(ready > 0)
}
