//! The inputs that cost a server most, as endless streams of bytes, and one connection that sends such a stream as fast
//! as the server reads it.
//!
//! `Flood` names an input and makes its bytes. `Flooder` owns the socket. It never keeps answers: it reads and discards
//! them, so that the server does not close it as a slow consumer, and reconnects when the server closes it all the
//! same. Limit: one connection; a stream of `CYCLE_BYTES` that repeats. Cost: a call of `turn` is one write (or
//! `SEGMENTS_PER_TURN` of them) and one read, both system calls, on the thread that also has the probes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;

use serde_json::json;

use crate::app::{self, App};
use crate::blunt;
use crate::frame::{self, opcode};
use crate::random::Random;
use crate::sys;

/// The stream repeats after so many bytes. Longer than a socket's buffers, so that random names are new for a while.
const CYCLE_BYTES: usize = 2 << 20;
/// Written at a time. Small enough that the probes of the same thread are not delayed by it.
const WRITE_BYTES: usize = 64 * 1024;
/// Segments of one byte written at a time.
const SEGMENTS_PER_TURN: usize = 64;
/// Below the largest message of Reverb and ringverb, 10,000 bytes.
const LARGE_BYTES: usize = 9_900;
const CACHED_BYTES: usize = 9_000;
/// A channel with a cached event of `CACHED_BYTES`: see `prepare`.
const CACHE_CHANNEL: &str = "cache-fairness";

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Flood {
    /// Messages of 60 bytes that change nothing and get no answer.
    Small,
    /// Messages of 9,900 bytes that change nothing and get no answer.
    Large,
    /// Messages of 9,900 bytes of which each member has a name with an escape.
    Escapes,
    /// `pusher:ping`, each of which is answered.
    Pings,
    /// Subscribing to public channels with random names, and leaving each at once.
    Channels,
    /// Subscribing again and again to a cache channel whose event has 9,000 bytes.
    Cache,
    /// Subscribing to private channels with a wrong signature.
    Signatures,
    /// Empty pong frames.
    Pongs,
    /// Messages in fragments of one byte, with empty fragments in between.
    Fragments,
    /// Messages of 60 bytes in TCP segments of one byte.
    Segments,
}

impl Flood {
    pub(crate) const ALL: [Self; 10] = [
        Self::Small,
        Self::Large,
        Self::Escapes,
        Self::Pings,
        Self::Channels,
        Self::Cache,
        Self::Signatures,
        Self::Pongs,
        Self::Fragments,
        Self::Segments,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small messages",
            Self::Large => "large messages",
            Self::Escapes => "escaped names",
            Self::Pings => "pings",
            Self::Channels => "random channels",
            Self::Cache => "cache channel again",
            Self::Signatures => "wrong signatures",
            Self::Pongs => "empty pong frames",
            Self::Fragments => "tiny fragments",
            Self::Segments => "segments of a byte",
        }
    }

    /// What the server must have before this flood begins.
    pub(crate) fn prepare(self, app: &App) -> io::Result<()> {
        if self == Self::Cache {
            // A request has at most 10,000 bytes, its head included.
            let data = "d".repeat(CACHED_BYTES);
            let event = json!({ "name": "e", "channel": CACHE_CHANNEL, "data": data });
            crate::api::post(app, "/events", &event)?;
        }
        Ok(())
    }

    /// Whole messages, to be sent over and over.
    fn cycle(self) -> Vec<u8> {
        let mut random = Random::new(1);
        let mut out = Vec::with_capacity(CYCLE_BYTES + 2 * LARGE_BYTES);
        while out.len() < CYCLE_BYTES {
            self.append(&mut random, &mut out);
        }
        out
    }

    fn append(self, random: &mut Random, out: &mut Vec<u8>) {
        match self {
            Self::Small | Self::Segments => text(&app::unsubscribe("xx"), out),
            Self::Large => text(&app::unsubscribe(&"x".repeat(LARGE_BYTES - 60)), out),
            Self::Escapes => {
                let members = "\"\\n\":1,".repeat((LARGE_BYTES - 30) / 7);
                text(&format!("{{{members}\"event\":\"pusher:pong\"}}"), out);
            }
            Self::Pings => text(app::PING, out),
            Self::Channels => {
                let name = format!("r{:016x}", random.below(usize::MAX));
                text(
                    &json!({"event": "pusher:subscribe", "data": {"channel": name}}).to_string(),
                    out,
                );
                text(&app::unsubscribe(&name), out);
            }
            Self::Cache => {
                let data = json!({ "channel": CACHE_CHANNEL });
                text(&json!({"event": "pusher:subscribe", "data": data}).to_string(), out);
            }
            Self::Signatures => {
                let auth = format!("app-key:{}", "a".repeat(64));
                let data = json!({ "channel": "private-x", "auth": auth });
                text(&json!({"event": "pusher:subscribe", "data": data}).to_string(), out);
            }
            Self::Pongs => frame::encode(opcode::PONG, b"", out),
            Self::Fragments => fragments(app::unsubscribe(&"x".repeat(900)).as_bytes(), out),
        }
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    frame::encode(opcode::TEXT, text.as_bytes(), out);
}

