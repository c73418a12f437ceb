//! What one connection that sends as fast as it can costs the other clients of its worker.
//!
//! Owns the probes: pings on connections that are there already, and `GET /up` on a new connection each, due at fixed
//! times (open loop). Does not suit a server with several workers, because the flood and the probes must meet. A probe
//! is measured from the time for which it was due, so a worker that stalls is charged for all that was due during the
//! stall. Each flood has rounds of a window without it and one with it; the figures are medians over the rounds. The
//! violation is an added p99 above the bar. Limits: `PINGERS`, `UPS_MAX`, `GRACE`. Cost: one thread for flood and
//! probes; a ping is two system calls, a `GET /up` some more.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::Bench;
use crate::app::{self, App};
use crate::blunt::Blunt;
use crate::flood::{Flood, Flooder};
use crate::frame;
use crate::http;
use crate::report::{Latency, Report, Violations, busy_percent};
use crate::sys::{self, Epoll, READABLE, WRITABLE};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these floods [all].
    #[arg(long, value_delimiter = ',')]
    only: Vec<Flood>,
    /// Rounds of each flood.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Length of a window without the flood, and of one with it.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Added p99 that is a violation when it is over.
    #[arg(long, default_value_t = 10.0)]
    bar_ms: f64,
}

/// Clients that ping in turn.
const PINGERS: usize = 4;
const PING_INTERVAL: Duration = Duration::from_millis(2);
const UP_INTERVAL: Duration = Duration::from_millis(4);
/// Connections for `GET /up` that are open at once. What is due beyond waits, and its time counts.
const UPS_MAX: usize = 256;
/// Before a window with a flood is measured, the flood runs for so long.
const LEAD: Duration = Duration::from_millis(200);
/// For what is under way at the end of a window. What is not answered then counts with its time until then.
const GRACE: Duration = Duration::from_secs(10);
/// For the server to get rid of what a flood has left.
const CALM: Duration = Duration::from_secs(30);
/// Source addresses of loopback, so that ports do not run out.
const SOURCES: u32 = 200;
const UP: &[u8] = b"GET /up HTTP/1.1\r\nHost: bench\r\n\r\n";

const TOKEN_FLOOD: u64 = 1 << 32;
const TOKEN_UP: u64 = 2 << 32;

/// A client that is there before the flood.
struct Pinger {
    stream: TcpStream,
    input: Vec<u8>,
    /// When its unanswered pings were due.
    waiting: VecDeque<Instant>,
}

impl Pinger {
    fn connect(app: &App) -> io::Result<Self> {
        let mut client = Blunt::connect(app)?;
        client.establish(app)?;
        let (stream, input) = client.into_parts();
        stream.set_nonblocking(true)?;
        Ok(Self { stream, input, waiting: VecDeque::new() })
    }

    fn ping(&mut self, due: Instant, bytes: &[u8]) -> io::Result<()> {
        if self.stream.write(bytes)? < bytes.len() {
            return Err(io::Error::other("the server reads no pings"));
        }
        self.waiting.push_back(due);
        Ok(())
    }

