//! A backend that webhooks are posted to: it checks the signature and hands out the events one by one.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::Value;

use super::{DEADLINE, json, sign};

/// An endpoint; what it was posted comes out of `events`, one by one.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) events: Receiver<Value>,
}

impl Endpoint {
    /// `answers`, or reads and never answers.
    pub(crate) fn start(answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                std::thread::spawn(move || serve(stream, &sender, answers));
            }
        });
        Self { url, events }
    }

    #[track_caller]
    pub(crate) fn next(&self) -> Value {
        self.events.recv_timeout(DEADLINE).expect("an event in time")
    }
}

fn serve(mut stream: TcpStream, events: &Sender<Value>, answers: bool) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).unwrap_or_else(|| panic!("no {name} in {head}")).to_owned()
        };
        let length: usize = header("Content-Length:").parse().expect("a length");
        if body.len() < length {
            continue;
        }
        assert_eq!(header("X-Pusher-Signature:"), sign(&[body]), "signed with the tests' secret");
        let key = header("X-Pusher-Key:");
        for event in json(body)["events"].as_array().expect("a list") {
            let mut event = event.clone();
            event["key"] = key.clone().into();
            // The test may be over.
            let _ = events.send(event);
        }
        bytes.clear();
        if !answers {
            continue;
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}
