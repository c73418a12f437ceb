//! `ringverb health`: whether the server is up, for the health check of a container. For `ringverb doctor`: whether the
//! answer is one of this program.
//!
//! Owns no state. It has its answer from `/up`, so it needs no app and no secret. Any status but 200 is a failure: a
//! server that drains, or that delays its end, is not to be sent new clients. So is another body than this program
//! sends, because another program may answer 200. Laravel Reverb has the same body, and counts as up. A mistake in the
//! configuration that does not concern the connection is a warning (`server/mod.rs`). Output: a sentence and the exit
//! code. Does not repeat the request.
//! Limit: `TIMEOUT` of `outcome.rs`. Cost: one connection, one request.

use std::time::Duration;

use super::connection::ServerConnection;
use super::http;
use super::outcome::{CommandFailure, is_page, one_line, print};
use super::peer::ServerPeer;
use crate::api;
use crate::config::Config;
use crate::server::cli::Address;

pub(super) fn run(peer: &ServerPeer) -> Result<(), CommandFailure> {
    let answer = http::send(peer, "GET", "/up", "")?;
    if answer.status != 200 {
        let question = if is_page(&answer.body) { ": does ringverb listen there?" } else { "" };
        return Err(CommandFailure::Server(format!(
            "{}/up answers {}: {}{question}",
            peer.url(),
            answer.status,
            one_line(&answer.body)
        )));
    }
    if answer.body.as_bytes() != api::up(false).body {
        return Err(CommandFailure::Server(format!(
            "{}/up answers 200, but not as ringverb does: {}: which program listens there?",
            peer.url(),
            one_line(&answer.body)
        )));
    }
    print(&format!("{} is up\n", peer.url()))
}

/// Whether the program at the configured port answers `/up` in the very bytes of this one. Laravel Reverb has the same
/// body and further header fields.
pub(in crate::server) fn answers_as_ringverb(config: Config) -> bool {
    let bytes = up_answer(config).unwrap_or_default();
    [true, false].into_iter().any(|draining| {
        let mut expected = Vec::new();
        api::up(draining).write(&mut expected, false, false);
        bytes == expected
    })
}

/// All bytes that came, head included. `None`: no connection.
fn up_answer(config: Config) -> Option<Vec<u8>> {
    /// The answers of this program are shorter. A longer one cannot be equal to them.
    const BYTES_MAX: usize = 1_024;
    const TIMEOUT: Duration = Duration::from_secs(3);
    let peer = ServerPeer::of_any_app(config, &Address::default()).ok()?;
    let mut connection = ServerConnection::open(&peer).ok()?;
    let (prefix, host) = (&peer.prefix, peer.authority());
    let request = format!("GET {prefix}/up HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.set_read_timeout(TIMEOUT).ok()?;
    connection.send(request.as_bytes()).ok()?;
    // A peer that closes TLS without a notice fails the last read: what it has sent counts.
    while connection.input.len() <= BYTES_MAX && connection.receive_more().unwrap_or(false) {}
    Some(connection.input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use crate::config::validate::{DevelopmentApp, build_config};
    use crate::config::{Sources, merge};

    /// A program that gives this answer.
    fn is_recognized(answer: &'static [u8]) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let environment = [("REVERB_SERVER_HOST", "127.0.0.1"), ("REVERB_SERVER_PORT", &port)];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let merged = merge(&Sources { environment: environment.into(), ..Sources::default() });
        let generated =
            DevelopmentApp { id: String::new(), key: String::new(), secret: String::new() };
        let config = build_config(&merged, &generated).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                assert!(request.starts_with(b"GET /up HTTP/1.1\r\n"));
                stream.write_all(answer).unwrap();
            });
            answers_as_ringverb(config)
        })
    }

    #[test]
    fn an_answer_of_this_program_is_recognized_and_that_of_reverb_is_not() {
        assert!(is_recognized(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\
              Connection: close\r\n\r\n{\"health\":\"OK\"}"
        ));
        assert!(is_recognized(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\
              Connection: close\r\n\r\n{\"health\":\"DRAINING\"}"
        ));
        for other in [
            &b"HTTP/1.1 200 OK\r\nCache-Control: no-cache, private\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
               Content-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"health\":\"OK\"}"[..],
            b"SSH-2.0-x\r\n",
            b"",
        ] {
            assert!(!is_recognized(other));
        }
    }
}