    /// Reads pongs; when each answered ping was due.
    fn read(&mut self, scratch: &mut [u8]) -> io::Result<Vec<Instant>> {
        match self.stream.read(scratch) {
            Ok(0) => return Err(io::Error::other("the server closed a client that only pings")),
            Ok(count) => self.input.extend_from_slice(&scratch[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let mut answered = Vec::new();
        let mut used = 0;
        loop {
            let decoded = frame::decode(&self.input[used..]);
            let decoded = decoded.map_err(|_| io::Error::other("a frame that is none"))?;
            let Some((frame, length)) = decoded else { break };
            if frame.payload.windows(13).any(|part| part == b"\"pusher:pong\"") {
                answered.extend(self.waiting.pop_front());
            }
            used += length;
        }
        self.input.drain(..used);
        Ok(answered)
    }
}

/// One `GET /up` on its own connection.
struct Up {
    stream: TcpStream,
    due: Instant,
    asked: bool,
    input: Vec<u8>,
}

/// What one window found.
#[derive(Default)]
struct Seen {
    ping: Latency,
    up: Latency,
    /// How late this process was to begin what was due.
    lateness: Latency,
    flood_bytes: u64,
    flood_closed: u64,
    /// Share of the window in which other processes had the server's CPU, in percent.
    waited_percent: f64,
}

struct Probes<'a> {
    app: &'a App,
    epoll: Epoll,
    pingers: Vec<Pinger>,
    ups: HashMap<u64, Up>,
    next_up: u64,
    ping: Vec<u8>,
    scratch: Vec<u8>,
    tokens: Vec<u64>,
    seen: Seen,
}

impl<'a> Probes<'a> {
    fn new(app: &'a App) -> io::Result<Self> {
        let mut ping = Vec::new();
        frame::encode(frame::opcode::TEXT, app::PING.as_bytes(), &mut ping);
        let mut probes = Self {
            app,
            epoll: Epoll::new()?,
            pingers: Vec::new(),
            ups: HashMap::new(),
            next_up: 0,
            ping,
            scratch: vec![0; 64 * 1024],
            tokens: Vec::new(),
            seen: Seen::default(),
        };
        for index in 0..PINGERS {
            let pinger = Pinger::connect(app)?;
            probes.epoll.add(pinger.stream.as_raw_fd(), READABLE, index as u64)?;
            probes.pingers.push(pinger);
        }
        Ok(probes)
    }

    /// Another address of 127.0.0.0/8 for each connection.
    fn source(&self) -> Ipv4Addr {
        let number = u32::try_from(self.next_up % u64::from(SOURCES)).unwrap_or_default();
        match self.app.sources.as_slice() {
            [] if self.app.address.ip().is_loopback() => {
                Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 2, 1)) + number)
            }
            [] => Ipv4Addr::UNSPECIFIED,
            given => given[number as usize % given.len()],
        }
    }

    fn begin_up(&mut self, due: Instant) -> io::Result<()> {
        let stream = sys::connect_from(self.source(), self.app.api_address)?;
        let token = TOKEN_UP + self.next_up;
        self.next_up += 1;
        self.epoll.add(stream.as_raw_fd(), READABLE | WRITABLE, token)?;
        self.ups.insert(token, Up { stream, due, asked: false, input: Vec::new() });
        Ok(())
    }

    /// Goes on with one `GET /up`.
    fn on_up(&mut self, token: u64) -> io::Result<()> {
        let Some(up) = self.ups.get_mut(&token) else { return Ok(()) };
        if !up.asked {
            if let Some(error) = up.stream.take_error()? {
                return Err(error);
            }
            if up.stream.write(UP)? < UP.len() {
                return Err(io::Error::other("a new connection takes no request"));
            }
            up.asked = true;
            return self.epoll.modify(up.stream.as_raw_fd(), READABLE, token);
        }
        let count = match up.stream.read(&mut self.scratch) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        up.input.extend_from_slice(&self.scratch[..count]);
        let decoded = http::decode(&up.input, count == 0);
        let decoded = decoded.map_err(|_| io::Error::other("not an HTTP response"))?;
        match decoded.map(|(response, _)| response.status) {
            Some(200) => {
                self.seen.up.record(up.due.elapsed());
                if let Some(up) = self.ups.remove(&token) {
                    sys::reset_at_close(up.stream.as_raw_fd())?;
                }
                Ok(())
            }
            Some(status) => Err(io::Error::other(format!("/up: status {status}"))),
            None if count == 0 => Err(io::Error::other("/up: closed without an answer")),
            None => Ok(()),
        }
    }

    /// Waits for the sockets until `next` at most.
    fn poll(&mut self, next: Instant, flooder: &mut Option<Flooder>) -> io::Result<()> {
        let wait = next.saturating_duration_since(Instant::now());
        let mut tokens = std::mem::take(&mut self.tokens);
        tokens.clear();
        self.epoll.wait(wait, &mut tokens)?;
        // The probes first: what the flood does in between is not the server's.
        tokens.sort_unstable_by_key(|token| *token == TOKEN_FLOOD);
        for token in &tokens {
            match *token {
                TOKEN_FLOOD => {
                    if let Some(flooder) = flooder
                        && flooder.turn()?
                    {
                        let fd = flooder.stream.as_raw_fd();
                        self.epoll.add(fd, READABLE | WRITABLE, TOKEN_FLOOD)?;
                    }
                }
                token if token >= TOKEN_UP => self.on_up(token)?,
                token => {
                    let index = usize::try_from(token).unwrap_or(usize::MAX);
                    let Some(pinger) = self.pingers.get_mut(index) else { continue };
                    for due in pinger.read(&mut self.scratch)? {
                        self.seen.ping.record(due.elapsed());
                    }
                }
            }
        }
        self.tokens = tokens;
        Ok(())
    }

    fn is_waiting(&self) -> bool {
        !self.ups.is_empty() || self.pingers.iter().any(|pinger| !pinger.waiting.is_empty())
    }

    /// One window; with a flood that runs since before its beginning and until its last answer.
    fn window(&mut self, time: Duration, flood: Option<Flood>) -> io::Result<Seen> {
        let mut flooder = match flood {
            Some(flood) => Some(Flooder::start(self.app, self.source(), flood)?),
            None => None,
        };
        if let Some(flooder) = &flooder {
            self.epoll.add(flooder.stream.as_raw_fd(), READABLE | WRITABLE, TOKEN_FLOOD)?;
        }
        let begin = Instant::now() + LEAD;
        while Instant::now() < begin {
            self.poll(begin, &mut flooder)?;
        }
        self.seen = Seen::default();
        let sent_before = flooder.as_ref().map_or(0, |flooder| flooder.sent);
        let end = begin + time;
        let (mut next_ping, mut next_up, mut turn) = (begin, begin, 0);
        loop {
            let now = Instant::now();
            while next_ping <= now && next_ping < end {
                self.seen.lateness.record(next_ping.elapsed());
                self.pingers[turn % PINGERS].ping(next_ping, &self.ping)?;
                (next_ping, turn) = (next_ping + PING_INTERVAL, turn + 1);
            }
            while next_up <= now && next_up < end && self.ups.len() < UPS_MAX {
                self.begin_up(next_up)?;
                next_up += UP_INTERVAL;
            }
            let all_begun = next_ping >= end && next_up >= end;
            if (all_begun && !self.is_waiting()) || now > end + GRACE {
                break;
            }
            let next = if all_begun { now + PING_INTERVAL } else { next_ping.min(next_up) };
            self.poll(next.max(now + Duration::from_micros(50)), &mut flooder)?;
            if now < end
                && let Some(flooder) = &flooder
            {
                self.seen.flood_bytes = flooder.sent - sent_before;
            }
        }
        let mut seen = std::mem::take(&mut self.seen);
        for due in self.pingers.iter().flat_map(|pinger| pinger.waiting.iter()) {
            seen.ping.record(due.elapsed());
        }
        self.ups.values().for_each(|up| seen.up.record(up.due.elapsed()));
        while next_up < end {
            seen.up.record(next_up.elapsed());
            next_up += UP_INTERVAL;
        }
        if let Some(flooder) = flooder {
            seen.flood_closed = flooder.closed;
            flooder.stop();
        }
        self.calm_down()?;
        Ok(seen)
    }

    /// Waits until everything is answered.
    fn calm_down(&mut self) -> io::Result<()> {
        let end = Instant::now() + CALM;
        while self.is_waiting() {
            if Instant::now() > end {
                return Err(io::Error::other("the server did not recover from a flood in 30 s"));
            }
            self.poll(Instant::now() + PING_INTERVAL, &mut None)?;
        }
        Ok(())
    }
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

