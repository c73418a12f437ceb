//! The floor under `fanout`: a child process that holds the sockets and does nothing but send.
//!
//! The same frames go to the same sink through the same closed loop; there is no publisher, no
//! parsing and no WebSocket. What remains is the kernel's TCP stack, which no server gets below
//! unless it puts several frames into one send (`--coalesce` shows what that is worth).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use super::Bench;
use super::fanout::{self, POLL, STALL, WARM_UP, Window};
use crate::pool::{CloseWhy, Goal, Handler, Key, Pool};
use crate::report::Report;
use crate::server::Server;
use crate::sink::{self, Sink};
use crate::sys;

// clap names a group after its struct, and both are called Args.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    fanout: fanout::Args,
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
    let payload = sink::payload(slot, number, payload_bytes);
    let payload = std::str::from_utf8(&payload).expect("the payload is ASCII");
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

/// The child: says its port, accepts the sockets, then sends one event for each byte (its slot) on
/// standard input, until that ends.
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
    let mut numbers = [0u32; sink::SLOTS_MAX];
    let mut orders = [0u8; sink::SLOTS_MAX];
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
    /// Which subscriber a pool index is: they are opened in order into an empty pool.
    opened: usize,
    orders: ChildStdin,
    running: bool,
    closed: bool,
}

impl Floor {
    fn publish(&mut self, slots: &[usize]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(slots.len());
        for &slot in slots {
            self.sink.publish(slot);
            bytes.push(u8::try_from(slot).expect("fewer slots than a byte counts"));
        }
        self.orders.write_all(&bytes)
    }

    fn serve_until(
        &mut self,
        pool: &mut Pool,
        end: Instant,
        done: impl Fn(&Self) -> bool,
    ) -> io::Result<()> {
        let mut progress = (Instant::now(), self.sink.deliveries);
        while Instant::now() < end && !done(self) && self.sink.violations.count == 0 {
            pool.poll(POLL, self)?;
            let completed = std::mem::take(&mut self.sink.completed);
            if self.running && !completed.is_empty() {
                self.publish(&completed)?;
            }
            if self.sink.deliveries > progress.1 {
                progress = (Instant::now(), self.sink.deliveries);
            } else if progress.0.elapsed() > STALL || self.closed {
                self.sink.report_missing(STALL);
                return Err(io::Error::other("the child does not send"));
            }
        }
        Ok(())
    }
}

impl Handler for Floor {
    fn on_open(&mut self, _: &mut Pool, _: Key) {
        self.opened += 1;
    }

    fn on_message(&mut self, _: &mut Pool, key: Key, message: &[u8]) {
        if !self.sink.take(key.index as usize, message) {
            let text = || format!("not a delivery: {}", String::from_utf8_lossy(message));
            self.sink.violations.add(text);
        }
    }

    fn on_close(&mut self, _: &mut Pool, _: Key, why: CloseWhy) {
        self.closed = true;
        self.sink.violations.add(|| format!("the child closed: {why}"));
    }
}

fn start_child(bench: &Bench, args: &Args) -> io::Result<(Child, SocketAddrV4)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("floor-child");
    command.args(["--subscribers", &args.fanout.subscribers.to_string()]);
    command.args(["--payload-bytes", &args.fanout.payload_bytes.to_string()]);
    if args.coalesce {
        command.arg("--coalesce");
    }
    if let Some(cpu) = &bench.server_cpus {
        command.args(["--cpu", cpu]);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let output = child.stdout.take().expect("its output is piped");
    BufReader::new(output).read_line(&mut line)?;
    let port = line.trim().parse().map_err(io::Error::other)?;
    Ok((child, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)))
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let mut report = Report::new("floor");
    report.count("subscribers", args.fanout.subscribers as u64);
    report.count("payload bytes", args.fanout.payload_bytes as u64);
    report.flag("coalesced", args.coalesce);
    for &slots in &args.fanout.in_flight {
        let (mut child, address) = start_child(bench, args)?;
        let server = Server::attach(Some(child.id()));
        let mut pool = Pool::new(address, "")?;
        let mut floor = Floor {
            sink: Sink::new(args.fanout.subscribers, slots, args.fanout.payload_bytes),
            opened: 0,
            orders: child.stdin.take().expect("its input is piped"),
            running: true,
            closed: false,
        };
        for number in 0..args.fanout.subscribers {
            pool.open(Goal::BareFrames)?;
            // The accept queue of the child is short.
            let end = Instant::now() + STALL;
            while floor.opened <= number && Instant::now() < end {
                pool.poll(POLL, &mut floor)?;
            }
        }
        floor.publish(&(0..slots).collect::<Vec<_>>())?;
        floor.serve_until(&mut pool, Instant::now() + WARM_UP, |_| false)?;
        let window = Window::open(&server, &mut floor.sink);
        let end = Instant::now() + Duration::from_secs(args.fanout.seconds);
        floor.serve_until(&mut pool, end, |_| false)?;
        window.close(&server, &floor.sink, &mut report, &format!("{slots} in flight"));
        floor.running = false;
        let end = Instant::now() + STALL;
        floor.serve_until(&mut pool, end, |floor| floor.sink.in_flight() == 0)?;
        floor.sink.report_missing(STALL);
        let Floor { sink, orders, .. } = floor;
        report.add_violations(sink.violations);
        // The end of its input ends the child.
        drop(orders);
        child.wait()?;
    }
    Ok(report)
}
