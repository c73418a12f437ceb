//! A backend that webhooks are posted to: it checks the signature of each request and passes on the events one by one.
//!
//! Owns a listener and a thread for each endpoint. Does not judge the events: the test receives them, also those of
//! requests that it refuses. Limit: the queue to the test has none, because a test has few events. Cost: one thread,
//! and one more for each connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::Value;

use super::protocol::{json, sign};
use super::time::DEADLINE;
use super::tls;

/// An endpoint; what it was posted comes out of `events`, one by one, also what it refuses.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) events: Receiver<Value>,
}

/// What the backend makes of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// A status, and header lines that each end in CRLF.
    Status(u16, &'static str),
    /// Nothing, until the server hangs up.
    Never,
}

type Decision = dyn Fn(&[Value]) -> Answer + Send + Sync;

impl Endpoint {
    /// `answers`, or reads and never answers.
    pub(crate) fn start(answers: bool) -> Self {
        Self::deciding(move |_| if answers { Answer::Status(200, "") } else { Answer::Never })
    }

    /// Looks at the events of each request to decide.
    pub(crate) fn deciding(decide: impl Fn(&[Value]) -> Answer + Send + Sync + 'static) -> Self {
        Self::serving("http://127.0.0.1", decide, |stream| stream)
    }

    /// Answers 200 over TLS, with the certificate of localhost that the authority of the tests has issued.
    pub(crate) fn over_tls() -> Self {
        let config = tls::server();
        let session = move |stream| {
            let session = rustls::ServerConnection::new(config.clone()).expect("a session");
            rustls::StreamOwned::new(session, stream)
        };
        Self::serving("https://localhost", |_| Answer::Status(200, ""), session)
    }

    fn serving<S: Read + Write>(
        origin: &str,
        decide: impl Fn(&[Value]) -> Answer + Send + Sync + 'static,
        session: impl Fn(TcpStream) -> S + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("{origin}:{}/hook", listener.local_addr().expect("an address").port());
        let (sender, events) = channel();
        let decide: Arc<Decision> = Arc::new(decide);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (sender, decide, session) = (sender.clone(), decide.clone(), session.clone());
                std::thread::spawn(move || serve(session(stream), &sender, &*decide));
            }
        });
        Self { url, events }
    }

    #[track_caller]
    pub(crate) fn next(&self) -> Value {
        self.events.recv_timeout(DEADLINE).expect("an event in time")
    }
}

fn serve(mut stream: impl Read + Write, events: &Sender<Value>, decide: &Decision) {
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
        assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
        assert_eq!(header("X-Pusher-Signature:"), sign(&[body]), "signed with the tests' secret");
        let key = header("X-Pusher-Key:");
        let posted = json(body);
        let posted = posted["events"].as_array().expect("a list");
        for event in posted {
            let mut event = event.clone();
            event["key"] = key.clone().into();
            // The test may be over.
            let _ = events.send(event);
        }
        let answer = decide(posted);
        bytes.clear();
        let Answer::Status(status, headers) = answer else { continue };
        let answer = format!("HTTP/1.1 {status} What\r\n{headers}Content-Length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