type Rounds = Vec<(Seen, Seen)>;

/// Medians of one probe, without and with the flood; the added p99.
fn tell(report: &mut Report, name: &str, rounds: &Rounds, of: impl Fn(&Seen) -> &Latency) -> f64 {
    let at = |quantile: f64| {
        let calm = rounds.iter().map(|(calm, _)| of(calm).ms_at(quantile)).collect();
        let flooded = rounds.iter().map(|(_, flooded)| of(flooded).ms_at(quantile)).collect();
        (median(calm), median(flooded))
    };
    for (what, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let (calm, flooded) = at(quantile);
        report.figure(format!("{name} {what} without"), calm, "ms");
        report.figure(format!("{name} {what} with"), flooded, "ms");
    }
    let (calm, flooded) = at(0.99);
    report.figure(format!("{name} p99 added"), flooded - calm, "ms");
    let mut all = Latency::default();
    for (_, flooded) in rounds {
        // Both have the same bounds.
        all.0.add(&of(flooded).0).ok();
    }
    report.latencies.push((name.to_owned(), all));
    flooded - calm
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let app = &bench.app;
    let mut report = Report::new("fairness");
    report.count("rounds", args.rounds.into());
    report.figure("bar", args.bar_ms, "ms");
    let floods = if args.only.is_empty() { Flood::ALL.to_vec() } else { args.only.clone() };
    let mut probes = Probes::new(app)?;
    let time = Duration::from_secs(args.seconds);
    let mut violations = Violations::default();
    for flood in floods {
        let name = flood.name();
        bench.telemetry.phase(name, 0);
        flood.prepare(app)?;
        let mut rounds = Rounds::new();
        for _ in 0..args.rounds {
            let calm = probes.window(time, None)?;
            let (begin, waited) = (Instant::now(), bench.servers.waiting_time());
            let mut flooded = probes.window(time, Some(flood))?;
            let waited = bench.servers.waiting_time().saturating_sub(waited);
            flooded.waited_percent = busy_percent(waited, begin.elapsed());
            rounds.push((calm, flooded));
        }
        let sent: Vec<f64> = rounds
            .iter()
            .map(|(_, flooded)| flooded.flood_bytes as f64 / 1e6 / time.as_secs_f64())
            .collect();
        report.figure(format!("{name}: sent"), median(sent), "MB/s");
        let closed = rounds.iter().map(|(_, flooded)| flooded.flood_closed).sum();
        report.count(format!("{name}: closed by the server"), closed);
        let late = rounds.iter().map(|(_, flooded)| flooded.lateness.ms_at(0.99)).collect();
        report.figure(format!("{name}: client's lateness p99"), median(late), "ms");
        let waited = rounds.iter().map(|(_, flooded)| flooded.waited_percent).collect();
        report.figure(format!("{name}: server waited for its CPU"), median(waited), "%");
        if rounds.iter().any(|(_, flooded)| flooded.flood_bytes == 0) {
            violations.add(|| format!("{name}: the server read nothing of the flood"));
        }
        let ping = tell(&mut report, &format!("{name}: ping"), &rounds, |seen| &seen.ping);
        let up = tell(&mut report, &format!("{name}: /up"), &rounds, |seen| &seen.up);
        for (probe, added) in [("a ping", ping), ("GET /up", up)] {
            if added > args.bar_ms {
                violations.add(|| {
                    format!(
                        "{name}: p99 of {probe} is {added:.1} ms more, the bar is {}",
                        args.bar_ms
                    )
                });
            }
        }
    }
    report.add_violations(violations);
    Ok(report)
}
