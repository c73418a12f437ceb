//! The floor under `fanout`: a child process that holds the sockets and only sends.
//!
//! Owns the child. The same frames go to the same sink through the same closed loop; there is no publisher, no parsing,
//! and never a WebSocket handshake. What remains is the kernel's TCP stack, which no server gets below unless it puts
//! several frames into one send (`--coalesce` measures that). Limits: those of `fanout`. Cost: the child has one
//! thread, and one system call for each frame and socket; the client is that of `fanout`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Bench, ShapeArgs, WARM_UP};
use crate::load::{self, Load};
use crate::payload::{self, SLOTS_MAX};
use crate::pool::{CloseWhy, Goal, Handler, Key, Pool, Tag};
use crate::report::{Report, us_each};
use crate::server::Servers;
use crate::sink::Sink;
use crate::sys;
use crate::window::Window;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    shape: ShapeArgs,
    /// Events that are due together go to a socket in one send.
    #[arg(long)]
    coalesce: bool,
}

/// Arguments of the child, which `run` starts.
#[derive(clap::Args)]
pub(crate) struct ChildArgs {
    #[arg(long)]
    subscribers: usize,
    #[arg(long)]
    payload_bytes: usize,
    #[arg(long)]
    coalesce: bool,
    #[arg(long)]
    cpu: Option<usize>,
}

