//! A WebSocket client that sends exactly what a test passes to it.
//!
//! Owns one wire and its socket id. Never answers a ping or reconnects by itself, so that the test decides about each
//! frame. A read that is not the expected one panics with what was received. Limit: `time::DEADLINE` for each wait.
//! Cost: one connection; the thread of the test waits.

use serde_json::{Value, json};

use super::protocol::{APP_KEY, channel_auth, data, error_event, json as parse, succeeded};
use super::server::Server;
use super::wire::{Frame, Head, Wire, frame};

/// A handshake request. Fields may be changed and left out.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    pub(crate) line: String,
    headers: Vec<(String, String)>,
}

impl Handshake {
    /// As pusher-js sends it.
    pub(crate) fn new() -> Self {
        Self::to(&format!("/app/{APP_KEY}?protocol=7&client=js&version=8.4.0&flash=false"))
    }

    pub(crate) fn to(target: &str) -> Self {
        let headers = [
            ("Host", "127.0.0.1"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self { line: format!("GET {target} HTTP/1.1"), headers }
    }

    /// Sets or adds a field.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(given, _)| given != name);
        self
    }

    pub(crate) fn line(mut self, line: &str) -> Self {
        line.clone_into(&mut self.line);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) wire: Wire,
    /// Empty until `established` was called.
    pub(crate) socket_id: String,
}

impl Client {
    /// Sends the handshake and reads the 101 answer.
    pub(crate) fn open(server: &Server, handshake: &Handshake) -> Self {
        Self::open_on(server.wire(), handshake)
    }

    pub(crate) fn open_on(mut wire: Wire, handshake: &Handshake) -> Self {
        wire.send(&handshake.bytes());
        Self::upgraded(wire).0
    }

    /// Takes over a wire on which a handshake was sent.
    pub(crate) fn upgraded(mut wire: Wire) -> (Self, Head) {
        let head = wire.head();
        assert_eq!(head.status, 101, "{head:?}");
        (Self { wire, socket_id: String::new() }, head)
    }

    /// Reads `connection_established` and takes the socket id from it.
    pub(crate) fn established(mut self) -> Self {
        let event = self.event();
        assert_eq!(event["event"], "pusher:connection_established", "{event}");
        data(&event)["socket_id"].as_str().expect("socket_id").clone_into(&mut self.socket_id);
        self
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.wire.send(&frame::text(text));
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.wire.send(bytes);
    }

    pub(crate) fn frame(&mut self) -> Frame {
        self.wire.frame().expect("the connection is open")
    }

    /// The next frame, which is text.
    pub(crate) fn text(&mut self) -> String {
        let Frame { opcode, payload } = self.frame();
        let shown = payload.escape_ascii().to_string();
        assert_eq!(opcode, frame::TEXT, "{shown}");
        String::from_utf8(payload).expect("text in UTF-8")
    }

    pub(crate) fn event(&mut self) -> Value {
        parse(&self.text())
    }

    /// The next frame is this text, byte for byte.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        assert_eq!(self.text(), text);
    }

    /// Sends a text and reads its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, text: &str, answer: &str) {
        self.send(text);
        let got = self.text();
        assert_eq!(got, answer, "in answer to {text}");
    }

    /// All that the server did for this connection has come: nothing is left before the answer to a ping frame.
    #[track_caller]
    pub(crate) fn sync(&mut self) {
        self.wire.send(&frame::raw(frame::FIN | frame::PING, b"sync"));
        let Frame { opcode, payload } = self.frame();
        let shown = payload.escape_ascii().to_string();
        assert_eq!((opcode, shown.as_str()), (frame::PONG, "sync"), "more came than expected");
    }

    /// Reads a close frame and the end of the connection.
    pub(crate) fn closed(&mut self) -> (u16, String) {
        let Frame { opcode, payload } = self.frame();
        let shown = payload.escape_ascii().to_string();
        assert_eq!(opcode, frame::CLOSE, "no close frame: {shown}");
        let closed = close_payload(&payload);
        self.wire.ended();
        closed
    }

    /// Reads a close frame behind any number of events.
    pub(crate) fn close_code_behind_events(&mut self) -> u16 {
        loop {
            let Frame { opcode, payload } = self.frame();
            if opcode == frame::CLOSE {
                return close_payload(&payload).0;
            }
            assert_eq!(opcode, frame::TEXT);
        }
    }

    /// An error event, a close frame of the same code and text, the end.
    #[track_caller]
    pub(crate) fn refused(&mut self, code: u16, message: &str) {
        self.expect(&error_event(code, message));
        assert_eq!(self.closed(), (code, message.to_owned()));
    }

    /// Closes in order.
    pub(crate) fn close(mut self) {
        self.wire.send(&frame::close(1000, ""));
        assert_eq!(self.closed(), (1000, String::new()));
    }

    /// Closes in order; events that were under way are skipped.
    pub(crate) fn close_among_events(mut self) {
        self.wire.send(&frame::close(1000, ""));
        while self.frame().opcode != frame::CLOSE {}
        self.wire.ended();
    }

    /// Asks for a subscription, signed where the channel needs that; reads no answer.
    pub(crate) fn send_subscribe(&mut self, channel: &str, channel_data: Option<&str>) {
        let message = self.subscribe_message(channel, channel_data);
        self.send(&message);
    }

    pub(crate) fn subscribe_message(&self, channel: &str, channel_data: Option<&str>) -> String {
        let mut data = json!({ "channel": channel });
        if channel.starts_with("private-") || channel.starts_with("presence-") {
            data["auth"] = channel_auth(&self.socket_id, channel, channel_data).into();
        }
        if let Some(channel_data) = channel_data {
            data["channel_data"] = channel_data.into();
        }
        json!({ "event": "pusher:subscribe", "data": data }).to_string()
    }

    /// Subscribes to a channel without a roster.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, channel: &str) {
        self.send_subscribe(channel, None);
        self.expect(&succeeded(channel));
    }

    /// Joins a presence channel; returns the roster.
    #[track_caller]
    pub(crate) fn join(&mut self, channel: &str, channel_data: &str) -> Value {
        self.send_subscribe(channel, Some(channel_data));
        let event = self.event();
        assert_eq!(event["event"], "pusher_internal:subscription_succeeded", "{event}");
        assert_eq!(event["channel"], channel);
        data(&event)["presence"].clone()
    }

    pub(crate) fn unsubscribe(&mut self, channel: &str) {
        self.send(
            &json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } }).to_string(),
        );
    }
}

fn close_payload(payload: &[u8]) -> (u16, String) {
    let (code, reason) = payload.split_first_chunk::<2>().expect("a close code");
    let reason = String::from_utf8(reason.to_vec()).expect("a reason in UTF-8");
    (u16::from_be_bytes(*code), reason)
}

impl Server {
    /// A connection that is established.
    pub(crate) fn connect(&self) -> Client {
        Client::open(self, &Handshake::new()).established()
    }
}
