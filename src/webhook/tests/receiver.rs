//! A backend for tests: a real HTTP server that answers as the test wants, badly if need be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Longest wait for anything in these tests: many times what a loaded machine needs.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What becomes of one request, once it was read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Status(u16),
    /// A redirect to where an event must not arrive.
    Elsewhere,
    /// Nothing, until the client hangs up.
    Stall,
    /// The connection is closed without an answer.
    HangUp,
    /// The connection is closed in the middle of the head.
    CutOff,
    /// A good answer, byte by byte with pauses.
    Drip(Duration),
    /// A good answer with a body that goes on and on.
    Endless,
}

#[derive(Debug)]
pub(super) struct Received {
    /// Request line and header, lower case.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// Number of the connection it came on.
    pub(super) connection: usize,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_else(|| panic!("no {name} in\n{}", self.head))
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn time_ms(&self) -> u64 {
        self.json()["time_ms"].as_u64().unwrap()
    }

    /// `name channel` of each event.
    pub(super) fn events(&self) -> Vec<String> {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let events = self.json()["events"].as_array().unwrap().clone();
        events.iter().map(|event| text(&event["name"]) + " " + &text(&event["channel"])).collect()
    }

    /// `subscription_count` of each event.
    pub(super) fn counts(&self) -> Vec<u64> {
        let events = self.json()["events"].as_array().unwrap().clone();
        events.iter().map(|event| event["subscription_count"].as_u64().unwrap()).collect()
    }
}

pub(super) struct Receiver {
    pub(super) url: String,
    requests: std::sync::mpsc::Receiver<Received>,
}

impl Receiver {
    /// `answers` is asked with the number of the request, from 0.
    pub(super) fn start(answers: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hooks", listener.local_addr().unwrap());
        let (received, requests) = channel();
        let (answers, count) = (Arc::new(answers), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().flatten().enumerate() {
                let (answers, count, received) = (answers.clone(), count.clone(), received.clone());
                std::thread::spawn(move || {
                    serve(&stream, connection, &received, || {
                        answers(count.fetch_add(1, Ordering::SeqCst))
                    })
                });
            }
        });
        Self { url, requests }
    }

    pub(super) fn next(&self) -> Received {
        self.requests.recv_timeout(PATIENCE).expect("no request came")
    }

    /// Whether nothing comes for a while.
    pub(super) fn is_quiet(&self, time: Duration) -> bool {
        self.requests.recv_timeout(time).is_err()
    }

    /// The events of the next requests until there are as many.
    pub(super) fn events(&self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.next().events());
        }
        events
    }
}

fn serve(
    stream: &TcpStream,
    connection: usize,
    received: &Sender<Received>,
    answer: impl Fn() -> Answer,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (head, length) = read_head(&mut reader)?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let answer = answer();
        received.send(Received { head, body, connection }).ok()?;
        write_answer(answer, stream, &mut reader)?;
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<(String, usize)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    // Values keep their case, names need none.
    let lines = head.lines().map(|line| match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}\n", name.to_lowercase()),
        None => format!("{line}\n"),
    });
    let head: String = lines.collect();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    Some((head, length))
}

/// `None` to close the connection.
fn write_answer(answer: Answer, mut stream: &TcpStream, reader: &mut impl Read) -> Option<()> {
    let good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    match answer {
        Answer::Status(status) => {
            let head = format!("HTTP/1.1 {status} What\r\nContent-Length: 5\r\n\r\nhello");
            stream.write_all(head.as_bytes()).ok()
        }
        Answer::Elsewhere => {
            let head = "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(head.as_bytes()).ok()
        }
        Answer::Stall => reader.read_to_end(&mut Vec::new()).ok().and(None),
        Answer::HangUp => None,
        Answer::CutOff => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-").ok().and(None),
        Answer::Drip(pause) => {
            for byte in good {
                stream.write_all(&[*byte]).ok()?;
                sleep(pause);
            }
            Some(())
        }
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
            while stream.write_all(&[b'x'; 1024]).is_ok() {}
            None
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own thread")]
pub(super) fn sleep(time: Duration) {
    std::thread::sleep(time);
}