/// Each byte of the message in a frame of its own, followed by an empty frame.
fn fragments(message: &[u8], out: &mut Vec<u8>) {
    const FIN: u8 = 0x80;
    for (at, byte) in message.iter().enumerate() {
        let opcode = if at == 0 { opcode::TEXT } else { opcode::CONTINUATION };
        let begin = out.len();
        frame::encode(opcode, &[*byte], out);
        out[begin] &= !FIN;
        let begin = out.len();
        frame::encode(opcode::CONTINUATION, b"", out);
        if at + 1 < message.len() {
            out[begin] &= !FIN;
        }
    }
}

pub(crate) struct Flooder {
    pub(crate) stream: TcpStream,
    app: App,
    source: Ipv4Addr,
    /// Sent once on each connection, before the flood.
    handshake: Vec<u8>,
    handshake_sent: usize,
    cycle: Vec<u8>,
    at: usize,
    in_segments: bool,
    scratch: Vec<u8>,
    /// Bytes of the flood that the kernel has accepted.
    pub(crate) sent: u64,
    /// Times that the server closed the connection.
    pub(crate) closed: u64,
}

impl Flooder {
    pub(crate) fn start(app: &App, source: Ipv4Addr, flood: Flood) -> io::Result<Self> {
        Ok(Self {
            stream: sys::connect_from(source, app.address)?,
            app: app.clone(),
            source,
            handshake: blunt::handshake(app),
            handshake_sent: 0,
            cycle: flood.cycle(),
            at: 0,
            in_segments: flood == Flood::Segments,
            scratch: vec![0; WRITE_BYTES],
            sent: 0,
            closed: 0,
        })
    }

    /// Writes and reads as much as is possible without waiting. Returns whether it reconnected, after which the caller
    /// has to watch another socket.
    pub(crate) fn turn(&mut self) -> io::Result<bool> {
        match self.write().and_then(|()| self.read()) {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(_) => {
                self.closed += 1;
                self.stream = sys::connect_from(self.source, self.app.address)?;
                (self.handshake_sent, self.at) = (0, 0);
                Ok(true)
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while self.handshake_sent < self.handshake.len() {
            match self.stream.write(&self.handshake[self.handshake_sent..]) {
                Ok(count) => self.handshake_sent += count,
                Err(error) => return would_block_is_fine(error),
            }
        }
        let (writes, most) =
            if self.in_segments { (SEGMENTS_PER_TURN, 1) } else { (1, WRITE_BYTES) };
        for _ in 0..writes {
            let end = self.cycle.len().min(self.at + most);
            match self.stream.write(&self.cycle[self.at..end]) {
                Ok(count) => {
                    self.sent += count as u64;
                    self.at = (self.at + count) % self.cycle.len();
                }
                Err(error) => return would_block_is_fine(error),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        match self.stream.read(&mut self.scratch) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) => would_block_is_fine(error),
        }
    }

    /// Ends it with a reset: what is still in the buffers of the kernel is not sent.
    pub(crate) fn stop(self) {
        // It is dropped either way.
        sys::reset_at_close(self.stream.as_raw_fd()).ok();
    }
}

/// Not an error: the socket is not ready, or its connect is not finished (`NotConnected`).
fn would_block_is_fine(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_documented() {
        let one = |flood: Flood| {
            let mut out = Vec::new();
            flood.append(&mut Random::new(1), &mut out);
            out.len()
        };
        assert_eq!(one(Flood::Small), 60);
        for flood in [Flood::Large, Flood::Escapes] {
            assert!((9_800..=9_950).contains(&one(flood)), "{flood:?}: {}", one(flood));
        }
        assert_eq!(one(Flood::Pongs), 6);
    }

    #[test]
    fn fragments_end_with_the_only_final_frame() {
        let mut out = Vec::new();
        fragments(b"abc", &mut out);
        let firsts = [out[0], out[7], out[13], out[20], out[26], out[33]];
        assert_eq!(firsts, [0x01, 0x00, 0x00, 0x00, 0x00, 0x80]);
    }
}
