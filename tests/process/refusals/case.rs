//! What a case of a refusal is: what a client does, and which answer and log line must follow.

use std::net::SocketAddr;

use ringverb::cause::Cause;

use crate::support::{Client, Handshake, Server, data};

/// A wrong input.
pub(super) struct Case {
    pub(super) cause: Cause,
    /// Options that it needs.
    pub(super) env: &'static [(&'static str, &'static str)],
    pub(super) act: fn(&Server) -> Seen,
    /// The answer of Reverb.
    pub(super) answer: &'static str,
    pub(super) line: &'static str,
}

/// What the peer saw, and how the line names it.
pub(super) struct Seen {
    pub(super) answer: Answer,
    pub(super) peer: Option<SocketAddr>,
    pub(super) app: bool,
    pub(super) socket_id: Option<String>,
}

pub(super) enum Answer {
    /// Status and body.
    Http(u16, String),
    /// `pusher:error`: code and message.
    Error(u64, String),
    /// A close frame, and no error before it.
    Close(u16, String),
    /// The socket was closed, or nothing happened.
    Silence,
}

/// Sends bytes and reads the answer.
pub(super) fn http(server: &Server, bytes: &[u8]) -> Seen {
    let mut wire = server.wire();
    wire.send(bytes);
    let reply = wire.reply(true);
    Seen::http(&wire, Answer::Http(reply.status, reply.body))
}

/// Bytes after which the server closes without an answer.
pub(super) fn silence(server: &Server, bytes: &[u8]) -> Seen {
    let mut wire = server.wire();
    wire.send(bytes);
    wire.ended();
    Seen::http(&wire, Answer::Silence)
}

/// A handshake that is refused on its socket, and closed with the same code.
pub(super) fn refused_handshake(server: &Server, handshake: &Handshake) -> Seen {
    let mut client = Client::open(server, handshake);
    let answer = error_of(&client.event());
    let Answer::Error(code, _) = &answer else { panic!("an error") };
    assert_eq!(u64::from(client.closed().0), *code);
    Seen::http(&client.wire, answer)
}

/// A message that is answered with an error; the connection stays.
pub(super) fn message(server: &Server, text: &str) -> Seen {
    message_of(server.connect(), text)
}

pub(super) fn message_of(mut client: Client, text: &str) -> Seen {
    client.send(text);
    let answer = error_of(&client.event());
    client.sync();
    Seen::socket(&client, answer)
}

pub(super) fn error_of(event: &serde_json::Value) -> Answer {
    assert_eq!(event["event"], "pusher:error", "{event}");
    let data = data(event);
    let code = data["code"].as_u64().expect("a code");
    Answer::Error(code, data["message"].as_str().expect("a message").to_owned())
}