/// What a server would send for the event: an unmasked text frame.
fn frame_of(slot: usize, number: u32, payload_bytes: usize) -> Vec<u8> {
    let payload = payload::make(slot, u64::from(number), payload_bytes);
    let text = format!(r#"{{"event":"e","data":"{payload}","channel":"private-fanout"}}"#);
    let mut frame = vec![0x81];
    match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(short @ 0..=125), _) => frame.push(short),
        (_, Ok(medium)) => {
            frame.push(126);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(text.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// The child: prints its port, accepts the sockets, then sends one event for each byte (its slot) on standard input,
/// until that ends.
pub(crate) fn run_child(args: &ChildArgs) -> io::Result<()> {
    if let Some(cpu) = args.cpu {
        sys::pin_to_cpu(cpu)?;
    }
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?.port());
    let mut sockets = Vec::with_capacity(args.subscribers);
    while sockets.len() < args.subscribers {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    let mut numbers = [0u32; SLOTS_MAX];
    let mut orders = [0u8; SLOTS_MAX];
    loop {
        let count = io::stdin().read(&mut orders)?;
        if count == 0 {
            return Ok(());
        }
        let mut frames = orders[..count].iter().map(|&slot| {
            let number = numbers[usize::from(slot)];
            numbers[usize::from(slot)] += 1;
            frame_of(usize::from(slot), number, args.payload_bytes)
        });
        if args.coalesce {
            send_to_all(&mut sockets, &frames.collect::<Vec<_>>().concat())?;
        } else {
            frames.try_for_each(|frame| send_to_all(&mut sockets, &frame))?;
        }
    }
}

fn send_to_all(sockets: &mut [TcpStream], bytes: &[u8]) -> io::Result<()> {
    sockets.iter_mut().try_for_each(|socket| socket.write_all(bytes))
}

struct Floor {
    sink: Sink,
    opened: usize,
    orders: ChildStdin,
    running: bool,
}

impl Floor {
    fn publish(&mut self, slots: &[usize]) {
        let mut bytes = Vec::with_capacity(slots.len());
        for &slot in slots {
            self.sink.publish(slot, Instant::now());
            bytes.push(u8::try_from(slot).expect("fewer slots than a byte counts"));
        }
        if let Err(error) = self.orders.write_all(&bytes) {
            self.sink.violations.add(|| format!("the child does not listen: {error}"));
        }
    }
}

impl Load for Floor {
    /// Events that are complete by the end of a round follow together: the child coalesces them.
    fn act(&mut self, _: &mut Pool, _: Instant) -> Option<Instant> {
        let completed = std::mem::take(&mut self.sink.completed);
        if self.running && !completed.is_empty() {
            self.publish(&completed);
        }
        None
    }

    fn rest(&mut self) {
        self.running = false;
    }

    fn waits(&self) -> bool {
        self.sink.in_flight() > 0
    }

    fn progress(&self) -> u64 {
        self.sink.deliveries
    }

    fn failed(&self) -> bool {
        self.sink.violations.count > 0
    }

    fn stalled(&mut self, waited: Duration) {
        self.sink.report_missing(waited);
    }
}

impl Handler for Floor {
    fn on_open(&mut self, _: &mut Pool, _: Key) {
        self.opened += 1;
    }

    fn on_message(&mut self, _: &mut Pool, key: Key, message: &[u8]) {
        if !self.sink.take(key.number(), message) {
            let text = || format!("not a delivery: {}", String::from_utf8_lossy(message));
            self.sink.violations.add(text);
        }
    }

    fn on_close(&mut self, _: &mut Pool, _: Key, why: CloseWhy) {
        self.sink.violations.add(|| format!("the child closed: {why}"));
    }
}

fn start_child(
    bench: &Bench,
    shape: &ShapeArgs,
    coalesce: bool,
) -> io::Result<(Child, SocketAddrV4)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("floor-child");
    command.args(["--subscribers", &shape.subscribers.to_string()]);
    command.args(["--payload-bytes", &shape.payload_bytes.to_string()]);
    if coalesce {
        command.arg("--coalesce");
    }
    // One thread: it takes the first CPU of the server's list.
    let first = bench.server_cpus.as_deref().and_then(|list| list.split([',', '-']).next());
    if let Some(cpu) = first {
        command.args(["--cpu", cpu]);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let output = child.stdout.take().expect("its output is piped");
    BufReader::new(output).read_line(&mut line)?;
    let port = line.trim().parse().map_err(io::Error::other)?;
    Ok((child, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)))
}

fn open_all(pool: &mut Pool, floor: &mut Floor, count: usize) -> io::Result<()> {
    for number in 0..count {
        pool.open_as(Goal::BareFrames, Tag::new(0, number))?;
        // The accept queue of the child is short.
        let end = Instant::now() + load::STALL;
        while floor.opened <= number && floor.sink.violations.count == 0 {
            pool.poll(Duration::from_millis(50), floor)?;
            if Instant::now() > end {
                return Err(io::Error::other("the child does not accept"));
            }
        }
    }
    Ok(())
}

/// Adds the figures with `slots` in flight; returns the child's CPU per delivery in microseconds.
pub(super) fn measure(
    bench: &Bench,
    shape: &ShapeArgs,
    slots: usize,
    coalesce: bool,
    report: &mut Report,
    prefix: &str,
) -> io::Result<f64> {
    let (mut child, address) = start_child(bench, shape, coalesce)?;
    let servers = Servers::attach(Some(child.id()), address);
    let mut pool = Pool::new(address, false, &[], "")?;
    let mut floor = Floor {
        sink: Sink::new(shape.subscribers, shape.subscribers, slots, shape.payload_bytes),
        opened: 0,
        orders: child.stdin.take().expect("its input is piped"),
        running: true,
    };
    open_all(&mut pool, &mut floor, shape.subscribers)?;
    floor.publish(&(0..slots).collect::<Vec<_>>());
    bench.telemetry.phase(format!("warm up, floor, {slots} in flight"), 0);
    load::drive(&bench.telemetry, &mut pool, &mut floor, WARM_UP)?;
    floor.sink.forget_latencies();
    bench.telemetry.phase(format!("floor, {slots} in flight"), 0);
    let (window, before) = (Window::open(&servers), floor.sink.deliveries);
    let time = Duration::from_secs(shape.seconds);
    load::drive(&bench.telemetry, &mut pool, &mut floor, time)?;
    let used = window.close(&servers);
    let deliveries = floor.sink.deliveries - before;
    let prefix = format!("{prefix}{slots} in flight: ");
    used.report(report, &prefix, ("delivery", "deliveries"), deliveries);
    report.count(format!("{prefix}events"), floor.sink.last.0.len());
    report.latency(format!("{prefix}publish to last delivery"), &floor.sink.last);
    load::drain(&bench.telemetry, &mut pool, &mut floor)?;
    let Floor { sink, orders, .. } = floor;
    report.add_violations(sink.violations);
    // The end of its input ends the child.
    drop(orders);
    child.wait()?;
    Ok(us_each(used.server, deliveries))
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let mut report = Report::new("floor");
    report.count("subscribers", args.shape.subscribers as u64);
    report.count("payload bytes", args.shape.payload_bytes as u64);
    report.flag("coalesced", args.coalesce);
    for &slots in &args.shape.in_flight {
        measure(bench, &args.shape, slots, args.coalesce, &mut report, "")?;
    }
    Ok(report)
}
